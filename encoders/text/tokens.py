"""Texts to token ids, laid end to end: no padding, and of a long text so many windows and no more.

It does not normalise texts, and does not look for duplicates. Specials are the tokenizer's own; a text
that spells one ("[SEP]") is read as the tokenizer reads it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]

# A word beyond 100 characters is one unknown token to WordPiece, and no usual vocabulary has a longer token.
CHARS_PER_TOKEN = 128


@dataclass(frozen=True)
class Sequences:
    """Token ids [N] of S sequences end to end: sequence s is `ids[offset[s]:offset[s + 1]]`, a window of `text[s]`.

    `text` ascends: the windows of a text lie side by side, in order, and every text has at least one.
    """

    ids: Ids
    offset: Ids
    text: Ids

    @property
    def lengths(self) -> Ids:
        """Tokens of each sequence, specials included; [S]."""
        return np.diff(self.offset)


class Tokeniser:
    """Reads texts as windows of at most `max_tokens` tokens, `chunks` of them at most, sharing `overlap` tokens."""

    def __init__(self, tokenizer: Any, max_tokens: int, chunks: int = 1, overlap: int = 0) -> None:
        self._tokenizer = tokenizer
        self._max_tokens, self._chunks, self._overlap = max_tokens, chunks, overlap

    def __call__(self, texts: Sequence[str]) -> Sequences:
        """Token ids of `texts`, at least one of them. An empty text is its special tokens."""
        limit = self._max_tokens * self._chunks
        starts = [beginning(text, limit) for text in texts]
        windows = self._quick(starts) if self._tokenizer.is_fast else self._slow(starts)
        if self._chunks == 1:
            text = np.arange(len(texts))
            flat = [own[0] for own in windows]
        else:
            text = np.repeat(np.arange(len(texts)), [len(own) for own in windows])
            flat = list(chain.from_iterable(windows))
        offset = np.cumsum([0, *map(len, flat)])
        return Sequences(np.fromiter(chain.from_iterable(flat), np.int64, offset[-1]), offset, text)

    def _quick(self, texts: list[str]) -> list[list[list[int]]]:
        """The Rust tokeniser, on all cores, without the interpreter's lock."""
        rust = self._tokenizer.backend_tokenizer
        # What it pads to stands in its file (MiniLM's: 128 always) and stays on after a call that pads: ids of padding
        # would be read as text.
        rust.no_padding()
        rust.enable_truncation(self._max_tokens, stride=self._overlap, direction="right")
        encoded = rust.encode_batch_fast(texts)
        if self._chunks == 1:
            return [[one.ids] for one in encoded]
        return [[one.ids, *(more.ids for more in one.overflowing[: self._chunks - 1])] for one in encoded]

    def _slow(self, texts: list[str]) -> list[list[list[int]]]:
        """A tokenizer without a Rust part; windows are cut here."""
        room = self._max_tokens - self._tokenizer.num_special_tokens_to_add()
        all_ids = self._tokenizer(texts, add_special_tokens=False, padding=False, truncation=False)["input_ids"]
        special = self._tokenizer.build_inputs_with_special_tokens
        return [[special(window) for window in self._cut(ids, room)] for ids in all_ids]

    def _cut(self, ids: list[int], room: int) -> list[list[int]]:
        step = room - self._overlap
        starts = range(0, max(len(ids) - self._overlap, 1), step)[: self._chunks]
        return [ids[start : start + room] for start in starts]


def beginning(text: str, tokens: int) -> str:
    """The start of `text` that holds its first `tokens` tokens, so that the rest need not be tokenised.

    A word (between spaces) is a token at least, a token has at most CHARS_PER_TOKEN characters; only a text that is
    mostly unknown words longer than that is cut too early.
    """
    text = text[: tokens * CHARS_PER_TOKEN]
    if len(text) <= 2 * tokens:
        return text
    words = re.match(f"(?: *[^ ]+){{0,{tokens}}}", text)
    return words.group() if words else text
