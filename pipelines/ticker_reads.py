"""What `tapewire ingest --prices` has to do for each ticker, how that ended, and what a run comes to. Asks nobody."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from data.calendar import Sessions
from data.prices.answer import Tape
from data.prices.store import Stored
from data.prices.ticker_state import TickerState

Outcome = Literal["fed", "current", "ended", "unknown", "limited", "failed", "not-asked"]


@dataclass(frozen=True)
class Task:
    """One ticker, its exchange, the newest session whose bar is due, and what is known of it."""

    ticker: str
    exchange: Sessions
    due: int
    state: TickerState | None

    @property
    def newest(self) -> np.datetime64:
        """Label of the newest session whose bar is due."""
        label: np.datetime64 = self.exchange.labels[self.due]
        return label


@dataclass(frozen=True)
class TickerRead:
    """How one ticker's attempt ended. `state` is None where there is nothing to be remembered."""

    ticker: str
    outcome: Outcome
    code: str = ""
    reason: str = ""
    tape: Tape | None = None
    state: TickerState | None = None
    news: bool = True  # that an ended ticker has ended is told once

    @property
    def good(self) -> bool:
        """Whether its tape is complete."""
        return self.outcome in ("fed", "current")

    @property
    def bad(self) -> bool:
        """Whether it is to be told as failed."""
        return not self.good and self.news

    def as_dict(self) -> dict[str, object]:
        """One record of `ingest --json`."""
        return {"ticker": self.ticker, "outcome": self.outcome, "code": self.code, "reason": self.reason}


@dataclass(frozen=True)
class PricesIngested:
    """What a run did: each ticker's outcome, the new rows, rows left out by code, and why it ended early, if it did."""

    source: str
    reads: tuple[TickerRead, ...]
    stored: Stored
    quarantined: Mapping[str, int]
    stopped: str

    @property
    def exit_code(self) -> int:
        """0 all complete, 3 some failed, 4 none is fed."""
        if not any(read.good for read in self.reads):
            return 4
        return 3 if any(read.bad for read in self.reads) else 0

    def count(self, *outcomes: Outcome) -> int:
        """How many tickers ended in one of these."""
        return sum(read.outcome in outcomes for read in self.reads)

    def as_dict(self) -> dict[str, object]:
        """The contract of `ingest --prices --json`."""
        return {
            "source": self.source,
            "tickers": len(self.reads),
            "fed": self.count("fed"),
            "current": self.count("current"),
            "ended": self.count("ended"),
            "failed": [read.as_dict() for read in self.reads if read.bad and read.outcome != "not-asked"],
            "not_asked": [read.ticker for read in self.reads if read.outcome == "not-asked"],
            "bars_added": self.stored.bars,
            "actions_added": self.stored.actions,
            "quarantined": dict(self.quarantined),
            "stopped": self.stopped or None,
        }
