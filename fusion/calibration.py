"""Two numbers fitted on the validation fold that make a model's intervals as wide as they should be.

Training learns the spread around the market's shock of a session (see `fusion.head.session_nll`); a
forecast has to cover the shock too. The location is left alone: ranks and signs are the model's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import gammaln

from fusion.head import DF_HIGH, DF_LOW, Distribution

Floats = npt.NDArray[np.float64]

WIDEST = 10.0  # no sound model is off by more than this factor


@dataclass(frozen=True)
class Calibration:
    """`scale` multiplies a forecast's scale, `df` replaces its degrees of freedom."""

    scale: float
    df: float

    @classmethod
    def fit(cls, forecast: Distribution, target: Floats) -> Calibration:
        """Maximum likelihood on labelled samples, in the forecast's own units."""
        error = (target - forecast.location) / forecast.scale
        start = np.array([0.0, np.log(forecast.df[0])])
        bounds = [(-np.log(WIDEST), np.log(WIDEST)), (np.log(DF_LOW), np.log(DF_HIGH))]
        fitted = minimize(lambda at: _nll(error / np.exp(at[0]), np.exp(at[1])) + at[0], start, bounds=bounds)
        scale, df = np.exp(fitted.x)
        return cls(float(scale), float(df))

    def apply(self, forecast: Distribution) -> Distribution:
        """The calibrated forecast."""
        return Distribution(forecast.location, forecast.scale * self.scale, np.full(len(forecast.df), self.df))


def _nll(standard: Floats, df: float) -> float:
    """Mean negative log density of a standard Student-t."""
    constant = gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * np.log(df * np.pi)
    return float(np.mean((df + 1) / 2 * np.log1p(standard**2 / df)) - constant)
