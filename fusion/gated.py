"""The price code, plus what text adds: a gated part and a product with the price state.

Both parts start at zero, so an untrained `gated` forecasts exactly as `price_only` does and text has to earn its place.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from encoders.encoded import Encoded
from fusion.base import FusionBase


class GatedConfig(FusionBase):
    """No keys of its own."""

    kind: Literal["gated"] = "gated"

    def build(self, width: int) -> Gated:
        """An untrained fusion of D = `width`, drawn from torch's global generator."""
        return Gated(width, self.dropout)


class Gated(nn.Module):
    """fused = price + gate(price, news) * value(news) + mix(a(price) * b(news)).

    A gate can only fade text in and out; the product lets the price state turn the sign of its effect.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        rank = max(1, width // 4)
        self.norm_news = nn.LayerNorm(width)
        self.gate = nn.Linear(2 * width, width)
        self.value = nn.Linear(width, width)
        self.from_price = nn.Linear(width, rank)
        self.from_news = nn.Linear(width, rank)
        self.mix = nn.Linear(rank, width, bias=False)
        self.dropout = nn.Dropout(dropout)
        for start in (self.value.weight, self.value.bias, self.mix.weight):
            nn.init.zeros_(start)

    def forward(self, price: Encoded, news: Encoded) -> Tensor:
        """[B, D], finite."""
        price_BD, news_BD = price.pooled_BD, self.dropout(self.norm_news(news.pooled_BD))
        gate_BD = torch.sigmoid(self.gate(torch.cat([price_BD, news_BD], dim=-1)))
        product_BR = self.from_price(price_BD) * self.from_news(news_BD)
        fused_BD: Tensor = price_BD + gate_BD * self.value(news_BD) + self.mix(product_BR)
        return fused_BD
