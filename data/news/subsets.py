"""Which sets of words are another one less a word or two: all such pairs, without comparing all pairs.

A set's key is the sum of its words' hashes, so the key of the set without a word is a subtraction away.
Every set is asked for the keys of its own subsets (its deletion neighbourhood, as in SymSpell, W. Garbe
2012), and those that are keys of other sets are kept. A set yields at most one pair for each subset it is
asked for, so the work grows with the number of sets, whatever the titles: a word that stands in all of
them costs nothing. Keys are 64 bits wide; two sets that share one by accident or malice are a pair
reported wrongly, which the caller, who compares the words themselves, turns down.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
_Keys = npt.NDArray[np.uint64]

# A copy may lack one word of five to seven, two of eight or more; a shorter title must match in all.
ONE_MAY_GO, TWO_MAY_GO = 5, 8
# Words that must remain where a title loses its tail.
TAIL_LEAVES = 4
# Beyond this many droppable words only one is dropped: pairs of them would be hundreds a title.
PAIRS_UP_TO = 24
_CHUNK = 1 << 21  # keys worked on at a time: 16 MiB


@dataclass(frozen=True)
class Subsets:
    """`set_of[i]` numbers the set of words i. Sets `small[start[s]:start[s + 1]]` are set s less a word or two."""

    set_of: Ints
    start: Ints
    small: Ints


def find_subsets(words: Sequence[tuple[str, ...]], tails: Sequence[int]) -> Subsets:
    """Number the distinct sets among `words` and pair each with its subsets. Words that begin with `!` never go.

    The last `tails[i]` of words i may go together, besides the one or two. Of the texts that share a set the first
    one's tail counts.
    """
    known: dict[str, int] = {}
    code = np.fromiter((known.setdefault(word, len(known)) for word in chain.from_iterable(words)), dtype=np.int64)
    hashes = np.frombuffer(b"".join(blake2b(w.encode(), digest_size=8).digest() for w in known), dtype="<u8")
    firm = np.array([word.startswith("!") for word in known], dtype=np.bool_)
    start = np.concatenate([[0], np.cumsum([len(each) for each in words])])
    keys, example, set_of = np.unique(_sums(hashes[code], start), return_index=True, return_inverse=True)
    begin, end = start[example], start[example + 1]
    tail = np.asarray(tails, dtype=np.int64)[example]
    tailed = np.flatnonzero((tail > 0) & (end - begin - tail >= TAIL_LEAVES))
    owner = np.concatenate([np.arange(len(keys)), tailed])
    begin, end = begin[owner], np.concatenate([end, (end - tail)[tailed]])
    large, small = _pairs(keys, owner, begin, end, hashes[code], firm[code])
    order = np.lexsort((small, large))
    bounds = np.searchsorted(large[order], np.arange(len(keys) + 1))
    return Subsets(set_of.astype(np.int64), bounds.astype(np.int64), small[order])


def _sums(hashes: _Keys, start: Ints) -> _Keys:
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(hashes)])
    sums: _Keys = total[start[1:]] - total[start[:-1]]
    return sums


def _pairs(
    keys: _Keys, owner: Ints, begin: Ints, end: Ints, hashes: _Keys, firm: npt.NDArray[np.bool_]
) -> tuple[Ints, Ints]:
    """(larger, smaller) as positions in `keys`. Row r is set `owner[r]`, or part of it: hashes `begin[r]:end[r]`."""
    sieve = _Sieve(keys)
    firm_before = np.concatenate([[0], np.cumsum(firm)])
    soft_hashes = hashes[~firm]
    base = np.concatenate([np.zeros(1, np.uint64), np.cumsum(hashes)])
    base = base[end] - base[begin]
    first = begin - firm_before[begin]
    soft = end - firm_before[end] - first
    total = end - begin
    found = [sieve.find(base[:, None], owner)]
    for width in np.unique(soft[(total >= ONE_MAY_GO) & (soft > 0)]):
        rows = np.flatnonzero((soft == width) & (total >= ONE_MAY_GO))
        for some in np.array_split(rows, 1 + len(rows) * width * width // _CHUNK):
            own = soft_hashes[first[some, None] + np.arange(width)]
            found.append(sieve.find(base[some, None] - own, owner[some]))
            if width <= PAIRS_UP_TO:
                long = total[some] >= TWO_MAY_GO
                one, other = np.triu_indices(width, 1)
                found.append(
                    sieve.find(base[some[long], None] - own[long][:, one] - own[long][:, other], owner[some[long]])
                )
    large, small = (np.concatenate(each) for each in zip(*found, strict=True))
    return large[large != small], small[large != small]


class _Sieve:
    """Finds the few of many keys that occur in `keys`, which ascend. A table of bits turns away nearly all others."""

    def __init__(self, keys: _Keys) -> None:
        self._keys = keys
        self._mask = np.uint64((1 << max(10, len(keys).bit_length() + 4)) - 1)
        self._bits = np.zeros(int(self._mask) + 1, dtype=np.bool_)
        self._bits[keys & self._mask] = True

    def find(self, wanted: _Keys, owner: Ints) -> tuple[Ints, Ints]:
        """For each one found in the matrix `wanted`: the owner of its row, and its position in `keys`."""
        row, column = np.nonzero(self._bits[wanted & self._mask])
        hits = wanted[row, column]
        place = np.minimum(np.searchsorted(self._keys, hits), len(self._keys) - 1)
        right = self._keys[place] == hits
        return owner[row[right]], place[right]
