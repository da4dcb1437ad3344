"""How good one price encoder is: a fit on one fold, its daily figures, and intervals over days and seeds.

A fit keeps its figures by day, which is all that a bootstrap over days needs. Does not decide anything: see
`advice`.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import t as student_t

from data.errors import LakeError
from data.panel import Panel
from data.splits import Fold
from data.windows import Samples
from fusion.calibration import Calibration, Heard
from fusion.head import DF_START, Distribution
from pipelines.compare.cost import read_clock
from pipelines.compare.grid import Cell
from pipelines.config import TapewireConfig
from pipelines.dataset import eligible, samples
from pipelines.metrics import DRAWS, Days, Draws, rank_ic
from pipelines.predict import predict
from pipelines.train import fit, shock_ratio

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PARTS = ("valid", "test")
MEASURES = ("rank_ic", "gain")
MILLI = 1000.0  # gains are told in thousandths of a nat a forecast


@dataclass(frozen=True)
class Daily:
    """Figures by day, [D] each; days of several folds stand one after another.

    `session` is the day's place in the panel, `rows` counts its forecasts. `rank_ic` is its Spearman correlation
    across tickers, NaN where there are too few; `nll` the sum over its forecasts of the negative log likelihood of
    the return in units of the ticker's volatility, in nats.
    """

    session: Ints
    rows: Floats
    rank_ic: Floats
    nll: Floats

    @classmethod
    def of(cls, forecast: Distribution, realised: Floats, unit: Floats, session: Ints) -> "Daily":
        """`forecast` of the log returns `realised` [M], all of which are known; rows of a day may stand anywhere."""
        distinct, day = np.unique(session, return_inverse=True)
        each_day = Days(day, np.eye(len(distinct)))
        in_units = forecast.times(1 / unit)
        nll = -student_t.logpdf(realised / unit, in_units.df, in_units.location, in_units.scale)
        rows = each_day.sums(np.ones(len(day)))
        return cls(distinct, rows, rank_ic(forecast.mean, realised, each_day), each_day.sums(nll))

    @classmethod
    def concatenate(cls, parts: Sequence["Daily"]) -> "Daily":
        """The days of several folds."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def as_dict(self) -> dict[str, list[float | None]]:
        """JSON-ready; a day without a rank correlation has None."""
        lists = {field.name: getattr(self, field.name).tolist() for field in fields(self)}
        return {name: [None if value != value else value for value in values] for name, values in lists.items()}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "Daily":
        """What `as_dict` gave."""
        session = np.array(stored["session"], np.int64)
        return cls(session, *(np.array(stored[field.name], np.float64) for field in fields(cls)[1:]))


def measure(panel: Panel, fold: Fold, config: TapewireConfig, seed: int) -> dict[str, Any]:
    """Fit once and test: parameters, epochs, seconds and the daily figures of validation and test, JSON-ready.

    `seconds` is read off `read_clock`, `wall` off the wall's clock everywhere.
    """
    nothing = np.zeros((len(panel.news.texts), 1), dtype=np.float16)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    begun, wall = read_clock(device), time.perf_counter()
    fitted = fit(panel, nothing, fold, config, seed)
    spent = {"seconds": read_clock(device) - begun, "wall": time.perf_counter() - wall}
    daily = {}
    for name in PARTS:
        rows = settled(panel, getattr(fold, name), config)
        daily[name] = _daily(panel, predict(fitted, panel, nothing, rows, config), rows, config.target).as_dict()
    parameters = sum(parameter.numel() for parameter in fitted.model.parameters())
    return {"parameters": parameters, "epochs": fitted.epochs, **spent, **daily}


def no_skill(panel: Panel, fold: Fold, config: TapewireConfig) -> dict[str, Daily]:
    """The line to beat: no return is expected, and the spread is the ticker's volatility, calibrated as models are."""
    train, valid = (settled(panel, part, config) for part in (fold.train, fold.valid))
    _refuse_empty(valid, "validation", config)
    in_units, session = _realised(panel, valid, config.target) / _unit(panel, valid), valid.session
    ratio = shock_ratio(_realised(panel, train, config.target) / _unit(panel, train), train.session)
    calibration = Calibration.fit(Heard(_flat(len(valid)), _flat(len(valid))), in_units, session, ratio)
    daily = {}
    for name in PARTS:
        rows = settled(panel, getattr(fold, name), config)
        _refuse_empty(rows, name, config)
        flat = calibration.apply(Heard(_flat(len(rows)), _flat(len(rows)))).times(_unit(panel, rows))
        daily[name] = _daily(panel, flat, rows, config.target)
    return daily


def settled(panel: Panel, part: Ints, config: TapewireConfig) -> Samples:
    """The samples on the sessions of `part` whose target happened."""
    labelled = ~np.isnan(panel.labels[config.target])
    return samples(part, eligible(panel, config.price.lookback) & labelled)


