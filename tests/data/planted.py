"""Faults of every kind, to be planted in clean bars of one ticker: each knows which sessions must be flagged for it."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd

PRICES = ["open", "high", "low", "close"]


@dataclasses.dataclass
class Field:
    """One ticker's bars and actions, to be spoilt at row `at`; `wrong` is what must be flagged."""

    bars: pd.DataFrame
    actions: pd.DataFrame
    at: int
    rng: np.random.Generator
    wrong: list[pd.Timestamp] = dataclasses.field(default_factory=list)

    @property
    def session(self) -> pd.Timestamp:
        return self.bars["session"][self.at]

    def put(self, column: str, value: float) -> list[pd.Timestamp]:
        self.bars.loc[self.at, column] = value
        return [self.session]

    def price(self) -> str:
        return str(self.rng.choice(PRICES))

    def scale(self, rows: slice, factor: float) -> None:
        self.bars.loc[rows, PRICES] *= factor

    def pay(self, factor: float, paid: "pd.Series[bool]") -> None:
        """Dividends in the measure of the changed prices."""
        self.actions.loc[paid & (self.actions["kind"] == "dividend"), "value"] *= factor

    def copy_to(self, session: object) -> list[pd.Timestamp]:
        """The row at `at` once more, under another date."""
        stamp = pd.Timestamp(session).as_unit("s")
        self.bars = pd.concat([self.bars, self.bars.loc[[self.at]].assign(session=stamp)], ignore_index=True)
        return [stamp]

    def act(self, kind: str, value: float) -> None:
        row = {"ticker": self.bars["ticker"][0], "ex_date": self.session, "kind": kind, "value": value}
        self.actions = pd.concat([self.actions, pd.DataFrame([row])], ignore_index=True)


Plant = Callable[[Field], list[pd.Timestamp]]


def _outside(field: Field, column: str) -> list[pd.Timestamp]:
    row = field.bars.loc[field.at]
    low = field.rng.random() < 0.5
    return field.put(column, row["low"] * 0.97 if low else row["high"] * 1.03)


def _upside_down(field: Field) -> list[pd.Timestamp]:
    low = field.bars["low"][field.at]
    return field.put("high", low * field.rng.uniform(0.5, 0.99))


def _closed(field: Field, weekend: bool) -> list[pd.Timestamp]:
    days = pd.date_range(field.bars["session"].iloc[0], field.bars["session"].iloc[-1])
    closed = days.difference(pd.DatetimeIndex(field.bars["session"]))
    which = closed[(closed.day_of_week >= 5) == weekend]
    return field.copy_to(field.rng.choice(which.to_numpy()))


def _missing(field: Field) -> list[pd.Timestamp]:
    gone = field.bars["session"][field.at : field.at + int(field.rng.integers(0, 5))]
    field.bars = field.bars.drop(index=gone.index).reset_index(drop=True)
    return gone.tolist()


def _recycled(field: Field) -> list[pd.Timestamp]:
    """Another company's bars after a gap of more than a quarter."""
    gap = slice(field.at, field.at + int(field.rng.integers(62, 90)))
    back = field.bars["session"][gap.stop]
    factor = (
        float(field.rng.choice([0.04, 0.06, 12, 25]))
        * field.bars["close"][field.at - 1]
        / field.bars["close"][gap.stop]
    )
    field.scale(slice(gap.stop, None), factor)
    field.pay(factor, field.actions["ex_date"] >= field.session)
    field.actions = field.actions[~field.actions["ex_date"].between(field.session, back)]
    field.bars = field.bars.drop(index=range(gap.start, gap.stop)).reset_index(drop=True)
    return [back]


def _idle(field: Field) -> list[pd.Timestamp]:
    rows = slice(field.at, field.at + int(field.rng.integers(0, 6)))
    before = field.bars["close"][field.at - 1]
    field.bars.loc[rows, PRICES] = before
    field.bars.loc[rows, "volume"] = 0.0
    return field.bars.loc[rows, "session"].tolist()


def _stale(field: Field) -> list[pd.Timestamp]:
    rows = slice(field.at, field.at + int(field.rng.integers(20, 40)))
    if field.bars["close"][field.at - 1] == field.bars["close"][field.at - 2]:
        field.scale(slice(field.at - 1, field.at - 1), 1.01)
    before = field.bars["close"][field.at - 1]
    field.bars.loc[rows, PRICES] = before
    if field.bars["close"][rows.stop + 1] == before:
        field.scale(slice(rows.stop + 1, rows.stop + 1), 1.01)
    return field.bars.loc[rows, "session"].tolist()


