"""The hash of all that a forecast was computed from: what tells whether it would come out the same again.

Of the inputs as they are read, never of how and where the lake stores them, nor of which other tickers are scored but
for what they do to the features themselves. The model is not in it: it has an id of its own.
"""

from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from data.news.index import Cells
from data.panel import Panel
from data.windows import Samples

Ints = npt.NDArray[np.int64]


def data_versions(panel: Panel, rows: Samples, lookback: int, news_window: int) -> list[str]:
    """For each sample the hash, 24 hex digits, of its features and mask, its price basis, and its and the market's
    headlines with their ages and copies.
    """
    first = np.maximum(rows.session - lookback + 1, 0).tolist()
    basis = np.stack([part[rows.ticker, rows.session] for part in (panel.close, panel.unit, panel.share_ratio)], axis=1)
    own = _ends(panel.news.own, rows.ticker * len(panel.sessions), rows.session, news_window)
    nothing = np.zeros_like(rows.ticker)
    market = _ends(panel.news.market, nothing, rows.session, news_window)
    of_market = {
        (session, low, high): _headlines(panel, panel.news.market, session, low, high)
        for session, low, high in set(zip(rows.session.tolist(), *market, strict=True))
    }
    hashes = []
    for row, (ticker, session) in enumerate(zip(rows.ticker.tolist(), rows.session.tolist(), strict=True)):
        window = slice(first[row], session + 1)
        digest = blake2b(np.ascontiguousarray(panel.features[ticker, window]).data, digest_size=12)
        digest.update(np.ascontiguousarray(panel.mask[ticker, window]).data)
        digest.update(basis[row].data)
        digest.update(_headlines(panel, panel.news.own, session, own[0][row], own[1][row]))
        digest.update(b"\x1d")
        digest.update(of_market[session, market[0][row], market[1][row]])
        digest.update(b"\x1d")
        hashes.append(digest.hexdigest())
    return hashes


def _ends(cells: Cells, line: Ints, session: Ints, news_window: int) -> tuple[list[int], list[int]]:
    """Where the entries of each sample's window begin and end; `line` is the cell of its ticker's session 0."""
    low = cells.start[line + np.maximum(session - news_window + 1, 0)]
    return low.tolist(), cells.start[line + session + 1].tolist()


def _headlines(panel: Panel, cells: Cells, session: int, low: int, high: int) -> bytes:
    """What a sample of `session` reads of the entries from `low` to `high` (excluded)."""
    if low == high:
        return b""
    age = session - cells.session[low:high]
    copies = cells.copies[np.arange(low, high), age]
    entries = zip(age.tolist(), copies.tolist(), cells.text[low:high].tolist(), strict=True)
    return "".join(f"\x1e{age}\x1f{copies}\x1f{panel.news.texts[text]}" for age, copies, text in entries).encode()
