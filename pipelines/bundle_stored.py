"""A stored model between its files and its parts: verified, and not opened. No torch."""

import json
from dataclasses import dataclass
from typing import Any

from pipelines.bundle_files import WEIGHTS, canonical, digest

CORE = ("config", "features", "scaler", "text_scaler", "calibration", "text_fingerprint")
ID_SCHEME = "id_scheme"  # of a model of the first format, in `training`, wherever it is saved: it keeps its id
FIRST = 1
# Of what is known of the training, the part that the id stands for; the rest tells of the lake or of the test fold, and
# what came after its training must not change a model's id.
UNDER_ID = ("settled_at",)


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
        """The hash of the weights, of all that forecasts depend on and of its training: 16 hexadecimal digits.

        That is UNDER_ID of `training`; a model of the first format has an id without it. No clock is in it.
        """
        named = {"format": FIRST, **self.core, "files": {WEIGHTS: digest(self.weights)}}
        if self.training.get(ID_SCHEME) != FIRST:
            judged = {key: self.training.get(key) for key in UNDER_ID}
            named |= {"format": 2, "training": digest(canonical(judged))}
        return digest(json.dumps(named, sort_keys=True).encode())[:16]
