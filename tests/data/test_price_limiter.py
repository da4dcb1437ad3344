"""The limiter on a clock of its own: no test waits."""

import threading

import numpy as np
import pandas as pd
import pytest

from data.prices import limiter as module
from data.prices.limiter import DOWN, LONGEST_PAUSE, STRIKES, Limiter, insist
from data.prices.source import (
    History,
    MalformedError,
    RateLimitedError,
    StoppedError,
    UnavailableError,
    UnknownTickerError,
)

NOTHING = History(pd.DataFrame(), pd.DataFrame())


class Clock:
    """Sleeping moves it on."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


def limiter(clock, rate=2.0, burst=1):
    return Limiter(rate, burst, clock=clock, sleep=clock.sleep)


def test_no_second_sees_more_than_the_rate_and_its_burst(clock):
    bucket = limiter(clock, rate=4.0, burst=3)
    times = np.array([bucket.wait() for _ in range(40)])
    assert times[:3].tolist() == [100.0] * 3
    counts = [(np.abs(times - at - 0.5) <= 0.5).sum() for at in np.arange(100, times[-1], 0.1)]
    assert max(counts) <= 4 + 3
    assert times[-1] - times[0] == pytest.approx((40 - 3) / 4, rel=0.05)


def test_workers_share_one_bucket():
    bucket, taken, lock = Limiter(400.0, 4), [], threading.Lock()

    def work():
        for _ in range(10):
            at = bucket.wait()
            with lock:
                taken.append(at)

    threads = [threading.Thread(target=work) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(taken) == 80
    assert max(taken) - min(taken) >= (80 - 4) / 400 * 0.99


def test_a_refusal_pauses_everybody_and_halves_the_rate(clock):
    bucket = limiter(clock, rate=10.0)
    sent = bucket.wait()
    bucket.limited(sent)
    first = bucket.wait()
    assert first - sent >= module.FIRST_PAUSE
    assert bucket.wait() - first == pytest.approx(0.2, rel=1e-6)


def test_a_refusal_is_waited_out_for_as_long_as_it_says(clock):
    bucket = limiter(clock)
    bucket.limited(bucket.wait(), retry_after=60.0)
    assert bucket.wait() >= 160.0
    assert not bucket.stopped


def test_good_answers_give_the_rate_back(clock):
    bucket = limiter(clock, rate=10.0)
    bucket.limited(bucket.wait())
    for _ in range(40):
        bucket.wait()
        bucket.answered()
    first = bucket.wait()
    assert bucket.wait() - first == pytest.approx(0.1, rel=1e-6)


def test_requests_that_were_on_their_way_are_one_strike(clock):
    bucket = limiter(clock, rate=100.0, burst=8)
    for sent in [bucket.wait() for _ in range(8)]:
        clock.sleep(0.01)
        bucket.limited(sent)
    assert not bucket.stopped
    bucket.wait()


def test_a_storm_ends_the_run_with_its_reason(clock):
    bucket = limiter(clock)
    for _ in range(STRIKES):
        bucket.limited(bucket.wait())
    with pytest.raises(StoppedError, match="429"):
        bucket.wait()


def test_an_answer_in_between_is_no_storm(clock):
    bucket = limiter(clock)
    for _ in range(3 * STRIKES):
        bucket.limited(bucket.wait())
        bucket.wait()
        bucket.answered()
    assert not bucket.stopped


def test_who_asks_to_wait_for_long_is_left_alone_at_once(clock):
    bucket = limiter(clock)
    bucket.limited(bucket.wait(), retry_after=LONGEST_PAUSE + 1)
    with pytest.raises(StoppedError, match="121 s"):
        bucket.wait()
    assert bucket.retry_after == LONGEST_PAUSE + 1


def test_a_vendor_that_is_down_is_not_asked_for_every_ticker(clock):
    bucket = limiter(clock)
    for _ in range(DOWN):
        bucket.wait()
        bucket.unreachable()
    with pytest.raises(StoppedError, match="could not be reached"):
        bucket.wait()


@pytest.mark.parametrize(
    ("errors", "attempts"),
    [
        ([UnavailableError("down")] * 2, 3),
        ([RateLimitedError("slow down")], 2),
        ([UnavailableError("down")] * 9, module.ATTEMPTS),
        ([UnknownTickerError("who?")], 1),
        ([MalformedError("HTML")], 1),
        ([RateLimitedError("come back tomorrow", 86_400.0)], 1),
        ([StoppedError("over")], 1),
    ],
)
def test_what_passes_is_tried_again_and_nothing_else(errors, attempts):
    left, made = list(errors), []

    def ask():
        made.append(1)
        if left:
            raise left.pop(0)
        return NOTHING

    if len(errors) < attempts:
        assert insist(ask, 0.0) is NOTHING
    else:
        with pytest.raises(type(errors[0])):
            insist(ask, 0.0)
    assert len(made) == attempts
