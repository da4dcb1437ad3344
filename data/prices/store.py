"""Bars and actions into the lake. A changed bar is a new version, known only since it was recorded."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from data.errors import InputError
from data.lake import Lake, revisions
from data.prices.files import PRICES


@dataclass(frozen=True)
class Stored:
    """New rows in the lake."""

    bars: int
    actions: int


def store_prices(
    lake: Lake,
    bars: pd.DataFrame,
    actions: pd.DataFrame,
    recorded_at: np.datetime64,
    origin: Literal["live", "backfill"] = "backfill",
    tolerance: float = 0.0,
) -> Stored:
    """Add bars and actions (see `PriceFile`); what is stored already is left as it is.

    A first version keeps the market's own stamp; a version that differs from a stored one, by more than the share
    `tolerance` in any number, is available from `recorded_at`. Check the basis first: see `refuse_other_basis`.
    """
    new_bars = revisions(lake.current("bars"), bars, "bars", [*PRICES, "volume"], tolerance)
    new_actions = revisions(lake.current("actions"), actions, "actions", ["value"], tolerance)
    return Stored(
        lake.merge("bars", _stamped(new_bars, recorded_at, origin)),
        lake.merge("actions", _stamped(new_actions, recorded_at, origin)),
    )


def _stamped(rows: pd.DataFrame, recorded_at: np.datetime64, origin: str) -> pd.DataFrame:
    available = rows["available_at"].to_numpy(dtype="datetime64[us]")
    restated = rows["version"].to_numpy() > 1
    known_at = np.where(restated, np.maximum(available, recorded_at), available)
    instants = {"available_at": known_at, "recorded_at": np.full(len(rows), recorded_at)}
    utc = {name: pd.DatetimeIndex(stamps).tz_localize("UTC") for name, stamps in instants.items()}
    return rows.assign(**utc, origin=origin)


def refuse_other_basis(lake: Lake, bars: pd.DataFrame) -> None:
    """InputError where the lake holds bars of one of these tickers on another basis."""
    stored = lake.frame("bars", ["ticker", "basis"]).drop_duplicates("ticker").set_index("ticker")["basis"]
    incoming = bars.drop_duplicates("ticker").set_index("ticker")["basis"]
    both = incoming.index.intersection(stored.index)
    other = [ticker for ticker in both if stored[ticker] != incoming[ticker]]
    if other:
        raise InputError(
            f"--basis {incoming[other[0]]}: expected the basis that the lake already holds for {', '.join(other[:5])} "
            f"({stored[other[0]]}); one ticker's prices cannot mix the two. Nothing was imported."
        )
