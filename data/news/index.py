"""Headlines by the decision they first inform: compressed rows (CSR) over tickers x sessions.

An entry is a piece of news, not a copy of it: near-duplicates within 72 hours form one cluster, online
(`data/news/clusters.py`), which stands once for a ticker, in the session whose decision first knew a
copy that names it, by the text of its first copy: its title, or title and summary. How many copies were
out is an attribute that grows with each decision. An edit that says something else is a cluster of its
own. Nothing is moved afterwards. Clusters without a ticker form a second index, one row a session,
shared by all tickers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.calendar import Sessions
from data.news.clusters import cluster
from data.packing import naive_utc
from data.text import READS, row_texts

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cells:
    """Entries `start[c]:start[c+1]` are cell c's news, oldest first: row of `texts`, session and copies.

    `copies[e, a]` counts the items in entry e's cluster that were known at the decision a sessions after
    its own; the last column stands for all later ones.
    """

    start: Ints
    text: Ints
    session: Ints
    copies: Ints


@dataclass(frozen=True)
class NewsIndex:
    """`own` has a cell a ticker and session (c = ticker * S + session), `market` a cell a session.

    `texts` are the distinct normalised texts that the entries point into.
    """

    texts: tuple[str, ...]
    own: Cells
    market: Cells

    def __len__(self) -> int:
        return len(self.own.text) + len(self.market.text)


def build_news(
    headlines: pd.DataFrame,
    links: pd.DataFrame,
    tickers: tuple[str, ...],
    sessions: Sessions,
    most: int,
    ages: int,
    reads: str = "title",
) -> NewsIndex:
    """Index all versions of `headlines` for `tickers`; a cell keeps the `most` newest of its entries.

    Copies are counted for each of the `ages` decisions from an entry's own on. `reads` names the columns
    that make an entry's text, see `data.text.READS`; what is a copy is judged by titles whatever is read.
    """
    known = _clustered(headlines, sessions, READS[reads])
    linked = known.merge(links[["id", "ticker", "available_at"]], on="id", suffixes=("", "_link"))
    linked["available_at"] = linked[["available_at", "available_at_link"]].max(axis=1)
    linked["session"] = sessions.first_informed(naive_utc(linked["available_at"]))
    own_row = pd.Index(tickers).get_indexer(pd.Index(linked["ticker"]))
    own = _entries(linked, own_row, sessions, most)
    alone = known[~_named_in_time(known, linked)]
    market = _entries(alone, np.zeros(len(alone), dtype=np.int64), sessions, most)
    codes, texts = pd.factorize(pd.concat([own["text"], market["text"]], ignore_index=True))
    copies = _Copies(known, len(sessions), ages)
    return NewsIndex(
        texts=tuple(texts),
        own=_cells(own, codes[: len(own)], len(tickers) * len(sessions), copies),
        market=_cells(market, codes[len(own) :], len(sessions), copies),
    )


def _clustered(headlines: pd.DataFrame, sessions: Sessions, columns: Sequence[str]) -> pd.DataFrame:
    """Every version with the cluster it joined, the text of that cluster and the session that first knew it.

    The text is that of the cluster's first row, a later summary as little as a later title.
    """
    rows = headlines[["id", "version", "available_at", *columns]]
    rows = rows.sort_values(["available_at", "id", "version"], ignore_index=True)
    available_at = naive_utc(rows["available_at"])
    first = cluster(rows["title"].tolist(), available_at, rows["id"].tolist())
    texts = row_texts(*(rows[column].to_numpy()[first] for column in columns))
    return rows.assign(cluster=first, text=texts, session=sessions.first_informed(available_at))


def _named_in_time(known: pd.DataFrame, linked: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Which versions were, at their first decision, news of a ticker. A later link takes nothing out of the past."""
    earliest = linked.groupby("cluster")["session"].min()
    named = known["cluster"].map(earliest)
    in_time: npt.NDArray[np.bool_] = (named <= known["session"]).to_numpy()
    return in_time


def _entries(rows: pd.DataFrame, ticker: npt.NDArray[np.int64], sessions: Sessions, most: int) -> pd.DataFrame:
    """One row an entry, by cell and within it by time."""
    entries = rows.assign(ticker=ticker, cell=ticker * len(sessions) + rows["session"])
    entries = entries[ticker >= 0].sort_values(["cell", "available_at", "id", "version"], ignore_index=True)
    entries = entries.drop_duplicates(["ticker", "cluster"], keep="first")
    entries = entries[entries["session"].between(0, len(sessions) - 1)]
    return entries.groupby("cell").tail(most).reset_index(drop=True)


class _Copies:
    """How many items of a cluster had been published by a decision. An edited item is one item."""

    def __init__(self, known: pd.DataFrame, sessions: int, ages: int) -> None:
        items = known.drop_duplicates(["cluster", "id"])
        self.sessions, self.ages = sessions, np.arange(ages)
        # Session -1 stands for all before the first decision here.
        self.keys = np.sort(self._key(items["cluster"].to_numpy(), items["session"].to_numpy()))

    def _key(self, cluster: Ints, session: Ints) -> Ints:
        key: Ints = cluster * (self.sessions + 2) + session + 1
        return key

    def of(self, cluster: Ints, session: Ints) -> Ints:
        """[E, ages]."""
        at = np.minimum(session[:, None] + self.ages, self.sessions - 1)
        before = np.searchsorted(self.keys, self._key(cluster, np.full_like(session, -1)), side="left")
        counts: Ints = np.searchsorted(self.keys, self._key(cluster[:, None], at), side="right") - before[:, None]
        return counts


def _cells(entries: pd.DataFrame, text: npt.NDArray[np.int64], cells: int, copies: _Copies) -> Cells:
    counts = np.bincount(entries["cell"].to_numpy(dtype=np.int64), minlength=cells)
    start = np.concatenate([[0], np.cumsum(counts)])
    session = entries["session"].to_numpy(dtype=np.int64)
    which = entries["cluster"].to_numpy(dtype=np.int64)
    return Cells(start.astype(np.int64), text.astype(np.int64), session, copies.of(which, session))
