"""The panel: what was known at each decision, as arrays over tickers x sessions.

A row (ticker, session s) is computed once, from the bars, actions and headlines known at decision(s),
and never rewritten: a bar that came late for s stays masked in s, a restatement changes rows from the
first decision that knew it. Windows gather such rows. Labels are the returns into the next session,
as its own decision knew them.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pandas as pd

from data import features as bar_features
from data.adjust import SMALLEST_UNIT, UNIT_DECAY, returns
from data.calendar import Sessions
from data.errors import LakeError
from data.features import FEATURES, WARM_UP
from data.news.index import NewsIndex
from data.packing import Array, Ints, Rows, Tape, action_rows, naive_utc, pack, places
from data.universe import Universe

TARGETS = {"close_close": "total", "overnight": "overnight", "open_close": "intraday"}

BLOCK = 8  # tickers at a time: what is computed for them fits into a processor's cache


@dataclass(frozen=True)
class Panel:
    """Arrays [N tickers, S sessions, ...].

    `features` are unscaled, zero where `mask` is False. `observed` marks bars known at their own
    decision, `mask` those past the warm-up, whose features count. `unit` (daily volatility), `close`
    (on the share basis of its session) and `labels` (log total returns from s to s+1, by target) are
    NaN where unknown. `share_ratio` is target-session shares per share, by splits known at the decision.
    `member` marks who belonged to the universe: the market is theirs, and others are neither trained on nor scored.
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
    member: npt.NDArray[np.bool_]

    @property
    def history(self) -> Ints:
        """Bars observed up to and including each session, [N, S]."""
        return np.cumsum(self.observed, axis=1)


@dataclass(frozen=True)
class _Grid:
    """What is filled in as decisions pass, [N, S, ...]; NaN (False, 0) where nothing is known."""

    features: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    total: Array
    overnight: Array
    intraday: Array
    unit: Array
    close: Array

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> "_Grid":
        features, mask = np.zeros((*shape, len(FEATURES)), np.float32), np.zeros(shape, bool)
        return cls(features, mask, *(np.full(shape, np.nan) for _ in range(5)))

    def of(self, tickers: slice) -> "_Grid":
        """The part of some tickers; what is filled in there is filled in here."""
        return _Grid(*(getattr(self, field.name)[tickers] for field in fields(self)))


def build_panel(
    tickers: tuple[str, ...],
    sessions: Sessions,
    bars: pd.DataFrame,
    actions: pd.DataFrame,
    news: NewsIndex,
    universe: Universe | None = None,
) -> Panel:
    """The panel of `tickers` over `sessions`, from all versions of their bars and actions.

    Without a `universe` all belong always. A ticker without bars has an all-masked row. Raises LakeError where a
    feature is not finite.
    """
    panel, bad = _assemble(tickers, sessions, bars, actions, news, universe)
    if any(bad):
        _refuse_non_finite(panel, sum(bad))
    return panel


def build_unchecked(
    tickers: tuple[str, ...],
    sessions: Sessions,
    bars: pd.DataFrame,
    actions: pd.DataFrame,
    news: NewsIndex,
    universe: Universe | None = None,
) -> Panel:
    """`build_panel` that leaves features that are not finite where they are: the caller must leave out their rows."""
    return _assemble(tickers, sessions, bars, actions, news, universe)[0]


def _assemble(
    tickers: tuple[str, ...],
    sessions: Sessions,
    bars: pd.DataFrame,
    actions: pd.DataFrame,
    news: NewsIndex,
    universe: Universe | None,
) -> tuple[Panel, list[int]]:
    """The panel, and how many features of each block of tickers are not finite."""
    tape = Tape.of(bars, tickers, sessions)
    splits, dividends = (action_rows(actions, kind, tickers, sessions) for kind in ("split", "dividend"))
    grid = _Grid.empty((len(tickers), len(sessions)))
    member = np.ones(grid.mask.shape, bool) if universe is None else universe.members(tickers, sessions.labels)
    blocks = [slice(first, min(first + BLOCK, len(tickers))) for first in range(0, len(tickers), BLOCK)]

    def fill(block: slice) -> None:
        ends = (block.start, block.stop)
        _fill_block(grid.of(block), [tape.rows(*ends), splits.between(*ends), dividends.between(*ends)])

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy lets go of the interpreter while it computes
        list(pool.map(fill, blocks))
        market = _market(grid.total, member)
        unit = _market_unit(market)
        bad = list(pool.map(lambda block: _compare_with_market(grid.of(block), market, unit), blocks))
    observed = ~np.isnan(grid.close)
    panel = Panel(
        tickers=tickers,
        sessions=sessions,
        features=grid.features,
        mask=grid.mask,
        observed=observed,
        unit=grid.unit,
        close=grid.close,
        share_ratio=_share_ratio(actions, tickers, sessions),
        member=member,
        labels={target: _into_next(getattr(grid, leg), observed) for target, leg in TARGETS.items()},
        news=news,
    )
    return panel, bad


