"""What the last fetch of each feed left for the next: its validators, how it ended, when to come back.

Kept in the lake's table `feeds`, a version a change, so that a feed's health has a history.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from data.lake import Lake, revisions
from data.packing import naive_utc

Outcome = Literal["fed", "suspect", "limited", "gone", "failed"]
COLUMNS = ["name", "url", "outcome", "reason", "etag", "last_modified", "retry_at"]
VALUES = COLUMNS[2:]


@dataclass(frozen=True)
class FeedState:
    """How the last fetch of `url` ended. The validators are those of the last document that was stored."""

    name: str
    url: str
    outcome: Outcome
    reason: str
    etag: str | None = None
    last_modified: str | None = None
    retry_at: np.datetime64 | None = None


def read_states(lake: Lake) -> dict[tuple[str, str], FeedState]:
    """The newest state of each feed by its name and address."""
    rows = lake.current("feeds")
    states = {}
    for row, at in zip(rows.to_dict("records"), naive_utc(rows["retry_at"]), strict=True):
        etag, last_modified = (None if pd.isna(row[name]) else row[name] for name in ("etag", "last_modified"))
        waiting = None if np.isnat(at) else at
        state = FeedState(row["name"], row["url"], row["outcome"], row["reason"], etag, last_modified, waiting)
        states[state.name, state.url] = state
    return states


def store_states(lake: Lake, states: Iterable[FeedState], recorded_at: np.datetime64) -> int:
    """Add what has changed; the number of rows added."""
    rows = pd.DataFrame([vars(state) for state in states], columns=COLUMNS)
    texts = [name for name in rows.columns if name != "retry_at"]
    rows = rows.astype(dict.fromkeys(texts, "string"))
    rows["retry_at"] = pd.to_datetime(rows["retry_at"]).astype("datetime64[us]").dt.tz_localize("UTC")
    stamp = pd.Timestamp(recorded_at, tz="UTC")
    changed = revisions(lake.current("feeds"), rows.drop_duplicates(["name", "url"], keep="last"), "feeds", VALUES)
    return lake.merge("feeds", changed.assign(available_at=stamp, recorded_at=stamp, origin="live"))
