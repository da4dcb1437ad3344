import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import pairwise, product
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import feedparser
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.news.dates import EARLIEST, LONGEST, Stamp, read_stamp, read_stamps

FEEDS = Path(__file__).parents[3] / "shared" / "feeds"
FUZZ_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "5000"))

NOW = np.datetime64("2025-01-01T00:00:00", "us")
NEW_YORK, LONDON, TOKYO = "America/New_York", "Europe/London", "Asia/Tokyo"
UNREADABLE, ZONELESS = "unreadable stamp", "stamp without a zone"
FUTURE, EARLY = "stamp in the future", "stamp before 1990"
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
US_HOURS = {"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7}
QUARTERS = pd.timedelta_range("15min", "1435min", freq="10min")
HOURS = {"Z": 0, "UT": 0, "UTC": 0, "GMT": 0, **US_HOURS}

# What the stamp says in any feed, whatever zone that feed declares.
INSTANTS = {
    # RFC 822 and 2822
    "Tue, 05 Nov 2024 16:05:07 GMT": "2024-11-05T16:05:07",
    "Tue, 05 Nov 2024 22:16 GMT": "2024-11-05T22:16:00",
    "Tue, 5 Nov 2024 16:05:07 UT": "2024-11-05T16:05:07",
    "05 Nov 2024 16:05:07 UTC": "2024-11-05T16:05:07",
    "Tue, 05 Nov 2024 16:05:07 Z": "2024-11-05T16:05:07",
    "Tue, 05 Nov 24 16:05:07 GMT": "2024-11-05T16:05:07",
    "Fri, 05 Nov 99 16:05:07 GMT": "1999-11-05T16:05:07",
    "Tue, 05 Nov 2024 16:05:07 -0500": "2024-11-05T21:05:07",
    "Tue, 05 Nov 2024 16:05:07 +0530": "2024-11-05T10:35:07",
    "Tue, 05 Nov 2024 16:05 +01:00": "2024-11-05T15:05:00",
    "Tue, 05 Nov 2024 23:05:07 -1200": "2024-11-06T11:05:07",
    "Tue, 05 Nov 2024 16:05:07 +1459": "2024-11-05T01:06:07",
    "Tue, 05 Nov 2024 16:05:07 +0000": "2024-11-05T16:05:07",
    "Tue, 05 Nov 2024 16:05:07 -0500 (EST)": "2024-11-05T21:05:07",
    "Tue, 05 Nov 2024 16:05:07 +0100 (Central European Time)": "2024-11-05T15:05:07",
    "Tue, 05 Nov 2024 16:05:07 EST": "2024-11-05T21:05:07",
    "Mon, 05 Aug 2024 16:05:07 EDT": "2024-08-05T20:05:07",
    "Tue, 05 Nov 2024 16:05:07 CST": "2024-11-05T22:05:07",
    "Mon, 05 Aug 2024 16:05:07 CDT": "2024-08-05T21:05:07",
    "Tue, 05 Nov 2024 16:05:07 MST": "2024-11-05T23:05:07",
    "Mon, 05 Aug 2024 16:05:07 MDT": "2024-08-05T22:05:07",
    "Tue, 05 Nov 2024 16:05:07 PST": "2024-11-06T00:05:07",
    "Mon, 05 Aug 2024 16:05:07 PDT": "2024-08-05T23:05:07",
    "Mon, 05 Aug 2024 16:05:07 EST": "2024-08-05T21:05:07",  # what the words say, in summer too
    "Tue, 05 Nov 2024 4:05 PM EST": "2024-11-05T21:05:00",
    "Tue, 05 Nov 2024 4:05PM EST": "2024-11-05T21:05:00",
    "Tue, 05 Nov 2024 04:05:07 am -0500": "2024-11-05T09:05:07",
    "Tue, 05 Nov 2024 12:05 PM GMT": "2024-11-05T12:05:00",
    "Tue, 05 Nov 2024 12:05 AM GMT": "2024-11-05T00:05:00",
    "TUE, 05 NOV 2024 16:05:07 gmt": "2024-11-05T16:05:07",
    "Tue,05 Nov 2024 16:05:07GMT": "2024-11-05T16:05:07",
    "Tue 05 Nov 2024 16:05:07 GMT": "2024-11-05T16:05:07",
    "Thu, 29 Feb 2024 16:05:07 GMT": "2024-02-29T16:05:07",
    "\n\tTue,  05 Nov\n 2024 16:05:07\u00a0GMT ": "2024-11-05T16:05:07",
    # ISO 8601
    "2024-11-05T16:05:07Z": "2024-11-05T16:05:07",
    "2024-11-05 16:05:07 UTC": "2024-11-05T16:05:07",
    "2024-11-05t16:05:07z": "2024-11-05T16:05:07",
    "2024-11-05T16:05Z": "2024-11-05T16:05:00",
    "2024-11-05T16:05:07.25Z": "2024-11-05T16:05:07.250000",
    "2024-11-05T16:05:07.123456789-05:00": "2024-11-05T21:05:07.123456",
    "2024-11-05T16:05:07-0500": "2024-11-05T21:05:07",
    "2024-11-05 16:05:07-05": "2024-11-05T21:05:07",
    "2024-11-05 16:05:07 +09:00": "2024-11-05T07:05:07",
    "2024-11-05T16:05:00 EST": "2024-11-05T21:05:00",
    "2024-11-05T16:05:00EST": "2024-11-05T21:05:00",
    "2024-08-05T16:05:00 PDT": "2024-08-05T23:05:00",
    "2024-11-05 4:05 PM EST": "2024-11-05T21:05:00",
    "2024-11-05 4:05 PM -05:00": "2024-11-05T21:05:00",
    "<![CDATA[ 2024-11-05T16:05:07Z ]]>": "2024-11-05T16:05:07",
    "1990-01-01T00:00:01Z": "1990-01-01T00:00:01",
    "2024-12-31T19:00:00-05:00": "2025-01-01T00:00:00",
}

# In a feed that declares New York: both sides of both clock changes, and what lies between them.
IN_NEW_YORK = {
    "2024-11-05T16:05:07": "2024-11-05T21:05:07",
    "Mon, 05 Aug 2024 16:05:07": "2024-08-05T20:05:07",
    "Tue, 05 Nov 24 4:05 PM": "2024-11-05T21:05:00",
    "2024-11-05 9:30 am": "2024-11-05T14:30:00",
    "2024-03-10T01:59:59": "2024-03-10T06:59:59",
    "2024-03-10T02:00:00": "2024-03-10T07:00:00",  # skipped: a clock not changed yet shows it then
    "2024-03-10T02:30:00": "2024-03-10T07:30:00",
    "Sun, 10 Mar 2024 03:00:00": "2024-03-10T07:00:00",
    "2024-11-03T00:59:59": "2024-11-03T04:59:59",
    "Sun, 03 Nov 2024 1:00 AM": "2024-11-03T06:00:00",  # repeated: the second time round
    "2024-11-03T01:59:59": "2024-11-03T06:59:59",
    "2024-11-03T02:00:00": "2024-11-03T07:00:00",
}

# Unknown, whatever zone the feed declares.
PROBLEMS = {
    "": UNREADABLE,
    "now": UNREADABLE,
    "yesterday, 4:05 PM EST": UNREADABLE,
    "1730822707": UNREADABLE,
    "1730822707000": UNREADABLE,
    "1730822707.5": UNREADABLE,
    "20241105": UNREADABLE,
    "20241105T160507Z": UNREADABLE,
    "2024": UNREADABLE,
    "2024-11": UNREADABLE,
    "2024-W45-2T16:05:07Z": UNREADABLE,
    "2024-11-05T": UNREADABLE,
    "2024-11-05Z": UNREADABLE,
    "2024-11-05T16Z": UNREADABLE,
    "24-11-05T16:05:07Z": UNREADABLE,
    "2024-1-5T16:05:07Z": UNREADABLE,
    "11/05/2024 16:05:07 EST": UNREADABLE,
    "05.11.2024 16:05:07 GMT": UNREADABLE,
    # impossible
    "2026-02-30": UNREADABLE,
    "2023-02-29T16:05:07Z": UNREADABLE,
    "31 Nov 2024 16:05:07 GMT": UNREADABLE,
    "2024-13-05T16:05:07Z": UNREADABLE,
    "2024-00-05T16:05:07Z": UNREADABLE,
    "0000-11-05T16:05:07Z": UNREADABLE,
    "2024-11-05T24:00:00Z": UNREADABLE,
    "Tue, 05 Nov 2024 24:00:00 GMT": UNREADABLE,
    "2024-11-05T16:60:00Z": UNREADABLE,
    "2016-12-31T23:59:60Z": UNREADABLE,
    "2024-11-05T16:05:07.Z": UNREADABLE,
    "2024-11-05T16:05:07.1234567890Z": UNREADABLE,
    "Wed, 05 Nov 2024 16:05:07 GMT": UNREADABLE,  # it was a Tuesday
    "Tue, 05 Nov 2024 13:05 PM EST": UNREADABLE,
    "Tue, 05 Nov 2024 0:30 AM EST": UNREADABLE,
    "Tue, 05 Nov 2024 00:30 AM EST": UNREADABLE,
    "Tue, 05 Nov 2024 4:05 EST": UNREADABLE,  # AM or PM?
    "2024-11-05 4:05Z": UNREADABLE,
    # zones
    "2024-11-05T16:05:07 America/New_York": UNREADABLE,
    "2024-11-05T16:05:07-05:00[America/New_York]": UNREADABLE,
    "Tue, 05 Nov 2024 16:05:07 IST": UNREADABLE,
    "Tue, 05 Nov 2024 16:05:07 CET": UNREADABLE,
    "Tue, 05 Nov 2024 16:05:07 BST": UNREADABLE,
    "Tue, 05 Nov 2024 16:05:07 ET": UNREADABLE,
    "Tue, 05 Nov 2024 16:05:07 A": UNREADABLE,
    "Tue, 05 Nov 2024 16:05:07 GMT+1": UNREADABLE,
    "Tue, 05 Nov 2024 16:05:07 GMT-0500": UNREADABLE,
    "Tue, 05 Nov 2024 16:05:07 EST5EDT": UNREADABLE,
    "Tue, 05 Nov 2024 16:05:07 -0000": UNREADABLE,
    "2024-11-05T16:05:07-00:00": UNREADABLE,
    "Tue, 05 Nov 2024 16:05:07 +1500": UNREADABLE,
    "Tue, 05 Nov 2024 16:05:07 -2300": UNREADABLE,
    "2024-11-05T16:05:07+05:60": UNREADABLE,
    "2024-11-05T16:05:07+5": UNREADABLE,
    "Tue, 05 Nov 2024 16:05:07 -0500 (PST)": UNREADABLE,
    "Tue, 05 Nov 2024 16:05:07 (EST)": UNREADABLE,
    "Tue, 05 Nov 2024 16:05:07 -0500 (E(S)T)": UNREADABLE,
    # other languages, other digits, other shapes
    "Di, 05 Nov 2024 16:05:07 +0100": UNREADABLE,
    "05 Okt 2024 16:05:07 +0100": UNREADABLE,
    "05 Dez 2024 16:05:07 +0100": UNREADABLE,
    "05 Mai 2024 16:05:07 +0100": UNREADABLE,
    "05 März 2024 16:05:07 +0100": UNREADABLE,
    "05 févr. 2024 16:05:07 +0100": UNREADABLE,
    "mar., 05 nov. 2024 16:05:07 +0100": UNREADABLE,
    "٢٠٢٤-١١-٠٥T١٦:٠٥:٠٧Z": UNREADABLE,
    "２０２４-１１-０５T16:05:07Z": UNREADABLE,
    "Tuesday, 05-Nov-24 16:05:07 GMT": UNREADABLE,
    "Tue Nov 05 16:05:07 2024": UNREADABLE,
    "Tue, Nov 05 2024 04:05:07 PM": UNREADABLE,
    "Tue, 05 Nov 2024": UNREADABLE,
    "Tue, 05 Nov 124 16:05:07 GMT": UNREADABLE,
    "2024-11-05T16:05:07Z 2024-11-05T16:05:07Z": UNREADABLE,
    "2024-11-05T16:05:07Z\x00": UNREADABLE,
    "2024-11-05T16:05:07" + " " * LONGEST + "Z": UNREADABLE,
    "\ud800": UNREADABLE,
    # out of bounds
    "2025-01-01T00:00:00.000001Z": FUTURE,
    "Wed, 01 Jan 2025 00:05:00 GMT": FUTURE,
    "2024-12-31T19:00:01-05:00": FUTURE,
    "2025-01-02": FUTURE,
    "9999-12-31T23:59:59": FUTURE,
    "9999-12-31T23:59:59-14:59": FUTURE,
    "Tue, 05 Nov 47 16:05:07 GMT": FUTURE,
    "1989-12-31T23:59:59Z": EARLY,
    "1990-01-01T08:00:00+09:00": EARLY,
    "1989-12-31": EARLY,
    "Thu, 01 Jan 1970 00:00:00 GMT": EARLY,
    "0001-01-01T00:00:01": EARLY,
    "0001-01-01T00:00:01+14:59": EARLY,
    "Sun, 05 Nov 50 16:05:07 GMT": EARLY,
}

# The day they name, and its midnight where they have a zone.
DAYS = {
    "1990-01-01": ("1990-01-01", "NaT"),
    "2024-11-05": ("2024-11-05", "NaT"),
    "2024-11-05T00:00:00": ("2024-11-05", "NaT"),
    "Tue, 05 Nov 2024 00:00:00": ("2024-11-05", "NaT"),
    "Tue, 05 Nov 2024 12:00 AM": ("2024-11-05", "NaT"),
    "2024-11-05T00:00:00Z": ("2024-11-05", "2024-11-05T00:00:00"),
    "Tue, 05 Nov 2024 00:00:00 EST": ("2024-11-05", "2024-11-05T05:00:00"),
    "Tue, 05 Nov 2024 00:00 +0900": ("2024-11-05", "2024-11-04T15:00:00"),
}


def facts(stamp: Stamp) -> tuple[str, ...]:
    """Comparable, which NaT is not."""
    return tuple(map(str, (stamp.at, stamp.date, stamp.day, stamp.problem)))


def column(texts: list[Any], zone: str | None) -> list[Stamp]:
    """The texts read as a file's column."""
    read = read_stamps(pd.Series(texts, dtype=object), zone, NOW)
    columns = read["at"].to_numpy(), read["day"].tolist(), read["problem"].tolist(), read["date"].to_numpy()
    return [Stamp(*row) for row in zip(*columns, strict=True)]


def unknown(stamp: Stamp) -> bool:
    return bool(np.isnat(stamp.at) and np.isnat(stamp.date)) and not stamp.day and stamp.problem != ""


@pytest.mark.parametrize(("raw", "at"), INSTANTS.items())
@pytest.mark.parametrize("zone", [None, NEW_YORK, TOKYO])
def test_an_instant_is_the_same_in_any_feed(raw: str, at: str, zone: str | None) -> None:
    stamp = read_stamp(raw, zone, NOW)
    assert (stamp.at, stamp.day, stamp.problem) == (np.datetime64(at, "us"), False, "")
    assert stamp.at.dtype == "datetime64[us]"


@pytest.mark.parametrize(("raw", "at"), IN_NEW_YORK.items())
def test_a_stamp_without_a_zone_is_read_where_the_feed_declares_one(raw: str, at: str) -> None:
    stamp = read_stamp(raw, NEW_YORK, NOW)
    assert (stamp.at, stamp.day, stamp.problem) == (np.datetime64(at, "us"), False, "")
    without = read_stamp(raw, None, NOW)
    assert unknown(without)
    assert without.problem == ZONELESS


@pytest.mark.parametrize(("raw", "problem"), PROBLEMS.items())
@pytest.mark.parametrize("zone", [NEW_YORK, TOKYO])
def test_unknown_is_never_guessed(raw: str, problem: str, zone: str | None) -> None:
    stamp = read_stamp(raw, zone, NOW)
    assert unknown(stamp)
    assert stamp.problem == problem
    assert unknown(read_stamp(raw, None, NOW))


@pytest.mark.parametrize(("raw", "expected"), DAYS.items())
@pytest.mark.parametrize("zone", [None, NEW_YORK])
def test_a_date_alone_and_a_midnight_are_days(raw: str, expected: tuple[str, str], zone: str | None) -> None:
    day, at = (np.datetime64(each, "us") for each in expected)
    assert facts(read_stamp(raw, zone, NOW)) == facts(Stamp(at, True, "", day))


def test_files_read_the_whole_table_as_feeds_do() -> None:
    table: list[str | None] = [*INSTANTS, *IN_NEW_YORK, *PROBLEMS, *DAYS, None]
    for zone in (None, NEW_YORK, LONDON, TOKYO):
        alone = [facts(read_stamp(raw, zone, NOW)) for raw in table]
        assert [facts(stamp) for stamp in column(table, zone)] == alone


def test_a_column_of_anything_is_read_row_by_row() -> None:
    cells = [
        "2024-11-05T16:05:07Z",
        None,
        float("nan"),
        1730822707,
        ["2024-11-05"],
        b"2024-11-05",
        pd.NaT,
        "",
        "\ud800",
    ]
    read = read_stamps(pd.Series(cells, index=[7] * len(cells), dtype=object), None, NOW)
    assert read.index.tolist() == [7] * len(cells)
    assert read["problem"].tolist() == ["", *[UNREADABLE] * (len(cells) - 1)]
    none = read_stamps(pd.Series([], dtype=object), NEW_YORK, NOW)
    assert [str(dtype) for dtype in none.dtypes] == ["datetime64[us]", "datetime64[us]", "bool", "str"]


def test_instants_that_no_calendar_holds_are_unreadable() -> None:
    far = pd.Series(np.array(["30000-01-01", "-0400-01-01", "9999-12-30", "NaT"], dtype="datetime64[us]"))
    for values in (far, far.dt.tz_localize("UTC")):
        assert read_stamps(values, NEW_YORK, NOW)["problem"].tolist() == [UNREADABLE, UNREADABLE, FUTURE, UNREADABLE]


@pytest.mark.parametrize("zone", ["Mars/Base", "", "../etc/passwd", "America", "\0"])
def test_a_zone_that_does_not_exist_is_refused(zone: str) -> None:
    with pytest.raises(InputError, match="expected an IANA zone"):
        read_stamp("2024-11-05T16:05:07Z", zone, NOW)


@pytest.mark.parametrize("year", [2009, 2014, 2024])
@pytest.mark.parametrize(
    "zone",
    [NEW_YORK, LONDON, "Europe/Dublin", "Australia/Lord_Howe", "Pacific/Chatham", "Antarctica/Casey", "Europe/Moscow"],
)
def test_no_wall_time_is_read_before_either_of_its_readings(zone: str, year: int) -> None:
    edges = pd.date_range(f"{year}-01-01", f"{year + 1}-01-01", tz=zone)
    changed = [day for day, after in pairwise(edges) if after - day != pd.Timedelta("24h")]
    walls = [day.replace(tzinfo=None) + quarter for day in [edges[4], *changed] for quarter in QUARTERS]
    latest = [max(_readings(wall.to_pydatetime(), zone)) for wall in walls]
    for values in (pd.Series(walls), pd.Series([wall.isoformat() for wall in walls])):
        assert read_stamps(values, zone, np.datetime64("2026-01-01", "us"))["at"].tolist() == latest


def _readings(wall: datetime, zone: str) -> list[datetime]:
    """As if before and as if after a clock change, by the standard library."""
    own = [wall.replace(tzinfo=ZoneInfo(zone), fold=fold) for fold in (0, 1)]
    return [each.astimezone(UTC).replace(tzinfo=None) for each in own]


def _clock(wall: datetime, half_days: bool) -> str:
    """The time with no more digits than it needs."""
    text = f"{wall:%M}"
    if wall.second or wall.microsecond:
        text += f":{wall:%S}" + f".{wall.microsecond:06}".rstrip("0").rstrip(".")
    return f"{wall.hour % 12 or 12}:{text} {'AM' if wall.hour < 12 else 'PM'}" if half_days else f"{wall:%H}:{text}"


def _zone_names(minutes: int) -> list[str]:
    """An offset in all ways to write it but -0000."""
    digits = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    names = [digits, digits.replace(":", ""), *([digits[:3]] if minutes % 60 == 0 else [])]
    return names + [name for name, hours in HOURS.items() if hours * 60 == minutes]


def _layouts(wall: datetime, minutes: int) -> Iterator[str]:
    """A wall time in every layout of the grammar."""
    dates = [f"{wall:%Y-%m-%d} ", f"{wall:%Y-%m-%d}T"]
    for weekday, day, year in product(("", f"{WEEKDAYS[wall.weekday()]}, "), ("%d", "%-d"), ("%Y", "%y")):
        dates.append(f"{weekday}{wall.strftime(day)} {MONTHS[wall.month - 1]} {wall.strftime(year)} ")
    clocks = [_clock(wall, half_days) for half_days in (False, True)]
    for start, clock, name in product(dates, clocks, _zone_names(minutes)):
        yield from (f"{start}{clock}{name}", f"{start}{clock} {name}", f"{start}{clock} {name} (a comment)")


offsets = st.one_of(st.sampled_from([60 * hours for hours in HOURS.values()]), st.integers(-14 * 60 - 59, 14 * 60 + 59))
moments = st.datetimes(datetime(1990, 1, 2), datetime(2024, 12, 30))
walls = st.one_of(
    moments,
    moments.map(lambda at: at.replace(second=0, microsecond=0)),
    moments.map(lambda at: at.replace(hour=0, minute=0, second=0, microsecond=0)),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(wall=walls, minutes=offsets)
def test_every_layout_of_an_instant_is_read_back(wall: datetime, minutes: int) -> None:
    texts = list(_layouts(wall, minutes))
    at = np.datetime64(wall - timedelta(minutes=minutes), "us")
    day = wall == datetime(wall.year, wall.month, wall.day)
    expected = facts(Stamp(at, day, "", np.datetime64(wall.date(), "us")))
    assert {facts(stamp) for stamp in column(texts, TOKYO)} == {expected}
    assert facts(read_stamp(texts[wall.microsecond % len(texts)], None, NOW)) == expected


@settings(max_examples=60, deadline=None, derandomize=True)
@given(wall=walls, zone=st.sampled_from([NEW_YORK, LONDON, TOKYO, "Australia/Lord_Howe"]))
def test_a_column_of_instants_is_read_as_its_texts_are(wall: datetime, zone: str) -> None:
    text = pd.Series([wall.isoformat()])
    pd.testing.assert_frame_equal(read_stamps(pd.Series([wall]), zone, NOW), read_stamps(text, zone, NOW))
    aware = pd.Series([wall]).dt.tz_localize("UTC").dt.tz_convert(zone)
    text = pd.Series([aware[0].isoformat()])
    pd.testing.assert_frame_equal(read_stamps(aware, None, NOW), read_stamps(text, None, NOW))


DIGITS = "2024-11-05 2024 24 05 5 0 30 60 16:05 16:05:07 4:05 12:00 24:00 00:00 :05 .5 -0500 +14:59 -0000 +9 1730822707"
WORDS = "Tue, Wed, Nov Mai T AM PM am Z UT GMT EST EDT IST (EST) ( ) [ ] . - + , : <![CDATA[ ]]> ٥ ５"
PIECES = [*DIGITS.split(), *WORDS.split(), "\ud800", "\x00", " ", "  ", "\n", "\u00a0"]


def _splice(stamp: str, place: int, piece: str) -> str:
    return stamp[:place] + piece + stamp[place + 1 :]


texts = st.one_of(
    st.text(max_size=120),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.builds(
        _splice, st.sampled_from([*INSTANTS, *IN_NEW_YORK, *DAYS]), st.integers(0, 30), st.sampled_from(["", *PIECES])
    ),
)


def check_any_text(text: str) -> None:
    """What holds of every text there is."""
    for zone in (None, NEW_YORK, "Asia/Kathmandu"):
        stamp = read_stamp(text, zone, NOW)
        assert unknown(stamp) or stamp.problem == ""
        assert np.isnat(stamp.at) or EARLIEST <= stamp.at <= NOW
        assert np.isnat(stamp.date) or abs(stamp.date - stamp.at) < np.timedelta64(2, "D") or np.isnat(stamp.at)
        assert stamp.problem or stamp.day or not np.isnat(stamp.at)
        assert [facts(each) for each in column([text, None, text], zone)[::2]] == [facts(stamp)] * 2
        for around in (f" {text}\n", f"<![CDATA[{text}]]>", f"\t<![CDATA[ {text} ]]> "):
            if len(around) < LONGEST and "CDATA" not in text and "]]>" not in text:
                assert facts(read_stamp(around, zone, NOW)) == facts(stamp)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(texts)
def test_any_text_is_read_soundly_or_not_at_all(text: str) -> None:
    check_any_text(text)


@pytest.mark.slow
@settings(max_examples=FUZZ_EXAMPLES, deadline=None, database=None)
@given(texts)
def test_fuzz(text: str) -> None:
    """As many texts as FUZZ_EXAMPLES in the environment says, other ones each time."""
    check_any_text(text)


@pytest.mark.skipif(not FEEDS.is_dir(), reason="../shared/feeds, optional test data, is not there")
def test_stamps_of_real_feeds_are_what_the_standard_library_says() -> None:
    outcomes: Counter[str] = Counter()
    for raw in _real_stamps():
        stamp = read_stamp(raw, None, np.datetime64("2027-01-01", "us"))
        outcomes["day" if stamp.day else stamp.problem or "instant"] += 1
        assert np.isnat(stamp.at) or stamp.at == _independent(raw)
    # Unreadable: an epoch, 16 Portuguese and Italian names, a month before its day, 3 wrong weekdays of one document.
    assert outcomes == {"instant": 756, "day": 3, UNREADABLE: 21}


def _real_stamps() -> Iterator[str]:
    for path in sorted(FEEDS.glob("*/*")):
        document = feedparser.parse(path.read_bytes())
        for item in (document.feed, *document.entries):
            # Asked for by `in`, a missing `updated` would be answered with `published`.
            yield from (item[name] for name in ("published", "updated") if name in set(item))


def _independent(raw: str) -> np.datetime64:
    read = datetime.fromisoformat if raw[:4].isdigit() else parsedate_to_datetime
    return np.datetime64(read(raw).astimezone(UTC).replace(tzinfo=None), "us")
