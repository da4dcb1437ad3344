"""`tapewire ingest --news`: every feed fetched, parsed, dated, linked and stored, once.

Made to be run unattended and often: what is stored already is left as it is, a killed run is completed
by the next one, and no feed can hold up or spoil another. A feed's validators are stored after its
items, so that nothing is skipped that was never stored.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from data.asof import known
from data.errors import ConfigError
from data.news.feed_state import FeedState, read_states, store_states
from data.news.feeds import TICKER, Feed, expand
from data.news.fetch import FetchConfig, Fetcher, Request, Response
from data.news.parse import Document, ParserPool
from data.news.store import Stored, store_live
from data.news.wire import live_rows
from pipelines.instants import Now, utc_now
from pipelines.linking import find_tickers
from pipelines.workspace import Workspace

Outcome = Literal["fed", "unchanged", "suspect", "limited", "gone", "failed"]
FED: tuple[Outcome, ...] = ("fed", "unchanged")


@dataclass(frozen=True)
class FeedRead:
    """How one feed's fetch ended, and the items it gave."""

    feed: Feed
    outcome: Outcome
    reason: str
    document: Document | None
    state: FeedState

    def as_dict(self) -> dict[str, object]:
        """One record of `ingest --json`; `entries` counts the items of the document."""
        return {
            "name": self.feed.label,
            "url": self.feed.url,
            "outcome": self.outcome,
            "reason": self.reason,
            "entries": len(self.document.entries) if self.document else 0,
        }


@dataclass(frozen=True)
class Ingested:
    """What a run did: each feed's outcome, in the order of the configuration, and the new rows."""

    feeds: tuple[FeedRead, ...]
    stored: Stored

    @property
    def fed(self) -> int:
        """How many feeds were read, the unchanged ones included."""
        return sum(read.outcome in FED for read in self.feeds)

    @property
    def exit_code(self) -> int:
        """0 all fed, 3 some were not, 4 none was."""
        return exit_code(self.feeds)

    def as_dict(self) -> dict[str, object]:
        """The contract of `ingest --json`."""
        return {
            "feeds": [read.as_dict() for read in self.feeds],
            "fed": self.fed,
            "added": self.stored.headlines,
            "links_added": self.stored.links,
        }


def exit_code(feeds: Sequence[FeedRead]) -> int:
    """0 where all were fed, 3 where some were not, 4 where none was. Unchanged counts as fed."""
    fed = sum(read.outcome in FED for read in feeds)
    return 0 if fed == len(feeds) else 3 if fed else 4


def ingest_news(workspace: Workspace, clock: Now = utc_now) -> Ingested:
    """Read every configured feed once and store what is new, as first seen when all had been read.

    Raises ConfigError where no feed is configured, LockedError where another run is at it.
    """
    feeds = workspace_feeds(workspace)
    with workspace.lock("ingest"):
        reads = asyncio.run(read_feeds(feeds, read_states(workspace.lake), workspace.config.news.fetch, clock))
        seen_at = clock()  # not before: what was published meanwhile was not known at the start
        rows = [live_rows(read.feed, read.document.entries, seen_at) for read in reads if read.document]
        stored = Stored(0, 0)
        if rows:
            stored = store_live(workspace.lake, pd.concat(rows, ignore_index=True), seen_at, find_tickers(workspace))
        store_states(workspace.lake, (read.state for read in reads), seen_at)
    return Ingested(tuple(reads), stored)


def workspace_feeds(workspace: Workspace) -> tuple[Feed, ...]:
    """Every address to read. Raises ConfigError where there is none."""
    configs = workspace.config.news.feeds
    if not configs:
        raise ConfigError(
            f"{workspace.folder / 'tapewire.toml'}: expected feeds to read, found none. Add a table "
            '[[news.feeds]] with name = "yahoo", say; `tapewire feeds list` prints the known ones.'
        )
    tickers: Sequence[str] = workspace.config.watchlist
    if not tickers and any(TICKER in config.url for config in configs):
        tickers = sorted(workspace.lake.frame("bars", ["ticker"])["ticker"].unique())
    return expand(configs, tickers)


async def read_feeds(
    feeds: Sequence[Feed], states: Mapping[tuple[str, str], FeedState], limits: FetchConfig, clock: Now
) -> list[FeedRead]:
    """Fetch and parse every feed, side by side; how each ended, in the same order. Stores nothing."""
    fetcher, now = Fetcher(limits, clock=clock), clock()
    before = [
        states.get((feed.config.name, feed.url)) or FeedState(feed.config.name, feed.url, "failed", "never fetched")
        for feed in feeds
    ]
    async with ParserPool() as pool:
        return await asyncio.gather(
            *(_read(feed, last, fetcher, pool, now) for feed, last in zip(feeds, before, strict=True))
        )


async def _read(feed: Feed, before: FeedState, fetcher: Fetcher, pool: ParserPool, now: np.datetime64) -> FeedRead:
    waiting = _waiting(before, now)
    if waiting:
        return FeedRead(feed, before.outcome, waiting, None, before)
    request = Request(feed.url, before.etag, before.last_modified, feed.config.allow_private)
    response = await fetcher.fetch(request)
    if response.outcome == "unchanged":
        state = replace(before, outcome="fed", reason=before.reason if before.outcome == "fed" else "", retry_at=None)
        return FeedRead(feed, "unchanged", "", None, state)
    if response.outcome != "fetched":
        state = replace(before, outcome=response.outcome, reason=response.reason, retry_at=response.retry_at)
        return FeedRead(feed, response.outcome, response.reason, None, state)
    return _judged(feed, before, response, await pool.parse(response.body, response.content_type, response.url))


def _waiting(before: FeedState, now: np.datetime64) -> str:
    """Why a feed is not to be asked now, or nothing: its server said when to come back, or that it is gone."""
    if before.outcome == "gone":
        return f"{before.reason}; mend its url or remove it"
    if before.retry_at is not None and not known([before.retry_at], now)[0]:
        return f"asked to wait until {before.retry_at.astype('datetime64[s]')}Z"
    return ""


def _judged(feed: Feed, before: FeedState, response: Response, document: Document) -> FeedRead:
    """Only a document read in full leaves its validators: any other is to be asked for again."""
    reason = document.problem or document.remark or ""
    if document.suspect or (document.problem and not document.entries):
        outcome: Literal["suspect", "failed"] = "suspect" if document.suspect else "failed"
        state = replace(before, outcome=outcome, reason=reason, retry_at=None)
        return FeedRead(feed, outcome, reason, None, state)
    fed = replace(before, outcome="fed", reason=reason, retry_at=None)
    if document.problem is None:
        fed = replace(fed, etag=response.etag, last_modified=response.last_modified)
    return FeedRead(feed, "fed", reason, document, fed)
