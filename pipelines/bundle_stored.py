"""A stored model between its files and its parts: verified, and not opened. No torch."""

import json
from dataclasses import dataclass
from typing import Any

from pipelines.bundle_files import WEIGHTS, digest

CORE = ("config", "features", "scaler", "text_scaler", "calibration", "text_fingerprint")
ID_SCHEME = 1  # the first format's: the same weights and settings keep their id


@dataclass(frozen=True)
class Stored:
    """`core` is all that forecasts depend on but the weights, by the keys of CORE and as it was saved.

    `training` is what is known of the model: when its last label settled, metrics, what it was trained on.
    """

    core: dict[str, Any]
    training: dict[str, Any]
    weights: bytes

    @property
    def model_id(self) -> str:
        """The hash of the weights and of all that forecasts depend on: 16 hexadecimal digits."""
        named = {"format": ID_SCHEME, **self.core, "files": {WEIGHTS: digest(self.weights)}}
        return digest(json.dumps(named, sort_keys=True).encode())[:16]
