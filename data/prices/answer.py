"""One ticker's answer from a vendor against what the lake holds of it: what may be stored, and what was left out.

Pure: asks nobody and stores nothing. Every row is judged by `data/quality.py`; what has a fault is counted by its
code and left out, so that a missing number never takes the place of a good one.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.asof import Instants, known
from data.calendar import Labels, Sessions
from data.prices.source import ACTION_COLUMNS, EmptyError, History, MalformedError
from data.prices.traded import Quotes, Split, as_traded, differs, has_new, settle_actions
from data.quality import ROW_CODES, fault_codes

Origin = Literal["live", "backfill"]

LIVE_WITHIN = np.timedelta64(4, "D")  # of its close a bar was seen live, a long weekend included
_NOT_YET = ("missing-price", "partial-last-bar")  # codes of a bar that is still to come, rather than at fault
_PARTIAL = ROW_CODES.index("partial-last-bar")
RECYCLED = 60  # sessions without a bar, after which a ticker may be another company's


@dataclass(frozen=True)
class Held:
    """What the lake holds of one ticker, ascending: the newest version of its bars and of `ACTION_COLUMNS`.

    `basis`: that of the bars; another than "raw" was imported from a file.
    """

    bars: Quotes
    actions: pd.DataFrame
    basis: str = "raw"

    def since(self, day: np.datetime64) -> "Held":
        """The same with the bars from `day` on alone."""
        return Held(self.bars[np.searchsorted(self.bars.sessions, day) :], self.actions, self.basis)


@dataclass(frozen=True)
class Tape:
    """Sound bars with the `closes` of their sessions, sound actions with their `available_at`, rows left out by code.

    `fault`: the session and the code of the last bar, where that one was there and was left out. `restates`: whether a
    stored price is another one now or an action is new: then all the rest may be, too.
    """

    bars: Quotes
    closes: Instants
    actions: pd.DataFrame
    splits: tuple[Split, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    fault: tuple[np.datetime64, str] | None = None
    restates: bool = False


@dataclass(frozen=True)
class Terms:
    """Under which terms answers are judged: the vendor's `unit` and custom (see `PriceSource`), and what is settled.

    A bar is believed from `settle` after its close.
    """

    unit: float
    split_adjusted: bool
    settle: np.timedelta64


NO_ACTIONS = pd.DataFrame(
    {
        "ex_date": np.empty(0, "datetime64[s]"),
        "kind": pd.Series(dtype="str"),
        "value": np.empty(0),
        "available_at": np.empty(0, "datetime64[us]"),
    }
)


def judge(
    history: History, held: Held, exchange: Sessions, since: np.datetime64, asked_at: np.datetime64, terms: Terms
) -> Tape:
    """What of an answer for the sessions from `since`, asked for at `asked_at`, may be stored.

    Raises EmptyError where no bar is left, MalformedError where the answer contradicts itself or what is stored.
    """
    inside = ~(history.bars["session"].to_numpy() < since)
    asked_for = history if inside.all() else History(history.bars[inside], history.actions)
    traded = as_traded(asked_for, held.bars, terms.unit, terms.split_adjusted)
    days = traded.bars.sessions
    codes = fault_codes(days, [*traded.bars.numbers.T], exchange, asked_at)
    closes = exchange.closes[exchange.index(days)]
    codes[(codes == 0) & ~known(closes, asked_at - terms.settle)] = _PARTIAL
    sound = codes == 0
    left_out = dict(Counter(ROW_CODES[code] for code in codes[~sound]).most_common())
    if not sound.any():
        told = ", ".join(f"{code} {rows}" for code, rows in left_out.items())
        raise EmptyError(f"none of the {len(codes)} bars it gave is usable: {told}" if told else "it gave no bar")
    bars = traded.bars[sound]
    actions = NO_ACTIONS if traded.actions.empty else _settled(traded.actions, held, exchange, since)
    restates = differs(bars, held.bars) or has_new(actions, held.actions)
    return Tape(bars, closes[sound], actions, traded.splits, left_out, _fault(days, codes), restates)


def _settled(actions: pd.DataFrame, held: Held, exchange: Sessions, since: np.datetime64) -> pd.DataFrame:
    """Actions as they may be stored, each known at the open of its ex-date."""
    settled = settle_actions(_on_sessions(actions, exchange, since), held.actions)
    opens = exchange.opens[exchange.index(settled["ex_date"].to_numpy())]
    return settled.assign(available_at=opens)


def _fault(days: Labels, codes: npt.NDArray[np.int8]) -> tuple[np.datetime64, str] | None:
    last = int(days.argmax())
    code = ROW_CODES[codes[last]]
    return None if code in ("", *_NOT_YET) else (days[last].astype("datetime64[D]"), code)


def refuse_recycled(history: History, exchange: Sessions, through: np.datetime64) -> None:
    """MalformedError where bars begin anew long after those stored: they may be another company's."""
    if history.bars.empty:
        return
    first = np.fmin.reduce(history.bars["session"].to_numpy())  # a bar without a date says nothing here
    gap = int(exchange.first_from(first) - exchange.first_from(through))
    if gap > RECYCLED:
        raise MalformedError(
            f"its bars begin again on {first.astype('datetime64[D]')}, {gap} sessions after those stored: another "
            "company may have taken the ticker (recycled-ticker)"
        )


def by_origin(tape: Tape, through: np.datetime64 | None, recorded_at: np.datetime64) -> Iterator[tuple[Origin, Tape]]:
    """The bars and actions of a ticker, stored `through` a session so far, by how the lake came by them.

    A first load is a backfill, and so is what came after `through` but long before `recorded_at`. All else is live:
    new, or restated, which is known since now.
    """
    if through is None:
        yield "backfill", tape
        return
    old, oldest = through.astype("datetime64[s]"), recorded_at - LIVE_WITHIN
    bars = (tape.bars.sessions > old) & known(tape.closes, oldest)
    actions = (tape.actions["ex_date"].to_numpy() > old) & known(tape.actions["available_at"].to_numpy(), oldest)
    if not (bars.any() or actions.any()):
        yield "live", tape
        return

    def those(bars: npt.NDArray[np.bool_], actions: npt.NDArray[np.bool_]) -> Tape:
        return replace(tape, bars=tape.bars[bars], closes=tape.closes[bars], actions=tape.actions[actions])

    yield "live", those(~bars, ~actions)
    yield "backfill", those(bars, actions)


def _on_sessions(actions: pd.DataFrame, exchange: Sessions, since: np.datetime64) -> pd.DataFrame:
    """Actions from `since` on, on the first session on or after their ex-date: nobody could trade before."""
    at = exchange.first_from(actions["ex_date"])
    inside = (at < len(exchange)) & (actions["ex_date"] >= since).to_numpy()
    rows = actions[inside].assign(ex_date=exchange.labels[at[inside]].astype("datetime64[s]"))
    return rows.drop_duplicates(["ex_date", "kind"], ignore_index=True)[[*ACTION_COLUMNS, "slack"]]
