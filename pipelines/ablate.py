"""What text adds over price alone: the same model with one input taken away, same folds, same seeds."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from data.errors import ConfigError
from data.panel import Panel
from data.splits import Fold, make_folds
from data.windows import Samples
from fusion.head import Distribution
from fusion.price_only import PriceOnlyConfig
from fusion.text_only import TextOnlyConfig
from pipelines.config import TapewireConfig
from pipelines.dataset import eligible, samples
from pipelines.engine.base import Engine
from pipelines.engine.local import LOCAL
from pipelines.metrics import Days, Draws, Interval, average, difference, evaluate_draws, intervals
from pipelines.predict import predict
from pipelines.train import Fitted, fit

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Ablation:
    """Forecasts of every variant and seed on the same test rows, and what they are worth.

    `ticker`, `session` and `realised` (log return of the target) are the test samples that settled, [M];
    `missing` counts those whose target never did (halts, delistings). `days` is the shared resampling.
    `fitted` is the last variant's model of the newest fold and first seed: what `train` would make.
    """

    variants: dict[str, dict[str, Interval]]
    paired: dict[str, dict[str, Interval]]
    per_seed: dict[str, dict[int, dict[str, Interval]]]
    ticker: npt.NDArray[np.object_]
    session: npt.NDArray[np.datetime64]
    realised: npt.NDArray[np.float64]
    days: Days
    seeds: tuple[int, ...]
    missing: int
    fitted: Fitted

    def as_dict(self) -> dict[str, object]:
        """The contract of `ablate --json`."""
        return {
            "variants": _table(self.variants),
            "paired": _table(self.paired),
            "n_sessions": self.days.count,
            "n_rows": len(self.realised),
            "seeds": list(self.seeds),
        }

    def seeds_as_dict(self) -> dict[str, object]:
        """Every seed's own result: {variant: {seed: {metric: interval}}}."""
        by_name = {name: {str(seed): of for seed, of in by.items()} for name, by in self.per_seed.items()}
        return {name: _table(by) for name, by in by_name.items()}


def ablate(
    panel: Panel,
    embeddings: npt.NDArray[np.float16],
    config: TapewireConfig,
    progress: Progress = lambda _: None,
    engine: Engine = LOCAL,
) -> Ablation:
    """Train and test `price`, `text` and `both` on every fold with every seed; a fit is a part to the engine.

    Without any headline only `price` is run. Raises ConfigError where `fusion.kind` fuses nothing.
    """
    fusions = _variants(config, has_news=len(panel.news) > 0)
    folds = make_folds(config.split, panel.sessions)
    usable = eligible(panel, config.price.lookback)
    tested = [samples(fold.test, usable) for fold in folds]
    rows = Samples(*(np.concatenate([getattr(part, name) for part in tested]) for name in ("ticker", "session")))
    realised = panel.labels[config.target][rows.ticker, rows.session]
    settled = np.isfinite(realised)
    days = Days.draw(rows.session[settled])
    variants = {name: config.model_copy(update={"fusion": fusion}) for name, fusion in fusions.items()}
    asked = list(product(config.seeds, variants, range(len(folds))))
    results = engine.map(_fit_and_forecast, _Study(panel, embeddings, variants, folds, tested), asked)
    draws: dict[str, dict[int, dict[str, Draws]]] = {name: {} for name in fusions}
    first: list[Fitted] = []
    for seed in config.seeds:
        for name in variants:
            parts = []
            for number in range(1, len(folds) + 1):
                progress(f"Fitting {name}, seed {seed}, fold {number} of {len(folds)}")
                fitted, tests = next(results)
                parts.append(tests)
            forecast = Distribution.concatenate(parts).take(settled)
            draws[name][seed] = evaluate_draws(forecast, realised[settled], days)
            if seed == config.seeds[0]:
                first.append(fitted)
    means = {name: average(list(of_seeds.values())) for name, of_seeds in draws.items()}
    others = [name for name in means if name != "both"] if "both" in means else []
    return Ablation(
        variants={name: intervals(mean) for name, mean in means.items()},
        paired={f"both-{name}": intervals(difference(means["both"], means[name])) for name in others},
        per_seed={name: {seed: intervals(of) for seed, of in by.items()} for name, by in draws.items()},
        ticker=np.array(panel.tickers, dtype=object)[rows.ticker[settled]],
        session=panel.sessions.labels[rows.session[settled]],
        realised=realised[settled],
        days=days,
        seeds=config.seeds,
        missing=int((~settled).sum()),
        fitted=first[-1],
    )


@dataclass(frozen=True)
class _Study:
    """What all fits share."""

    panel: Panel
    embeddings: npt.NDArray[np.float16]
    variants: dict[str, TapewireConfig]
    folds: list[Fold]
    tested: list[Samples]


def _fit_and_forecast(study: _Study, asked: tuple[int, str, int]) -> tuple[Fitted, Distribution]:
    """The model of a seed, a variant and a fold, and what it says of the fold's test rows."""
    seed, name, number = asked
    inputs, variant = (study.panel, study.embeddings), study.variants[name]
    fitted = fit(*inputs, study.folds[number], variant, seed)
    return fitted, predict(fitted, *inputs, study.tested[number], variant)


def _variants(config: TapewireConfig, has_news: bool) -> dict[str, object]:
    fusion = config.fusion
    if not (fusion.reads_price and fusion.reads_text):
        raise ConfigError(
            f'fusion.kind = "{fusion.kind}": expected one that reads both inputs, such as gated, so that taking one '
            "away means something. Set it with --set fusion.kind=gated."
        )
    price = PriceOnlyConfig(dropout=fusion.dropout)
    if not has_news:
        return {"price": price}
    return {"price": price, "text": TextOnlyConfig(dropout=fusion.dropout), "both": fusion}


def _table(of: dict[str, dict[str, Interval]]) -> dict[str, object]:
    return {name: {metric: value.as_dict() for metric, value in row.items()} for name, row in of.items()}
