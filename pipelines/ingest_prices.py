"""`tapewire ingest --prices`: the bars and actions of the watchlist, complete, as traded and as they were known.

Made to be run every night, unattended. Each ticker is asked for what is new and some sessions before it; where these
differ from what is stored, or an action is new, for all. Work is committed a batch of tickers at a time, states last: a
run that is cut or killed is taken up where it stopped by the next, and loses nothing that was stored.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from data.asof import known
from data.calendar import Sessions, sessions
from data.errors import ConfigError
from data.intake import ODD_TICKER
from data.lake import Lake, revisions
from data.prices.answer import NO_ACTIONS, Held, Origin, Tape, Terms, by_origin, judge, refuse_recycled
from data.prices.limiter import Limiter, insist
from data.prices.markets import calendar_of
from data.prices.source import (
    ACTION_COLUMNS,
    BAR_COLUMNS,
    EmptyError,
    History,
    MalformedError,
    PriceSource,
    RateLimitedError,
    RefusedError,
    SourceError,
    StoppedError,
    UnknownTickerError,
)
from data.prices.store import Stored, store_prices
from data.prices.tape import TapeConfig, open_source
from data.prices.ticker_state import TickerState, read_states, store_states
from data.prices.traded import TOLERANCE, Quotes, Split
from pipelines.instants import Now, utc_now
from pipelines.ticker_reads import PricesIngested, Task, TickerRead
from pipelines.workspace import Workspace

Connect = Callable[[TapeConfig, Limiter, Path], PriceSource]

BATCH = 200  # tickers a commit
LASTING = np.timedelta64(14, "D")  # of empty answers, and there is no more to come
SHORTEST_WAIT, LONGEST_WAIT = np.timedelta64(20, "h"), np.timedelta64(30, "D")  # before an ended ticker is asked again


def ingest_prices(
    workspace: Workspace,
    clock: Now = utc_now,
    connect: Connect | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> PricesIngested:
    """Ask the vendor of `[tape]` for every ticker of the watchlist that is not complete, and store what is new.

    Raises ConfigError for no watchlist, a wrong calendar or key, LockedError where another run is at it.
    """
    tickers = watchlist(workspace)
    with workspace.lock("ingest"):
        config = workspace.config.tape
        limiter = Limiter(config.rate, config.workers)
        source = (connect or open_source)(config, limiter, workspace.folder)
        now = clock()
        states = read_states(workspace.lake, source.name)
        tasks = [_task(ticker, states.get(ticker), workspace, now) for ticker in tickers]
        run = _Run(workspace.lake, config, source, limiter, clock)
        return run.ingest(tasks, now, advance)


def watchlist(workspace: Workspace) -> list[str]:
    """The tickers that prices are asked for. Raises ConfigError for none, and for what is no ticker."""
    tickers = list(dict.fromkeys(ticker.strip().upper() for ticker in workspace.config.watchlist))
    where = workspace.folder / "tapewire.toml"
    if not tickers:
        raise ConfigError(
            f'{where}: expected tickers to ask for, found none. Name them, such as watchlist = ["AAPL", "VOD.L"].'
        )
    odd = [ticker for ticker in tickers if not re.match(ODD_TICKER, ticker)]
    if odd:
        raise ConfigError(f"{where}: watchlist: expected tickers such as AAPL or VOD.L, found {odd[0]!a}.")
    return tickers


def _task(ticker: str, state: TickerState | None, workspace: Workspace, now: np.datetime64) -> Task:
    config = workspace.config
    exchange = sessions(calendar_of(ticker, config.tape.calendars, config.calendar))
    due = exchange.last_closed(now - np.timedelta64(round(config.tape.settle * 60), "s"))
    return Task(ticker, exchange, due, state)


class _Run:
    """One run over one vendor. Workers ask and judge; the lake is read and written by the caller's thread alone."""

    def __init__(self, lake: Lake, config: TapeConfig, source: PriceSource, limiter: Limiter, clock: Now) -> None:
        self._lake, self._config, self._source, self._limiter = lake, config, source, limiter
        self._clock = clock
        self._start = np.datetime64(config.start, "D")
        self._terms = Terms(source.unit, source.split_adjusted, np.timedelta64(round(config.settle * 60), "s"))

    def ingest(
        self, tasks: Sequence[Task], now: np.datetime64, advance: Callable[[int, int], None] | None
    ) -> PricesIngested:
        reads = {task.ticker: read for task in tasks if (read := self._not_due(task, now))}
        wanted = sorted((task for task in tasks if task.ticker not in reads), key=_urgency)
        waiting = self._asked_to_wait(tasks, now)
        if waiting:
            self._limiter.stop(waiting)
        stored, quarantined = Stored(0, 0), Counter[str]()
        with _Workers(self._config.workers, self._limiter) as pool:
            for start in range(0, len(wanted), BATCH):
                batch = wanted[start : start + BATCH]
                done = self._batch(batch, pool)
                stored = _added(stored, self._store(batch, done))
                for read in done:
                    quarantined.update(read.tape.left_out if read.tape else {})
                    reads[read.ticker] = replace(read, tape=None)
                if advance:
                    advance(len(reads), len(tasks))
        ordered = tuple(reads[task.ticker] for task in tasks)
        return PricesIngested(self._source.name, ordered, stored, dict(quarantined), self._limiter.stopped)

    def _not_due(self, task: Task, now: np.datetime64) -> TickerRead | None:
        """How a ticker stands that is not to be asked in this run; None for one that is."""
        state = task.state
        if state is None or (state.since is not None and state.since > self._start):
            return None
        if state.outcome == "fed" and state.through is not None and state.through >= task.newest:
            return TickerRead(task.ticker, "current")
        if state.outcome in ("ended", "unknown") and not _due(state.retry_at, now):
            again = f"asked again after {state.retry_at.astype('datetime64[D]')}" if state.retry_at else ""
            news = state.outcome != "ended"
            return TickerRead(task.ticker, state.outcome, state.code, f"{state.reason}; {again}", news=news)
        return None

    def _asked_to_wait(self, tasks: Sequence[Task], now: np.datetime64) -> str:
        """Why the vendor is not to be asked at all yet, or nothing: it said when to come back."""
        limited = [task.state.retry_at for task in tasks if task.state and task.state.outcome == "limited"]
        until = max((at for at in limited if at is not None and not _due(at, now)), default=None)
        return "" if until is None else f"the vendor asked us to wait until {until.astype('datetime64[s]')}Z"

    def _batch(self, batch: Sequence[Task], pool: ThreadPoolExecutor) -> list[TickerRead]:
        if self._limiter.stopped:
            return [_not_asked(task, self._limiter.stopped) for task in batch]
        return list(pool.map(self._read, batch, self._held([task.ticker for task in batch])))

    def _held(self, tickers: list[str]) -> list[Held]:
        """What the lake holds of each."""
        names = pd.Series(tickers, dtype="string")
        bars = self._lake.current_among("bars", names, [*BAR_COLUMNS, "basis"])
        actions = self._lake.current_among("actions", names, ACTION_COLUMNS)
        imported = bars[bars["basis"] != "raw"]
        basis = dict(zip(imported["ticker"], imported["basis"], strict=True))
        quotes, quoted, acted = Quotes.of(bars), _by_ticker(bars), _by_ticker(actions)
        none = slice(0, 0)
        return [
            Held(quotes[quoted.get(name, none)], actions.iloc[acted.get(name, none)], basis.get(name, "raw"))
            for name in tickers
        ]

    def _read(self, task: Task, held: Held) -> TickerRead:
        """Ask for one ticker and judge the answer. Never raises for anything a vendor can do."""
        asked_at = self._clock()
        try:
            return self._fed(task, self._tape(task, held, asked_at))
        except StoppedError as error:
            return _not_asked(task, str(error).removeprefix("not asked: "))
        except SourceError as error:
            if isinstance(error, RefusedError):
                self._limiter.stop(str(error))
            return self._failed(task, error, asked_at, has_bars=len(held.bars) > 0)

    def _tape(self, task: Task, held: Held, asked_at: np.datetime64) -> Tape:
        """The newest sessions and some before them; the whole history where it is new, or what overlaps is not."""
        if held.basis != "raw":
            raise MalformedError(f"the lake holds its bars on the basis {held.basis}, imported from a file")
        state, exchange = task.state, task.exchange
        if state is not None and state.through is not None and len(held.bars) and not _after(state.since, self._start):
            since = max(self._start, _sessions_before(exchange, state.through, self._config.overlap))
            recent = held.since(since)
            history = self._ask(task, since)
            refuse_recycled(history, exchange, state.through)
            tape = judge(history, recent, exchange, since, asked_at, self._terms)
            if not tape.restates:
                return tape
        return judge(self._ask(task, self._start), held, exchange, self._start, asked_at, self._terms)

    def _ask(self, task: Task, since: np.datetime64) -> History:
        return insist(lambda: self._source.history(task.ticker, since), self._config.backoff)

    def _fed(self, task: Task, tape: Tape) -> TickerRead:
        last = tape.bars.sessions[-1].astype("datetime64[D]")
        through = max(last, task.state.through) if task.state and task.state.through else last
        since = self._start if task.state is None or task.state.since is None else min(self._start, task.state.since)
        state = TickerState(task.ticker, self._source.name, "fed", since=since, through=through)
        behind = task.due - int(task.exchange.index([through])[0])
        if behind <= self._config.overlap or task.state is None:
            day, code = tape.fault or (None, "")
            if behind > 0 and day == task.newest:  # remembered, so that who misses the bar is told why
                state = replace(state, code=code, reason=f"its bar of {day} was left out: {code}")
                return TickerRead(task.ticker, "fed", code, state.reason, tape, state)
            reason = "" if behind <= 0 else f"no bar of {task.newest} yet"
            return TickerRead(task.ticker, "fed", "", reason, tape, state)
        reason = f"no bar for {behind} sessions: its history ends on {through}"
        return replace(self._ended(task, state, "no-bars", reason), tape=tape)

    def _failed(self, task: Task, error: SourceError, at: np.datetime64, has_bars: bool) -> TickerRead:
        before = task.state or TickerState(task.ticker, self._source.name, "failed")
        since = before.failing_since if before.failing_since is not None else at
        state = replace(
            before, outcome="failed", code=error.code, reason=str(error), failing_since=since, retry_at=None
        )
        over = isinstance(error, UnknownTickerError) or (isinstance(error, EmptyError) and at - since >= LASTING)
        if over:
            ends = (
                f"{error}; its history ends on {before.through}"
                if has_bars and before.through is not None
                else str(error)
            )
            return self._ended(task, state, error.code, ends, "ended" if has_bars else "unknown")
        if isinstance(error, RateLimitedError):
            wait = error.retry_after
            until = None if wait is None else at + np.timedelta64(round(wait), "s")
            state = replace(state, outcome="limited", retry_at=until)
        return TickerRead(task.ticker, state.outcome, state.code, state.reason, state=state)

    def _ended(
        self, task: Task, state: TickerState, code: str, reason: str, outcome: Literal["ended", "unknown"] = "ended"
    ) -> TickerRead:
        """No more is to come of it. Asked again the next night, then ever more seldom: a vendor may err."""
        at = self._clock()
        since = task.state.failing_since if task.state and task.state.failing_since is not None else at
        wait = min(max(at - since, SHORTEST_WAIT), LONGEST_WAIT)
        state = replace(state, outcome=outcome, code=code, reason=reason, failing_since=since, retry_at=at + wait)
        news = outcome == "unknown" or task.state is None or task.state.outcome != "ended"
        return TickerRead(task.ticker, outcome, code, reason, state=state, news=news)

    def _store(self, batch: Sequence[Task], reads: Sequence[TickerRead]) -> Stored:
        """Commit what a batch gave. Its states come last: what they say is stored, is."""
        recorded_at = self._clock()
        stored = Stored(0, 0)
        fed = [(task, read.tape) for task, read in zip(batch, reads, strict=True) if read.tape is not None]
        _store_splits(self._lake, [(task.ticker, tape.splits) for task, tape in fed], self._source.name, recorded_at)
        parts: dict[Origin, list[tuple[str, Tape]]] = {}
        for task, whole in fed:
            for origin, tape in by_origin(whole, task.state.through if task.state else None, recorded_at):
                parts.setdefault(origin, []).append((task.ticker, tape))
        for origin, told in parts.items():
            bars = _bars(told).assign(basis="raw", source=self._source.name)
            actions = _actions(told).assign(source=self._source.name)
            stored = _added(stored, store_prices(self._lake, bars, actions, recorded_at, origin, TOLERANCE))
        states = [read.state for read in reads if read.state is not None]
        if states:
            store_states(self._lake, states, recorded_at)
        return stored


