"""A pre-norm Transformer over the window. The token of the decision's session, after the last layer, is the code.

The blocks are those of Vaswani et al. (2017), with each norm before its part as in Xiong et al. (2020). Attention is
full by default: every session of a window was known at its decision. There is no dropout on attention weights, so the
maps that `explain` returns are the ones the forecast was made with.

Only the decision's own token leaves the last layer, so there only that one is computed: one query for all keys.
"""

from __future__ import annotations

from typing import Literal, Self, cast

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional

from encoders.encoded import Encoded
from encoders.price.attention import causal, readable
from encoders.price.base import AttentionConfig, blank
from encoders.price.positions import Learned, Rotary, Sinusoidal, Turn


class TransformerConfig(AttentionConfig):
    """`positions` says how a session's place in the window is told, `causal` whether a session sees only earlier ones.

    `norm` is LayerNorm ("layer") or RMSNorm ("rms": Zhang and Sennrich 2019), which does without the mean.
    """

    kind: Literal["transformer"] = "transformer"
    positions: Literal["sinusoidal", "learned", "rotary"] = "sinusoidal"
    causal: bool = False
    norm: Literal["layer", "rms"] = "layer"

    @model_validator(mode="after")
    def _rotary_turns_pairs(self) -> Self:
        if self.positions == "rotary" and self.width // self.heads % 2:
            raise ValueError(
                f"width / heads must be even for rotary positions: width is {self.width}, heads is {self.heads}"
            )
        return self

    def build(self, features: int) -> TransformerEncoder:
        """An untrained encoder of F = `features`, drawn from torch's global generator."""
        place = self._place()
        blocks = [Block(self) for _ in range(self.layers)]
        return TransformerEncoder(features, self, place, blocks)

    def scaling(self) -> nn.Module:
        """An untrained norm of the width."""
        return RMSNorm(self.width, eps=1e-5) if self.norm == "rms" else nn.LayerNorm(self.width)

    def _place(self) -> nn.Module:
        """What is added to tokens: nothing where queries and keys are turned instead."""
        if self.positions == "rotary":
            return nn.Identity()
        return (Learned if self.positions == "learned" else Sinusoidal)(self.lookback, self.width)


class RMSNorm(nn.RMSNorm):
    """torch's, in single precision under autocast too, where torch knows of no fused one for mixed precisions."""

    def forward(self, x: Tensor) -> Tensor:
        """Divided by the root of the mean square of the last axis, times a learned scale."""
        return super().forward(x.float()).to(x.dtype)


