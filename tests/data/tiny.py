"""Tiny hand-made tables, shaped as the lake gives them, for the tests of packing, panel, news and windows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from data.asof import known
from data.calendar import Sessions, sessions

FIRST = "2015-01-02"


def span(count: int) -> Sessions:
    """That many XNYS sessions from the first of 2015, with nightly decisions."""
    every = sessions("XNYS", "nightly")
    first = int(every.index([FIRST])[0])
    return every.between(FIRST, every.labels[first + count - 1])


def utc(stamps: Any) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(np.asarray(stamps, dtype="datetime64[us]")).tz_localize("UTC")


def bar_frame(days: Sessions, closes: Sequence[float], ticker: str = "A", **columns: Any) -> pd.DataFrame:
    """One bar a session from the first on, none where the close is NaN, each known at its close."""
    close = np.asarray(closes, dtype=float)
    at = np.flatnonzero(~np.isnan(close))
    close = close[at]
    frame = pd.DataFrame(
        {
            "ticker": ticker,
            "session": days.labels[at].astype("datetime64[s]"),
            "version": 1,
            "open": close * 1.001,
            "high": close * 1.01,
            "low": close * 0.99,
            "close": close,
            "volume": 1e9,
            "available_at": utc(days.closes[at]),
        }
    )
    return frame.assign(**columns)


def action_frame(rows: Sequence[tuple[str, Any, str, float, Any]] = (), version: int = 1) -> pd.DataFrame:
    """Actions from (ticker, ex-date, kind, value, available at)."""
    frame = pd.DataFrame(list(rows), columns=["ticker", "ex_date", "kind", "value", "available_at"], dtype=object)
    return frame.assign(
        ex_date=frame["ex_date"].to_numpy(dtype="datetime64[D]").astype("datetime64[s]"),
        value=frame["value"].astype(float),
        available_at=utc(frame["available_at"].to_numpy(dtype="datetime64[us]")),
        version=version,
    )


def headline_frame(rows: Sequence[tuple[str, str, Any]], version: int = 1) -> pd.DataFrame:
    """Headlines from (id, title, available at)."""
    frame = pd.DataFrame(list(rows), columns=["id", "title", "available_at"], dtype=object)
    return frame.astype({"id": "str", "title": "str"}).assign(
        available_at=utc(frame["available_at"].to_numpy(dtype="datetime64[us]")), version=version
    )


def link_frame(rows: Sequence[tuple[str, str, Any]]) -> pd.DataFrame:
    """Links from (id, ticker, available at)."""
    frame = pd.DataFrame(list(rows), columns=["id", "ticker", "available_at"], dtype=object)
    return frame.astype({"id": "str", "ticker": "str"}).assign(
        available_at=utc(frame["available_at"].to_numpy(dtype="datetime64[us]"))
    )


def known_rows(rows: pd.DataFrame, decision: np.datetime64) -> pd.DataFrame:
    """The rows that were known at `decision`."""
    return rows[known(rows["available_at"].dt.tz_localize(None), decision)]


def walk(count: int, seed: int = 0, start: float = 100.0) -> np.ndarray:
    """A random walk of closes."""
    return start * np.exp(np.random.default_rng(seed).normal(0, 0.02, count).cumsum())
