"""All forms of all names in one automaton, with the words around them; found in one pass over the titles."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain

import ahocorasick
import numpy as np
import numpy.typing as npt

from data.linking.aliases import Alias, AliasTable
from data.linking.lexicon import FAMED, NOT_COMPANIES, PHRASES, WORDS, Role
from data.linking.names import Cut, forms, kind
from data.linking.script import Flags, Script, characters
from data.linking.spans import Lookup

Ints = npt.NDArray[np.int64]
_ALONE, _OPENS, _FLAGS = 1, 2, 2  # of a word: two flags in the lowest bits, its roles above them


@dataclass(frozen=True)
class Hits:
    """Where a form or a role's words stand, as first and last word of the script."""

    key: Ints
    first: Ints
    last: Ints


class Index:
    """Keys: `texts`. Key k's meanings are rows `start[k]:start[k+1]` of ticker, cut, dates and alias.

    The columns of meanings end with one of no ticker, so that row -1 is that. A key may be a name's form, a
    phrase that is no company, a phrase with a role, or several of these.
    """

    def __init__(self, table: AliasTable) -> None:
        meanings: dict[str, list[tuple[int, Alias]]] = defaultdict(list)
        for alias in table.rows:
            for form in forms(alias.name):
                meanings[form.text].append((int(form.cut), alias))
        roles = _roles()
        self.texts = sorted({*meanings, *NOT_COMPANIES, *(text for text in roles if " " in text)})
        listed = [meanings.get(text, []) for text in self.texts]
        self.start = np.concatenate([[0], np.cumsum([len(each) for each in listed])]).astype(np.int64)
        flat = list(chain.from_iterable(listed))
        self.cut = np.array([cut for cut, _ in flat], dtype=np.int64)
        self.aliases = [alias for _, alias in flat]
        self.tickers = np.array(["", *sorted(table.symbols)], dtype=object)
        self.number = {ticker: place for place, ticker in enumerate(self.tickers.tolist())}
        self.ticker = np.array([*(self.number[alias.ticker] for alias in self.aliases), 0], dtype=np.int64)
        self.since = np.array([alias.valid_from or date.min for alias in self.aliases], dtype="datetime64[us]")
        self.until = np.array([alias.valid_to or date.max for alias in self.aliases], dtype="datetime64[us]")
        self.dated = np.array([alias.dated for alias in self.aliases], dtype=bool)
        self.hindsight = np.array([*(alias.hindsight for alias in self.aliases), False], dtype=bool)
        self.kind = np.array([int(kind(text)) for text in self.texts], dtype=np.int64)
        self.roles = np.array([int(roles.get(text, 0)) for text in self.texts], dtype=np.int64)
        self.named = np.diff(self.start) > 0
        own = {text for text, rows in meanings.items() if " " in text and any(cut == Cut.CORE for cut, _ in rows)}
        self.blocked = np.array([text in NOT_COMPANIES and text not in own for text in self.texts], dtype=bool)
        self.famed = np.array([text in FAMED for text in self.texts], dtype=bool)
        self.words = np.array([text.count(" ") + 1 for text in self.texts], dtype=np.int64)
        self._automaton = ahocorasick.Automaton()
        for number, text in enumerate(self.texts):
            self._automaton.add_word(f" {text} ", number)
        self._automaton.make_automaton()
        self._words = Lookup(_words(self.texts, roles))
        self._pairs = Lookup(_pairs(self.texts))

    def numbers(self, tickers: Sequence[str], further: Mapping[str, int]) -> Ints:
        """The place of each in `tickers`, or as `further` has it; 0 for those of neither."""
        number = self.number
        return np.array([number.get(each) or further.get(each, 0) for each in tickers], dtype=np.int64)

    def find(self, script: Script) -> tuple[Hits, Ints]:
        """Every key in every title, overlapping ones too; and the roles that each word has by itself.

        The automaton reads only the words that may begin a key, and as many after them as the longest such has.
        """
        begin, end, words = script.word_begin, script.word_end, len(script.word_begin)
        known = self._words.find(script.spans.hashes(begin, end))
        reach = known & _ALONE
        pair = np.flatnonzero(known[:-1] & _OPENS)
        reach[pair] = np.maximum(reach[pair], self._pairs.find(script.spans.hashes(begin[pair], end[pair + 1])))
        first = np.flatnonzero(reach)
        change = np.bincount(first, minlength=words + 1) - np.bincount(
            np.minimum(first + reach[first], words), minlength=words + 1
        )
        return self._match(script, np.cumsum(change[:words]) > 0), known >> _FLAGS

    def _match(self, script: Script, inside: Flags) -> Hits:
        """The keys in the words `inside`. Between two runs of them stand two spaces, which no key has."""
        edges = np.flatnonzero(np.diff(inside, prepend=False, append=False))
        begin, end = script.word_begin[edges[::2]] - 1, script.word_end[edges[1::2] - 1] + 1
        before = np.cumsum(end - begin) - (end - begin)
        places = np.repeat(begin - before, end - begin) + np.arange((end - begin).sum())
        text = characters(script.letters[places])
        flat = np.fromiter(chain.from_iterable(self._automaton.iter(text)), dtype=np.int64)
        key, end = flat[1::2], places[flat[::2]]
        last = np.searchsorted(script.word_begin, end, side="right") - 1
        return Hits(key, last - self.words[key] + 1, last)


def _words(texts: Sequence[str], roles: Mapping[str, Role]) -> dict[str, int]:
    """Of each word: whether it is a key, whether it begins a longer one, and its roles, in one number."""
    words = {text: int(role) << _FLAGS for text, role in roles.items() if " " not in text}
    for text in texts:
        first, _, rest = text.partition(" ")
        words[first] = words.get(first, 0) | (_OPENS if rest else _ALONE)
    return words


def _pairs(texts: Sequence[str]) -> dict[str, int]:
    """The first two words of keys, with the number of words of the longest that begins so."""
    pairs: dict[str, int] = {}
    for text in texts:
        words = text.split()
        if len(words) > 1:
            pair = " ".join(words[:2])
            pairs[pair] = max(pairs.get(pair, 0), len(words))
    return pairs


def _roles() -> dict[str, Role]:
    roles: dict[str, Role] = defaultdict(lambda: Role(0))
    for role, texts in chain(WORDS.items(), PHRASES.items()):
        for text in texts:
            roles[text] |= role
    return roles
