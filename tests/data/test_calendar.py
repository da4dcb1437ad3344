import time

import numpy as np
import pytest

from data.calendar import Clock, Sessions, sessions, zone_of
from data.errors import ConfigError

CLOCKS: tuple[Clock, ...] = ("close", "nightly", "pre-open")
TICK = np.timedelta64(1, "us")


def decision(clock: Clock, label: str) -> str:
    every = sessions("XNYS", clock)
    return str(every.decision_at[every.index([label])[0]].astype("datetime64[m]"))


@pytest.mark.parametrize(
    ("label", "close", "nightly", "pre_open"),
    [
        ("2015-12-29", "2015-12-29T21:00", "2015-12-30T03:00", "2015-12-30T14:00"),  # an ordinary winter day
        ("2015-07-14", "2015-07-14T20:00", "2015-07-15T02:00", "2015-07-15T13:00"),  # an ordinary summer day
        ("2015-12-11", "2015-12-11T21:00", "2015-12-14T03:00", "2015-12-14T14:00"),  # Friday: the weekend counts
        ("2015-11-25", "2015-11-25T21:00", "2015-11-27T03:00", "2015-11-27T14:00"),  # the eve of Thanksgiving
        ("2015-11-27", "2015-11-27T18:00", "2015-11-30T03:00", "2015-11-30T14:00"),  # a half day
        ("2015-03-06", "2015-03-06T21:00", "2015-03-09T02:00", "2015-03-09T13:00"),  # clocks go forward on the 8th
        ("2015-10-30", "2015-10-30T20:00", "2015-11-02T03:00", "2015-11-02T14:00"),  # clocks go back on 1 November
    ],
)
def test_decisions_of_each_clock(label: str, close: str, nightly: str, pre_open: str) -> None:
    assert [decision(clock, label) for clock in CLOCKS] == [close, nightly, pre_open]


def test_a_calendar_without_a_pause_decides_at_the_close() -> None:
    for clock in CLOCKS:
        always = sessions("24/7", clock)
        np.testing.assert_array_equal(always.decision_at, always.closes)
        np.testing.assert_array_equal(always.closes, always.target_open)


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("calendar", ["XNYS", "XTKS", "24/7"])
def test_a_decision_lies_between_its_close_and_the_next_open(calendar: str, clock: Clock) -> None:
    every = sessions(calendar, clock)
    assert (every.opens < every.closes).all()
    assert (every.closes <= every.decision_at).all()
    assert (every.decision_at <= every.target_open).all()
    assert (np.diff(every.decision_at) > np.timedelta64(0)).all()
    np.testing.assert_array_equal(every.target[:-1], every.labels[1:])
    np.testing.assert_array_equal(every.target_close[:-1], every.closes[1:])


def december() -> Sessions:
    return sessions("XNYS", "nightly").between("2015-12-24", "2015-12-31")


def test_between_holds_both_ends_and_the_decision_before() -> None:
    part = december()
    labels = ["2015-12-24", "2015-12-28", "2015-12-29", "2015-12-30", "2015-12-31"]
    np.testing.assert_array_equal(part.labels, np.array(labels, dtype="datetime64[D]"))
    assert len(part) == 5
    assert part.target[-1] == np.datetime64("2016-01-04")
    assert part.decision_before == np.datetime64("2015-12-24T03:00", "us")
    inner = part.between("2015-12-25", "2015-12-28")  # a holiday as an end is no session
    assert inner.labels.tolist() == [np.datetime64("2015-12-28").item()]
    assert inner.decision_before == part.decision_at[0]
    assert len(part.between("2015-12-25", "2015-12-27")) == 0


def test_index_of_labels() -> None:
    part = december()
    wanted = ["2015-12-28", "2015-12-25", "2015-12-23", "2016-01-04", "2015-12-31", "NaT"]
    np.testing.assert_array_equal(part.index(wanted), [1, -1, -1, -1, 4, -1])
    assert len(part.index([])) == 0


def test_first_informed_and_its_edges() -> None:
    part = december()
    before, first, last = part.decision_before, part.decision_at[0], part.decision_at[-1]
    stamps = [before - TICK, before, before + TICK, first, first + TICK, last, last + TICK, np.datetime64("NaT", "us")]
    np.testing.assert_array_equal(part.first_informed(np.array(stamps)), [-1, -1, 0, 0, 1, 4, 5, 5])


def test_weekend_news_informs_the_decision_on_sunday_evening() -> None:
    part = sessions("XNYS", "nightly").between("2015-12-07", "2015-12-18")
    saturday = np.array(["2015-12-12T15:00"], dtype="datetime64[us]")
    assert part.labels[part.first_informed(saturday)] == np.datetime64("2015-12-11")
    by_close = sessions("XNYS", "close").between("2015-12-07", "2015-12-18")
    assert by_close.labels[by_close.first_informed(saturday)] == np.datetime64("2015-12-14")


def test_a_date_is_known_at_the_close_of_the_first_session_after_it() -> None:
    every = sessions("XNYS")
    dates = ["2015-12-29", "2015-12-24", "2015-12-25", "2015-11-26", "2015-12-12T23:59"]
    closes = ["2015-12-30T21:00", "2015-12-28T21:00", "2015-12-28T21:00", "2015-11-27T18:00", "2015-12-14T21:00"]
    got = every.close_after(np.array(dates, dtype="datetime64[us]"))
    np.testing.assert_array_equal(got, np.array(closes, dtype="datetime64[us]"))
    after_the_end = december().close_after(["2015-12-31", "2015-12-30"])
    np.testing.assert_array_equal(np.isnat(after_the_end), [True, False])


def test_an_unknown_calendar_is_refused() -> None:
    for ask in (sessions, zone_of):
        with pytest.raises(ConfigError, match="XNOPE"):
            ask("XNOPE")


def test_zone_of_an_exchange() -> None:
    assert zone_of("XNYS") == "America/New_York"
    assert zone_of("24/7") == "UTC"


def test_a_million_stamps_take_under_two_seconds() -> None:
    every = sessions("XNYS")
    minutes = np.random.default_rng(0).integers(0, 10 * 365 * 24 * 60, 1_000_000)
    stamps = np.datetime64("2010-01-01", "us") + minutes.astype("timedelta64[m]")
    started = time.process_time()
    informed = every.first_informed(stamps)
    assert time.process_time() - started < 2
    assert (stamps <= every.decision_at[informed]).all()
    assert (stamps > every.decision_at[informed - 1]).all()


def test_a_calendar_that_ends_too_soon_names_the_fix() -> None:
    every = sessions("XNYS")
    assert every.labels[every.last_closed(np.datetime64("2015-12-31T20:59"))] == np.datetime64("2015-12-30")
    assert every.labels[every.last_closed(np.datetime64("2015-12-31T21:00"))] == np.datetime64("2015-12-31")
    assert every.last_closed(np.datetime64("1970-01-01")) == -1
    with pytest.raises(ConfigError, match=r"knows them up to .* pip install --upgrade exchange_calendars"):
        every.last_closed(every.target_close[-1])


def test_indias_national_exchange_keeps_the_days_of_bombay() -> None:
    np.testing.assert_array_equal(sessions("XNSE").closes, sessions("XBOM").closes)
