"""No fusion: the news code, brought to the scale the head expects."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from encoders.encoded import Encoded
from fusion.base import FusionBase


class TextOnlyConfig(FusionBase):
    """Prices are not read."""

    kind: Literal["text_only"] = "text_only"
    reads_price: ClassVar[bool] = False

    def build(self, width: int) -> TextOnly:
        """An untrained fusion of D = `width`."""
        return TextOnly(width, self.dropout)


class TextOnly(nn.Module):
    """fused_BD = norm(news_BD)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, price: Encoded, news: Encoded) -> Tensor:  # noqa: ARG002
        """[B, D], finite; one and the same vector for all samples without news."""
        fused_BD: Tensor = self.dropout(self.norm(news.pooled_BD))
        return fused_BD
