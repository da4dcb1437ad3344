"""The one rule about time: a record may inform a decision only if `available_at <= decision_at`.

The comparison is written here and nowhere else, once, in `first_decision`; every join, feature,
label, fold and cache goes through this module. All instants are UTC, as `datetime64[us]`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Instants = npt.NDArray[np.datetime64]


def first_decision(available_at: Any, decisions: Instants) -> npt.NDArray[np.int64]:
    """Index of the first decision each record may inform; `len(decisions)` where there is none.

    `decisions` ascends. A record available exactly at a decision informs it. NaT (never available)
    informs none.
    """
    available = np.asarray(available_at, dtype="datetime64[us]")
    first = np.searchsorted(decisions, available, side="left")
    return np.where(np.isnat(available), len(decisions), first).astype(np.int64)


def known(available_at: Any, decision_at: Any) -> npt.NDArray[np.bool_]:
    """Which records were known at one decision."""
    decisions = np.asarray([decision_at], dtype="datetime64[us]")
    informed: npt.NDArray[np.bool_] = first_decision(available_at, decisions) == 0
    return informed
