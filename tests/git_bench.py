"""What tests of git over a network share: edits as the engine makes them, answers to order, left-over processes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from git_hosts import HttpHost, Remote

from bot.core.catalog import Target
from bot.core.ports import Author, Edit
from bot.core.promotion import PromotionId

BOT = Author(name="promote-bot", email="promote-bot@acme.example")
AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECONDS_TO_END = 2


def edit_of(
    target: Target, base: str, *, old: str = "v14", new: str = "v15", promotion: str = "P-0123456789"
) -> Edit:
    """One promotion of the target, with the trailers that tell what it was."""
    trailers = {
        "Promotion-Id": promotion,
        "App": target.app,
        "Environment": target.environment,
        "New-Version": new,
    }
    lines = "\n".join(f"{name}: {value}" for name, value in trailers.items())
    return Edit(
        target=target,
        promotion=PromotionId(promotion),
        old=old,
        new=new,
        message=f"Promote {target.app} {new} to {target.environment}\n\nAs asked for.\n\n{lines}\n",
        author=Author(name="Zoë Ünal", email="zoe@acme.example"),
        at=AT,
        base=base,
        since=AT,
    )


def commits(remote: Remote) -> int:
    """How many commits the branch has."""
    return int(remote.git("rev-list", "--count", "main"))


def processes(cache: Path) -> dict[int, str]:
    """The command lines of all processes that git was started with from this cache, by their ids."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(cache).encode() in (entry / "environ").read_bytes():
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[int(entry.name)] = line
    return found


def is_quiet(cache: Path) -> bool:
    """Is nothing but the reading process left, once the kernel has carried out what was ended?"""
    ends_at = time.monotonic() + SECONDS_TO_END
    while any("cat-file" not in line for line in processes(cache).values()):
        if time.monotonic() > ends_at:
            return False
    return True


@contextmanager
def answering(
    host: HttpHost, where: str, status: int, *, headers: dict[str, str] | None = None, body: bytes = b""
) -> Iterator[list[str]]:
    """Within the block, every request whose address holds `where` is answered so; yields what was heard."""
    plain = host.RequestHandlerClass
    heard: list[str] = []

    class Answering(plain):  # type: ignore[misc, valid-type]
        def serve(self, content: bytes) -> None:
            if where not in self.path:
                super().serve(content)
                return
            heard.append(f"{self.requestline}\n{self.headers}")
            self.reply(status, headers or {}, body)

    host.RequestHandlerClass = Answering
    yield heard
    host.RequestHandlerClass = plain
