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

from data.asof import known
from data.calendar import Sessions, sessions
from data.panel import Panel
from data.types import Forecast
from pipelines.bundle import load_bundle
from pipelines.dataset import load_panel
from pipelines.instants import utc_now
from pipelines.score import Ask, Scored, score
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
        return load_panel(self.workspace, self.workspace.config)

    def cut(self, session: int) -> Cut:
        return Cut(self.exchange.labels[session], pd.Timestamp(self.exchange.decision_at[session], tz="UTC"))

    def score(self, cut: Cut, workspace: Workspace | None = None) -> Scored:
        ask = Ask(cut.session, in_sample=True)  # the validation fold's sessions, too
        return score(workspace or self.workspace, load_bundle(self.workspace.runs), ask, lambda: MADE_AT)


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
        f"news of {ticker}": headlines(panel, "own", row * width, row * width + last, last)
        for ticker, row in zip(tickers, rows, strict=True)
    }
    return known | {"news of all": headlines(panel, "market", 0, last, last)}


def headlines(panel: Panel, channel: str, first: int, last: int, session: int) -> list[tuple[int, str, int]]:
    """Session, text and copies, as of the decision of `session`, of the entries in the cells `first` to `last`."""
    cells = getattr(panel.news, channel)
    entries = range(cells.start[first], cells.start[last + 1])
    return [
        (int(cells.session[e]), panel.news.texts[cells.text[e]], int(cells.copies[e, min(age, NEWS_WINDOW - 1)]))
        for e, age in ((e, session - cells.session[e]) for e in entries)
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
        panel = load_panel(changed, changed.config)
        assert panel.tickers != base.panel.tickers, "the change was none"
        before, after = (seen(each, base.panel.tickers, cut.session) for each in (base.panel, panel))
        assert [name for name in before if before[name] != after[name]] == [], cut
        expected, found = base.score(cut), base.score(cut, changed)
        assert found.forecasts == expected.forecasts, cut
        assert (found.session, found.decision_at) == (expected.session, expected.decision_at)
        assert found.abstained == expected.abstained
        compared += len(found.forecasts)
    assert compared >= 40, "5 weekdays make at least 200 cuts of ticker x decision"


@pytest.mark.parametrize("clock", ["close", "pre-open"])
def test_nor_at_another_hour_of_deciding(base: Base, rebuild: Callable[..., Workspace], clock: str) -> None:
    rng = np.random.default_rng(7)
    config = base.workspace.config.model_copy(update={"decision": clock})
    panel = load_panel(base.workspace, config)
    instants = panel.sessions.decision_at
    for session in rng.choice(np.arange(base.first, len(instants) - 1), 3, replace=False):
        cut = Cut(panel.sessions.labels[session], pd.Timestamp(instants[session], tz="UTC"))
        changed = load_panel(rebuild(changed_after(base.files, cut, rng)), config)
        before, after = (seen(each, panel.tickers, cut.session) for each in (panel, changed))
        assert [name for name in before if before[name] != after[name]] == [], cut


def test_nor_where_summaries_are_read_too(base: Base, rebuild: Callable[..., Workspace]) -> None:
    rng = np.random.default_rng(9)
    reads = "text.input=title+summary"
    items = base.files.headlines["id"]
    told = replace(base.files, headlines=base.files.headlines.assign(summary="In short, item " + items + " it is."))
    original = rebuild(told, reads)
    panel = load_panel(original, original.config)
    assert sum(text.endswith(" it is.") for text in panel.news.texts) > 0.9 * len(panel.news.texts)
    for session in rng.choice(np.arange(base.first, len(base.exchange) - 1), 3, replace=False):
        cut = base.cut(session)
        files = changed_after(told, cut, rng)
        later = files.headlines["published_at"] > cut.instant
        invented = files.headlines["id"].map(dict(zip(items, rng.choice(INVENTED, len(items)), strict=True)))
        files = replace(
            files, headlines=files.headlines.assign(summary=files.headlines["summary"].mask(later, invented))
        )
        changed = rebuild(files, reads)
        before, after = (
            seen(each, panel.tickers, cut.session) for each in (panel, load_panel(changed, changed.config))
        )
        assert [name for name in before if before[name] != after[name]] == [], cut


@pytest.mark.parametrize("shift", [0, 7, 16])
def test_what_comes_after_the_last_label_changes_no_weight(
    base: Base, rebuild: Callable[..., Workspace], tapewire: Callable[..., Any], shift: int
) -> None:
    """Training reads no bar and no headline after the last session whose return the validation fold needs."""
    targets = base.exchange.target
    train_end, valid_end, test_end = targets[base.first - shift], targets[base.first + 30 - shift], targets[-1]
    dates = {"train_end": train_end, "valid_end": valid_end, "test_end": test_end}
    sets = [f"split.{name}={date}" for name, date in dates.items()]
    settled = base.exchange.labels < valid_end
    cut = Cut(base.exchange.labels[settled][-1], pd.Timestamp(base.exchange.closes[settled][-1], tz="UTC"))
    changed = rebuild(changed_after(base.files, cut, np.random.default_rng(shift)), embed=True)
    trained = {}
    for workspace in (base.workspace, changed):
        ran = tapewire(workspace.folder, "train", "--promote", *(part for each in sets for part in ("--set", each)))
        assert ran.code == 0, ran.err
        bundle = load_bundle(workspace.runs)
        weights = {name: tensor.numpy().tobytes() for name, tensor in bundle.fitted.model.state_dict().items()}
        scalers = [part.tobytes() for each in _scalers(bundle) for part in (each.centre, each.scale)]
        trained[workspace.folder] = (weights, scalers, bundle.fitted.calibration, bundle.model_id)
    first, second = trained.values()
    assert first == second


def _scalers(bundle: Any) -> tuple[Any, Any]:
    return bundle.fitted.scaler, bundle.fitted.text_scaler


@pytest.mark.parametrize("how", ["retitle", "delete"])
def test_news_before_a_decision_does_change_its_forecasts(
    base: Base, rebuild: Callable[..., Workspace], how: str
) -> None:
    rng = np.random.default_rng(11)
    altered, with_news = 0, 0
    for session in np.linspace(base.first, len(base.exchange) - 2, 5).astype(int):
        cut, opened = base.cut(session), base.cut(session - NEWS_WINDOW)
        published = base.files.headlines["published_at"]
        window = (published > opened.instant) & (published <= cut.instant)
        if how == "retitle":
            titles = pd.Series(rng.choice(INVENTED, len(window)), index=window.index)
            news = base.files.headlines.assign(title=base.files.headlines["title"].mask(window, titles))
            news["title"] = news.groupby("id")["title"].transform("first")
        else:
            news = base.files.headlines[~window]
        expected = {forecast.ticker: forecast for forecast in base.score(cut).forecasts}
        found = base.score(cut, rebuild(replace(base.files, headlines=news), embed=True)).forecasts
        named = set(base.files.headlines.loc[window, "ticker"].dropna())
        of_all = base.files.headlines.loc[window, "ticker"].isna().any()
        for forecast in found:
            if of_all or forecast.ticker in named:
                with_news += 1
                altered += _differ(forecast, expected[forecast.ticker])
    assert with_news >= 30
    assert altered >= 0.95 * with_news


def _differ(first: Forecast, second: Forecast) -> bool:
    """In what they say; by more than rounding could make."""
    apart = max(abs(first.mean - second.mean), abs(first.prob_up - second.prob_up)) > 1e-6
    return apart and first.data_version != second.data_version


def test_a_restatement_recorded_later_leaves_past_decisions_alone(
    base: Base, tmp_path: Path, tapewire: Callable[..., Any]
) -> None:
    """The same lake, into which a file with other numbers for known bars and other titles is imported today."""
    folder = tmp_path / "restated"
    shutil.copytree(base.workspace.folder, folder)
    cut = base.cut(base.first + 20)
    prices, news = base.files.prices.copy(), base.files.headlines.copy()
    prices[["open", "high", "low", "close"]] *= 1.5
    news["title"] = INVENTED[0]
    prices.to_parquet(folder / "prices.parquet")
    news.to_parquet(folder / "headlines.parquet")
    added = [
        tapewire(folder, "import", kind, f"{kind}.parquet", "--json", *options).json["added"]
        for kind, options in (("prices", ("--basis", "raw")), ("headlines", ()))
    ]
    assert added == [len(prices), news["id"].nunique()]
    restated = open_workspace(folder)
    assert base.score(cut, restated).forecasts == base.score(cut).forecasts
    panels = load_panel(base.workspace, base.workspace.config), load_panel(restated, restated.config)
    before, after = (seen(panel, base.panel.tickers, cut.session) for panel in panels)
    assert before == after


def test_what_the_lake_recorded_later_changes_no_bit_of_a_night(
    base: Base, tmp_path: Path, tapewire: Callable[..., Any]
) -> None:
    """Rows that say they were known before the decision, and came into the lake only after the night was made."""
    folder = tmp_path / "later"
    shutil.copytree(base.workspace.folder, folder)
    night = utc_now()
    cut = base.cut(base.first + 20)
    past = base.files.prices[base.files.prices["date"] <= pd.Timestamp(cut.session)]
    news = base.files.headlines[base.files.headlines["published_at"] <= cut.instant]
    one = past[past["ticker"] == past["ticker"].iloc[0]]
    early = pd.Timestamp(one["date"].iloc[-30], tz="UTC")
    extra = one.assign(ticker="AAAA", dividend=0.5, split=2.0, announced_at=early)
    acted = past[past["date"] >= past["date"].max() - pd.Timedelta(days=10)].assign(dividend=0.25, announced_at=early)
    told = news.assign(id="again-" + news["id"], title=INVENTED[1])
    for kind, frame, options in (
        ("prices", pd.concat([extra, acted]), ("--basis", "raw")),
        ("headlines", told, ()),
    ):
        frame.to_parquet(folder / f"{kind}.parquet", index=False)
        ran = tapewire(folder, "import", kind, f"{kind}.parquet", "--json", *options)
        assert ran.code == 0, ran.err
        assert ran.json["added"] > 0
    assert tapewire(folder, "embed").code == 0
    lake = open_workspace(folder).lake
    for table in ("bars", "actions", "headlines", "links"):
        rows = lake.frame(table, ["available_at", "recorded_at"])
        late = ~known(rows["recorded_at"], night)
        assert known(rows.loc[late, "available_at"], cut.instant.to_datetime64()).any(), f"{table}: nothing to find out"

    def made(workspace: Workspace, recorded_by: np.datetime64 | None) -> Scored:
        ask = Ask(cut.session, recorded_by, in_sample=True, store=False)
        return score(workspace, load_bundle(base.workspace.runs), ask, lambda: MADE_AT)

    then, replayed, today = (
        made(base.workspace, night),
        made(open_workspace(folder), night),
        made(open_workspace(folder), None),
    )
    assert len(then.forecasts) == 8
    assert replayed.forecasts == then.forecasts
    assert replayed.abstained == then.abstained
    panels = [load_panel(each, each.config, cut.session, night) for each in (base.workspace, open_workspace(folder))]
    before, after = (seen(panel, base.panel.tickers, cut.session) for panel in panels)
    assert before == after
    assert {forecast.data_version for forecast in today.forecasts}.isdisjoint(
        forecast.data_version for forecast in then.forecasts
    )
