"""The price code asks the headlines: attention over them, steered and turned by the price state.

The part from text starts at zero, so an untrained `cross_attention` forecasts exactly as `price_only` does.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.encoded import Encoded
from fusion.base import FusionBase

HEAD_WIDTH = 16


class CrossAttentionConfig(FusionBase):
    """No keys of its own; the number of heads follows from the width."""

    kind: Literal["cross_attention"] = "cross_attention"

    def build(self, width: int) -> CrossAttention:
        """An untrained fusion of D = `width`, drawn from torch's global generator."""
        return CrossAttention(width, self.dropout)


class CrossAttention(nn.Module):
    """fused = price + out((1 + turn(price)) * attention(price -> headlines)).

    Beside the headlines, the pooled news code is always a key: it carries the market channel, is the learned no-news
    vector where there is no news, and so keeps the softmax defined. Attention alone only chooses among headlines;
    the factor `1 + turn(price)` lets the price state turn the sign of what they say.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH if width % HEAD_WIDTH == 0 else 1
        self.norm_news = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.turn = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, price: Encoded, news: Encoded) -> Tensor:
        """[B, D], finite."""
        price_BD = price.pooled_BD
        token_BND = torch.cat([news.pooled_BD[:, None], news.sequence_BLD], dim=1)  # N = 1 + K
        open_BN = functional.pad(news.mask_BL, (1, 0), value=True)
        heard_BD = self.dropout(self._attend(price_BD, self.norm_news(token_BND), open_BN))
        fused_BD: Tensor = price_BD + self.out((1 + self.turn(price_BD)) * heard_BD)
        return fused_BD

    def _attend(self, price_BD: Tensor, token_BND: Tensor, open_BN: Tensor) -> Tensor:
        """One query a sample over its open tokens: [B, D]."""
        query = self.query(price_BD).unflatten(-1, (1, self.heads, -1)).transpose(1, 2)  # B heads 1 D/heads
        key_value = self.key_value(token_BND).unflatten(-1, (2, self.heads, -1))
        key, value = key_value.permute(2, 0, 3, 1, 4)  # B heads N D/heads each
        heard = functional.scaled_dot_product_attention(query, key, value, attn_mask=open_BN[:, None, None])
        return heard.flatten(1)
