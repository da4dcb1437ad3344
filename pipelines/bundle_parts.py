"""What a stored model says, as the parts that forecast; the other way round too. Nothing it says is believed unseen.

A folder whose hashes are right may still have been made by somebody else: shapes, types and numbers are held against
what the settings in it build, and settings for an absurd model are not built. Reads and writes no file.
"""

import math
import re
from copy import deepcopy
from dataclasses import asdict
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch.overrides import TorchFunctionMode

from data.errors import ConfigError, ModelError
from data.features import FEATURES
from data.news.fetch import FetchConfig
from data.prices.tape import TapeConfig
from data.scaling import Scaler
from fusion.calibration import Calibration
from fusion.model import ForecastModel, build_model
from pipelines.bundle_files import WEIGHTS
from pipelines.bundle_stored import CORE, Stored
from pipelines.config import TapewireConfig, parse_config
from pipelines.train import Fitted

MAKERS = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full)
MOST = 2**24  # elements that no weight explains, such as the positions of a window
FINGERPRINT = re.compile(r"[0-9a-f]{32}")  # as encoders/text/load.py makes them
PICKLES = (b"PK\x03\x04", b"\x80")  # a zip, as torch writes them, and a bare pickle

Weights = dict[str, torch.Tensor]


def store(fitted: Fitted, config: TapewireConfig, fingerprint: str | None, facts: dict[str, Any]) -> Stored:
    """A fitted model as it is saved. `facts` join what is known of it."""
    core = {
        "config": _portable(config),
        "features": list(FEATURES),
        "scaler": _as_dict(fitted.scaler),
        "text_scaler": _as_dict(fitted.text_scaler),
        "calibration": asdict(fitted.calibration),
        "text_fingerprint": fingerprint,
    }
    known = {"settled_at": str(fitted.settled_at), "epochs": fitted.epochs, "valid_nll": fitted.valid_loss}
    weights = {name: tensor.contiguous() for name, tensor in fitted.model.state_dict().items()}
    return Stored(core, {**known, **facts}, safetensors.torch.save(weights))


def build(stored: Stored, where: str) -> tuple[Fitted, TapewireConfig]:
    """The model, in eval mode on the CPU, and its settings. Raises ModelError where any part of it is unfit."""
    core, training = stored.core, stored.training
    try:
        if set(core) != set(CORE):
            raise KeyError(*sorted(set(core) ^ set(CORE)))
        if core["features"] != list(FEATURES):
            raise ModelError(f"{where}: was made with other features than this version's. Train again.")
        config = parse_config({**deepcopy(core["config"])}, (), where)
        scaler = _scaler(core["scaler"], len(FEATURES))
        text_scaler = _scaler(core["text_scaler"], len(core["text_scaler"]["centre"]))
        calibration = _calibration(**core["calibration"])
        _check_fingerprint(core["text_fingerprint"], config.fusion.reads_text)
        known = float(training["valid_nll"]), int(training["epochs"]), np.datetime64(training["settled_at"], "us")
        if not np.isfinite(known[0]) or np.isnat(known[2]):
            raise ValueError(f"a valid_nll or settled_at that is none: {known[0]}, {known[2]}")
    except ConfigError as error:
        raise ModelError(f"{where}: expected settings that this version knows. {error}") from error
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise ModelError(f"{where}: expected a whole and finite model, found: {error!r}. Train again.") from error
    weights = read_weights(stored.weights, where)
    with torch.random.fork_rng(devices=[]):  # drawn only to be overwritten: nobody's seed is moved
        model = _model(config, len(text_scaler.centre), weights, where)
    return Fitted(model, scaler, text_scaler, calibration, *known), config


