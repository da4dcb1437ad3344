"""What became of each forecast: its target's return once the session is over, kept beside it and never changed.

The return is the panel's own label, so it is what the model would have been trained on: the total return into the
target session as the decision that follows it knew it. A forecast is settled once; a bar that is restated later
changes nothing. Every forecast is settled, late ones, replays and in-sample ones too: the card tells them apart.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.asof import known
from data.calendar import Sessions, sessions
from data.lake import Lake
from data.news.index import Cells, NewsIndex
from data.panel import Panel, build_unchecked
from data.scan import Span
from data.schemas import KEYS, SCHEMAS
from pipelines.dataset import BAR_COLUMNS, session_of
from pipelines.scorecard.seal import read_seals, seal_for
from pipelines.workspace import Workspace

PATIENCE = 10  # sessions that a bar is waited for
KEY = list(KEYS["forecasts"])


@dataclass(frozen=True)
class Settled:
    """What stands settled by one night, and how many forecasts still wait for a bar. `added` is this call's part."""

    night: np.datetime64
    settled: int
    missing: int
    delisted: int
    waiting: int
    added: int

    def as_dict(self) -> dict[str, object]:
        """JSON-ready, and the same whichever call settled: what stands, without `added`."""
        stands = {name: value for name, value in vars(self).items() if name != "added"}
        return {**stands, "night": str(self.night)}


def settle(workspace: Workspace, night: np.datetime64, recorded_by: np.datetime64, now: np.datetime64) -> Settled:
    """Settle every forecast whose target session is over by `night` (a session) and whose return is known.

    Known means: at the decision that follows `night`, in rows recorded by `recorded_by` (UTC). A bar that does not
    come is waited for `PATIENCE` sessions; then the forecast is "missing", or "delisted" where the vendor says that
    the ticker has ended, with what was paid out for it where that is known. Rows are stamped `now` (UTC). Again with
    the same arguments it adds nothing, and nor does a night that is sealed: what it left open is the next night's.
    Raises LakeError where a later night is sealed and this one is not.
    """
    lake, config = workspace.lake, workspace.config
    exchange = sessions(config.calendar, config.decision)
    at = session_of(exchange, night)
    night = exchange.labels[at]
    sealed = seal_for(read_seals(lake), night)
    open_rows = _unsettled(lake, night)
    added, waiting = 0, len(open_rows)
    if len(open_rows) and sealed is None:
        decision_at = exchange.decision_at[at]
        read = partial(_read, lake, decision_at=decision_at, recorded_by=recorded_by)
        judged = _judge(open_rows, exchange, at, read)
        waiting = int((judged["outcome"] == "").sum())
        ready = judged[judged["outcome"] != ""]
        added = lake.merge("settlements", _rows(ready, night, now))
    outcomes = lake.frame("settlements", ["outcome"], Span("night", night, night))["outcome"].value_counts()
    counted = {name: int(outcomes.get(name, 0)) for name in ("settled", "missing", "delisted")}
    return Settled(night, **counted, waiting=waiting, added=added)


def _unsettled(lake: Lake, night: np.datetime64) -> pd.DataFrame:
    """The forecasts up to `night` without a settlement: key, target and standing.

    Which sessions have any is told by two columns of dates; only those sessions' rows are read.
    """
    by_night = Span("target_session", last=night)
    made, done = (
        lake.frame(table, ["target_session"], by_night)["target_session"].value_counts()
        for table in ("forecasts", "settlements")
    )
    behind = made.index[made > done.reindex(made.index, fill_value=0)].sort_values()
    names = [*KEY, "target", "standing"]
    if not len(behind):
        return lake.frame("forecasts", names, Span("target_session", night, night)).iloc[:0]
    span = Span("target_session", *behind[[0, -1]].to_numpy(dtype="datetime64[D]"))
    rows = lake.frame("forecasts", names, span)
    rows = rows[rows["target_session"].isin(behind)].drop_duplicates(KEY)
    if done.reindex(behind).notna().any():
        settled = lake.frame("settlements", KEY, span)
        rows = rows[~pd.MultiIndex.from_frame(rows[KEY]).isin(pd.MultiIndex.from_frame(settled))]
    return rows.sort_values(KEY, ignore_index=True)