def most_recent(fold: Fold, share: Fraction) -> Fold:
    """The fold with the newest `share` of its training sessions, at least one; validation and test as they are."""
    kept = max(1, round(len(fold.train) * share))
    return Fold(fold.train[len(fold.train) - kept :], fold.valid, fold.test)


def draw_blocks(sessions: Ints, seed: int = 0) -> Days:
    """Weights for the distinct `sessions` [M], resampled in blocks: a day has something in common with its neighbours.

    The circular blocks of Politis and Romano (1992), as long as the cube root of the number of days, rounded up.
    """
    distinct, day = np.unique(sessions, return_inverse=True)
    count = len(distinct)
    length = math.ceil(count ** (1 / 3))
    first = np.random.default_rng(seed).integers(count, size=(DRAWS, -(-count // length), 1))
    drawn = ((first + np.arange(length)) % count).reshape(DRAWS, -1)[:, :count]
    times = np.zeros((DRAWS, count))
    np.add.at(times, (np.arange(DRAWS)[:, None], drawn), 1.0)
    return Days(day, np.vstack([np.ones(count), times]))


def draws_of(daily: Daily, line: Daily, days: Days) -> dict[str, Draws]:
    """The measures of one fit, as the days were and on each resampling of them.

    `gain` is how much less NLL a forecast has than `line`'s, in thousandths of a nat: more is better, 0 is no skill.
    """
    ranked = np.isfinite(daily.rank_ic)
    with np.errstate(invalid="ignore"):
        ic = days.sums(np.where(ranked, daily.rank_ic, 0.0)) / days.sums(ranked.astype(float))
    gain = MILLI * days.sums(line.nll - daily.nll) / days.sums(daily.rows)
    return {"rank_ic": ic, "gain": gain}


def over_seeds(of_cells: Mapping[Cell, Sequence[Draws]]) -> dict[Cell, Draws]:
    """A measure of each cell from that of each of its seeds: their mean, on the days as they were and resampled.

    Resampled days tell how far a fit's figure is its days' luck. What seeds differ by beyond that is added as normal
    noise, each cell its own, for its fits are its own. Of one seed nothing is known of others, and nothing is added.
    """
    spread = {}
    for share in {cell[2] for cell in of_cells}:
        luck = np.random.default_rng([share.numerator, share.denominator])
        spread[share] = seed_spread([of for cell, of in of_cells.items() if cell[2] == share], luck)
    return {cell: _with_luck(cell, np.stack(of_seeds), spread[cell[2]]) for cell, of_seeds in of_cells.items()}


def seed_spread(of_cells: Sequence[Sequence[Draws]], luck: np.random.Generator) -> Floats:
    """Standard deviation of what a seed is worth, pooled over cells: [DRAWS], as uncertain as so few fits leave it.

    It is the variance between seeds on the days as they were, drawn as a normal sample of so many degrees of freedom
    says, less what the days put into it, which is how much more of it there is on resampled days; 0 where that is all.
    """
    freedom = len(of_cells) * (len(of_cells[0]) - 1)
    if not freedom:
        return np.zeros(DRAWS)
    between = np.mean([np.var(of_seeds, axis=0, ddof=1) for of_seeds in of_cells], axis=0)
    drawn = between[0] * freedom / luck.chisquare(freedom, size=DRAWS)
    by_days = between[1:].mean() - between[0]
    return np.asarray(np.sqrt(np.maximum(drawn - by_days, 0.0)))


def _with_luck(cell: Cell, of_seeds: Draws, spread: Floats) -> Draws:
    kind, layers, share = cell
    draw = np.random.default_rng([layers, share.numerator, share.denominator, *kind.encode()])
    mean: Draws = of_seeds.mean(axis=0)
    mean[1:] += draw.normal(size=DRAWS) * spread / np.sqrt(len(of_seeds))
    return mean


def _daily(panel: Panel, forecast: Distribution, rows: Samples, target: str) -> Daily:
    return Daily.of(forecast, _realised(panel, rows, target), _unit(panel, rows), rows.session)


def _realised(panel: Panel, rows: Samples, target: str) -> Floats:
    realised: Floats = panel.labels[target][rows.ticker, rows.session]
    return realised


def _unit(panel: Panel, rows: Samples) -> Floats:
    unit: Floats = panel.unit[rows.ticker, rows.session]
    return unit


def _flat(count: int) -> Distribution:
    return Distribution(np.zeros(count), np.ones(count), np.full(count, DF_START))


def _refuse_empty(rows: Samples, name: str, config: TapewireConfig) -> None:
    if len(rows) == 0:
        raise LakeError(
            f"expected samples in the {name} fold, found none with {config.price.lookback} bars behind them. Import "
            "more prices, shorten price.lookback, or mend the dates in [split]."
        )
