"""Names in headlines: which words may name whom at that time, which of them hold, and what speaks for each.

From all matches of the index to spans that do not overlap: dates, capitals, then the longest match. What is
left is weighed by the words around it (`data/linking/evidence.py`). Vectorised over all titles.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.linking.evidence import PLACES, confidence
from data.linking.index import Hits, Index
from data.linking.lexicon import Role
from data.linking.names import Kind
from data.linking.script import Script
from data.linking.symbols import Spelt

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Instants = npt.NDArray[np.datetime64]

LIVE, NOT_THEN, SEVERAL, BLOCKED, LOWER, INSIDE, SPELT = range(7)


@dataclass(frozen=True)
class Mentions:
    """One row a span of words `first`..`last` of the script that matches key `key`.

    `meaning` is the row of the index that holds at the time, -1 for none. `fate` is LIVE or why it was passed
    over. `seen` is [spans, SIGNS]; spans that are not live have confidence 0.
    """

    key: Ints
    first: Ints
    last: Ints
    meaning: Ints
    fate: Ints
    seen: Flags
    confidence: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.key)


def find(index: Index, script: Script, at: Instants, symbols: Spelt) -> Mentions:
    """All mentions in reading order, those passed over included."""
    hits, roles = index.find(script)
    roles = _phrase_roles(index, hits, roles)
    names = index.named[hits.key] | index.blocked[hits.key]
    hits = Hits(hits.key[names], hits.first[names], hits.last[names])
    order = np.lexsort((-hits.last, hits.first))
    hits = Hits(hits.key[order], hits.first[order], hits.last[order])
    meaning = _meanings(index, hits, at[script.word_row[hits.first]])
    fate = np.where(meaning >= 0, LIVE, np.where(meaning == -1, SEVERAL, NOT_THEN))
    fate[(fate == LIVE) & ~_capitals_fit(index, script, hits)] = LOWER
    fate[_spelt_out(script, hits, symbols)] = SPELT
    fate[index.blocked[hits.key]] = BLOCKED
    standing = np.flatnonzero(np.isin(fate, (LIVE, SEVERAL, BLOCKED)))
    lost = standing[~_longest(hits.first[standing], hits.last[standing])]
    fate[lost] = np.where(fate[lost] == BLOCKED, BLOCKED, INSIDE)
    live = fate == LIVE
    alive = Hits(hits.key[live], hits.first[live], hits.last[live])
    seen = np.zeros((len(hits.key), len(PLACES)), dtype=bool)
    seen[live] = _signs(index, script, alive, meaning[live], roles, symbols)
    sure = np.zeros(len(hits.key))
    sure[live] = confidence(index.kind[alive.key], index.cut[meaning[live]], seen[live])
    return Mentions(hits.key, hits.first, hits.last, np.maximum(meaning, -1), fate, seen, sure)


def _phrase_roles(index: Index, hits: Hits, roles: Ints) -> Ints:
    """The roles of each word, by itself or in a phrase; one more 0 at the end."""
    roles = np.append(roles, 0)
    given = index.roles[hits.key]
    some = np.flatnonzero(given)
    for offset in range(4):
        some = some[hits.first[some] + offset <= hits.last[some]]
        np.bitwise_or.at(roles, hits.first[some] + offset, given[some])
    return roles


def _meanings(index: Index, hits: Hits, at: Instants) -> Ints:
    """The row of the index each key means at its time; -1 where that is several tickers, -2 where it is none.

    The least cut form goes first, and of equally cut ones the dated.
    """
    count = index.start[hits.key + 1] - index.start[hits.key]
    some = np.flatnonzero(count)
    result = np.full(len(hits.key), -2, dtype=np.int64)
    if not len(some):
        return result
    begin = np.concatenate([[0], np.cumsum(count[some])])[:-1]
    row = np.arange(count[some].sum()) + np.repeat(index.start[hits.key[some]] - begin, count[some])
    when = np.repeat(at[some], count[some])
    holds = ~index.dated[row] | ((index.since[row] <= when) & (when < index.until[row]))
    rank = np.where(holds, 2 * index.cut[row] + ~index.dated[row], 99)
    best = np.minimum.reduceat(rank, begin)
    tied = rank == np.repeat(best, count[some])
    lowest = np.minimum.reduceat(np.where(tied, index.ticker[row], len(index.tickers)), begin)
    highest = np.maximum.reduceat(np.where(tied, index.ticker[row], -1), begin)
    chosen = np.minimum.reduceat(np.where(tied, row, len(index.ticker)), begin)
    result[some] = np.where(best == 99, -2, np.where(lowest == highest, chosen, -1))
    return result


def _capitals_fit(index: Index, script: Script, hits: Hits) -> Flags:
    """Common words and initials must be written as names are; a rare word may be in lower case."""
    long = script.word_end - script.word_begin > 3  # "Bank of America" has a small word
    lower = np.concatenate([[0], np.cumsum(~script.capital & long)])
    capital = script.capital[hits.first] & (lower[hits.last + 1] == lower[hits.first])
    kind = index.kind[hits.key]
    initials = (kind != Kind.INITIALS) | script.loud(hits.first)
    fits: Flags = ((kind == Kind.RARE) | capital) & initials
    return fits


def _spelt_out(script: Script, hits: Hits, symbols: Spelt) -> Flags:
    """Names whose first letter is within a symbol that was read as such: no name there."""
    sure = symbols.rule != "symbol"
    start, end = symbols.start[sure], symbols.end[sure]
    if not len(start):
        return np.zeros(len(hits.key), dtype=bool)
    begin = script.place[script.word_begin[hits.first]]
    before = np.searchsorted(start, begin, side="right") - 1
    found: Flags = (before >= 0) & (begin < end[before])
    return found


def _longest(first: Ints, last: Ints) -> Flags:
    """Which spans, sorted by first word and then longest, stand when the longest win; ties go to the earlier."""
    if not len(first):
        return np.zeros(0, dtype=bool)
    reach = np.concatenate([[-1], np.maximum.accumulate(last)[:-1]])
    kept = last > reach
    outer = np.flatnonzero(kept)
    clash = np.flatnonzero(first[outer[1:]] <= last[outer[:-1]])
    for place in clash:
        before, after = outer[place], outer[place + 1]
        if kept[before]:
            shorter = after if last[after] - first[after] <= last[before] - first[before] else before
            kept[shorter] = False
    return kept


def _signs(index: Index, script: Script, hits: Hits, meaning: Ints, roles: Ints, symbols: Spelt) -> Flags:
    """What speaks for and against each live name: [names, SIGNS]."""
    row = script.word_row[hits.first]
    begin = script.place[script.word_begin[hits.first]]
    end = script.place[script.word_end[hits.last] - 1] + 1
    around = _Around(index, script, hits, roles, row, begin, end)
    seen = np.zeros((len(row), len(PLACES)), dtype=bool)
    for name, flags in {
        **around.beside(),
        **around.written(),
        **around.rating(),
        **_tickers(index, script, hits, meaning, roles, symbols),
    }.items():
        seen[:, PLACES[name]] = flags
    return seen


class _Around:
    """The neighbourhood of each live name."""

    def __init__(
        self, index: Index, script: Script, hits: Hits, roles: Ints, row: Ints, begin: Ints, end: Ints
    ) -> None:
        self.script, self.hits, self.roles, self.row, self.begin, self.end = script, hits, roles, row, begin, end
        self.kind, self.key_roles = index.kind[hits.key], index.roles[hits.key]
        self.famed = index.famed[hits.key]
        self.possessive = script.apostrophe(end)
        owned = self.possessive & self._in_title(hits.last + 1) & self._letter_s(hits.last + 1)
        self.next = hits.last + 1 + owned
        self.has_next = self._in_title(self.next)
        tail = script.place[script.word_end[np.where(owned, hits.last + 1, hits.last)] - 1] + 1
        joined = self.has_next & ~script.among(tail, ",;:") & ~script.among(tail + 1, "-–—|")
        self.next_roles = np.where(joined, roles[np.minimum(self.next, len(roles) - 1)], 0)
        self.opening = script.first_word[hits.first]
        parted = self.opening | script.among(begin - 1, ",;:") | script.among(begin - 2, ",;:-–—|")
        self.previous_roles = np.where(parted, 0, roles[hits.first - 1])
        self.single = hits.first == hits.last

    def beside(self) -> dict[str, Flags]:
        """The words next to it, and the market's words anywhere else in the title."""
        finance = (self.roles[:-1] & Role.FINANCE) > 0
        total = np.bincount(self.script.word_row[finance], minlength=len(self.script.starts))[self.row]
        before = np.concatenate([[0], np.cumsum(finance)])
        elsewhere = total - (before[self.hits.last + 1] - before[self.hits.first])
        return {
            "suffix": self._next(Role.SUFFIX) & ~self.possessive,
            "noun": self._next(Role.NOUN),
            "verb": self._next(Role.VERB),
            "before": self._previous(Role.BEFORE),
            "company": self._others() > 0,
            "place": self._next(Role.PLACE) & (self.kind != Kind.RARE),
            "finance": elsewhere > 0,
            "more_finance": elsewhere > 1,
            "famed": self.famed,
        }

    def written(self) -> dict[str, Flags]:
        """Capitals and punctuation."""
        script, hits = self.script, self.hits
        capital = script.capital[hits.first]
        after_mark = script.among(self.begin - 1, " ") & script.among(self.begin - 2, ":;-–—|")
        opens = self.opening | after_mark
        beside = script.sentence[self.row] & (self._capital_before(opens) | self._capital_after()) & self.single
        inside = script.sentence[self.row] & ~opens & ~beside & ~self._owned() & capital
        return {
            "possessive": self.possessive,
            "opens": opens,
            "inside": inside,
            "lower": ~capital,
            "larger": beside,
        }

    def rating(self) -> dict[str, Flags]:
        """Signs that it speaks about another company."""
        rating = (self.roles[:-1] & Role.RATING) > 0
        rated = np.bincount(self.script.word_row[rating], minlength=len(self.script.starts))[self.row] > 0
        broker = (self.key_roles & Role.BROKER) > 0
        ends = ~self.has_next
        dash = self.script.among(self.begin - 1, " ") & self.script.among(self.begin - 2, "-–—|")
        colon = self.script.among(self.end, ":")
        speaks = self._next(Role.SPEAKS) | (ends & self._previous(Role.FROM)) | (colon & self.opening)
        return {
            "rates": ~self.possessive
            & ((self._next(Role.RATES) & (rated | broker)) | (self._next(Role.MOVES) & rated)),
            "rated_by": rated & self._previous(Role.FROM),
            "analyst": broker & self._next(Role.ANALYST),
            "source": (broker & speaks) | (dash & ends & ~self.opening),
        }

    def _others(self) -> Ints:
        """How many other names of the title hardly mean anything but a company."""
        plain = (self.kind == Kind.RARE) & self.script.capital[self.hits.first]
        others: Ints = np.bincount(self.row[plain], minlength=len(self.script.starts))[self.row] - plain
        return others

    def _next(self, role: Role) -> Flags:
        found: Flags = (self.next_roles & role) > 0
        return found

    def _previous(self, role: Role) -> Flags:
        found: Flags = (self.previous_roles & role) > 0
        return found

    def _in_title(self, word: Ints) -> Flags:
        inside = word < len(self.script.word_row)
        found: Flags = inside & (self.script.word_row[np.minimum(word, len(self.script.word_row) - 1)] == self.row)
        return found

    def _letter_s(self, word: Ints) -> Flags:
        word = np.minimum(word, len(self.script.word_begin) - 1)
        place = self.script.place[self.script.word_begin[word]]
        found: Flags = self.script.among(place, "sS") & (self.script.word_end[word] - self.script.word_begin[word] == 1)
        return found

    def _capital_before(self, opens: Flags) -> Flags:
        word = np.maximum(self.hits.first - 1, 0)
        near = self.script.among(self.begin - 1, " -&") & ~self.script.among(self.begin - 2, ",:;.")
        role = Role.BEFORE | Role.FROM | Role.OPENER | Role.VERB | Role.RATES | Role.MOVES
        found: Flags = ~opens & near & ((self.previous_roles & role) == 0) & self.script.capital[word] & ~self._owned()
        return found

    def _owned(self) -> Flags:
        """Whether another name's possessive stands before it: "Fed's Williams"."""
        word = np.maximum(self.hits.first - 1, 0)
        found: Flags = (
            ~self.opening
            & self._letter_s(word)
            & self.script.apostrophe(self.script.place[self.script.word_begin[word]] - 1)
        )
        return found

    def _capital_after(self) -> Flags:
        word = np.minimum(self.next, len(self.script.word_begin) - 1)
        near = self.script.among(self.end, " -") & ~self.possessive
        role = Role.SUFFIX | Role.NOUN | Role.VERB | Role.FINANCE | Role.RATES | Role.MOVES | Role.ANALYST | Role.SPEAKS
        found: Flags = self.has_next & near & self.script.capital[word] & ((self.next_roles & role) == 0)
        return found


