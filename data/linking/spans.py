"""Hashes of spans of text, all at once: which of a million words are worth a closer look.

A polynomial modulo 2**64 from prefix sums (Karp and Rabin, 1987). It is a sieve: what it lets through is
matched exactly elsewhere, or is a word of our own vocabulary, where a chance in 2**64 does no harm.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_INVERSE = pow(_BASE, -1, 1 << 64)
_BITS = 18


class Spans:
    """Hashes of any spans of one text, given as its code points."""

    def __init__(self, codes: npt.NDArray[np.unsignedinteger]) -> None:
        powers = _powers(_BASE, len(codes))
        self._sums = np.zeros(len(codes) + 1, dtype=np.uint64)
        np.cumsum(codes * powers, out=self._sums[1:])
        self._shift = _powers(_INVERSE, len(codes))

    def hashes(self, begin: Ints, end: Ints) -> Hashes:
        """One of each text[begin:end]; equal texts have equal ones."""
        return (self._sums[end] - self._sums[begin]) * self._shift[begin] * np.uint64(_BASE)


class Lookup:
    """A number for each of some texts, looked up by hash; 0 for all other hashes."""

    def __init__(self, numbers: Mapping[str, int]) -> None:
        texts = list(numbers)
        long = " ".join(texts)
        ends = np.cumsum([len(text) + 1 for text in texts], dtype=np.int64) - 1
        begins = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)[: len(texts)]
        codes = np.frombuffer(long.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        hashes = Spans(codes).hashes(begins, ends)
        order = np.argsort(hashes)
        self._hashes = hashes[order]
        self._numbers = np.array([numbers[text] for text in texts], dtype=np.int64)[order]
        size = np.bincount(self._slot(self._hashes), minlength=1 << _BITS)
        self._first = np.concatenate([[0], np.cumsum(size)[:-1]]).astype(np.int32)  # of each slot's hashes
        self._size = size.astype(np.uint8)

    def find(self, hashes: Hashes) -> Ints:
        """The number of each."""
        found = np.zeros(len(hashes), dtype=np.int64)
        slot = self._slot(hashes)
        size = self._size[slot]
        left = np.flatnonzero(size)
        tried = 0
        while len(left):
            place = self._first[slot[left]] + tried
            equal = self._hashes[place] == hashes[left]
            found[left[equal]] = self._numbers[place[equal]]
            tried += 1
            left = left[~equal & (size[left] > tried)]
        return found

    @staticmethod
    def _slot(hashes: Hashes) -> Ints:
        return (hashes >> np.uint64(64 - _BITS)).astype(np.int64)


def _powers(base: int, count: int) -> Hashes:
    """base**0, base**1, ... modulo 2**64; kept for the longest text so far."""
    known = _KNOWN.get(base)
    if known is None or len(known) < count:
        powers = np.full(max(count, 1), base, dtype=np.uint64)
        powers[0] = 1
        known = _KNOWN[base] = np.cumprod(powers, dtype=np.uint64)
    return known[:count]


_KNOWN: dict[int, Hashes] = {}
