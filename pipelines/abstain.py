"""Who is scored at the panel's last session, and why the others are not: each ticker has a forecast or a reason.

A reason begins with one of `not in the universe`, `delisted`, `too short` (which are to be expected), `stale`,
`quarantined` and `not finite` (which are not).
"""

import numpy as np
import numpy.typing as npt

from data.features import FEATURES
from data.invisible import INVISIBLE
from data.panel import Panel
from data.prices.ticker_state import TickerState, read_states
from data.universe import delisted
from data.windows import Samples
from pipelines.dataset import enough, recent_bars
from pipelines.workspace import Workspace

LONGEST = 200  # characters of what a vendor said


def abstentions(
    panel: Panel, workspace: Workspace, lookback: int, recorded_by: np.datetime64
) -> tuple[Samples, dict[str, str], int]:
    """Samples of the panel's last session, why the other tickers have none, and how many belonged to the universe.

    What the vendor said of a ticker counts where it was recorded by `recorded_by` (UTC). Where nobody said who belongs
    (no watchlist, no universe), those that were delisted do not.
    """
    last = len(panel.sessions) - 1
    label = panel.sessions.labels[last]
    member, seen = panel.member[:, last], panel.observed[:, last]
    bars = recent_bars(panel, lookback)[:, last]
    silent = np.zeros(len(panel.tickers), dtype=bool)
    silent[delisted(panel.observed)] = True
    unsound = _unsound(panel, lookback)
    missing = [panel.tickers[row] for row in np.flatnonzero(member & ~seen)]
    states = read_states(workspace.lake, workspace.config.tape.source, missing, recorded_by) if missing else {}
    given = bool(workspace.config.watchlist or workspace.config.universe)
    abstained = {}
    for row in np.flatnonzero(~(member & seen & panel.mask[:, last] & (bars >= enough(lookback)) & ~unsound)):
        ticker = panel.tickers[row]
        if not member[row]:
            abstained[ticker] = f"not in the universe on {label}"
        elif not seen[row]:
            abstained[ticker] = _unseen(label, states.get(ticker), bool(silent[row]), _newest(panel, int(row)))
        elif bars[row] < enough(lookback):
            wanted = f"lookback {lookback}" if bars[row] < lookback else f"{enough(lookback)} needed"
            abstained[ticker] = f"too short: {bars[row]} bars, {wanted}"
        else:
            abstained[ticker] = _not_finite(panel, int(row), lookback)
    tickers = np.array([row for row, ticker in enumerate(panel.tickers) if ticker not in abstained], dtype=np.int64)
    belongs = member if given else member & ~silent
    return Samples(tickers, np.full(len(tickers), last)), abstained, int(belongs.sum())


def _unsound(panel: Panel, lookback: int) -> npt.NDArray[np.bool_]:
    """[N]: tickers with a feature in the newest window that is not finite, or no finite price basis."""
    window = panel.features[:, -lookback:]
    basis = np.isfinite(panel.close[:, -1]) & np.isfinite(panel.unit[:, -1]) & np.isfinite(panel.share_ratio[:, -1])
    return ~(np.isfinite(window).all(axis=(1, 2)) & basis)


def _not_finite(panel: Panel, row: int, lookback: int) -> str:
    first = max(len(panel.sessions) - lookback, 0)
    found = np.argwhere(~np.isfinite(panel.features[row, first:]))
    if not len(found):
        return f"not finite: the price it stands on is {panel.close[row, -1]} (unit {panel.unit[row, -1]})"
    session, feature = found[0]
    value, label = panel.features[row, first + session, feature], panel.sessions.labels[first + session]
    return f"not finite: {FEATURES[feature]} is {value} on {label}"


def _newest(panel: Panel, row: int) -> np.datetime64 | None:
    """The last session with a bar; None where there is none."""
    bars = np.flatnonzero(panel.observed[row])
    return panel.sessions.labels[bars[-1]] if len(bars) else None


def _unseen(label: np.datetime64, state: TickerState | None, silent: bool, newest: np.datetime64 | None) -> str:
    """Why there is no bar of the session, as far as the vendor said."""
    if state is not None and state.outcome == "fed" and state.code and str(label) in state.reason:
        return f"quarantined: {_clean(state.reason)}"
    told = _told(state)
    trouble = state is not None and state.outcome in ("limited", "failed")
    if not trouble and (silent or (state is not None and state.outcome == "ended")):
        return f"delisted: no bar since {newest}{told}" if newest is not None else f"delisted: no bar{told}"
    since = "" if newest is None else f", the last is of {newest}"
    return f"stale: no bar for {label}{since}{told}"


def _told(state: TickerState | None) -> str:
    if state is None or state.outcome == "fed":
        return ""
    since = "" if state.failing_since is None else f" since {state.failing_since.astype('datetime64[s]')}Z"
    return f"; {state.source}: {state.outcome}{since}: {_clean(state.reason or state.code)}"


def _clean(text: str) -> str:
    """On one line, and short: a vendor may say anything."""
    return INVISIBLE.sub("", " ".join(text.split()))[:LONGEST]
