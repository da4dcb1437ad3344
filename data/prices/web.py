"""A vendor's HTTP endpoint, asked once: rate, size, time and address limited, every failure a SourceError.

The exchange itself is that of the feeds (`data/news/exchange.py`): one connection, no redirects, no proxy, no
cookies, public addresses alone. Neither the address nor the headers, which may hold a key, are in any error.
"""

import asyncio
import re
import time
from collections.abc import Mapping

import httpcore2
import httpx2
import numpy as np

from data.news.addresses import Failure, Gateway, resolve
from data.news.exchange import HEAD_BYTES, WITH_BODY, Answer, exchange
from data.news.fetch import FetchConfig, retry_at
from data.prices.limiter import Limiter
from data.prices.source import MalformedError, RateLimitedError, RefusedError, UnavailableError, UnknownTickerError

TIMEOUT = 10.0  # seconds to connect, and to wait for bytes
DEADLINE = 60.0  # seconds for a whole answer
MAX_BYTES = 32 << 20  # of an answer, unpacked: 60 years of daily bars are 5 MiB of JSON

_MARKUP = re.compile(rb"\s*(\xef\xbb\xbf)?\s*<")


class Web:
    """Asks one vendor. Safe to use from several threads. `allow_private` permits addresses of one's own network."""

    def __init__(self, limiter: Limiter, *, allow_private: bool = False, deadline: float = DEADLINE) -> None:
        self._limiter = limiter
        self._allow_private = allow_private
        self._deadline = deadline
        self._tls = httpx2.create_ssl_context()
        self._user_agent = FetchConfig().user_agent

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> bytes:
        """The body of a 200. Raises SourceError for everything else."""
        sent_at = self._limiter.wait()
        try:
            answer = asyncio.run(self._ask(httpx2.URL(url), headers or {}))
        except TimeoutError:
            self._limiter.unreachable()
            raise UnavailableError(f"no whole answer in {self._deadline:g} s") from None
        except Failure as failure:
            if str(failure).startswith(("too large", "encoding", "wrong length")):
                raise MalformedError(str(failure)) from None
            self._limiter.unreachable()
            raise UnavailableError(str(failure)) from None
        self._judge(answer, sent_at)
        return answer.body

    def limited(self, sent_at: float | None, retry_after: float | None, reason: str) -> RateLimitedError:
        """To be raised where a vendor says in words, not by its status, that we asked too often."""
        self._limiter.limited(time.monotonic() if sent_at is None else sent_at, retry_after)
        return RateLimitedError(reason, retry_after)

    async def _ask(self, url: httpx2.URL, headers: Mapping[str, str]) -> Answer:
        fields = {"Host": url.netloc.decode("ascii"), "User-Agent": self._user_agent, "Accept-Encoding": "gzip"}
        fields |= {"Accept": "*/*", "Connection": "close", **headers}
        pairs = [(name.encode("ascii"), value.encode("ascii")) for name, value in fields.items()]
        backend = httpcore2.AnyIOBackend()
        gateway = Gateway(backend, resolve, allow_private=self._allow_private, head=HEAD_BYTES)
        async with asyncio.timeout(self._deadline):
            return await exchange(url, pairs, gateway, self._tls, TIMEOUT, MAX_BYTES)

    def _judge(self, answer: Answer, sent_at: float) -> None:
        status = answer.status
        wait = seconds_of(answer.headers.get("retry-after"))
        if status == 429 or (status == 503 and wait is not None):
            self._limiter.limited(sent_at, wait)
            raise RateLimitedError(f"the vendor limits our requests (status {status})", wait)
        if status >= 500:
            self._limiter.unreachable()
            raise UnavailableError(f"the vendor failed (status {status})")
        self._limiter.answered()
        if status in (401, 403):
            raise RefusedError(f"the vendor refuses us (status {status}): is the key right?")
        if status == 404:
            raise UnknownTickerError("the vendor does not know it (status 404)")
        if status not in WITH_BODY:
            raise MalformedError(f"expected an answer with data, found status {status}")


def seconds_of(retry_after: str | None) -> float | None:
    """Seconds that a Retry-After header names; None for none, or one that cannot be read."""
    now = np.datetime64(time.time_ns() // 1000, "us")
    at = retry_at(retry_after, now)
    return None if at is None else float((at - now) / np.timedelta64(1, "s"))


def is_markup(body: bytes) -> bool:
    """Whether it is HTML or XML rather than data."""
    return _MARKUP.match(body) is not None
