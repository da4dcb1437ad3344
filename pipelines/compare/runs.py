"""The measurements of a comparison, each made once: what the ledger holds already is taken from there."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from importlib.metadata import version
from itertools import product

import numpy as np
import torch

from data.splits import Fold
from encoders.price import PriceEncoderConfig
from pipelines.compare.accuracy import (
    MEASURES,
    PARTS,
    Daily,
    draw_blocks,
    draws_of,
    measure,
    most_recent,
    no_skill,
    over_seeds,
    settled,
)
from pipelines.compare.cost import BATCH, Cost, measure_apart
from pipelines.compare.data import Data
from pipelines.compare.grid import Cell, price_config
from pipelines.compare.ledger import Ledger, Record, key_of
from pipelines.compare.result import Costs, Score
from pipelines.config import TapewireConfig
from pipelines.metrics import Days, Draws

Say = Callable[[str], None]
Fit = tuple[int, int, Cell]  # seed, number of the fold, cell
BySeed = dict[int, dict[str, Draws]]  # a cell's measures on one part
Sizes = dict[str, dict[str, dict[int, PriceEncoderConfig]]]  # by kind, by what is varied, by its value


def run_costs(wanted: Sizes, machine: str, ledger: Ledger, say: Say) -> Costs:
    """The cost of every size, on this `machine`."""

    def cost(price: PriceEncoderConfig) -> Cost:
        told = price.model_dump(mode="json")
        key = key_of(cost=told, batch=BATCH, machine=machine, version=version("tapewire"))
        if key not in ledger:
            say(f"Cost of {price.kind}: lookback {price.lookback}, width {price.width}, {price.layers} layers")
            ledger.append(key, {"cost": told, **measure_apart(price)})
        return Cost(**{name: ledger[key][name] for name in ("parameters", "seconds", "bytes")})

    return {
        kind: {name: {value: cost(price) for value, price in of.items()} for name, of in by.items()}
        for kind, by in wanted.items()
    }


def run_fits(
    layers: dict[str, list[int]],
    shares: Sequence[Fraction],
    seeds: Sequence[int],
    data: Data,
    machine: str,
    ledger: Ledger,
    say: Say,
) -> dict[Fit, Record]:
    """Every fit; seeds outermost, so that a run cut short has whole seeds."""
    cells = [(kind, depth, share) for kind, of in layers.items() for depth, share in product(of, shares)]
    asked = list(product(seeds, range(len(data.folds)), cells))
    digest = data.digest
    keys = {fit: _key(fit, data, digest, machine) for fit in asked}
    todo = [fit for fit in asked if keys[fit] not in ledger]
    if len(todo) < len(asked):
        say(f"{len(asked) - len(todo)} of {len(asked)} fits are in {ledger.path} already")
    pace = _Pace([float(depth * share) for _, _, (_, depth, share) in todo])
    for fit in todo:
        seed, fold, (kind, depth, share) = fit
        record = _run(fit, data)
        named = {"kind": kind, "layers": depth, "share": str(share), "seed": seed, "fold": fold}
        ledger.append(keys[fit], {"fit": named, **record})
        say(f"Fitted {kind}, {depth} layers, {share} of the data, seed {seed}: {pace.told(record['wall'])}")
    return {fit: ledger[key] for fit, key in keys.items()}


def score_all(
    fits: dict[Fit, Record], data: Data, seeds: Sequence[int]
) -> tuple[dict[Cell, Score], dict[str, float], dict[str, int]]:
    """Scores by cell; the no-skill NLL and the number of days, by part.

    All cells share the resampled days.
    """
    folds = range(len(data.folds))
    lines = [no_skill(data.panel, fold, data.config) for fold in data.folds]
    line = {part: Daily.concatenate([each[part] for each in lines]) for part in PARTS}
    days = {part: draw_blocks(of.session) for part, of in line.items()}
    cells = list(dict.fromkeys(cell for _, _, cell in fits))
    records = {cell: {seed: [fits[seed, fold, cell] for fold in folds] for seed in seeds} for cell in cells}
    measured = {part: {cell: _by_seed(records[cell], part, line[part], days[part]) for cell in cells} for part in PARTS}
    draws = {part: _over_seeds(of) for part, of in measured.items()}
    scores = {
        cell: _score(
            [record for of in records[cell].values() for record in of],
            {part: {name: draws[part][name][cell] for name in MEASURES} for part in PARTS},
            {part: _points(measured[part][cell]) for part in PARTS},
        )
        for cell in cells
    }
    nll = {part: float(of.nll.sum() / of.rows.sum()) for part, of in line.items()}
    return scores, nll, {part: of.count for part, of in days.items()}


class _Pace:
    """How far a run of many fits is; one is reckoned to take as long as its layers times its share of the data."""

    def __init__(self, sizes: Sequence[float]) -> None:
        self._sizes = sizes
        self._done, self._spent = 0, 0.0

    def told(self, seconds: float) -> str:
        """After one more fit that took that long."""
        self._done, self._spent = self._done + 1, self._spent + seconds
        left = self._spent * sum(self._sizes[self._done :]) / sum(self._sizes[: self._done]) / 60
        return f"{seconds:.0f} s; {self._done} of {len(self._sizes)}, about {left:.0f} min left"


def _run(fit: Fit, data: Data) -> Record:
    seed, number, cell = fit
    fold, config = most_recent(data.folds[number], cell[2]), _config(data, cell)
    samples = len(settled(data.panel, fold.train, config))
    return {"samples": samples, **measure(data.panel, fold, config, seed)}


def _config(data: Data, cell: Cell) -> TapewireConfig:
    kind, layers, _ = cell
    return data.config.model_copy(update={"price": price_config(kind, data.config.price, layers=layers)})


def _key(fit: Fit, data: Data, digest: str, machine: str) -> str:
    seed, number, cell = fit
    fold, config = most_recent(data.folds[number], cell[2]), _config(data, cell)
    told = {name: config.model_dump(mode="json")[name] for name in ("price", "train", "target")}
    versions = [version("tapewire"), torch.__version__]
    return key_of(panel=digest, fold=_edges(fold), seed=seed, machine=machine, versions=versions, **told)


def _edges(fold: Fold) -> list[list[int]]:
    """First and last session of each part; between them are all."""
    return [[int(part[0]), int(part[-1])] for part in (fold.train, fold.valid, fold.test)]


def _by_seed(records: dict[int, list[Record]], part: str, line: Daily, days: Days) -> BySeed:
    """`records` has a seed's, one a fold."""
    return {seed: draws_of(_daily(of, part), line, days) for seed, of in records.items()}


