"""What all price encoders share: the keys of their configs, the call they answer, and how a mask is applied."""

from __future__ import annotations

from typing import Protocol, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from data.types import Config
from encoders.encoded import Encoded


class PriceConfig(Config):
    """Keys that every kind takes, so that a user may change `kind` and leave the others where they are."""

    lookback: int = Field(default=60, ge=2)
    width: int = Field(default=64, ge=4)
    layers: int = Field(default=1, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)


class AttentionConfig(PriceConfig):
    """Keys of the kinds that attend: `width` is split among `heads`."""

    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=4, ge=1)

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads: width is {self.width}, heads is {self.heads}")
        return self


class PriceEncoder(Protocol):
    """A window of sessions to one vector.

    `price_BLF` holds scaled features, `mask_BL` is True where a session was observed. What stands at a masked
    session, NaN included, never changes the output; a window without any observed session gives a finite vector.
    `explain` asks for attention maps where the encoder has them; it changes nothing else.
    """

    def forward(self, price_BLF: Tensor, mask_BL: Tensor, /, explain: bool = False) -> Encoded:
        """[B, L, F] and [B, L] to `pooled_BD` and `sequence_BLD`."""
        ...

    def __call__(self, price_BLF: Tensor, mask_BL: Tensor, /, explain: bool = False) -> Encoded:
        """`forward`, as torch wants it called."""
        ...


def blank(price_BLF: Tensor, mask_BL: Tensor) -> Tensor:
    """[B, L, F]: the same features with zeros, the mean of scaled ones, at masked sessions, whatever stood there."""
    return price_BLF.masked_fill(~mask_BL[..., None], 0)


def flagged(price_BLF: Tensor, mask_BL: Tensor) -> Tensor:
    """[B, L, F + 1]: `blank`, and a last feature that is 1 at observed sessions and 0 at masked ones."""
    blank_BLF = blank(price_BLF, mask_BL)
    return torch.cat([blank_BLF, mask_BL[..., None].to(blank_BLF.dtype)], dim=-1)


def full_length(flagged_BLF: Tensor, lookback: int) -> Tensor:
    """[B, lookback, F + 1]: a shorter window is preceded by zeros, which is what masked sessions look like.

    A window longer than the lookback is an error of whoever built the model.
    """
    return functional.pad(flagged_BLF, (0, 0, lookback - within(flagged_BLF.shape[1], lookback), 0))


def within(length: int, lookback: int) -> int:
    """`length`, if windows of so many sessions can be read. Raises ValueError if they are longer than the lookback."""
    if length > lookback:
        raise ValueError(f"expected windows of at most {lookback} sessions (lookback), received {length}")
    return length
