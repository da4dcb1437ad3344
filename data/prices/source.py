"""What a vendor of prices must offer, and how it fails. Fetches nothing itself."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

BAR_COLUMNS = ["session", "open", "high", "low", "close", "volume"]
ACTION_COLUMNS = ["ex_date", "kind", "value"]


@dataclass(frozen=True)
class History:
    """What a vendor says of one ticker, each frame ascending by its first column; either may be empty.

    `bars` has `BAR_COLUMNS` (`session` as datetime64[s] without zone) and `actions` `ACTION_COLUMNS`, with kind
    split (new shares per old) or dividend (cash per share after any split), in the vendor's own basis: what it
    has adjusted backwards is undone later. Numbers may be missing: `data/quality.py` judges them.
    """

    bars: pd.DataFrame
    actions: pd.DataFrame


class PriceSource(Protocol):
    """A vendor. Safe to call from several threads."""

    name: str

    def history(self, ticker: str, since: np.datetime64 | None) -> History:
        """Bars and actions of the sessions from `since` (None: all there are) to the newest.

        Raises SourceError: UnknownTickerError, RateLimitedError or UnavailableError.
        """


class SourceError(Exception):
    """One ticker could not be had; the run goes on with the others. The text is one sentence for the user."""


class UnknownTickerError(SourceError):
    """The vendor knows no such ticker, or no longer."""


class RateLimitedError(SourceError):
    """The vendor asks to wait. It says nothing about the ticker."""


class UnavailableError(SourceError):
    """The vendor could not be reached, or its answer was not what it should be."""
