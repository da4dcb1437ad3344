"""What reads the tokens in order: an LSTM, or a causal Transformer. Each goes on where it stopped, from its cache.

A cache holds what later tokens need of earlier ones: the LSTM's state, or the keys and values of the sessions still
inside the window. Continuing from it gives what reading the whole sequence again would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from encoders.price.attention import readable
from encoders.price.positions import Turn, turned
from encoders.price.recurrent import remember
from encoders.price.transformer import Block, TransformerConfig

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
        remember(self.lstm)

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
        self.heads = heads
        inner = TransformerConfig(width=width, heads=heads, dropout=dropout)
        self.blocks = nn.ModuleList(Block(inner) for _ in range(layers))

    def forward(self, tokens_BTD: Tensor, keys_BT: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """The cache keeps what the next token may still attend to: the last `window` - 1 sessions."""
        past = cache if isinstance(cache, Attended) else None
        seen = past.seen if past else 0
        known_BP = torch.cat([past.keys_BP, keys_BT], dim=1) if past else keys_BT
        allowed_B1TP = self._allowed(known_BP, tokens_BTD.shape[1])
        turn = self._turn(seen, tokens_BTD)
        memories = []
        for layer, block in enumerate(cast("list[Block]", list(self.blocks))):
            query, key, value = block.split(tokens_BTD, turn)
            memory = torch.stack([key, value])
            if past:
                memory = torch.cat([past.memory[layer], memory], dim=-2)
            tokens_BTD = block.attend(tokens_BTD, query, memory[0], memory[1], allowed_B1TP)
            memories.append(memory)
        kept = torch.stack(memories)[..., -(self.window - 1) :, :]
        return tokens_BTD, Attended(kept, known_BP[:, -(self.window - 1) :], seen + keys_BT.shape[1])

    def maps(self, tokens_BTD: Tensor, keys_BT: Tensor) -> Tensor:
        """[B, layers, heads, T, T]; rows sum to 1."""
        allowed_B1TT, maps = self._allowed(keys_BT, keys_BT.shape[1]), []
        turn = self._turn(0, tokens_BTD)
        for block in cast("list[Block]", list(self.blocks)):
            maps.append(block.maps(tokens_BTD, allowed_B1TT, turn))
            tokens_BTD = block(tokens_BTD, allowed_B1TT, turn)
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

    def _turn(self, seen: int, tokens_BTD: Tensor) -> Turn:
        """To the places of T tokens after `seen` others. A pair is the ith entry of a head's first half and its second.

        Places grow without end, so there is no table of them as in `positions.Rotary`.
        """
        size = tokens_BTD.shape[-1] // self.heads
        # Not `positions.rates`, which rounds otherwise: what a saved model draws depends on every bit.
        rate_W = BASE ** (-torch.arange(0, size, 2, device=tokens_BTD.device) / size)
        place_T1 = torch.arange(seen, seen + tokens_BTD.shape[1], device=tokens_BTD.device)[:, None]
        cos_TW, sin_TW = (place_T1 * rate_W).cos(), (place_T1 * rate_W).sin()

        def turn(head_BHTD: Tensor) -> Tensor:
            first, second = head_BHTD.chunk(2, dim=-1)
            return torch.cat(turned(first, second, cos_TW, sin_TW), dim=-1).to(head_BHTD.dtype)

        return turn
