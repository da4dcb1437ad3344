"""One feed's parsed document to rows for the lake. Fetching, parsing and storing are done elsewhere.

A live item is available from when it was first seen, whatever its stamp says; `published_at` is what
the stamp could strictly be read as, and missing where it could not.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from data.news.dates import read_stamp
from data.news.feeds import Feed, FeedConfig
from data.news.identity import identify
from data.news.parse import Entry

COLUMNS = ("id", "title", "summary", "source", "url", "published_at", "published_raw", "precision", "ticker")


def live_rows(feed: Feed, entries: Sequence[Entry], now: np.datetime64) -> pd.DataFrame:
    """One row an item and ticker of the feed (a missing ticker where it names none): `COLUMNS`, UTC.

    Entries of one id are one item. `now` bounds what counts as the future.
    """
    rows = [
        _row(feed.config, name, entry, now) | {"ticker": ticker}
        for name, entry in zip(identify(feed.config.name, entries), entries, strict=True)
        for ticker in feed.tickers or (None,)
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).drop_duplicates(["id", "ticker"], ignore_index=True)
    texts = [name for name in COLUMNS if name != "published_at"]
    return frame.astype(dict.fromkeys(texts, "string")).astype({"published_at": "datetime64[us]"})


def _row(config: FeedConfig, name: str, entry: Entry, now: np.datetime64) -> dict[str, object]:
    stamp = read_stamp(entry.published_raw, config.default_tz, now)
    return {
        "id": name,
        "title": clean_title(config, entry.title),
        "summary": entry.summary,
        "source": config.name,
        "url": entry.url,
        "published_at": stamp.date if stamp.day and np.isnat(stamp.at) else stamp.at,
        "published_raw": entry.published_raw,
        "precision": None if stamp.problem else "day" if stamp.day else "second",
    }


def clean_title(config: FeedConfig, title: str) -> str:
    """`title` without what the feed puts around it; as it was where nothing would be left."""
    cut = title
    for prefix in config.strip_prefixes:
        cut = cut.removeprefix(prefix)
    if config.strip_after and config.strip_after in cut:
        cut = cut[: cut.rindex(config.strip_after)]
    return cut.strip() or title
