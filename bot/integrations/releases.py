"""Targets that follow a branch or tags: which revision they are at, what a new one would bring, and its tag."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence

from bot.core.catalog import Image, Release, Target
from bot.core.errors import Failed, Stale
from bot.core.ports import Edit, Plan
from bot.core.promotion import LineChange
from bot.integrations.mirror import Logged, Mirror
from bot.integrations.target_file import TargetFile
from bot.integrations.values import ValuesFile, line_changes

RECORD = "promote/"
"""Where a branch is moved forward, no commit of ours tells of it: a tag of the promotion's id does."""
MOST_CHANGES = 20
"""Lines of the values file that are shown; the commits say the rest."""

Sign = Callable[[bytes], bytes]


def held(mirror: Mirror, target: Target) -> str:
    """The revision that a target is at: the tip of its branch, or what its tag names. Raises `Failed`."""
    release = target.release
    if release is None or not release.tag:
        return mirror.tip
    tag = tag_in_force(mirror, target)
    if (revision := mirror.tagged(tag)) is None:
        raise Failed(f"{target.name} follows the tag {tag}, and {target.repository.name} has no such tag.")
    return revision


def tag_in_force(mirror: Mirror, target: Target) -> str:
    """The tag that a target follows now: the one that its pin names, or else the highest. Raises `Failed`."""
    release = target.release
    if release is None:
        raise Failed(f"{target.name} follows no tag.")
    if release.pin is None:
        if (newest := _newest_tag(mirror, release)) is None:
            raise Failed(
                f"{target.repository.name} has no tag like {release.tag_of('15')} yet. Make the first one by hand, on "
                f"what {target.environment} runs: git tag -a {release.tag_of('15')} <revision>, and push it."
            )
        return newest
    pin = release.pin
    tag = ValuesFile(mirror.blob(mirror.tip, pin.path), pin.path).value(pin.key).removeprefix("refs/tags/")
    if release.version_of(tag) is None:
        raise Failed(
            f"{pin.path}: {pin.key} is {tag[:60]}, which is no tag like {release.tag}. Put the tag there that "
            f"{target.environment} runs."
        )
    return tag


def stood(mirror: Mirror, target: Target, release: Release) -> tuple[str, ...]:
    """The version of the tag in force, and those of the lower ones, the highest first."""
    now = tag_in_force(mirror, target)
    lower = (tag for tag in _tags(mirror, release) if order(tag) < order(now))
    return tuple(version for tag in (now, *lower) if (version := release.version_of(tag)))


def plan(mirror: Mirror, target: Target, release: Release, image: Image, brings: str) -> Plan:
    """What it would be to bring a revision; without one, what the tag of the version or else the source branch has.

    Raises `Failed` where it holds another version, or where the target cannot go there.
    """
    now = held(mirror, target)
    wanted = brings or _offered(mirror, release, image)
    _require_source(mirror, release, wanted)
    before = mirror.blob(now, target.path)
    old, new = (TargetFile(each, target).image() for each in (before, mirror.blob(wanted, target.path)))
    if not new.may_be(image):
        raise Failed(f"{wanted[:8]} of {release.source} holds {new.version}, not {image.version}.")
    is_done = now == wanted or (not release.tag and mirror.contains(now, wanted))
    if not is_done:
        _require_way(mirror, target, release, now=now, wanted=wanted, version=image.version)
    changes = [
        *_pinned(mirror, release, image.version),
        *_changed(before, mirror.blob(wanted, target.path), target.path),
    ]
    return Plan(
        old_version=old.version, base=mirror.tip, changes=tuple(changes), is_done=is_done, brings=wanted
    )


def moved(mirror: Mirror, edit: Edit, release: Release, *, tip: str) -> str:
    """Where the branch is after the edit: at what that brings, or where it was. Raises `Stale` or `Failed`."""
    target = edit.target
    now = held(mirror, target) if release.tag else tip
    found = TargetFile(mirror.blob(now, target.path), target).image()
    if found.version != edit.old:
        raise Stale(expected=edit.old, found=found.version)
    _require_source(mirror, release, edit.brings)
    _require_way(mirror, target, release, now=now, wanted=edit.brings, version=edit.new)
    return tip if release.tag else edit.brings


def pinned(release: Release, raw: bytes, version: str) -> bytes:
    """The file with the pin at the tag of a version, and every other byte as it was."""
    pin = release.pin
    return ValuesFile(raw, pin.path).edited({pin.key: release.tag_of(version)}) if pin else raw


def tag_name(edit: Edit, release: Release) -> str:
    """The name of the tag that stands for the edit."""
    return release.tag_of(edit.new) if release.tag else f"{RECORD}{edit.promotion}"


def made_tag(
    mirror: Mirror, edit: Edit, release: Release, *, tagger: str, sign: Sign | None
) -> dict[str, str]:
    """The tag object that has to be pushed with the edit, by its name; nothing where the tag is there already."""
    name = tag_name(edit, release)
    if release.tag and _is_there(mirror, name, edit.brings):
        return {}
    if mirror.tagged(name):  # without its record nothing would tell who approved it
        raise Failed(
            f"The tag {name} is there already, and I did not make it. Take it away, and ask for the promotion again."
        )
    return {name: mirror.tag(name, edit.brings, tagger=tagger, message=edit.message, sign=sign)}


