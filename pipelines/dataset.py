"""From the lake to arrays: the panel a config asks for, its samples, its embeddings."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.asof import known
from data.calendar import Sessions, sessions
from data.embeddings import EmbeddingStore
from data.errors import LakeError
from data.features import WARM_UP
from data.news.index import NewsIndex, build_news
from data.packing import naive_utc
from data.panel import Panel, build_panel, build_unchecked
from data.scan import Span
from data.splits import Fold
from data.text import READS, text_keys
from data.universe import Universe, delisted
from data.windows import Samples
from pipelines.config import TapewireConfig
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from encoders.text.load import Source

Mask = npt.NDArray[np.bool_]

BAR_COLUMNS = ["ticker", "session", "version", "open", "high", "low", "close", "volume", "available_at"]
ACTION_COLUMNS = ["ticker", "ex_date", "kind", "version", "value", "available_at"]
LINK_COLUMNS = ["id", "ticker", "confidence", "available_at"]

# Sessions before a window after which nothing of what came earlier is left in it: the slowest average of a feature
# (data.adjust.UNIT_DECAY) gives what lies further back a weight of 1e-8, less than float32 resolves.
MEMORY = 300
# How long before the window of news a headline may have appeared first and still be read. Within it near-duplicates
# are found as they would be among all headlines; a story re-sent at least every 72 hours for longer than that may be
# cut into clusters at other points.
NEWS_MEMORY = np.timedelta64(14, "D")


def load_panel(
    workspace: Workspace,
    config: TapewireConfig,
    session: np.datetime64 | None = None,
    recorded_by: np.datetime64 | None = None,
    history: int | None = None,
) -> Panel:
    """The panel of the config's tickers over all sessions the lake has bars of.

    With `session` it ends there, and only what was known at the decision that follows it is read; with `recorded_by`
    (UTC) only what the lake held by then. With `history` beside a `session` it has that many sessions, and
    news for the newest of them alone: see `load_scorable`. Raises LakeError where there are no bars or a feature is
    not finite, InputError where the universe's file cannot be read.
    """
    return build_panel(*_parts(workspace, config, session, recorded_by, history))


def load_scorable(
    workspace: Workspace, config: TapewireConfig, session: np.datetime64, recorded_by: np.datetime64 | None = None
) -> Panel:
    """The panel as far back as a forecast at the decision after `session` looks, whatever else the lake holds.

    The last `lookback` sessions are those of the whole panel, to float32's resolution (`MEMORY`, `NEWS_MEMORY`), but
    for tickers that trade on a fraction of the days: their averages reach back over fewer bars. Without a watchlist
    and a universe the tickers are those with bars in these sessions. A feature that is not finite is left there.
    """
    history = reach(config.price.lookback)
    return build_unchecked(*_parts(workspace, config, session, recorded_by, history))


def reach(lookback: int) -> int:
    """How many sessions back a forecast looks: its window, and what the features in it remember."""
    return lookback + MEMORY


Parts = tuple[tuple[str, ...], Sessions, pd.DataFrame, pd.DataFrame, NewsIndex, Universe | None]


def _parts(
    workspace: Workspace,
    config: TapewireConfig,
    session: np.datetime64 | None,
    recorded_by: np.datetime64 | None,
    history: int | None,
) -> Parts:
    """What `build_panel` takes."""
    lake = workspace.lake
    universe = Universe.read(workspace.folder / config.universe) if config.universe else None
    wanted = watched(config) or (universe.tickers if universe else ())
    exchange = sessions(config.calendar, config.decision)
    at = None if session is None else session_of(exchange, session)
    view = _View(exchange, at, recorded_by, history, config.news.window)
    bars = view.known(lake.coded("bars", view.columns(BAR_COLUMNS), wanted, within=view.days("session")))
    actions = view.known(lake.frame("actions", view.columns(ACTION_COLUMNS), within=view.days("ex_date")))
    tickers = wanted or tuple(sorted(bars["ticker"].unique()))
    if bars.empty:
        named = f"of {', '.join(tickers[:5])}, " if wanted else ""
        raise LakeError(f"{lake.folder}: expected bars {named}found none. Import some with `tapewire import prices`.")
    span = exchange.between(bars["session"].min(), bars["session"].max() if session is None else session)
    headline_columns = ["id", "version", "available_at", *dict.fromkeys(["title", *READS[config.text.input]])]
    headlines = view.known(lake.frame("headlines", view.columns(headline_columns), within=view.news()))
    links = view.known(lake.frame("links", view.columns(LINK_COLUMNS), within=view.news()))
    links = links[links["confidence"] >= config.news.confidence]
    shape = config.news.per_session, config.news.window
    news = build_news(view.whole(headlines), links, tickers, span, *shape, reads=config.text.input)
    return tickers, span, bars, actions, news, universe


@dataclass(frozen=True)
class _View:
    """Which rows of the lake are looked at: all, or those known at the decision of session `at`, and of these the
    newest `history` sessions, and those recorded by an instant.
    """

    exchange: Sessions
    at: int | None
    recorded_by: np.datetime64 | None
    history: int | None
    news_window: int

    def columns(self, names: list[str]) -> list[str]:
        """`names`, and what is needed to tell which rows were recorded."""
        return names if self.recorded_by is None else [*names, "recorded_at"]

    def days(self, column: str) -> Span | None:
        """The days that may be read; None for all."""
        if self.history is None or self.at is None:
            return None
        return Span(column, first=self.exchange.labels[max(self.at - self.history + 1, 0)])

    def news(self) -> Span | None:
        """The instants of headlines that may be read; None for all."""
        if self.history is None or self.at is None:
            return None
        before = self.exchange.decision_at[max(self.at - self.news_window, 0)]
        return Span("available_at", first=before - NEWS_MEMORY)

    def known(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Of rows that were read those that are looked at."""
        if self.at is not None:
            rows = rows[known(naive_utc(rows["available_at"]), self.exchange.decision_at[self.at])]
        if self.recorded_by is not None:
            rows = rows[known(naive_utc(rows["recorded_at"]), self.recorded_by)]
        return rows

    def whole(self, headlines: pd.DataFrame) -> pd.DataFrame:
        """Without edits of headlines that first appeared before what is read: neither their links nor their copies are
        there to be told by.
        """
        if self.news() is None:
            return headlines
        first = headlines.loc[(headlines["version"] == 1).to_numpy(dtype=bool), "id"].astype(object)
        return headlines[headlines["id"].astype(object).isin(first).to_numpy(dtype=bool)]


