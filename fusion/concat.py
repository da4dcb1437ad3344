"""Both codes side by side through one hidden layer: the plain baseline of fusions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from encoders.encoded import Encoded
from fusion.base import FusionBase


class ConcatConfig(FusionBase):
    """No keys of its own."""

    kind: Literal["concat"] = "concat"

    def build(self, width: int) -> Concat:
        """An untrained fusion of D = `width`, drawn from torch's global generator."""
        return Concat(width, self.dropout)


class Concat(nn.Module):
    """fused_BD = norm(MLP([price_BD, norm(news_BD)])). How text acts on price is left to the hidden layer to find."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm_news = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, price: Encoded, news: Encoded) -> Tensor:
        """[B, D], finite."""
        both_BC = torch.cat([price.pooled_BD, self.norm_news(news.pooled_BD)], dim=-1)  # C = 2 D
        fused_BD: Tensor = self.norm(self.mlp(both_BC))
        return fused_BD
