"""Feeds over HTTP(S), politely and warily: whatever a server does ends in one `Response`, in bounded time and memory.

Conditional requests, redirects judged hop by hop, retries, and for each host at most so many
connections and requests a second. Does not parse, store or decide when to come back. Proxies, netrc
and cookies are not used; of the environment only SSL_CERT_FILE and SSL_CERT_DIR count.

One feed cannot delay another by more than its own deadline: it holds a place for no longer than
that, and the clock of a fetch stands still while it waits for a place.
"""

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Literal

import httpcore2
import httpx2
import numpy as np
from pydantic import Field
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from data.news.addresses import Failure, Gateway, Resolve, resolve
from data.news.exchange import HEAD_BYTES, WITH_BODY, Answer, exchange
from data.types import Config

LONGEST_WAIT = 31 * 86_400  # seconds of a Retry-After that are believed
DOWN_AFTER = 15.0  # seconds in which nobody could connect: then a host is down, and others need not find out anew
DOWN_FOR = 60.0  # seconds after the last try: then it may be tried again
REDIRECTS = (301, 302, 303, 307, 308)

_ACCEPT = b"application/atom+xml, application/rss+xml, application/xml;q=0.9, text/xml;q=0.9, */*;q=0.1"
_HOST = re.compile(rb"(?=.{1,253}$)(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?|[0-9a-fA-F.]*:[0-9a-fA-F:.]*")
_VALIDATOR = re.compile(r"[\x21-\x7e\x80-\xff](?:[\x20-\x7e\x80-\xff]{0,1022}[\x21-\x7e\x80-\xff])?")


class FetchConfig(Config):
    """Limits of fetching; times in seconds, sizes in bytes after decompression.

    `timeout` bounds connecting and each wait for bytes, `deadline` a whole fetch: redirects, retries
    and name look-ups included, waiting for a place under the limits on hosts and concurrency not.
    `contact` (an address or a page) goes into the User-Agent; SEC EDGAR refuses requests without one.
    """

    timeout: float = Field(default=10.0, gt=0)
    deadline: float = Field(default=30.0, gt=0)
    max_bytes: int = Field(default=10 * 2**20, gt=0)
    max_redirects: int = Field(default=5, ge=0)
    per_host_connections: int = Field(default=4, gt=0)
    per_host_rate: float = Field(default=10.0, gt=0)
    concurrency: int = Field(default=64, gt=0)
    attempts: int = Field(default=3, gt=0)
    backoff: float = Field(default=0.5, ge=0)
    contact: str = Field(default="", max_length=200, pattern=r"^[\x20-\x27\x2a-\x5b\x5d-\x7e]*$")

    @property
    def user_agent(self) -> str:
        """`tapewire/VERSION (CONTACT)`."""
        return f"tapewire/{version('tapewire')}" + (f" ({self.contact})" if self.contact else "")


