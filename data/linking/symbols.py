"""Tickers that a headline spells out: `(NASDAQ: AAPL)`, `$AAPL`, `AAPL.O`, `Alcoa (AA)`, and bare `NVDA`.

The first three are believed by themselves. Brackets and bare symbols are weighed; a bare symbol of one to
three letters is never read as one. What other markets trade is recognised and left unlinked.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data.linking.lexicon import (
    ABBREVIATIONS,
    BOARDS,
    ELSEWHERE,
    MONEY,
    RIC_ELSEWHERE,
    RIC_US,
    US,
    WORDS,
    Role,
    is_common,
)
from data.linking.script import Flags, Ints, Script
from data.linking.spans import Lookup

# How often each form was right on the labelled half, or 0.99 where it explains itself (docs/linking.md).
TAG, CASHTAG, RIC, SHARE_CLASS = 0.99, 0.97, 0.98, 0.9
LIST_BRACKET, KNOWN_BRACKET, OTHER_BRACKET, BARE = 0.95, 0.9, 0.6, 0.75
BARE_LIST, BARE_SUBJECT = 0.9, 0.85

_ONE = r"[A-Z]{1,5}(?:[.\-/][A-Z]{1,2})?"
_SYMBOL = re.compile(rf"{_ONE}(?![A-Za-z0-9])")
_CASH = re.compile(r"\$([A-Za-z]{1,5}(?:[.\-][A-Za-z]{1,2})?)(?![A-Za-z0-9])")
_BRACKET = re.compile(rf"\(\s*({_ONE}(?:\s*,\s*{_ONE})*)\s*\)")
_DOT = re.compile(r"(?<![A-Za-z0-9.$&])([A-Z]{1,5})([a-z]?)\.(OQ|OB|PK|[A-Z]{1,2})(?![A-Za-z0-9]|\.[A-Za-z])")
_FAR = 200  # characters: a tag is not longer, however long the title
_EXCHANGES = US | ELSEWHERE
_MARKETS = Lookup(dict.fromkeys(_EXCHANGES | BOARDS, 1))
_ACTS = frozenset(WORDS[Role.VERB]) - {"is", "has", "to", "will", "may", "faces"}  # hardly an abbreviation's


class Symbol(NamedTuple):
    """A symbol at [start, end) of the joined text. Confidence 0 is one that is no link, and `why` says why.

    `opening` is where its bracket opens, -1 outside one: a name just before it is the name of it.
    """

    row: int
    ticker: str
    rule: str
    confidence: float
    start: int
    end: int
    why: str
    opening: int = -1


@dataclass(frozen=True)
class Spelt:
    """Symbols in columns, by `start`; see `Symbol`."""

    row: Ints
    ticker: tuple[str, ...]
    rule: npt.NDArray[np.object_]
    confidence: npt.NDArray[np.float64]
    start: Ints
    end: Ints
    why: tuple[str, ...]
    opening: Ints

    def __len__(self) -> int:
        return len(self.ticker)

    @staticmethod
    def of(symbols: Iterable[Symbol]) -> "Spelt":
        """No symbols give columns without rows."""
        rows = sorted(symbols, key=attrgetter("start"))
        columns: Iterable[tuple[Any, ...]] = zip(*rows, strict=True) if rows else [()] * len(Symbol._fields)
        row, ticker, rule, confidence, start, end, why, opening = columns
        return Spelt(
            row=np.array(row, dtype=np.int64),
            ticker=ticker,
            rule=np.array(rule, dtype=object),
            confidence=np.array(confidence, dtype=np.float64),
            start=np.array(start, dtype=np.int64),
            end=np.array(end, dtype=np.int64),
            why=why,
            opening=np.array(opening, dtype=np.int64),
        )


class Symbols:
    """Reads symbols off a script. `known` are the alias table's tickers: they settle spelling and doubt."""

    def __init__(self, known: frozenset[str]) -> None:
        self._spelling = {_hyphen(ticker): ticker for ticker in sorted(known)}
        lone = (ticker.lower() for ticker in known if 4 <= len(ticker) <= 5 and ticker.isalpha())
        self._lone = Lookup({word: 1 for word in lone if not is_common(word)})

    def find(self, script: Script) -> Spelt:
        """Every symbol of every title; a place is read by one rule only."""
        found = [*self._tags(script), *self._cashtags(script), *self._dotted(script)]
        taken = {symbol.start for symbol in found}
        found += [symbol for symbol in self._brackets(script) if symbol.start not in taken]
        taken |= {symbol.start for symbol in found}
        found += [symbol for symbol in self._bare(script) if symbol.start not in taken]
        return Spelt.of(found)

    def spell(self, symbol: str) -> str:
        """As the alias table spells it; a share class it does not know has a hyphen, as SEC writes it."""
        plain = _hyphen(symbol.upper())
        return self._spelling.get(plain, plain)

    def _knows(self, symbol: str) -> bool:
        return _hyphen(symbol) in self._spelling

    def _tags(self, script: Script) -> Iterator[Symbol]:
        text = script.joined
        colons = _places(script, ":")
        before = script.word_before(colons)
        colons, before = colons[before >= 0], before[before >= 0]
        colons = colons[_MARKETS.find(script.word_hashes(before)) > 0]
        for row, start, end, colon in _titles(script, colons):
            start, end = max(start, colon - _FAR), min(end, colon + _FAR)
            market = _market(text, start, colon)
            if not market:
                continue
            code = market.split()[0].lower()
            opening = max(text.rfind(bracket, start, colon) for bracket in "([")
            closing = min(
                (at for at in (text.find(")", colon, end), text.find("]", colon, end)) if at >= 0), default=-1
            )
            inside = opening >= 0 and closing >= 0 and not set(")]") & set(text[opening:colon])
            if not inside and script.shouted[row]:
                continue
            for one in _listed(text, colon + 1, closing if inside else end, inside):
                symbol = self.spell(one[0])
                if code in US:
                    why = f"the tag gives {symbol} on {market}"
                    yield Symbol(row, symbol, "tag", TAG, *one[1:], why, opening if inside else -1)
                else:
                    why = f"{market} is not a US exchange"
                    yield Symbol(row, symbol, "tag", 0.0, *one[1:], why)

    def _cashtags(self, script: Script) -> Iterator[Symbol]:
        for row, start, _, dollar in _titles(script, _places(script, "$")):
            one = _CASH.match(script.joined, dollar)
            if not one or (dollar > start and script.joined[dollar - 1].isalnum()):
                continue
            symbol = self.spell(one[1])
            confidence, why = CASHTAG, f"the cashtag ${one[1]} is a symbol"
            if symbol in MONEY:
                confidence, why = 0.0, f"${one[1]} is read as an amount or a currency"
            elif not one[1].isupper() and not (len(symbol) > 1 and symbol in self._spelling):
                confidence, why = 0.0, f"${one[1]} is not in capitals and not a symbol of the alias table"
            yield Symbol(row, symbol, "cashtag", confidence, one.start(), one.end(), why)

    def _dotted(self, script: Script) -> Iterator[Symbol]:
        text = script.joined
        for row, start, end, dot in _titles(script, _places(script, ".")):
            one = _DOT.search(text, max(start, dot - 7), min(end, dot + 4))
            if not one or not one.start() < dot < one.end():
                continue
            around = text[one.start() - 1] + text[one.end()]
            bracketed = around in ("<>", "()", "[]")
            letters, share, suffix = one.groups()
            opening = one.start() - 1 if bracketed else -1
            ric = suffix in RIC_US and (bracketed or len(letters) > 1)
            if not share and self._knows(f"{letters}-{suffix}"):
                symbol = self.spell(f"{letters}-{suffix}")
                why = f"{one[0]} is a share class of the alias table"
                yield Symbol(row, symbol, "symbol", SHARE_CLASS, *one.span(), why, opening)
            elif ric:
                symbol = self.spell(f"{letters}-{share.upper()}" if share else letters)
                why = f"{one[0]} is a Reuters code of a US exchange"
                yield Symbol(row, symbol, "ric", RIC, *one.span(), why, opening)
            elif bracketed and suffix in RIC_ELSEWHERE:
                yield Symbol(row, letters, "ric", 0.0, *one.span(), f".{suffix} is not a US exchange")

    def _brackets(self, script: Script) -> Iterator[Symbol]:
        for row, start, _, opening in _titles(script, _places(script, "(")):
            one = _BRACKET.match(script.joined, opening)
            if not one:
                continue
            listed = [(each[0], *each.span()) for each in _SYMBOL.finditer(script.joined, *one.span(1))]
            named = len(listed) > 1 or script.joined[max(start, opening - 4) : opening].rstrip()[-1:].isalnum()
            for text, *span in listed:
                symbol, known = self.spell(text), self._knows(text)
                why = f"{symbol} stands in brackets"
                if len(listed) > 1:
                    confidence, why = LIST_BRACKET if known else OTHER_BRACKET, f"{why}, in a list of symbols"
                elif not named:
                    confidence, why = 0.0, f"{why}, but not after a name"
                elif text in ABBREVIATIONS:
                    confidence, why = 0.0, f"{why}, but is a usual abbreviation"
                elif known:
                    confidence, why = KNOWN_BRACKET, f"{why}, and is a symbol of the alias table"
                else:
                    confidence, why = OTHER_BRACKET, f"{why}, but may be an abbreviation"
                yield Symbol(row, symbol, "bracket", confidence, span[0], span[1], why, opening)

    def _bare(self, script: Script) -> Iterator[Symbol]:
        """Several in a title are symbols more surely than one, which may be an abbreviation."""
        found = list(self._single(script))
        titles = Counter(symbol.row for symbol in found)
        for symbol in found:
            if titles[symbol.row] > 1:
                yield symbol._replace(confidence=BARE_LIST, why=f"{symbol.why}, among others")
            else:
                yield symbol

    def _single(self, script: Script) -> Iterator[Symbol]:
        length = script.word_end - script.word_begin
        words = np.flatnonzero((length >= 4) & (length <= 5))
        words = words[script.capital[words]]
        words = words[script.loud(words)]
        words = words[self._lone.find(script.word_hashes(words)) > 0]
        words = words[~script.shouted[script.word_row[words]]]
        rows = script.word_row[words].tolist()
        begins = script.place[script.word_begin[words]].tolist()
        ends = (script.place[script.word_end[words] - 1] + 1).tolist()
        for word, row, begin, end in zip(words.tolist(), rows, begins, ends, strict=True):
            text = script.joined[begin:end]
            alone = script.joined[begin - 1] not in "-.$&/" and script.joined[end] not in "-&/"
            if text in self._spelling and alone:
                why = f"{text} is a symbol of the alias table, in capitals"
                acts = script.word_after(word) in _ACTS
                confidence, why = (BARE_SUBJECT, f"{why}, and acts as a company") if acts else (BARE, why)
                yield Symbol(row, text, "symbol", confidence, begin, end, why)


