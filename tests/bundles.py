"""Small models without a workspace, and what somebody who can hash does to a model's folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.errors import ModelError
from data.features import FEATURES
from data.scaling import Scaler
from fusion.calibration import Calibration
from fusion.model import build_model
from pipelines.bundle_files import FILES, MANIFEST, canonical, make_manifest, parse_json
from pipelines.bundle_parts import store
from pipelines.bundle_stored import Stored
from pipelines.bundle_verify import HUGGING_FACE
from pipelines.config import TapewireConfig, parse_config
from pipelines.train import Fitted

EMBEDDING = 6
REFERENCE: dict[str, Any] = {"news_window": 5, "inputs": {}, "band": None}


def small_model(seed: int = 0, *overrides: str) -> tuple[Fitted, TapewireConfig]:
    """As training would leave it, of random weights: a few kilobytes."""
    config = parse_config({}, ("price.lookback=4", "price.width=4", *overrides), "a test's settings")
    torch.manual_seed(seed)
    model = build_model(config.price, config.fusion, len(FEATURES), EMBEDDING, config.news.window).eval()
    draws = np.random.default_rng(seed)
    scalers = (
        Scaler(draws.normal(size=n).astype(np.float32), draws.uniform(0.5, 2, n).astype(np.float32))
        for n in (len(FEATURES), EMBEDDING)
    )
    return Fitted(model, *scalers, Calibration(0.4, 1.1, 6.0), 1.25, 3, np.datetime64("2020-01-03T21:00", "us")), config


def small_stored(seed: int = 0, *overrides: str, **facts: Any) -> Stored:
    """The same, ready to be written."""
    return store(*small_model(seed, *overrides), "f1" * 16, {"tickers": ["AAPL", "MSFT"], **facts})


def forge(folder: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    """Change a file, and make every hash right again: those of the files, the manifest's own, and the model's id."""
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    contents = {each: (folder / each).read_bytes() for each in FILES}
    try:
        config, training = (parse_json(contents[each], "a forged file") for each in ("config.json", "training.json"))
        core = {key: value for key, value in config.items() if key not in HUGGING_FACE}
        model_id = Stored(core, training, contents["model.safetensors"]).model_id
    except (ValueError, ModelError):  # what no id is made of
        model_id = folder.name
    (folder / MANIFEST).write_bytes(make_manifest(model_id, contents))


def nested(depth: int) -> dict[str, Any]:
    """An object in an object, so many times."""
    tree: dict[str, Any] = {}
    for _ in range(depth):
        tree = {"a": tree}
    return tree


def edit(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """`forge` of a JSON file, which `change` changes in place."""

    def changed(content: bytes) -> bytes:
        tree = parse_json(content, name)
        change(tree)
        return canonical(tree)

    forge(folder, name, changed)
