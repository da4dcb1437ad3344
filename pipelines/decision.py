"""A loaded model at one decision: its panel, the samples it can forecast, and why it cannot forecast the others."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.calendar import Sessions, sessions
from data.embeddings import EmbeddingStore
from data.lake import Lake
from data.panel import Panel
from data.windows import Samples
from encoders.text.load import resolve
from pipelines.bundle import Bundle
from pipelines.config import TapewireConfig
from pipelines.dataset import load_embeddings, load_panel, session_of
from pipelines.workspace import Workspace


@dataclass(frozen=True)
class Decision:
    """What a model reads at one decision. `rows` are samples of the panel's last session; it is `at` in `exchange`."""

    config: TapewireConfig
    exchange: Sessions
    at: int
    panel: Panel
    rows: Samples
    abstained: dict[str, str]
    embeddings: npt.NDArray[np.float16]


def gather_decision(workspace: Workspace, bundle: Bundle, session: np.datetime64 | None) -> Decision:
    """The decision that follows `session` (None: the last the lake has bars of); what it did not know is not read."""
    # The model's own settings decide how its inputs are made; the workspace says for whom.
    config = bundle.config.model_copy(
        update={"watchlist": workspace.config.watchlist, "universe": workspace.config.universe}
    )
    exchange = sessions(config.calendar, config.decision)
    at = session_of(exchange, _last_session(workspace.lake) if session is None else session)
    panel = load_panel(workspace, config, exchange.labels[at])
    rows, abstained = _scorable(panel, config.price.lookback)
    return Decision(config, exchange, at, panel, rows, abstained, _embeddings(panel, bundle, workspace))


def _last_session(lake: Lake) -> np.datetime64:
    latest = lake.frame("bars", ["session"])["session"].max()
    return np.datetime64(latest, "D")


def _scorable(panel: Panel, lookback: int) -> tuple[Samples, dict[str, str]]:
    """Samples of the panel's last session, and why the other tickers have none."""
    last = len(panel.sessions) - 1
    label = panel.sessions.labels[last]
    history = panel.history[:, last]
    abstained = {}
    for ticker, belongs, bars, seen, counted in zip(
        panel.tickers, panel.member[:, last], history, panel.observed[:, last], panel.mask[:, last], strict=True
    ):
        if not belongs:
            abstained[ticker] = f"not in the universe on {label}"
        elif bars < lookback or (seen and not counted):
            abstained[ticker] = f"too short: {bars} bars, lookback {lookback}"
        elif not seen:
            abstained[ticker] = f"stale: no bar for {label}"
    scorable = np.array([ticker not in abstained for ticker in panel.tickers], dtype=bool)
    tickers = np.flatnonzero(scorable)
    return Samples(tickers, np.full(len(tickers), last)), abstained


def _embeddings(panel: Panel, bundle: Bundle, workspace: Workspace) -> npt.NDArray[np.float16]:
    if bundle.fingerprint is None:
        return np.zeros((len(panel.news.texts), len(bundle.fitted.text_scaler.centre)), dtype=np.float16)
    source = resolve(bundle.config.text)
    store = EmbeddingStore.open(workspace.embeddings, bundle.fingerprint, len(bundle.fitted.text_scaler.centre))
    return load_embeddings(panel, store, source)
