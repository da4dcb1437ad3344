"""A pre-norm Transformer over the window. The token of the decision's session, after the last layer, is the code.

Attention is full, not causal: every session of a window was known at its decision. There is no dropout on attention
weights, so the maps that `explain` returns are the ones the forecast was made with.
"""

from __future__ import annotations

from typing import Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from encoders.encoded import Encoded
from encoders.price.base import PriceConfig
from encoders.price.positions import Learned, Sinusoidal

POSITIONS: dict[str, type[Sinusoidal | Learned]] = {"sinusoidal": Sinusoidal, "learned": Learned}


class TransformerConfig(PriceConfig):
    """`width` is split among `heads`; `positions` says how a session's place in the window is told."""

    kind: Literal["transformer"] = "transformer"
    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=4, ge=1)
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads: width is {self.width}, heads is {self.heads}")
        return self

    def build(self, features: int) -> TransformerEncoder:
        """An untrained encoder of F = `features`, drawn from torch's global generator."""
        place = POSITIONS[self.positions](self.lookback, self.width)
        blocks = [Block(self.width, self.heads, self.dropout) for _ in range(self.layers)]
        return TransformerEncoder(features, self.width, place, blocks)


class Block(nn.Module):
    """Attention, then a feed-forward net of twice the width, each behind a LayerNorm and beside a residual."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens_BLD: Tensor, keys_B11L: Tensor) -> Tensor:
        """tokens_BLD -> tokens_BLD. At least one key of each sample must be True."""
        query, key, value = self._split(tokens_BLD)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=keys_B11L)  # B heads L D/heads
        mixed_BLD = mixed.transpose(1, 2).flatten(2)
        tokens_BLD = tokens_BLD + self.dropout(self.out(mixed_BLD))
        deeper_BLD: Tensor = tokens_BLD + self.dropout(self.mlp(self.norm_mlp(tokens_BLD)))
        return deeper_BLD

    def maps(self, tokens_BLD: Tensor, keys_B11L: Tensor) -> Tensor:
        """The weights [B, heads, L, L] that `forward` gives each query (third axis); the last axis sums to 1."""
        query, key, _ = self._split(tokens_BLD)
        scores: Tensor = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        return scores.float().masked_fill(~keys_B11L, -torch.inf).softmax(-1)

    def _split(self, tokens_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [B, heads, L, D / heads]."""
        qkv = self.qkv(self.norm_attention(tokens_BLD)).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        return query, key, value


class TransformerEncoder(nn.Module):
    """price_BLF -> pooled_BD, for L up to the lookback. `explain` adds attention [B, layers, heads, L, L]."""

    def __init__(self, features: int, width: int, place: Sinusoidal | Learned, blocks: list[Block]) -> None:
        super().__init__()
        self.token = nn.Linear(features, width)
        self.place = place
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)

    def forward(self, price_BLF: Tensor, mask_BL: Tensor, explain: bool = False) -> Encoded:
        """Masked sessions are no keys. Where a window has no observed session at all, its (zeroed) tokens are."""
        observed_BLF = price_BLF.masked_fill(~mask_BL[..., None], 0)
        tokens_BLD = self.place(self.token(observed_BLF))
        keys_B11L = (mask_BL | ~mask_BL.any(-1, keepdim=True))[:, None, None]
        maps: list[Tensor] = []
        for block in cast(list[Block], self.blocks):
            if explain:
                maps.append(block.maps(tokens_BLD, keys_B11L))
            tokens_BLD = block(tokens_BLD, keys_B11L)
        tokens_BLD = self.norm(tokens_BLD)
        return Encoded(tokens_BLD[:, -1], tokens_BLD, mask_BL, torch.stack(maps, dim=1) if explain else None)
