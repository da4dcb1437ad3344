"""Where in the window a session stands, added to its token. Counted back from the decision, the last of L."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Sinusoidal(nn.Module):
    """Fixed waves of Vaswani et al. (2017), section 3.5; nothing to learn."""

    table_LD: Tensor

    def __init__(self, lookback: int, width: int) -> None:
        super().__init__()
        self.register_buffer("table_LD", waves(lookback, width), persistent=False)

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        """Adds the last L rows of the table, so that the decision's session has one place whatever L is."""
        return tokens_BLD + latest(self.table_LD, tokens_BLD.shape[1])


class Learned(nn.Module):
    """One free vector a place, starting near zero."""

    def __init__(self, lookback: int, width: int) -> None:
        super().__init__()
        self.table_LD = nn.Parameter(torch.randn(lookback, width) * 0.02)

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        """Adds the last L rows of the table, so that the decision's session has one place whatever L is."""
        return tokens_BLD + latest(self.table_LD, tokens_BLD.shape[1])


def waves(lookback: int, width: int) -> Tensor:
    """[lookback, width]: sines in the even columns, cosines in the odd; row lookback - 1 - i is i sessions back."""
    back_L1 = torch.arange(lookback - 1, -1, -1, dtype=torch.float32)[:, None]
    rate_W = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10_000.0) / width))
    table_LD = torch.empty(lookback, width)
    table_LD[:, 0::2] = torch.sin(back_L1 * rate_W)
    table_LD[:, 1::2] = torch.cos(back_L1 * rate_W)[:, : width // 2]
    return table_LD


def latest(table_LD: Tensor, length: int) -> Tensor:
    """The last `length` rows. A window longer than the table is an error of whoever built the model."""
    if length > len(table_LD):
        raise ValueError(f"expected windows of at most {len(table_LD)} sessions (lookback), received {length}")
    return table_LD[len(table_LD) - length :]
