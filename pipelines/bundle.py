"""A trained model as a folder: weights as safetensors, and a manifest that hashes every file.

The manifest holds what the forecast depends on (config, scaler, features, text fingerprint, the
lake's state) and what is known of the model (metrics, when its last label settled). A file whose
sha256 differs from the manifest's is refused. Nothing here is pickled.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from data.errors import ModelError
from data.features import FEATURES
from data.scaling import Scaler
from fusion.calibration import Calibration
from fusion.model import build_model
from pipelines.config import TapewireConfig, parse_config
from pipelines.train import Fitted
from pipelines.workspace import replace_file

FORMAT = 1
WEIGHTS = "model.safetensors"
MANIFEST = "manifest.json"
CURRENT = "current"


@dataclass(frozen=True)
class Bundle:
    """A loaded model. `model_id` is the hash of its weights and of all that its forecasts depend on."""

    model_id: str
    fitted: Fitted
    config: TapewireConfig
    fingerprint: str | None  # of the text encoder; None where the model reads no text


def save_bundle(
    fitted: Fitted, config: TapewireConfig, fingerprint: str | None, facts: dict[str, Any], runs: Path
) -> Path:
    """Write the model under `runs/<model_id>` and make it the current one. Returns its folder.

    The same weights and config make the same id: training again with one seed changes nothing.
    """
    draft = runs / f".draft-{os.getpid()}"
    draft.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(fitted.model.state_dict(), draft / WEIGHTS)
    core = {
        "format": FORMAT,
        "config": config.model_dump(mode="json", exclude_none=True),
        "features": list(FEATURES),
        "scaler": _as_dict(fitted.scaler),
        "text_scaler": _as_dict(fitted.text_scaler),
        "calibration": asdict(fitted.calibration),
        "text_fingerprint": fingerprint,
        "files": {WEIGHTS: _sha256(draft / WEIGHTS)},
    }
    model_id = _digest(core)
    settled_at = str(fitted.settled_at)
    training = {"settled_at": settled_at, "epochs": fitted.epochs, "valid_nll": fitted.valid_loss, **facts}
    manifest = {"model_id": model_id, **core, "training": training}
    manifest["sha256"] = _digest(manifest)
    (draft / MANIFEST).write_text(json.dumps(manifest, indent=1))
    folder = runs / model_id
    if folder.exists():
        shutil.rmtree(folder)
    draft.replace(folder)
    replace_file(runs / CURRENT, model_id.encode())
    return folder


def load_bundle(runs: Path, model_id: str | None = None) -> Bundle:
    """The model `model_id` under `runs`, by default the current one.

    Raises ModelError where there is none, or where any file is not what the manifest says.
    """
    folder = runs / (model_id or _current(runs))
    manifest = _manifest(folder)
    if _digest({key: value for key, value in manifest.items() if key != "sha256"}) != manifest["sha256"]:
        raise ModelError(
            f"{folder / MANIFEST}: expected the manifest that was saved, found an altered one. Train again."
        )
    for name, expected in manifest["files"].items():
        found = _sha256(folder / name) if (folder / name).is_file() else "no file"
        if found != expected:
            raise ModelError(f"{folder / name}: expected sha256 {expected}, found {found}. Restore it or train again.")
    if manifest["format"] != FORMAT or manifest["features"] != list(FEATURES):
        raise ModelError(f"{folder}: was made by another version of Tapewire, with other features. Train again.")
    config = parse_config(dict(manifest["config"]), (), str(folder / MANIFEST))
    scaler, text_scaler = _scaler(manifest["scaler"]), _scaler(manifest["text_scaler"])
    embedding = len(text_scaler.centre)
    model = build_model(config.price, config.fusion, len(FEATURES), embedding, config.news.window)
    model.load_state_dict(_weights(folder / WEIGHTS))
    training = manifest["training"]
    fitted = Fitted(
        model=model.eval(),
        scaler=scaler,
        text_scaler=text_scaler,
        calibration=Calibration(**manifest["calibration"]),
        valid_loss=training["valid_nll"],
        epochs=training["epochs"],
        settled_at=np.datetime64(training["settled_at"], "us"),
    )
    return Bundle(manifest["model_id"], fitted, config, manifest["text_fingerprint"])


def _current(runs: Path) -> str:
    try:
        return (runs / CURRENT).read_text().strip()
    except OSError:
        raise ModelError(f"{runs}: expected a trained model, found none. Make one with `tapewire train`.") from None


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        _ = [manifest[key] for key in ("model_id", "format", "config", "files", "training", "sha256")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder}: expected a model with a readable {MANIFEST}, found: {error!r}.") from error
    return manifest


def _weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelError(f"{path}: expected weights as safetensors, found: {error}. Train again.") from error


def _as_dict(scaler: Scaler) -> dict[str, Any]:
    return {"centre": scaler.centre.tolist(), "scale": scaler.scale.tolist(), "limit": scaler.limit}


def _scaler(stored: dict[str, Any]) -> Scaler:
    return Scaler(np.asarray(stored["centre"], np.float32), np.asarray(stored["scale"], np.float32), stored["limit"])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(core: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(core, sort_keys=True).encode()).hexdigest()[:16]
