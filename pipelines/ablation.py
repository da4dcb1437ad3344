"""`tapewire ablate`: the ablation of a workspace, and its report on disk."""

import json
from collections.abc import Callable
from pathlib import Path

from data.lake import Lake
from pipelines.ablate import Ablation, ablate
from pipelines.dataset import load_panel, short_histories, survivorship
from pipelines.engine.base import Engine
from pipelines.engine.local import LOCAL
from pipelines.fitting import text_inputs
from pipelines.workspace import Workspace, replace_file


def ablate_workspace(
    workspace: Workspace, say: Callable[[str], None], engine: Engine = LOCAL
) -> tuple[Ablation, list[str], Path]:
    """Run it; returns the result, remarks a reader needs beside it, and where the whole report lies."""
    config = workspace.config
    panel = load_panel(workspace, config)
    embeddings, source = text_inputs(panel, config, workspace)
    result = ablate(panel, embeddings, config, say, engine)
    gone, remark = survivorship(panel)
    notes = [*short_histories(panel, config), remark]
    if not len(panel.news):
        notes.append("The lake holds no headlines for these tickers: only the price variant was run.")
    if result.missing:
        notes.append(f"{result.missing} test rows have no target (no bar on the next session); they are not scored.")
    hindsight = hindsight_share(workspace.lake)
    if hindsight:
        notes.append(f"{hindsight:.1%} of the links to tickers rest on names whose dates are unknown: hindsight.")
    report = {
        **result.as_dict(),
        "per_seed": result.seeds_as_dict(),
        "missing_targets": result.missing,
        "delisted_tickers": gone,
        "notes": notes,
        "backfilled_share": backfilled_share(workspace.lake),
        "hindsight_share": hindsight,
        "text_fingerprint": source.fingerprint if source else None,
        "config": config.model_dump(mode="json", exclude_none=True),
    }
    path = workspace.reports / "ablation.json"
    replace_file(path, json.dumps(report, indent=1, allow_nan=False).encode())
    return result, notes, path


def backfilled_share(lake: Lake) -> dict[str, float]:
    """Share of the rows, by table, that were not seen live: their stamps are claims of a file."""
    shares = {}
    for table in ("bars", "headlines"):
        origin = lake.frame(table, ["origin"])["origin"]
        shares[table] = float((origin == "backfill").mean()) if len(origin) else 0.0
    return shares


def hindsight_share(lake: Lake) -> float:
    """Share of the links from headlines to tickers that only today's knowledge of names can make."""
    links = lake.frame("links", ["hindsight"])["hindsight"]
    return float(links.mean()) if len(links) else 0.0