def watched(config: TapewireConfig) -> tuple[str, ...]:
    """The tickers of the watchlist as the lake spells them, each once."""
    return tuple(dict.fromkeys(ticker.strip().upper() for ticker in config.watchlist if ticker.strip()))


def load_embeddings(panel: Panel, store: EmbeddingStore, source: "Source") -> npt.NDArray[np.float16]:
    """One row for each of the panel's texts, [T, E]. Raises LakeError where some are not embedded yet."""
    return stored_embeddings(panel, store, source.name)


def stored_embeddings(panel: Panel, store: EmbeddingStore, encoder: str) -> npt.NDArray[np.float16]:
    """`load_embeddings` where the encoder itself, by its name, need not be on this machine."""
    rows = store.rows(text_keys(panel.news.texts))
    missing = int((rows < 0).sum())
    if missing:
        raise LakeError(
            f"expected every headline embedded with {encoder}; {missing} of {len(rows)} texts are not. "
            "Run `tapewire embed` first, with the same [text] settings."
        )
    return store.gather(rows)


def eligible(panel: Panel, lookback: int) -> Mask:
    """[N, S]: where a forecast can be made: a member, a counted bar at its session, and bars enough (`enough`)."""
    return panel.member & panel.mask & (recent_bars(panel, lookback) >= enough(lookback))


def enough(lookback: int) -> int:
    """Bars that a forecast needs: a window of them, and so many that the newest is past the warm-up."""
    return max(lookback, WARM_UP + 1)


def recent_bars(panel: Panel, lookback: int) -> npt.NDArray[np.int32]:
    """[N, S]: bars in the `reach` of a forecast at each session: as many in the whole panel as in a scorable one."""
    bars = np.cumsum(panel.observed, axis=1, dtype=np.int32)
    far = reach(lookback)
    bars[:, far:] -= bars[:, :-far].copy()
    return bars


def short_histories(panel: Panel, config: TapewireConfig) -> list[str]:
    """A remark that names the tickers with fewer bars than the lookback, where there are any."""
    lookback = config.price.lookback
    short = [ticker for ticker, bars in zip(panel.tickers, panel.history[:, -1], strict=True) if bars < lookback]
    return [f"Skipped, with fewer bars than the lookback of {lookback}: {', '.join(short)}."] if short else []


def survivorship(panel: Panel) -> tuple[int, str]:
    """How many of the panel's tickers were delisted by its end, and a remark for whoever reads a result on it."""
    gone, end = len(delisted(panel.observed)), panel.sessions.labels[-1]
    if gone:
        return gone, f"{gone} of the {len(panel.tickers)} tickers were delisted by {end}."
    return 0, (
        f"None of the {len(panel.tickers)} tickers was delisted by {end}. If they were chosen from those that are "
        "still there, the result is too good (survivorship): give `universe` a file of who belonged when."
    )


def samples(part: npt.NDArray[np.int64], usable: Mask) -> Samples:
    """The usable rows [N, S] on the sessions of one part of a fold, by session and then ticker."""
    session, ticker = np.nonzero(usable[:, part].T)
    return Samples(ticker.astype(np.int64), part[session])


def training_rows(panel: Panel, fold: Fold) -> npt.NDArray[np.float32]:
    """Feature rows [M, F] that a scaler may be fitted on: those of members in the training sessions."""
    end = fold.train[-1] + 1
    return panel.features[:, :end][(panel.mask & panel.member)[:, :end]]


def training_texts(panel: Panel, fold: Fold) -> npt.NDArray[np.int64]:
    """Which texts had been read by the end of training, once each."""
    channels = (panel.news.own, panel.news.market)
    return np.unique(np.concatenate([cells.text[cells.session <= fold.train[-1]] for cells in channels]))


def session_of(exchange: Sessions, label: np.datetime64) -> int:
    """Position of a session label; LakeError where the exchange was closed that day."""
    at = int(exchange.index([label])[0])
    if at < 0:
        raise LakeError(f"{label}: expected a session of {exchange.calendar}, found a day it was closed on.")
    return at