class Block(nn.Module):
    """Attention, then a feed-forward net of twice the width, each behind a norm and beside a residual.

    Where places are rotary, `turn` turns queries and keys by them; without it the places are in the tokens.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm_attention = config.scaling()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.norm_mlp = config.scaling()
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens_BLD: Tensor, allowed_B1QL: Tensor, turn: Turn | None = None) -> Tensor:
        """tokens_BLD -> tokens_BLD. Q is L, or 1 for all queries alike; each query may read at least one key."""
        return self.attend(tokens_BLD, *self.split(tokens_BLD, turn), allowed_B1QL)

    def attend(self, tokens_BLD: Tensor, query: Tensor, key: Tensor, value: Tensor, allowed_B1QP: Tensor) -> Tensor:
        """`forward` with queries of these tokens, and keys and values [B, heads, P, D / heads] of any."""
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed_B1QP)  # B heads L D/heads
        return self._deepen(tokens_BLD, mixed.transpose(1, 2).flatten(2))

    def latest(self, tokens_BLD: Tensor, readable_BL: Tensor, turn: Turn | None = None) -> tuple[Tensor, Tensor]:
        """The last row of `forward`, [B, D], and the tokens [B, L, D] that its query read, without the other rows.

        Weights are taken of the tokens, not of their keys and values: q (W x) = (W' q) x, so that W meets one query
        instead of L tokens.
        """
        read_BLD = self.norm_attention(tokens_BLD)
        mixed_BHD = self._weights_of_latest(read_BLD, readable_BL, turn).to(read_BLD.dtype) @ read_BLD
        mixed_BD = torch.einsum("bhe,hde->bhd", mixed_BHD, self._weights()[2]).flatten(1)
        return self._deepen(tokens_BLD[:, -1], mixed_BD), read_BLD

    def maps(self, tokens_BLD: Tensor, allowed_B1QL: Tensor, turn: Turn | None = None) -> Tensor:
        """The weights [B, heads, L, L] that `forward` gives each query (third axis); the last axis sums to 1."""
        query, key, _ = self.split(tokens_BLD, turn)
        scores: Tensor = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        return scores.float().masked_fill(~allowed_B1QL, -torch.inf).softmax(-1)

    def split(self, tokens_BLD: Tensor, turn: Turn | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [B, heads, L, D / heads]; the first two turned where places are rotary."""
        # Cut before heads are told apart: the gradients of the three then lie side by side and are not copied about.
        parts = self.qkv(self.norm_attention(tokens_BLD)).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        if turn is None:
            return query, key, value
        return turn(query), turn(key), value

    def _weights_of_latest(self, read_BLD: Tensor, readable_BL: Tensor, turn: Turn | None) -> Tensor:
        """[B, heads, L]: what the decision's query gives each token. Its own place is 0: rotary leaves it as it is."""
        query_HdD, key_HdD, _ = self._weights()
        query_BHd = torch.einsum("be,hde->bhd", read_BLD[:, -1], query_HdD) * query_HdD.shape[1] ** -0.5
        if turn is None:
            asked_BHD = torch.einsum("bhd,hde->bhe", query_BHd, key_HdD)
            score_BHL = asked_BHD @ read_BLD.transpose(1, 2)
        else:
            key_BHLd = turn(torch.einsum("ble,hde->bhld", read_BLD, key_HdD))
            score_BHL = (query_BHd[:, :, None] @ key_BHLd.transpose(-1, -2)).squeeze(2)
        weight_BHL: Tensor = score_BHL.float().masked_fill(~readable_BL[:, None], -torch.inf).softmax(-1)
        return weight_BHL

    def _weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """What `qkv` makes queries, keys and values with, each [heads, D / heads, D]."""
        query, key, value = self.qkv.weight.view(3, self.heads, -1, self.qkv.in_features).unbind()
        return query, key, value

    def _deepen(self, tokens: Tensor, mixed: Tensor) -> Tensor:
        """The block after its attention, for all tokens [B, L, D] or one of each sample [B, D]."""
        tokens = tokens + self.dropout(self.out(mixed))
        deeper: Tensor = tokens + self.dropout(self.mlp(self.norm_mlp(tokens)))
        return deeper


class TransformerEncoder(nn.Module):
    """price_BLF -> pooled_BD, for L up to the lookback. `sequence_BLD` is what the last layer's attention read.

    `explain` adds attention [B, layers, heads, L, L], the last layer's rows included that nothing was computed from.
    """

    def __init__(self, features: int, config: TransformerConfig, place: nn.Module, blocks: list[Block]) -> None:
        super().__init__()
        self.causal = config.causal
        self.token = nn.Linear(features, config.width)
        self.place = place
        self.rotary = Rotary(config.lookback, config.width // config.heads) if config.positions == "rotary" else None
        self.blocks = nn.ModuleList(blocks)
        self.norm = config.scaling()

    def forward(self, price_BLF: Tensor, mask_BL: Tensor, explain: bool = False) -> Encoded:
        """Masked sessions are no keys. Where a window has no observed session at all, its (zeroed) tokens are."""
        tokens_BLD = self.place(self.token(blank(price_BLF, mask_BL)))
        readable_BL = readable(mask_BL)
        allowed_B1QL = causal(readable_BL) if self.causal else readable_BL[:, None, None]
        maps: list[Tensor] = []
        *blocks, last = cast("list[Block]", list(self.blocks))
        for block in blocks:
            if explain:
                maps.append(block.maps(tokens_BLD, allowed_B1QL, self.rotary))
            tokens_BLD = block(tokens_BLD, allowed_B1QL, self.rotary)
        if explain:
            maps.append(last.maps(tokens_BLD, allowed_B1QL, self.rotary))
        code_BD, read_BLD = last.latest(tokens_BLD, readable_BL, self.rotary)
        return Encoded(self.norm(code_BD), read_BLD, mask_BL, torch.stack(maps, dim=1) if explain else None)
