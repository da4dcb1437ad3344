"""What the lake holds: `tapewire headlines` and `tapewire bars`. Reads, never writes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from data.calendar import sessions
from data.errors import ConfigError, LakeError
from data.lake import Lake
from pipelines.config import TapewireConfig
from pipelines.dataset import session_of

Record = dict[str, Any]


def parse_session(text: str) -> np.datetime64:
    """A session label from the command line: YYYY-MM-DD. Raises ConfigError."""
    try:
        return np.datetime64(pd.to_datetime(text, format="%Y-%m-%d"), "D")
    except ValueError:
        raise ConfigError(f"--as-of {text}: expected a date such as 2015-12-30.") from None


def parse_instant(text: str | None, config: TapewireConfig) -> np.datetime64 | None:
    """An instant from the command line: ISO 8601 with an offset, or a date for the decision after that session."""
    if text is None:
        return None
    if len(text) == len("2015-12-30"):
        exchange = sessions(config.calendar, config.decision)
        return exchange.decision_at[session_of(exchange, parse_session(text))]
    try:
        stamp = pd.Timestamp(text)
    except ValueError:
        stamp = pd.NaT
    if stamp is pd.NaT or stamp.tzinfo is None:
        raise ConfigError(
            f"--as-of {text}: expected an instant with its offset, such as 2015-12-30T21:00:00Z, or a date."
        )
    return np.datetime64(stamp.tz_convert("UTC").tz_localize(None), "us")


def headlines(lake: Lake, as_of: np.datetime64 | None, limit: int | None) -> Iterator[Record]:
    """Current headlines known at `as_of`, oldest first, with the tickers known to be theirs by then.

    `limit` keeps the newest that many; None keeps all.
    """
    rows = lake.current("headlines", as_of)
    links = lake.current("links", as_of)
    tickers = links.groupby("id")["ticker"].agg(list)
    rows = rows.assign(tickers=rows["id"].map(tickers)).sort_values(["available_at", "id"])
    columns = ["id", "version", "title", "source", "url", "published_at", "published_raw", "precision"]
    columns += ["first_seen_at", "available_at", "recorded_at", "origin", "tickers"]
    for record in _newest(rows, limit)[columns].to_dict("records"):
        linked = record["tickers"]
        yield {**_plain(record), "tickers": linked if isinstance(linked, list) else []}


def bars(lake: Lake, ticker: str, as_of: np.datetime64 | None, limit: int | None) -> Iterator[Record]:
    """Current bars of one ticker known at `as_of`, oldest first. Raises LakeError where it has none at all."""
    rows = lake.current("bars", as_of)
    rows = rows[rows["ticker"] == ticker]
    if rows.empty:
        known = "" if as_of is None else " known by then"
        raise LakeError(f"{ticker}: expected bars of it in {lake.folder}, found none{known}.")
    rows = rows.assign(session=rows["session"].dt.strftime("%Y-%m-%d"))
    for record in _newest(rows, limit).to_dict("records"):
        yield _plain(record)


def _newest(rows: pd.DataFrame, limit: int | None) -> pd.DataFrame:
    return rows if limit is None else rows.tail(limit)


def _plain(record: Record) -> Record:
    """JSON-ready: instants as ISO 8601 with their offset, what is missing as None."""
    plain: Record = {}
    for name, value in record.items():
        if isinstance(value, pd.Timestamp):
            plain[name] = value.isoformat()
        elif isinstance(value, list) or not pd.isna(value):
            plain[name] = value
        else:
            plain[name] = None
    return plain
