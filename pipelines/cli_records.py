"""Commands about records: what is fetched and imported, linked, checked and listed. Parses and prints; no job."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.options import AsOf, Files, Json, Limit, Map, Sets, open_here, print_lines, print_result

if TYPE_CHECKING:
    from pipelines.workspace import Workspace

records = typer.Typer()
importing = typer.Typer(
    help="Store prices or headlines of your own files.", no_args_is_help=True, rich_markup_mode=None
)
records.add_typer(importing, name="import")
feeding = typer.Typer(help="The feeds of this workspace and those known.", no_args_is_help=True, rich_markup_mode=None)
records.add_typer(feeding, name="feeds")
linking = typer.Typer(help="Which tickers a headline is about.", no_args_is_help=True, rich_markup_mode=None)
records.add_typer(linking, name="link")
pricing = typer.Typer(help="The prices of this workspace.", no_args_is_help=True, rich_markup_mode=None)
records.add_typer(pricing, name="prices")


@records.command()
def init(folder: Annotated[Path, typer.Argument(help="Folder to make.")], json: Json = False) -> None:
    """Make a workspace: a folder with a commented tapewire.toml."""
    from pipelines.template import init_workspace

    path = init_workspace(folder)
    print_result(
        {"path": str(path)}, json, lambda: f"Wrote {path}. Next: cd {folder}, then tapewire import prices FILE."
    )


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

    workspace = open_here(sets)
    mapping, parsed = parse_mapping(map_), imports.parse_basis(basis)
    with workspace.lock("ingest"):
        result = imports.import_prices(workspace.lake, files, mapping, workspace.config.calendar, parsed, ticker)
    print_result(
        result.as_dict(), json, lambda: f"{_imported(result)} {result.actions_added} new dividends and splits."
    )


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

    workspace = open_here(sets)
    calendar, find = workspace.config.calendar, find_tickers(workspace)
    with workspace.lock("ingest"):
        result = imports.import_headlines(
            workspace.lake, sources, parse_mapping(map_), calendar, tz, lag, preset=preset, find=find
        )
    summary = f"{_imported(result)} {result.links_added} new links to tickers."
    print_result(result.as_dict(), json, lambda: "\n".join([*result.notes(), summary]))


@records.command()
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
    workspace = open_here(sets)
    jobs = {"news": _ingest_news, "prices": _ingest_prices}
    wanted = [name for name, said in (("news", news), ("prices", prices)) if said]
    results = {name: jobs[name](workspace) for name in wanted}
    records: dict[str, object] = {name: record for name, (_, record, _) in results.items()}
    texts = [text for _, _, text in results.values()]
    print_result(records if len(wanted) > 1 else results[wanted[0]][1], json, lambda: "\n".join(texts))
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

    workspace, now = open_here(sets), utc_now()
    if files:
        terms = PriceTerms(parse_mapping(map_), workspace.config.calendar, imports.parse_basis(basis), ticker, now)
        result = quality.check_files(workspace, files, terms)
    else:
        result = quality.check_lake(workspace, now)
    print_result(result.as_dict(), json, lambda: quality.quality_table(result))
    raise typer.Exit(result.exit_code)


@feeding.command("check")
def check_feeds_command(sets: Sets = None, json: Json = False) -> None:
    """Fetch every configured feed once, store nothing, and print how healthy each is."""
    from pipelines.feeds import check_feeds
    from pipelines.table import health_table

    result = check_feeds(open_here(sets))
    print_result(result.as_dict(), json, lambda: health_table(result))
    raise typer.Exit(result.exit_code)


@feeding.command("list")
def list_feeds_command(json: Json = False) -> None:
    """Print the known feeds; [[news.feeds]] takes one by its name."""
    from pipelines.feeds import known_feeds
    from pipelines.table import lines

    known = known_feeds()
    print_result({"feeds": known}, json, lambda: lines(known, ("name", "about", "url")))


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

    workspace = open_here(sets)
    found = explain(workspace, headline, parse_instant(at, workspace.config, "--at"))
    columns = ("ticker", "linked", "confidence", "rule", "text", "why")
    print_result({"links": found}, json, lambda: lines(found, columns) if found else "No ticker was found in it.")


@linking.command("update")
def update_links_command(sets: Sets = None, json: Json = False) -> None:
    """Link the headlines in the lake that no feed or file labelled, with today's alias files."""
    from pipelines.instants import utc_now
    from pipelines.linking import relink

    workspace = open_here(sets)
    with workspace.lock("ingest"):
        added = relink(workspace, utc_now())
    print_result({"links_added": added}, json, lambda: f"{added} new links to tickers.")


@records.command()
def headlines(as_of: AsOf = None, limit: Limit = None, sets: Sets = None, json: Json = False) -> None:
    """List the headlines in the lake."""
    from pipelines import listing
    from pipelines.instants import parse_instant

    workspace = open_here(sets)
    instant = parse_instant(as_of, workspace.config)
    print_lines(listing.headlines(workspace.lake, instant, limit), json, ("available_at", "tickers", "title"))


@records.command()
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

    workspace, ticker = open_here(sets), ticker.upper()
    config = workspace.config
    instant = parse_instant(as_of, config)
    exchange = sessions(calendar_of(ticker, config.tape.calendars, config.calendar)) if adjusted else None
    values = ("split_close", "adjusted_close", "total_return") if adjusted else ("open", "high", "low", "volume")
    columns = ("session", "close", *values, "available_at")
    print_lines(listing.bars(workspace.lake, ticker, instant, limit, exchange), json, columns)


def _imported(result: Any) -> str:
    skipped = "".join(f", {rows} skipped ({reason})" for reason, rows in result.skipped.items())
    return f"{result.read} rows read, {result.added} new{skipped};"