class _Workers:
    """A pool of threads that does not go on with what is queued when the run breaks off."""

    def __init__(self, count: int, limiter: Limiter) -> None:
        self._pool, self._limiter = ThreadPoolExecutor(count, thread_name_prefix="ask"), limiter

    def __enter__(self) -> ThreadPoolExecutor:
        return self._pool

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._limiter.stop("the run was broken off")
        self._pool.shutdown(cancel_futures=True)


def _urgency(task: Task) -> tuple[bool, np.datetime64]:
    """Tickers that lie back furthest first, so that none starves where a vendor never lets a run end; new ones last."""
    through = task.state.through if task.state else None
    return through is None, np.datetime64("0001-01-01", "D") if through is None else through


def _due(at: np.datetime64 | None, now: np.datetime64) -> bool:
    return at is None or bool(known([at], now)[0])


def _after(day: np.datetime64 | None, other: np.datetime64) -> bool:
    return day is not None and bool(day > other)


def _not_asked(task: Task, reason: str) -> TickerRead:
    return TickerRead(task.ticker, "not-asked", StoppedError.code, reason)


def _added(one: Stored, other: Stored) -> Stored:
    return Stored(one.bars + other.bars, one.actions + other.actions)


def _bars(parts: Sequence[tuple[str, Tape]]) -> pd.DataFrame:
    """The bars of several tickers in one frame, with a column `ticker`."""
    tickers, tapes = zip(*parts, strict=True)
    rows = Quotes(
        *(np.concatenate(columns) for columns in zip(*((t.bars.sessions, t.bars.numbers) for t in tapes), strict=True))
    )
    return rows.frame(
        available_at=np.concatenate([tape.closes for tape in tapes]),
        ticker=np.repeat(tickers, [len(tape.bars) for tape in tapes]),
    )


