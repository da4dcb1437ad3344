"""The present, and sessions and instants as a user writes them on the command line."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from data.calendar import sessions
from data.errors import ConfigError
from pipelines.config import TapewireConfig
from pipelines.dataset import session_of

Now = Callable[[], np.datetime64]


def utc_now() -> np.datetime64:
    """The present, UTC, to the microsecond."""
    return np.datetime64(pd.Timestamp.now("UTC").tz_localize(None), "us")


def parse_session(text: str, option: str = "--as-of") -> np.datetime64:
    """A session's date: YYYY-MM-DD. Raises ConfigError, which names the `option`."""
    date = pd.to_datetime(text, format="%Y-%m-%d", errors="coerce")
    if not isinstance(date, pd.Timestamp):
        raise ConfigError(f"{option} {text}: expected a date such as 2015-12-30.")
    return np.datetime64(date, "D")


def parse_decision(text: str | None) -> np.datetime64 | None:
    """The session whose decision `--as-of` names; None, the newest, where it is left out."""
    return None if text is None else parse_session(text)


def parse_instant(text: str | None, config: TapewireConfig, option: str = "--as-of") -> np.datetime64 | None:
    """ISO 8601, UTC where it has no offset; a bare date means the decision that follows its session. None is None."""
    if text is None:
        return None
    if len(text) == len("2015-12-30"):
        exchange = sessions(config.calendar, config.decision)
        decision_at: np.datetime64 = exchange.decision_at[session_of(exchange, parse_session(text, option))]
        return decision_at
    stamp = pd.to_datetime(text, errors="coerce", utc=True)
    if not isinstance(stamp, pd.Timestamp):
        raise ConfigError(f"{option} {text}: expected an instant such as 2015-12-30T21:00:00Z, or a date.")
    return np.datetime64(stamp.tz_localize(None), "us")
