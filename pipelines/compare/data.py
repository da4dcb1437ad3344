"""What a comparison runs on: the workspace's panel, or a simulated market whose best forecast is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from data.panel import Panel
from data.simulate import MarketConfig, World, simulate, write
from data.splits import Fold, make_folds
from data.windows import Samples
from fusion.price_only import PriceOnlyConfig
from pipelines.compare.accuracy import settled
from pipelines.config import TapewireConfig, parse_config
from pipelines.dataset import load_panel, short_histories, survivorship
from pipelines.imports import import_prices
from pipelines.metrics import Days, rank_ic
from pipelines.workspace import Workspace

HOME = "tapewire-compare"  # where a comparison outside of a workspace keeps its ledger and its report

# Small enough that two kinds are through in half an hour on one core. No setting was chosen by trials on this market.
WORLD = MarketConfig(seed=10, tickers=24, sessions=1600)
SETTINGS = ("price.lookback=20", "price.width=32", "train.epochs=8")


@dataclass(frozen=True)
class Data:
    """A panel, its folds and the settings of all fits. `about` says in a sentence what it is.

    `oracle` is the rank IC that the true conditional mean, given prices alone, reaches on the test rows; None where
    nobody knows it.
    """

    panel: Panel
    folds: list[Fold]
    config: TapewireConfig
    about: str
    notes: list[str]
    oracle: float | None

    @property
    def digest(self) -> str:
        """Hash of all of the panel that a price-only fit can read."""
        panel, digest = self.panel, blake2b(digest_size=12)
        arrays = (panel.features, panel.mask, panel.observed, panel.member, panel.unit, panel.sessions.labels)
        for array in (*arrays, panel.labels[self.config.target]):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update("\x1f".join(panel.tickers).encode())
        return digest.hexdigest()


def of_workspace(workspace: Workspace) -> Data:
    """The workspace's tickers, folds and settings, without its headlines."""
    config = workspace.config.model_copy(update={"fusion": PriceOnlyConfig()})
    panel = load_panel(workspace, config)
    about = (
        f"{len(panel.tickers)} tickers, {panel.sessions.labels[0]} to {panel.sessions.labels[-1]}, target "
        f"{config.target}, from this workspace"
    )
    notes = [*short_histories(panel, config), survivorship(panel)[1]]
    return Data(panel, make_folds(config.split, panel.sessions), config, about, notes, None)


def of_simulation(sets: Sequence[str]) -> Data:
    """The simulated market WORLD, its headlines left out, with SETTINGS and then `sets` on top of the defaults."""
    market = simulate(WORLD)
    dates = {"train_end": market.train_end, "valid_end": market.valid_end, "test_end": market.test_end}
    config = parse_config({"split": dates, "fusion": {"kind": "price_only"}}, [*SETTINGS, *sets], "--set")
    with TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder), config)
        write(market, workspace.folder / "sources")
        files = [workspace.folder / "sources" / "prices.parquet"]
        import_prices(workspace.lake, files, {}, config.calendar, basis="raw")
        panel = load_panel(workspace, config)
    folds = make_folds(config.split, panel.sessions)
    about = (
        f"a simulated market of {WORLD.tickers} tickers over {WORLD.sessions} sessions (seed {WORLD.seed}), in which "
        "past returns say a little about the next one"
    )
    return Data(panel, folds, config, about, [], _oracle(panel, folds, config, market))


def _oracle(panel: Panel, folds: list[Fold], config: TapewireConfig, market: World) -> float | None:
    """The rank IC of the true conditional means, on the rows all fits are tested on."""
    if config.target != "close_close":
        return None
    parts = [settled(panel, fold.test, config) for fold in folds]
    rows = Samples(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("ticker", "session")))
    labels = panel.sessions.labels[rows.session].astype("datetime64[s]")
    asked = pd.DataFrame({"ticker": np.array(panel.tickers, dtype=object)[rows.ticker], "session": labels})
    truth = market.oracle.assign(session=market.oracle["session"].astype("datetime64[s]"))
    means = asked.merge(truth, on=["ticker", "session"], how="left", validate="one_to_one")["mean_price"]
    realised = panel.labels[config.target][rows.ticker, rows.session]
    return float(rank_ic(means.to_numpy(dtype="float64"), realised, Days.draw(rows.session))[0])
