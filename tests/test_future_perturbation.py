"""The rule about time, held from outside: what happens after a decision changes nothing that was made of it.

The source files of a small market are changed after a decision, imported into a new lake and scored.
Every feature, mask, headline window and forecast of that decision must be the same, bit for bit; and
must not be, where it was the news before the decision that changed.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data.calendar import Sessions, sessions
from data.panel import Panel
from data.types import Forecast
from pipelines.bundle import load_bundle
from pipelines.dataset import load_panel
from pipelines.score import Scored, score
from pipelines.workspace import Workspace, open_workspace

MADE_AT = np.datetime64("2024-01-01", "us")
PER_WEEKDAY = 6
NEWS_WINDOW = 5  # the configured default
INVENTED = (
    "Shares plunge after the company halts all production",
    "Profit doubles and guidance is raised for the full year",
    "Regulator opens an investigation into accounting at the company",
    "Takeover offer at a premium of 60% accepted by the board",
    "Nothing to report",
)


@dataclass(frozen=True)
class Files:
    """The two source files as frames."""

    prices: pd.DataFrame
    headlines: pd.DataFrame


@dataclass(frozen=True)
class Cut:
    """A session and the decision that follows it."""

    session: np.datetime64
    instant: pd.Timestamp

    def after(self, files: Files) -> tuple["pd.Series[bool]", "pd.Series[bool]"]:
        """Which bars and which headlines nobody had seen by then."""
        return files.prices["date"] > pd.Timestamp(self.session), files.headlines["published_at"] > self.instant


@dataclass(frozen=True)
class Base:
    """The market as it was, and the model trained on it."""

    workspace: Workspace
    files: Files
    exchange: Sessions
    first: int  # session after the training fold's end

    @cached_property
    def panel(self) -> Panel:
        return load_panel(self.workspace.lake, self.workspace.config)

    def cut(self, session: int) -> Cut:
        return Cut(self.exchange.labels[session], pd.Timestamp(self.exchange.decision_at[session], tz="UTC"))

    def score(self, cut: Cut, workspace: Workspace | None = None) -> Scored:
        return score(workspace or self.workspace, load_bundle(self.workspace.runs), cut.session, MADE_AT)


@pytest.fixture(scope="module")
def base(trained: Path, market: Any, tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = tmp_path_factory.mktemp("base")
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    exchange = sessions("XNYS", "nightly")
    labels = market.prices["date"].to_numpy(dtype="datetime64[D]")
    exchange = exchange.between(labels.min(), labels.max())
    first = int(np.searchsorted(exchange.target, np.datetime64(market.train_end)))
    return Base(open_workspace(folder), Files(market.prices, market.headlines), exchange, first)


@pytest.fixture
def rebuild(base: Base, tmp_path: Path, tapewire: Callable[..., Any]) -> Callable[..., Workspace]:
    """Imports changed source files into a new workspace that shares the base's embeddings."""

    def rebuild(files: Files, *sets: str, embed: bool = False) -> Workspace:
        folder = tmp_path / f"world-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        shutil.copy(base.workspace.folder / "tapewire.toml", folder)
        (folder / "embeddings").symlink_to(base.workspace.embeddings)
        for kind, frame, options in (
            ("prices", files.prices, ("--basis", "raw")),
            ("headlines", files.headlines, ()),
        ):
            frame.to_parquet(folder / f"{kind}.parquet", index=False)
            ran = tapewire(folder, "import", kind, folder / f"{kind}.parquet", *options)
            assert ran.code == 0, ran.err
        if embed:
            assert tapewire(folder, "embed").code == 0
        return open_workspace(folder, sets)

    return rebuild


# What may be changed after a cut


def changed_after(files: Files, cut: Cut, rng: np.random.Generator) -> Files:
    """Everything after the cut scaled, replaced, deleted or added to, at random."""
    return Files(_changed_prices(files, cut, rng), _changed_headlines(files, cut, rng))


def _changed_prices(files: Files, cut: Cut, rng: np.random.Generator) -> pd.DataFrame:
    later, _ = cut.after(files)
    future = files.prices[later].reset_index(drop=True)
    announced = (future["announced_at"] <= cut.instant).to_numpy()  # what was announced by then is no future
    ways = rng.choice(["scale", "replace", "delete"], future["ticker"].nunique())
    way = ways[pd.factorize(future["ticker"])[0]]
    values = future[["open", "high", "low", "close"]].to_numpy()
    values = values * 10 ** rng.uniform(-1, 1, (len(future), 1))
    made_up = np.sort(rng.uniform(1, 500, (len(future), 4)), axis=1)[:, [1, 3, 0, 2]]
    future[["open", "high", "low", "close"]] = np.where(way[:, None] == "replace", made_up, values)
    future["volume"] = rng.uniform(0, 1e9, len(future))
    acted = ~announced & (rng.random(len(future)) < 0.3)
    future.loc[acted, "split"] = rng.choice([0.1, 0.5, 2.0, 5.0], acted.sum())
    future.loc[acted, "dividend"] = rng.uniform(0.01, 0.1, acted.sum())
    soon = cut.instant + pd.Timedelta(microseconds=1)
    future["announced_at"] = future["announced_at"].mask(acted & (rng.random(len(future)) < 0.5), soon)
    future = future[announced | (way != "delete")]
    added = [future.drop_duplicates("date").assign(ticker=name) for name in ("AAAA", "ZZZZ")]  # first and last in order
    return pd.concat([files.prices[~later], future, *added], ignore_index=True)


