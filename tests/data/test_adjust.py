"""Total returns against values worked out by hand, before and after the actions were known."""

import math
from pathlib import Path

import numpy as np
import pytest

from data.adjust import PackedBars, adjusted_closes, returns
from data.calendar import sessions
from data.lake import Lake
from pipelines.imports import import_prices
from pipelines.listing import bars

# As traded: two for one on the 6th, 0.30 a new share in cash on the 8th, one for five on the 12th.
SESSIONS = ("2015-01-05", "2015-01-06", "2015-01-07", "2015-01-08", "2015-01-09", "2015-01-12")
CLOSES = (100.0, 51.5, 50.25, 49.75, 50.5, 249.0)
SPLITS = {"2015-01-06": 2.0, "2015-01-12": 0.2}
DIVIDENDS = {"2015-01-08": 0.3}
BY_HAND = (
    0.0,
    math.log(2 * 51.5 / 100.0),
    math.log(50.25 / 51.5),
    math.log((49.75 + 0.3) / 50.25),
    math.log(50.5 / 49.75),
    math.log(0.2 * 249.0 / 50.5),
)


def write(path: Path, actions: bool) -> Path:
    rows = ["date,open,high,low,close,volume" + (",split,dividend" if actions else "")]
    for day, close in zip(SESSIONS, CLOSES, strict=True):
        row = f"{day},{close},{close + 1},{close - 1},{close},1000"
        rows.append(row + (f",{SPLITS.get(day, '')},{DIVIDENDS.get(day, '')}" if actions else ""))
    path.write_text("\n".join(rows) + "\n")
    return path


def load(lake: Lake, path: Path, now: str) -> None:
    import_prices(lake, [path], {}, "XNYS", basis="raw", ticker="ABC", now=np.datetime64(now, "us"))


def total_returns(lake: Lake, as_of: str) -> list[float]:
    records = bars(lake, "ABC", np.datetime64(as_of, "us"), None, sessions("XNYS"))
    return [record["total_return"] for record in records]


def test_total_returns_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    load(lake, write(tmp_path / "raw.csv", actions=True), "2015-02-01")
    np.testing.assert_allclose(total_returns(lake, "2015-02-01"), BY_HAND, rtol=0, atol=1e-9)


@pytest.mark.parametrize("count", range(1, len(SESSIONS) + 1))
def test_a_later_action_changes_no_return_of_an_earlier_decision(tmp_path: Path, count: int) -> None:
    lake = Lake(tmp_path / "lake")
    load(lake, write(tmp_path / "raw.csv", actions=True), "2015-02-01")
    decided = total_returns(lake, f"{SESSIONS[count - 1]}T23:00")
    np.testing.assert_allclose(decided, BY_HAND[:count], rtol=0, atol=1e-9)


def test_prices_step_until_an_action_is_known_and_not_after(tmp_path: Path) -> None:
    """The same bars, whose actions come with a later file and had not been announced: known at the ex-dates' opens."""
    lake = Lake(tmp_path / "lake")
    load(lake, write(tmp_path / "bare.csv", actions=False), "2015-02-01")
    steps = np.diff(np.log(CLOSES), prepend=math.log(CLOSES[0]))
    np.testing.assert_allclose(total_returns(lake, "2015-02-01"), steps, rtol=0, atol=1e-9)
    load(lake, write(tmp_path / "full.csv", actions=True), "2015-02-02")
    np.testing.assert_allclose(total_returns(lake, "2015-02-02"), BY_HAND, rtol=0, atol=1e-9)


def test_adjusted_closes_end_at_the_last_close_and_step_by_the_returns() -> None:
    rng = np.random.default_rng(0)
    close = 50 * np.exp(rng.normal(0, 0.02, (3, 80)).cumsum(axis=1))
    close[2, 60:] = np.nan
    split = np.where(rng.random(close.shape) < 0.05, 2.0, 1.0)
    dividend = np.where(rng.random(close.shape) < 0.05, 0.4, 0.0)
    split[2, 60:], dividend[2, 60:] = 1.0, 0.0
    packed = PackedBars(close, close, close, close, close, split, dividend, close)
    moves = returns(packed)
    split_close, adjusted_close = adjusted_closes(packed, moves)
    last = np.array([79, 79, 59])
    ends = close[np.arange(3), last]
    np.testing.assert_allclose(split_close[np.arange(3), last], ends, rtol=1e-12)
    np.testing.assert_allclose(adjusted_close[np.arange(3), last], ends, rtol=1e-12)
    steps = np.diff(np.log(adjusted_close), axis=1)
    np.testing.assert_allclose(steps[:, :59], moves.total[:, 1:60], atol=1e-12)
    without = returns(PackedBars(close, close, close, close, close, split, np.zeros_like(dividend), close))
    np.testing.assert_allclose(np.diff(np.log(split_close), axis=1)[:, :59], without.total[:, 1:60], atol=1e-12)
