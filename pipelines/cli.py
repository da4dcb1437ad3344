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
feeding = typer.Typer(help="The feeds of this workspace and those known.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(feeding, name="feeds")
linking = typer.Typer(help="Which tickers a headline is about.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(linking, name="link")
pricing = typer.Typer(help="The prices of this workspace.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(pricing, name="prices")

Json = Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of tapewire.toml.")]
Map = Annotated[str | None, typer.Option("--map", metavar="OURS=THEIRS,...", help="Names of your columns.")]
Files = Annotated[list[Path], typer.Argument(help="CSV or Parquet files.")]
AsOf = Annotated[str | None, typer.Option("--as-of", metavar="WHEN", help="Instant with offset, or a session's date.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="The newest so many only.")]

# What torch and its OpenMP read when they are loaded; a user's own settings win. Figures in docs/performance.md.
RUNTIME = {
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait starve whoever shares the cores,
    "GOMP_SPINCOUNT": "10000",  # but a few microseconds of it spare most sleeps
    "THP_MEM_ALLOC_ENABLE": "1",  # huge pages: a batch's tensors cost 15 times fewer page faults
}


def main() -> None:
    """Run the command line; a user's mistake is one paragraph on stderr and exit code 2."""
    for name, value in RUNTIME.items():
        os.environ.setdefault(name, value)
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
    mapping, parsed = parse_mapping(map_), imports.parse_basis(basis)
    with workspace.lock("ingest"):
        result = imports.import_prices(workspace.lake, files, mapping, workspace.config.calendar, parsed, ticker)
    _print(result.as_dict(), json, lambda: f"{_imported(result)} {result.actions_added} new dividends and splits.")


@importing.command("headlines")
def import_headlines_command(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...", help="CSV, Parquet or JSON lines files; or hf:OWNER/NAME[:CONFIG][@REVISION][#SPLIT]."
        ),
    ],
    map_: Map = None,
    preset: Annotated[
        str | None, typer.Option(help="The corpus these are; known by their columns if left out: see docs/corpora.md.")
    ] = None,
    tz: Annotated[str | None, typer.Option(help="IANA zone of stamps that carry none.")] = None,
    lag: Annotated[str, typer.Option(help="How long after its stamp a headline was known, such as 15min.")] = "0s",
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Store headlines and the tickers they are about."""
    from data.tabular import parse_mapping
    from pipelines import imports
    from pipelines.linking import find_tickers

    workspace = _workspace(sets)
    calendar, find = workspace.config.calendar, find_tickers(workspace)
    with workspace.lock("ingest"):
        result = imports.import_headlines(
            workspace.lake, sources, parse_mapping(map_), calendar, tz, lag, preset=preset, find=find
        )
    summary = f"{_imported(result)} {result.links_added} new links to tickers."
    _print(result.as_dict(), json, lambda: "\n".join([*result.notes(), summary]))


@app.command()
def ingest(
    news: Annotated[bool, typer.Option("--news", help="Read the feeds of [[news.feeds]].")] = False,
    prices: Annotated[
        bool, typer.Option("--prices", help="Get the watchlist's bars from the vendor of [tape].")
    ] = False,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Read every feed, or every ticker's prices, once and store what is new. Exit code 3: some failed; 4: all did."""
    from data.errors import ConfigError

    if not (news or prices):
        raise ConfigError("ingest: expected what to read, found nothing. Say --news, --prices or both.")
    workspace = _workspace(sets)
    jobs = {"news": _ingest_news, "prices": _ingest_prices}
    wanted = [name for name, said in (("news", news), ("prices", prices)) if said]
    results = {name: jobs[name](workspace) for name in wanted}
    records: dict[str, object] = {name: record for name, (_, record, _) in results.items()}
    texts = [text for _, _, text in results.values()]
    _print(records if len(wanted) > 1 else results[wanted[0]][1], json, lambda: "\n".join(texts))
    codes = {code for code, _, _ in results.values()}
    raise typer.Exit(codes.pop() if len(codes) == 1 else 3)


def _ingest_news(workspace: "Workspace") -> tuple[int, dict[str, object], str]:
    """The exit code, the record and the text of one job."""
    from pipelines.ingest import ingest_news
    from pipelines.table import ingest_table

    result = ingest_news(workspace)
    return result.exit_code, result.as_dict(), ingest_table(result)


def _ingest_prices(workspace: "Workspace") -> tuple[int, dict[str, object], str]:
    from pipelines.ingest_prices import ingest_prices
    from pipelines.progress import progress_bar
    from pipelines.table import tape_table

    with progress_bar("Prices") as advance:
        result = ingest_prices(workspace, advance=advance)
    return result.exit_code, result.as_dict(), tape_table(result)


@pricing.command("check")
def check_prices_command(
    files: Annotated[list[Path] | None, typer.Argument(help="Files to check before import; else the lake.")] = None,
    map_: Map = None,
    ticker: Annotated[str | None, typer.Option(help="Ticker of files without such a column.")] = None,
    basis: Annotated[str, typer.Option(help="What the prices are: raw | split | total adjusted.")] = "split",
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Flag what is wrong with prices. Exit code 3: rows would be left out; 2: a file would be refused."""
    from data.prices.files import PriceTerms
    from data.tabular import parse_mapping
    from pipelines import imports, quality
    from pipelines.instants import utc_now

    workspace, now = _workspace(sets), utc_now()
    if files:
        terms = PriceTerms(parse_mapping(map_), workspace.config.calendar, imports.parse_basis(basis), ticker, now)
        result = quality.check_files(workspace, files, terms)
    else:
        result = quality.check_lake(workspace, now)
    _print(result.as_dict(), json, lambda: quality.quality_table(result))
    raise typer.Exit(result.exit_code)


@feeding.command("check")
def check_feeds_command(sets: Sets = None, json: Json = False) -> None:
    """Fetch every configured feed once, store nothing, and print how healthy each is."""
    from pipelines.feeds import check_feeds
    from pipelines.table import health_table

    result = check_feeds(_workspace(sets))
    _print(result.as_dict(), json, lambda: health_table(result))
    raise typer.Exit(result.exit_code)


@feeding.command("list")
def list_feeds_command(json: Json = False) -> None:
    """Print the known feeds; [[news.feeds]] takes one by its name."""
    from pipelines.feeds import known_feeds
    from pipelines.table import lines

    known = known_feeds()
    _print({"feeds": known}, json, lambda: lines(known, ("name", "about", "url")))


@linking.command("explain")
def explain_link_command(
    headline: str,
    at: Annotated[str | None, typer.Option(help="Instant with offset, or a session's date; now by default.")] = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Show which rule links a headline to which ticker, and why the others do not."""
    from pipelines.instants import parse_instant
    from pipelines.linking import explain
    from pipelines.table import lines

    workspace = _workspace(sets)
    found = explain(workspace, headline, parse_instant(at, workspace.config, "--at"))
    columns = ("ticker", "linked", "confidence", "rule", "text", "why")
    _print({"links": found}, json, lambda: lines(found, columns) if found else "No ticker was found in it.")


@linking.command("update")
def update_links_command(sets: Sets = None, json: Json = False) -> None:
    """Link the headlines in the lake that no feed or file labelled, with today's alias files."""
    from pipelines.instants import utc_now
    from pipelines.linking import relink

    workspace = _workspace(sets)
    with workspace.lock("ingest"):
        added = relink(workspace, utc_now())
    _print({"links_added": added}, json, lambda: f"{added} new links to tickers.")


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
    from pipelines.instants import parse_session, utc_now
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
    from pipelines.instants import parse_instant

    workspace = _workspace(sets)
    instant = parse_instant(as_of, workspace.config)
    _print_lines(listing.headlines(workspace.lake, instant, limit), json, ("available_at", "tickers", "title"))


@app.command()
def bars(
    ticker: str,
    as_of: AsOf = None,
    adjusted: Annotated[bool, typer.Option("--adjusted", help="With adjusted closes and total returns.")] = False,
    limit: Limit = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """List the bars of one ticker in the lake."""
    from data.calendar import sessions
    from data.prices.markets import calendar_of
    from pipelines import listing
    from pipelines.instants import parse_instant

    workspace, ticker = _workspace(sets), ticker.upper()
    config = workspace.config
    instant = parse_instant(as_of, config)
    exchange = sessions(calendar_of(ticker, config.tape.calendars, config.calendar)) if adjusted else None
    values = ("split_close", "adjusted_close", "total_return") if adjusted else ("open", "high", "low", "volume")
    columns = ("session", "close", *values, "available_at")
    _print_lines(listing.bars(workspace.lake, ticker, instant, limit, exchange), json, columns)


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
