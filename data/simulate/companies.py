"""Made-up companies: names, tickers, sectors, and from when to when each is listed."""

from dataclasses import dataclass

import numpy as np

from data.simulate import words
from data.simulate.config import MarketConfig

TRAIN_SHARE, VALID_SHARE = 0.68, 0.80  # of the sessions: where validation and test begin
LATE_LISTINGS = (0.30, 0.45, 0.70, 0.74, 0.78, 0.83)  # of the sessions; the last four are unknown to training
DELISTINGS = (0.50, 0.70, 0.80, 0.90)


@dataclass(frozen=True)
class Company:
    """`names` are what headlines call it. It trades in sessions `first` to `last`, both included."""

    ticker: str
    names: tuple[str, ...]
    sector: str
    first: int
    last: int


def found_companies(config: MarketConfig, rng: np.random.Generator) -> list[Company]:
    """`config.tickers` companies with distinct names and tickers, spread evenly over the sectors."""
    sectors = list(words.SECTORS)
    names: dict[str, tuple[str, ...]] = {}
    while len(names) < config.tickers:
        stem = words.STEMS[rng.integers(len(words.STEMS))] + words.ENDINGS[rng.integers(len(words.ENDINGS))]
        ticker = _ticker(stem)
        if ticker not in names:
            names[ticker] = _names(rng, stem, sectors[len(names) % len(sectors)])
    listed = _listings(config, rng)
    return [
        Company(ticker, called, sectors[at % len(sectors)], *listed[at])
        for at, (ticker, called) in enumerate(names.items())
    ]


def _ticker(stem: str) -> str:
    upper = stem.upper()
    rest = [letter for letter in upper[1:] if letter not in "AEIOU"]
    return (upper[0] + "".join(rest))[:4]


def _names(rng: np.random.Generator, stem: str, sector: str) -> tuple[str, ...]:
    suffixes = words.SECTORS[sector][0]
    suffix, form = suffixes[rng.integers(len(suffixes))], words.FORMS[rng.integers(len(words.FORMS))]
    surname = words.SURNAMES[rng.integers(len(words.SURNAMES))]
    patterns = (
        (stem, f"{stem} {suffix}"),
        (stem, f"{stem} & {surname}"),
        (stem, f"{stem} {suffix}", f"{stem} {suffix} {form}"),
        (stem, f"{stem} {form}"),
    )
    return patterns[rng.integers(len(patterns))]


def _listings(config: MarketConfig, rng: np.random.Generator) -> list[tuple[int, int]]:
    """First and last session of each company. One in eight starts late, one in twelve ends early."""
    end = config.sessions - 1
    spans = [[0, end] for _ in range(config.tickers)]
    order = rng.permutation(config.tickers)
    late, gone = config.tickers // 8, config.tickers // 12
    for at, who in enumerate(order[:late]):
        spans[who][0] = int(LATE_LISTINGS[at % len(LATE_LISTINGS)] * config.sessions)
    for at, who in enumerate(order[late : late + gone]):
        spans[who][1] = int(DELISTINGS[at % len(DELISTINGS)] * config.sessions)
    return [(first, last) for first, last in spans]
