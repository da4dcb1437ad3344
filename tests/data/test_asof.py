import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data.asof import first_decision, known

# Few distinct instants, so that a record often falls exactly on a decision.
INSTANTS = st.integers(0, 40).map(lambda minute: np.datetime64("2015-12-30T21:00", "us") + np.timedelta64(minute, "m"))
NEVER = np.datetime64("NaT", "us")


def test_a_record_available_exactly_at_a_decision_informs_it() -> None:
    decision = np.datetime64("2015-12-30T21:00:00.000000", "us")
    tick = np.timedelta64(1, "us")
    stamps = np.array([decision - tick, decision, decision + tick])
    np.testing.assert_array_equal(known(stamps, decision), [True, True, False])
    np.testing.assert_array_equal(first_decision(stamps, np.array([decision, decision + tick])), [0, 0, 1])


def test_a_record_that_is_never_available_informs_nothing() -> None:
    decisions = np.array(["2015-12-30", "2015-12-31"], dtype="datetime64[us]")
    np.testing.assert_array_equal(first_decision([NEVER, decisions[0]], decisions), [2, 0])
    assert not known([NEVER], np.datetime64("9999-12-31", "us")).any()


def test_a_record_after_the_last_decision_informs_none_of_them() -> None:
    decisions = np.array(["2015-12-30", "2015-12-31"], dtype="datetime64[us]")
    assert first_decision(np.array(["2016-01-01"], dtype="datetime64[us]"), decisions) == [2]
    assert first_decision(decisions[:1], decisions[:0]) == [0]  # of no decisions, none


@settings(deadline=None)
@given(stamps=st.lists(INSTANTS | st.just(NEVER), max_size=20), decisions=st.lists(INSTANTS, max_size=10))
def test_known_agrees_with_first_decision(stamps: list[np.datetime64], decisions: list[np.datetime64]) -> None:
    available = np.array(stamps, dtype="datetime64[us]")
    at = np.sort(np.array(decisions, dtype="datetime64[us]"))
    first = first_decision(available, at)
    assert first.shape == available.shape
    for index, decision in enumerate(at):
        expected = [not np.isnat(stamp) and bool(stamp <= decision) for stamp in available]
        np.testing.assert_array_equal(known(available, decision), expected)
        if index == 0 or at[index - 1] < decision:  # of equal decisions the first counts
            np.testing.assert_array_equal(first <= index, expected)
