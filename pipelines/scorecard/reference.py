"""What a model was like when it was trained: its inputs' histograms, and how good it was out of sample.

Kept in the bundle. The nightly job holds tonight's inputs against the first (`drift.py`), the scorecard the model's
live nights against the second (`alarms.py`). Nothing is chosen by it: the test fold that gives the band was used for
neither fitting nor stopping nor calibration.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from data.panel import Panel
from data.splits import Fold
from data.types import QUANTILES
from data.windows import Samples
from fusion.head import Distribution
from pipelines.config import TapewireConfig
from pipelines.dataset import eligible, samples
from pipelines.predict import predict
from pipelines.scorecard.drift import USUAL, inputs, outputs, place, psi_of_each
from pipelines.scorecard.measures import Outcomes, by_day, estimates
from pipelines.train import Embeddings, Fitted

Ints = npt.NDArray[np.int64]

MOST_SESSIONS = 250  # of training that histograms are taken from, evenly spread
MOST_ROWS = 300_000  # of the test fold that the band is taken from: whole sessions, evenly spread
DECILES = np.linspace(0.1, 0.9, 9)


def reference(
    fitted: Fitted, panel: Panel, embeddings: Embeddings, config: TapewireConfig, fold: Fold
) -> dict[str, Any]:
    """JSON-ready, finite and the same for the same model and panel.

    `inputs` has for each input decile `edges` and `counts` of training rows, and `usual`, the PSI that 99% of the
    reference's own nights stay below; `shared` names those with one value a session, which are not measured. The
    forecast's own mean and scale are taken from the test fold, or where it has no settled row from validation.
    `band` is the model on the test fold's settled rows, None where there are none.
    """
    usable = eligible(panel, config.price.lookback)
    news_window = config.news.window
    trained = samples(_spread(fold.train, MOST_SESSIONS), panel.mask & panel.member)
    histograms, shared = _histograms(inputs(panel, trained, news_window), trained.session)
    settled = usable & ~np.isnan(panel.labels[config.target])
    tested = _whole_sessions(samples(fold.test, settled))
    judged = tested if len(tested) else _whole_sessions(samples(fold.valid, usable))
    forecast = predict(fitted, panel, embeddings, judged, config)
    own, _ = _histograms(outputs(forecast), judged.session)
    return {
        "format": 1,
        "target": config.target,
        "news_window": news_window,
        "sessions": [str(panel.sessions.labels[at]) for at in (fold.train[0], fold.train[-1])],
        "inputs": histograms | own,
        "shared": shared,
        "band": _band(panel, tested, forecast, config.target) if len(tested) else None,
    }


def _histograms(values: dict[str, npt.NDArray[np.floating]], session: Ints) -> tuple[dict[str, Any], list[str]]:
    """Of each input that differs between tickers of a session; and the names of the others."""
    night, first = np.unique(session, return_index=True)  # rows are in order of session
    number = np.searchsorted(night, session)
    found, shared = {}, []
    for name, column in values.items():
        if len(column) > len(first) and not (column != column[first][number]).any() and np.ptp(column):
            shared.append(name)
            continue
        edges = np.unique(np.quantile(column.astype(np.float64), DECILES)) if len(column) else np.zeros(1)
        bins = len(edges) + 1
        of_nights = np.bincount(number * bins + place(column, edges), minlength=len(night) * bins).reshape(-1, bins)
        counts = of_nights.sum(axis=0)
        usual = float(np.quantile(psi_of_each(of_nights, counts), USUAL)) if len(night) else 0.0
        found[name] = {"edges": edges.tolist(), "counts": counts.tolist(), "usual": usual}
    return found, shared


def _band(panel: Panel, rows: Samples, forecast: Distribution, target: str) -> dict[str, Any]:
    outcomes = Outcomes(
        day=panel.sessions.target[rows.session],
        mean=forecast.mean,
        prob_up=forecast.prob_up,
        quantiles=forecast.quantiles(QUANTILES),
        realised=panel.labels[target][rows.ticker, rows.session],
    )
    daily = by_day(outcomes)
    found = {name: value.as_dict() for name, value in estimates(daily).items() if value is not None}
    return {"sessions": [str(daily.day[0]), str(daily.day[-1])], "nights": len(daily), "rows": len(rows), **found}


def _whole_sessions(rows: Samples) -> Samples:
    """At most about MOST_ROWS of them, which are in order of session."""
    session = np.unique(rows.session)
    most = max(1, int(len(session) * MOST_ROWS / max(len(rows), 1)))
    return rows.take(np.isin(rows.session, _spread(session, most)))


def _spread(session: Ints, most: int) -> Ints:
    """At most so many of the sessions, evenly spread, the first and the last among them."""
    if len(session) <= most:
        return session
    return session[np.linspace(0, len(session) - 1, most).round().astype(np.int64)]