@dataclass(frozen=True)
class Request:
    """One feed to fetch. The validators are those of the last document that was kept, verbatim."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    allow_private: bool = False


@dataclass(frozen=True)
class Response:
    """How a fetch ended; `reason` is empty where it was "fetched" or "unchanged".

    "limited": the server asked to be left alone (429, or 503 with Retry-After), until `retry_at` (UTC,
    None where it does not say). "failed": the reason's words before its colon name the kind, such as
    `certificate: certificate has expired`; `status` is None where no server answered.
    `url` is the last address asked. `etag` and `last_modified` are for the next request; None
    unless fetched or unchanged. `body` is empty unless fetched.
    """

    outcome: Literal["fetched", "unchanged", "gone", "limited", "failed"]
    url: str
    reason: str = ""
    status: int | None = None
    body: bytes = b""
    content_type: str | None = None
    etag: str | None = None
    last_modified: str | None = None
    retry_at: np.datetime64 | None = None


class Fetcher:
    """Fetches any number of feeds at once, in one event loop. The places are shared by all its fetches.

    `resolve` gives the addresses of a name, `network` connects to an address, `tls` says whom to
    trust, `clock` what time it is (UTC): each is the system's unless given.
    """

    def __init__(
        self,
        config: FetchConfig,
        *,
        resolve: Resolve = resolve,
        network: httpcore2.AsyncNetworkBackend | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], np.datetime64] | None = None,
    ) -> None:
        self._config = config
        self._resolve = resolve
        self._network = network or httpcore2.AnyIOBackend()
        self._tls = tls or httpx2.create_ssl_context()
        self._clock = clock or _present
        self._places = asyncio.Semaphore(config.concurrency)
        self._user_agent = config.user_agent
        self._hosts: dict[bytes, _Host] = {}
        self._doors: dict[tuple[bytes, int | None], _Door] = {}

    async def fetch(self, request: Request) -> Response:
        """Never raises for anything a server or an address can do."""
        trip = _Trip(request.url)
        try:
            async with asyncio.timeout(self._config.deadline) as clock:
                return await self._follow(request, trip, clock)
        except TimeoutError:
            before = f"; before that, {trip.problem}" if trip.problem else ""
            return Response("failed", trip.url, f"deadline: no whole answer in {self._config.deadline:g} s{before}")
        except Failure as failure:
            return Response("failed", trip.url, str(failure), failure.status)

    async def _follow(self, request: Request, trip: "_Trip", clock: asyncio.Timeout) -> Response:
        url = _judged(request.url)
        seen = {url}
        for _ in range(self._config.max_redirects + 1):
            trip.url = str(url)
            answer = await self._insist(url, request, trip, clock)
            if answer.status not in REDIRECTS:
                return _response(request, trip.url, answer, self._clock())
            url = _judged(_target(url, answer))
            if url in seen:
                raise Failure("redirect: they go round in a circle", status=answer.status)
            seen.add(url)
        raise Failure(f"redirect: more than {self._config.max_redirects} of them", status=answer.status)

    async def _insist(self, url: httpx2.URL, request: Request, trip: "_Trip", clock: asyncio.Timeout) -> Answer:
        def note(state: RetryCallState) -> None:
            trip.problem = str(state.outcome and state.outcome.exception())

        config = self._config
        attempts = AsyncRetrying(
            stop=stop_after_attempt(config.attempts),
            wait=wait_exponential_jitter(multiplier=config.backoff, max=config.deadline, jitter=config.backoff),
            retry=retry_if_exception(lambda error: isinstance(error, Failure) and error.passing),
            before_sleep=note,
            reraise=True,
        )
        answer: Answer = await attempts(self._ask, url, request, clock)
        return answer

    async def _ask(self, url: httpx2.URL, request: Request, clock: asyncio.Timeout) -> Answer:
        config = self._config
        headers = _headers(url, request, self._user_agent)
        gateway = Gateway(self._network, self._resolve, allow_private=request.allow_private, head=HEAD_BYTES)
        door = self._doors.setdefault((url.raw_host, url.port), _Door())
        async with self._place(url.raw_host, door, clock):
            try:
                answer = await exchange(url, headers, gateway, self._tls, config.timeout, config.max_bytes)
            except Failure as failure:
                if gateway.line is not None or failure.passing:  # an address that is refused says nothing
                    door.note(gateway.line is not None)
                raise
            door.note(True)
        if answer.status >= 500 and not _is_limit(answer):
            raise Failure(f"status: {answer.status}", passing=True, status=answer.status)
        return answer

    @asynccontextmanager
    async def _place(self, name: bytes, door: "_Door", clock: asyncio.Timeout) -> AsyncIterator[None]:
        """A place among the host's connections and among all. `clock` stands still until there is one."""
        loop = asyncio.get_running_loop()
        host = self._hosts.setdefault(name, _Host(self._config))
        left = (clock.when() or loop.time()) - loop.time()
        clock.reschedule(None)
        async with host.places:
            if door.is_down():
                raise Failure("no connection: others could not connect to this host just now")
            await self._next_place(host)
            try:
                clock.reschedule(loop.time() + left)
                yield
            finally:
                self._places.release()

    async def _next_place(self, host: "_Host") -> None:
        """Take one of all places, no sooner than the host's rate allows. None is held while waiting for that."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(host.free_at - loop.time())
            await self._places.acquire()
            if loop.time() >= host.free_at:
                host.free_at = loop.time() + host.gap
                return
            self._places.release()


class _Host:
    """What one host is spared. Requests stand `gap` seconds apart, so no second ever sees more than the rate."""

    def __init__(self, config: FetchConfig) -> None:
        self.places = asyncio.Semaphore(config.per_host_connections)
        self.gap = 1 / config.per_host_rate
        self.free_at = 0.0  # by the loop's clock


class _Door:
    """A port of a host, and whether anybody can connect to it; without it a dead host costs each feed its deadline."""

    _failing_since: float | None = None
    _tried_at = 0.0

    def note(self, connected: bool) -> None:
        """How a try ended."""
        self._tried_at = asyncio.get_running_loop().time()
        if connected:
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since = self._tried_at

    def is_down(self) -> bool:
        now = asyncio.get_running_loop().time()
        since = self._failing_since
        return since is not None and self._tried_at - since >= DOWN_AFTER and now - self._tried_at < DOWN_FOR


@dataclass
class _Trip:
    """How far a fetch has come: the address it asks, and what went wrong last."""

    url: str
    problem: str = ""


def retry_at(value: str | None, now: np.datetime64) -> np.datetime64 | None:
    """The instant (UTC) that a Retry-After header names: seconds from `now`, or an HTTP date (RFC 9110, 10.2.3).

    Never before `now`, nor more than LONGEST_WAIT after it. None for no header, or one that says neither.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return now + np.timedelta64(int(min(float(text), LONGEST_WAIT)), "s")
    try:
        date = parsedate_to_datetime(text)
        at = np.datetime64((date if date.tzinfo is None else date.astimezone(UTC)).replace(tzinfo=None), "us")
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(at, now), now + np.timedelta64(LONGEST_WAIT, "s"))


