"""The commands `nightly`, `scorecard` and `verify`. Parses and prints; no job."""

from typing import Annotated

import typer

from pipelines.options import Address, EngineName, Json, Sets, open_here, print_result, say

nights = typer.Typer()


@nights.command()
def nightly(
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="DATE", help="Make the night after this session again and compare.")
    ] = None,
    engine: EngineName = "local",
    address: Address = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Ingest, embed, score, settle and report every night that is due. Exit code 3: degraded; 4: nothing published."""
    from pipelines.engine import open_engine
    from pipelines.instants import parse_session, utc_now
    from pipelines.nightly import job
    from pipelines.nightly.replay import replay

    workspace = open_here(sets)
    with open_engine(engine, address) as opened:
        if as_of is not None:
            replayed = replay(workspace, parse_session(as_of), utc_now, opened)
            print_result(replayed.as_dict(), json, replayed.text)
            raise typer.Exit(replayed.exit_code)
        result = job.nightly(workspace, utc_now, None, say, opened)
    print_result(result.as_dict(), json, result.text)
    raise typer.Exit(result.exit_code)


@nights.command()
def scorecard(sets: Sets = None, json: Json = False) -> None:
    """How each model did live, the alarms, and the challengers that have earned a promotion."""
    from pipelines.scorecard.card import scorecard as job

    result = job(open_here(sets))
    print_result(result.as_dict(), json, result.markdown)


@nights.command()
def verify(
    head: Annotated[
        str | None, typer.Option("--head", metavar="SHA256", help="A seal that was noted elsewhere: it must be there.")
    ] = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Prove that nothing under a night's seal was added, changed or removed since. Exit code 3: something was."""
    from pipelines.scorecard.verify import verify as job

    result = job(open_here(sets), head)
    print_result(result.as_dict(), json, lambda: "\n".join(result.lines()))
    raise typer.Exit(result.exit_code)
