"""Headlines to tickers: symbols the text spells out, and names as they were meant at the headline's own time.

`Linker.link_all` and `Linker.explain` run the same steps over the same candidates; explain also tells what
was passed over and why. Reads only titles; when a link may be used is its headline's business.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.linking.aliases import AliasTable
from data.linking.evidence import CONFIDENT, SIGNS
from data.linking.index import Index
from data.linking.mentions import BLOCKED, INSIDE, LIVE, LOWER, NOT_THEN, SEVERAL, SPELT, Mentions, find
from data.linking.script import Script
from data.linking.symbols import Spelt, Symbols

Ints = npt.NDArray[np.int64]
_CUTS = ("the name", "the name without its trade")
_KINDS = ("", ", common words", ", a common word", ", only initials")
_FATES = {
    NOT_THEN: '"{text}" meant no ticker at that time',
    SEVERAL: '"{text}" is a name of several tickers',
    BLOCKED: '"{text}" is the name of something else',
    LOWER: '"{text}" is not written as a name is',
    INSIDE: '"{text}" is part of a longer match',
    SPELT: '"{text}" is part of a symbol',
}
_AT_ONCE = 8192  # titles: what they need then stays in the processor's cache
COLUMNS = ("row", "ticker", "rule", "confidence", "hindsight", "start", "end")


@dataclass(frozen=True)
class Link:
    """A title's link to `ticker`, found at title[start:end]; `accepted` says whether it is one or was passed over.

    `rule` is tag | cashtag | ric | bracket | symbol | alias. `hindsight`: the name is known to mean the ticker
    today, not that it did then. `why` is one plain sentence. A ticker of "" is a name that no single one has.
    """

    ticker: str
    rule: str
    confidence: float
    hindsight: bool
    start: int
    end: int
    why: str
    accepted: bool


class Linker:
    """Links by one alias table. Building takes a fraction of a second; it holds no state of what it has linked."""

    def __init__(self, aliases: AliasTable) -> None:
        self.aliases = aliases
        self._index = Index(aliases)
        self._symbols = Symbols(aliases.symbols)

    def link_all(self, titles: Sequence[str], at: npt.NDArray[np.datetime64], least: float = CONFIDENT) -> pd.DataFrame:
        """One row a title and ticker, by title, then place: `COLUMNS`. No titles give no rows.

        `at` is each title's own time (UTC): dated names are read as of it; with NaT they are not read at all.
        Links below the confidence `least` are left out. Of several places of one ticker the surest counts.
        """
        parts = []
        for first in range(0, max(len(titles), 1), _AT_ONCE):
            found = _Found.of(self._index, *self._read(titles[first : first + _AT_ONCE], at[first : first + _AT_ONCE]))
            parts.append(found.columns(found.chosen(least), first))
        return _frame({name: np.concatenate([part[name] for part in parts]) for name in COLUMNS})

    def explain(self, title: str, at: datetime | np.datetime64, least: float = CONFIDENT) -> list[Link]:
        """Everything in `title` that was considered, in its order: the links, and what was passed over and why."""
        script, mentions, symbols = self._read([title], np.array([_naive(at)], dtype="datetime64[us]"))
        found = _Found.of(self._index, script, mentions, symbols)
        accepted = np.zeros(len(found.row), dtype=bool)
        accepted[found.chosen(least)] = True
        why = [_why(self._index, mentions, place) for place in range(len(mentions))] + [*symbols.why]
        columns = found.columns(np.arange(len(found.row)), 0)
        rows = zip(*(columns[name].tolist() for name in COLUMNS[1:]), why, accepted.tolist(), strict=True)
        links = [Link(*row) for row in rows]
        return sorted(links, key=lambda link: (link.start, link.end, link.ticker, link.rule))

    def _read(self, titles: Sequence[str], at: npt.NDArray[np.datetime64]) -> tuple[Script, Mentions, Spelt]:
        script = Script.of(titles)
        symbols = self._symbols.find(script)
        return script, find(self._index, script, np.asarray(at, dtype="datetime64[us]"), symbols), symbols


@dataclass(frozen=True)
class _Found:
    """Every mention, then every symbol, in columns; what was passed over has confidence 0 and may have no ticker."""

    tickers: npt.NDArray[np.object_]  # "" first
    row: Ints
    ticker: Ints  # place in `tickers`
    rule: npt.NDArray[np.object_]
    confidence: npt.NDArray[np.float64]
    hindsight: npt.NDArray[np.bool_]
    start: Ints
    end: Ints

    @staticmethod
    def of(index: Index, script: Script, mentions: Mentions, symbols: Spelt) -> "_Found":
        """Places are those in each title."""
        unknown = sorted(set(symbols.ticker) - index.number.keys())
        fresh = {ticker: len(index.tickers) + place for place, ticker in enumerate(unknown)}
        spelt = index.numbers(symbols.ticker, fresh)
        row = np.append(script.word_row[mentions.first], symbols.row)
        begin = np.append(script.place[script.word_begin[mentions.first]], symbols.start)
        end = np.append(script.place[script.word_end[mentions.last] - 1] + 1, symbols.end)
        starts = script.starts[row]
        return _Found(
            tickers=np.append(index.tickers, np.array(unknown, dtype=object)),
            row=row,
            ticker=np.append(index.ticker[mentions.meaning], spelt),
            rule=np.append(np.full(len(mentions), "alias", dtype=object), symbols.rule),
            confidence=np.append(mentions.confidence, symbols.confidence),
            hindsight=np.append(index.hindsight[mentions.meaning], np.zeros(len(symbols), dtype=bool)),
            start=begin - starts,
            end=end - starts,
        )

    def chosen(self, least: float) -> Ints:
        """The surest of each title and ticker, by title, then place."""
        sure = np.flatnonzero((self.confidence >= least) & (self.confidence > 0))
        order = sure[np.lexsort((self.start[sure], -self.confidence[sure], self.ticker[sure], self.row[sure]))]
        fresh = (np.diff(self.row[order], prepend=-1) != 0) | (np.diff(self.ticker[order], prepend=-1) != 0)
        best = order[fresh]
        in_order: Ints = best[np.lexsort((self.ticker[best], self.start[best], self.row[best]))]
        return in_order

    def columns(self, places: Ints, first: int) -> dict[str, npt.NDArray[Any]]:
        """`COLUMNS` at `places`, where the first title is number `first`."""
        return {
            "row": self.row[places] + first,
            "ticker": self.tickers[self.ticker[places]],
            "rule": self.rule[places],
            "confidence": self.confidence[places],
            "hindsight": self.hindsight[places],
            "start": self.start[places],
            "end": self.end[places],
        }


def _frame(columns: dict[str, npt.NDArray[Any]]) -> pd.DataFrame:
    text = {name: pd.array(columns[name], dtype="str") for name in ("ticker", "rule")}
    return pd.DataFrame({**columns, **text})


def _naive(at: datetime | np.datetime64) -> np.datetime64:
    if isinstance(at, datetime):
        return np.datetime64(at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at, "us")
    return at


def _why(index: Index, mentions: Mentions, place: int) -> str:
    """One sentence on what was found at a mention and what became of it."""
    text = index.texts[mentions.key[place]]
    if mentions.fate[place] != LIVE:
        return _FATES[mentions.fate[place]].format(text=text)
    meaning = mentions.meaning[place]
    alias = index.aliases[meaning]
    signs = [sign for sign, seen in zip(SIGNS, mentions.seen[place], strict=True) if seen]
    kind = _KINDS[index.kind[mentions.key[place]]]
    found = f'"{text}" is {_CUTS[index.cut[meaning]]} of {alias.ticker} ({alias.name}){kind}'
    for_it = ", ".join(sign.says for sign in signs if sign.weight > 0)
    against = ", ".join(sign.says for sign in signs if sign.weight < 0)
    return found + (f"; for it: {for_it}" if for_it else "") + (f"; against it: {against}" if against else "")
