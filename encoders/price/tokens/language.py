"""Tokens to the distribution of the next token: embedding, stack, logits. Knows codes, not what they stand for.

A bar's token is G codes. The state after a bar gives the first code of the next one; each further code is given
the ones before it: p(bar) = p(c0) p(c1 | c0) ... So G small softmaxes stand for one over all combinations, and no
independence is assumed. Embeddings are tied to the logits (Press and Wolf 2017).
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from encoders.price.tokens.stacks import Cache, Stack


class LanguageModel(nn.Module):
    """codes_BTG -> states_BTD -> log-probabilities of the next codes."""

    def __init__(self, levels: tuple[int, ...], width: int, stack: nn.Module, dropout: float) -> None:
        """`levels` are the sizes of the G codebooks."""
        super().__init__()
        self.levels = levels
        # One row more than the first codebook has codes: the token of a masked session.
        sizes = [count + (position == 0) for position, count in enumerate(levels)]
        self.embeddings = nn.ModuleList([nn.Embedding(size, width) for size in sizes])
        self.stack = stack
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        for table in self._tables:
            nn.init.normal_(table.weight, std=width**-0.5)

    def forward(self, codes_BTG: Tensor, mask_BT: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """The state after each bar [B, T, D], and a cache to go on from. Codes of masked sessions are not read."""
        states_BTD, cache = cast(Stack, self.stack)(self._embed(codes_BTG, mask_BT), mask_BT, cache)
        normed_BTD: Tensor = self.norm(states_BTD)
        return normed_BTD, cache

    def maps(self, codes_BTG: Tensor, mask_BT: Tensor) -> Tensor | None:
        """The stack's attention [B, layers, heads, T, T]; None where it has none."""
        return cast(Stack, self.stack).maps(self._embed(codes_BTG, mask_BT), mask_BT)

    def logits(self, context: Tensor, position: int) -> Tensor:
        """[..., K] of the code at `position` of the next bar, given its context [..., D]."""
        return context @ self._tables[position].weight[: self.levels[position]].T

    def follow(self, context: Tensor, position: int, code: Tensor) -> Tensor:
        """The context of the next position [..., D], now that this one's code [...] is known."""
        chosen: Tensor = self._tables[position](code)
        return context + chosen * math.sqrt(context.shape[-1])

    def log_prob(self, states: Tensor, codes: Tensor) -> Tensor:
        """[..., G]: log-probability, in nats, of each next code [..., G] given the states [..., D] and those before."""
        context, parts = states, []
        for position in range(len(self.levels)):
            code = codes[..., position].long()
            scores = self.logits(context, position).float().log_softmax(-1)
            parts.append(scores.gather(-1, code[..., None])[..., 0])
            context = self.follow(context, position, code)
        return torch.stack(parts, dim=-1)

    def next_log_prob(self, codes_BTG: Tensor, mask_BT: Tensor) -> Tensor:
        """[M, G]: `log_prob` of every observed bar that follows an observed bar, and is not the first of its row."""
        states_BTD, _ = self(codes_BTG[:, :-1], mask_BT[:, :-1])
        counted_BT = mask_BT[:, :-1] & mask_BT[:, 1:]
        return self.log_prob(states_BTD[counted_BT], codes_BTG[:, 1:][counted_BT])

    def _embed(self, codes_BTG: Tensor, mask_BT: Tensor) -> Tensor:
        """[B, T, D]: the sum of a bar's code vectors, at variance 1; the masked token's vector where it is masked."""
        codes_BTG = codes_BTG.long().masked_fill(~mask_BT[..., None], 0)
        parts = [table(codes_BTG[..., position]) for position, table in enumerate(self._tables)]
        masked_D = self._tables[0].weight[-1]
        width, count = masked_D.shape[-1], len(parts)
        tokens_BTD = torch.where(mask_BT[..., None], torch.stack(parts).sum(0) / math.sqrt(count), masked_D)
        embedded_BTD: Tensor = self.dropout(tokens_BTD * math.sqrt(width))
        return embedded_BTD

    @property
    def _tables(self) -> list[nn.Embedding]:
        return cast(list[nn.Embedding], list(self.embeddings))
