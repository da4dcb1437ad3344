"""A night reads only as far back as a forecast looks, and forecasts as from the whole history; what its hash says."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from deltalake import DeltaTable, write_deltalake

from data.panel import Panel
from data.simulate import MarketConfig, simulate, write
from data.text import text_keys
from data.windows import Samples
from pipelines.bundle import Bundle, load_bundle
from pipelines.data_version import data_versions
from pipelines.dataset import MEMORY, eligible, load_panel, load_scorable, reach
from pipelines.decision import gather_decision
from pipelines.predict import predict
from pipelines.workspace import Workspace, open_workspace

LOOKBACK = 10  # of the tests' settings
SESSIONS = 700
SPARSE, HALTED, YOUNG, GONE = "SPRS", "HALT", "YNGR", "GONE"


@pytest.fixture(scope="module")
def old(imported: Path, tmp_path_factory: pytest.TempPathFactory, tapewire: Callable[..., Any]) -> Workspace:
    """A lake more than twice as old as a forecast's reach; some tickers trade seldom, were halted, are new, ended."""
    folder = tmp_path_factory.mktemp("old")
    market = simulate(MarketConfig(seed=5, tickers=8, sessions=SESSIONS))
    write(market, folder)
    prices = market.prices
    one = prices[prices["ticker"] == prices["ticker"].iloc[0]].reset_index(drop=True)
    odd = {SPARSE: one[::20], HALTED: one.drop(range(SESSIONS - 50, SESSIONS - 20)), YOUNG: one[-25:], GONE: one[:-60]}
    prices = pd.concat([prices, *(part.assign(ticker=name) for name, part in odd.items())], ignore_index=True)
    prices.to_parquet(folder / "prices.parquet", index=False)
    shutil.copy(imported / "tapewire.toml", folder)
    for kind, options in (("prices", ("--basis", "raw")), ("headlines", ())):
        ran = tapewire(folder, "import", kind, folder / f"{kind}.parquet", *options)
        assert ran.code == 0, ran.err
    return open_workspace(folder)


@pytest.fixture(scope="module")
def bundle(trained: Path) -> Bundle:
    return load_bundle(trained / "runs")


@pytest.fixture(scope="module")
def session(old: Workspace) -> np.datetime64:
    return old.lake.greatest("bars", "session")


@pytest.fixture(scope="module")
def whole(old: Workspace, session: np.datetime64) -> Panel:
    return load_panel(old, old.config, session)


@pytest.fixture(scope="module")
def bounded(old: Workspace, session: np.datetime64) -> Panel:
    return load_scorable(old, old.config, session)


def vectors(panel: Panel, width: int) -> npt.NDArray[np.float16]:
    """Made-up embeddings, each its text's own."""
    keys = text_keys(panel.news.texts)[:, 0].tolist()
    rows = [np.random.default_rng(key).standard_normal(width) for key in keys]
    return np.array(rows, dtype=np.float16).reshape(-1, width)


def newest(panel: Panel, tickers: npt.NDArray[np.int64]) -> Samples:
    return Samples(tickers, np.full(len(tickers), len(panel.sessions) - 1))


def test_only_the_reach_is_read(old: Workspace, bounded: Panel, whole: Panel) -> None:
    assert len(whole.sessions) == SESSIONS
    assert len(bounded.sessions) == reach(old.config.price.lookback) == LOOKBACK + MEMORY
    assert len(bounded.news) < len(whole.news) / 10


def test_the_window_is_that_of_the_whole_history(whole: Panel, bounded: Panel) -> None:
    daily = np.array([ticker != SPARSE for ticker in whole.tickers])
    assert bounded.tickers == whole.tickers
    ours, theirs = bounded.features[daily, -LOOKBACK:], whole.features[daily, -LOOKBACK:]
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    for name in ("mask", "observed", "member"):
        np.testing.assert_array_equal(
            getattr(bounded, name)[daily, -LOOKBACK:], getattr(whole, name)[daily, -LOOKBACK:]
        )
    np.testing.assert_allclose(bounded.unit[daily, -1], whole.unit[daily, -1], rtol=1e-6)
    for name in ("close", "share_ratio"):
        np.testing.assert_array_equal(getattr(bounded, name)[daily, -1], getattr(whole, name)[daily, -1])


def test_the_same_tickers_have_bars_enough(whole: Panel, bounded: Panel) -> None:
    ours, theirs = eligible(bounded, LOOKBACK)[:, -1], eligible(whole, LOOKBACK)[:, -1]
    np.testing.assert_array_equal(ours, theirs)
    named = dict(zip(bounded.tickers, ours, strict=True))
    assert [named[name] for name in (SPARSE, HALTED, YOUNG, GONE)] == [False, True, True, False]
    assert ours.sum() == 8 + 2
    for lookback in range(1, LOOKBACK):
        np.testing.assert_array_equal(eligible(bounded, lookback)[:, -1], eligible(whole, lookback)[:, -1])


def test_the_forecasts_are_those_of_the_whole_history(
    old: Workspace, bundle: Bundle, whole: Panel, bounded: Panel
) -> None:
    tickers = np.flatnonzero(eligible(bounded, LOOKBACK)[:, -1])
    width = len(bundle.fitted.text_scaler.centre)
    ours, theirs = (
        predict(bundle.fitted, panel, vectors(panel, width), newest(panel, tickers), bundle.config)
        for panel in (bounded, whole)
    )
    np.testing.assert_allclose(ours.location, theirs.location, rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours.scale, theirs.scale, rtol=0, atol=1e-6)
    assert bounded.news.own.start[-1] > 0, "some news was read"


