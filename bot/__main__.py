"""The command line: `python -m bot …`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from bot.core.errors import PromoteError
from bot.settings import Settings

cli = typer.Typer(
    name="promote-bot",
    help="Take one container image through dev, stage and prod in a GitOps repository, from Slack.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@cli.command()
def serve() -> None:
    """Run the whole bot in one process; without REDIS_URL it brings its own store."""
    _run(web_side=True, worker_side=True)


@cli.command()
def web() -> None:
    """Hear Slack: commands, clicks and modals. Needs REDIS_URL."""
    _run(web_side=True, worker_side=False)


@cli.command()
def worker() -> None:
    """Commit, follow and announce. Needs REDIS_URL."""
    _run(web_side=False, worker_side=True)


@cli.command()
def demo(
    *,
    port: Annotated[int, typer.Option(help="The page's port; 0 takes a free one.")] = 0,
) -> None:
    """Try everything on this machine: a simulated Slack and Argo CD, a real git repository, the real bot."""
    from bot.playground import demo as playground

    _complete(playground.run(port=port, say=typer.echo))


@cli.command()
def check() -> None:
    """Try everything that promote.yaml and the environment name, and say what is wrong."""
    from bot.check import check as look

    if not _complete(look(_settings(), say=typer.echo)):
        raise typer.Exit(1)


@cli.command()
def explain(
    app: Annotated[str, typer.Argument(help="An app of promote.yaml.")],
    environment: Annotated[str, typer.Argument(help="Where it would go.")],
    *,
    version: Annotated[
        str | None, typer.Option(help="Which version; without it, what the environment before runs.")
    ] = None,
    user: Annotated[str | None, typer.Option("--as", help="The Slack id of who would ask for it.")] = None,
    at: Annotated[
        datetime | None,
        typer.Option(
            parser=moment, metavar="MOMENT", help="As the clock would have it then, like 2026-12-24T10:00Z."
        ),
    ] = None,
) -> None:
    """Say whether a promotion could go, why not, and who could approve it. Exits with 0, 1 (no) or 2 (nobody can tell)."""
    from bot.explain import UNKNOWN
    from bot.explain import explain as look

    try:
        work = look(
            Settings.from_environment(),
            app=app,
            environment=environment,
            version=version,
            user=user,
            at=at,
            say=typer.echo,
        )
    except PromoteError as error:
        print(str(error), file=sys.stderr)
        raise typer.Exit(UNKNOWN) from error
    raise typer.Exit(_complete(work))


@cli.command()
def history(
    app: Annotated[str | None, typer.Argument(help="An app of promote.yaml; all of them without it.")] = None,
    environment: Annotated[str | None, typer.Argument(help="One of its environments.")] = None,
    *,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="From then on: 7d, 2026-11-01 or 2026-11-01T18:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="Before then; a day is included.")] = None,
    by: Annotated[
        str | None, typer.Option(metavar="WHO", help="Who asked: a name, a Slack id, hook:NAME, or CI.")
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print what was promoted, by whom and why, newest first. Needs git alone: no store, no Slack."""
    from bot.history import as_csv, as_json, as_table, read

    if csv and json:
        raise typer.BadParameter("Say --csv or --json, not both.")
    work = read(_settings(), app=app, environment=environment, since=since, until=until, by=by)
    printed = as_csv if csv else as_json if json else as_table
    sys.stdout.buffer.write(printed(_complete(work).entries).encode())


@cli.command()
def schema() -> None:
    """Print the JSON Schema of promote.yaml, for editors."""
    import json

    from bot.config_models import Config

    print(json.dumps(Config.model_json_schema(), indent=2))


@cli.command()
def manifest(
    *,
    url: Annotated[
        str | None, typer.Option(help="The bot's public address, for HTTP instead of Socket Mode.")
    ] = None,
    history: Annotated[
        bool,
        typer.Option("--history", help="Let it read its channels, so that no card is ever posted twice."),
    ] = False,
) -> None:
    """Print the manifest to create the Slack app from."""
    from bot.integrations.slack import HISTORY_SCOPES
    from handlers.manifest import manifest as text

    try:
        print(text(url, more_scopes=HISTORY_SCOPES if history else ()), end="")
    except PromoteError as error:
        _give_up(error)


@cli.command()
def edit(
    file: Annotated[Path, typer.Argument(help="A values file.", exists=True, dir_okay=False)],
    key: Annotated[str, typer.Argument(help="Where the version stands, like image.tag.")],
    version: Annotated[str, typer.Argument(help="The version to put there.")],
    *,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Write the file instead of printing it.")
    ] = False,
) -> None:
    """Print a values file with exactly one value changed, and every other byte as it was."""
    from bot.core.catalog import checked_version
    from bot.integrations.values import ValuesFile

    try:
        edited = ValuesFile(file.read_bytes(), str(file)).edited({key: checked_version(version)})
    except PromoteError as error:
        _give_up(error)
    if in_place:
        file.write_bytes(edited)
    else:
        sys.stdout.buffer.write(edited)


@cli.command()
def set_image(
    app: Annotated[str, typer.Argument(help="An app of promote.yaml.")],
    environment: Annotated[str, typer.Argument(help="Its first environment.")],
    version: Annotated[str, typer.Argument(help="The version that CI has built.")],
) -> None:
    """Write a version that CI has built into the first environment; later ones take a promotion."""
    from bot.ci import set_image as write

    print(_complete(write(_settings(), app=app, environment=environment, version=version)))


@cli.command()
def report_check(
    app: Annotated[str, typer.Argument(help="An app of promote.yaml.")],
    environment: Annotated[str, typer.Argument(help="The environment where the build was checked.")],
    version: Annotated[str, typer.Argument(help="The version that was checked.")],
    check: Annotated[str, typer.Argument(help="The check, as a policy names it.")],
    result: Annotated[Literal["pass", "fail"], typer.Argument(help="The verdict.")],
    *,
    digest: Annotated[str | None, typer.Option(help="Which build it was, sha256:….")] = None,
    said: Annotated[str | None, typer.Option(help="One line that people read.")] = None,
    link: Annotated[str | None, typer.Option(help="The address of the run.")] = None,
    delivery: Annotated[
        str | None, typer.Option(help="A name for this call; the same one counts once.")
    ] = None,
) -> None:
    """Report the verdict of a check to the running bot. Needs PROMOTE_URL, HOOK_NAME and HOOK_KEY."""
    from bot.reports import report_check as report

    fields = {
        "app": app,
        "environment": environment,
        "version": version,
        "digest": digest,
        "check": check,
        "result": result,
        "said": said,
        "link": link,
    }
    print(_complete(report(_settings(), fields, delivery=delivery)))


def moment(text: str) -> datetime:
    """`2026-12-24T10:00Z` as a moment; without a zone it is UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text} is no moment; write it like 2026-12-24T10:00Z.") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _run(*, web_side: bool, worker_side: bool) -> None:
    from bot.app import run

    _complete(run(_settings(), web_side=web_side, worker_side=worker_side))


def _settings() -> Settings:
    try:
        return Settings.from_environment()
    except PromoteError as error:
        _give_up(error)


def _complete(work: Coroutine[Any, Any, Any]) -> Any:
    """Run it to its end; an error of ours is one sentence and exit code 1, never a traceback."""
    try:
        return asyncio.run(work)
    except PromoteError as error:
        _give_up(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _give_up(error: PromoteError) -> NoReturn:
    print(str(error), file=sys.stderr)
    raise typer.Exit(1) from error


def main() -> None:
    """The entry point."""
    cli()


if __name__ == "__main__":
    main()
