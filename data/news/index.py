"""Headlines by the decision they first inform: compressed rows (CSR) over tickers x sessions.

A version of a headline stands in the one session whose decision was the first to know it and its
link; an edit stands again in the session that first knew the edit. Nothing is moved afterwards.
Headlines without a ticker form a second index, one row a session, shared by all tickers.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.calendar import Sessions
from data.packing import naive_utc
from data.text import normalise_all

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cells:
    """Entries `start[c]:start[c+1]` are cell c's headlines, oldest first: row of `texts`, and session."""

    start: Ints
    text: Ints
    session: Ints


@dataclass(frozen=True)
class NewsIndex:
    """`own` has a cell a ticker and session (c = ticker * S + session), `market` a cell a session.

    `texts` are the distinct normalised titles that the entries point into.
    """

    texts: tuple[str, ...]
    own: Cells
    market: Cells

    def __len__(self) -> int:
        return len(self.own.text) + len(self.market.text)


def build_news(
    headlines: pd.DataFrame, links: pd.DataFrame, tickers: tuple[str, ...], sessions: Sessions, most: int
) -> NewsIndex:
    """Index all versions of `headlines` for `tickers`; a cell keeps its newest `most` distinct texts.

    Within a cell an edited headline counts once, in its last version.
    """
    linked = headlines.merge(links[["id", "ticker", "available_at"]], on="id", suffixes=("", "_link"))
    linked["available_at"] = linked[["available_at", "available_at_link"]].max(axis=1)
    alone = headlines[~_linked_in_time(headlines, links, sessions)]
    own = _entries(linked, pd.Index(tickers).get_indexer(pd.Index(linked["ticker"])), sessions, most)
    market = _entries(alone, np.zeros(len(alone), dtype=np.int64), sessions, most)
    codes, texts = pd.factorize(pd.concat([own["text"], market["text"]], ignore_index=True))
    return NewsIndex(
        texts=tuple(texts),
        own=_cells(own, codes[: len(own)], len(tickers) * len(sessions)),
        market=_cells(market, codes[len(own) :], len(sessions)),
    )


def _linked_in_time(headlines: pd.DataFrame, links: pd.DataFrame, sessions: Sessions) -> npt.NDArray[np.bool_]:
    """Which headlines had a ticker at their first decision. A link that came later takes nothing out of the past."""
    earliest = links.groupby("id", as_index=False)["available_at"].min()
    first_link = headlines[["id"]].merge(earliest, on="id", how="left")["available_at"]
    first = sessions.first_informed(naive_utc(headlines["available_at"]))
    return first_link.notna().to_numpy() & (sessions.first_informed(naive_utc(first_link)) <= first)


def _entries(headlines: pd.DataFrame, ticker: npt.NDArray[np.int64], sessions: Sessions, most: int) -> pd.DataFrame:
    """One row an entry, by cell and within it by time."""
    session = sessions.first_informed(naive_utc(headlines["available_at"]))
    rows = headlines[["id", "version", "available_at", "title"]].assign(
        cell=ticker * len(sessions) + session, session=session
    )
    rows = rows[(ticker >= 0) & (session >= 0) & (session < len(sessions))]
    rows = rows.sort_values(["cell", "available_at", "id", "version"], ignore_index=True)
    rows = rows.drop_duplicates(["cell", "id"], keep="last")
    rows["text"] = normalise_all(rows["title"])
    rows = rows.drop_duplicates(["cell", "text"], keep="first")
    return rows.groupby("cell").tail(most).reset_index(drop=True)


def _cells(entries: pd.DataFrame, text: npt.NDArray[np.int64], cells: int) -> Cells:
    counts = np.bincount(entries["cell"].to_numpy(dtype=np.int64), minlength=cells)
    start = np.concatenate([[0], np.cumsum(counts)])
    return Cells(start.astype(np.int64), text.astype(np.int64), entries["session"].to_numpy(dtype=np.int64))
