"""`tapewire feeds`: the known feeds, and how healthy a workspace's own are. Stores nothing."""

import asyncio
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data.news.feeds import catalogue
from data.news.store import FindTickers
from data.news.wire import live_rows
from pipelines.ingest import FED, FeedRead, exit_code, read_feeds, workspace_feeds
from pipelines.instants import Now, utc_now
from pipelines.linking import find_tickers
from pipelines.workspace import Workspace


@dataclass(frozen=True)
class Health:
    """One feed's fetch, and what its items are like; shares and age are None where it gave none."""

    read: FeedRead
    newest_hours: float | None
    dated: float | None
    linked: float | None

    def as_dict(self) -> dict[str, object]:
        """One record of `feeds check --json`."""
        return {
            **self.read.as_dict(),
            "newest_hours": self.newest_hours,
            "dated_share": self.dated,
            "linked_share": self.linked,
        }


@dataclass(frozen=True)
class Checked:
    """Every feed's health, in the order of the configuration."""

    feeds: tuple[Health, ...]

    @property
    def exit_code(self) -> int:
        """As of `ingest`: 0, 3 or 4."""
        return exit_code([health.read for health in self.feeds])

    def as_dict(self) -> dict[str, object]:
        """The contract of `feeds check --json`."""
        return {"feeds": [health.as_dict() for health in self.feeds]}


def check_feeds(workspace: Workspace, clock: Now = utc_now) -> Checked:
    """Fetch every configured feed once, whatever earlier runs left. Raises ConfigError where there is none."""
    feeds, find = workspace_feeds(workspace), find_tickers(workspace)
    reads = asyncio.run(read_feeds(feeds, {}, workspace.config.news.fetch, clock))
    now = clock()
    return Checked(tuple(_health(read, find, now) for read in reads))


def known_feeds() -> list[dict[str, object]]:
    """The catalogue, one record a feed."""
    return [dict(table) for table in catalogue().values()]


def _health(read: FeedRead, find: FindTickers, now: np.datetime64) -> Health:
    if read.outcome not in FED or read.document is None:
        return Health(read, None, None, None)
    rows = live_rows(read.feed, read.document.entries, now)
    items = rows.drop_duplicates("id")
    found = find(items["title"].tolist(), np.full(len(items), now))
    linked = items["ticker"].notna().to_numpy() | np.isin(np.arange(len(items)), found["row"])
    newest = items["published_at"].max()
    age = None if pd.isna(newest) else round((now - newest.to_datetime64()) / np.timedelta64(1, "h"), 2)
    return Health(read, age, float(items["published_at"].notna().mean()), float(linked.mean()))