def _hyphen(symbol: str) -> str:
    return symbol if symbol.isalnum() else symbol.replace(".", "-").replace("/", "-")


def _market(text: str, start: int, colon: int) -> str:
    """The exchange, with its board, that ends the text before a colon; "" for none."""
    end = colon - (text[colon - 1] == " ")
    begin = end
    while True:
        before = max(
            text.rfind(" ", start, begin), text.rfind("(", start, begin), text.rfind("[", start, begin), start - 1
        )
        word = text[before + 1 : begin].lower()
        if word in _EXCHANGES:
            return text[before + 1 : end]
        if word not in BOARDS or before < start or text[before] != " ":
            return ""
        begin = before


def _places(script: Script, mark: str) -> Ints:
    """Where in the joined text a `mark` stands that a symbol may stand beside."""
    places = np.flatnonzero(script.codes == ord(mark))
    after = places + 1 + (script.codes[np.minimum(places + 1, len(script.codes) - 1)] == ord(" "))
    return places[_may_begin(script, after if mark == ":" else places + 1, mark)]


def _titles(script: Script, places: Ints) -> Iterator[tuple[int, int, int, int]]:
    """Of each place: its title's number, start and end, and the place."""
    rows = np.searchsorted(script.starts, places, side="right") - 1
    starts = script.starts[rows]
    yield from zip(
        rows.tolist(), starts.tolist(), (starts + script.lengths[rows]).tolist(), places.tolist(), strict=True
    )


