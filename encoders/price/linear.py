"""DLinear over the window: trend and remainder, each a weighted sum over time. No nonlinearity anywhere.

Zeng, Chen, Zhang and Xu (2023), Are Transformers Effective for Time Series Forecasting?, section 4: a simple baseline
that many Transformers do not beat.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from encoders.encoded import Encoded
from encoders.price.base import PriceConfig, flagged, full_length


class DLinearConfig(PriceConfig):
    """`kernel` is the odd number of sessions that the trend is averaged over, as in the paper 25.

    Each feature has weights of its own and is summed up in `steps` numbers, the paper's forecast horizon; a linear map
    takes those of all features to `width`. There is one layer.
    """

    kind: Literal["dlinear"] = "dlinear"
    layers: int = Field(default=1, ge=1, le=1)
    kernel: int = Field(default=25, ge=1)
    steps: int = Field(default=8, ge=1)

    def build(self, features: int) -> DLinearEncoder:
        """An untrained encoder of F = `features`, drawn from torch's global generator."""
        return DLinearEncoder(features, self)


class DLinearEncoder(nn.Module):
    """price_BLF -> pooled_BD, for L up to the lookback; sessions before the window count as masked.

    A masked session is left out of the trend, and its remainder is 0; whether sessions were observed is one more
    channel. `sequence_BLD` is empty, [B, 0, D]: there are no steps, only sums. There is no attention to explain.
    """

    def __init__(self, features: int, config: DLinearConfig) -> None:
        super().__init__()
        channels = 2 * features + 1  # C: trends, remainders, and what was observed
        self.kernel = config.kernel
        self.time_CLT = nn.Parameter(torch.empty(channels, config.lookback, config.steps))
        self.bias_CT = nn.Parameter(torch.zeros(channels, config.steps))
        self.width = nn.Linear(channels * config.steps, config.width)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.uniform_(self.time_CLT, -1 / math.sqrt(config.lookback), 1 / math.sqrt(config.lookback))

    def forward(self, price_BLF: Tensor, mask_BL: Tensor, explain: bool = False) -> Encoded:  # noqa: ARG002
        """The sums over time of each channel, mixed."""
        series_BLF = full_length(flagged(price_BLF, mask_BL), self.time_CLT.shape[1])
        trend_BLF, remainder_BLF = decompose(series_BLF, self.kernel)
        channel_BLC = torch.cat([trend_BLF, remainder_BLF, series_BLF[..., -1:]], dim=-1)
        sum_BCT = torch.einsum("blc,clt->bct", channel_BLC, self.time_CLT) + self.bias_CT
        pooled_BD = self.dropout(self.width(sum_BCT.flatten(1)))
        return Encoded(pooled_BD, pooled_BD[:, None][:, :0], mask_BL[:, :0])


def decompose(flagged_BLF: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """Trend and remainder [B, L, F] of features whose last, F + 1, is 1 where the session was observed and else 0.

    The trend is the mean of the observed sessions among the `kernel` around each, where the first and the last
    session stand in for those beyond the window (the paper's section 3.1); 0 where none was observed. What is left of
    an observed session is its remainder; a masked session has none.
    """
    before, after = (kernel - 1) // 2, kernel // 2
    edged_BFL = functional.pad(flagged_BLF.transpose(1, 2), (before, after), mode="replicate")
    mean_BLF = functional.avg_pool1d(edged_BFL, kernel, stride=1).transpose(1, 2)
    share_BL1, observed_BL1 = mean_BLF[..., -1:], flagged_BLF[..., -1:]
    trend_BLF = mean_BLF[..., :-1] / share_BL1.clamp(min=1 / (2 * kernel))  # a share is 0, or at least 1 / kernel
    return trend_BLF, (flagged_BLF[..., :-1] - trend_BLF) * observed_BL1
