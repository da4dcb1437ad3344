"""`tapewire import`: every file is read and checked before the first row of any is stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import numpy as np
import pandas as pd

from data.errors import ConfigError, InputError
from data.intake import Quarantine, refuse_conflicts
from data.lake import Lake
from data.news.files import read_headlines
from data.news.store import store_headlines
from data.prices.files import PRICES, Basis, read_prices
from data.prices.store import refuse_other_basis, store_prices


@dataclass(frozen=True)
class Imported:
    """Input rows read, new records, and the rows left out by reason."""

    read: int
    added: int
    actions_added: int
    links_added: int
    skipped: dict[str, int]

    def as_dict(self) -> dict[str, object]:
        """The contract of `import --json`."""
        return {
            "read": self.read,
            "added": self.added,
            "links_added": self.links_added,
            "actions_added": self.actions_added,
            "skipped": self.skipped,
        }


def import_prices(
    lake: Lake,
    files: Sequence[Path],
    mapping: dict[str, str],
    calendar: str,
    basis: Basis = "split",
    ticker: str | None = None,
    now: np.datetime64 | None = None,
) -> Imported:
    """Store the bars and actions of price files. `now` (UTC) is when the lake records them."""
    recorded_at = utc_now() if now is None else now
    read = [read_prices(path, mapping, calendar, basis, ticker, recorded_at) for path in files]
    refuse_conflicts([file.bars for file in read], ["ticker", "session"], [*PRICES, "volume"])
    for file in read:
        refuse_other_basis(lake, file.bars)
    stored = [store_prices(lake, file.bars, file.actions, recorded_at) for file in read]
    return Imported(
        read=sum(file.read for file in read),
        added=sum(new.bars for new in stored),
        actions_added=sum(new.actions for new in stored),
        links_added=0,
        skipped=_skipped([file.quarantine for file in read]),
    )


def import_headlines(
    lake: Lake,
    files: Sequence[Path],
    mapping: dict[str, str],
    calendar: str,
    zone: str | None = None,
    lag: str = "0s",
    now: np.datetime64 | None = None,
) -> Imported:
    """Store the headlines of files and their links. `lag` is how long after its stamp one was known."""
    recorded_at = utc_now() if now is None else now
    delay = parse_lag(lag)
    read = [read_headlines(path, mapping, calendar, zone, delay, recorded_at) for path in files]
    refuse_conflicts([file.rows for file in read], ["id"], ["title", "published_at"])
    stored = [store_headlines(lake, file.rows, recorded_at) for file in read]
    return Imported(
        read=sum(file.read for file in read),
        added=sum(new.headlines for new in stored),
        actions_added=0,
        links_added=sum(new.links for new in stored),
        skipped=_skipped([file.quarantine for file in read]),
    )


def parse_basis(text: str) -> Basis:
    """One of raw, split, total. Raises ConfigError."""
    for basis in get_args(Basis):
        if text == basis:
            return cast("Basis", basis)
    raise ConfigError(f"--basis {text}: expected {', '.join(get_args(Basis))}.")


def parse_lag(text: str) -> np.timedelta64:
    """A span such as 90s, 15min or 1h. Raises InputError where it is none, or negative."""
    lag = pd.to_timedelta([text], errors="coerce").to_numpy("timedelta64[us]")[0]
    if np.isnat(lag) or lag < np.timedelta64(0):
        raise InputError(f"--lag {text}: expected a span of time such as 90s, 15min or 1h, not below zero.")
    return np.timedelta64(lag)


def utc_now() -> np.datetime64:
    """The present, UTC, to the microsecond."""
    return np.datetime64(pd.Timestamp.now("UTC").tz_localize(None), "us")


def _skipped(quarantines: Sequence[Quarantine]) -> dict[str, int]:
    total = Quarantine()
    for quarantine in quarantines:
        for reason, rows in quarantine.skipped.items():
            total.add(reason, rows)
    return total.skipped
