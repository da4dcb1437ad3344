"""A made-up world for the tests of the nightly job: a year of prices and news in which everything goes wrong once.

What a vendor or a feed says depends on who is asked, for what and in which night; never on how often it was asked,
so a run that is killed and run again is told the same. Nothing is drawn but from the plan's seed. Stores nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import format_datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from feed_server import Behaviour, FeedServer, Turn, document, hang_up, status
from sentiments import NAMES, PHRASES, TAILS
from wires import rss

from data.asof import known
from data.calendar import Sessions, sessions
from data.prices.source import (
    ACTION_COLUMNS,
    BAR_COLUMNS,
    EmptyError,
    History,
    RateLimitedError,
    UnavailableError,
    UnknownTickerError,
)

EXCHANGE = sessions("XNYS", "nightly")  # built here once, not in each process that is forked
LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
MINUTE, HOUR = np.timedelta64(1, "m"), np.timedelta64(1, "h")
SHOWN = 3  # nights that an item stays in its feed
PATHS = ("/alpha", "/beta")

NO_ACTIONS = pd.DataFrame({name: [] for name in ACTION_COLUMNS}).astype(
    {"ex_date": "datetime64[s]", "value": "float64", "kind": "str"}
)

Manner = Literal["unknown", "empty", "stops"]


@dataclass(frozen=True)
class Plan:
    """What happens when. Nights are numbered from 0, tickers too."""

    first: str  # session of night 0
    nights: int
    tickers: int
    history: int  # sessions before night 0
    kills: int
    promoted: int  # the challenger, before this night
    rolled_back: int
    missed: int  # nobody starts the job
    doubled: int  # it is started twice at once
    full: dict[int, int]  # night to how many bytes a file may have
    outage: range  # of both feeds
    limited_feed: int  # 429, with Retry-After
    storms: dict[int, float | None]  # night to the vendor's Retry-After
    dark: int  # the vendor cannot be reached
    restated: dict[int, tuple[int, int]]  # night to ticker and how many sessions ago
    delisted: dict[int, tuple[int, Manner]]  # ticker to its first night without a bar, and what the vendor says then
    late: dict[int, int]  # night to the ticker whose bar comes a night late
    split: dict[int, int]  # night to ticker
    coverage: float = 0.95
    seed: int = 0


YEAR = Plan(
    first="2023-07-03",  # half days, both clock changes and a leap day follow
    nights=250,
    tickers=200,
    history=150,
    kills=200,
    promoted=110,
    rolled_back=170,
    missed=61,
    doubled=40,
    full={30: 2_000, 31: 20_000, 95: 100_000, 180: 300_000},
    outage=range(80, 85),
    limited_feed=120,
    storms={50: None, 140: 5 * 3600.0},
    dark=200,
    restated={70: (11, 3), 150: (60, 6)},
    delisted={7: (45, "unknown"), 77: (100, "empty"), 177: (165, "stops")},
    late={20: 5, 21: 6, 90: 33, 163: 140, 220: 8},
    split={15: 3, 75: 40, 125: 90, 190: 12},
)

MONTH = Plan(
    first="2023-10-30",  # a clock change, a holiday and a half day
    nights=20,
    tickers=12,
    history=120,
    kills=10,
    promoted=8,
    rolled_back=14,
    missed=6,
    doubled=3,
    full={2: 2_000, 12: 20_000, 16: 60_000},
    outage=range(9, 12),
    limited_feed=13,
    storms={5: None, 15: 5 * 3600.0},
    dark=17,
    restated={8: (1, 3), 12: (4, 2)},
    delisted={7: (4, "unknown"), 2: (8, "stops")},
    late={4: 5, 13: 6},
    split={9: 3},
    coverage=0.7,
)


@dataclass(frozen=True)
class World:
    """The plan, and what follows from it. `days` are the sessions of history and nights, night n is `history + n`."""

    plan: Plan

    @cached_property
    def days(self) -> Sessions:
        first = int(EXCHANGE.index([self.plan.first])[0])
        return EXCHANGE.between(
            EXCHANGE.labels[first - self.plan.history], EXCHANGE.labels[first + self.plan.nights - 1]
        )

    @cached_property
    def tickers(self) -> tuple[str, ...]:
        return tuple(f"{LETTERS[n // 20]}Q{LETTERS[n % 20]}Z" for n in range(self.plan.tickers))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The nights in which the job is started."""
        return tuple(night for night in range(self.plan.nights) if night != self.plan.missed)

    def session(self, night: int) -> np.datetime64:
        label: np.datetime64 = self.days.labels[self.plan.history + night]
        return label

    def target(self, night: int) -> np.datetime64:
        """The session that the night forecasts."""
        label: np.datetime64 = self.days.target[self.plan.history + night]
        return label

    def now(self, night: int) -> np.datetime64:
        """When the job starts: some minutes after the decision, and always the same."""
        minutes = int(np.random.default_rng([self.plan.seed, self.plan.history + night]).integers(5, 90))
        at: np.datetime64 = self.days.decision_at[self.plan.history + night] + minutes * MINUTE
        return at

    @cached_property
    def _tape(self) -> tuple[np.ndarray, dict[int, list[tuple[int, str, float]]]]:
        """Bars as traded [N, S, 5], and actions of each ticker as (session, kind, value)."""
        return _trade(self.plan, len(self.days))

    def history(self, ticker: str, since: np.datetime64, night: int) -> History:
        """What the vendor says in that night; a SourceError where it does not."""
        who = self.tickers.index(ticker)
        self._refuse(who, night)
        last = self._gone(who, night)
        bars, actions = self._tape
        late = self.plan.late.get(night) == who
        shown = np.flatnonzero(known(self.days.closes, self.now(night)) & (self.days.labels >= since))
        shown = shown[(shown < last) & ~(late & (shown == self.plan.history + night))]
        numbers = bars[who, shown] * self._restated(who, shown, night)
        frame = pd.DataFrame(numbers, columns=BAR_COLUMNS[1:])
        frame.insert(0, "session", self.days.labels[shown].astype("datetime64[s]"))
        told = [action for action in actions[who] if len(shown) and shown[0] <= action[0] <= shown[-1]]
        return History(frame, self._actions(told))

    def _actions(self, told: list[tuple[int, str, float]]) -> pd.DataFrame:
        if not told:
            return NO_ACTIONS
        rows = [(self.days.labels[at], kind, value) for at, kind, value in told]
        frame = pd.DataFrame(rows, columns=ACTION_COLUMNS)
        return frame.astype({"ex_date": "datetime64[s]", "value": "float64", "kind": "str"})

    def _refuse(self, who: int, night: int) -> None:
        plan = self.plan
        if night == plan.dark:
            raise UnavailableError("the vendor could not be reached")
        if night in plan.storms and who >= plan.tickers * 0.6:
            raise RateLimitedError("429 Too Many Requests", plan.storms[night])

    def _gone(self, who: int, night: int) -> int:
        """Position of the first session that the ticker does not trade in."""
        since, manner = self.plan.delisted.get(who, (self.plan.nights, "stops"))
        if night >= since and manner == "unknown":
            raise UnknownTickerError("no such ticker")
        if night >= since and manner == "empty":
            raise EmptyError("it gave no bar")
        return self.plan.history + since

    def _restated(self, who: int, shown: np.ndarray, night: int) -> np.ndarray:
        """What bars are multiplied by, [M, 5]."""
        factor = np.ones((len(shown), 5))
        for since, (ticker, back) in self.plan.restated.items():
            if ticker == who and night >= since:
                factor[shown == self.plan.history + since - back, :4] = 1.02
        return factor

    def items(self, night: int, path: str) -> list[dict[str, str]]:
        """What a feed adds in that night: a third of alpha's is told by beta as well, in other words."""
        chance = np.random.default_rng([self.plan.seed, 7, night + self.plan.history])
        drawn = [
            (int(who), str(chance.choice(PHRASES[str(chance.choice(list(PHRASES)))])), str(chance.choice(TAILS)))
            for who in chance.integers(0, self.plan.tickers, max(3, self.plan.tickers // 6))
        ]
        items = [
            _item(night, number, self._title(who, phrase, tail, night), self.now(night))
            for number, (who, phrase, tail) in enumerate(drawn)
        ]
        items.append(_item(night, len(items), f"Markets drift before data of week {night}", self.now(night)))
        if path == "/alpha":
            return items
        told = items[::3] if night % 3 else []
        return [item | {"guid": f"beta-{item['guid']}", "title": f"Update: {item['title']}"} for item in told]

    def _title(self, who: int, phrase: str, tail: str, night: int) -> str:
        return f"{NAMES[who % len(NAMES)].title()} (NYSE: {self.tickers[who]}) {phrase} {tail} no {night}"

    def answer(self, path: str, night: int) -> tuple[bytes, Behaviour]:
        """A feed's document in that night, and what its server does."""
        plan = self.plan
        if night in plan.outage:
            return b"", status(500) if night < plan.outage.start + 2 else hang_up
        if night == plan.limited_feed and path == "/beta":
            return b"", status(429, retry_after="7200")
        shown = [
            item for each in range(max(night - SHOWN + 1, 0), night + 1) for item in self._edited(each, night, path)
        ]
        return rss(*(shown or [_item(-1, 0, "Nothing yet", self.now(-1))])), document

    def _edited(self, told: int, night: int, path: str) -> list[dict[str, str]]:
        """The items of a night as a later one shows them: the first gets another title."""
        items = self.items(told, path)
        if told < night and told % 4 == 0:
            items[:1] = [item | {"title": f"{item['title']}, sources say"} for item in items[:1]]
        return items

    def past_headlines(self) -> pd.DataFrame:
        """A file of the history's headlines."""
        rows = []
        for at in range(self.plan.history):
            night = at - self.plan.history
            stamp = self.days.closes[at] + HOUR
            for number, item in enumerate(self.items(night, "/alpha")):
                named = item["title"].partition("NYSE: ")[2][:4] or None
                rows.append((f"old-{at}-{number}", stamp, item["title"], named))
        return pd.DataFrame(rows, columns=["id", "published_at", "title", "ticker"]).assign(
            published_at=lambda frame: frame["published_at"].dt.tz_localize("UTC")
        )


def _trade(plan: Plan, count: int) -> tuple[np.ndarray, dict[int, list[tuple[int, str, float]]]]:
    chance = np.random.default_rng([plan.seed, 11])
    market = chance.normal(0, 0.008, count)
    moves = market + chance.normal(0, 0.012, (plan.tickers, count))
    gaps = chance.normal(0, 0.004, (plan.tickers, count))
    reach = np.abs(chance.normal(0, 0.004, (2, plan.tickers, count)))
    volume = np.round(1e6 * np.exp(chance.normal(0, 0.3, (plan.tickers, count))))
    ratio, dividend = np.ones_like(moves), np.zeros_like(moves)
    for night, who in plan.split.items():
        ratio[who, plan.history + night] = 2.0
    for who in range(0, plan.tickers, 2):
        dividend[who, 10 + who % 60 :: 63] = 0.25
    close, opening = np.empty_like(moves), np.empty_like(moves)
    before = np.round(chance.uniform(20, 200, plan.tickers), 2)
    for at in range(count):
        start = before / ratio[:, at] - dividend[:, at]
        opening[:, at] = np.round(start * np.exp(gaps[:, at]), 2)
        close[:, at] = before = np.round(start * np.exp(moves[:, at]), 2)
    high = np.round(np.maximum(opening, close) * np.exp(reach[0]) + 0.005, 2)
    low = np.round(np.minimum(opening, close) * np.exp(-reach[1]) - 0.005, 2)
    actions = {
        who: [
            *((int(at), "split", 2.0) for at in np.flatnonzero(ratio[who] != 1)),
            *((int(at), "dividend", 0.25) for at in np.flatnonzero(dividend[who])),
        ]
        for who in range(plan.tickers)
    }
    return np.stack([opening, high, low, close, volume], axis=-1), actions


def _item(night: int, number: int, title: str, now: np.datetime64) -> dict[str, str]:
    stamp = pd.Timestamp(now - (number % 9 + 1) * HOUR).to_pydatetime().replace(tzinfo=UTC)
    link = f"https://wire.example/{night}/{number}"
    return {"guid": f"n{night}-{number}", "title": title, "link": link, "pubDate": format_datetime(stamp)}


@dataclass(frozen=True)
class Vendor:
    """The world's prices in one night, as a PriceSource."""

    world: World
    night: int
    before: Callable[[str], None] = lambda _ticker: None
    name: str = "yahoo"  # as [tape] has it
    split_adjusted: bool = False
    unit: float = 0.01

    def history(self, ticker: str, since: np.datetime64) -> History:
        self.before(ticker)
        return self.world.history(ticker, since, self.night)


@dataclass
class Wires:
    """Both feeds on one server. Which night it is stands in a file, so that any process may say so."""

    world: World
    server: FeedServer
    night: Path
    urls: list[str] = field(default_factory=list)

    def open(self) -> None:
        self.urls = [self.server.add(path, behaviour=self._behave) for path in PATHS]

    async def _behave(self, turn: Turn) -> None:
        body, behave = self.world.answer(turn.visit.path, int(self.night.read_text()))
        turn.body = body
        await behave(turn)


def settings(world: World, urls: list[str], encoder: Path) -> dict[str, Any]:
    """The workspace's tables: a small model, a vendor and feeds that are asked as fast as they answer."""
    feeds = [{"name": path[1:], "url": url, "allow_private": True} for path, url in zip(PATHS, urls, strict=True)]
    return {
        "watchlist": list(world.tickers),
        "seeds": [0],
        "text": {"encoder": str(encoder), "max_tokens": 32},
        "price": {"kind": "lstm", "lookback": 10, "width": 8},
        "train": {"epochs": 1, "batch_size": 256, "learning_rate": 0.01, "average": 0.9},
        "news": {
            "window": 3,
            "per_session": 4,
            "fetch": {"per_host_rate": 1000, "per_host_connections": 8, "backoff": 0.01},
            "feeds": feeds,
        },
        "tape": {"start": str(world.days.labels[0]), "rate": 1000, "backoff": 0, "workers": 1},
        "nightly": {"coverage": world.plan.coverage},
    }