def _judge(rows: pd.DataFrame, exchange: Sessions, at: int, read: Any) -> pd.DataFrame:
    """`rows` with `realised` and `outcome`, "" where it is still waited for.

    A target session that `exchange` does not have, as of a calendar that was left since, has no return.
    """
    over = exchange.first_from(rows["target_session"])
    first = max(int(over.min()) - 2, 0)  # the session before the forecast's own: a return needs the bar before
    tickers = tuple(sorted(rows["ticker"].unique()))
    within = Span("session", exchange.labels[first], exchange.labels[at])
    bars = read("bars", BAR_COLUMNS, within, tickers)
    actions = read("actions", list(SCHEMAS["actions"].names))
    span = exchange.between(within.first, within.last)
    panel = build_unchecked(tickers, span, bars, actions, _no_news(len(tickers), len(span)))
    realised = _labels(panel, rows)
    late = at - over >= PATIENCE
    outcome = np.where(np.isfinite(realised), "settled", np.where(late, "missing", ""))
    if (outcome == "missing").any():
        ended = np.isin(rows["ticker"].to_numpy(dtype=str), _ended(read)) & (outcome == "missing")
        realised = np.where(ended, _payouts(rows, panel, actions, ended), realised)
        outcome = np.where(ended, "delisted", outcome)
    return rows.assign(realised=np.where(np.isfinite(realised), realised, np.nan), outcome=outcome)


def _read(
    lake: Lake,
    table: str,
    columns: list[str],
    within: Span | None = None,
    firsts: tuple[str, ...] = (),
    *,
    decision_at: np.datetime64,
    recorded_by: np.datetime64,
) -> pd.DataFrame:
    """Rows known at the decision and recorded by then, all versions."""
    rows = lake.coded(table, list(dict.fromkeys([*columns, "available_at", "recorded_at"])), firsts, within)
    return rows[known(rows["available_at"], decision_at) & known(rows["recorded_at"], recorded_by)]


def _no_news(tickers: int, span: int) -> NewsIndex:
    """Returns need none."""
    none = np.empty(0, dtype=np.int64)
    empty = (Cells(np.zeros(cells + 1, dtype=np.int64), none, none, none[:, None]) for cells in (tickers * span, span))
    return NewsIndex((), *empty)


def _labels(panel: Panel, rows: pd.DataFrame) -> npt.NDArray[np.float64]:
    """The return of each row's target into its target session; NaN where it is not known."""
    ticker = pd.Index(panel.tickers).get_indexer(pd.Index(rows["ticker"]))
    before = panel.sessions.index(rows["target_session"]) - 1
    found = np.full(len(rows), np.nan)
    for target in rows["target"].unique():
        of_target = ((rows["target"] == target) & (before >= 0)).to_numpy(dtype=bool)
        found[of_target] = panel.labels[target][ticker[of_target], before[of_target]]
    return found


def _ended(read: Any) -> list[str]:
    """The tickers of which every vendor that was asked says that they have ended."""
    states = read("tickers", ["ticker", "source", "version", "outcome"])
    states = states.sort_values("version").drop_duplicates(["ticker", "source"], keep="last")
    ended = (states["outcome"] == "ended").groupby(states["ticker"].astype(str)).all()
    return [str(ticker) for ticker in ended.index[ended]]


def _payouts(
    rows: pd.DataFrame, panel: Panel, actions: pd.DataFrame, ended: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Log return of the cash that went ex after the last close, as CRSP's delisting returns; NaN where none is known.

    It closes a position held overnight; one that would have been opened in the session was never entered.
    """
    newest = actions.sort_values("version").drop_duplicates(["ticker", "ex_date", "kind"], keep="last")
    found = np.full(len(rows), np.nan)
    for row in np.flatnonzero(ended & (rows["target"] != "open_close").to_numpy(dtype=bool)):
        ticker, target_session = rows["ticker"].iloc[row], rows["target_session"].iloc[row]
        after = newest[(newest["ticker"] == ticker).to_numpy(dtype=bool) & (newest["ex_date"] >= target_session)]
        cash, splits = (after.loc[(after["kind"] == kind).to_numpy(dtype=bool)] for kind in ("dividend", "split"))
        before = int(panel.sessions.first_from(target_session)) - 1
        close = panel.close[panel.tickers.index(ticker), before]
        if splits.empty and cash["value"].sum() > 0 and close > 0:
            found[row] = np.log(cash["value"].sum() / close)
    return found


def _rows(ready: pd.DataFrame, night: np.datetime64, now: np.datetime64) -> pd.DataFrame:
    stamp = pd.Timestamp(now, tz="UTC")
    return ready.assign(
        night=night.astype("datetime64[s]"),
        available_at=stamp,
        recorded_at=stamp,
        origin=np.where(ready["standing"] == "live", "live", "backfill"),
    )
