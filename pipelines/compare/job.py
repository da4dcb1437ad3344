"""`tapewire compare`: price encoders against each other by measurement, on one machine and the same data.

Reads top to bottom: the data (`data`), what is to be run (`grid`), the runs (`runs`: cost and
accuracy), what they allow to be said (`advice`), the page that says it (`page`). What is measured is
kept in `runs/compare.jsonl` and not measured again.
"""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from data.errors import ConfigError
from encoders.price.base import PriceConfig
from pipelines.compare.data import HOME, of_simulation, of_workspace
from pipelines.compare.grid import (
    COST_LAYERS,
    COST_LOOKBACK,
    COST_WIDTH,
    Grid,
    allowed,
    cost_layers,
    depths,
    price_config,
)
from pipelines.compare.ledger import Ledger
from pipelines.compare.page import write_page
from pipelines.compare.result import VARIED, Comparison
from pipelines.compare.runs import Say, Sizes, run_costs, run_fits, score_all
from pipelines.template import FILE
from pipelines.workspace import Workspace, open_workspace


def compare(
    folder: Path,
    grid: Grid,
    seeds: tuple[int, ...] | None,
    simulated: bool,
    out: Path | None,
    sets: Sequence[str],
    say: Say,
) -> Comparison:
    """Measure what the ledger lacks, and write the page and its plots.

    `folder` is a workspace, whose data are used unless `simulated`; where it is none, the market is simulated and
    ledger and page lie in `tapewire-compare/` there. `seeds` replace those of the settings. `out` is another place
    for the page; its plots lie in a folder of its name beside it.
    Raises ConfigError for sizes a kind does not take, LakeError where a fold has no samples.
    """
    if out is not None and out.suffix != ".md":
        raise ConfigError(f"--out {out}: expected a file that ends in .md; its plots go to the folder of its name.")
    inside = (folder / FILE).exists()
    data = of_workspace(open_workspace(folder, sets)) if inside and not simulated else of_simulation(sets)
    seeds = seeds or data.config.seeds
    layers, sizes, notes = plan(grid, data.config.price)
    workspace = Workspace(folder if inside else folder / HOME, data.config)
    workspace.folder.mkdir(parents=True, exist_ok=True)
    machine = _machine()
    with workspace.lock("compare"):
        ledger = Ledger(workspace.runs / "compare.jsonl")
        costs = run_costs(sizes, machine, ledger, say)
        fits = run_fits(layers, grid.shares, seeds, data, machine, ledger, say)
    scores, line, days = score_all(fits, data, seeds)
    options = [*grid.options(), "--seeds", ",".join(map(str, seeds)), *(["--simulated"] if simulated else [])]
    result = Comparison(
        grid=grid,
        data=data,
        seeds=seeds,
        costs=costs,
        scores=scores,
        line=line,
        days=days,
        notes=[*data.notes, *notes],
        machine=machine,
        on_gpu=torch.cuda.is_available(),
        command=" ".join(["tapewire compare", *options, *(f"--set {each}" for each in sets)]),
        page=out or workspace.reports / "compare.md",
    )
    write_page(result)
    return result


def plan(grid: Grid, base: PriceConfig) -> tuple[dict[str, list[int]], Sizes, list[str]]:
    """By kind the depths to fit and the sizes whose cost to measure, and a remark on each that a kind does not take."""
    wanted = {"lookback": grid.lookbacks, "width": grid.widths}
    layers: dict[str, list[int]] = {}
    sizes: Sizes = {}
    notes: list[str] = []
    for kind in grid.kinds:
        layers[kind], said = depths(kind, base, grid.layers)
        notes += said
        usual = {"lookback": COST_LOOKBACK, "width": COST_WIDTH, "layers": cost_layers(kind, base)}
        if usual["layers"] != COST_LAYERS:
            notes.append(f"The cost of {kind} is that of {usual['layers']} layer; it takes no more.")
        sizes[kind] = {}
        for name in VARIED:
            fixed = {key: value for key, value in usual.items() if key != name}
            values, said = allowed(kind, base, name, wanted[name], **fixed)
            notes += said
            sizes[kind][name] = {value: price_config(kind, base, **{**fixed, name: value}) for value in values}
    return layers, sizes, notes


def _machine() -> str:
    """What the costs were measured on, as far as it shapes them."""
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}, {threads}, torch {torch.__version__}"
