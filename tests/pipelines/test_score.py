import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data.calendar import sessions
from data.lake import Lake
from data.types import QUANTILES
from pipelines.bundle import load_bundle

Tapewire = Callable[..., Any]

CONTRACT = {
    "session",
    "decision_at",
    "scored",
    "added",
    "abstained",
    "path",
    "standing",
    "coverage",
    "published",
}


def forecasts(workspace: Path) -> pd.DataFrame:
    return Lake(workspace / "lake").current("forecasts").set_index("ticker")


def short_history(folder: Path, market: Any, bars: int, name: str = "SHRT") -> Path:
    """A file of a ticker that has only the market's last `bars` sessions."""
    prices = market.prices
    whole = prices[prices["ticker"] == prices["ticker"].iloc[0]].tail(bars)
    columns = ["date", "open", "high", "low", "close", "volume"]
    whole[columns].assign(ticker=name, dividend=0.0).to_csv(folder / "short.csv", index=False)
    return folder / "short.csv"


def test_the_contract_of_json(workspace: Path, market: Any, tapewire: Tapewire) -> None:
    ran = tapewire(workspace, "score", "--json")
    assert set(ran.json) == CONTRACT
    last = market.prices["date"].max()
    exchange = sessions("XNYS")
    assert ran.json["session"] == str(exchange.target[exchange.index([last])[0]])
    assert pd.Timestamp(ran.json["decision_at"]).tzinfo is not None
    assert pd.Timestamp(ran.json["decision_at"]) > last.tz_localize("UTC")
    assert (ran.json["scored"], ran.json["added"], ran.json["abstained"]) == (8, 8, {})
    assert ran.err == ""


def test_scoring_twice_adds_nothing(workspace: Path, tapewire: Tapewire) -> None:
    first = tapewire(workspace, "score", "--as-of", "2018-12-03", "--json").json
    before = forecasts(workspace)
    second = tapewire(workspace, "score", "--as-of", "2018-12-03", "--json").json
    assert (first["added"], second["added"], second["scored"]) == (8, 0, 8)
    pd.testing.assert_frame_equal(forecasts(workspace), before)


def test_forecasts_are_coherent_and_published(workspace: Path, tapewire: Tapewire) -> None:
    path = workspace / tapewire(workspace, "score", "--json").json["path"]
    made = forecasts(workspace)
    published = pd.read_parquet(path).set_index("ticker").loc[made.index]
    for name in ("mean", "prob_up", "price", "model_id", "data_version"):
        assert (published[name] == made[name]).all()
    quantiles = np.stack(made["quantiles"])
    assert quantiles.shape == (8, len(QUANTILES))
    assert (np.diff(quantiles) > 0).all()
    assert ((made["prob_up"] > 0.5) == (made["mean"] > 0)).all()
    assert (made["price_low"] < made["price"]).all()
    assert (made["price"] < made["price_high"]).all()
    assert (made["available_at"] == made["made_at"]).all()
    assert (made["cutoff_at"] <= made["made_at"]).all()
    assert set(made["origin"]) == {"backfill"}  # the target session is long over
    closes = [tapewire(workspace, "bars", ticker, "--limit", "1", "--json").lines[0]["close"] for ticker in made.index]
    np.testing.assert_allclose(made["price"], closes * np.exp(made["mean"]))


@pytest.mark.parametrize(
    ("as_of", "session", "decision_at"),
    [
        ("2018-11-21", "2018-11-23", "2018-11-23T03:00:00+00:00"),  # the day before Thanksgiving
        ("2018-12-07", "2018-12-10", "2018-12-10T03:00:00+00:00"),  # a Friday: its eve is Sunday
        ("2018-10-31", "2018-11-01", "2018-11-01T02:00:00+00:00"),  # still summer time
    ],
)
def test_a_date_means_the_decision_that_follows_its_session(
    workspace: Path, tapewire: Tapewire, as_of: str, session: str, decision_at: str
) -> None:
    result = tapewire(workspace, "score", "--as-of", as_of, "--json").json
    assert (result["session"], result["decision_at"]) == (session, decision_at)


def test_a_decision_the_model_was_fitted_on_is_called_so(workspace: Path, market: Any, tapewire: Tapewire) -> None:
    ran = tapewire(workspace, "score", "--as-of", "2018-06-01", "--in-sample", "--json")
    assert ran.code == 0, ran.err
    assert "fitted" in ran.err
    assert (ran.json["standing"], ran.json["published"]) == ("in-sample", False)
    made = forecasts(workspace)
    assert set(zip(made["standing"], made["origin"], strict=True)) == {("in-sample", "backfill")}
    ran = tapewire(workspace, "score", "--as-of", str(market.valid_end), "--json")
    assert (ran.code, ran.json["standing"]) == (0, "replay")
    assert "fitted" not in ran.err


