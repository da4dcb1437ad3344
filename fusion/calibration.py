"""Three numbers fitted on the validation fold: how far to believe the text, and how wide intervals should be.

A text path that found nothing still found noise in training, and its noise would be charged to text
in an ablation. So what text adds to the location is shrunk by the weight that validation supports,
between 0 and 1. Training learns the spread around the market's shock of a session (see
`fusion.head.session_nll`); a forecast has to cover the shock too, so its scale and tails are refitted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import gammaln

from fusion.head import DF_HIGH, DF_LOW, Distribution

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

WEIGHTS = np.linspace(0.0, 1.0, 41)
WIDEST = 10.0  # no sound model is off by more than this factor


@dataclass(frozen=True)
class Heard:
    """One model's forecasts of the same samples with their news and without any, in units of volatility."""

    news: Distribution
    silence: Distribution

    def mix(self, weight: float) -> Distribution:
        """`weight` 1 is the forecast with news, 0 the one without; scales are mixed in logarithms."""
        location = self.silence.location + weight * (self.news.location - self.silence.location)
        scale = self.silence.scale ** (1 - weight) * self.news.scale**weight
        return Distribution(location, scale, self.news.df)


@dataclass(frozen=True)
class Calibration:
    """`text` weighs what news adds, `scale` multiplies a forecast's scale, `df` replaces its degrees of freedom."""

    text: float
    scale: float
    df: float

    @classmethod
    def fit(cls, forecast: Heard, target: Floats, session: Ints, shock_ratio: float) -> Calibration:
        """Fit on labelled samples: the text's weight given each session's shock, then the width by maximum likelihood.

        The weight is its posterior mean under a flat prior on [0, 1]: noise is not believed much, and no
        evidence is no reason to stop listening altogether.

        ValueError where there is no sample or a target is missing.
        """
        if not len(target) or np.isnan(target).any():
            raise ValueError(
                f"expected labelled samples, received {len(target)}, {np.isnan(target).sum()} without label"
            )

        def loss(weight: float) -> float:
            mixed = forecast.mix(weight)
            error = _without_shock(target - mixed.location, session, shock_ratio) / mixed.scale
            return _nll(error, mixed.df[0]) + float(np.mean(np.log(mixed.scale)))

        losses = np.array([loss(weight) for weight in WEIGHTS])
        posterior = np.exp(-len(target) * (losses - losses.min()))
        text = float(WEIGHTS @ posterior / posterior.sum())
        mixed = forecast.mix(text)
        error = (target - mixed.location) / mixed.scale
        start = np.array([0.0, np.log(mixed.df[0])])
        bounds = [(-np.log(WIDEST), np.log(WIDEST)), (np.log(DF_LOW), np.log(DF_HIGH))]
        fitted = minimize(lambda at: _nll(error / np.exp(at[0]), np.exp(at[1])) + at[0], start, bounds=bounds)
        scale, df = np.exp(fitted.x)
        return cls(text, float(scale), float(df))

    def apply(self, forecast: Heard) -> Distribution:
        """The calibrated forecast."""
        mixed = forecast.mix(self.text)
        return Distribution(mixed.location, mixed.scale * self.scale, np.full(len(mixed.df), self.df))


def _without_shock(residual: Floats, session: Ints, shock_ratio: float) -> Floats:
    """Residuals less each session's shrunken mean, as in `session_nll`."""
    _, index, count = np.unique(session, return_inverse=True, return_counts=True)
    shock = np.bincount(index, residual) / (count + shock_ratio)
    without: Floats = residual - shock[index]
    return without


def _nll(standard: Floats, df: float) -> float:
    """Mean negative log density of a standard Student-t."""
    constant = gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * np.log(df * np.pi)
    return float(np.mean((df + 1) / 2 * np.log1p(standard**2 / df)) - constant)
