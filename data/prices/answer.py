"""One ticker's answer from a vendor against what the lake holds of it: what may be stored, and what was left out.

Pure: asks nobody and stores nothing. Every row is judged by `data/quality.py`; what has a fault is counted by its
code and left out, so that a missing number never takes the place of a good one.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.asof import known
from data.calendar import Labels, Sessions
from data.prices.source import ACTION_COLUMNS, BAR_COLUMNS, EmptyError, History, MalformedError
from data.prices.traded import Split, as_traded, differs, has_new, settle_actions
from data.quality import row_codes

Origin = Literal["live", "backfill"]

LIVE_WITHIN = np.timedelta64(4, "D")  # of its close a bar was seen live, a long weekend included
_NOT_YET = ("missing-price", "partial-last-bar")  # codes of a bar that is still to come, rather than at fault
RECYCLED = 60  # sessions without a bar, after which a ticker may be another company's


@dataclass(frozen=True)
class Held:
    """What the lake holds of one ticker, ascending: the newest version of `BAR_COLUMNS` and `ACTION_COLUMNS`."""

    bars: pd.DataFrame
    actions: pd.DataFrame

    def since(self, day: np.datetime64) -> "Held":
        """The same with the bars from `day` on alone."""
        inside = (self.bars["session"].to_numpy() >= day).nonzero()[0]
        return Held(self.bars.iloc[inside[0] :] if len(inside) else self.bars.iloc[:0], self.actions)


@dataclass(frozen=True)
class Tape:
    """Sound rows with their `available_at`, how each split was judged, and rows left out by code.

    `fault`: the session and the code of the last bar, where that one was there and was left out.
    """

    bars: pd.DataFrame
    actions: pd.DataFrame
    splits: tuple[Split, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    fault: tuple[np.datetime64, str] | None = None

    def restates(self, held: Held) -> bool:
        """Whether a stored price is another one now or an action is new: then all the rest may be, too."""
        return differs(self.bars, held.bars) or has_new(self.actions, held.actions)


@dataclass(frozen=True)
class Terms:
    """Under which terms answers are judged: the vendor's `unit` and custom (see `PriceSource`), and what is settled.

    A bar is believed from `settle` after its close.
    """

    unit: float
    split_adjusted: bool
    settle: np.timedelta64


def nothing_held() -> Held:
    """Of a ticker that the lake does not know."""
    numbers = pd.DataFrame({name: pd.Series(dtype="float64") for name in BAR_COLUMNS})
    bars = numbers.astype({"session": "datetime64[s]"})
    kinds = pd.Series(dtype="str")
    return Held(bars, pd.DataFrame({"ex_date": bars["session"], "kind": kinds, "value": bars["open"]}))


NO_ACTIONS = nothing_held().actions.assign(available_at=np.empty(0, "datetime64[us]"))


def judge(
    history: History, held: Held, exchange: Sessions, since: np.datetime64, asked_at: np.datetime64, terms: Terms
) -> Tape:
    """What of an answer for the sessions from `since`, asked for at `asked_at`, may be stored.

    Raises EmptyError where no bar is left, MalformedError where the answer contradicts itself or what is stored.
    """
    inside = ~(history.bars["session"].to_numpy() < since)
    asked_for = history if inside.all() else History(history.bars[inside], history.actions)
    traded = as_traded(asked_for, held.bars, terms.unit, terms.split_adjusted)
    days = traded.bars["session"].to_numpy()
    codes = row_codes(traded.bars, exchange, asked_at).to_numpy(dtype=object)
    closes = exchange.closes[exchange.index(days)]
    codes[(codes == "") & ~known(closes, asked_at - terms.settle)] = "partial-last-bar"
    sound = codes == ""
    left_out = dict(Counter(codes[~sound].tolist()).most_common())
    if not sound.any():
        told = ", ".join(f"{code} {rows}" for code, rows in left_out.items())
        raise EmptyError(f"none of the {len(codes)} bars it gave is usable: {told}" if told else "it gave no bar")
    bars = (traded.bars if sound.all() else traded.bars[sound]).assign(available_at=closes[sound])
    actions = NO_ACTIONS if traded.actions.empty else _settled(traded.actions, held, exchange, since)
    return Tape(bars, actions, traded.splits, left_out, _fault(days, codes))


def _settled(actions: pd.DataFrame, held: Held, exchange: Sessions, since: np.datetime64) -> pd.DataFrame:
    """Actions as they may be stored, each known at the open of its ex-date."""
    settled = settle_actions(_on_sessions(actions, exchange, since), held.actions)
    opens = exchange.opens[exchange.index(settled["ex_date"].to_numpy())]
    return settled.assign(available_at=opens)


def _fault(days: Labels, codes: npt.NDArray[np.object_]) -> tuple[np.datetime64, str] | None:
    last = int(days.argmax())
    code = str(codes[last])
    return None if code in ("", *_NOT_YET) else (days[last].astype("datetime64[D]"), code)


def refuse_recycled(history: History, exchange: Sessions, through: np.datetime64) -> None:
    """MalformedError where bars begin anew long after those stored: they may be another company's."""
    if history.bars.empty:
        return
    first = history.bars["session"].min().to_datetime64()
    gap = int(np.searchsorted(exchange.labels, first) - np.searchsorted(exchange.labels, through))
    if gap > RECYCLED:
        raise MalformedError(
            f"its bars begin again on {first.astype('datetime64[D]')}, {gap} sessions after those stored: another "
            "company may have taken the ticker (recycled-ticker)"
        )


def by_origin(
    tape: Tape, through: np.datetime64 | None, recorded_at: np.datetime64
) -> Iterator[tuple[Origin, pd.DataFrame, pd.DataFrame]]:
    """The bars and actions of a ticker, stored `through` a session so far, by how the lake came by them.

    A first load is a backfill, and so is what came after `through` but long before `recorded_at`. All else is live:
    new, or restated, which is known since now.
    """
    if through is None:
        yield "backfill", tape.bars, tape.actions
        return
    old, oldest = through.astype("datetime64[s]"), recorded_at - LIVE_WITHIN
    bars, actions = (
        (rows[day].to_numpy() > old) & known(rows["available_at"].to_numpy(), oldest)
        for rows, day in ((tape.bars, "session"), (tape.actions, "ex_date"))
    )
    if not (bars.any() or actions.any()):
        yield "live", tape.bars, tape.actions
        return
    yield "live", tape.bars[~bars], tape.actions[~actions]
    yield "backfill", tape.bars[bars], tape.actions[actions]


def _on_sessions(actions: pd.DataFrame, exchange: Sessions, since: np.datetime64) -> pd.DataFrame:
    """Actions from `since` on, on the first session on or after their ex-date: nobody could trade before."""
    at = np.searchsorted(exchange.labels, actions["ex_date"].to_numpy(dtype="datetime64[D]"))
    inside = (at < len(exchange)) & (actions["ex_date"] >= since).to_numpy()
    rows = actions[inside].assign(ex_date=exchange.labels[at[inside]].astype("datetime64[s]"))
    return rows.drop_duplicates(["ex_date", "kind"], ignore_index=True)[[*ACTION_COLUMNS, "slack"]]