def _judged(address: str) -> httpx2.URL:
    """The address, without its fragment, if it is one that may be asked; Failure otherwise."""
    try:
        url = httpx2.URL(address).copy_with(fragment=None)
    except (httpx2.InvalidURL, ValueError) as error:  # ValueError: a lone surrogate
        raise Failure(f"address: {ascii(str(error))[1:-1][:200]}") from error
    if url.scheme not in ("http", "https"):
        raise Failure(f"address: expected http or https, found {url.scheme[:20] or 'no scheme'}")
    if url.userinfo:
        raise Failure("address: it holds a user name or password")
    if not _HOST.fullmatch(url.raw_host):
        raise Failure(f"address: {ascii(url.raw_host)[2:-1][:80] or 'nothing'} is no host")
    if url.port is not None and not 0 < url.port < 65_536:
        raise Failure(f"address: {url.port} is no port")
    return url


def _target(url: httpx2.URL, answer: Answer) -> str:
    location = answer.headers.get("location")
    if location is None:
        raise Failure("redirect: it says not where to", status=answer.status)
    quoted = re.sub(r"[^\x21-\x7e]", lambda found: f"%{ord(found[0]):02X}", location.strip())
    try:
        return str(url.join(quoted))
    except (httpx2.InvalidURL, ValueError) as error:
        raise Failure(f"redirect: {ascii(str(error))[1:-1][:200]}", status=answer.status) from error


def _headers(url: httpx2.URL, request: Request, user_agent: str) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"Host", url.netloc),
        (b"User-Agent", user_agent.encode("ascii")),
        (b"Accept", _ACCEPT),
        (b"Accept-Encoding", b"gzip"),
        (b"Connection", b"close"),
    ]
    for name, value in ((b"If-None-Match", request.etag), (b"If-Modified-Since", request.last_modified)):
        if value and _VALIDATOR.fullmatch(value):
            headers.append((name, value.encode("latin-1")))
    return headers


def _response(request: Request, url: str, answer: Answer, now: np.datetime64) -> Response:
    status, headers = answer.status, answer.headers
    etag, modified = (_validator(headers, name) for name in ("etag", "last-modified"))
    if status in WITH_BODY:
        kind = headers.get("content-type", "")[:200] or None
        return Response("fetched", url, "", status, answer.body, kind, etag, modified)
    if status == 304 and (request.etag or request.last_modified):
        etag, modified = etag or request.etag, modified or request.last_modified
        return Response("unchanged", url, status=status, etag=etag, last_modified=modified)
    if status == 410:
        return Response("gone", url, "status: 410", status)
    if _is_limit(answer):
        until = retry_at(answer.headers.get("retry-after"), now)
        return Response("limited", url, f"status: {status}", status, retry_at=until)
    return Response("failed", url, f"status: {status}", status)


def _is_limit(answer: Answer) -> bool:
    named = retry_at(answer.headers.get("retry-after"), _present()) is not None
    return answer.status == 429 or (answer.status == 503 and named)


def _present() -> np.datetime64:
    return np.datetime64(time.time_ns() // 1000, "us")


def _validator(headers: httpx2.Headers, name: str) -> str | None:
    """A validator to send back next time; None where there is none, or one that could not be sent."""
    value = headers.get(name)
    return value if value is not None and _VALIDATOR.fullmatch(value) else None
