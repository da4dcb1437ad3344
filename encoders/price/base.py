"""What all price encoders share: the keys of their configs and the call they answer."""

from __future__ import annotations

from typing import Protocol

from pydantic import Field
from torch import Tensor

from data.types import Config
from encoders.encoded import Encoded


class PriceConfig(Config):
    """Keys that every kind takes, so that a user may change `kind` and leave the others where they are."""

    lookback: int = Field(default=60, ge=2)
    width: int = Field(default=64, ge=4)
    layers: int = Field(default=1, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)


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