def _actions(parts: Sequence[tuple[str, Tape]]) -> pd.DataFrame:
    told = [(ticker, tape.actions) for ticker, tape in parts if len(tape.actions)] or [(parts[0][0], NO_ACTIONS)]
    tickers, frames = zip(*told, strict=True)
    joined: pd.DataFrame = pd.concat(frames, ignore_index=True)
    return joined.assign(ticker=np.repeat(tickers, [len(rows) for rows in frames]))


def _by_ticker(rows: pd.DataFrame) -> dict[str, slice]:
    """Where each ticker's rows are, which are ordered by it."""
    sizes = rows.groupby("ticker", sort=False).size()
    ends = sizes.cumsum()
    return {str(ticker): slice(end - size, end) for ticker, size, end in zip(sizes.index, sizes, ends, strict=True)}


def _sessions_before(exchange: Sessions, day: np.datetime64, count: int) -> np.datetime64:
    at = int(exchange.first_from(day))
    label: np.datetime64 = exchange.labels[max(at - count + 1, 0)]
    return label


def _store_splits(
    lake: Lake, judged: Sequence[tuple[str, tuple[Split, ...]]], source: str, recorded_at: np.datetime64
) -> None:
    """Keep what each split was found to be: what the vendor's earlier prices were multiplied by."""
    rows = pd.DataFrame(
        [
            (ticker, split.ex_date, split.ratio, split.factor, split.evidence)
            for ticker, splits in judged
            for split in splits
        ],
        columns=["ticker", "ex_date", "ratio", "factor", "evidence"],
    )
    if rows.empty:
        return
    rows["ex_date"] = pd.to_datetime(rows["ex_date"]).astype("datetime64[s]")
    rows = rows.assign(source=source).drop_duplicates(["ticker", "ex_date"])
    stored = lake.current_among("adjustments", rows["ticker"].astype("string"), ["ratio", "factor"])
    stamp = pd.Timestamp(recorded_at, tz="UTC")
    changed = revisions(stored, rows, "adjustments", ["ratio", "factor"])
    lake.merge("adjustments", changed.assign(available_at=stamp, recorded_at=stamp, origin="live"))
