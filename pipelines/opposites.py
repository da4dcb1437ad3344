"""Made-up headlines in pairs that differ in one word or two and say opposite things: does an encoder tell them apart?

English. They are read with, never trained on, and are nobody's data.
"""

from dataclasses import dataclass

COMPANIES = ("Acme", "Halden Steel", "Orvik Energy", "Brightwater Bank", "Tarn Pharma", "Quillon Software")
BEATS = (
    ("{} beats expectations", "{} misses expectations"),
    ("{} beats quarterly profit estimates", "{} misses quarterly profit estimates"),
    ("{} earnings beat analysts' forecasts", "{} earnings miss analysts' forecasts"),
    ("{} Q3 revenue beats Wall Street consensus", "{} Q3 revenue misses Wall Street consensus"),
)
OTHERS = (
    ("{} quarterly profit rises 12%", "{} quarterly profit falls 12%"),
    ("{} upgraded to buy at broker", "{} downgraded to sell at broker"),
    ("{} raises full-year outlook", "{} cuts full-year outlook"),
    ("{} shares jump after results", "{} shares plunge after results"),
    ("{} revenue tops forecasts", "{} revenue trails forecasts"),
    ("{} swings to quarterly profit", "{} swings to quarterly loss"),
    ("{} wins supply contract", "{} loses supply contract"),
    ("{} sees stronger demand next year", "{} sees weaker demand next year"),
)


@dataclass(frozen=True)
class Opposites:
    """Pairs of texts: `good[i]` and `bad[i]` belong together; the first `beats` say beats and misses."""

    good: tuple[str, ...]
    bad: tuple[str, ...]
    beats: int


def opposites() -> Opposites:
    """Every pair for every company."""
    pairs = [(good.format(company), bad.format(company)) for good, bad in (*BEATS, *OTHERS) for company in COMPANIES]
    good, bad = zip(*pairs, strict=True)
    return Opposites(good, bad, len(BEATS) * len(COMPANIES))
