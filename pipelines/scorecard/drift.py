"""Whether tonight's inputs look like those the model was trained on: the population stability index of each.

PSI = sum over bins of (p - q) ln(p / q), with p tonight's share of a bin and q the reference's (Siddiqi, Credit Risk
Scorecards, 2006, who calls .1 and .25 noteworthy). It is noisy for few rows: where nothing has drifted and rows are
independent it is about chi-squared with bins - 1 degrees of freedom times (1/n + 1/m), so its mean is
(bins - 1)(1/n + 1/m) (Yurdakul and Naranjo, Journal of Risk Model Validation 14(4), 2020). And rows of one night are
not independent: the market moves them together, so a night's PSI is above that on any lively day. What is unusual is
therefore read off the reference's own nights as well. An input with one value for all tickers of a session (weekday,
the market's return) has no distribution in a night, and is not measured.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from data.features import FEATURES
from data.panel import Panel
from data.windows import Samples
from fusion.head import Distribution

Floats = npt.NDArray[np.float64]

ROWS = "rows"  # beside the inputs in what `input_drift` returns
HEADLINES = "headlines"
MEAN, SCALE = "forecast_mean", "forecast_scale"
USUAL = 0.99  # of nights without drift lie below what is called unusual
FLOOR = 0.5  # rows added to every bin, on both sides, so that an empty one has a logarithm (Jeffreys)


def input_drift(
    panel: Panel, rows: Samples, reference: Mapping[str, Any] | None, forecast: Distribution | None = None
) -> dict[str, float]:
    """The PSI of each input of `rows` against the reference, and under "rows" how many rows it stands on.

    With the rows' `forecast` its mean and scale are among the inputs. Empty where there is no reference (a model of
    the first format), "rows" alone where there are no rows.
    """
    if reference is None:
        return {}
    found = {ROWS: float(len(rows))}
    if not len(rows):
        return found
    values = inputs(panel, rows, reference["news_window"])
    if forecast is not None:
        values |= outputs(forecast)
    for name, known in reference["inputs"].items():
        if name in values:
            counts = histogram(values[name], np.asarray(known["edges"]))
            found[name] = psi(counts, np.asarray(known["counts"]))
    return found


def unusual(drift: Mapping[str, float], reference: Mapping[str, Any]) -> dict[str, float]:
    """The inputs of `drift` above their threshold, and by what factor."""
    rows = int(drift.get(ROWS, 0))
    limits = {name: threshold(reference["inputs"][name], rows) for name in drift if name in reference["inputs"]}
    return {name: drift[name] / limit for name, limit in limits.items() if drift[name] > limit}


def threshold(known: Mapping[str, Any], rows: int) -> float:
    """What 99% of nights without drift stay below, for a night of `rows`: the reference's own nights, or chance.

    Read off few nights it is uncertain, so that more than 1% of later ones lie above: see docs/scorecard.md.

    `known` is an entry of the reference's inputs.
    """
    return max(float(known["usual"]), float(chi2.ppf(USUAL, len(known["counts"]) - 1)) * _noise(known, rows))


def expected(known: Mapping[str, Any], rows: int) -> float:
    """The mean PSI of independent rows without drift."""
    return (len(known["counts"]) - 1) * _noise(known, rows)


def _noise(known: Mapping[str, Any], rows: int) -> float:
    """1/n + 1/m."""
    return 1 / max(rows, 1) + 1 / max(int(sum(known["counts"])), 1)


def psi(tonight: npt.NDArray[np.integer], reference: npt.NDArray[np.integer]) -> float:
    """The index of counts by bin, [bins] each; at least 0."""
    return float(psi_of_each(np.asarray(tonight)[None], np.asarray(reference))[0])


def psi_of_each(nights: npt.NDArray[np.integer], reference: npt.NDArray[np.integer]) -> Floats:
    """The index of each of several nights, counts [nights, bins]."""
    p, q = (counts + FLOOR for counts in (nights, reference))
    p, q = p / p.sum(axis=-1, keepdims=True), q / q.sum()
    index: Floats = ((p - q) * np.log(p / q)).sum(axis=-1)
    return index


def histogram(values: npt.NDArray[np.floating], edges: Floats) -> npt.NDArray[np.int64]:
    """Counts by bin: up to the first edge, above it up to the second, ..., above the last."""
    return np.bincount(place(values, edges), minlength=len(edges) + 1)


def place(values: npt.NDArray[np.floating], edges: Floats) -> npt.NDArray[np.int64]:
    """The bin of each value."""
    return np.searchsorted(edges, np.asarray(values, dtype=np.float64), side="left").astype(np.int64)


def inputs(panel: Panel, rows: Samples, news_window: int) -> dict[str, npt.NDArray[np.floating]]:
    """What a model reads of each row's own session, unscaled, by name; and how many pieces of news of its ticker."""
    read = panel.features[rows.ticker, rows.session]
    found: dict[str, npt.NDArray[np.floating]] = {name: read[:, column] for column, name in enumerate(FEATURES)}
    start, cell = panel.news.own.start, rows.ticker * len(panel.sessions) + rows.session
    headlines = start[cell + 1] - start[cell - np.minimum(news_window - 1, rows.session)]
    found[HEADLINES] = headlines.astype(np.float64)
    return found


def outputs(forecast: Distribution) -> dict[str, npt.NDArray[np.floating]]:
    """The forecast's own mean and scale, in log returns, by name."""
    return {MEAN: forecast.location, SCALE: forecast.scale}
