"""A vendor's history as it was traded: what the vendor has divided by later splits is multiplied again.

Vendors restate all earlier prices, volumes and dividends when a share is split. Stored like that, yesterday's bar
would change with every split to come, so each split is judged by itself: has the vendor adjusted for it? Bars stored
before the split say so at once, else the step of the vendor's prices over the ex-date, else the vendor's custom.
What then differs from a stored number by no more than the vendor's rounding is the stored number. Pure: no lake.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.prices.source import ACTION_COLUMNS, BAR_COLUMNS, History, MalformedError

Evidence = Literal["stored", "step", "custom"]
Floats = npt.NDArray[np.float64]

PRICES, NUMBERS = BAR_COLUMNS[1:5], BAR_COLUMNS[1:]
OPEN, CLOSE = NUMBERS.index("open"), NUMBERS.index("close")
TOLERANCE = 1e-6  # as a share: 32-bit floats carry 6e-8, and the smallest tick of a price is far larger
TELLING_SPLIT = np.log(1.2)  # of a smaller ratio a step in prices may as well be the day's own move
ODD_FACTOR = np.log(1.05)
CONSTANT = 1e-3  # a spread of factors so small is one factor
MOST_AT_ONCE = 6  # splits after the last stored bar whose combinations are tried
FEW = 3  # bars that must agree before a constant factor between two histories is believed


@dataclass(frozen=True)
class Quotes:
    """Bars as arrays: `sessions` [M] (datetime64[s]) and `numbers` [M, 5] in the order of `NUMBERS`.

    A night looks at a ticker's few bars many times over, and each look at a column of a frame costs more than the sums.
    """

    sessions: npt.NDArray[np.datetime64]
    numbers: Floats

    @classmethod
    def of(cls, bars: pd.DataFrame) -> "Quotes":
        """Of a frame of `BAR_COLUMNS`, in its order."""
        return cls(bars["session"].to_numpy(), np.column_stack([bars[name].to_numpy(np.float64) for name in NUMBERS]))

    def __len__(self) -> int:
        return len(self.sessions)

    def __getitem__(self, at: Any) -> "Quotes":
        """Those of a slice, a mask or positions."""
        return Quotes(self.sessions[at], self.numbers[at])

    def frame(self, **more: npt.NDArray[Any]) -> pd.DataFrame:
        """A frame of `BAR_COLUMNS` and the columns `more`."""
        return pd.DataFrame(dict(zip(BAR_COLUMNS, (self.sessions, *self.numbers.T), strict=True)) | more)

    def at(self, sessions: npt.NDArray[np.datetime64]) -> Floats:
        """The numbers of each of `sessions` [K, 5], NaN where there are none. For one ticker's bars, ascending."""
        numbers = np.full((len(sessions), len(NUMBERS)), np.nan)
        if len(self):
            at = np.minimum(np.searchsorted(self.sessions, sessions), len(self) - 1)
            found = self.sessions[at] == sessions
            numbers[found] = self.numbers[at[found]]
        return numbers


@dataclass(frozen=True)
class Split:
    """One split and what the vendor had divided its earlier prices by: the ratio, or 1."""

    ex_date: np.datetime64
    ratio: float
    factor: float
    evidence: Evidence


@dataclass(frozen=True)
class Traded:
    """Bars and actions (`ACTION_COLUMNS`, and `slack`, the rounding of the value, where there are any) as traded, and
    how each split was judged.
    """

    bars: Quotes
    actions: pd.DataFrame
    splits: tuple[Split, ...]


