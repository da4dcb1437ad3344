"""Results as plain text for a terminal: aligned columns, no colour, the same in a file."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.metrics import METRICS, Interval

if TYPE_CHECKING:
    from pipelines.ablate import Ablation
    from pipelines.demo import Demo
    from pipelines.feeds import Checked
    from pipelines.ingest import Ingested
    from pipelines.score import Scored
    from pipelines.ticker_reads import PricesIngested

MOST_ROWS = 20
READ_COLUMNS = ("name", "outcome", "entries", "reason")
HEALTH_COLUMNS = ("newest_hours", "dated_share", "linked_share")


def ablation_table(result: "Ablation") -> str:
    """Variants and paired differences, each metric with its 95% interval."""
    rows = [*result.variants.items(), *result.paired.items()]
    body = [[name, *(_interval(metrics[metric]) for metric in METRICS)] for name, metrics in rows]
    seeds = ", ".join(map(str, result.seeds))
    head = f"{len(result.realised)} forecasts on {result.days.count} test sessions, mean of seeds {seeds}"
    return f"{head}; 95% intervals by bootstrap over whole days.\n{aligned([['', *METRICS], *body])}"


def demo_table(result: "Demo") -> str:
    """The ablation, each variant's share of its oracle, and where things lie."""
    shares = [["", "rank_ic", "oracle", "share of oracle"]]
    for name, metrics in result.ablation.variants.items():
        ic, best = metrics["rank_ic"].mean, result.oracle[name]
        share = "-" if ic is None or best < 1e-9 else f"{ic / best:.0%}"
        shares.append([name, "-" if ic is None else f"{ic:.4f}", f"{best:.4f}", share])
    results = f"Results: {result.folder} (tapewire.toml, reports/, runs/)"
    return f"{ablation_table(result.ablation)}\n\n{aligned(shares)}\n\n{result.verdict}\n{results}"


def forecast_table(result: "Scored") -> str:
    """The strongest forecasts by expected return, and what was not scored."""
    new = f"{result.added} of them new in the lake" if result.added else "none of them new: the lake held them all"
    head = f"{len(result.forecasts)} forecasts for {result.session}, {new} ({result.standing})."
    ranked = sorted(result.forecasts, key=lambda forecast: -forecast.mean)
    shown = ranked if len(ranked) <= MOST_ROWS else [*ranked[: MOST_ROWS // 2], *ranked[-MOST_ROWS // 2 :]]
    body = [
        [f.ticker, f"{f.mean:+.3%}", f"{f.prob_up:.3f}", f"{f.price:.2f}", f"{f.price_low:.2f}..{f.price_high:.2f}"]
        for f in shown
    ]
    abstained = [f"Not scored: {ticker}: {reason}" for ticker, reason in result.abstained.items()]
    table = aligned([["ticker", "mean", "P(up)", "price", "90% interval"], *body])
    if len(abstained) > MOST_ROWS:
        abstained = [*abstained[:MOST_ROWS], f"Nor {len(abstained) - MOST_ROWS} more: see abstained.csv"]
    return "\n".join([head, table, *abstained, f"All of them: {result.path}"])


def ingest_table(result: "Ingested") -> str:
    """One line a feed, and what was new."""
    head = f"{result.fed} of {len(result.feeds)} feeds read; {result.stored.headlines} new headlines, "
    return f"{lines([read.as_dict() for read in result.feeds], READ_COLUMNS)}\n{head}{result.stored.links} new links."


def tape_table(result: "PricesIngested") -> str:
    """One line a ticker that failed, and what was new."""
    failed = [read for read in result.reads if read.bad and read.outcome != "not-asked"]
    body = [[read.ticker, read.outcome, read.code, read.reason] for read in failed]
    parts = [aligned([["ticker", "outcome", "code", "reason"], *body])] if body else []
    if result.quarantined:
        rows = ", ".join(f"{code} {count}" for code, count in sorted(result.quarantined.items()))
        parts.append(f"{sum(result.quarantined.values())} rows were left out: {rows}.")
    if result.stopped:
        parts.append(
            f"{result.count('not-asked')} tickers were not asked: {result.stopped}. The next run goes on there."
        )
    complete, ended = result.count("fed", "current"), result.count("ended")
    gone = f", {ended} ended" if ended else ""
    parts.append(
        f"{complete} of {len(result.reads)} tickers are complete by {result.source}{gone}; "
        f"{result.stored.bars} new bars, {result.stored.actions} new dividends and splits."
    )
    return "\n".join(parts)


def health_table(result: "Checked") -> str:
    """One line a feed: how the fetch ended, how fresh its items are, how many have a stamp and a ticker."""
    return lines([health.as_dict() for health in result.feeds], (*READ_COLUMNS[:3], *HEALTH_COLUMNS, "reason"))


def lines(records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Records as an aligned table; what is missing is a dash."""
    return aligned([list(columns), *([_cell(record.get(column)) for column in columns] for record in records)])


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def record_line(record: Mapping[str, Any], columns: Sequence[str]) -> str:
    """One record of the lake on one line."""
    cells = [record[column] for column in columns]
    return "  ".join(",".join(cell) or "-" if isinstance(cell, list) else str(cell) for cell in cells)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns of text, each as wide as its widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _interval(value: Interval) -> str:
    return "-" if value.mean is None else f"{value.mean:+.4f} [{value.low:+.4f}, {value.high:+.4f}]"
