"""What reads the tokens in order: an LSTM, or a causal Transformer. Each goes on where it stopped, from its cache.

A cache holds what later tokens need of earlier ones: the LSTM's state, or the keys and values of the sessions still
inside the window. Continuing from it gives what reading the whole sequence again would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.price.attention import readable

BASE = 10_000.0  # of the rotary positions' wavelengths


class Cache(Protocol):
    """What a stack remembers of a batch."""

    def fan(self, paths: int) -> Cache:
        """Every sample `paths` times, side by side: one past, several futures."""
        ...


class Stack(Protocol):
    """tokens_BTD -> states_BTD; the state at a session has read that session and those before."""

    def __call__(self, tokens_BTD: Tensor, keys_BT: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """`keys_BT` is True at observed sessions; with a cache, the T tokens follow those it has read."""
        ...

    def maps(self, tokens_BTD: Tensor, keys_BT: Tensor) -> Tensor | None:
        """Attention [B, layers, heads, T, T] without a cache; None where there is none."""
        ...


@dataclass(frozen=True)
class LSTMState:
    """Of every layer, [layers, B, D] each."""

    hidden: Tensor
    cell: Tensor

    def fan(self, paths: int) -> LSTMState:
        """[layers, B x paths, D]."""
        return LSTMState(*(part.repeat_interleave(paths, dim=1) for part in (self.hidden, self.cell)))


class LSTMStack(nn.Module):
    """Stacked LSTMs with open forget gates. A masked session is a token like another: the state steps over it."""

    def __init__(self, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("bias_ih"):
                nn.init.ones_(parameter.data[width : 2 * width])

    def forward(self, tokens_BTD: Tensor, keys_BT: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:  # noqa: ARG002
        """The cache is the state after the last token."""
        past = (cache.hidden, cache.cell) if isinstance(cache, LSTMState) else None
        with torch.autocast(tokens_BTD.device.type, enabled=False):
            states_BTD, state = self.lstm(tokens_BTD.float(), past)
        return states_BTD, LSTMState(*state)

    def maps(self, tokens_BTD: Tensor, keys_BT: Tensor) -> None:
        """An LSTM does not attend."""


@dataclass(frozen=True)
class Attended:
    """Keys and values [layers, 2, B, heads, P, D / heads] of the last P sessions, and which were observed.

    `seen` counts all sessions read so far: the next one's place.
    """

    memory: Tensor
    keys_BP: Tensor
    seen: int

    def fan(self, paths: int) -> Attended:
        """B x paths samples."""
        memory = self.memory.repeat_interleave(paths, dim=2)
        return Attended(memory, self.keys_BP.repeat_interleave(paths, dim=0), self.seen)


class CausalStack(nn.Module):
    """A pre-norm Transformer in which a session attends to the `window` sessions up to and including itself.

    Rotary positions (Su et al. 2021, RoFormer, equation 34) say how far back a session lies, so the place in the
    sequence does not count and a path may grow past the lookback. Masked sessions are no keys.
    """

    def __init__(self, width: int, layers: int, heads: int, dropout: float, window: int) -> None:
        super().__init__()
        self.window = window
        self.blocks = nn.ModuleList([CausalBlock(width, heads, dropout) for _ in range(layers)])

    def forward(self, tokens_BTD: Tensor, keys_BT: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """The cache keeps what the next token may still attend to: the last `window` - 1 sessions."""
        past = cache if isinstance(cache, Attended) else None
        seen = past.seen if past else 0
        known_BP = torch.cat([past.keys_BP, keys_BT], dim=1) if past else keys_BT
        allowed_B1TP = self._allowed(known_BP, tokens_BTD.shape[1])
        place_TD = _angles(seen, tokens_BTD, cast(CausalBlock, self.blocks[0]).heads)
        memories = []
        for layer, block in enumerate(self.blocks):
            tokens_BTD, memory = block(tokens_BTD, allowed_B1TP, place_TD, past.memory[layer] if past else None)
            memories.append(memory)
        kept = torch.stack(memories)[..., -(self.window - 1) :, :]
        return tokens_BTD, Attended(kept, known_BP[:, -(self.window - 1) :], seen + keys_BT.shape[1])

    def maps(self, tokens_BTD: Tensor, keys_BT: Tensor) -> Tensor:
        """[B, layers, heads, T, T]; rows sum to 1."""
        allowed_B1TT, maps = self._allowed(keys_BT, keys_BT.shape[1]), []
        place_TD = _angles(0, tokens_BTD, cast(CausalBlock, self.blocks[0]).heads)
        for block in cast(list[CausalBlock], self.blocks):
            maps.append(block.maps(tokens_BTD, allowed_B1TT, place_TD))
            tokens_BTD, _ = block(tokens_BTD, allowed_B1TT, place_TD, None)
        return torch.stack(maps, dim=1)

    def _allowed(self, known_BP: Tensor, tokens: int) -> Tensor:
        """[B, 1, T, P]: which of the P known sessions each of the last T may attend to; at least one.

        A query with none within its reach is masked itself and reads all that may be read: no other reads it.
        """
        at_P = torch.arange(known_BP.shape[1], device=known_BP.device)
        back_TP = at_P[-tokens:, None] - at_P
        keys_B1P = readable(known_BP)[:, None]
        allowed_BTP = (back_TP >= 0) & (back_TP < self.window) & keys_B1P
        return (allowed_BTP | (keys_B1P & ~allowed_BTP.any(-1, keepdim=True)))[:, None]


class CausalBlock(nn.Module):
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

    def forward(
        self, tokens_BTD: Tensor, allowed_B1TP: Tensor, place_TD: Tensor, past: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """tokens_BTD, and the keys and values [2, B, heads, P, D / heads] with those of `past` before them."""
        query, key, value = self._split(tokens_BTD, place_TD)
        memory = torch.stack([key, value])
        if past is not None:
            memory = torch.cat([past, memory], dim=-2)
        mixed = functional.scaled_dot_product_attention(query, memory[0], memory[1], attn_mask=allowed_B1TP)
        tokens_BTD = tokens_BTD + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        return tokens_BTD + self.dropout(self.mlp(self.norm_mlp(tokens_BTD))), memory

    def maps(self, tokens_BTD: Tensor, allowed_B1TT: Tensor, place_TD: Tensor) -> Tensor:
        """The weights [B, heads, T, T] that `forward` gives each query (third axis)."""
        query, key, _ = self._split(tokens_BTD, place_TD)
        scores: Tensor = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        return scores.float().masked_fill(~allowed_B1TT, -torch.inf).softmax(-1)

    def _split(self, tokens_BTD: Tensor, place_TD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, turned to their places, and values, each [B, heads, T, D / heads]."""
        qkv = self.qkv(self.norm_attention(tokens_BTD)).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        return _turned(query, place_TD).to(value.dtype), _turned(key, place_TD).to(value.dtype), value


def _angles(seen: int, tokens_BTD: Tensor, heads: int) -> Tensor:
    """[T, D / heads]: the angle of each place for each pair of a head's dimensions, twice over."""
    size = tokens_BTD.shape[-1] // heads
    rate = BASE ** (-torch.arange(0, size, 2, device=tokens_BTD.device) / size)
    place_T1 = torch.arange(seen, seen + tokens_BTD.shape[1], device=tokens_BTD.device)[:, None]
    return (place_T1 * rate).repeat(1, 2)


def _turned(vectors: Tensor, place_TD: Tensor) -> Tensor:
    """Each pair (i, i + half) of the last dimension turned by its angle."""
    first, second = vectors.chunk(2, dim=-1)
    return vectors * place_TD.cos() + torch.cat([-second, first], dim=-1) * place_TD.sin()
