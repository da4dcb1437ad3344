"""Which nights are due follows the calendar: holidays, half days and both changes of the clocks."""

from dataclasses import dataclass

import numpy as np
import pytest

from data.calendar import Sessions, sessions
from data.errors import ConfigError
from pipelines.nightly.due import next_due, nights_due

NEW_YORK = sessions("XNYS", "nightly")


@dataclass(frozen=True)
class Told:
    """A ledger, as far as it is asked here."""

    session: np.datetime64
    complete: bool
    asked: bool = False


def night(label: str, complete: bool = True, asked: bool = False) -> Told:
    return Told(np.datetime64(label, "D"), complete, asked)


def due(now: str, *begun: Told, exchange: Sessions = NEW_YORK, most: int = 5, sealed: str = "NaT") -> list[str]:
    last = np.datetime64(sealed, "D")
    found = nights_due(exchange, np.datetime64(now, "us"), begun, most, last)  # type: ignore[arg-type]
    return [str(exchange.labels[at]) for at in found]


def test_at_the_very_first_run_the_newest_alone() -> None:
    assert due("2024-07-12T03:00") == ["2024-07-11"]


def test_a_night_is_due_from_its_decision_on() -> None:
    done = night("2024-07-10")
    assert due("2024-07-12T01:59:59.999999", done) == []  # 22:00 in New York is 02:00 UTC
    assert due("2024-07-12T02:00", done) == ["2024-07-11"]


@pytest.mark.parametrize(
    ("last", "before", "since", "expected"),
    [
        ("2024-07-02", "2024-07-05T01:59", "2024-07-05T02:00", "2024-07-03"),  # a half day, then the Fourth
        ("2024-11-27", "2024-12-02T02:59", "2024-12-02T03:00", "2024-11-29"),  # a half day, then a weekend
        ("2024-03-07", "2024-03-11T01:59", "2024-03-11T02:00", "2024-03-08"),  # summer time begins: 22:00 is 02:00Z
        ("2024-10-31", "2024-11-04T02:59", "2024-11-04T03:00", "2024-11-01"),  # and ends: 22:00 is 03:00Z
        ("2024-02-27", "2024-02-29T02:59", "2024-02-29T03:00", "2024-02-28"),  # before a leap day that trades
        ("2024-02-28", "2024-03-01T02:59", "2024-03-01T03:00", "2024-02-29"),
    ],
)
def test_the_eve_of_the_next_session_in_exchange_time(last: str, before: str, since: str, expected: str) -> None:
    assert due(before, night(last)) == []
    assert due(since, night(last)) == [expected]


def test_nothing_is_due_on_a_holiday() -> None:
    assert due("2024-07-04T23:00", night("2024-07-02")) == []
    assert due("2024-12-25T20:00", night("2024-12-24"), night("2024-12-23")) == []


def test_all_since_the_last_complete_night_the_newest_so_many() -> None:
    missed = ["2024-07-08", "2024-07-09", "2024-07-10", "2024-07-11"]
    assert due("2024-07-12T03:00", night("2024-07-05")) == missed
    assert due("2024-07-12T03:00", night("2024-07-05"), most=2) == missed[-2:]


def test_an_open_night_is_due_again_and_does_not_hide_a_complete_one() -> None:
    begun = (night("2024-07-11", complete=False), night("2024-07-10"), night("2024-07-09", complete=False))
    assert due("2024-07-12T03:00", *begun) == ["2024-07-11"]


def test_before_the_first_complete_night_all_since_the_oldest_begun() -> None:
    begun = (night("2024-07-10", complete=False), night("2024-07-09", complete=False))
    assert due("2024-07-12T03:00", *begun) == ["2024-07-09", "2024-07-10", "2024-07-11"]


def test_nothing_older_than_the_last_sealed_night_is_due() -> None:
    begun = (night("2024-07-09", complete=False), night("2024-07-08"))
    assert due("2024-07-12T03:00", *begun, sealed="2024-07-10") == ["2024-07-10", "2024-07-11"]
    assert due("2024-07-12T03:00", night("2024-07-10"), *begun, sealed="2024-07-10") == ["2024-07-11"]
    assert due("2024-07-12T03:00", *begun, sealed="2024-07-11") == ["2024-07-11"]
    assert due("2024-07-12T03:00", night("2024-07-11"), sealed="2024-07-11") == []
    assert due("2024-07-12T03:00", *begun, sealed="2024-07-16") == ["2024-07-11"]  # by a clock that was fast


def test_nights_of_another_calendar_count_by_their_date() -> None:
    """15 July 2024 is a holiday in Tokyo."""
    tokyo, now = sessions("XTKS", "nightly"), "2024-07-17T00:00"
    assert due(now, night("2024-07-15"), exchange=tokyo, sealed="2024-07-15") == ["2024-07-16"]
    assert due(now, night("2024-07-15", complete=False), exchange=tokyo, sealed="2024-07-12") == ["2024-07-16"]
    assert due(now, exchange=tokyo, sealed="2024-07-15") == ["2024-07-16"]


def test_a_night_that_was_asked_for_by_name_makes_no_other_due() -> None:
    asked = night("2024-07-08", complete=False, asked=True)
    assert due("2024-07-12T03:00", asked) == ["2024-07-11"]
    assert due("2024-07-12T03:00", night("2024-07-10", complete=False), asked) == ["2024-07-10", "2024-07-11"]


def test_a_complete_night_of_today_leaves_nothing() -> None:
    assert due("2024-07-12T03:00", night("2024-07-11")) == []


def test_around_the_clock_every_day_is_due_at_its_close() -> None:
    every = sessions("24/7", "nightly")
    assert due("2024-07-14T00:00", night("2024-07-11"), exchange=every) == ["2024-07-12", "2024-07-13"]


@pytest.mark.parametrize(("calendar", "now", "expected"), [("XLON", "2024-07-11T21:00", "2024-07-11"),
    ("XTKS", "2024-07-11T13:00", "2024-07-11"), ("XLON", "2024-12-26T22:00", "2024-12-24")])  # fmt: skip
def test_other_exchanges_have_their_own_evening(calendar: str, now: str, expected: str) -> None:
    exchange = sessions(calendar, "nightly")
    assert due(now, exchange=exchange)[0] == expected


def test_the_next_night_is_that_of_the_next_decision() -> None:
    label, at = next_due(NEW_YORK, np.datetime64("2024-07-03T21:00", "us"))
    assert (str(label), str(at)) == ("2024-07-03", "2024-07-05T02:00:00.000000")


def test_a_calendar_that_ends_before_now_is_refused() -> None:
    with pytest.raises(ConfigError, match="exchange_calendars"):
        due("2090-01-01T00:00")
