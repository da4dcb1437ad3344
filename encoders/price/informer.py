"""Informer's encoder (Zhou et al. 2021): ProbSparse attention, and half the sequence between layers.

Blocks are those of `encoders/price/transformer.py` with another attention. As there, only the decision's own token
leaves the last layer; it is asked for by name, so there it counts as an active query and reads every key. Has no
decoder, no start tokens and no calendar embedding: the head takes the place of all three.

Three things differ from the authors' code, so that a row never depends on its company in the batch: which keys are
sampled is a fixed pattern instead of a draw in each call, the norm is in the block instead of a batch norm in the
distilling, and the convolution does not join the window's end to its beginning.
"""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from encoders.encoded import Encoded
from encoders.price.attention import readable
from encoders.price.base import AttentionConfig, blank
from encoders.price.positions import Sinusoidal, Turn
from encoders.price.transformer import Block, TransformerConfig

GOLDEN = (math.sqrt(5) - 1) / 2


class InformerConfig(AttentionConfig):
    """`factor` is c of the paper: of L queries and L keys, c ln L are active and c ln L are sampled to choose them.

    The last layer needs no sparsity and with `layers` = 1 there is none: sparse attention and distilling start at 2.
    """

    kind: Literal["informer"] = "informer"
    factor: int = Field(default=5, ge=1, le=1000)

    def build(self, features: int) -> InformerEncoder:
        """An untrained encoder of F = `features`, drawn from torch's global generator."""
        return InformerEncoder(features, self)


class InformerEncoder(nn.Module):
    """price_BLF -> pooled_BD, for L up to the lookback. `sequence_BLD` is what the last layer read: distilled tokens.

    `explain` adds attention [B, layers, heads, L, L]. A lazy query's row is uniform over the observed sessions, which
    is what it averages. Behind the first layer a token stands for 2, 4, ... sessions: each of them has its row, and
    shares its weight alike with those of them that were observed. The last layer's rows other than the decision's are
    what these queries would read if they were asked as it is.
    """

    def __init__(self, features: int, config: InformerConfig) -> None:
        super().__init__()
        inner = TransformerConfig(width=config.width, heads=config.heads, dropout=config.dropout)
        self.token = nn.Linear(features, config.width)
        self.place = Sinusoidal(config.lookback, config.width)
        self.sparse = nn.ModuleList(SparseBlock(inner, config.factor, layer) for layer in range(config.layers - 1))
        self.distil = nn.ModuleList(Distil(config.width) for _ in range(config.layers - 1))
        self.last = Block(inner)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, price_BLF: Tensor, mask_BL: Tensor, explain: bool = False) -> Encoded:
        """Masked sessions are no keys and are not convolved. Where nothing was observed at all, zeros are read."""
        tokens_BLD = self.place(self.token(blank(price_BLF, mask_BL)))
        keys_BL = whole_BL = readable(mask_BL)
        maps: list[Tensor] = []
        for block, distil in zip(
            cast("list[SparseBlock]", self.sparse), cast("list[Distil]", self.distil), strict=True
        ):
            if explain:
                maps.append(expand(block.maps(tokens_BLD, keys_BL), whole_BL))
            tokens_BLD, keys_BL = distil(block(tokens_BLD, keys_BL), keys_BL)
        if explain:
            maps.append(expand(self.last.maps(tokens_BLD, keys_BL[:, None, None]), whole_BL))
        code_BD, read_BLD = self.last.latest(tokens_BLD, keys_BL)
        observed_BL = keys_BL & mask_BL.any(-1, keepdim=True)
        return Encoded(self.norm(code_BD), read_BLD, observed_BL, torch.stack(maps, dim=1) if explain else None)


class SparseBlock(Block):
    """A Transformer's block whose attention is ProbSparse, section 3.1 of the paper."""

    def __init__(self, config: TransformerConfig, factor: int, layer: int) -> None:
        super().__init__(config)
        self.factor = factor
        self.layer = layer

    def forward(self, tokens_BLD: Tensor, keys_BL: Tensor, turn: Turn | None = None) -> Tensor:
        """tokens_BLD -> tokens_BLD. At least one key of each sample must be True."""
        query, key, value = self.split(tokens_BLD, turn)
        active_BHU = self._active(query, key, keys_BL)
        weight_BL = keys_BL.to(value.dtype) / keys_BL.sum(-1, keepdim=True)
        mean_BH1d = weight_BL[:, None, None] @ value
        asked = query.gather(2, _rows(active_BHU, query))  # B heads U D/heads
        read = functional.scaled_dot_product_attention(asked, key, value, attn_mask=keys_BL[:, None, None])
        mixed = mean_BH1d.expand_as(value).scatter(2, _rows(active_BHU, value), read)
        return self._deepen(tokens_BLD, mixed.transpose(1, 2).flatten(2))

    def maps(self, tokens_BLD: Tensor, keys_BL: Tensor, turn: Turn | None = None) -> Tensor:
        """The weights [B, heads, L, L] that `forward` gives each query (third axis); the last axis sums to 1."""
        query, key, _ = self.split(tokens_BLD, turn)
        active_BHU = self._active(query, key, keys_BL)
        full_BHLL = super().maps(tokens_BLD, keys_BL[:, None, None], turn)
        lazy_BHLL = (keys_BL.float() / keys_BL.sum(-1, keepdim=True))[:, None, None].expand_as(full_BHLL)
        at_BHUL = _rows(active_BHU, full_BHLL)
        return lazy_BHLL.scatter(2, at_BHUL, full_BHLL.gather(2, at_BHUL))

    def _active(self, query: Tensor, key: Tensor, keys_BL: Tensor) -> Tensor:
        length = query.shape[2]
        return active(query, key, keys_BL, sampled(length, self.factor, self.layer), budget(length, self.factor))


