"""Faults of an adjusted close: what it applies against the dividends and splits that are known."""

import numpy as np

from data.quality.history import Bars, Found

ROUNDING = 5e-4  # log: below it a step of adj_close / close may be the rounding of the two
NOISES = 8.0
SHOWN = (0.5, 2.0)  # share of a known payment that the adjusted close must show


def adjustment_faults(bars: Bars) -> Found:
    """Payments that adj_close does not show, shows without cause, or takes back. Nothing without adj_close."""
    if np.isnan(bars.adj_close).all():
        return []
    with np.errstate(invalid="ignore", divide="ignore"):
        before = np.concatenate([bars.close[:1], bars.close[:-1]])
        due = np.log(bars.split) - np.log1p(-np.minimum(bars.dividend * bars.split / before, 0.99))
        at = np.flatnonzero((np.abs(bars.adjustment) > ROUNDING) | ((np.abs(due) > ROUNDING) & ~bars.first))
    at = at[~np.isnan(bars.adjustment[at])]
    shown, expected = bars.adjustment[at], due[at]
    least = np.maximum(ROUNDING, NOISES * bars.noise(at))
    payers = np.isin(bars.ticker[at], bars.ticker[bars.dividend > 0])
    owed = np.abs(expected) > least
    share = np.divide(shown, expected, out=np.zeros_like(shown), where=owed)
    missing = owed & ((share < SHOWN[0]) | (share > SHOWN[1]))
    falls = ~owed & (shown < -least)
    unknown = ~owed & (shown > least) & payers
    texts = [
        f"adj_close / close steps by {s:+.2%}, by {e:+.2%} as the actions say"
        for s, e in zip(shown, expected, strict=True)
    ]
    return [
        (code, at[which], [text for text, here in zip(texts, which, strict=True) if here])
        for code, which in (
            ("missing-dividend-adjustment", missing),
            ("adjusted-close-falls", falls),
            ("unknown-dividend", unknown),
        )
    ]
