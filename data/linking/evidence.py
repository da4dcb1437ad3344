"""What speaks for a name's meaning the company, in what weight, and the confidence that follows.

A log-odds sum: where the form starts by its kind and cut, plus the signs that hold. The weights were set by
judgement and scaled on half of the labelled headlines (docs/linking.md), and are rounded: they say how
much, not exactly how much.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.linking.names import Cut, Kind

# A link below this is no link unless one asks for it. At it, at least 95 of 100 links were right.
CONFIDENT = 0.8

_KIND = {Kind.RARE: 4.0, Kind.PHRASE: 2.0, Kind.WORD: -1.5, Kind.INITIALS: -1.5}
_CUT = {Cut.CORE: 0.0, Cut.SHORT: -1.0}


@dataclass(frozen=True)
class Sign:
    """One thing seen at or around a name. `says` completes "linked because ..." or "in spite of ..."."""

    name: str
    weight: float
    says: str


SIGNS: tuple[Sign, ...] = (
    Sign("ticker", 6.0, "the headline gives this ticker too"),
    Sign("suffix", 4.0, "a company's suffix (Inc, Corp) follows"),
    Sign("noun", 2.5, "a word for what companies have (shares, CEO, earnings) follows"),
    Sign("verb", 1.5, "a verb of companies follows"),
    Sign("before", 1.5, "the words before it speak of a company"),
    Sign("possessive", 1.5, "it is in the possessive"),
    Sign("opens", 0.7, "it is the subject of the headline"),
    Sign("inside", 2.5, "it has a capital inside a sentence"),
    Sign("finance", 0.8, "the headline speaks of markets"),
    Sign("more_finance", 0.7, "and does so more than once"),
    Sign("company", 1.5, "another company is named beside it"),
    Sign("famed", 2.0, "in news the name mostly means the company"),
    Sign("lower", -1.5, "it is not capitalised"),
    Sign("larger", -2.5, "it may be part of a larger name"),
    Sign("place", -4.0, "what follows makes it the name of something else"),
    Sign("other_ticker", -7.0, "the headline gives it another ticker"),
    Sign("rates", -5.0, "it rates another company and is not the subject"),
    Sign("rated_by", -4.0, "it is named as who made the rating"),
    Sign("analyst", -4.0, "its analyst speaks about something else"),
    Sign("source", -4.0, "it is named as the source"),
)
PLACES = {sign.name: place for place, sign in enumerate(SIGNS)}
_WEIGHTS = np.array([sign.weight for sign in SIGNS])


def confidence(
    kind: npt.NDArray[np.int64], cut: npt.NDArray[np.int64], seen: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """How sure it is that each name means its company: between 0 and 1. `seen` is [names, SIGNS]."""
    start = np.array([_KIND[each] for each in Kind])[kind] + np.array([_CUT[each] for each in Cut])[cut]
    # "delta" of Delta Air Lines is anyone's word, unless the word itself is famed
    start = start - 4.0 * ((kind == Kind.WORD) & (cut == Cut.SHORT) & ~seen[:, PLACES["famed"]])
    odds = start + seen @ _WEIGHTS
    sure: npt.NDArray[np.float64] = np.round(0.99 / (1 + np.exp(-odds)), 3)
    return sure