def is_brought(mirror: Mirror, edit: Edit, release: Release, revision: str) -> bool:
    """Is that what the edit brings, and is the target there? Who may make tags need not be let onto the branch."""
    return revision == edit.brings and (bool(release.tag) or mirror.contains(mirror.tip, revision))


def told(mirror: Mirror, by: tuple[str, str], *, besides: Sequence[Logged]) -> list[Logged]:
    """The tags of this tagger that tell of promotions which no commit tells of; records only of what the branch holds."""
    known = {_promotion(each) for each in besides}
    found = (*mirror.told_by_tags(RECORD, is_held=True), *mirror.told_by_tags(without=RECORD))
    return [each for each in found if each.committer == by and _promotion(each) not in known]


def _promotion(logged: Logged) -> str:
    return dict(reversed(logged.trailers)).get("Promotion-Id", "")


def _is_there(mirror: Mirror, name: str, revision: str) -> bool:
    """Does a tag stand on the revision? Raises `Failed` where it stands elsewhere."""
    if (found := mirror.tagged(name)) in (None, revision):
        return found is not None
    raise Failed(
        f"The tag {name} is there already, on {str(found)[:8]} and not on {revision[:8]}. "
        "Take it away, or build the version anew under another number."
    )


def _offered(mirror: Mirror, release: Release, image: Image) -> str:
    tagged = mirror.tagged(release.tag_of(image.version)) if release.tag else None
    if (found := tagged or mirror.head(release.source)) is None:
        raise Failed(f"There is no branch {release.source} that {image.version} could come from.")
    return found


def _require_source(mirror: Mirror, release: Release, revision: str) -> None:
    """Only what the branch before holds is brought, or what has been tagged before."""
    tip = mirror.head(release.source)
    if tip and mirror.knows(revision) and mirror.contains(tip, revision):
        return
    if release.tag and any(release.version_of(tag) for tag in mirror.tags(at=revision)):
        return
    raise Failed(f"The branch {release.source} does not hold {revision[:8]}.")


def _require_way(
    mirror: Mirror, target: Target, release: Release, *, now: str, wanted: str, version: str
) -> None:
    """Raise `Failed` where a branch would not go forward, or where the tag is elsewhere, or nobody would follow it."""
    branch = target.repository.branch
    if release.tag:
        _is_there(mirror, release.tag_of(version), wanted)
    if not release.tag and not mirror.contains(wanted, now):
        raise Failed(
            f"{branch} holds commits that {wanted[:8]} of {release.source} does not, so it cannot be moved "
            f"forward to it. Merge {branch} into {release.source} first, and ask again."
        )
    if release.tag and release.pin is None:
        newest, tag = _newest_tag(mirror, release), release.tag_of(version)
        if newest and order(tag) < order(newest):
            raise Failed(
                f"Argo CD follows the highest tag, and {tag} is below {newest}: nothing would change. Name the "
                f"place of targetRevision under pin in promote.yaml to go back, or build a higher version."
            )


def _newest_tag(mirror: Mirror, release: Release) -> str | None:
    """The highest tag of the target's form."""
    return next(iter(_tags(mirror, release)), None)


def _tags(mirror: Mirror, release: Release) -> list[str]:
    """The tags of the target's form, the highest first."""
    return sorted((tag for tag in mirror.tags() if release.version_of(tag)), key=order, reverse=True)


def order(tag: str) -> tuple[object, ...]:
    """By which tags are compared, as versions are: numbers as numbers, and `v1.0-rc1` before `v1.0`."""
    plain, _, pre = tag.partition("-")
    return (_numbered(plain), pre == "", _numbered(pre))


def _numbered(text: str) -> tuple[tuple[int, int, str], ...]:
    """Parts that can be compared one by one, whatever they are."""
    parts = re.findall(r"\d+|\D+", text)
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)


def _pinned(mirror: Mirror, release: Release, version: str) -> Iterator[LineChange]:
    if (pin := release.pin) is None:
        return
    before = mirror.blob(mirror.tip, pin.path)
    yield from line_changes(before, pinned(release, before, version), path=pin.path)


def _changed(before: bytes, after: bytes, path: str) -> list[LineChange]:
    """The lines of the file that differ, the first ones; a line that is new or gone stands against an empty one."""
    old, new = (each.decode("utf-8", "replace").splitlines() for each in (before, after))
    found: list[LineChange] = []
    for kind, start, end, from_, to in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        for step in range(max(end - start, to - from_)):
            was = old[start + step] if start + step < end else ""
            is_ = new[from_ + step] if from_ + step < to else ""
            found.append(LineChange(path=path, number=from_ + step + 1, before=was, after=is_))
    return found[:MOST_CHANGES]
