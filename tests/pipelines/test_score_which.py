"""Which decision `tapewire score` takes, by which model, and how far it reads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data.calendar import sessions
from data.lake import Lake
from pipelines.bundle import load_bundle
from pipelines.decision import find_moment
from pipelines.promotions import FILE, Promotions, promote
from pipelines.workspace import open_workspace

Tapewire = Callable[..., Any]

EXCHANGE = sessions("XNYS")


def foreign_bar(workspace: Path, session: str, ticker: str = "BTC-USD") -> np.datetime64:
    """A bar of a market that never closes; the newest session that the lake had bars of before."""
    lake = Lake(workspace / "lake")
    newest = lake.greatest("bars", "session")
    one = lake.frame("bars").head(1).assign(ticker=ticker, session=pd.Timestamp(session).as_unit("s"))
    assert lake.merge("bars", one) == 1
    return newest


def taken(workspace: Path, *overrides: str) -> np.datetime64:
    opened = open_workspace(workspace, overrides)
    return find_moment(opened, load_bundle(opened.runs), None).session


def day_after(market: Any, weekday: int) -> str:
    """The first day after the market's last that falls on this weekday."""
    days = pd.date_range(market.prices["date"].max() + pd.Timedelta(days=1), periods=7)
    return str(days[days.day_of_week == weekday][0].date())


def test_a_bar_of_a_day_off_stops_nothing(workspace: Path, market: Any, tapewire: Tapewire) -> None:
    saturday = day_after(market, 5)
    foreign_bar(workspace, saturday)
    last = EXCHANGE.labels[np.searchsorted(EXCHANGE.labels, np.datetime64(saturday)) - 1]
    assert taken(workspace) == last
    assert tapewire(workspace, "score", "--json").code == 0


def test_a_bar_of_a_ticker_that_is_not_watched_shifts_nothing(workspace: Path, market: Any, tapewire: Tapewire) -> None:
    newest = foreign_bar(workspace, day_after(market, 5))
    watched = sorted(market.prices["ticker"].unique())[:2]
    assert taken(workspace, f"watchlist={watched}") == newest
    (workspace / "members.csv").write_text("ticker,from\n" + "".join(f"{name},2010-01-01\n" for name in watched))
    assert taken(workspace, "universe='members.csv'") == newest
    ran = tapewire(workspace, "score", "--set", f"watchlist={watched}", "--json")
    assert (ran.code, ran.json["scored"]) == (0, 2)


def test_where_no_watched_ticker_trades_any_more_the_market_tells_the_session(workspace: Path, market: Any) -> None:
    newest = Lake(workspace / "lake").greatest("bars", "session")
    foreign_bar(workspace, "2018-02-05", "GONE")
    assert taken(workspace, "watchlist=['GONE']") == newest


@pytest.fixture
def two(workspace: Path, tapewire: Tapewire) -> tuple[str, str]:
    """The champion before the last month of the lake, and the one since."""
    first = load_bundle(workspace / "runs").model_id
    second = tapewire(workspace, "train", "--set", "seeds=[1]", "--json").json["model"]
    (workspace / "runs" / FILE).unlink()
    for model_id, at in ((first, "2018-11-01"), (second, "2018-12-20")):
        promote(workspace / "runs", model_id, np.datetime64(at, "us"))
    return first, second


def scored_by(ran: Any) -> str:
    assert ran.code == 0, ran.err
    return Path(ran.json["path"]).parent.name.split("-")[0]


def test_a_past_decision_is_scored_by_its_own_champion(
    workspace: Path, two: tuple[str, str], tapewire: Tapewire
) -> None:
    ran = tapewire(workspace, "score", "--as-of", "2018-12-03", "--json")
    assert (scored_by(ran), ran.err) == (two[0], "")
    assert scored_by(tapewire(workspace, "score", "--as-of", "2018-12-21", "--json")) == two[1]
    assert scored_by(tapewire(workspace, "score", "--json")) == two[1]
    assert scored_by(tapewire(workspace, "score", "--as-of", "2018-12-03", "--model", two[1], "--json")) == two[1]


def test_before_the_first_champion_the_present_one_is_taken_and_told(workspace: Path, tapewire: Tapewire) -> None:
    champion = Promotions.read(workspace / "runs").champion()
    ran = tapewire(workspace, "score", "--as-of", "2018-12-03", "--json")
    assert scored_by(ran) == champion
    assert f"no champion yet at the decision after 2018-12-03: scored with the present one, {champion}" in ran.err


def test_rows_recorded_after_the_start_are_not_read(workspace: Path, market: Any, tapewire: Tapewire) -> None:
    """Or `cutoff_at`, which says how far the lake was read, would not be true."""
    before = tapewire(workspace, "score", "--json").json
    lake, later = Lake(workspace / "lake"), pd.Timestamp("2199-01-01", tz="UTC").as_unit("us")
    bars = lake.current("bars").groupby("ticker").tail(3)
    bars = bars.assign(close=bars["close"] * 3, version=bars["version"] + 1, recorded_at=later)
    assert lake.merge("bars", bars) == len(bars)
    after = tapewire(workspace, "score", "--json").json
    assert (before["added"], after["added"]) == (8, 0)