def test_such_a_decision_is_refused_unless_asked_for(workspace: Path, tapewire: Tapewire) -> None:
    exchange = sessions("XNYS")
    settled_at = load_bundle(workspace / "runs").fitted.settled_at
    first = int(np.searchsorted(exchange.decision_at, settled_at))  # the first decision that knows the last label
    for at in (first - 1, first - 60):
        ran = tapewire(workspace, "score", "--as-of", exchange.labels[at])
        assert ran.code == 2
        for word in (f"settled at {settled_at}"[:30], f"decision of {exchange.decision_at[at]}"[:30], "--in-sample"):
            assert word in ran.err
    assert forecasts(workspace).empty
    assert not (workspace / "reports" / "forecasts").exists()
    assert tapewire(workspace, "score", "--as-of", exchange.labels[first]).code == 0


def test_a_ticker_with_too_few_sessions_abstains_and_says_so(workspace: Path, market: Any, tapewire: Tapewire) -> None:
    assert tapewire(workspace, "import", "prices", short_history(workspace, market, 9)).code == 0
    ran = tapewire(workspace, "score", "--json").json
    assert ran["scored"] == 8
    assert list(ran["abstained"]) == ["SHRT"]
    assert "9" in ran["abstained"]["SHRT"]
    assert "10" in ran["abstained"]["SHRT"]
    told = tapewire(workspace, "score")
    assert "SHRT" in told.out


def test_a_ticker_that_stopped_trading_abstains(workspace: Path, market: Any, tapewire: Tapewire) -> None:
    gone = short_history(workspace, market, 60, "GONE")
    frame = pd.read_csv(gone)
    frame.iloc[:40].to_csv(gone, index=False)
    assert tapewire(workspace, "import", "prices", gone).code == 0
    ran = tapewire(workspace, "score", "--set", "watchlist=['GONE','NOPE']", "--json").json
    assert ran["scored"] == ran["added"] == 0
    assert set(ran["abstained"]) == {"GONE", "NOPE"}
    assert "no bar" in ran["abstained"]["GONE"]


def test_a_watchlist_is_all_that_is_scored(workspace: Path, market: Any, tapewire: Tapewire) -> None:
    wanted = sorted(market.prices["ticker"].unique())[:2]
    ran = tapewire(workspace, "score", "--set", f"watchlist={wanted}", "--json").json
    assert ran["scored"] == 2
    assert sorted(forecasts(workspace).index) == wanted


def test_the_price_is_on_the_share_basis_of_the_target_session(
    workspace: Path, market: Any, tapewire: Tapewire
) -> None:
    """A split announced for the target session: the same return, half the price."""
    days = np.sort(market.prices["date"].unique())
    as_of, ex_date = str(days[-2])[:10], days[-1]
    quiet = (market.prices["date"] == ex_date) & (market.prices[["split", "dividend"]] == 0).all(axis=1)
    ticker = market.prices.loc[quiet, "ticker"].iloc[0]
    tapewire(workspace, "score", "--as-of", as_of)
    expected = forecasts(workspace).loc[ticker]
    prices = market.prices.copy()
    row = (prices["date"] == ex_date) & (prices["ticker"] == ticker)
    prices.loc[row, "split"] = 2.0
    prices.loc[row, "announced_at"] = pd.Timestamp(f"{as_of}T12:00:00Z")
    prices.to_parquet(workspace / "prices.parquet", index=False)
    for table in ("bars", "actions", "forecasts"):
        shutil.rmtree(workspace / "lake" / table)
    assert tapewire(workspace, "import", "prices", "prices.parquet", "--basis", "raw").code == 0
    tapewire(workspace, "score", "--as-of", as_of)
    found = forecasts(workspace).loc[ticker]
    assert (found["mean"], found["prob_up"]) == (expected["mean"], expected["prob_up"])
    assert found["price"] == pytest.approx(expected["price"] / 2, rel=1e-12)
    assert found["price_low"] == pytest.approx(expected["price_low"] / 2, rel=1e-12)
    assert found["data_version"] != expected["data_version"]


@pytest.mark.usefixtures("no_hub")
def test_without_headlines_price_only_works_and_says_so(
    tmp_path: Path, imported: Path, sources: Path, tapewire: Tapewire
) -> None:
    """Even where the configured encoder cannot be had: nothing is there for it to read."""
    folder = tmp_path / "quiet"
    folder.mkdir()
    text = (imported / "tapewire.toml").read_text()
    (folder / "tapewire.toml").write_text(text.replace('encoder = "minilm"', 'encoder = "finbert"'))
    assert tapewire(folder, "import", "prices", sources / "prices.parquet", "--basis", "raw").code == 0
    trained = tapewire(folder, "train", "--json")
    assert trained.code == 0, trained.err
    assert "no headlines" in trained.err
    assert "price" in trained.err
    scored = tapewire(folder, "score", "--json")
    assert scored.code == 0, scored.err
    assert scored.json["scored"] == 8
    ablated = tapewire(folder, "ablate", "--json")
    assert ablated.code == 0, ablated.err
    assert list(ablated.json["variants"]) == ["price"]
    assert ablated.json["paired"] == {}
    assert "no headlines" in ablated.err
