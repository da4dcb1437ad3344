"""A historic file's stamps, read strictly: an instant, a day, or a reason why neither.

Understood: ISO 8601 with Z, UTC, GMT or a numeric offset; the same without a zone where the caller
names one; a calendar date alone. Anything else is unknown, never guessed. A stamp at exactly midnight
of its own zone counts as a date whose time is unknown, because files write unknown times so and the
later reading cannot leak. Feeds' RFC 822 stamps are not read here.
"""

import numpy as np
import pandas as pd

from data.errors import InputError

EARLIEST = np.datetime64("1990-01-01", "us")

_DATE = r"\d{4}-\d{2}-\d{2}"
_TIME = r"\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?"
_STAMP = rf"^\s*({_DATE})(?:[T ]({_TIME})\s*(Z|UTC|GMT|[+-](?:0\d|1[0-4]):?[0-5]\d)?)?\s*$"


def read_stamps(
    values: pd.Series, zone: str | None, now: np.datetime64, earliest: np.datetime64 = EARLIEST
) -> pd.DataFrame:
    """Columns `at` (UTC, naive `datetime64[us]`), `date`, `day` (bool) and `problem` (empty where there is none).

    Where `day` is True the stamp says no more than its `date`, in its own zone; `at` is then the instant
    of its midnight where the stamp has a time and a zone of its own, else NaT. Where there is a problem
    neither counts. `zone` is the IANA zone of stamps that carry none; in an hour that a clock change
    repeats it means the later of the two.
    """
    read = _from_text(values, zone) if _is_text(values) else _from_instants(values, zone)
    instant = read["at"].fillna(read["date"]).to_numpy()
    sound = (read["problem"] == "").to_numpy()
    late, early = sound & (instant > now), sound & (instant < earliest)
    read.loc[late, "problem"] = "stamp in the future"
    read.loc[early, "problem"] = f"stamp before {earliest.astype('datetime64[Y]')}"
    read.loc[late | early, ["at", "date"]] = np.datetime64("NaT", "us")
    return read


def _is_text(values: pd.Series) -> bool:
    return not pd.api.types.is_datetime64_any_dtype(values.dtype)


def _from_instants(values: pd.Series, zone: str | None) -> pd.DataFrame:
    own = values.dt.tz_localize(None) if values.dt.tz is not None else values
    midnight = (own == own.dt.normalize()).to_numpy()
    zoned = values.dt.tz is not None
    at = values.dt.tz_convert("UTC").dt.tz_localize(None) if zoned else _localize(own, zone).mask(midnight)
    return _result(own, at, midnight, values.isna().to_numpy())


def _from_text(values: pd.Series, zone: str | None) -> pd.DataFrame:
    parts = values.astype("string").str.extract(_STAMP)
    date, time, offset = parts[0], parts[1].fillna("00:00"), parts[2]
    own = pd.to_datetime(date + "T" + time, format="ISO8601", errors="coerce").astype("datetime64[us]")
    zoned = offset.notna()
    minutes = _offset_minutes(offset)
    at = own - pd.to_timedelta(minutes, unit="min")
    midnight = (own == own.dt.normalize()).to_numpy()
    at[~zoned] = _localize(own[~zoned], zone).mask(midnight[~zoned])
    return _result(own, at, midnight, own.isna().to_numpy())


def _offset_minutes(offset: pd.Series) -> pd.Series:
    digits = offset.str.extract(r"^([+-])(\d{2}):?(\d{2})$")
    minutes: pd.Series = digits[1].fillna("0").astype(int) * 60 + digits[2].fillna("0").astype(int)
    signed: pd.Series = minutes.where(digits[0] != "-", -minutes)
    return signed


def _localize(own: pd.Series, zone: str | None) -> pd.Series:
    if zone is None:
        return pd.Series(np.datetime64("NaT", "us"), index=own.index, dtype="datetime64[us]")
    try:
        local = own.dt.tz_localize(zone, ambiguous=np.zeros(len(own), bool), nonexistent="shift_forward")
    except (KeyError, ValueError, OSError) as error:
        raise InputError(f"--tz {zone}: expected an IANA zone such as America/New_York, found: {error}.") from error
    utc: pd.Series = local.dt.tz_convert("UTC").dt.tz_localize(None)
    return utc


def _result(own: pd.Series, at: pd.Series, day: np.ndarray, unread: np.ndarray) -> pd.DataFrame:
    problem = np.where(unread, "unreadable stamp", np.where(at.isna() & ~day, "stamp without a zone", ""))
    date = own.dt.normalize().astype("datetime64[us]")
    columns = {"at": at.astype("datetime64[us]"), "date": date, "day": day & ~unread}
    return pd.DataFrame({**columns, "problem": pd.array(problem, dtype="str")}, index=own.index)
