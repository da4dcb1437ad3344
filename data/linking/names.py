"""From a company's registered name to the forms headlines use, each with how far it was cut down.

`forms` is pure and deterministic. It knows nothing of tickers: which form belongs to whom, and which is
ambiguous, is decided where all names meet (`data/linking/index.py`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

from data.linking.lexicon import FUNDS, LEGAL, TAILS, is_common
from data.linking.script import plain

_SPELT = re.compile(r"\b(?:s ?a ?b? de c ?v|s p a|n v|s a|a g|p l c|l l c|l p|a s|class [a-d]|cl [a-d])$")
_FILING = re.compile(r"\s*(?:/\s?[A-Za-z]{2,8}\s?/?|\\[A-Za-z]{2,8}\\|/)\s*$")  # SEC's /DE/, \PA\, /ADR, a stray slash


class Cut(IntEnum):
    """How a form came from the name: the less was cut off, the less it can mean another company."""

    CORE = 0  # without its legal suffix: "apple" of Apple Inc.
    SHORT = 1  # without what the trade is, too: "cisco" of Cisco Systems


class Kind(IntEnum):
    """What the words of a form are worth by themselves."""

    RARE = 0  # a word, or words with one among them, that hardly mean anything else
    PHRASE = 1  # several words, each a common one: "best buy"
    WORD = 2  # one common word: "apple", "target"
    INITIALS = 3  # two or three characters: "bp", "ubs", "3m"


@dataclass(frozen=True)
class Form:
    """Lower-case words with single spaces, as `plain` leaves them in a headline."""

    text: str
    cut: Cut
    kind: Kind


@cache
def core(name: str) -> str:
    """The name without its legal suffix, in the form that decides whether two names are one; "" for none."""
    words = _words(name)
    text = " ".join(_without_legal(words) or words)
    return text if any(map(str.isalnum, text)) else ""


def is_fund(name: str) -> bool:
    """Whether a name is a fund's or a trust's, which often stands for many tickers."""
    return not FUNDS.isdisjoint(_words(name))


def kind(text: str) -> Kind:
    """What `text` (a form's words) is worth by itself."""
    words = text.split()
    if len(text) <= 3:
        return Kind.WORD if is_common(text) else Kind.INITIALS
    if any(_rare(word) for word in words):
        return Kind.RARE
    return Kind.PHRASE if len(words) > 1 else Kind.WORD


def forms(name: str) -> list[Form]:
    """Every form of `name`, the least cut of equal texts; none for a name without two letters or digits."""
    found: dict[str, Form] = {}
    for text, cut in _cuts(name):
        for spelling in map(_tidy, _spellings(text)):
            if sum(map(str.isalnum, spelling)) >= 2 and not spelling.isdigit() and spelling not in found:
                found[spelling] = Form(spelling, cut, kind(spelling))
    return list(found.values())


def _cuts(name: str) -> Iterator[tuple[str, Cut]]:
    words = _words(name)
    bare = _without_legal(words) or words
    yield " ".join(bare), Cut.CORE
    yield from _sides(name, bare)
    short, tails = bare, frozenset(["trust"]) if is_fund(name) else TAILS
    while len(short) > 1 and short[-1] in tails:
        short = short[:-1]
        while short[-1:] and short[-1] in ("&", "and", "of", "in", "for"):
            short = short[:-1]
        if len(" ".join(short)) > 3:
            yield " ".join(short), Cut.SHORT


@cache
def _words(name: str) -> tuple[str, ...]:
    previous = None
    while previous != name:
        previous, name = name, _FILING.sub("", name)
    words = " ".join(plain(name.replace(".com", " com")).split())
    words = re.sub(r"^the ", "", words)
    return _initials_first(tuple(words.split()))


def _initials_first(words: tuple[str, ...]) -> tuple[str, ...]:
    """SEC files W. R. Berkley as BERKLEY W R: initials after the surname go before it."""
    after = 1
    while after < len(words) and len(words[after]) == 1 and words[after].isalpha():
        after += 1
    initials = words[1:after]
    if not initials or len(initials) > 2 or len(words[0]) < 4 or (" ".join(words[1:]) in ("s a", "n v", "a s", "a g")):
        return words
    return (*initials, words[0], *words[after:])


def _without_legal(words: tuple[str, ...]) -> tuple[str, ...]:
    kept = words
    while kept:
        text = " ".join(kept)
        spelt = tuple(_SPELT.sub("", text).split())
        if len(spelt) < len(kept):
            kept = spelt
        elif len(kept) > 1 and kept[-1] in (*LEGAL, "&", "the", "and", "de"):
            kept = kept[:-1]
        elif len(kept) > 2 and kept[-1] == "com":
            return kept
        else:
            break
    return kept


def _sides(name: str, bare: tuple[str, ...]) -> Iterator[tuple[str, Cut]]:
    """PETROBRAS of "PETROBRAS - PETROLEO BRASILEIRO SA"; what stands before a site's ".com"."""
    before, dash, _ = name.partition(" - ")
    if dash and kind(core(before)) is Kind.RARE:
        yield core(before), Cut.CORE
    if len(bare) > 1 and bare[-1] == "com" and len(" ".join(bare[:-1])) > 3:
        yield " ".join(bare[:-1]), Cut.SHORT


def _spellings(text: str) -> Iterator[str]:
    """`text`, "and" for "&", initials drawn together or apart, and "kohl s" for "kohls" (Kohl's)."""
    yield text
    if "&" in text:
        yield text.replace("&", "and") if " & " in text else text.replace("&", " & ")
    joined = re.sub(r"\b(\w) (?=\w\b)", r"\1", text)
    if joined != text:
        yield joined
    if text.endswith(" pharmaceuticals"):
        yield text.removesuffix("ceuticals")
    first, space, rest = text.partition(" ")
    if first in ("us", "jp"):
        yield f"{first[0]} {first[1]}{space}{rest}"
    if len(first) >= 5 and first.endswith("s") and first[-2] not in "sui" and not is_common(first[:-1]):
        yield f"{first[:-1]} s{space}{rest}"
    if first == "o" and rest:
        yield first + rest


def _tidy(text: str) -> str:
    return " ".join(text.split())


def _rare(word: str) -> bool:
    return len(word) >= 4 and not is_common(word) and word not in LEGAL and word not in TAILS and not word.isdigit()
