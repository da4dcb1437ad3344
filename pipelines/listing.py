"""What the lake holds: `tapewire headlines` and `tapewire bars`. Reads, never writes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from data.adjust import adjusted_closes, returns
from data.calendar import Sessions
from data.errors import LakeError
from data.lake import Lake
from data.news.clusters import cluster
from data.packing import Tape, action_rows, naive_utc, pack
from data.schemas import SCHEMAS

Record = dict[str, Any]  # one row, JSON-ready
LINK_COLUMNS = {"tickers": "ticker", "link_rule": "rule", "confidence": "confidence"}  # ours -> the lake's


def headlines(lake: Lake, as_of: np.datetime64 | None, limit: int | None) -> Iterator[Record]:
    """Current headlines known at `as_of`, oldest first, with the tickers known to be theirs by then.

    `link_rule` and `confidence` go with `tickers`, one for each. `cluster` is the id of the first of
    the near-duplicates it belongs to, its own where it is the first. `limit` keeps the newest that
    many; None keeps all.
    """
    rows = lake.current("headlines", as_of).sort_values(["available_at", "id"], ignore_index=True)
    links = lake.current("links", as_of).groupby("id")
    linked = {name: rows["id"].map(links[column].agg(list)) for name, column in LINK_COLUMNS.items()}
    first = cluster(rows["title"].tolist(), naive_utc(rows["available_at"]), rows["id"].tolist())
    rows = rows.assign(cluster=rows["id"].to_numpy()[first], **linked)
    columns = ["id", "version", "title", "summary", "source", "url", "published_at", "published_raw", "precision"]
    columns += ["first_seen_at", "available_at", "recorded_at", "origin", *LINK_COLUMNS, "cluster"]
    for record in _records(_newest(rows, limit)[columns]):
        yield {**record, **{name: record[name] or [] for name in LINK_COLUMNS}}


def bars(
    lake: Lake, ticker: str, as_of: np.datetime64 | None, limit: int | None, exchange: Sessions | None = None
) -> Iterator[Record]:
    """Current bars of one ticker known at `as_of`, oldest first. Raises LakeError where it has none at all.

    With an `exchange` also `split_close` and `adjusted_close`, on the share basis of the last bar, and `total_return`
    (log, into each bar), by the actions known at `as_of`; bars of other days than its sessions are then left out.
    """
    rows, actions = (
        lake.current_among(table, pd.Series([ticker], dtype="str"), SCHEMAS[table].names, as_of)
        for table in ("bars", "actions")
    )
    if rows.empty:
        known = "" if as_of is None else " known by then"
        raise LakeError(f"{ticker}: expected bars of it in {lake.folder}, found none{known}.")
    if exchange is not None:
        rows = _with_adjusted(rows, actions, ticker, exchange)
    rows = rows.assign(session=rows["session"].dt.strftime("%Y-%m-%d"))
    yield from _records(_newest(rows, limit))


def _with_adjusted(rows: pd.DataFrame, actions: pd.DataFrame, ticker: str, exchange: Sessions) -> pd.DataFrame:
    rows = rows[exchange.index(rows["session"].to_numpy()) >= 0]
    of_bars = Tape.of(rows, (ticker,), exchange).rows(0, 1)
    splits, dividends = (action_rows(actions, kind, (ticker,), exchange) for kind in ("split", "dividend"))
    packed = pack(of_bars, splits, dividends, np.array([0]))
    moves = returns(packed)
    split_close, adjusted_close = adjusted_closes(packed, moves)
    return rows.assign(split_close=split_close[0], adjusted_close=adjusted_close[0], total_return=moves.total[0])


def _newest(rows: pd.DataFrame, limit: int | None) -> pd.DataFrame:
    return rows if limit is None else rows.tail(limit)


def _records(rows: pd.DataFrame) -> Iterator[Record]:
    for record in rows.to_dict("records"):
        yield {str(name): _plain(value) for name, value in record.items()}


def _plain(value: Any) -> Any:
    """Instants as ISO 8601 with their offset, what is missing as None."""
    if isinstance(value, list):
        return value
    if pd.isna(value):
        return None
    return value.isoformat() if isinstance(value, pd.Timestamp) else value