def _changed_headlines(files: Files, cut: Cut, rng: np.random.Generator) -> pd.DataFrame:
    _, later = cut.after(files)
    past, future = files.headlines[~later], files.headlines[later]
    items = future["id"].unique()
    way = pd.Series(rng.choice(["keep", "retitle", "delete", "delay", "relink"], len(items)), index=items)
    titles = pd.Series(rng.choice([*INVENTED, *past["title"].iloc[-40:]], len(items)), index=items)
    way, titles = (each.loc[future["id"]].to_numpy() for each in (way, titles))
    future = future.assign(
        title=future["title"].where(way != "retitle", titles),
        published_at=future["published_at"].where(way != "delay", future["published_at"] + pd.Timedelta(days=9)),
        ticker=future["ticker"].where(way != "relink", rng.choice(files.prices["ticker"].unique(), len(future))),
    )[way != "delete"]
    future = future.drop_duplicates(["id", "ticker"])
    return pd.concat([past, future, _invented(files, cut)], ignore_index=True)


def _invented(files: Files, cut: Cut) -> pd.DataFrame:
    """Headlines just after the cut about every ticker and about none, and ones that name the session's day only."""
    day = pd.Timestamp(cut.session, tz="UTC")  # midnight: a date whose time is unknown
    stamps = [cut.instant + pd.Timedelta(microseconds=1), cut.instant + pd.Timedelta(hours=1), day]
    tickers = [*files.prices["ticker"].unique(), "AAAA", None]
    rows = [
        {"id": f"new-{number}-{ticker}", "published_at": stamp, "title": title, "ticker": ticker, "source": "rumour"}
        for ticker in tickers
        for number, (stamp, title) in enumerate((stamp, title) for stamp in stamps for title in INVENTED)
    ]
    return pd.DataFrame(rows)


# What a decision must not lose


def seen(panel: Panel, tickers: tuple[str, ...], session: np.datetime64) -> dict[str, Any]:
    """All that the panel says of the decisions up to that of `session`, for `tickers`; labels that had settled."""
    rows = [panel.tickers.index(ticker) for ticker in tickers]
    last = int(panel.sessions.index([session])[0])
    known = {
        name: getattr(panel, name)[rows, : last + 1].tobytes()
        for name in ("features", "mask", "observed", "unit", "close", "share_ratio")
    }
    known |= {name: label[rows, :last].tobytes() for name, label in panel.labels.items()}
    width = len(panel.sessions)
    known |= {
        f"news of {ticker}": headlines(panel, "own", row * width, row * width + last)
        for ticker, row in zip(tickers, rows, strict=True)
    }
    return known | {"news of all": headlines(panel, "market", 0, last)}


def headlines(panel: Panel, channel: str, first: int, last: int) -> list[tuple[int, str]]:
    """Session and text of the entries in the cells from `first` to `last`, in order."""
    cells = getattr(panel.news, channel)
    entries = slice(cells.start[first], cells.start[last + 1])
    return [
        (int(at), panel.news.texts[text]) for at, text in zip(cells.session[entries], cells.text[entries], strict=True)
    ]


def cuts_on(base: Base, weekday: int) -> list[Cut]:
    """Random decisions after the training fold's end, on sessions of one weekday."""
    labels = base.exchange.labels
    weekdays = (labels.astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday
    possible = np.flatnonzero(weekdays == weekday)
    possible = possible[(possible >= base.first) & (possible < len(labels) - 1)]
    chosen = np.random.default_rng(weekday).choice(possible, PER_WEEKDAY, replace=False)
    return [base.cut(int(session)) for session in np.sort(chosen)]


@pytest.mark.parametrize("weekday", range(5), ids=["monday", "tuesday", "wednesday", "thursday", "friday"])
def test_what_comes_after_a_decision_changes_nothing_of_it(
    base: Base, rebuild: Callable[..., Workspace], weekday: int
) -> None:
    rng = np.random.default_rng(100 + weekday)
    compared = 0
    for cut in cuts_on(base, weekday):
        changed = rebuild(changed_after(base.files, cut, rng))
        panel = load_panel(changed.lake, changed.config)
        assert panel.tickers != base.panel.tickers, "the change was none"
        before, after = (seen(each, base.panel.tickers, cut.session) for each in (base.panel, panel))
        assert [name for name in before if before[name] != after[name]] == [], cut
        expected, found = base.score(cut), base.score(cut, changed)
        assert found.forecasts == expected.forecasts, cut
        assert (found.session, found.decision_at) == (expected.session, expected.decision_at)
        assert found.abstained == expected.abstained
        compared += len(found.forecasts)
    assert compared >= 40, "5 weekdays make at least 200 cuts of ticker x decision"
