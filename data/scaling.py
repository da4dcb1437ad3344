"""Scaling of features and of embeddings, fitted on the training fold's rows only."""

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

        A feature that does not vary is left at scale 1. Feature by feature: all at once would need the rows twice more.
        """
        low, centre, high = np.stack([np.percentile(column, [25, 50, 75]) for column in rows.T], axis=1)
        spread = (high - low) / 1.349
        scale = np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 1.0)
        return cls(centre.astype(np.float32), scale.astype(np.float32))

    @classmethod
    def fit_common(cls, rows: npt.NDArray[np.floating]) -> "Scaler":
        """Mean of each column of `rows` [M, E], and one scale for all: directions keep their proportions.

        For embeddings: all headlines share a large mean that says nothing, while a direction in which
        they hardly differ should not be blown up. Without rows nothing is changed.
        """
        if len(rows) == 0:
            return cls(np.zeros(rows.shape[1], np.float32), np.ones(rows.shape[1], np.float32))
        centre = rows.mean(axis=0, dtype=np.float64)
        spread = max(float(np.sqrt(rows.var(axis=0, dtype=np.float64).mean())), 1e-6)
        return cls(centre.astype(np.float32), np.full(rows.shape[1], 1 / spread, np.float32))
