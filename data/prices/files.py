"""Daily bars and corporate actions from a user's file: read, checked, dated. No network.

`basis` says what the file's prices are: `raw` (as traded; its splits and dividends are applied when
returns are computed), `split` (already split-adjusted: a split column is not applied again) or
`total` (splits and dividends adjusted: neither is applied). An adjusted close beside a `split` file
gives the dividends. A bar is known at its session's close, an action when announced if the file says
so, else at the open of its ex-date.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from data.asof import known
from data.calendar import EARLIEST, Sessions, sessions, zone_of
from data.errors import InputError
from data.intake import ODD_TICKER, Quarantine, clean_tickers, refuse_all_bad, refuse_unreadable
from data.news.dates import read_stamps
from data.tabular import read_table

Basis = Literal["raw", "split", "total"]

PRICES = ["open", "high", "low", "close"]
REQUIRED = ("date", "open", "high", "low", "close", "volume")
OPTIONAL = ("ticker", "adj_close", "dividend", "split", "announced_at")
ALIASES = {
    "date": ("session", "datetime", "timestamp"),
    "ticker": ("symbol",),
    "adj_close": ("adjclose", "adjusted_close"),
    "dividend": ("dividends",),
    "split": ("splits", "stock_splits"),
}

# Vendors round adjusted closes to 4-6 decimals; below this share of the price a step is rounding, not cash.
SMALLEST_DIVIDEND = 2e-4


@dataclass(frozen=True)
class PriceFile:
    """One file's usable rows as the columns of `bars` and of `actions`, without the lake's stamps."""

    bars: pd.DataFrame
    actions: pd.DataFrame
    read: int
    quarantine: Quarantine


def read_prices(
    path: Path, mapping: dict[str, str], calendar: str, basis: Basis, ticker: str | None, now: np.datetime64
) -> PriceFile:
    """The bars of a CSV or Parquet file. `ticker` names the one of a file without that column.

    Raises InputError for a file that cannot be trusted; rows that cannot (null or non-positive
    prices, a day the exchange was closed, a session still open at `now`) are quarantined and counted.
    """
    raw = read_table(path, REQUIRED, OPTIONAL, ALIASES, mapping)
    raw = _with_ticker(raw, ticker, path)
    quarantine = Quarantine()
    exchange = sessions(calendar)
    stamps = read_stamps(raw["date"], zone_of(calendar), now, EARLIEST.to_datetime64().astype("datetime64[us]"))
    refuse_unreadable(stamps["problem"], raw["date"], path, "Write dates as YYYY-MM-DD.")
    rows = _rows(raw, stamps, calendar)
    rows = quarantine.drop(rows, _problems(raw, rows, stamps["problem"], exchange, now))
    refuse_all_bad(rows, quarantine, path)
    once = rows.drop_duplicates()
    _refuse_disagreement(once, path)
    quarantine.add("duplicate row", len(rows) - len(once))
    once = once.sort_values(["ticker", "session"], ignore_index=True)
    bars = once[["ticker", "session", *PRICES, "volume"]].assign(basis=basis, source="file")
    bars["available_at"] = exchange.closes[exchange.index(once["session"].to_numpy())]
    return PriceFile(bars, _actions(once, basis, exchange), len(raw), quarantine)


def _with_ticker(raw: pd.DataFrame, ticker: str | None, path: Path) -> pd.DataFrame:
    if "ticker" in raw and ticker is not None:
        raise InputError(f"{path}: has a ticker column, so --ticker {ticker} is not needed; leave it out.")
    if "ticker" not in raw and ticker is None:
        raise InputError(f"{path}: expected a ticker column, found none. Say which ticker it is with --ticker NAME.")
    return raw if "ticker" in raw else raw.assign(ticker=ticker)


def _rows(raw: pd.DataFrame, stamps: pd.DataFrame, calendar: str) -> pd.DataFrame:
    local = stamps["at"].dt.tz_localize("UTC").dt.tz_convert(zone_of(calendar)).dt.tz_localize(None)
    numbers = [name for name in (*PRICES, "volume", "adj_close", "dividend", "split") if name in raw]
    rows = pd.DataFrame({name: pd.to_numeric(raw[name], errors="coerce").astype("float64") for name in numbers})
    rows["ticker"] = clean_tickers(raw["ticker"])
    rows["session"] = stamps["date"].where(stamps["day"], local).dt.normalize().astype("datetime64[s]")
    if "announced_at" in raw:
        announced = read_stamps(raw["announced_at"], zone_of(calendar), np.datetime64("9999-01-01", "us"))
        # A day alone does not say when that day: the action's ex-date then decides (see _actions).
        rows["announced_at"] = announced["at"].mask(announced["day"])
    return rows


def _odd_action(raw: pd.DataFrame, rows: pd.DataFrame) -> "pd.Series[bool]":
    """Where a dividend or split is given but is no number, negative or infinite; an empty cell is none."""
    odd = pd.Series(False, index=rows.index)
    for name in ("dividend", "split"):
        if name in rows:
            odd |= raw[name].notna() & ~(np.isfinite(rows[name]) & (rows[name] >= 0))
    return odd


def _problems(
    raw: pd.DataFrame, rows: pd.DataFrame, stamp: pd.Series, exchange: Sessions, now: np.datetime64
) -> pd.Series:
    at = exchange.index(rows["session"].to_numpy())
    needed = [*PRICES, "volume", *(["adj_close"] if "adj_close" in rows else [])]
    finite = np.isfinite(rows[needed].to_numpy()).all(axis=1)
    checks = [
        ("no ticker", rows["ticker"].isna()),
        ("odd ticker", ~rows["ticker"].str.match(ODD_TICKER).fillna(False)),
        ("null or unreadable number", ~finite),
        ("unreadable dividend or split", _odd_action(raw, rows)),
        ("price not above zero", (rows[needed].drop(columns="volume") <= 0).any(axis=1)),
        ("negative volume", rows["volume"] < 0),
        ("dividend above the close", rows["dividend"] > rows["close"] if "dividend" in rows else rows["close"] < 0),
        ("high below low", rows["high"] < rows["low"]),
        ("not a session", at < 0),
        ("session not closed yet", ~known(exchange.closes[at], now)),
    ]
    problem = stamp.copy()
    for reason, bad in checks:
        problem[(problem == "") & np.asarray(bad, dtype=bool)] = reason
    return problem


def _refuse_disagreement(rows: pd.DataFrame, path: Path) -> None:
    twice = rows[rows.duplicated(["ticker", "session"], keep=False)]
    if twice.empty:
        return
    first, second = twice.sort_values(["ticker", "session"]).iloc[:2].to_dict("records")
    differing = next(
        name for name in first if first[name] != second[name] and pd.notna([first[name], second[name]]).any()
    )
    raise InputError(
        f"{path}: expected one row per ticker and session; {len(twice)} rows disagree, such as {first['ticker']} on "
        f"{first['session']:%Y-%m-%d}: {differing} {first[differing]} and {second[differing]}. Keep the right one. "
        "Nothing was imported."
    )


def _actions(rows: pd.DataFrame, basis: Basis, exchange: Sessions) -> pd.DataFrame:
    """Dividends and splits as one row each, from whichever columns the basis leaves to be applied."""
    parts = []
    if basis == "raw" and "split" in rows:
        ratio = rows["split"].fillna(0.0)
        parts.append(_kind(rows, "split", ratio, (ratio > 0) & (ratio != 1)))
    if basis != "total" and "dividend" in rows:
        cash = rows["dividend"].fillna(0.0)
        parts.append(_kind(rows, "dividend", cash, cash > 0))
    elif basis == "split" and "adj_close" in rows:
        cash = _implied_dividends(rows)
        parts.append(_kind(rows, "dividend", cash, cash > 0))
    columns = ["ticker", "ex_date", "kind", "value", "source", "available_at"]
    nothing = _kind(rows, "dividend", pd.Series(0.0, index=rows.index), pd.Series(False, index=rows.index))
    actions = pd.concat([nothing, *parts], ignore_index=True)
    opens = exchange.opens[exchange.index(actions["ex_date"].to_numpy())]
    announced = actions["announced_at"].to_numpy(dtype="datetime64[us]")
    # An announcement stamped after the ex-date is a late file's, not the market's.
    actions["available_at"] = np.where(np.isnat(announced), opens, np.fmin(announced, opens))
    return actions.assign(source="file")[columns]


def _kind(rows: pd.DataFrame, kind: str, value: pd.Series, there: pd.Series) -> pd.DataFrame:
    announced = rows["announced_at"] if "announced_at" in rows else pd.Series(pd.NaT, index=rows.index)
    parts = {"ticker": rows["ticker"], "ex_date": rows["session"], "value": value, "announced_at": announced}
    return pd.DataFrame(parts)[there].assign(kind=kind)


def _implied_dividends(rows: pd.DataFrame) -> pd.Series:
    """Cash per share on each ex-date, from the steps of adj_close / close (CRSP's factor, as Yahoo uses it)."""
    factor = rows["adj_close"] / rows["close"]
    by_ticker = rows["ticker"]
    step = 1 - factor.groupby(by_ticker).shift() / factor
    cash = step * rows["close"].groupby(by_ticker).shift()
    return cash.where(step > SMALLEST_DIVIDEND, 0.0)
