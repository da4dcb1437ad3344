"""A night's page: `report.json`, `report.md` with the same facts, and `manifest.json` of what they were made with.

Whatever came from outside (tickers, vendors' and feeds' words) is escaped, so that it stays text on the page.
"""

import hashlib
import json
import os
import platform
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from data.schemas import SCHEMAS
from pipelines.nightly.ledger import Kept, Ledger, Result, stamp
from pipelines.nightly.outcome import plain
from pipelines.nightly.steps import Run
from pipelines.scorecard.card import scorecard
from pipelines.workspace import replace_file

MARKDOWN, JSON, MANIFEST = "report.md", "report.json", "manifest.json"
PACKAGES = (
    *("tapewire", "torch", "numpy", "pandas", "scipy", "pyarrow", "deltalake", "safetensors", "transformers"),
    *("accelerate", "exchange_calendars", "feedparser", "httpx2", "yfinance"),
)

_ACTIVE = re.compile(r"[\\`*_\[\]<>|#&~@$!]|:(?=//)|(?<=www)\.", re.IGNORECASE)


def write(run: Run, ledger: Ledger, kept: Kept, degraded: Sequence[str]) -> Result:
    """Write the three files of a scored, settled and sealed night; their paths."""
    report = report_of(run, ledger, kept, degraded)
    files = {
        MANIFEST: _text(manifest_of(run, kept, report["seal"])),
        JSON: _text(report),
        MARKDOWN: markdown(report) + "\n",
    }
    for name, text in files.items():
        replace_file(ledger.folder / name, text.encode())
    return {name: str(ledger.folder / name) for name in files}


def report_of(run: Run, ledger: Ledger, kept: Kept, degraded: Sequence[str]) -> Result:
    """The facts of a night, JSON-ready."""
    at = int(run.exchange.index([kept.session])[0])
    scored, settled = (ledger.result(name) or {} for name in ("score", "settle"))
    return {
        "session": str(kept.session),
        "target_session": str(run.exchange.target[at]),
        "decision_at": stamp(run.exchange.decision_at[at]),
        "recorded_by": stamp(kept.recorded_by),
        "made_at": stamp(kept.made_at),
        "attempts": ledger.attempts,
        "champion": kept.champion,
        "degraded": list(degraded),
        "ingested": ledger.result("ingest"),
        "embedded": ledger.result("embed"),
        "forecasts": scored["champion"],
        "challengers": scored["challengers"],
        "failed": scored["failed"],
        "settled": settled["settled"],
        "seal": settled["seal"],
        "scorecard": _short_card(run, at),
    }


def _short_card(run: Run, at: int) -> Result:
    """The scorecard as of the night, without its history."""
    card = scorecard(run.workspace, lambda: run.exchange.decision_at[at]).as_dict()
    models = [
        {
            "model_id": model["model_id"],
            "role": model["role"],
            "note": model["note"],
            **{name: model["live"][name] for name in ("nights", "rows", "measures", "why")},
        }
        for model in card["models"]
        if model["role"] != "retired"
    ]
    return {**card, "models": models}


def manifest_of(run: Run, kept: Kept, seal: Result) -> Result:
    """What a night was made with: to be compared where two machines or two days disagree."""
    workspace = run.workspace
    config = workspace.config.model_dump_json(exclude={"nightly": {"healthcheck", "webhook"}})
    return {
        "format": 1,
        "session": str(kept.session),
        "packages": _packages(),
        "python": platform.python_version(),
        "machine": _machine(),
        "engine": run.engine.name,
        "config_sha256": hashlib.sha256(config.encode()).hexdigest(),
        "champion": kept.champion,
        "challengers": list(kept.challengers),
        "recorded_by": stamp(kept.recorded_by),
        "made_at": stamp(kept.made_at),
        "rows": {table: workspace.lake.count(table) for table in SCHEMAS},
        "seal": seal["sha256"],
    }


