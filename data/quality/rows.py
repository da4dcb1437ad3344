"""Faults that one bar shows by itself, or by the calendar: such a row is left out of the lake. No history here."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.asof import known
from data.calendar import Sessions

PRICES = ("open", "high", "low", "close")

# In the order in which a row is judged: the first that holds is its code.
DAY_CODES = ("missing-date", "before-calendar", "weekend-bar", "holiday-bar", "future-bar", "partial-last-bar")
NUMBER_CODES = (
    "missing-price",
    "infinite-price",
    "negative-price",
    "zero-price",
    "missing-volume",
    "infinite-volume",
    "negative-volume",
    "high-below-low",
    "open-outside-range",
    "close-outside-range",
)
ROW_CODES = ("", *DAY_CODES, *NUMBER_CODES)
ROW_CODE = pd.CategoricalDtype(pd.Index(ROW_CODES, dtype="str"))

# Prices that were adjusted or converted are rounded one by one, often in 32 bits: an excess of that size is no fault.
ROUNDING = 2e-5

WEEKEND_SHARE = 0.02  # a weekday with fewer of a calendar's sessions is its weekend
BLOCK = 1 << 18  # rows at a time, so that what is computed on the way stays in the cache

Bools = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float64]


def row_codes(rows: pd.DataFrame, exchange: Sessions, now: np.datetime64) -> "pd.Series[str]":
    """The code of the first fault that quarantines each row at the instant `now` (UTC), "" for none.

    `rows` has the float columns open, high, low, close and volume, and `session` (datetime64 without zone, midnight,
    or NaT). The codes are those of `ROW_CODES`, as a categorical under the index of `rows`: one byte a row.
    """
    found = fault_codes(
        rows["session"].to_numpy(), [rows[name].to_numpy() for name in (*PRICES, "volume")], exchange, now
    )
    codes = pd.Categorical.from_codes(found, dtype=ROW_CODE)
    return pd.Series(codes, index=rows.index, name="code")


def fault_codes(
    dates: npt.NDArray[np.datetime64], columns: Sequence[npt.NDArray[Any]], exchange: Sessions, now: np.datetime64
) -> Codes:
    """`row_codes` as positions in `ROW_CODES`, of a session and of open, high, low, close and volume a row."""
    days = _DayCodes(exchange, now)
    found = np.zeros(len(dates), dtype=np.int8)
    for start in range(0, len(dates), BLOCK):
        part = slice(start, start + BLOCK)
        found[part] = days.of(dates[part])
        numbers = [np.asarray(column[part], dtype=np.float64) for column in columns]
        suspect = np.flatnonzero((found[part] == 0) & ~_plain(*numbers))
        if len(suspect):
            found[part][suspect] = _number_codes(*(column[suspect] for column in numbers))
    return found


class _DayCodes:
    """What is wrong with each calendar day as a session: a table from the first session to the last."""

    def __init__(self, exchange: Sessions, now: np.datetime64) -> None:
        labels = exchange.labels.astype("datetime64[D]")
        self._first = labels[0].astype(np.int64)
        span = np.arange(labels[0], labels[-1] + 1)
        weekday = _weekday(span)
        usual = np.bincount(_weekday(labels), minlength=7) > WEEKEND_SHARE * len(labels)
        table = np.where(usual[weekday], _code("holiday-bar"), _code("weekend-bar")).astype(np.int8)
        opened, closed = known(exchange.opens, now), known(exchange.closes, now)
        unfinished = np.where(opened, _code("partial-last-bar"), _code("future-bar"))
        table[labels.astype(np.int64) - self._first] = np.where(closed, 0, unfinished)
        self._table = np.concatenate([[_code("before-calendar")], table, [_code("future-bar")]]).astype(np.int8)

    def of(self, dates: npt.NDArray[np.datetime64]) -> Codes:
        days = dates.astype("datetime64[D]")
        codes: Codes = self._table[np.clip(days.astype(np.int64) - self._first + 1, 0, len(self._table) - 1)]
        codes[np.isnat(days)] = _code("missing-date")
        return codes


def _plain(opening: Floats, high: Floats, low: Floats, close: Floats, volume: Floats) -> Bools:
    """Rows without any fault of numbers; nearly all are, so only the rest is looked at closely."""
    within = (low > 0) & (low <= opening) & (low <= close) & (opening <= high) & (close <= high) & (high < np.inf)
    return np.asarray(within & (volume >= 0) & (volume < np.inf))


def _number_codes(opening: Floats, high: Floats, low: Floats, close: Floats, volume: Floats) -> Codes:
    prices = np.stack([opening, high, low, close])
    top, bottom = high * (1 + ROUNDING), low * (1 - ROUNDING)
    faults = {
        "missing-price": np.isnan(prices).any(axis=0),
        "infinite-price": np.isinf(prices).any(axis=0),
        "negative-price": (prices < 0).any(axis=0),
        "zero-price": (prices == 0).any(axis=0),
        "missing-volume": np.isnan(volume),
        "infinite-volume": np.isinf(volume),
        "negative-volume": volume < 0,
        "high-below-low": top < low,
        "open-outside-range": (opening < bottom) | (opening > top),
        "close-outside-range": (close < bottom) | (close > top),
    }
    codes = [_code(name) for name in faults]
    return np.select(list(faults.values()), codes, 0).astype(np.int8)


def _weekday(days: npt.NDArray[np.datetime64]) -> npt.NDArray[np.int64]:
    """0 is Monday; 1970-01-01 was a Thursday."""
    return (days.astype("datetime64[D]").astype(np.int64) + 3) % 7


def _code(name: str) -> int:
    return ROW_CODES.index(name)