def test_what_lies_further_back_changes_no_bit(
    old: Workspace, bundle: Bundle, bounded: Panel, session: np.datetime64, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(old.folder, tmp_path / "other"))
    path = str(folder / "lake" / "bars")
    rows = DeltaTable(path).to_pyarrow_table().to_pandas()
    past = rows["session"] < bounded.sessions.labels[0].item()
    assert past.sum() > 1000
    rows.loc[past, ["open", "high", "low", "close"]] *= 7.0
    kept = rows[~past | (np.arange(len(rows)) % 3 != 0)].reset_index(drop=True)
    write_deltalake(path, kept, mode="overwrite")
    other = load_scorable(open_workspace(folder), old.config, session)
    for name in ("features", "mask", "unit", "close", "share_ratio"):
        assert getattr(other, name).tobytes() == getattr(bounded, name).tobytes(), name


def test_how_the_files_lie_changes_no_hash(
    old: Workspace, bounded: Panel, session: np.datetime64, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(old.folder, tmp_path / "strewn"))
    for table in ("bars", "actions", "headlines", "links"):
        path = str(folder / "lake" / table)
        rows = DeltaTable(path).to_pyarrow_table()
        order = np.random.default_rng(3).permutation(len(rows))
        for number, part in enumerate(np.array_split(order, 4)):
            write_deltalake(path, rows.take(part), mode="append" if number else "overwrite")
    strewn = load_scorable(open_workspace(folder), old.config, session)
    rows = newest(bounded, np.flatnonzero(eligible(bounded, LOOKBACK)[:, -1]))
    assert data_versions(strewn, rows, LOOKBACK, 5) == data_versions(bounded, rows, LOOKBACK, 5)


def spelt_out(panel: Panel, ticker: int, session: int, news_window: int) -> str:
    """The hash of one row, as its contract is."""
    window = slice(max(0, session - LOOKBACK + 1), session + 1)
    digest = blake2b(digest_size=12)
    digest.update(panel.features[ticker, window].tobytes())
    digest.update(panel.mask[ticker, window].tobytes())
    digest.update(np.array([part[ticker, session] for part in (panel.close, panel.unit, panel.share_ratio)]).tobytes())
    own = ticker * len(panel.sessions) + session
    for cells, cell in ((panel.news.own, own), (panel.news.market, session)):
        for entry in range(cells.start[cell - min(news_window - 1, session)], cells.start[cell + 1]):
            age = session - cells.session[entry]
            text = panel.news.texts[cells.text[entry]]
            digest.update(f"\x1e{age}\x1f{cells.copies[entry, age]}\x1f{text}".encode())
        digest.update(b"\x1d")
    return digest.hexdigest()


def test_the_hash_is_what_its_contract_says(bounded: Panel) -> None:
    sessions = np.repeat([3, 200, len(bounded.sessions) - 1], len(bounded.tickers))
    rows = Samples(np.tile(np.arange(len(bounded.tickers)), 3), sessions)
    found = data_versions(bounded, rows, LOOKBACK, 5)
    assert found == [spelt_out(bounded, *row, 5) for row in zip(rows.ticker, rows.session, strict=True)]


@pytest.mark.parametrize("name", ["features", "mask", "close", "unit", "share_ratio", "text", "age", "copies"])
def test_all_that_a_forecast_is_computed_from_is_in_the_hash(bounded: Panel, name: str) -> None:
    """Changed for one ticker alone, each changes that ticker's hash and no other."""
    rows = newest(bounded, np.flatnonzero(eligible(bounded, LOOKBACK)[:, -1]))
    own, width = bounded.news.own, len(bounded.sessions)
    last = [range(own.start[t * width + width - 5], own.start[(t + 1) * width]) for t in rows.ticker]
    told = next(at for at, entries in enumerate(last) if len(entries))
    ticker, entry = rows.ticker[told], last[told][-1]
    if name in ("text", "age", "copies"):
        field = {"age": "session"}.get(name, name)
        changed = getattr(own, field).copy()
        changed[entry] += {"text": 1, "age": -1, "copies": 1}[name]
        if name == "text":
            changed[entry] %= len(bounded.news.texts)
        other = replace(bounded, news=replace(bounded.news, own=replace(own, **{field: changed})))
    else:
        changed = getattr(bounded, name).copy()
        changed[ticker, -1] = ~changed[ticker, -1] if name == "mask" else np.nextafter(changed[ticker, -1], 9e9)
        other = replace(bounded, **{name: changed})
    before, after = (data_versions(panel, rows, LOOKBACK, 5) for panel in (bounded, other))
    assert [at for at in range(len(rows)) if before[at] != after[at]] == [told]


def test_a_decision_without_a_universe_is_of_those_that_trade(old: Workspace, bundle: Bundle, session: Any) -> None:
    """Whoever has been silent for a month is named, and not counted as missing."""
    made = gather_decision(old, bundle, session)
    assert made.abstained[GONE].startswith("delisted: no bar since")
    assert made.abstained[SPARSE].startswith(("too short", "stale"))
    assert made.members == len(made.panel.tickers) - 1
    told = gather_decision(
        replace(old, config=old.config.model_copy(update={"watchlist": made.panel.tickers})), bundle, session
    )
    assert told.members == len(made.panel.tickers)
