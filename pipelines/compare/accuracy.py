"""How good one price encoder is: a fit on one fold, its daily figures, and intervals over days and seeds.

A fit keeps its figures by day, which is all that a bootstrap over days needs. Does not decide anything: see
`advice`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student_t

from data.errors import LakeError
from data.panel import Panel
from data.splits import Fold
from data.windows import Samples
from fusion.calibration import Calibration, Heard
from fusion.head import DF_START, Distribution
from pipelines.config import TapewireConfig
from pipelines.dataset import eligible, samples
from pipelines.metrics import Days, Draws, rank_ic
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

    `seconds` is processor time of all threads, `wall` what the clock said.
    """
    nothing = np.zeros((len(panel.news.texts), 1), dtype=np.float16)
    processor, wall = time.process_time(), time.perf_counter()
    fitted = fit(panel, nothing, fold, config, seed)
    spent = {"seconds": time.process_time() - processor, "wall": time.perf_counter() - wall}
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


def draws_of(daily: Daily, line: Daily, days: Days) -> dict[str, Draws]:
    """The measures of one fit, as the days were and on each resampling of them.

    `gain` is how much less NLL a forecast has than `line`'s, in thousandths of a nat: more is better, 0 is no skill.
    """
    ranked = np.isfinite(daily.rank_ic)
    with np.errstate(invalid="ignore"):
        ic = days.sums(np.where(ranked, daily.rank_ic, 0.0)) / days.sums(ranked.astype(float))
    gain = MILLI * days.sums(line.nll - daily.nll) / days.sums(daily.rows)
    return {"rank_ic": ic, "gain": gain}


def over_seeds(of_seeds: Sequence[Draws]) -> Draws:
    """Mean over the seeds first, then over as many seeds drawn with replacement, draw by draw.

    The same seeds are drawn wherever there are as many, so a difference of two is paired in days and in seeds.
    """
    stacked = np.stack(of_seeds)
    drawn = np.random.default_rng(0).integers(len(stacked), size=stacked.shape)
    drawn[:, 0] = np.arange(len(stacked))
    mean: Draws = np.take_along_axis(stacked, drawn, axis=0).mean(axis=0)
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