def _may_begin(script: Script, place: Ints, mark: str) -> Flags:
    """Whether a symbol may begin at each place: this spares most marks, which only punctuate, a closer look."""
    first, second = (script.codes[np.minimum(place + ahead, len(script.codes) - 1)] for ahead in (0, 1))
    capital = (first >= ord("A")) & (first <= ord("Z"))
    small = (second >= ord("a")) & (second <= ord("z"))
    found: Flags = np.ones(len(place), dtype=bool)
    if mark == ":":
        letter = capital | ((first >= ord("a")) & (first <= ord("z")))
        found = letter & ~(capital & small)
    if mark == "(":
        found = (capital | (first == ord(" "))) & ~small
    if mark == ".":
        before, further = (script.codes[np.maximum(place - back, 0)] for back in (2, 3))
        letter = (before >= ord("A")) & (before <= ord("z"))
        found = capital & ~small & letter & (second != ord(".")) & (further != ord("."))
    return found


def _listed(text: str, start: int, end: int, any_case: bool) -> Iterator[tuple[str, int, int]]:
    """The symbols from `start` on, separated by commas and the like, until something else."""
    at = start
    while at < end:
        while at < end and text[at] in " ,;&":
            at += 1
        one = _SYMBOL.match(text[at:end].upper() if any_case else text[at:end])
        if not one or text[at + one.end() : at + one.end() + 1] == ":":
            return
        yield text[at : at + one.end()], at, at + one.end()
        at += one.end()
        if not any_case and text[at : at + 1] not in (",", ";", "&"):
            return
