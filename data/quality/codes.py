"""The codes: how grave each fault is, and a sentence for people. Finds nothing itself.

`refuse`: nothing of the file is stored. `quarantine`: the row is left out, the rest is stored. `warn`: the row is
stored, since only a person can say which of two readings is right; the sentence says what to look at.
"""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["refuse", "quarantine", "warn"]


@dataclass(frozen=True)
class Code:
    """How grave a fault is and what it means."""

    severity: Severity
    sentence: str


_REFUSE = {
    "unreadable-file": "The file is not there, empty, damaged or of a kind that is not read here.",
    "html-not-csv": "The file is a web page: a login or error page was saved in place of the data.",
    "missing-column": "A column that prices need is not there, or stands there twice.",
    "decimal-comma": "Numbers are written with a decimal comma or separators of thousands, or cells end in semicolons.",
    "unreadable-dates": "More than 1% of the dates cannot be read, so the rest may be read wrongly.",
    "no-usable-row": "No row of the file can be used.",
    "conflicting-duplicate": "One ticker and session stands there twice, with different values.",
}

_QUARANTINE = {
    "no-ticker": "The row says no ticker.",
    "odd-ticker": "The ticker has characters that no ticker has.",
    "missing-date": "The row has no session.",
    "unreadable-date": "The date cannot be read, or is an instant without a zone.",
    "odd-adjusted-close": "The adjusted close is missing, is no number or is not above zero.",
    "before-calendar": "The session lies before the first that the exchange's calendar knows.",
    "weekend-bar": "The exchange never trades on that weekday.",
    "holiday-bar": "The exchange was closed on that day.",
    "future-bar": "The session has not begun yet.",
    "partial-last-bar": "The session has not closed yet: its high, low, close and volume are not final.",
    "missing-price": "A price is missing or is no number.",
    "infinite-price": "A price is infinite.",
    "negative-price": "A price is below zero.",
    "zero-price": "A price is zero.",
    "missing-volume": "The volume is missing or is no number.",
    "infinite-volume": "The volume is infinite.",
    "negative-volume": "The volume is below zero.",
    "high-below-low": "The high is below the low.",
    "open-outside-range": "The open lies above the high or below the low.",
    "close-outside-range": "The close lies above the high or below the low.",
    "duplicate": "The same row stands there again; it is read once.",
}

_WARN = {
    "missing-session": "The exchange was open, and the ticker has bars before and after, but none for this session.",
    "zero-volume": "No share was traded: the prices are carried over or made up.",
    "stale-price": "The close has not moved for longer than the ticker's own history makes plausible.",
    "repeated-bar": "The bar is that of the session before, to the last digit and share.",
    "unit-error": "Prices are 100 or 1000 times those around them, or that part of them: pence for pounds, say.",
    "unadjusted-split": "Prices step down as on a split, in a quiet session, and no split is known.",
    "unadjusted-reverse-split": "Prices step up as on a reverse split or an exchange of shares, in a quiet session, "
    "and none is known.",
    "split-without-step": "A split is recorded, but the prices do not show it: they may be adjusted already.",
    "missing-dividend-adjustment": "A dividend is known that the adjusted prices do not show, or prices fall at the "
    "open as by a large dividend, in a quiet session, and none is known.",
    "dividend-without-step": "A large dividend is recorded, but the price does not fall by it: its unit may be wrong.",
    "unknown-dividend": "The adjusted close shows a payment on a day for which the ticker's dividends name none.",
    "adjusted-close-falls": "The adjusted close falls against the close, which no payment does: two downloads of "
    "different dates were joined here.",
    "spike": "One bar lies far off, and the next is back, without the volume of a real move.",
    "stray-extreme": "The high or low lies far outside the rest of the bar, without the volume of a real move.",
    "implausible-return": "The move is beyond what the ticker's own history and that session's volume make plausible.",
    "recycled-ticker": "After a long gap the price is at another level: the ticker may be another company's by now.",
    "odd-action": "A split or dividend is not above zero or above the price, or its ex-date is no session.",
}

CODES: dict[str, Code] = {
    **{name: Code("refuse", sentence) for name, sentence in _REFUSE.items()},
    **{name: Code("quarantine", sentence) for name, sentence in _QUARANTINE.items()},
    **{name: Code("warn", sentence) for name, sentence in _WARN.items()},
}