def _repeated(field: Field) -> list[pd.Timestamp]:
    columns = [*PRICES, "volume"]
    field.bars.loc[field.at - 1, "high"] *= 1.001  # not a bar of one trade
    field.bars.loc[field.at, columns] = field.bars.loc[field.at - 1, columns]
    return [field.session]


def _unit(field: Field, longest: int) -> list[pd.Timestamp]:
    rows = slice(field.at, field.at + int(field.rng.integers(0, longest)))
    field.scale(rows, float(field.rng.choice([100.0, 0.01, 1000.0])))
    return field.bars.loc[rows, "session"].tolist()


def _open_end(field: Field) -> list[pd.Timestamp]:
    """A change of unit that is never taken back: the shorter part is wrong."""
    early = field.at < len(field.bars) // 2
    rows = slice(None, field.at - 1) if early else slice(field.at, None)
    factor = float(field.rng.choice([100.0, 0.01]))
    field.scale(rows, factor)
    field.pay(factor, (field.actions["ex_date"] < field.session) == early)
    return field.bars.loc[rows, "session"].tolist()


def _split(field: Field, ratios: tuple[float, ...]) -> list[pd.Timestamp]:
    ratio = float(field.rng.choice(ratios))
    before = slice(None, field.at - 1)
    field.scale(before, ratio)
    field.bars.loc[before, "volume"] /= ratio
    field.pay(ratio, field.actions["ex_date"] < field.session)
    return [field.session]


def _unshown_split(field: Field) -> list[pd.Timestamp]:
    field.act("split", float(field.rng.choice([2.0, 3.0, 1.5, 0.1])))
    return [field.session]


def _unshown_dividend(field: Field) -> list[pd.Timestamp]:
    """A dividend in pence where prices are in pounds."""
    field.act("dividend", float(field.rng.uniform(0.4, 0.9)) * field.bars["close"][field.at - 1])
    return [field.session]


def _spike(field: Field) -> list[pd.Timestamp]:
    field.scale(slice(field.at, field.at), float(field.rng.choice([0.3, 0.5, 0.6, 1.6, 2.0, 5.0])))
    return [field.session]


def _stray(field: Field) -> list[pd.Timestamp]:
    up = field.rng.random() < 0.5
    field.bars.loc[field.at, "high" if up else "low"] *= 10.0 if up else 0.1
    return [field.session]


def _impossible(field: Field) -> list[pd.Timestamp]:
    factor = float(field.rng.choice([1 / 58.5, 58.5]))
    field.scale(slice(field.at, None), factor)
    field.pay(factor, field.actions["ex_date"] >= field.session)
    return [field.session]


def _conflict(field: Field) -> list[pd.Timestamp]:
    flagged = field.copy_to(field.session)
    field.bars.loc[len(field.bars) - 1, "volume"] += 1
    return flagged


def _odd(field: Field) -> list[pd.Timestamp]:
    field.act(str(field.rng.choice(["split", "dividend"])), float(field.rng.choice([0.0, -1.0, np.nan, np.inf])))
    return [field.session]


def _adjust(field: Field, step: float) -> None:
    """`adj_close` of all earlier bars moves by a factor, as if something had been paid at `at`."""
    field.bars.loc[: field.at - 1, "adj_close"] *= step


def _missing_dividend(field: Field) -> list[pd.Timestamp]:
    """A dividend that the price shows and the actions name, and adj_close does not."""
    share = float(field.rng.uniform(0.004, 0.05))
    cash = share * field.bars["close"][field.at - 1]
    field.act("dividend", cash)
    return [field.session]


def _unknown_dividend(field: Field) -> list[pd.Timestamp]:
    _adjust(field, 1 - float(field.rng.uniform(0.01, 0.05)))
    paid = field.session
    field.at -= 15
    cash = 0.01 * field.bars["close"][field.at - 1]  # so that its dividends are known, and shown
    field.act("dividend", cash)
    _adjust(field, 1 - cash / field.bars["close"][field.at - 1])
    return [paid]


def _seam(field: Field) -> list[pd.Timestamp]:
    _adjust(field, float(field.rng.uniform(1.01, 1.3)))
    return [field.session]


