"""What all fusions share: the keys of their configs and the call they answer."""

from __future__ import annotations

from typing import ClassVar, Protocol

from pydantic import Field
from torch import Tensor

from data.types import Config
from encoders.encoded import Encoded


class FusionBase(Config):
    """Keys that every kind takes, so that a user may change `kind` and leave the others where they are.

    `dropout` is that of everything that reads text. An input with `reads_*` False is not even encoded.
    """

    reads_price: ClassVar[bool] = True
    reads_text: ClassVar[bool] = True
    dropout: float = Field(default=0.3, ge=0, lt=1)


class Fusion(Protocol):
    """Two encoded inputs of one width D to one vector a sample, fused_BD."""

    def forward(self, price: Encoded, news: Encoded) -> Tensor:
        """fused_BD, finite for every sample, with news or without."""
        ...

    def __call__(self, price: Encoded, news: Encoded) -> Tensor:
        """`forward`, as torch wants it called."""
        ...
