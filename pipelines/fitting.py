"""`tapewire train`: one model on the newest fold, saved, and champion where there is none yet."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.embeddings import EmbeddingStore
from data.panel import Panel
from data.splits import make_folds
from encoders.text.load import Source, resolve
from encoders.text.presets import PRESETS
from fusion.price_only import PriceOnlyConfig
from pipelines.bundle import save_bundle
from pipelines.config import TapewireConfig
from pipelines.dataset import load_embeddings, load_panel, short_histories
from pipelines.instants import Now, utc_now
from pipelines.promotions import Role, enter
from pipelines.scorecard.reference import reference
from pipelines.train import Embeddings, Fitted, fit, is_first_process
from pipelines.workspace import Workspace


@dataclass(frozen=True)
class Trained:
    """A saved model and its role. `notes` say where it is not what was asked for, and why."""

    folder: Path
    valid_nll: float
    epochs: int
    role: Role | None
    champion: str
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The contract of `train --json`."""
        return {
            "model": self.folder.name,
            "path": str(self.folder),
            "valid_nll": self.valid_nll,
            "epochs": self.epochs,
            "role": self.role,
        }

    def describe(self) -> str:
        """What came of it, for people."""
        name = self.folder.name
        what_now = f"{name} is the champion: `tapewire score` and the nightly job forecast with it."
        if self.role != "champion":
            what_now = (
                f"{name} is a challenger of {self.champion}: the nightly job scores both. "
                f"`tapewire models promote {name}` makes it the champion."
            )
        return f"{self.epochs} epochs, validation loss {self.valid_nll:.4f}. Model: {self.folder}\n{what_now}"


def train(workspace: Workspace, promote: bool = False, clock: Now = utc_now) -> Trained | None:
    """Fit with the first seed on the newest fold. With no headline in the lake the model is price-only, and says so.

    It becomes the champion where there is none yet or with `promote`, else a challenger. Of the processes of
    `accelerate launch` only the first writes; the others end with None.
    """
    config = workspace.config
    panel = load_panel(workspace, config)
    notes = short_histories(panel, config)
    if config.fusion.reads_text and not len(panel.news):
        notes.append(f"The lake holds no headlines for these tickers: trained price_only, not {config.fusion.kind}.")
        config = config.model_copy(update={"fusion": PriceOnlyConfig(dropout=config.fusion.dropout)})
    embeddings, source = text_inputs(panel, config, workspace)
    fold = make_folds(config.split, panel.sessions)[-1]
    fitted = fit(panel, embeddings, fold, config, config.seeds[0], log_folder=workspace.runs / "tensorboard")
    if not is_first_process():
        return None
    folder = _save(fitted, panel, embeddings, config, source, workspace)
    promotions = enter(workspace.runs, folder.name, clock(), promote)
    role = promotions.role(folder.name)
    return Trained(folder, fitted.valid_loss, fitted.epochs, role, promotions.champion(), notes)


def keep(
    fitted: Fitted,
    panel: Panel,
    config: TapewireConfig,
    source: Source | None,
    workspace: Workspace,
    clock: Now = utc_now,
) -> Path:
    """Save a model fitted with the first seed on the newest fold, and make it the champion. Returns its folder."""
    embeddings = _embedded(panel, source, workspace)
    folder = _save(fitted, panel, embeddings, config, source, workspace)
    enter(workspace.runs, folder.name, clock(), champion=True)
    return folder


def _save(
    fitted: Fitted,
    panel: Panel,
    embeddings: Embeddings,
    config: TapewireConfig,
    source: Source | None,
    workspace: Workspace,
) -> Path:
    fold = make_folds(config.split, panel.sessions)[-1]
    facts = {
        "seed": config.seeds[0],
        "tickers": list(panel.tickers),
        "sessions": [str(panel.sessions.labels[part]) for part in (fold.train[0], fold.train[-1], fold.valid[-1])],
        "last_session": str(panel.sessions.labels[-1]),
        "rows": {table: workspace.lake.count(table) for table in ("bars", "actions", "headlines", "links")},
        "text_encoder": {"name": source.name, "revision": _revision(source)} if source else None,
        "reference": reference(fitted, panel, embeddings, config, fold),
    }
    return save_bundle(fitted, config, source.fingerprint if source else None, facts, workspace.runs)


def _revision(source: Source) -> str | None:
    """What was asked of the hub, None for a folder; the fingerprint says what was had."""
    preset = PRESETS.get(source.config.encoder)
    return source.config.revision or (preset.revision if preset else None)


def text_inputs(panel: Panel, config: TapewireConfig, workspace: Workspace) -> tuple[Embeddings, Source | None]:
    """Embeddings of the panel's texts and the encoder they come from.

    Where the model reads no text, or there is none, no encoder is looked for: zero-width rows.
    """
    source = resolve(config.text) if config.fusion.reads_text and len(panel.news) else None
    return _embedded(panel, source, workspace), source


def _embedded(panel: Panel, source: Source | None, workspace: Workspace) -> Embeddings:
    if source is None:
        return np.zeros((len(panel.news.texts), 1), dtype=np.float16)
    store = EmbeddingStore.open(workspace.embeddings, source.fingerprint, source.dimension)
    return load_embeddings(panel, store, source)
