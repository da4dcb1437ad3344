"""A loaded model at one decision: its panel, the samples it can forecast, and why it cannot forecast the others."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from data.calendar import Sessions, sessions
from data.embeddings import EmbeddingStore
from data.errors import LakeError
from data.panel import Panel
from data.scan import Span
from data.universe import Universe
from data.windows import Samples
from pipelines.abstain import abstentions
from pipelines.bundle import Bundle
from pipelines.config import TapewireConfig
from pipelines.dataset import load_scorable, session_of, stored_embeddings, watched
from pipelines.promotions import Promotions
from pipelines.workspace import Workspace

OF_LATE = np.timedelta64(14, "D")  # longer than an exchange closes for a holiday


@dataclass(frozen=True)
class Moment:
    """A decision by its session, which is `at` in `exchange`; `config` is the model's, for the workspace's tickers."""

    config: TapewireConfig
    exchange: Sessions
    at: int

    @property
    def session(self) -> np.datetime64:
        """The last session the decision knows."""
        label: np.datetime64 = self.exchange.labels[self.at]
        return label

    @property
    def decision_at(self) -> np.datetime64:
        """When it is made, UTC."""
        instant: np.datetime64 = self.exchange.decision_at[self.at]
        return instant


@dataclass(frozen=True)
class Decision:
    """What a model reads at one decision. `rows` are samples of the panel's last session; it is `at` in `exchange`.

    Every ticker of the panel is among `rows` or has its reason in `abstained`. `members` counts those that belonged.
    """

    workspace: Workspace
    bundle: Bundle
    config: TapewireConfig
    exchange: Sessions
    at: int
    panel: Panel
    rows: Samples
    abstained: dict[str, str]
    members: int

    @cached_property
    def embeddings(self) -> npt.NDArray[np.float16]:
        """One row for each of the panel's texts, read when first asked for. LakeError where one is not embedded."""
        width = len(self.bundle.fitted.text_scaler.centre)
        if self.bundle.fingerprint is None or not self.panel.news.texts:
            return np.zeros((len(self.panel.news.texts), width), dtype=np.float16)
        store = EmbeddingStore.open(self.workspace.embeddings, self.bundle.fingerprint, width)
        return stored_embeddings(self.panel, store, self.bundle.config.text.encoder)


def find_moment(workspace: Workspace, bundle: Bundle, session: np.datetime64 | None) -> Moment:
    """The decision that follows `session`; None: the last one with a bar of a watched ticker. Reads no prices.

    Where none of them has one of late, the last one with any bar: then each of them is said to be without.
    """
    # The model's own settings decide how its inputs are made; the workspace says for whom.
    config = bundle.config.model_copy(
        update={"watchlist": workspace.config.watchlist, "universe": workspace.config.universe}
    )
    exchange = sessions(config.calendar, config.decision)
    at = _newest(workspace, exchange) if session is None else session_of(exchange, session)
    return Moment(config, exchange, at)


def champion_of(workspace: Workspace, session: np.datetime64) -> tuple[str, bool]:
    """The champion at the decision that follows `session`; where there was none yet the present one, and True.

    Raises ModelError where there is none now either.
    """
    exchange = sessions(workspace.config.calendar, workspace.config.decision)
    promotions = Promotions.read(workspace.runs)
    decision_at = exchange.decision_at[session_of(exchange, session)]
    present = not promotions.has_champion_at(decision_at)
    return promotions.champion(None if present else decision_at), present


def _newest(workspace: Workspace, exchange: Sessions) -> int:
    """The last session up to the newest bar: a market that never closes has bars of days that are none."""
    end = workspace.lake.greatest("bars", "session")
    if np.isnat(end):
        raise LakeError(
            f"{workspace.lake.folder}: expected bars, found none. Import some with `tapewire import prices`."
        )
    tickers = watched(workspace.config)
    if not tickers and workspace.config.universe:
        tickers = Universe.read(workspace.folder / workspace.config.universe).tickers
    if tickers:
        bars = workspace.lake.read("bars", ["ticker", "session"], Span("session", end - OF_LATE, end))
        found = pc.max(bars.filter(pc.field("ticker").isin(list(tickers)))["session"]).as_py()
        end = end if found is None else np.datetime64(found, "D")
    at = int(exchange.last_by(end))
    if at < 0:
        raise LakeError(f"{end}: expected bars of a session of {exchange.calendar}, found none since it began.")
    return at


def gather_decision(
    workspace: Workspace, bundle: Bundle, session: np.datetime64 | None, recorded_by: np.datetime64 | None = None
) -> Decision:
    """The decision that follows `session` (None: the last the lake has bars of); what it did not know is not read.

    Nor is what the lake recorded after `recorded_by` (UTC; None: everything counts).
    """
    moment = find_moment(workspace, bundle, session)
    config, exchange, at = moment.config, moment.exchange, moment.at
    panel = load_scorable(workspace, config, moment.session, recorded_by)
    recorded_by = exchange.target_open[at] if recorded_by is None else recorded_by
    rows, abstained, members = abstentions(panel, workspace, config.price.lookback, recorded_by)
    return Decision(workspace, bundle, config, exchange, at, panel, rows, abstained, members)
