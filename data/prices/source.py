"""What a vendor of prices must offer, and how it fails. Fetches nothing itself."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

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
    """A vendor. Safe to call from several threads.

    `split_adjusted`: whether its bars before a split are, as a rule, divided by it; where bars can tell, they do.
    `unit`: what its prices and dividends are rounded to.
    """

    name: str
    split_adjusted: bool
    unit: float

    def history(self, ticker: str, since: np.datetime64) -> History:
        """Bars and actions of the sessions from `since` (a date) to the newest. Raises SourceError."""


class SourceError(Exception):
    """One ticker could not be had; the run goes on with the others. The text is one sentence for the user.

    `code` names the kind. A `passing` one may go better at once.
    """

    code: ClassVar[str] = "failed"
    passing: ClassVar[bool] = False


class UnknownTickerError(SourceError):
    """The vendor says itself that it knows no such ticker, or no longer."""

    code = "unknown-ticker"


class EmptyError(SourceError):
    """The vendor answered in its usual form and gave no bar."""

    code = "no-bars"


class RateLimitedError(SourceError):
    """The vendor asks to wait, for `retry_after` seconds if it says so. It says nothing about the ticker."""

    code = "rate-limited"
    passing = True

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class UnavailableError(SourceError):
    """The vendor could not be reached, or failed."""

    code = "unavailable"
    passing = True


class MalformedError(SourceError):
    """The vendor's answer was not what it should be: HTML, another shape, too large, at odds with itself."""

    code = "malformed"


class RefusedError(SourceError):
    """The vendor refuses us: no key, or a wrong one. No ticker will fare better."""

    code = "refused"


class StoppedError(SourceError):
    """Not asked: the run has ended for a reason that holds for every ticker."""

    code = "not-asked"
