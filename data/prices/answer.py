"""One ticker's answer from a vendor against what the lake holds of it: what may be stored, and what was left out.

Pure: asks nobody and stores nothing. Every row is judged by `data/quality.py`; what has a fault is counted by its
code and left out, so that a missing number never takes the place of a good one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from data.asof import known
from data.calendar import Sessions
from data.prices.source import ACTION_COLUMNS, BAR_COLUMNS, EmptyError, History, MalformedError
from data.prices.traded import Split, as_traded, differs, has_new, settle_actions
from data.quality import row_codes

Origin = Literal["live", "backfill"]

LIVE_WITHIN = np.timedelta64(4, "D")  # of its close a bar was seen live, a long weekend included
RECYCLED = 60  # sessions without a bar, after which a ticker may be another company's


@dataclass(frozen=True)
class Held:
    """What the lake holds of one ticker: the newest version of each of `BAR_COLUMNS` and `ACTION_COLUMNS`."""

    bars: pd.DataFrame
    actions: pd.DataFrame

    def since(self, day: np.datetime64) -> "Held":
        """The same with the bars from `day` on alone."""
        return Held(self.bars[(self.bars["session"] >= day).to_numpy()], self.actions)


@dataclass(frozen=True)
class Tape:
    """Sound rows with their `available_at`, how each split was judged, and rows left out by code."""

    bars: pd.DataFrame
    actions: pd.DataFrame
    splits: tuple[Split, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)

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


def judge(
    history: History, held: Held, exchange: Sessions, since: np.datetime64, asked_at: np.datetime64, terms: Terms
) -> Tape:
    """What of an answer for the sessions from `since`, asked for at `asked_at`, may be stored.

    Raises EmptyError where no bar is left, MalformedError where the answer contradicts itself or what is stored.
    """
    inside = ~(history.bars["session"] < since).to_numpy()
    asked_for = History(history.bars[inside], history.actions)
    traded = as_traded(asked_for, held.bars, terms.unit, terms.split_adjusted)
    codes = row_codes(traded.bars, exchange, asked_at).astype("str")
    closes = exchange.closes[exchange.index(traded.bars["session"].to_numpy())]
    codes[(codes == "").to_numpy() & ~known(closes, asked_at - terms.settle)] = "partial-last-bar"
    left_out = {str(code): int(rows) for code, rows in codes[codes != ""].value_counts().items()}
    sound = (codes == "").to_numpy()
    if not sound.any():
        told = ", ".join(f"{code} {rows}" for code, rows in left_out.items())
        raise EmptyError(f"none of the {len(codes)} bars it gave is usable: {told}" if told else "it gave no bar")
    bars = traded.bars[sound].assign(available_at=closes[sound])
    actions = settle_actions(_on_sessions(traded.actions, exchange, since), held.actions)
    opens = exchange.opens[exchange.index(actions["ex_date"].to_numpy())]
    return Tape(bars, actions.assign(available_at=opens), traded.splits, left_out)


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
        (rows[day] > old).to_numpy() & known(rows["available_at"], oldest)
        for rows, day in ((tape.bars, "session"), (tape.actions, "ex_date"))
    )
    yield "live", tape.bars[~bars], tape.actions[~actions]
    if bars.any() or actions.any():
        yield "backfill", tape.bars[bars], tape.actions[actions]


def _on_sessions(actions: pd.DataFrame, exchange: Sessions, since: np.datetime64) -> pd.DataFrame:
    """Actions from `since` on, on the first session on or after their ex-date: nobody could trade before."""
    at = np.searchsorted(exchange.labels, actions["ex_date"].to_numpy(dtype="datetime64[D]"))
    inside = (at < len(exchange)) & (actions["ex_date"] >= since).to_numpy()
    rows = actions[inside].assign(ex_date=exchange.labels[at[inside]].astype("datetime64[s]"))
    return rows.drop_duplicates(["ex_date", "kind"], ignore_index=True)[[*ACTION_COLUMNS, "slack"]]
