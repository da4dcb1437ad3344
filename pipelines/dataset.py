"""From the lake to arrays: the panel a config asks for, its samples, its embeddings."""

import numpy as np
import numpy.typing as npt

from data.asof import known
from data.calendar import Sessions, sessions
from data.embeddings import EmbeddingStore
from data.errors import LakeError
from data.news.index import build_news
from data.panel import Panel, build_panel
from data.splits import Fold
from data.text import text_keys
from data.universe import Universe, delisted
from data.windows import Samples
from encoders.text.load import Source
from pipelines.config import TapewireConfig
from pipelines.workspace import Workspace

Mask = npt.NDArray[np.bool_]

BAR_COLUMNS = ["ticker", "session", "version", "open", "high", "low", "close", "volume", "available_at"]


def load_panel(workspace: Workspace, config: TapewireConfig, session: np.datetime64 | None = None) -> Panel:
    """The panel of the config's tickers over all sessions the lake has bars of.

    With `session` it ends there, and only what was known at the decision that follows it is read.
    Raises LakeError where there are no bars, InputError where the universe's file cannot be read.
    """
    lake = workspace.lake
    universe = Universe.read(workspace.folder / config.universe) if config.universe else None
    wanted = config.watchlist or (universe.tickers if universe else ())
    exchange = sessions(config.calendar, config.decision)
    tables = {name: lake.frame(name) for name in ("actions", "headlines", "links")}
    tables["bars"] = lake.coded("bars", BAR_COLUMNS, wanted)
    if session is not None:
        decision_at = exchange.decision_at[session_of(exchange, session)]
        tables = {name: rows[known(rows["available_at"], decision_at)] for name, rows in tables.items()}
    bars = tables["bars"]
    tickers = tuple(wanted) or tuple(sorted(bars["ticker"].unique()))
    if bars.empty:
        named = f"of {', '.join(tickers[:5])}, " if wanted else ""
        raise LakeError(f"{lake.folder}: expected bars {named}found none. Import some with `tapewire import prices`.")
    span = exchange.between(bars["session"].min(), bars["session"].max() if session is None else session)
    links = tables["links"][tables["links"]["confidence"] >= config.news.confidence]
    shape = config.news.per_session, config.news.window
    news = build_news(tables["headlines"], links, tickers, span, *shape, reads=config.text.input)
    return build_panel(tickers, span, bars, tables["actions"], news, universe)


def load_embeddings(panel: Panel, store: EmbeddingStore, source: Source) -> npt.NDArray[np.float16]:
    """One row for each of the panel's texts, [T, E]. Raises LakeError where some are not embedded yet."""
    rows = store.rows(text_keys(panel.news.texts))
    missing = int((rows < 0).sum())
    if missing:
        raise LakeError(
            f"expected every headline embedded with {source.name}; {missing} of {len(rows)} texts are not. "
            "Run `tapewire embed` first, with the same [text] settings."
        )
    return store.gather(rows)


def eligible(panel: Panel, lookback: int) -> Mask:
    """[N, S]: where a forecast can be made: a member, a counted bar at its session, at least `lookback` bars so far."""
    return panel.member & panel.mask & (panel.history >= lookback)


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
