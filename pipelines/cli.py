"""The command `tapewire`. Parses and prints; every job is a function elsewhere.

Imports at the top stay light, so that `--help` is instant: what a command needs it imports itself.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data.errors import TapewireError

if TYPE_CHECKING:
    from pipelines.workspace import Workspace

app = typer.Typer(
    name="tapewire",
    help="News and prices to a calibrated next-session forecast. Research software: not financial advice.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
importing = typer.Typer(
    help="Store prices or headlines of your own files.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(importing, name="import")

Json = Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of tapewire.toml.")]
Map = Annotated[str | None, typer.Option("--map", metavar="OURS=THEIRS,...", help="Names of your columns.")]
Files = Annotated[list[Path], typer.Argument(help="CSV or Parquet files.")]
AsOf = Annotated[str | None, typer.Option("--as-of", metavar="WHEN", help="Instant with offset, or a session's date.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="The newest so many only.")]


def main() -> None:
    """Run the command line; a user's mistake is one paragraph on stderr and exit code 2."""
    # Threads that spin while they wait make small models many times slower when the cores have other work too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app(standalone_mode=True)
    except TapewireError as error:
        sys.stderr.write(f"tapewire: {error}\n")
        sys.exit(error.exit_code)


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="Folder to make.")], json: Json = False) -> None:
    """Make a workspace: a folder with a commented tapewire.toml."""
    from pipelines.template import init_workspace

    path = init_workspace(folder)
    _print({"path": str(path)}, json, lambda: f"Wrote {path}. Next: cd {folder}, then tapewire import prices FILE.")


@importing.command("prices")
def import_prices_command(
    files: Files,
    map_: Map = None,
    ticker: Annotated[str | None, typer.Option(help="Ticker of files without such a column.")] = None,
    basis: Annotated[str, typer.Option(help="What the prices are: raw | split | total adjusted.")] = "split",
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Store daily bars, and the dividends and splits that come with them."""
    from data.tabular import parse_mapping
    from pipelines import imports

    workspace = _workspace(sets)
    result = imports.import_prices(
        workspace.lake, files, parse_mapping(map_), workspace.config.calendar, imports.parse_basis(basis), ticker
    )
    _print(result.as_dict(), json, lambda: f"{_imported(result)} {result.actions_added} new dividends and splits.")


@importing.command("headlines")
def import_headlines_command(
    files: Files,
    map_: Map = None,
    tz: Annotated[str | None, typer.Option(help="IANA zone of stamps that carry none.")] = None,
    lag: Annotated[str, typer.Option(help="How long after its stamp a headline was known, such as 15min.")] = "0s",
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Store headlines and the tickers they are about."""
    from data.tabular import parse_mapping
    from pipelines import imports

    workspace = _workspace(sets)
    result = imports.import_headlines(workspace.lake, files, parse_mapping(map_), workspace.config.calendar, tz, lag)
    _print(result.as_dict(), json, lambda: f"{_imported(result)} {result.links_added} new links to tickers.")


@app.command()
def embed(sets: Sets = None, json: Json = False) -> None:
    """Embed every headline that has no vector yet."""
    from pipelines import embed as job
    from pipelines.progress import progress_bar

    workspace = _workspace(sets)
    with progress_bar("Embedding") as advance:
        result = job.embed(workspace.lake, workspace.embeddings, workspace.config.text, advance)
    _print(result.as_dict(), json, lambda: f"{result.texts} texts, {result.embedded} embedded now.")


@app.command()
def train(sets: Sets = None, json: Json = False) -> None:
    """Train one model and make it the current one."""
    from pipelines.fitting import train as job

    result = job(_workspace(sets))
    for note in result.notes:
        _say(note)
    summary = f"{result.epochs} epochs, validation loss {result.valid_nll:.4f}. Model: {result.folder}"
    _print(result.as_dict(), json, lambda: summary)


@app.command()
def ablate(sets: Sets = None, json: Json = False) -> None:
    """Measure what text adds: price, text and both on the same folds and seeds."""
    from pipelines.ablation import ablate_workspace
    from pipelines.table import ablation_table

    workspace = _workspace(sets)
    result, notes, path = ablate_workspace(workspace, _say)
    for note in notes:
        _say(note)
    _print(result.as_dict(), json, lambda: f"{ablation_table(result)}\nReport: {path}")


@app.command()
def score(
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="DATE", help="The decision after this session.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A model's id under runs/; the current one by default.")] = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Forecast every ticker for the session after a decision."""
    from pipelines.bundle import load_bundle
    from pipelines.imports import utc_now
    from pipelines.listing import parse_session
    from pipelines.score import score as job
    from pipelines.table import forecast_table

    workspace = _workspace(sets)
    session = None if as_of is None else parse_session(as_of)
    result = job(workspace, load_bundle(workspace.runs, model), session, utc_now())
    if result.in_sample:
        _say("The model was fitted with labels that settled after this decision: these forecasts prove nothing.")
    _print(result.as_dict(), json, lambda: forecast_table(result))


@app.command()
def headlines(as_of: AsOf = None, limit: Limit = None, sets: Sets = None, json: Json = False) -> None:
    """List the headlines in the lake."""
    from pipelines import listing

    workspace = _workspace(sets)
    instant = listing.parse_instant(as_of, workspace.config)
    _print_lines(listing.headlines(workspace.lake, instant, limit), json, ("available_at", "tickers", "title"))


@app.command()
def bars(ticker: str, as_of: AsOf = None, limit: Limit = None, sets: Sets = None, json: Json = False) -> None:
    """List the bars of one ticker in the lake."""
    from pipelines import listing

    workspace = _workspace(sets)
    instant = listing.parse_instant(as_of, workspace.config)
    columns = ("session", "open", "high", "low", "close", "volume", "available_at")
    _print_lines(listing.bars(workspace.lake, ticker.upper(), instant, limit), json, columns)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where the worlds are kept.")] = Path("tapewire-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Which simulated market.")] = 0,
    placebo: Annotated[bool, typer.Option("--placebo", help="A market whose news moves nothing.")] = False,
    json: Json = False,
) -> None:
    """Run the whole chain on a simulated market whose truth is known."""
    from pipelines.demo import run_demo
    from pipelines.table import demo_table

    result = run_demo(folder, seed, placebo, _say)
    _print(result.as_dict(), json, lambda: demo_table(result))


def _workspace(sets: list[str] | None) -> "Workspace":
    from pipelines.workspace import open_workspace

    return open_workspace(Path(), sets or ())


def _imported(result: Any) -> str:
    skipped = "".join(f", {rows} skipped ({reason})" for reason, rows in result.skipped.items())
    return f"{result.read} rows read, {result.added} new{skipped};"


def _say(message: str) -> None:
    """Progress and remarks: stderr, so that stdout stays the result's."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def _print(result: dict[str, object], as_json: bool, text: Callable[[], str]) -> None:
    import json

    sys.stdout.write((json.dumps(result, allow_nan=False) if as_json else text()) + "\n")


def _print_lines(records: Any, as_json: bool, columns: tuple[str, ...]) -> None:
    import json

    from pipelines.table import record_line

    for number, record in enumerate(records):
        if number == 0 and not as_json:
            sys.stdout.write("  ".join(columns) + "\n")
        line = json.dumps(record, ensure_ascii=False, allow_nan=False) if as_json else record_line(record, columns)
        sys.stdout.write(line + "\n")
