"""Headlines and their links into the lake. A changed title is a new version with its own stamp."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from data.lake import Lake, revisions


@dataclass(frozen=True)
class Stored:
    """New rows in the lake."""

    headlines: int
    links: int


def store_headlines(lake: Lake, rows: pd.DataFrame, recorded_at: np.datetime64) -> Stored:
    """Add backfilled rows (see `HeadlineFile.rows`); what is stored already is left as it is.

    A title that differs from the stored one was first seen now: its version is available from
    `recorded_at`. Headlines are committed before links, so a killed import is completed by its re-run.
    """
    stamped = rows.assign(
        first_seen_at=pd.Series(np.datetime64("NaT", "us"), index=rows.index),
        recorded_at=recorded_at,
        origin="backfill",
    )
    incoming = stamped.drop_duplicates("id", ignore_index=True)
    changed = revisions(lake.current("headlines"), incoming, "headlines", ["title"])
    edited = changed["version"] > 1
    seen_now = np.maximum(changed["available_at"].to_numpy(), recorded_at)
    changed["available_at"] = changed["available_at"].where(~edited, seen_now)
    links = stamped[stamped["ticker"].notna()].assign(rule="dataset", confidence=1.0)
    return Stored(lake.merge("headlines", _utc(changed)), lake.merge("links", _utc(links)))


def _utc(rows: pd.DataFrame) -> pd.DataFrame:
    naive = rows.select_dtypes("datetime").columns
    return rows.assign(**{name: rows[name].dt.tz_localize("UTC") for name in naive})
