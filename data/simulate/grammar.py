"""Writes headlines: picks a phrasing, fills its slots, wraps it in a frame. Knows no sessions and no prices."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from data.simulate import words
from data.simulate.companies import Company
from data.simulate.phrases import EVENT_TYPES

T = TypeVar("T")

RESERVED_SHARE = 0.15  # of the test period's events and distractors, written in words that training never saw
TYPES = tuple(EVENT_TYPES)
PERCENT = ((1, 4), (5, 11), (14, 45))  # by strength: mild, clear, strong
MILLIONS = ((5, 40), (60, 240), (400, 1900))


@dataclass(frozen=True)
class Written:
    """One headline, and whether its phrasing is reserved for the test period."""

    title: str
    reserved: bool


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """One of `choices`, each as likely."""
    return choices[int(rng.integers(len(choices)))]


class Filler(dict[str, str]):
    """Draws the value of a slot when a template asks for it; `level` is 0 mild, 1 clear, 2 strong."""

    def __init__(self, rng: np.random.Generator, company: Company, level: int = 1, **given: str) -> None:
        super().__init__(given)
        self.rng, self.company, self.level = rng, company, level

    def __missing__(self, slot: str) -> str:
        rng, level = self.rng, self.level
        match slot:
            case "c":
                return pick(rng, self.company.names)
            case "product":
                return pick(rng, words.SECTORS[self.company.sector][2])
            case "pct":
                return str(rng.integers(*PERCENT[level]))
            case "big":
                return str(rng.integers(*MILLIONS[level]))
            case "n":
                return str(rng.integers(11, 99))
            case "day":
                return str(rng.integers(4, 20))
            case "year":
                return f"20{rng.integers(19, 29)}"
            case "quarter":
                return pick(rng, ("first-quarter", "second-quarter", "third-quarter", "fourth-quarter"))
            case "person":
                return f"{pick(rng, words.FIRST_NAMES)} {pick(rng, words.SURNAMES)}"
        return pick(rng, _lists(level)[slot])


def write_event(rng: np.random.Generator, company: Company, kind: str, up: bool, level: int, late: bool) -> Written:
    """A headline of an event of type `kind`; only where `late` may its phrasing be a reserved one."""
    cores = EVENT_TYPES[kind][0 if up else 1]
    reserved = late and bool(rng.random() < RESERVED_SHARE)
    core = cores[-1] if reserved else pick(rng, cores[:-1])
    filler = Filler(rng, company, level)
    opener = pick(rng, (words.OPENERS_UP if up else words.OPENERS_DOWN)[level])
    tail = pick(rng, words.TAILS_UP if up else words.TAILS_DOWN).format_map(filler)
    return Written(_frame(rng, opener, core.format_map(filler), tail), reserved)


def write_distractor(rng: np.random.Generator, company: Company, late: bool) -> Written:
    """A headline in neutral words that means nothing for the price."""
    reserved = late and bool(rng.random() < RESERVED_SHARE)
    core = pick(rng, words.DISTRACTORS_LATER if reserved else words.DISTRACTORS)
    return Written(_capital(core.format_map(Filler(rng, company))), reserved)


def write_pair(rng: np.random.Generator, company: Company, other: Company) -> str:
    """A neutral headline that names two companies."""
    return pick(rng, words.PAIR_DISTRACTORS).format_map(Filler(rng, company, other=pick(rng, other.names)))


def write_reaction(rng: np.random.Generator, company: Company, move: float) -> str:
    """A headline that tells a move which has already happened; `move` is the simple return."""
    frames = words.REACTIVE_UP if move > 0 else words.REACTIVE_DOWN
    return pick(rng, frames).format_map(Filler(rng, company, move=f"{abs(move) * 100:.1f}"))


def write_market(rng: np.random.Generator, company: Company) -> str:
    """A headline about the whole market, in neutral words; `company` only lends its sector's nouns."""
    return _capital(pick(rng, words.MARKET_WIDE).format_map(Filler(rng, company)))


def _lists(level: int) -> dict[str, tuple[str, ...]]:
    return {
        "adv": words.ADVERBS[level],
        "adj": words.ADJECTIVES[level],
        "region": words.REGIONS,
        "agency": words.AGENCIES,
        "court": words.COURTS,
        "bank": words.BANKS,
        "rival": words.RIVALS,
    }


def _frame(rng: np.random.Generator, opener: str, core: str, tail: str) -> str:
    draw = rng.random()
    if draw < 0.03:
        return f"UPDATE {rng.integers(1, 4)}-{_capital(core)}"
    if draw < 0.09:
        return f"{opener}: {core}"
    if draw < 0.14:
        return f"{_capital(core)}, {tail}"
    if draw < 0.18:
        return f"{_capital(core)} - {opener.lower()}"
    return f"{opener}: {core}, {tail}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
