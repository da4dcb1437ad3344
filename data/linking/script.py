"""Headlines as one long text that can be searched at once: plain characters, words, and how each title is written.

`plain` maps character by character, so a place in the plain text is a place in the title. Reads no meaning.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from data.linking.spans import Hashes, Spans

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.uint32]
Letters = npt.NDArray[np.uint16]

_SPACE, _END = 32, 10
_APOSTROPHES = "'’‘ʼ`´＇"


def _plain_table() -> Letters:
    """For each code point below 65,536: its lower-case base letter or digit, "&", or a space."""
    table = np.full(0x10000, _SPACE, dtype=np.uint16)
    for code in (*range(0x2000), *range(0xFF00, 0xFFF0), 0x212A):
        character = unicodedata.normalize("NFKD", chr(code)).lower()[:1]
        if character.isalnum() or character == "&":
            table[code] = ord(character)
    table[0x3000:0xA000] = np.arange(0x3000, 0xA000)  # CJK: each a letter
    table[0x3000:0x3005] = _SPACE
    table[0xA000:0xD800] = np.arange(0xA000, 0xD800)
    return table


_PLAIN = _plain_table()
_ASCII = {code: int(_PLAIN[code]) for code in range(128)}
_LOWER = np.array([*(chr(code).islower() for code in range(0x2000)), False])  # the last stands for all beyond


def _codes(text: str) -> Codes:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _letters(codes: Codes) -> Letters:
    """The plain character for each code point; beyond the first 65,536 there is none, but a space."""
    return _PLAIN[codes] if codes.max(initial=0) < len(_PLAIN) else _PLAIN[np.minimum(codes, len(_PLAIN) - 1)]


def characters(letters: Letters) -> str:
    """The text of plain characters."""
    return letters.astype("<u2").tobytes().decode("utf-16-le")


def plain(text: str) -> str:
    """Lower case, accents off, all but letters, digits and "&" a space: as long as `text`."""
    if text.isascii():
        return text.translate(_ASCII)
    return characters(_letters(_codes(text)))


@dataclass(frozen=True)
class Script:
    """Titles joined into one text. Places in `joined` are a title's own plus its `starts`.

    `search` is the plain text with single spaces, each title between spaces and line ends; `place[i]` is
    where its character i stands in `joined`. Words carry where they begin and end in `search`, the title
    they belong to, and how they are written.
    """

    joined: str
    codes: Codes
    starts: Ints  # of each title, in `joined`
    lengths: Ints
    search: str
    letters: Letters  # of `search`
    place: Ints
    word_begin: Ints
    word_end: Ints
    word_row: Ints
    spans: Spans  # of `search`

    @staticmethod
    def of(titles: Sequence[str]) -> "Script":
        """All of `titles`; no titles give a script without words."""
        joined = " " + " \n ".join(titles) + " "
        lengths = np.fromiter(map(len, titles), dtype=np.int64, count=len(titles))
        starts = 1 + np.concatenate([[0], np.cumsum(lengths + 3)])[: len(titles)]
        codes = _codes(joined)
        letters = _letters(codes)
        letters[starts[1:] - 2] = _END
        blank = letters == _SPACE
        keep = np.concatenate([[True], ~(blank[1:] & blank[:-1])])
        kept, place = letters[keep], np.flatnonzero(keep)
        word = kept > _SPACE
        edges = np.flatnonzero(word[1:] != word[:-1]) + 1
        begin, end = edges[::2], edges[1::2]
        rows = np.concatenate([[0], np.searchsorted(begin, np.flatnonzero(kept == _END)), [len(begin)]])
        return Script(
            joined=joined,
            codes=codes,
            starts=starts,
            lengths=lengths,
            search=characters(kept),
            letters=kept,
            place=place,
            word_begin=begin,
            word_end=end,
            word_row=np.repeat(np.arange(len(rows) - 1), np.diff(rows)),
            spans=Spans(kept),
        )

    def word_hashes(self, word: Ints) -> Hashes:
        """One of each of these plain words."""
        return self.spans.hashes(self.word_begin[word], self.word_end[word])

    def word_before(self, place: Ints) -> Ints:
        """The last word that ends before each place of `joined`, in whatever title; -1 for none."""
        return np.searchsorted(self._last_letter, place) - 1

    @cached_property
    def _last_letter(self) -> Ints:
        """Where in `joined` each word's last letter stands."""
        return self.place[self.word_end - 1]

    def word_after(self, number: int) -> str:
        """The plain word after that one in its title; "" at the title's end."""
        here = self.word_end[number] + 1
        return self.search[here : self.search.find(" ", here)] if self.search[here : here + 1] > " " else ""

    @cached_property
    def capital(self) -> Flags:
        """Which words do not begin with a lower-case letter."""
        found: Flags = ~_lower(self.codes[self.place[self.word_begin]])
        return found

    @cached_property
    def _lower_before(self) -> npt.NDArray[np.int32]:
        """Lower-case letters of `joined` before each place."""
        counts = np.zeros(len(self.codes) + 1, dtype=np.int32)
        np.cumsum(_lower(self.codes), dtype=np.int32, out=counts[1:])
        return counts

    def loud(self, word: Ints) -> Flags:
        """Whether each of these words has no lower-case letter."""
        begin, end = self.place[self.word_begin[word]], self.place[self.word_end[word] - 1] + 1
        found: Flags = self._lower_before[begin] == self._lower_before[end]
        return found

    @cached_property
    def first_word(self) -> Flags:
        """Which words open a title."""
        found: Flags = np.diff(self.word_row, prepend=-1) != 0
        return found

    @cached_property
    def shouted(self) -> Flags:
        """Titles written in capitals, with hardly a letter in lower case. Their capitals say nothing."""
        lower = self._lower_before[self.starts + self.lengths] - self._lower_before[self.starts]
        found: Flags = (lower <= 0.15 * self.lengths) & (self.lengths >= 12)
        return found

    @cached_property
    def sentence(self) -> Flags:
        """Titles written like a sentence: a capital inside one marks a name. Headline Style Does Not."""
        long = (self.word_end - self.word_begin >= 4) & ~self.first_word
        lower, upper = self._count(long & ~self.capital), self._count(long & self.capital)
        found: Flags = (lower >= 2) & (lower > upper)
        return found

    def _count(self, words: Flags) -> Ints:
        return np.bincount(self.word_row[words], minlength=len(self.starts))

    def among(self, place: Ints, marks: str) -> Flags:
        """Whether the character of `joined` at each place is one of `marks`; none beyond its end is."""
        codes = self.codes.take(place, mode="clip")
        found: Flags = np.zeros(len(codes), dtype=bool)
        for mark in marks:
            found |= codes == ord(mark)
        return found

    def apostrophe(self, place: Ints) -> Flags:
        """Whether an apostrophe of any kind stands at each place of `joined`."""
        return self.among(place, _APOSTROPHES)


def _lower(codes: Codes) -> Flags:
    """Which are lower-case letters."""
    found: Flags = _LOWER.take(codes, mode="clip")
    return found