FAULTS: dict[str, tuple[str, Plant]] = {
    "negative price": ("negative-price", lambda f: f.put(f.price(), -f.bars["close"][f.at])),
    "zero price": ("zero-price", lambda f: f.put(f.price(), 0.0)),
    "missing price": ("missing-price", lambda f: f.put(f.price(), np.nan)),
    "infinite price": ("infinite-price", lambda f: f.put(f.price(), np.inf)),
    "negative volume": ("negative-volume", lambda f: f.put("volume", -1.0)),
    "missing volume": ("missing-volume", lambda f: f.put("volume", np.nan)),
    "infinite volume": ("infinite-volume", lambda f: f.put("volume", np.inf)),
    "high below low": ("high-below-low", _upside_down),
    "open outside": ("open-outside-range", lambda f: _outside(f, "open")),
    "close outside": ("close-outside-range", lambda f: _outside(f, "close")),
    "open in pence": ("open-outside-range", lambda f: f.put("open", 100 * f.bars["open"][f.at])),
    "close in pence": ("close-outside-range", lambda f: f.put("close", 100 * f.bars["close"][f.at])),
    "weekend": ("weekend-bar", lambda f: _closed(f, weekend=True)),
    "holiday": ("holiday-bar", lambda f: _closed(f, weekend=False)),
    "future": ("future-bar", lambda f: f.copy_to("2026-01-06")),
    "partial": ("partial-last-bar", lambda f: f.copy_to("2026-01-05")),
    "before calendar": ("before-calendar", lambda f: f.copy_to("1970-01-02")),
    "same row twice": ("duplicate", lambda f: f.copy_to(f.session)),
    "two rows that differ": ("conflicting-duplicate", _conflict),
    "missing sessions": ("missing-session", _missing),
    "recycled": ("recycled-ticker", _recycled),
    "no trade": ("zero-volume", _idle),
    "stale": ("stale-price", _stale),
    "repeated": ("repeated-bar", _repeated),
    "unit of one bar": ("unit-error", lambda f: _unit(f, 1)),
    "unit of a run": ("unit-error", lambda f: _unit(f, 60)),
    "unit from here on": ("unit-error", _open_end),
    "split": ("unadjusted-split", lambda f: _split(f, (1.5, 2, 3, 4, 5, 7, 10, 20))),
    "reverse split": ("unadjusted-reverse-split", lambda f: _split(f, (1 / 2, 1 / 3, 1 / 5, 0.1, 0.05))),
    "split not in the prices": ("split-without-step", _unshown_split),
    "dividend not in the prices": ("dividend-without-step", _unshown_dividend),
    "spike": ("spike", _spike),
    "stray high or low": ("stray-extreme", _stray),
    "impossible move": ("implausible-return", _impossible),
    "odd action": ("odd-action", _odd),
    "dividend not in adj_close": ("missing-dividend-adjustment", _missing_dividend),
    "dividend only in adj_close": ("unknown-dividend", _unknown_dividend),
    "adj_close of two downloads": ("adjusted-close-falls", _seam),
}
NEEDS_ADJUSTED = {"dividend not in adj_close", "dividend only in adj_close", "adj_close of two downloads"}
ROOM = 100  # bars left before and after a fault


def plant(name: str, bars: pd.DataFrame, actions: pd.DataFrame, rng: np.random.Generator) -> Field:
    """One ticker's frames with the fault `name` in a random session that is none of a jump, with no action close by."""
    if name not in NEEDS_ADJUSTED:
        bars = bars.drop(columns="adj_close")
    acted = np.flatnonzero(bars["session"].isin(actions["ex_date"]))
    places = np.arange(ROOM, len(bars) - ROOM)
    move = np.log(bars["close"] / bars["close"].shift()).abs()
    busy = bars["volume"] / bars["volume"].rolling(20).median()
    wide = np.log(bars["high"] / bars["low"])
    calm = (move < 0.05) & (move.shift(-1) < 0.05) & (busy < 2) & (wide < 2 * wide.rolling(20).median())
    free = places[(np.abs(places[:, None] - acted) > 12).all(axis=1) & calm.to_numpy()[places]]
    field = Field(bars.copy(), actions.copy(), int(rng.choice(free)), rng)
    field.wrong = FAULTS[name][1](field)
    return field
