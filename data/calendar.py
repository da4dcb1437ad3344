"""Exchange sessions and the decision clock.

`session` is t, the last closed session a sample uses; `target_session` is t+1. The decision after
session t is made at `max(close_t, run time)`:

- `close`: the close of t.
- `nightly`: 22:00 exchange time on the eve of the target session, so that a weekend's news counts.
- `pre-open`: 30 minutes before the open of the target session.

On a calendar without a pause (24/7) each of these is the close, by the same formula.
Session labels are `datetime64[D]`, instants are UTC `datetime64[us]`.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import exchange_calendars
import numpy as np
import numpy.typing as npt
import pandas as pd

from data.asof import Instants, first_decision, known
from data.errors import ConfigError

Clock = Literal["close", "nightly", "pre-open"]
Labels = npt.NDArray[np.datetime64]

EARLIEST = pd.Timestamp("1985-01-01")  # no calendar's rules are trusted before this
PRE_OPEN = np.timedelta64(30, "m")
NIGHTLY_HOUR = pd.Timedelta(hours=22)
SAME_DAYS = {"XNSE": "XBOM"}  # exchange_calendars lacks India's National Stock Exchange, which keeps Bombay's days


@dataclass(frozen=True)
class Sessions:
    """Consecutive sessions of one exchange, each with the decision that follows it.

    All arrays have one entry a session, ascending. `target` holds the label of the next session,
    `decision_before` the decision that precedes the first one here.
    """

    calendar: str
    clock: Clock
    labels: Labels
    opens: Instants
    closes: Instants
    target: Labels
    target_open: Instants
    target_close: Instants
    decision_at: Instants
    decision_before: np.datetime64

    def __len__(self) -> int:
        return len(self.labels)

    def index(self, labels: Any) -> npt.NDArray[np.int64]:
        """Position of each session label; -1 where the exchange was closed or it lies outside."""
        wanted = np.asarray(labels, dtype="datetime64[D]")
        at = np.searchsorted(self.labels, wanted)
        found = self.labels[np.minimum(at, len(self) - 1)] == wanted
        return np.where(found, at, -1).astype(np.int64)

    def first_from(self, dates: Any) -> npt.NDArray[np.int64]:
        """Index of the first session on or after each date; len(self) where there is none."""
        return np.searchsorted(self.labels, np.asarray(dates, dtype="datetime64[D]")).astype(np.int64)

    def last_by(self, dates: Any) -> npt.NDArray[np.int64]:
        """Index of the last session on or before each date; -1 where there is none."""
        return np.searchsorted(self.labels, np.asarray(dates, dtype="datetime64[D]"), side="right").astype(np.int64) - 1

    def first_informed(self, available_at: Any) -> npt.NDArray[np.int64]:
        """Index of the session whose decision is the first each stamp may inform.

        -1 where that decision precedes the first session here, len(self) where there is none.
        """
        return first_decision(available_at, np.append(self.decision_before, self.decision_at)) - 1

    def last_closed(self, now: Any) -> int:
        """Index of the last session whose close was known at `now`; -1 where there is none yet.

        Raises ConfigError where the calendar ends before `now`: what has traded since cannot be told.
        """
        if known(self.target_close[-1:], now)[0]:
            raise ConfigError(
                f"{self.calendar}: expected its sessions up to {np.datetime64(now, 'D')}; exchange_calendars "
                f"{exchange_calendars.__version__} knows them up to {self.target[-1]}. Get a newer one: "
                "pip install --upgrade exchange_calendars"
            )
        return int(known(self.closes, now).sum()) - 1

    def close_after(self, dates: Any) -> Instants:
        """Close of the first session after each calendar date: when a date-only stamp is known."""
        days = np.asarray(dates, dtype="datetime64[D]")
        at = np.searchsorted(self.labels, days, side="right")
        closes = np.append(self.closes, np.datetime64("NaT", "us"))
        return closes[at]

    def between(self, first: Any, last: Any) -> "Sessions":
        """The sessions labelled from `first` to `last`, both included."""
        days = np.asarray([first, last], dtype="datetime64[D]")
        low, high = int(self.first_from(days[0])), int(self.last_by(days[1])) + 1
        arrays = ("labels", "opens", "closes", "target", "target_open", "target_close", "decision_at")
        parts = {name: getattr(self, name)[low:high] for name in arrays}
        before = self.decision_at[low - 1] if low else self.decision_before
        return Sessions(calendar=self.calendar, clock=self.clock, decision_before=before, **parts)


@lru_cache(maxsize=32)
def sessions(calendar: str, clock: Clock = "nightly") -> Sessions:
    """Every session of `calendar` from 1985 (or its first) to about a year from now.

    Raises ConfigError where exchange_calendars knows no such code.
    """
    schedule, zone = _schedule(calendar)
    labels = schedule.index.to_numpy(dtype="datetime64[D]")
    opens, closes = _instants(schedule["open"]), _instants(schedule["close"])
    run_at = _run_at(clock, labels[1:], opens[1:], zone)
    return Sessions(
        calendar=calendar,
        clock=clock,
        labels=labels[:-1],
        opens=opens[:-1],
        closes=closes[:-1],
        target=labels[1:],
        target_open=opens[1:],
        target_close=closes[1:],
        decision_at=closes[:-1] if run_at is None else np.maximum(closes[:-1], run_at),
        decision_before=np.datetime64("0001-01-01", "us"),
    )


def zone_of(calendar: str) -> str:
    """IANA name of the exchange's time zone."""
    return _schedule(calendar)[1]


@lru_cache(maxsize=32)
def _schedule(calendar: str) -> tuple[pd.DataFrame, str]:
    code = SAME_DAYS.get(calendar, calendar)
    try:
        exchange = exchange_calendars.get_calendar(code)
        first = max(EARLIEST, exchange.bound_min() or EARLIEST)
        exchange = exchange_calendars.get_calendar(code, start=first)
    except exchange_calendars.errors.InvalidCalendarName:
        raise ConfigError(
            f'calendar = "{calendar}": expected a code that exchange_calendars knows, such as XNYS, XLON, '
            "XTKS or 24/7. Run `python -m exchange_calendars.ecal --help` for more, and mend `calendar`."
        ) from None
    return exchange.schedule, str(exchange.tz)


def _run_at(clock: Clock, targets: Labels, target_opens: Instants, zone: str) -> Instants | None:
    if clock == "close":
        return None
    if clock == "pre-open":
        return target_opens - PRE_OPEN
    eve = pd.DatetimeIndex(targets.astype("datetime64[ns]")) - pd.Timedelta(days=1)
    return _instants(pd.Series((eve + NIGHTLY_HOUR).tz_localize(zone, ambiguous=False, nonexistent="shift_forward")))


def _instants(stamps: "pd.Series[Any]") -> Instants:
    return pd.DatetimeIndex(stamps).tz_convert("UTC").tz_localize(None).to_numpy(dtype="datetime64[us]")
