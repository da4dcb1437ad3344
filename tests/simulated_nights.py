"""A small workspace on a simulated market, night by night, for the tests of the nightly job: vendor, feed and clock.

Night 0 follows Thursday, 1 November 2018; the clocks change on the weekend after night 1.
"""

import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import tomli_w
from feed_server import FeedServer
from sentiments import tiny_encoder
from wires import rss

from data.asof import known
from data.calendar import sessions
from data.lake import Lake
from data.prices.source import BAR_COLUMNS, History, UnavailableError
from data.simulate import MarketConfig, simulate
from pipelines.embed import embed
from pipelines.engine.base import Engine
from pipelines.engine.local import LOCAL
from pipelines.fitting import train
from pipelines.imports import import_headlines
from pipelines.ingest_prices import ingest_prices
from pipelines.nightly.job import nightly
from pipelines.nightly.outcome import Nights
from pipelines.promotions import Promotions
from pipelines.workspace import Workspace, open_workspace

EXCHANGE = sessions("XNYS", "nightly")
NIGHT_0 = int(EXCHANGE.index(["2018-11-01"])[0])
HISTORY = 110  # sessions before night 0
MINUTE = np.timedelta64(1, "m")
PRICES = "nightly.ingest=['prices']"


@lru_cache(maxsize=1)
def market() -> Any:
    """Eight tickers."""
    first: date = EXCHANGE.labels[NIGHT_0 - HISTORY].item()
    return simulate(MarketConfig(seed=3, tickers=8, sessions=HISTORY + 20, first_session=first))


def session(night: int) -> np.datetime64:
    label: np.datetime64 = EXCHANGE.labels[NIGHT_0 + night]
    return label


def evening(night: int, minutes: int = 10) -> np.datetime64:
    """So long after the night's decision."""
    at: np.datetime64 = EXCHANGE.decision_at[NIGHT_0 + night] + minutes * MINUTE
    return at


def noon_after(night: int) -> np.datetime64:
    """The target session has been open for hours."""
    at: np.datetime64 = EXCHANGE.target_open[NIGHT_0 + night] + 150 * MINUTE
    return at


@dataclass(frozen=True)
class Tape:
    """What a vendor says at `now`: a PriceSource. `failing` tickers cannot be had; `behind` lack the newest bar.

    Of the session `skipped` it has no bar at all.
    """

    now: np.datetime64
    failing: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    restated: float = 1.0  # of the fourth last bar
    skipped: np.datetime64 | None = None
    name: str = "tape"
    split_adjusted: bool = False
    unit: float = 0.01

    def history(self, ticker: str, since: np.datetime64) -> History:
        if ticker in self.failing:
            raise UnavailableError("the line is dead")
        rows = market().prices.query("ticker == @ticker")
        day = rows["date"].to_numpy(dtype="datetime64[D]")
        there = known(EXCHANGE.closes[EXCHANGE.index(day)], self.now)
        rows = rows[there].iloc[: -1 if ticker in self.behind else None].reset_index(drop=True)
        rows = rows.assign(session=rows["date"].astype("datetime64[s]"))
        rows.loc[rows.index[-4:-3], ["open", "high", "low", "close"]] *= self.restated
        day = rows["date"].to_numpy(dtype="datetime64[D]")
        rows = rows[(day >= since) & (day != self.skipped)]
        parts = []
        for kind in ("split", "dividend"):
            of_kind = rows[rows[kind] != 0]
            parts.append(pd.DataFrame({"ex_date": of_kind["session"], "kind": kind, "value": of_kind[kind]}))
        actions = pd.concat(parts).sort_values("ex_date", ignore_index=True).astype({"kind": "str"})
        return History(rows[BAR_COLUMNS].reset_index(drop=True), actions)