@lru_cache(maxsize=1)
def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def _machine() -> dict[str, Any]:
    """What floating-point results may depend on."""
    return {
        "system": platform.platform(),
        "processor": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def markdown(report: Result) -> str:
    """The page of a report."""
    return "\n".join(_lines(report))


def _lines(report: Result) -> Iterator[str]:
    made = report["forecasts"]
    published = "published" if made["published"] else "**not published**"
    yield f"# Night of {report['session']}: forecasts for {report['target_session']}"
    yield ""
    scored = f"{made['scored']} of {made['members']} tickers scored ({made['coverage']:.1%})"
    yield f"{scored}, {published}, {made['standing']}."
    yield f"Decision {report['decision_at']}, rows recorded by {report['recorded_by']}, made {report['made_at']}."
    yield f"Champion `{report['champion']}`. Seal `{report['seal']['sha256']}`: note it where nobody can change it."
    yield from _section("Less than it should be", (f"- {safe(text)}" for text in report["degraded"]))
    yield from _section("Ingested", _ingested(report))
    yield from _section("Abstained", (f"- {safe(kind)}: {count}" for kind, count in made["abstained"].items()))
    yield from _section("Highest forecasts", _table(made["top"]))
    yield from _section("Lowest forecasts", _table(made["bottom"]))
    yield from _section("Challengers", _challengers(report))
    yield from _section("Settled", [_settled(report["settled"])])
    yield from _section("Scorecard", _card(report["scorecard"]))


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    """A heading and its lines; nothing where there are none."""
    found = list(lines)
    if found:
        yield from ("", f"## {title}", "", *found)


def _ingested(report: Result) -> Iterator[str]:
    for name, read in (report["ingested"] or {}).items():
        if name == "with":
            yield f"- with the night of {read}"
        elif read["broken"]:
            yield f"- {name}: {safe(read['broken'])}"
        else:
            added = ", ".join(f"{count} {what}" for what, count in read["added"].items())
            yield f"- {name}: {read['asked'] - read['failed']} of {read['asked']} read; new: {added}"
            if read.get("ended"):
                yield f"- ended: {safe(', '.join(read['ended']))}"
            if read.get("quarantined"):
                yield f"- left out: {safe(', '.join(f'{count} {code}' for code, count in read['quarantined'].items()))}"


def _table(rows: Sequence[Result]) -> Iterator[str]:
    if rows:
        yield "| ticker | mean return | P(up) | price | 90% interval |"
        yield "|---|---:|---:|---:|---:|"
    for row in rows:
        interval = f"{row['price_low']:.2f} to {row['price_high']:.2f}"
        numbers = f"{row['mean']:+.3%} | {row['prob_up']:.1%} | {row['price']:.2f} | {interval}"
        yield f"| {safe(row['ticker'])} | {numbers} |"


def _challengers(report: Result) -> Iterator[str]:
    for model_id, made in report["challengers"].items():
        yield f"- `{model_id}`: {made['scored']} of {made['members']} tickers scored"
    for model_id, why in report["failed"].items():
        yield f"- `{model_id}`: {safe(why)}"


def _settled(settled: Result) -> str:
    return (
        f"{settled['settled']} forecasts settled, {settled['missing']} missing, {settled['delisted']} delisted; "
        f"{settled['waiting']} still wait for a bar."
    )


def _card(card: Result) -> Iterator[str]:
    """Alarms and proposals, and each model's live record in a line."""
    for alarm in card["alarms"]:
        yield f"- **Alarm ({alarm['rule']})** {safe(alarm['model_id'])}: {safe(alarm['what'])}"
    for model_id in card["proposed"]:
        yield f"- Challenger `{model_id}` has beaten the champion: `tapewire models promote {model_id}` if you agree."
    for model in card["models"]:
        rank_ic = (model["measures"] or {}).get("rank_ic")
        told = f"live rank IC {rank_ic['mean']:.3f} ({rank_ic['low']:.3f} to {rank_ic['high']:.3f})" if rank_ic else ""
        told = told or ("" if model["why"] else "too few tickers for a rank IC")
        what = f"{model['nights']} nights, {told}" if told else model["why"]
        yield f"- {model['role']} `{model['model_id']}`: {safe(what)}"


def safe(text: str) -> str:
    """Text from outside as Markdown that shows it and does nothing else: one line, no link, table or tag."""
    return _ACTIVE.sub(lambda found: f"\\{found[0]}", plain(str(text)))


def _text(facts: Result) -> str:
    return json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
