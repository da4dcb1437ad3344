"""Bars and actions into the lake. A changed bar is a new version, known only since it was recorded.

Rows are written by year, ticker and session: so one ticker's history and one session of all tickers are each found
in a small part of the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from data.errors import InputError
from data.lake import Batches, Lake
from data.prices.years import PRICES

Origin = Literal["live", "backfill"]


@dataclass(frozen=True)
class Stored:
    """New rows in the lake."""

    bars: int
    actions: int


def store_prices(
    lake: Lake,
    bars: pd.DataFrame,
    actions: pd.DataFrame,
    recorded_at: np.datetime64,
    origin: Origin = "backfill",
    tolerance: float = 0.0,
) -> Stored:
    """Add bars and actions, one row a key and without the lake's own stamps; what is stored already stays as it is.

    A first version keeps the market's own stamp; a version that differs from a stored one, by more than the share
    `tolerance` in any number, is available from `recorded_at`. Check the basis first: see `refuse_other_basis`.
    """
    return store_batches(lake, lambda: [bars], [actions], recorded_at, origin, tolerance)


def store_batches(
    lake: Lake,
    bars: Batches,
    actions: Sequence[pd.DataFrame],
    recorded_at: np.datetime64,
    origin: Origin = "backfill",
    tolerance: float = 0.0,
) -> Stored:
    """`store_prices` of more than memory holds: each of `actions` in a commit, then all bars in one.

    No two batches of bars share a ticker and session; a later one of `actions` may restate an earlier.
    """

    def stamped(rows: pd.DataFrame) -> pd.DataFrame:
        return _in_order(_stamped(rows, recorded_at, origin))

    def add_actions(part: pd.DataFrame) -> int:
        return lake.revise("actions", lambda: [part], ["value"], stamped, tolerance)

    new_actions = sum(map(add_actions, actions))  # first: a kill must not leave a split's bars without the split
    return Stored(lake.revise("bars", bars, [*PRICES, "volume"], stamped, tolerance), new_actions)


def _in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """By year, ticker and day."""
    day = rows["session" if "session" in rows else "ex_date"].to_numpy()
    ticker = rows["ticker"].astype("category").cat.codes.to_numpy()
    return rows.iloc[np.lexsort((day, ticker, day.astype("datetime64[Y]")))]


def _stamped(rows: pd.DataFrame, recorded_at: np.datetime64, origin: str) -> pd.DataFrame:
    available = rows["available_at"].to_numpy(dtype="datetime64[us]")
    restated = rows["version"].to_numpy() > 1
    known_at = np.where(restated, np.maximum(available, recorded_at), available)
    instants = {"available_at": known_at, "recorded_at": np.full(len(rows), recorded_at)}
    utc = {name: pd.DatetimeIndex(stamps).tz_localize("UTC") for name, stamps in instants.items()}
    return rows.assign(**utc, origin=origin)


def refuse_other_basis(lake: Lake, bars: pd.DataFrame) -> None:
    """InputError where the lake holds bars of one of these tickers on another basis."""
    incoming = bars.drop_duplicates("ticker").set_index("ticker")["basis"]
    stored = lake.distinct("bars", "basis", list(incoming.index)).set_index("ticker")["basis"]
    both = incoming.index.intersection(stored.index)
    other = [ticker for ticker in both if stored[ticker] != incoming[ticker]]
    if other:
        raise InputError(
            f"--basis {incoming[other[0]]}: expected the basis that the lake already holds for {', '.join(other[:5])} "
            f"({stored[other[0]]}); one ticker's prices cannot mix the two. Nothing was imported."
        )
