"""What the linker knows of English and of markets: the lists of lexicon.toml and words.txt, and their roles."""

import tomllib
from enum import IntFlag
from functools import cache
from pathlib import Path
from typing import Any


class Role(IntFlag):
    """What a word does for the name beside it."""

    SUFFIX = 1  # after: Inc, Corp
    NOUN = 2  # after: shares, CEO
    VERB = 4  # after: beats, recalls
    BEFORE = 8  # before: shares of, stake in, maker
    FINANCE = 16  # anywhere in the title
    RATES = 32  # after: upgrades, reiterates: what an analyst's firm does to another company
    MOVES = 64  # after: raises, cuts: the same, if the title speaks of ratings
    RATING = 128  # anywhere: price target, outperform
    ANALYST = 256  # after: analyst, strategist
    FROM = 512  # before: at, by, from, says
    PLACE = 1024  # after: university, street, foundation: a larger name of something else
    SPEAKS = 2048  # after the name of a broker: says, sees
    BROKER = 4096  # the name itself is one that mostly speaks about others
    OPENER = 8192  # opens a headline with a capital, without being part of a name


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(" ".join(phrase.split()) for phrase in text.split(";"))


def _words(section: str, name: str) -> frozenset[str]:
    return frozenset(_LISTS[section][name].split())


_LISTS: dict[str, Any] = tomllib.loads(Path(__file__).with_name("lexicon.toml").read_text(encoding="utf-8"))
# Words of English that are also names: common words, given names, surnames, places. Alone they are no
# evidence that a company is meant.
COMMON = frozenset(Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split())

LEGAL, TAILS, FUNDS, FAMED = (_words("names", name) for name in ("legal", "tails", "funds", "famed"))
US, ELSEWHERE, BOARDS, MONEY = (_words("symbols", name) for name in ("us", "elsewhere", "boards", "money"))
RIC_US, RIC_ELSEWHERE = _words("symbols", "ric_us"), _words("symbols", "ric_elsewhere")
ABBREVIATIONS = _words("symbols", "abbreviations")
WORDS = {Role[name.upper()]: tuple(text.split()) for name, text in _LISTS["words"].items()}
NOT_COMPANIES = frozenset(_phrases(_LISTS["phrases"]["not_companies"]))
PHRASES = {Role[name.upper()]: _phrases(text) for name, text in _LISTS["phrases"].items() if name != "not_companies"}


@cache
def is_common(word: str) -> bool:
    """Whether `word`, or what it is a plain inflection of, is a common one."""
    stems = [word]
    if word.endswith("s"):
        stems += [word[:-1]]
    if word.endswith(("es", "ed", "er", "ly")):
        stems += [word[:-2]]
    if word.endswith("ing"):
        stems += [word[:-3], word[:-3] + "e"]
    return any(stem in COMMON for stem in stems)
