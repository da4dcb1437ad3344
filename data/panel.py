"""The panel: what was known at each decision, as arrays over tickers x sessions.

A row (ticker, session s) is computed once, from the bars, actions and headlines known at decision(s),
and never rewritten: a bar that came late for s stays masked in s, a restatement changes rows from the
first decision that knew it. Windows gather such rows. Labels are the returns into the next session,
as its own decision knew them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data import features as bar_features
from data.calendar import Sessions
from data.errors import LakeError
from data.features import CROSS_SECTIONAL, FEATURES, SMALLEST_UNIT, UNIT_DECAY, WARM_UP, returns
from data.news.index import NewsIndex
from data.packing import Array, Ints, Rows, action_rows, bar_rows, naive_utc, pack, positions

TARGETS = {"close_close": "total", "overnight": "overnight", "open_close": "intraday"}


@dataclass(frozen=True)
class Panel:
    """Arrays [N tickers, S sessions, ...].

    `features` are unscaled, zero where `mask` is False. `observed` marks bars known at their own
    decision, `mask` those past the warm-up, whose features count. `unit` (daily volatility), `close`
    (on the share basis of its session) and `labels` (log total returns from s to s+1, by target) are
    NaN where unknown. `share_ratio` is target-session shares per share, by splits known at the decision.
    """

    tickers: tuple[str, ...]
    sessions: Sessions
    features: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    observed: npt.NDArray[np.bool_]
    unit: Array
    close: Array
    share_ratio: Array
    labels: dict[str, Array]
    news: NewsIndex

    @property
    def history(self) -> Ints:
        """Bars observed up to and including each session, [N, S]."""
        return np.cumsum(self.observed, axis=1)


@dataclass(frozen=True)
class _Grid:
    """What is filled in as decisions pass, [N, S, ...]; NaN (position -1) where nothing is known."""

    features: Array
    total: Array
    overnight: Array
    intraday: Array
    unit: Array
    close: Array
    position: Ints

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> "_Grid":
        total, overnight, intraday, unit, close = (np.full(shape, np.nan) for _ in range(5))
        features = np.full((*shape, len(FEATURES)), np.nan)
        return cls(features, total, overnight, intraday, unit, close, np.full(shape, -1))


def build_panel(
    tickers: tuple[str, ...], sessions: Sessions, bars: pd.DataFrame, actions: pd.DataFrame, news: NewsIndex
) -> Panel:
    """The panel of `tickers` over `sessions`, from all versions of their bars and actions.

    A ticker without bars has an all-masked row. Raises LakeError where a feature is not finite.
    """
    tape = [
        bar_rows(bars, tickers, sessions),
        action_rows(actions, "split", tickers, sessions),
        action_rows(actions, "dividend", tickers, sessions),
    ]
    grid = _Grid.empty((len(tickers), len(sessions)))
    _fill(grid, tape, 0, np.arange(len(tickers)))
    for since in np.unique(np.concatenate([rows.known[rows.late] for rows in tape])):
        learned = [rows.ticker[rows.late & (rows.known == since)] for rows in tape]
        _fill(grid, tape, int(since), np.unique(np.concatenate(learned)))
    _compare_with_market(grid)
    observed = ~np.isnan(grid.close)
    mask = observed & (grid.position >= WARM_UP)
    _refuse_non_finite(grid.features, mask, tickers, sessions)
    return Panel(
        tickers=tickers,
        sessions=sessions,
        features=np.where(mask[:, :, None], grid.features, 0).astype(np.float32),
        mask=mask,
        observed=observed,
        unit=grid.unit,
        close=grid.close,
        share_ratio=_share_ratio(actions, tickers, sessions),
        labels={target: _into_next(getattr(grid, leg), observed) for target, leg in TARGETS.items()},
        news=news,
    )


def _fill(grid: _Grid, tape: list[Rows], since: int, tickers: Ints) -> None:
    """Compute the rows of `tickers` for the decisions from `since` on, by what `since` knew in time or late."""
    bars, splits, dividends = (rows.as_known(since, tickers) for rows in tape)
    if len(bars.ticker) == 0:
        return
    packed = pack(bars, splits, dividends, tickers)
    moves = returns(packed)
    later = bars.session >= since
    source = (np.searchsorted(tickers, bars.ticker[later]), positions(bars)[later])
    where = (bars.ticker[later], bars.session[later])
    grid.features[..., :-CROSS_SECTIONAL][where] = bar_features.features(packed, moves)[source]
    grid.close[where] = packed.close[source]
    grid.position[where] = source[1]
    for leg in ("total", "overnight", "intraday", "unit"):
        getattr(grid, leg)[where] = getattr(moves, leg)[source]


def _compare_with_market(grid: _Grid) -> None:
    """The last two features: the session's mean return over all tickers, and the ticker's against it."""
    seen = ~np.isnan(grid.total)
    market = np.where(seen, grid.total, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    grid.features[..., -2] = market / _market_unit(market)
    grid.features[..., -1] = (grid.total - market) / grid.unit


def _market_unit(market: Array) -> Array:
    variance, weight = 0.0, 0.0
    units = np.empty_like(market)
    for session, move in enumerate(market):
        variance = UNIT_DECAY * variance + (1 - UNIT_DECAY) * move**2
        weight = UNIT_DECAY * weight + (1 - UNIT_DECAY)
        units[session] = max(np.sqrt(variance / weight), SMALLEST_UNIT)
    return units


def _into_next(moves: Array, observed: npt.NDArray[np.bool_]) -> Array:
    """Label of s: the move into s+1, where both bars were observed; NaN in the last session."""
    label = np.full(moves.shape, np.nan)
    both = observed[:, :-1] & observed[:, 1:]
    label[:, :-1] = np.where(both, moves[:, 1:], np.nan)
    return label


def _share_ratio(actions: pd.DataFrame, tickers: tuple[str, ...], sessions: Sessions) -> Array:
    splits = actions[(actions["kind"] == "split").to_numpy(dtype=bool)].sort_values("version")
    ticker = pd.Index(tickers).get_indexer(pd.Index(splits["ticker"]))
    ex_date = splits["ex_date"].to_numpy(dtype="datetime64[D]")
    before = np.searchsorted(sessions.target, ex_date)
    known = sessions.first_informed(naive_utc(splits["available_at"]))
    known_before = (ticker >= 0) & (before < len(sessions)) & (known <= before) & (ex_date > sessions.labels[0])
    found = pd.DataFrame({"ticker": ticker, "before": before, "ex_date": ex_date, "ratio": splits["value"].to_numpy()})
    newest = found[known_before].drop_duplicates(["ticker", "ex_date"], keep="last")
    ratio = np.ones((len(tickers), len(sessions)))
    np.multiply.at(ratio, (newest["ticker"].to_numpy(), newest["before"].to_numpy()), newest["ratio"].to_numpy())
    return ratio


def _refuse_non_finite(values: Array, mask: Any, tickers: tuple[str, ...], sessions: Sessions) -> None:
    bad = np.argwhere(mask[:, :, None] & ~np.isfinite(values))
    if len(bad):
        ticker, session, feature = bad[0]
        raise LakeError(
            f"{tickers[ticker]} on {sessions.labels[session]}: expected finite features, found "
            f"{FEATURES[feature]} = {values[ticker, session, feature]} ({len(bad)} such). Look at its bars with "
            f"`tapewire bars {tickers[ticker]}`."
        )
