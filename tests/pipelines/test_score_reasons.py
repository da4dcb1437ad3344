"""Every ticker of the universe has a forecast or a reason, and the reason is the true one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tapes
from yahoo_stub import YahooStub, days, listing

from data.calendar import sessions
from data.errors import LakeError
from data.lake import Lake
from data.prices.ticker_state import TickerState, store_states
from pipelines.abstain import abstentions
from pipelines.bundle import load_bundle
from pipelines.dataset import load_panel, load_scorable
from pipelines.decision import gather_decision
from pipelines.score import Ask, score
from pipelines.workspace import open_workspace

DAY = np.datetime64("2024-03-28")  # a Thursday; the next session is Monday
NIGHT = tapes.evening("2024-03-28")
SHORT = ("price.lookback=10",)


@pytest.fixture
def stub() -> Iterator[YahooStub]:
    with YahooStub() as served:
        yield served


def reasons(folder: Path, recorded_by: np.datetime64 = NIGHT) -> dict[str, str]:
    workspace = open_workspace(folder, SHORT)
    panel = load_scorable(workspace, workspace.config, DAY)
    return abstentions(panel, workspace, 10, recorded_by)[1]


def test_a_bar_that_was_left_out_is_named_with_its_code(stub: YahooStub, tmp_path: Path) -> None:
    folder = tapes.workspace(tmp_path / "desk", "GOOD", "ODDS", "LATE")
    for number, name in enumerate(("GOOD", "ODDS", "LATE")):
        stub.listings[name] = listing(days(40), seed=number)
    tapes.ingest(folder, stub, tapes.evening("2024-03-27"))
    odd, late = stub.listings["ODDS"].bars, stub.listings["LATE"].bars
    odd.loc[39, "high"] = odd.loc[39, "low"] / 2
    stub.listings["LATE"].bars = late.iloc[:-1]
    tapes.ingest(folder, stub, NIGHT)
    found = reasons(folder)
    assert set(found) == {"ODDS", "LATE"}
    assert found["ODDS"].startswith("quarantined: ")
    assert "2024-03-28" in found["ODDS"]
    assert "high-below-low" in found["ODDS"]
    assert found["LATE"].startswith("stale: no bar for 2024-03-28")
    before = Lake(folder / "lake").count("tickers")
    tapes.ingest(folder, stub, NIGHT + tapes.MINUTE)
    assert Lake(folder / "lake").count("tickers") == before, "remembered once"
    stub.listings["ODDS"] = listing(days(40), seed=1)
    tapes.ingest(folder, stub, NIGHT + 2 * tapes.MINUTE)
    assert set(reasons(folder, NIGHT + 2 * tapes.MINUTE)) == {"LATE"}


def test_the_vendors_word_is_told_as_it_was_then(stub: YahooStub, tmp_path: Path) -> None:
    folder = tapes.workspace(tmp_path / "desk", "GOOD", "LTD", "END", "NEVER")
    stub.listings |= {"GOOD": listing(days(40)), "LTD": listing(days(40)[:-1]), "END": listing(days(40)[:-2])}
    tapes.ingest(folder, stub, NIGHT)
    since = np.datetime64("2024-03-28T21:30:00", "us")
    lake = Lake(folder / "lake")
    limited = TickerState("LTD", "yahoo", "limited", "http-429", "too many\nrequests\x1b[31m", failing_since=since)
    ended = TickerState("END", "yahoo", "ended", "no-bars", "its history ends on 2024-03-26", failing_since=since)
    store_states(lake, [limited, ended], NIGHT)
    found = reasons(folder)
    assert found["LTD"] == (
        "stale: no bar for 2024-03-28, the last is of 2024-03-27; "
        "yahoo: limited since 2024-03-28T21:30:00Z: too many requests[31m"
    )
    assert found["END"].startswith("delisted: no bar since 2024-03-26; yahoo: ended since 2024-03-28T21:30:00Z")
    assert found["NEVER"].startswith("stale: no bar for 2024-03-28")
    earlier = reasons(folder, NIGHT - 60 * tapes.MINUTE)
    assert earlier["LTD"] == "stale: no bar for 2024-03-28, the last is of 2024-03-27"


def absurd(folder: Path, ticker: str) -> None:
    """A newer version of its last bar, of a volume without bound."""
    lake = Lake(folder / "lake")
    row = lake.current("bars").query("ticker == @ticker").tail(1)
    lake.merge("bars", row.assign(version=np.int32(9), volume=np.inf, available_at=row["available_at"]))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_one_broken_ticker_does_not_stop_a_night(workspace: Path, market: Any) -> None:
    tickers = sorted(market.prices["ticker"].unique())
    absurd(workspace, tickers[2])
    opened = open_workspace(workspace)
    with pytest.raises(LakeError, match=f"{tickers[2]}.*volume_z"):
        load_panel(opened, opened.config)
    made = score(opened, load_bundle(opened.runs), Ask(), lambda: np.datetime64("2024-01-01", "us"))
    assert list(made.abstained) == [tickers[2]]
    assert made.abstained[tickers[2]].startswith("not finite: volume_z is ")
    assert [forecast.ticker for forecast in made.forecasts] == [name for name in tickers if name != tickers[2]]
    assert made.coverage == 7 / 8


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
def test_nor_does_a_forecast_that_is_no_number(workspace: Path, market: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import score as job

    real = job.predict

    def broken(*args: Any) -> Any:
        made = real(*args)
        made.location[3] = np.nan
        return made

    monkeypatch.setattr(job, "predict", broken)
    opened = open_workspace(workspace)
    made = score(opened, load_bundle(opened.runs), Ask(), lambda: np.datetime64("2024-01-01", "us"))
    named = sorted(market.prices["ticker"].unique())[3]
    assert list(made.abstained) == [named]
    assert made.abstained[named].startswith("not finite: the model's forecast is nan")
    assert made.added == 7


def test_every_ticker_has_one_or_the_other(
    workspace: Path, market: Any, tapewire: Callable[..., Any], tmp_path: Path
) -> None:
    tickers = sorted(market.prices["ticker"].unique())
    last = pd.Timestamp(market.prices["date"].max())
    lines = [f"{name},2000-01-01,{'2018-02-01' if name == tickers[0] else ''}" for name in [*tickers, "NOPE"]]
    (workspace / "members.csv").write_text("\n".join(["ticker,from,to", *lines]) + "\n")
    ran = tapewire(workspace, "score", "--set", "universe=members.csv", "--json").json
    assert ran["abstained"][tickers[0]] == f"not in the universe on {last.date()}"
    assert ran["abstained"]["NOPE"] == f"stale: no bar for {last.date()}"
    assert (ran["scored"], ran["coverage"]) == (7, 7 / 8)
    watched = tapewire(workspace, "score", "--set", f"watchlist=['{tickers[1].lower()}','NOPE','NOPE']", "--json").json
    assert (watched["scored"], set(watched["abstained"]), watched["coverage"]) == (1, {"NOPE"}, 0.5)


def test_a_decision_without_a_single_forecast_is_none_published(workspace: Path, tapewire: Callable[..., Any]) -> None:
    ran = tapewire(workspace, "score", "--set", "watchlist=['NOPE']", "--json")
    assert (ran.code, "expected bars" in ran.err) == (2, True)


def test_explain_and_score_abstain_alike(workspace: Path) -> None:
    opened = open_workspace(workspace)
    exchange = sessions("XNYS")
    bundle = load_bundle(opened.runs)
    decision = gather_decision(opened, bundle, None)
    made = score(opened, bundle, Ask(), lambda: exchange.target_open[decision.at])
    assert made.abstained == decision.abstained
    assert len(made.forecasts) == len(decision.rows)
