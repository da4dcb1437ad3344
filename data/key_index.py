"""Finds 128-bit keys among millions: sorted once, looked up through a directory of buckets. No files.

Keys are hashes (`data.text.text_keys`), so their first words are spread evenly: the leading bits name a
bucket of about one key, and a look-up is two reads instead of a binary search's twenty. Keys that are
not spread evenly are found all the same, but slowly. What a key stands for is not its business.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from data.text import Keys

Words = npt.NDArray[np.uint64]
RowIds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SortedKeys:
    """Distinct keys in ascending order of their first word, each with the row it belongs to; all [N]."""

    first: Words
    second: Words
    row: RowIds

    @classmethod
    def of(cls, keys: Keys, start: int = 0) -> Self:
        """Sort [N, 2] distinct keys that belong to the rows from `start` on, in order."""
        first = np.ascontiguousarray(keys[:, 0])
        order = np.argsort(first)
        return cls(first[order], keys[:, 1][order], order.astype(np.int64, copy=False) + start)

    def __len__(self) -> int:
        return len(self.first)

    def merged(self, other: "SortedKeys") -> "SortedKeys":
        """Both together; no key may be in both."""
        if not len(self) or not len(other):
            return self if len(self) else other
        at = np.searchsorted(self.first, other.first) + np.arange(len(other))
        own = np.ones(len(self) + len(other), dtype=np.bool_)
        own[at] = False
        return SortedKeys(
            _merge(own, at, self.first, other.first),
            _merge(own, at, self.second, other.second),
            _merge(own, at, self.row, other.row),
        )


class KeyIndex:
    """Rows of keys."""

    def __init__(self, keys: SortedKeys) -> None:
        self.keys = keys
        bits = max(len(keys).bit_length(), 1)
        self._shift = np.uint64(64 - bits)
        sizes = np.bincount((keys.first >> self._shift).astype(np.int64), minlength=1 << bits)
        # Half the width, half the misses of the cache.
        self._start = np.zeros((1 << bits) + 1, dtype=np.int32 if len(keys) < 2**31 else np.int64)
        np.cumsum(sizes, out=self._start[1:])

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, keys: Keys) -> RowIds:
        """The row of each of [N, 2] keys; -1 where it is not there."""
        if not len(self.keys):
            return np.full(len(keys), -1, dtype=np.int64)
        first, second = np.ascontiguousarray(keys[:, 0]), np.ascontiguousarray(keys[:, 1])
        bucket = (first >> self._shift).astype(np.int64)
        # Nearly every key there is stands first in its bucket. What stands behind an empty one is another's: no match.
        at = np.minimum(self._start[bucket], len(self.keys) - 1)
        hit = self._match(at, first, second)
        found: RowIds = np.where(hit, self.keys.row[at], -1)
        rest = np.flatnonzero(~hit)
        at, stop = at[rest], self._start[bucket[rest] + 1]
        while len(rest):  # a round for each further place in a bucket: few, and ever fewer keys in them
            inside = np.flatnonzero(at + 1 < stop)
            rest, at, stop = rest[inside], at[inside] + 1, stop[inside]
            hit = self._match(at, first[rest], second[rest])
            found[rest[hit]] = self.keys.row[at[hit]]
            rest, at, stop = rest[~hit], at[~hit], stop[~hit]
        return found

    def _match(self, at: npt.NDArray[np.integer], first: Words, second: Words) -> npt.NDArray[np.bool_]:
        same: npt.NDArray[np.bool_] = self.keys.first[at] == first
        same &= self.keys.second[at] == second
        return same


def first_of_each(keys: Keys) -> npt.NDArray[np.int64]:
    """Positions of [N, 2] keys at which a key comes for the first time, ascending."""
    order = np.argsort(keys[:, 0])
    words = keys[order, 0]
    if not (words[1:] == words[:-1]).any():
        return np.arange(len(keys))
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: of equal keys the earliest comes first
    again = np.zeros(len(keys), dtype=np.bool_)
    again[1:] = (keys[order[1:]] == keys[order[:-1]]).all(axis=1)
    return np.sort(order[~again])


def _merge(own: npt.NDArray[np.bool_], at: RowIds, mine: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> Any:
    out = np.empty(len(own), dtype=mine.dtype)
    out[own] = mine
    out[at] = theirs
    return out