def as_traded(history: History, stored: Quotes, unit: float, split_adjusted: bool) -> Traded:
    """Undo the splits of `history`. `stored`: this ticker's bars in the lake, as traded, or none.

    `unit` and `split_adjusted` are the vendor's (see `PriceSource`). Raises MalformedError where rows of one session
    disagree, or where all of the overlap is off by one factor that no split explains.
    """
    bars = Quotes.of(_ascending(history.bars))
    actions = _once(_usable(history.actions), "ex_date", "kind")
    splits = _judge(bars, actions, stored, split_adjusted)
    factor = _factor(splits, bars.sessions)
    told, old = bars.numbers, stored.at(bars.sessions)
    new = np.column_stack([told[:, :-1] * factor[:, None], told[:, -1] / factor])
    _refuse_unexplained(new[:, CLOSE], old[:, CLOSE])
    settled = Quotes(bars.sessions, _as_stored(new, old, factor, unit))
    if actions.empty:
        return Traded(settled, actions, ())
    paid = np.where(actions["kind"] == "dividend", _factor(splits, actions["ex_date"].to_numpy()), 1.0)
    return Traded(settled, actions.assign(value=actions["value"] * paid, slack=unit * paid), splits)


def settle_actions(actions: pd.DataFrame, stored: pd.DataFrame) -> pd.DataFrame:
    """`actions` of `as_traded`, with the stored value (of `ACTION_COLUMNS`) where they differ by rounding."""
    if actions.empty:
        return actions[ACTION_COLUMNS]
    held = {(day, kind): value for day, kind, value in _rows(stored)}
    old = np.array([held.get((day, kind), np.nan) for day, kind, _ in _rows(actions)])
    value = actions["value"].to_numpy()
    near = np.abs(value - old) <= np.abs(old) * TOLERANCE + actions["slack"].to_numpy()
    return actions[ACTION_COLUMNS].assign(value=np.where(near, old, value))


def differs(bars: Quotes, stored: Quotes) -> bool:
    """Whether a price of a session that both have is another one: volumes are revised every night, prices are not."""
    new, old = bars.numbers[:, : len(PRICES)], stored.at(bars.sessions)[:, : len(PRICES)]
    return bool(((new != old) & np.isfinite(old) & ~np.isnan(new)).any())


def has_new(actions: pd.DataFrame, stored: pd.DataFrame) -> bool:
    """Whether one of `actions` is not among the stored ones, or has another value."""
    if actions.empty:
        return False
    return not set(_rows(stored)).issuperset(_rows(actions))


def _rows(actions: pd.DataFrame) -> Iterator[tuple[Any, str, float]]:
    return zip(*(actions[name].tolist() for name in ACTION_COLUMNS), strict=True)


def _ascending(bars: pd.DataFrame) -> pd.DataFrame:
    """One row a session, in their order; as they nearly always come."""
    days = bars["session"].to_numpy()
    if (days[1:] > days[:-1]).all() and not np.isnat(days).any():
        return bars
    return _once(bars.sort_values("session", ignore_index=True), "session")


def _once(rows: pd.DataFrame, *keys: str) -> pd.DataFrame:
    if rows.empty:
        return rows
    once: pd.DataFrame = rows.drop_duplicates(ignore_index=True)
    twice = once[once.duplicated([*keys], keep=False) & once[keys[0]].notna()]
    if not twice.empty:
        raise MalformedError(f"two rows of {twice[keys[0]].iloc[0]:%Y-%m-%d} disagree")
    return once


def _usable(actions: pd.DataFrame) -> pd.DataFrame:
    if actions.empty:
        return actions
    value = actions["value"]
    split = actions["kind"] == "split"
    good = (value > 0) & (value < np.inf) & actions["ex_date"].notna() & ((value != 1) | ~split)
    return actions.loc[good, ACTION_COLUMNS].reset_index(drop=True)