def _tickers(index: Index, script: Script, hits: Hits, meaning: Ints, roles: Ints, symbols: Spelt) -> dict[str, Flags]:
    """Whether the title spells out the name's own ticker, or gives it another one in the brackets that follow."""
    row = script.word_row[hits.first]
    width = len(index.tickers)
    ticker = index.numbers(symbols.ticker, {})
    given = (symbols.confidence > 0) & (ticker > 0)
    own = np.isin(row * width + index.ticker[meaning], symbols.row[given] * width + ticker[given])
    follows = np.isin(hits.last, _bracketed(script, roles, symbols))
    return {"ticker": own, "other_ticker": follows & ~own}


def _bracketed(script: Script, roles: Ints, symbols: Spelt) -> Ints:
    """Words with symbols in brackets right after them, or after a suffix that follows them."""
    opened = (symbols.opening >= 0) & (symbols.confidence > 0)
    opening, row = symbols.opening[opened], symbols.row[opened]
    word = script.word_before(opening)
    found = []
    for _ in range(3):
        inside = (word >= 0) & (script.word_row[word] == row)
        word, row = word[inside], row[inside]
        found.append(word)
        suffixed = (roles[word] & Role.SUFFIX) > 0
        word, row = word[suffixed] - 1, row[suffixed]
    return np.concatenate(found)
