"""How far each ticker's tape goes, and how the last attempt to extend it ended: where a run that was cut goes on.

Kept in the lake's table `tickers`, a version a change, one key a ticker and vendor.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from data.asof import known
from data.lake import Lake, newest, revisions
from data.packing import naive_utc

Outcome = Literal["fed", "ended", "unknown", "limited", "failed"]
COLUMNS = ["ticker", "source", "outcome", "code", "reason", "since", "through", "failing_since", "retry_at"]
VALUES = COLUMNS[2:]


@dataclass(frozen=True)
class TickerState:
    """The last attempt, and what of the ticker is stored: sessions from `since` (as asked for) to `through`.

    "fed" with a `code`: the bar after `through` came, and was left out for that fault. "ended": the vendor has no more
    of it than is stored; "unknown": it has never had any. Either is asked again at `retry_at`, as is what is "limited".
    `failing_since`: when it first was as it is; None where it is fed.
    """

    ticker: str
    source: str
    outcome: Outcome
    code: str = ""
    reason: str = ""
    since: np.datetime64 | None = None
    through: np.datetime64 | None = None
    failing_since: np.datetime64 | None = None
    retry_at: np.datetime64 | None = None


def read_states(
    lake: Lake, source: str, tickers: Sequence[str] = (), recorded_by: np.datetime64 | None = None
) -> dict[str, TickerState]:
    """The newest state of each ticker (of all where none is named) at the vendor `source`, recorded by then (UTC)."""
    rows = lake.coded("tickers", [*COLUMNS, "version", "recorded_at"], tickers)
    rows = rows[(rows["source"] == source).to_numpy(dtype=bool)]
    if recorded_by is not None:
        rows = rows[known(naive_utc(rows["recorded_at"]), recorded_by)]
    rows = rows.astype(dict.fromkeys(COLUMNS[:5], "string"))
    rows = newest(rows, "tickers")
    days = [rows[name].to_numpy(dtype="datetime64[D]") for name in ("since", "through")]
    instants = [naive_utc(rows[name]) for name in ("failing_since", "retry_at")]
    texts = [rows[name] for name in COLUMNS[:5]]
    return {
        row[0]: TickerState(*row[:5], *map(_or_none, row[5:])) for row in zip(*texts, *days, *instants, strict=True)
    }


def store_states(lake: Lake, states: Iterable[TickerState], recorded_at: np.datetime64) -> int:
    """Add what has changed, no ticker twice; the number of rows added."""
    rows = pd.DataFrame([vars(state) for state in states], columns=COLUMNS)
    rows = rows.astype(dict.fromkeys(COLUMNS[:5], "string"))
    for name in ("since", "through"):
        rows[name] = pd.to_datetime(rows[name]).astype("datetime64[s]")
    for name in ("failing_since", "retry_at"):
        rows[name] = pd.to_datetime(rows[name]).astype("datetime64[us]").dt.tz_localize("UTC")
    stamp = pd.Timestamp(recorded_at, tz="UTC")
    stored = lake.current_among("tickers", rows["ticker"], VALUES)
    changed = revisions(stored, rows, "tickers", VALUES)
    return lake.merge("tickers", changed.assign(available_at=stamp, recorded_at=stamp, origin="live"))


def _or_none(at: np.datetime64) -> np.datetime64 | None:
    return None if np.isnat(at) else at
