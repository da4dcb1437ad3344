"""Where in the window a session stands: added to its token, or turned into queries and keys.

Always counted back from the decision, the last of L, so that it has one place whatever L is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from encoders.price.base import within

Turn = Callable[[Tensor], Tensor]  # queries or keys [B, heads, L, D / heads] to the same, turned by their places


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


class Rotary(nn.Module):
    """Pairs of a query's or key's entries turned by an angle that grows with the place: Su et al. (2021), equation 34.

    A product of two so turned depends on how far they are apart, and on nothing else of their places.
    """

    cos_LW: Tensor
    sin_LW: Tensor

    def __init__(self, lookback: int, width: int) -> None:
        """`width` is one head's and must be even."""
        super().__init__()
        place_L1 = torch.arange(1 - lookback, 1, dtype=torch.float32)[:, None]  # the decision's session is 0
        angle_LW = place_L1 * rates(width)  # W = width / 2
        self.register_buffer("cos_LW", angle_LW.cos(), persistent=False)
        self.register_buffer("sin_LW", angle_LW.sin(), persistent=False)

    def forward(self, head_BHLD: Tensor) -> Tensor:
        """[B, heads, L, width] of the window's last L places, turned."""
        length = head_BHLD.shape[2]
        cos_LW, sin_LW = latest(self.cos_LW, length), latest(self.sin_LW, length)
        pairs = turned(head_BHLD[..., 0::2], head_BHLD[..., 1::2], cos_LW, sin_LW)
        return torch.stack(pairs, dim=-1).flatten(-2).to(head_BHLD.dtype)


def turned(first: Tensor, second: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """The two entries of each pair, turned by the angle of that cosine and sine."""
    return first * cos - second * sin, first * sin + second * cos


def rates(width: int) -> Tensor:
    """[width / 2, rounded up]: 1 / 10,000^(2i / width), the angle that each wave or pair goes on by a session."""
    return torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10_000.0) / width))


def waves(lookback: int, width: int) -> Tensor:
    """[lookback, width]: sines in the even columns, cosines in the odd; row lookback - 1 - i is i sessions back."""
    back_L1 = torch.arange(lookback - 1, -1, -1, dtype=torch.float32)[:, None]
    angle_LW = back_L1 * rates(width)
    table_LD = torch.empty(lookback, width)
    table_LD[:, 0::2] = torch.sin(angle_LW)
    table_LD[:, 1::2] = torch.cos(angle_LW)[:, : width // 2]
    return table_LD


def latest(table_LD: Tensor, length: int) -> Tensor:
    """The last `length` rows. A window longer than the table is an error of whoever built the model."""
    return table_LD[len(table_LD) - within(length, len(table_LD)) :]
