"""No fusion: the price code as it is. What `gated` and `cross_attention` are before they have learned any text."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from encoders.encoded import Encoded
from fusion.base import FusionBase


class PriceOnlyConfig(FusionBase):
    """Text is not read, and `dropout` has nothing to act on."""

    kind: Literal["price_only"] = "price_only"
    reads_text: ClassVar[bool] = False

    def build(self, width: int) -> PriceOnly:  # noqa: ARG002
        """Has no parameters, whatever the width."""
        return PriceOnly()


class PriceOnly(nn.Module):
    """fused_BD = price_BD."""

    def forward(self, price: Encoded, news: Encoded) -> Tensor:  # noqa: ARG002
        """[B, D], finite."""
        return price.pooled_BD