def _fill_block(grid: _Grid, tape: list[Rows]) -> None:
    """The rows of a few tickers, numbered from 0 in `tape`: as known in time, then again from each decision that
    learned of something late.
    """
    _fill(grid, tape, 0, np.arange(len(grid.close)))
    for since in np.unique(np.concatenate([rows.known[rows.late] for rows in tape])):
        learned = np.concatenate([rows.ticker[rows.late & (rows.known == since)] for rows in tape])
        tickers = np.unique(learned)
        _fill(grid, [rows.among(tickers) for rows in tape], int(since), tickers)


def _fill(grid: _Grid, tape: list[Rows], since: int, tickers: Ints) -> None:
    """Compute the rows of `tickers` for the decisions from `since` on, by what `since` knew in time or late."""
    bars, splits, dividends = (rows.as_known(since) for rows in tape)
    if len(bars.ticker) == 0:
        return
    packed = pack(bars, splits, dividends, tickers)
    with np.errstate(all="ignore"):  # what is not finite is refused at the end
        moves = returns(packed)
        values = np.empty((*packed.close.shape, len(FEATURES)), np.float32)
        for number, column in enumerate(bar_features.features(packed, moves)):
            values[..., number] = column
    values[:, :WARM_UP] = 0
    local, position = places(bars, tickers)
    source, where = local * packed.close.shape[1] + position, bars.ticker * grid.close.shape[1] + bars.session
    if since:
        later = bars.session >= since
        source, where, position = source[later], where[later], position[later]
    grid.mask.reshape(-1)[where] = position >= WARM_UP
    grid.features.reshape(-1, len(FEATURES))[where] = values.reshape(-1, len(FEATURES))[source]
    for name, filled in {"close": packed.close, **vars(moves)}.items():
        getattr(grid, name).reshape(-1)[where] = filled.reshape(-1)[source]


def _market(total: Array, member: npt.NDArray[np.bool_]) -> Array:
    """The mean return of each session over all members seen in it; 0 where there is none.

    A return that is not finite is its own ticker's fault, not everyone's.
    """
    moves, seen = np.zeros(total.shape[1]), np.zeros(total.shape[1], dtype=np.int64)
    for row, belongs in zip(total, member, strict=True):
        there = belongs & np.isfinite(row)
        moves += np.where(there, row, 0.0)
        seen += there
    return np.asarray(moves / np.maximum(seen, 1))


def _compare_with_market(grid: _Grid, market: Array, unit: Array) -> int:
    """Fill in the last two features, the session's mean return and the ticker's against it; how many are not finite."""
    with np.errstate(all="ignore"):
        grid.features[..., -2] = np.where(grid.mask, market / unit, 0)
        grid.features[..., -1] = np.where(grid.mask, (grid.total - market) / grid.unit, 0)
    return int((~np.isfinite(grid.features)).sum())


def _market_unit(market: Array) -> Array:
    variance, weight = 0.0, 0.0
    units = np.empty_like(market)
    for session, move in enumerate(market):
        variance = UNIT_DECAY * variance + (1 - UNIT_DECAY) * move**2
        weight = UNIT_DECAY * weight + (1 - UNIT_DECAY)
        units[session] = max(np.sqrt(variance / weight), SMALLEST_UNIT)
    return units


def _into_next(moves: Array, observed: npt.NDArray[np.bool_]) -> Array:
    """Label of s: the move into s+1, where both bars were observed; NaN in the last session. In place."""
    both = observed[:, :-1] & observed[:, 1:]
    moves[:, :-1] = np.where(both, moves[:, 1:], np.nan)
    moves[:, -1] = np.nan
    return moves


def _share_ratio(actions: pd.DataFrame, tickers: tuple[str, ...], sessions: Sessions) -> Array:
    splits = actions[(actions["kind"] == "split").to_numpy(dtype=bool)].sort_values(["ticker", "ex_date", "version"])
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


def _refuse_non_finite(panel: Panel, count: int) -> None:
    ticker = next(row for row, values in enumerate(panel.features) if not np.isfinite(values).all())
    session, feature = np.argwhere(~np.isfinite(panel.features[ticker]))[0]
    raise LakeError(
        f"{panel.tickers[ticker]} on {panel.sessions.labels[session]}: expected finite features, found "
        f"{FEATURES[feature]} = {panel.features[ticker, session, feature]} ({count} such). Look at its bars with "
        f"`tapewire bars {panel.tickers[ticker]}`."
    )
