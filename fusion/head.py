"""A fused vector to the distribution of the next return: a Student-t per sample.

Daily returns, even in units of their known volatility, have tails far fatter than a normal's: a Student-t lets one
outlier cost its logarithm instead of its square, so the fit is not bent by it, and its intervals reach as far as the
tails do. Being one distribution, mean, quantiles and P(up) cannot contradict each other. It is symmetric: skew is not
modelled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import stdtr, stdtrit
from torch import Tensor, nn
from torch.distributions import StudentT
from torch.nn import functional

Floats = npt.NDArray[np.float64]

DF_LOW, DF_HIGH, DF_START = 2.1, 30.0, 5.0  # above 2 the variance exists; at 30 it is normal for all we can tell
SCALE_FLOOR = 0.01  # of a volatility; keeps one exactly forecast return from taking over the loss


@dataclass(frozen=True)
class Distribution:
    """Student-t of each sample, [B] each, in numpy: of its log return, or of that in units of volatility.

    Needs scale > 0 and df > 1.
    """

    location: Floats
    scale: Floats
    df: Floats

    @property
    def mean(self) -> Floats:
        """[B], in log return; also the median."""
        return self.location

    @property
    def prob_up(self) -> Floats:
        """[B], the probability of a return above 0; above one half only where the median is above 0."""
        return np.asarray(stdtr(self.df, self.location / self.scale), dtype=np.float64)

    def quantiles(self, levels: Sequence[float]) -> Floats:
        """[B, Q] in log return, for levels inside (0, 1); ascending wherever the levels are."""
        standard_BQ = stdtrit(self.df[:, None], np.asarray(levels, dtype=np.float64)[None])
        return self.location[:, None] + self.scale[:, None] * np.asarray(standard_BQ, dtype=np.float64)

    def times(self, unit: Floats) -> Distribution:
        """The distribution of the variable times `unit` [B], which is above 0."""
        return Distribution(self.location * unit, self.scale * unit, self.df)

    def take(self, which: npt.NDArray[np.generic]) -> Distribution:
        """The samples of a mask or of indices, in that order."""
        return Distribution(self.location[which], self.scale[which], self.df[which])

    @classmethod
    def concatenate(cls, parts: Sequence[Distribution]) -> Distribution:
        """Several batches as one; empty for none."""
        names = ("location", "scale", "df")
        return cls(*(np.concatenate([np.empty(0), *(getattr(part, name) for part in parts)]) for name in names))


@dataclass(frozen=True)
class Prediction:
    """The head's output, in units of each sample's volatility (`Batch.unit_B`); `df` is one for all samples."""

    location_B: Tensor
    scale_B: Tensor
    df: Tensor

    def in_units(self) -> Distribution:
        """The same forecast off the device and without its gradient, still in units of volatility."""
        location, scale = (values.detach().double().cpu().numpy() for values in (self.location_B, self.scale_B))
        return Distribution(location, scale, np.full(len(location), self.df.item()))


class StudentTHead(nn.Module):
    """fused_BD -> Prediction. Untrained it says about 0 +- 1 volatility. Computes in float32 under any autocast."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, 2)
        self.df_logit = nn.Parameter(torch.tensor(_logit((DF_START - DF_LOW) / (DF_HIGH - DF_LOW))))
        nn.init.normal_(self.project.weight, std=0.1 / math.sqrt(width))
        with torch.no_grad():
            self.project.bias.copy_(torch.tensor([0.0, math.log(math.expm1(1 - SCALE_FLOOR))]))

    @property
    def df(self) -> Tensor:
        """The degrees of freedom, a scalar in [2.1, 30]."""
        return DF_LOW + (DF_HIGH - DF_LOW) * torch.sigmoid(self.df_logit)

    def forward(self, fused_BD: Tensor) -> Prediction:
        """Location and scale per sample, df shared; scale is at least SCALE_FLOOR."""
        with torch.autocast(fused_BD.device.type, enabled=False):
            location_B, raw_B = self.project(fused_BD.float()).unbind(-1)
            return Prediction(location_B, functional.softplus(raw_B) + SCALE_FLOOR, self.df)


def nll(prediction: Prediction, target_B: Tensor) -> Tensor:
    """Mean negative log likelihood, a float32 scalar, of targets in the same units of volatility.

    A missing target is the caller's to leave out: ValueError says how many there are.
    """
    _refuse_missing(target_B)
    location_B, scale_B, df = prediction.location_B.float(), prediction.scale_B.float(), prediction.df.float()
    distribution = StudentT(df, location_B, scale_B, validate_args=False)
    log_likelihood_B: Tensor = distribution.log_prob(target_B.float())  # type: ignore[no-untyped-call]
    return -log_likelihood_B.mean()


def _refuse_missing(target_B: Tensor) -> None:
    missing = int(torch.isnan(target_B).sum())
    if missing:
        raise ValueError(f"expected targets without NaN, received {missing} of {target_B.numel()} missing")


def session_nll(prediction: Prediction, target_B: Tensor, session_B: Tensor, shock_ratio: float) -> Tensor:
    """`nll` given each session's shock: what is left of the targets when the part all tickers share is taken out.

    Returns of one session are not independent: the market moves them together, and a few hundred sessions are far too
    few to learn when it will. Unmodelled, that shared shock is what a network memorises. As in a random-effects
    (GLS) model it is estimated from the batch, by the session's mean residual, shrunk by n / (n + shock_ratio);
    `shock_ratio` is the variance within sessions over that of the shock. The scale so learned is that around the
    shock; calibration widens it.
    """
    _refuse_missing(target_B)
    residual_B = (target_B - prediction.location_B).float()
    _, index_B, count_S = torch.unique(session_B, return_inverse=True, return_counts=True)
    total_S = torch.zeros(len(count_S), device=residual_B.device).index_add_(0, index_B, residual_B)
    shock_B = (total_S / (count_S + shock_ratio))[index_B]
    return nll(prediction, target_B - shock_B)


def _logit(share: float) -> float:
    return math.log(share / (1 - share))