def read_weights(content: bytes, where: str) -> Weights:
    """Tensors by their names. Raises ModelError where the bytes are no safetensors, or a number is not finite."""
    try:
        weights: Weights = safetensors.torch.load(content)
        broken = [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        found = "a pickle, which is never opened" if content.startswith(PICKLES) else str(error) or repr(error)
        raise ModelError(f"{where}: expected {WEIGHTS} as safetensors, found: {found}. Train again.") from error
    if broken:
        raise ModelError(f"{where}: expected finite weights, found NaN or infinity in {broken[0]}. Train again.")
    return weights


def _model(config: TapewireConfig, embedding: int, weights: Weights, where: str) -> ForecastModel:
    """A model of these weights, and of these settings if they are of its size."""
    price = config.price
    widest = max((max(tensor.shape, default=1) for tensor in weights.values()), default=0)
    if price.layers > len(weights) or price.width > widest or price.lookback * price.width > MOST:
        raise ModelError(
            f"{where}: expected settings of the size of its weights, found {price.layers} layers of width "
            f"{price.width} over {price.lookback} sessions, with {len(weights)} tensors. Train again."
        )
    try:
        with _Bounded(MOST + sum(tensor.numel() for tensor in weights.values())):
            model = build_model(price, config.fusion, len(FEATURES), embedding, config.news.window).eval()
    except (RuntimeError, ValueError, TypeError, AssertionError, ArithmeticError) as error:
        raise ModelError(f"{where}: expected settings that make a model, found: {error}. Train again.") from error
    expected, found = _shapes(model.state_dict()), _shapes(weights)
    if expected != found:
        odd = sorted(set(expected.items()) ^ set(found.items()), key=str)[0][0]
        raise ModelError(
            f"{where}: expected {odd} as {expected.get(odd, 'nothing')}, found {found.get(odd, 'nothing')}: "
            f"{WEIGHTS} is not of these settings. Train again."
        )
    model.load_state_dict(weights)
    return model


class _Bounded(TorchFunctionMode):
    """Makes tensors of `most` elements in all, and refuses the next unmade. (torch's meta device: 2 s of imports.)"""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.left = most

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in MAKERS:
            size = args[0] if args and isinstance(args[0], tuple | list) else args
            self.left -= math.prod(each for each in size if isinstance(each, int))
            if self.left < 0:
                raise ValueError(f"a tensor of {list(size)}, more than its weights explain")
        return function(*args, **(kwargs or {}))


def _shapes(weights: Weights) -> dict[str, str]:
    return {name: f"{tensor.dtype} {list(tensor.shape)}" for name, tensor in weights.items()}


def _portable(config: TapewireConfig) -> dict[str, Any]:
    """Settings without what no forecast depends on and nobody else should read: feeds, vendors, addresses, contacts."""
    news = config.news.model_copy(update={"feeds": (), "fetch": FetchConfig()})
    portable = config.model_copy(update={"news": news, "tape": TapeConfig()})
    return portable.model_dump(mode="json", exclude_none=True, exclude={"nightly"})


def _as_dict(scaler: Scaler) -> dict[str, Any]:
    return {"centre": scaler.centre.tolist(), "scale": scaler.scale.tolist(), "limit": scaler.limit}


def _scaler(stored: dict[str, Any], columns: int) -> Scaler:
    with np.errstate(over="ignore"):
        centre, scale = (np.asarray(stored[key], np.float32) for key in ("centre", "scale"))
    limit = _number(stored["limit"])
    if centre.shape != (columns,) or scale.shape != (columns,) or not columns:
        raise ValueError(f"a scaler of {centre.shape} and {scale.shape}, expected {columns} columns")
    if not (np.isfinite(centre).all() and np.isfinite(scale).all() and (scale > 0).all() and 0 < limit < np.inf):
        raise ValueError("a scaler whose numbers are not finite, or not positive where they must be")
    return Scaler(centre, scale, limit)


def _number(value: Any) -> float:
    """Neither true nor a text of digits."""
    if type(value) not in (int, float):
        raise TypeError(f"{value!r} for a number")
    return float(value)


def _check_fingerprint(fingerprint: Any, reads_text: bool) -> None:
    """It is the name of a folder of vectors, and there exactly where the model reads some."""
    if fingerprint is None and not reads_text:
        return
    if not (reads_text and isinstance(fingerprint, str) and FINGERPRINT.fullmatch(fingerprint)):
        wanted = "32 hexadecimal digits" if reads_text else "none, as the model reads no text"
        raise ValueError(f"text_fingerprint {fingerprint!r}, expected {wanted}")


def _calibration(text: float, scale: float, df: float) -> Calibration:
    text, scale, df = (_number(value) for value in (text, scale, df))
    if not (0 <= text <= 1 and 0 < scale < np.inf and 0 < df < np.inf):
        raise ValueError(f"a calibration of text {text}, scale {scale}, df {df}")
    return Calibration(text, scale, df)