def _judge(bars: Quotes, actions: pd.DataFrame, stored: Quotes, custom: bool) -> tuple[Split, ...]:
    """Every split, newest first. Splits that follow the same stored bar are judged together, later ones undone."""
    if actions.empty:
        return ()
    rows = actions[actions["kind"] == "split"].sort_values("ex_date", ascending=False)
    if rows.empty:
        return ()
    ends = bars.numbers[:, [OPEN, CLOSE]]
    sound = bars[((ends > 0) & (ends < np.inf)).all(axis=1)]
    overlap = stored.at(sound.sessions)[:, CLOSE]
    known = np.flatnonzero(np.isfinite(overlap) & (overlap > 0))
    sessions, closes = sound.sessions, sound.numbers[:, CLOSE]
    judged: list[Split] = []
    following = np.searchsorted(sessions[known], rows["ex_date"].to_numpy()) - 1
    for at in dict.fromkeys(following.tolist()):
        group = [(day, float(ratio)) for day, ratio in rows.loc[following == at, ["ex_date", "value"]].to_numpy()]
        if at < 0 or len(group) > MOST_AT_ONCE:
            judged += [_by_step(sound, np.datetime64(day, "s"), ratio, custom) for day, ratio in group]
            continue
        later = float(np.prod([split.factor for split in judged]))
        seen = float(overlap[known[at]] / (closes[known[at]] * later))
        for (day, ratio), adjusted in zip(group, _explaining(seen, [ratio for _, ratio in group], custom), strict=True):
            judged.append(Split(np.datetime64(day, "s"), ratio, ratio if adjusted else 1.0, "stored"))
    return tuple(judged)


def _explaining(seen: float, ratios: list[float], custom: bool) -> tuple[bool, ...]:
    """Which splits the vendor has adjusted for, where a stored price is `seen` times its own: the nearest product."""

    def distance(choice: tuple[bool, ...]) -> float:
        product = np.prod([ratio for ratio, chosen in zip(ratios, choice, strict=True) if chosen])
        return round(float(abs(np.log(seen / product))), 6)

    choices = itertools.product((custom, not custom), repeat=len(ratios))  # the vendor's custom first
    return min(choices, key=distance)


def _by_step(bars: Quotes, day: np.datetime64, ratio: float, custom: bool) -> Split:
    """A split that no stored bar precedes: the vendor's own prices may show it."""
    step = _step(bars, day)
    if step is None or abs(np.log(ratio)) < TELLING_SPLIT:
        return Split(day, ratio, ratio if custom else 1.0, "custom")
    adjusted = abs(np.log(step)) < abs(np.log(step * ratio))
    return Split(day, ratio, ratio if adjusted else 1.0, "step")


def _step(bars: Quotes, day: np.datetime64) -> float | None:
    """The open of the ex-date over the close before it, in the vendor's prices; None where one is missing."""
    at = int(np.searchsorted(bars.sessions, day))
    if at == 0 or at == len(bars):
        return None
    return float(bars.numbers[at, OPEN] / bars.numbers[at - 1, CLOSE])


def _factor(splits: tuple[Split, ...], days: npt.NDArray[Any]) -> Floats:
    """The product of the factors of all splits after each day."""
    factor = np.ones(len(days))
    for split in splits:
        factor[days < split.ex_date] *= split.factor
    return factor


def _refuse_unexplained(closes: Floats, stored: Floats) -> None:
    ratio = stored / closes
    ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
    if len(ratio) < FEW or np.ptp(np.log(ratio)) > CONSTANT or abs(np.log(ratio[0])) < ODD_FACTOR:
        return
    raise MalformedError(
        f"all {len(ratio)} stored bars are {ratio[0]:.6g} times the vendor's, and it names no split that explains it"
    )


def _as_stored(new: Floats, old: Floats, factor: Floats, unit: float) -> Floats:
    """`new` [M, 5] with the stored numbers where the vendor's rounding may be all that differs.

    A volume of zero beside a stored one is the vendor's way to say that it has none.
    """
    slack = np.where(factor == 1, 0.0, 1 / factor)  # one share of the vendor's
    rounding = np.column_stack([np.repeat((unit * factor)[:, None], len(PRICES), axis=1), slack])
    near = np.abs(new - old) <= np.abs(old) * TOLERANCE + rounding
    near[:, -1] |= (new[:, -1] == 0) & (old[:, -1] > 0)
    return np.where(near, old, new)
