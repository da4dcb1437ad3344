"""Which nights are due: sessions whose decision has come and whose night is not complete. Reads the calendar, no clock.

The wall clock only says up to where: a weekend, a holiday, a half day or a change to summer time are the calendar's.
"""

from collections.abc import Iterable

import numpy as np

from data.asof import known
from data.calendar import Sessions
from pipelines.nightly.ledger import Ledger


def nights_due(
    exchange: Sessions, now: np.datetime64, begun: Iterable[Ledger], most: int, sealed: np.datetime64
) -> list[int]:
    """Positions in `exchange` of the sessions to be done at `now`, oldest first, the newest `most` of them.

    `begun` are the nights that have a ledger, newest first; those of another calendar count by their date. Due is all
    that follows the last complete one; where none is complete, all since the oldest that a run has begun; at the very
    first run the newest alone. `sealed` is the last sealed night, NaT where there is none: nothing older can be sealed,
    so nothing older is due, whatever became of the ledgers. Raises ConfigError where the calendar ends before `now`.
    """
    exchange.last_closed(now)
    newest = int(known(exchange.decision_at, now).sum()) - 1
    first = newest
    for ledger in begun:
        if ledger.complete:
            first = int(exchange.last_by(ledger.session)) + 1
            break
        if not ledger.asked:
            first = min(first, int(exchange.first_from(ledger.session)))
    if not np.isnat(sealed):
        first = max(first, min(int(exchange.first_from(sealed)), newest))
    return list(range(max(first, 0), newest + 1))[-most:]


def next_due(exchange: Sessions, now: np.datetime64) -> tuple[np.datetime64, np.datetime64]:
    """The first session whose decision has not come at `now`, and when it comes."""
    at = int(known(exchange.decision_at, now).sum())
    return exchange.labels[at], exchange.decision_at[at]