def build(folder: Path) -> Path:
    """A workspace on the eve of night 0, with a champion and a challenger."""
    folder.mkdir()
    encoder = tiny_encoder(folder / "encoder")
    tables = {
        "watchlist": sorted(market().prices["ticker"].unique().tolist()),
        "seeds": [0],
        "text": {"encoder": str(encoder), "max_tokens": 32},
        "price": {"kind": "lstm", "lookback": 10, "width": 8},
        "train": {"epochs": 1, "batch_size": 64, "learning_rate": 0.01, "average": 0.9},
        "tape": {"start": EXCHANGE.labels[NIGHT_0 - HISTORY].item(), "rate": 1000, "backoff": 0, "workers": 1},
        "news": {"fetch": {"per_host_rate": 1000, "backoff": 0.01}},
    }
    (folder / "tapewire.toml").write_text(tomli_w.dumps(tables))
    workspace, now = open_workspace(folder), evening(-1)
    ingest_prices(workspace, lambda: now, lambda *_: Tape(now))
    headlines = market().headlines
    headlines[headlines["published_at"] < pd.Timestamp(now, tz="UTC")].to_parquet(folder / "headlines.parquet")
    import_headlines(workspace.lake, [folder / "headlines.parquet"], {}, "XNYS", now=now)
    embed(workspace.lake, workspace.embeddings, workspace.config.text)
    train(workspace, clock=lambda: now)
    train(open_workspace(folder, ["seeds=[1]"]), clock=lambda: now)
    return folder


def wire(night: int) -> bytes:
    """The feed's document in that night: two items of its day, and those of the night before."""
    items = []
    for at in (night - 1, night):
        stamp = pd.Timestamp(evening(at, -120)).strftime("%a, %d %b %Y %H:%M:%S GMT")
        for number, ticker in enumerate(sorted(market().prices["ticker"].unique())[:2]):
            title = f"Delta (NYSE: {ticker}) beats plan no {at}-{number}"
            link = f"https://wire.example/{at}/{number}"
            items.append({"guid": f"{at}-{number}", "title": title, "link": link, "pubDate": stamp})
    return rss(*items)


@dataclass
class Desk:
    """A copy of the workspace with its feed's server."""

    folder: Path
    server: FeedServer
    overrides: list[str] = field(default_factory=list)
    engine: Engine = LOCAL

    @property
    def workspace(self) -> Workspace:
        url = self.server.url("/wire.xml")
        feeds = f'news.feeds=[{{name="wire", url="{url}", allow_private=true}}]'
        return open_workspace(self.folder, [feeds, *self.overrides])

    def night(self, night: int, at: np.datetime64 | None = None, **vendor: Any) -> Nights:
        """`tapewire nightly` at that moment, by default ten minutes after the decision."""
        now = evening(night) if at is None else at
        self.server.add("/wire.xml", wire(night))
        return nightly(self.workspace, lambda: now, lambda *_: Tape(now, **vendor), engine=self.engine)

    @property
    def champion(self) -> str:
        return Promotions.read(self.folder / "runs").champion()

    @property
    def challenger(self) -> str:
        return Promotions.read(self.folder / "runs").challengers()[0]

    def forecasts(self) -> pd.DataFrame:
        return Lake(self.folder / "lake").frame("forecasts")


@contextmanager
def desk(start: Path, folder: Path) -> Iterator[Desk]:
    """A desk on a copy of `start`."""
    shutil.copytree(start, folder)
    with FeedServer() as server:
        yield Desk(folder, server)


# Jobs in processes of their own. Delta's threads do not survive a fork, so that which forks has done nothing before.


def run_at(folder: Path, url: str, night: int, before: Callable[[], None] = lambda: None) -> None:
    """One run as a process of its own would do it; it exits with its code."""
    from data.errors import TapewireError

    now = evening(night)
    workspace = open_workspace(folder, [f'news.feeds=[{{name="wire", url="{url}", allow_private=true}}]'])
    before()
    try:
        code = nightly(workspace, lambda: now, lambda *_: Tape(now)).exit_code
    except TapewireError as error:
        code = error.exit_code
        sys.stderr.write(f"{error}\n")
    sys.exit(code)


class Forks:
    """A process that has imported everything, and runs each job in a child of its own."""

    def __init__(self) -> None:
        self._here, there = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there,), daemon=False)
        with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
            self._process.start()

    def run(self, job: Callable[..., None], *args: Any) -> int:
        """The job's exit code; negative where a signal ended it."""
        self.send(job, *args)
        return self.receive()

    def send(self, job: Callable[..., None], *args: Any) -> None:
        """Start a job; `receive` waits for it."""
        self._here.send((job, args))

    def receive(self) -> int:
        code: int = self._here.recv()
        return code

    def close(self) -> None:
        self._here.send(None)
        self._process.join()


def _serve(pipe: Any) -> None:
    market()
    context = multiprocessing.get_context("fork")
    while (asked := pipe.recv()) is not None:
        child = context.Process(target=asked[0], args=asked[1])
        child.start()
        child.join()
        pipe.send(child.exitcode)