def _over_seeds(of_cells: dict[Cell, BySeed]) -> dict[str, dict[Cell, Draws]]:
    return {
        name: over_seeds({cell: [each[name] for each in of.values()] for cell, of in of_cells.items()})
        for name in MEASURES
    }


def _points(of_seeds: BySeed) -> dict[int, dict[str, float | None]]:
    return {seed: {name: _plain(each[name][0]) for name in MEASURES} for seed, each in of_seeds.items()}


def _score(
    every: Sequence[Record],
    draws: dict[str, dict[str, Draws]],
    of_seeds: dict[str, dict[int, dict[str, float | None]]],
) -> Score:
    """Of the records of all seeds and folds of a cell, and of what was drawn from them."""
    return Score(
        parameters=every[0]["parameters"],
        samples=round(sum(record["samples"] for record in every) / len(every)),
        epochs=sum(record["epochs"] for record in every) / len(every),
        seconds=sum(record["seconds"] for record in every) / sum(record["epochs"] for record in every),
        draws=draws,
        of_seeds=of_seeds,
    )


def _daily(records: Sequence[Record], part: str) -> Daily:
    return Daily.concatenate([Daily.from_dict(record[part]) for record in records])


def _plain(value: np.floating) -> float | None:
    return float(value) if np.isfinite(value) else None