def budget(length: int, factor: int) -> int:
    """How many queries are active and how many keys sampled: c times ln L, rounded up as the authors do; at most L."""
    return min(length, factor * max(1, math.ceil(math.log(length))))


def sampled(length: int, factor: int, layer: int) -> Tensor:
    """Places of the keys that judge all queries: int64 [S], different ones, alike in every call.

    Session i back from the decision has the place frac(i x the golden ratio) on a circle, and those of one arc are
    taken: spread evenly over the window without a period, so that no weekday is preferred. Layers differ by a session.
    """
    turn_L = (torch.arange(length, dtype=torch.float64) + layer) * GOLDEN % 1
    return length - 1 - turn_L.argsort()[: budget(length, factor)]


@torch.no_grad()
def active(query: Tensor, key: Tensor, keys_BL: Tensor, sample_S: Tensor, count: int) -> Tensor:
    """Which queries attend, [B, heads, count]: whose scores over the sampled keys peak most, max - mean (equation 4).

    `query` and `key` are [B, heads, L, D / heads]. Keys that are not observed judge nothing, queries that are not
    come last. The common factor 1 / sqrt(d) changes no order and is left out; which queries they are has no gradient.
    """
    sample_S = sample_S.to(query.device)
    seen_B11S = keys_BL[:, None, None, sample_S]
    score_BHLS = query @ key[:, :, sample_S].transpose(-1, -2)
    mean_BHL = (score_BHLS * seen_B11S).sum(-1) / seen_B11S.sum(-1).clamp(min=1)
    peak_BHL = score_BHLS.masked_fill_(~seen_B11S, -torch.inf).amax(-1) - mean_BHL
    return peak_BHL.masked_fill(~keys_BL[:, None], -torch.inf).topk(count, sorted=False).indices


def _rows(at_BHU: Tensor, of: Tensor) -> Tensor:
    """The index that picks whole rows `at_BHU` of a tensor [B, heads, L, any]."""
    return at_BHU[..., None].expand(-1, -1, -1, of.shape[-1])


class Distil(nn.Module):
    """MaxPool(ELU(Conv1d(tokens))), equation 5: L tokens become L / 2, rounded up. The last covers the last two.

    Windows of three, two apart. ELU rises, so that it may follow the maximum and meet half the tokens.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Linear(3 * width, width)  # of a session, the one before and the one after: kernel 3

    def forward(self, tokens_BLD: Tensor, keys_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, L / 2, D] and which of them hold an observed session. An odd L gets a blank before its first."""
        odd = tokens_BLD.shape[1] % 2
        padded_BLD = functional.pad(tokens_BLD.masked_fill(~keys_BL[..., None], 0), (0, 0, 1 + odd, 1))
        three_BLC = torch.cat([padded_BLD[:, :-2], padded_BLD[:, 1:-1], padded_BLD[:, 2:]], dim=-1)
        first_BLD, second_BLD = self.convolution(three_BLC).unflatten(1, (-1, 2)).unbind(2)
        before_BLD = functional.pad(second_BLD[:, :-1], (0, 0, 1, 0), value=-torch.inf)
        halves_BL = functional.pad(keys_BL, (odd, 0)).reshape(len(keys_BL), -1, 2).any(-1)
        return functional.elu(torch.maximum(torch.maximum(first_BLD, second_BLD), before_BLD)), halves_BL


def expand(map_BHMM: Tensor, keys_BL: Tensor) -> Tensor:
    """Maps between M tokens, each the merger of as many sessions, to maps [B, heads, L, L] between the sessions.

    Tokens end with the window, and the first may reach before it. A token's weight is shared alike by those of its
    sessions that are in `keys_BL`. Raises nothing: M must come from halving L, rounded up.
    """
    length, tokens = keys_BL.shape[1], map_BHMM.shape[-1]
    if tokens == length:
        return map_BHMM
    size = 1 << ((length - 1) // tokens).bit_length()
    token_L = (torch.arange(length, device=keys_BL.device) + (tokens * size - length)) // size
    share_BL = keys_BL.to(map_BHMM.dtype)
    holds_BM = torch.zeros(len(keys_BL), tokens, device=keys_BL.device).index_add(1, token_L, share_BL)
    share_BL = share_BL / holds_BM[:, token_L].clamp(min=1)
    return map_BHMM[:, :, token_L][..., token_L] * share_BL[:, None, None]
