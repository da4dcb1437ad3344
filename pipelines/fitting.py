"""`tapewire train`: one model on the newest fold, saved as the workspace's current one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.embeddings import EmbeddingStore
from data.panel import Panel
from data.splits import make_folds
from encoders.text.load import Source, resolve
from fusion.price_only import PriceOnlyConfig
from pipelines.bundle import save_bundle
from pipelines.config import TapewireConfig
from pipelines.dataset import load_embeddings, load_panel, short_histories
from pipelines.train import Embeddings, Fitted, fit
from pipelines.workspace import Workspace


@dataclass(frozen=True)
class Trained:
    """A saved model. `notes` say where it is not what was asked for, and why."""

    folder: Path
    valid_nll: float
    epochs: int
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The contract of `train --json`."""
        return {"model": self.folder.name, "path": str(self.folder), "valid_nll": self.valid_nll, "epochs": self.epochs}


def train(workspace: Workspace) -> Trained:
    """Fit with the first seed on the newest fold. With no headline in the lake the model is price-only, and says so."""
    config = workspace.config
    panel = load_panel(workspace, config)
    notes = short_histories(panel, config)
    if config.fusion.reads_text and not len(panel.news):
        notes.append(f"The lake holds no headlines for these tickers: trained price_only, not {config.fusion.kind}.")
        config = config.model_copy(update={"fusion": PriceOnlyConfig(dropout=config.fusion.dropout)})
    embeddings, source = text_inputs(panel, config, workspace)
    fold = make_folds(config.split, panel.sessions)[-1]
    fitted = fit(panel, embeddings, fold, config, config.seeds[0], log_folder=workspace.runs / "tensorboard")
    folder = keep(fitted, panel, config, source, workspace)
    return Trained(folder, fitted.valid_loss, fitted.epochs, notes)


def keep(fitted: Fitted, panel: Panel, config: TapewireConfig, source: Source | None, workspace: Workspace) -> Path:
    """Save a model fitted with the first seed on the newest fold, and make it the current one. Returns its folder."""
    fold = make_folds(config.split, panel.sessions)[-1]
    facts = {
        "seed": config.seeds[0],
        "tickers": list(panel.tickers),
        "sessions": [str(panel.sessions.labels[part]) for part in (fold.train[0], fold.train[-1], fold.valid[-1])],
        "rows": {table: workspace.lake.count(table) for table in ("bars", "actions", "headlines", "links")},
    }
    return save_bundle(fitted, config, source.fingerprint if source else None, facts, workspace.runs)


def text_inputs(panel: Panel, config: TapewireConfig, workspace: Workspace) -> tuple[Embeddings, Source | None]:
    """Embeddings of the panel's texts and the encoder they come from.

    Where the model reads no text, or there is none, no encoder is looked for: zero-width rows.
    """
    if not (config.fusion.reads_text and len(panel.news)):
        return np.zeros((len(panel.news.texts), 1), dtype=np.float16), None
    source = resolve(config.text)
    store = EmbeddingStore.open(workspace.embeddings, source.fingerprint, source.dimension)
    return load_embeddings(panel, store, source), source
