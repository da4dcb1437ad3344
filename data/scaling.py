"""Robust scaling of features, fitted on the training fold's rows only."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

LIMIT = 6.0  # scaled values beyond this are clipped: one absurd bar must not own a batch


@dataclass(frozen=True)
class Scaler:
    """`clip((x - centre) * scale, -limit, limit)`, per feature; all [F]."""

    centre: Floats
    scale: Floats
    limit: float = LIMIT

    @classmethod
    def fit(cls, rows: npt.NDArray[np.floating]) -> "Scaler":
        """Median and interquartile range of `rows` [M, F], as standard deviations of a normal.

        A feature that does not vary is left at scale 1.
        """
        low, centre, high = np.percentile(rows, [25, 50, 75], axis=0)
        spread = (high - low) / 1.349
        scale = np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 1.0)
        return cls(centre.astype(np.float32), scale.astype(np.float32))
