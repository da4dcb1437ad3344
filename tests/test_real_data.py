"""Real files, where a folder ../shared holds them beside the checkout. It is optional and not part of the project."""

from pathlib import Path

import numpy as np
import pytest

from data.calendar import sessions
from data.lake import Lake
from pipelines.config import parse_config
from pipelines.dataset import load_panel
from pipelines.imports import import_headlines, import_prices
from pipelines.workspace import Workspace

MARKET = Path(__file__).parents[2] / "shared" / "market"
PRICES, TWEETS, NEWS = (MARKET / f"{name}.parquet" for name in ("stocknet_prices", "stocknet_tweets", "news_headlines"))

pytestmark = pytest.mark.skipif(not MARKET.is_dir(), reason="../shared/market, optional test data, is not there")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(tmp_path_factory.mktemp("stocknet") / "lake")
    imported = import_prices(lake, [PRICES], {}, "XNYS")
    assert imported.as_dict() == {
        "read": 108_592,
        "added": 108_589,
        "links_added": 0,
        "actions_added": 1_303,
        "skipped": {"missing-price": 3},
    }
    return lake


def test_prices_again_add_nothing(lake: Lake) -> None:
    again = import_prices(lake, [PRICES], {}, "XNYS")
    assert (again.added, again.actions_added) == (0, 0)


def test_implied_dividends_are_the_ones_apple_paid(lake: Lake) -> None:
    actions = lake.current("actions")
    paid = actions[(actions["ticker"] == "AAPL") & (actions["ex_date"] >= "2015-01-01") & (actions["ex_date"] < "2016")]
    assert paid["value"].round(2).tolist() == [0.47, 0.52, 0.52, 0.52]


def test_returns_across_facts_that_are_known(lake: Lake) -> None:
    config = parse_config({}, (), "test")
    panel = load_panel(Workspace(lake.folder.parent, config), config)
    total = panel.labels["close_close"]
    apple, alibaba = panel.tickers.index("AAPL"), panel.tickers.index("BABA")
    # The 7:1 split of 2014-06-09 is no crash, and BABA has no bar before its first session.
    before = int(panel.sessions.index(["2014-06-06"])[0])
    assert abs(total[apple, before]) < 0.05
    first = int(panel.sessions.index(["2014-09-19"])[0])
    assert panel.observed[alibaba, first]
    assert not panel.observed[alibaba, :first].any()
    assert np.isfinite(panel.features).all()


def test_dates_without_a_time_are_known_at_the_next_close(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    import_headlines(lake, [NEWS], {}, "XNYS")
    rows = lake.current("headlines")
    days = rows[rows["precision"] == "day"]
    published = days["published_at"].dt.tz_localize(None).to_numpy()
    available = days["available_at"].dt.tz_localize(None).to_numpy(dtype="datetime64[us]")
    assert len(days) > 50_000
    assert (available == sessions("XNYS").close_after(published)).all()
    assert (available > published + np.timedelta64(24, "h")).all()


@pytest.mark.slow
def test_tweets_under_several_tickers_are_one_headline_with_several_links(lake: Lake) -> None:
    mapping = {"published_at": "created_at", "title": "text"}
    first = import_headlines(lake, [TWEETS], mapping, "XNYS")
    assert (first.read, first.added, first.links_added, first.skipped) == (119_641, 96_826, 119_641, {})
    again = import_headlines(lake, [TWEETS], mapping, "XNYS")
    assert (again.added, again.links_added) == (0, 0)
