"""When an item says it was published, read strictly: an instant, a day, or a reason why neither.

One grammar for feeds and files: ISO 8601 (RFC 3339) and the dates of RFC 822 and RFC 2822, white space as it comes,
with one of these after the time: Z, UT, UTC, GMT, the US abbreviations EST to PDT, which mean what RFC 2822 says in
any season, or an offset up to 14:59. Without one a stamp is read only where the caller names its zone. Hours have two
digits or AM or PM; years of two digits are those of RFC 2822 (49 is 2049, 50 is 1950).

Anything else is unknown, never guessed: other abbreviations (IST, CET and BST are several zones each), zones by name,
-0000, month names of other languages, epochs, 24:00, a 60th second (leap seconds are not on this clock), a weekday or
a zone in parentheses that contradicts the rest, and whatever is longer than `LONGEST` characters.

Where two readings remain the later one holds, because it cannot leak: a stamp at exactly midnight of its own zone is
a date whose time is unknown, because unknown times are written so; where a clock change makes a wall time happen
twice or never, both offsets are tried. Fractions beyond microseconds are cut. Not here: what a day means for trading
(`data/news/files.py`), and any allowance for a publisher's fast clock.
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import chain
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.asof import Instants
from data.errors import InputError

EARLIEST = np.datetime64("1990-01-01", "us")
LONGEST = 100

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_US_HOURS = {"est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7}
_NAMED = {"z": 0, "ut": 0, "utc": 0, "gmt": 0} | {name: hours * 60 for name, hours in _US_HOURS.items()}  # minutes

# Every repetition is bounded and no two neighbours can match the same character, so that matching is linear.
_STAMP = re.compile(
    rf"""
    (?: (\d{{4}})-(\d\d)-(\d\d) (?: [T\ ](?=\d) | \Z )
      | (?: ({"|".join(_WEEKDAYS)}) (?: ,\ ? | \  ) )? (\d\d?)\ ({"|".join(_MONTHS)})\ (\d{{4}}|\d\d)\ (?=\d) )
    (?: (\d\d?):(\d\d)(?::(\d\d)(?:\.(\d{{1,9}}))?)? (?: \ ?([AP])M )?
        (?: \ ?({"|".join(_NAMED)}|[+-]\d\d(?::?\d\d)?) (?: \ ?\(([^()]{{0,40}})\) )? )? )?
    """,
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)

_SECOND = 1_000_000
_DAY = 86_400 * _SECOND
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = ((end.toordinal() - _EPOCH.toordinal()) * _DAY for end in (date.min, date.max))  # that a zone can place
_NONE = int(np.iinfo(np.int64).min)  # NaT as an integer

# What a stamp says by itself, in microseconds: its date since 1970, the time of that day and the offset from UTC.
# Where it says none of one it is `_NONE`.
_Said = tuple[int, int, int]
_UNREADABLE = (_NONE, _NONE, _NONE)
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stamp:
    """One stamp as read; instants are UTC, naive `datetime64[us]`.

    `day` is True where no more than the `date`, in the stamp's own zone, is known; `at` is then its midnight where
    the stamp has a time and a zone, else NaT. Where there is a `problem` (empty otherwise) all else is NaT and False.
    """

    at: np.datetime64
    day: bool
    problem: str
    date: np.datetime64


def read_stamp(raw: str | None, zone: str | None, now: np.datetime64) -> Stamp:
    """A feed's stamp. `zone` is the IANA zone of one that carries none; whatever is after `now` is a problem.

    No text raises; an unknown `zone` is an InputError.
    """
    read = _place(np.array([_parse(raw or "")]), zone, now, EARLIEST)
    return Stamp(read["at"][0], bool(read["day"][0]), str(read["problem"][0]), read["date"][0])


def read_stamps(
    values: pd.Series, zone: str | None, now: np.datetime64, earliest: np.datetime64 = EARLIEST
) -> pd.DataFrame:
    """`read_stamp` of a file's column of texts or instants: columns `at`, `date`, `day` and `problem`, as in `Stamp`.

    Missing cells are unreadable stamps; no rows give none. An instant without a time zone is a stamp without one.
    """
    instants = pd.api.types.is_datetime64_any_dtype(values.dtype)
    said = _said_by_instants(values) if instants else _said_by_texts(values)
    read = _place(said, zone, now, earliest)
    return pd.DataFrame({**read, "problem": pd.array(read["problem"], dtype="str")}, index=values.index)


def _said_by_texts(values: pd.Series) -> _Ints:
    """[N, 3]; equal texts are parsed once."""
    texts = ["" if missing else str(cell) for cell, missing in zip(values.tolist(), values.isna(), strict=True)]
    codes, distinct = pd.factorize(np.array(texts, dtype=object), use_na_sentinel=False)
    said = np.fromiter(chain.from_iterable(map(_parse, distinct)), dtype=np.int64, count=3 * len(distinct))
    return said.reshape(-1, 3)[codes]


def _said_by_instants(values: pd.Series) -> _Ints:
    given = pd.DatetimeIndex(values).as_unit("us")
    at = pd.DatetimeIndex(given.where((given.asi8 > _FIRST) & (given.asi8 < _LAST)))
    wall = at.tz_localize(None).to_numpy().view(np.int64)
    date = np.where(wall == _NONE, _NONE, wall - wall % _DAY)
    offset = np.full_like(wall, _NONE) if at.tz is None else wall - at.tz_convert(None).to_numpy().view(np.int64)
    return np.stack([date, wall % _DAY, offset], axis=1)


def _place(said: _Ints, zone: str | None, now: np.datetime64, earliest: np.datetime64) -> dict[str, np.ndarray]:
    """What [N, 3] stamps say, as instants: the columns of `read_stamps`."""
    date, clock, offset = said[:, 0].view("M8[us]"), said[:, 1].view("m8[us]"), said[:, 2].view("m8[us]")
    wall, day = date + clock, ~np.isnat(date) & ~(clock > np.timedelta64(0))
    at = wall - offset
    bare = np.isnat(offset) & ~np.isnat(wall) & ~day
    if zone is not None:
        at[bare] = _later(wall[bare], _zone(zone))
    instant = np.where(np.isnat(at), date, at)
    problems = {
        "unreadable stamp": np.isnat(date),
        "stamp without a zone": np.isnat(at) & ~day,
        "stamp in the future": instant > now,
        f"stamp before {earliest.astype('M8[Y]')}": instant < earliest,
    }
    problem = np.select(list(problems.values()), list(problems), "")
    bad = problem != ""
    never = np.datetime64("NaT", "us")
    return {"at": np.where(bad, never, at), "date": np.where(bad, never, date), "day": day & ~bad, "problem": problem}


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise InputError(f"--tz {name}: expected an IANA zone such as America/New_York, found: {error}.") from error


def _later(wall: Instants, zone: ZoneInfo) -> Instants:
    """UTC of a zone's wall times; the later instant where a clock change leaves two readings of one (PEP 495).

    In a repeated hour that is the second time round; in a skipped one it is what a clock not yet changed would show.
    `tz_localize` of pandas 3.1 is not used: it misreads changes of 3 hours and those off the full hour.
    """
    micros = wall.astype(np.int64)
    days, of_day = np.unique(micros // _DAY, return_inverse=True)
    ahead = np.array([_steady(day * _DAY, zone) for day in days.tolist()], dtype=np.int64)[of_day]
    changing = ahead == _NONE
    ahead[changing] = [min(_ahead(each, zone)) for each in micros[changing].tolist()]
    return (micros - ahead).view("M8[us]")


def _steady(midnight: int, zone: ZoneInfo) -> int:
    """The offset that holds all day long; `_NONE` on a day when it changes."""
    edges = _ahead(midnight, zone) | _ahead(midnight + _DAY - 1, zone)
    return edges.pop() if len(edges) == 1 else _NONE


def _ahead(wall: int, zone: ZoneInfo) -> set[int]:
    own = _EPOCH + timedelta(microseconds=wall)
    readings = [own.replace(tzinfo=zone, fold=fold) - _EPOCH for fold in (0, 1)]
    return {wall - reading // timedelta(microseconds=1) for reading in readings}


def _parse(raw: str) -> _Said:
    """What a text says by itself; `_UNREADABLE` where it is no stamp of the grammar or an impossible one."""
    text = raw.strip()
    if len(text) > LONGEST:
        return _UNREADABLE
    # CDATA marks stay where a feed escaped them.
    text = text.removeprefix("<![CDATA[").removesuffix("]]>")
    found = _STAMP.fullmatch(" ".join(text.split()))
    if found is None:
        return _UNREADABLE
    year, month, day, weekday, rfc_day, rfc_month, rfc_year, hour, minute, second, fraction, half, zone, comment = (
        found.groups()
    )
    try:
        on = _date(year, month, day) if year else _rfc_date(weekday, rfc_day, rfc_month, rfc_year)
        clock = _clock(hour, minute, second, fraction, half) if hour else _NONE
        return on, clock, _offset(zone, comment) if zone else _NONE
    except ValueError:
        return _UNREADABLE


@lru_cache(maxsize=10_000)
def _date(year: str, month: str, day: str) -> int:
    """ValueError where there is no such day; likewise below."""
    return (date(int(year), int(month), int(day)).toordinal() - _EPOCH.toordinal()) * _DAY


@lru_cache(maxsize=10_000)
def _rfc_date(weekday: str | None, day: str, month: str, year: str) -> int:
    century = 0 if len(year) == 4 else 2000 if int(year) < 50 else 1900
    on = date(century + int(year), _MONTHS.index(month.lower()) + 1, int(day))
    if weekday is not None and _WEEKDAYS[on.weekday()] != weekday.lower():
        raise ValueError
    return (on.toordinal() - _EPOCH.toordinal()) * _DAY


def _clock(hour: str, minute: str, second: str | None, fraction: str | None, half: str | None) -> int:
    hours, minutes, seconds = int(hour), int(minute), int(second or 0)
    if half is not None:
        if not 1 <= hours <= 12:
            raise ValueError
        hours = hours % 12 + (12 if half in "pP" else 0)
    elif len(hour) == 1:
        raise ValueError  # so looks a 12-hour clock that lost its PM
    if hours > 23 or minutes > 59 or seconds > 59:
        raise ValueError
    micros = int(fraction[:6].ljust(6, "0")) if fraction else 0
    return ((hours * 60 + minutes) * 60 + seconds) * _SECOND + micros


@lru_cache(maxsize=10_000)
def _offset(zone: str, comment: str | None) -> int:
    """How far the zone's clocks are ahead of UTC; a known abbreviation as comment must say the same."""
    named = _NAMED.get(zone.lower())
    minutes = _minutes(zone) if named is None else named
    if comment is not None and _NAMED.get(comment.strip().lower(), minutes) != minutes:
        raise ValueError
    return minutes * 60 * _SECOND


def _minutes(digits: str) -> int:
    hours, minutes = int(digits[1:3]), int(digits[3:].lstrip(":") or 0)
    unknown = digits[0] == "-" and hours == minutes == 0  # RFC 2822 and 3339: the clock's zone is not told
    if hours > 14 or minutes > 59 or unknown:
        raise ValueError
    return (hours * 60 + minutes) * (-1 if digits[0] == "-" else 1)
