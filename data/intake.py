"""What every import shares: the count of rows skipped and why, and the bound on unreadable stamps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from data.errors import InputError

MOST_UNREADABLE = 0.01
UNREADABLE = ("unreadable stamp", "stamp without a zone")


@dataclass
class Quarantine:
    """Rows left out of an import, counted by reason."""

    skipped: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, rows: int) -> None:
        """Count `rows` more under `reason`; none are not counted."""
        if rows:
            self.skipped[reason] = self.skipped.get(reason, 0) + int(rows)

    def drop(self, frame: pd.DataFrame, problem: "pd.Series[str]") -> pd.DataFrame:
        """`frame` without the rows that have a problem, which are counted."""
        for reason, rows in problem[problem != ""].value_counts().items():
            self.add(str(reason), rows)
        return frame[(problem == "").to_numpy()]


def refuse_all_bad(frame: pd.DataFrame, quarantine: Quarantine, path: Path) -> None:
    """InputError where no row of a file was usable."""
    if frame.empty:
        reasons = ", ".join(f"{reason}: {rows}" for reason, rows in quarantine.skipped.items())
        raise InputError(f"{path}: expected usable rows, found none ({reasons}). Nothing was imported.")


def refuse_conflicts(frames: Sequence[pd.DataFrame], keys: list[str], values: list[str]) -> None:
    """InputError where two files of one import give one key different values; each file alone has been checked."""
    rows = pd.concat(frames, ignore_index=True)[[*keys, *values]].drop_duplicates()
    twice = rows[rows.duplicated(keys, keep=False)].sort_values(keys)
    if not twice.empty:
        first, second = (
            ", ".join(f"{name} {row[name]}" for name in [*keys, *values]) for row in twice.iloc[:2].to_dict("records")
        )
        raise InputError(
            f"the files: expected them to agree where they overlap; {len(twice)} rows do not, such as {first} and "
            f"{second}. Import one of the two, or one after the other if the later one corrects the earlier. "
            "Nothing was imported."
        )


def clean_tickers(tickers: "pd.Series[str]") -> "pd.Series[str]":
    """Upper case without surrounding space; missing where there is none."""
    cleaned = tickers.astype("string").str.strip().str.upper()
    return cleaned.mask(cleaned == "")


ODD_TICKER = r"^[A-Z0-9^][A-Z0-9.^=/_-]{0,23}$"
