"""How often a vendor is asked: one token bucket for all workers, slower when it complains, and an end to a storm.

A 429 pauses every worker, for as long as Retry-After says or longer each time, and halves the rate, which
recovers with good answers. After `STRIKES` such pauses without a good answer in between, after a Retry-After longer
than `LONGEST_PAUSE`, or after `DOWN` failures in a row to reach the vendor, whoever waits is told to stop, and why.
Knows nothing of HTTP, and remembers nothing beyond a run.
"""

import random
import threading
import time
from collections.abc import Callable

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from data.prices.source import History, RateLimitedError, SourceError, StoppedError

STRIKES = 4
DOWN = 12
FIRST_PAUSE = 2.0  # seconds, doubled with every strike, plus up to a quarter at random
LONGEST_PAUSE = 120.0  # seconds; whoever asks for more will be asked again by the next run
SLOWEST = 1 / 16  # of the configured rate
RECOVERY = 1 / 40  # of the configured rate, given back with each good answer
NAP = 1.0  # seconds: the longest before a worker sees that the run was stopped
ATTEMPTS = 4  # for one ticker
LEAST = 1e-6  # of a token: what rounding may leave missing


class Limiter:
    """At most `rate` requests a second, all threads together, and no more than `burst` of them at once."""

    def __init__(
        self,
        rate: float,
        burst: int = 1,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._full, self._burst = rate, float(burst)
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._rate, self._tokens, self._counted_at = rate, float(burst), clock()
        self._paused_at, self._paused_until = -1.0, -1.0
        self._strikes = self._failures = 0
        self._stopped = ""
        self._retry_after: float | None = None

    @property
    def stopped(self) -> str:
        """Why nobody may ask any more, or nothing."""
        return self._stopped

    @property
    def retry_after(self) -> float | None:
        """Seconds that the vendor, in the end, wanted to be left alone; None where it does not say."""
        return self._retry_after

    def wait(self) -> float:
        """Take a token, once there is one; the moment it was taken. Raises StoppedError."""
        while True:
            with self._lock:
                if self._stopped:
                    raise StoppedError(f"not asked: {self._stopped}")
                now = self._clock()
                delay = self._delay(now)
                if delay <= 0:
                    self._tokens -= 1
                    return now
            self._sleep(min(delay, NAP))

    def answered(self) -> None:
        """The vendor gave a good answer."""
        with self._lock:
            self._strikes = self._failures = 0
            self._rate = min(self._full, self._rate + self._full * RECOVERY)

    def limited(self, sent_at: float, retry_after: float | None = None) -> None:
        """The vendor refused a request of `sent_at` (see `wait`) as one too many."""
        with self._lock:
            now = self._clock()
            if sent_at >= self._paused_at:  # the others were on their way when the first was refused: one strike
                self._strikes += 1
                self._rate = max(self._rate / 2, self._full * SLOWEST)
                self._paused_at = now
                pause = FIRST_PAUSE * 2.0 ** (self._strikes - 1) * (1 + random.random() / 4)  # noqa: S311
                self._paused_until = max(self._paused_until, now + min(pause, LONGEST_PAUSE))
                if self._strikes >= STRIKES:
                    self._stop(f"the vendor limits our requests (429), {self._strikes} times in a row", retry_after)
            if retry_after is not None:
                self._paused_until = max(self._paused_until, now + retry_after)
                if retry_after > LONGEST_PAUSE:
                    self._stop(f"the vendor limits our requests and asks to wait {retry_after:.0f} s", retry_after)

    def unreachable(self) -> None:
        """The vendor could not be reached, or failed."""
        with self._lock:
            self._failures += 1
            if self._failures >= DOWN:
                self._stop(f"the vendor could not be reached, {self._failures} times in a row", None)

    def stop(self, reason: str) -> None:
        """Let nobody ask any more."""
        with self._lock:
            self._stop(reason, None)

    def _stop(self, reason: str, retry_after: float | None) -> None:
        self._stopped = self._stopped or reason
        self._retry_after = retry_after if self._retry_after is None else self._retry_after

    def _delay(self, now: float) -> float:
        """Seconds until there may be a token."""
        if now < self._paused_until:
            self._tokens, self._counted_at = 0.0, self._paused_until  # after a pause: no burst, one by one
            return self._paused_until - now
        self._tokens = min(self._burst, self._tokens + max(now - self._counted_at, 0.0) * self._rate)
        self._counted_at = max(now, self._counted_at)
        missing = 1 - self._tokens
        return missing / self._rate if missing > LEAST else 0.0


def insist(ask: Callable[[], History], backoff: float) -> History:
    """`ask`, again where it failed in passing, after `backoff` seconds and then longer, with jitter."""
    attempts = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential_jitter(multiplier=backoff, max=30.0, jitter=backoff),
        retry=retry_if_exception(_passes),
        reraise=True,
    )
    return attempts(ask)


def _passes(error: BaseException) -> bool:
    """Whether another attempt in this run may fare better."""
    if isinstance(error, RateLimitedError) and (error.retry_after or 0) > LONGEST_PAUSE:
        return False
    return isinstance(error, SourceError) and error.passing
