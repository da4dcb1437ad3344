"""A web server for tests, good and bad, on 127.0.0.1 in a thread of its own: every path behaves as it was told to.

    with FeedServer() as server:
        url = server.add("/a.xml", b"<rss/>")                      # a document with an ETag, 304 when asked so
        server.add("/b.xml", b"<rss/>", behaviour=slow)            # what a bad server does with it
        ...
        assert server.visits("/a.xml")[0].headers["user-agent"]

A behaviour is an `async def (turn)`, which writes what it likes. Not for anything but tests.
"""

import asyncio
import gzip
import hashlib
import ssl
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

MIB = 2**20


@dataclass(frozen=True)
class Visit:
    """One request: its headers by lower-case name, and when it came (monotonic seconds)."""

    path: str
    headers: Mapping[str, str]
    at: float


@dataclass
class Turn:
    """What a behaviour has to work with. `nth` counts the visits of this path from 1. `keep` keeps the connection."""

    visit: Visit
    nth: int
    body: bytes
    headers: Mapping[str, str]
    writer: asyncio.StreamWriter
    keep: bool = False

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """A well-formed answer; a header given as "" is left out."""
        fields = {"Content-Length": str(len(body)), **headers}
        await self.send(head(status, fields) + body)
        self.keep = "Content-Length" in fields and self.visit.headers.get("connection") != "close"


Behaviour = Callable[[Turn], Awaitable[None]]


def head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in headers.items() if value != "")]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def document(turn: Turn) -> None:
    """200 with a strong ETag, or 304 to who has it."""
    etag = f'"{hashlib.sha256(turn.body).hexdigest()[:16]}"'
    if turn.visit.headers.get("if-none-match") == etag:
        await turn.answer(304, {"ETag": etag, "Content-Length": ""})
        turn.keep = turn.visit.headers.get("connection") != "close"
    else:
        await turn.answer(200, {"Content-Type": "application/xml", "ETag": etag, **turn.headers}, turn.body)


async def plain(turn: Turn) -> None:
    """200 without validators."""
    await turn.answer(200, turn.headers, turn.body)


async def gzipped(turn: Turn) -> None:
    await turn.answer(200, {"Content-Encoding": "gzip", **turn.headers}, gzip.compress(turn.body))


async def chunked(turn: Turn) -> None:
    pieces = (turn.body[at : at + 1000] for at in range(0, len(turn.body), 1000))
    chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
    await turn.send(head(200, {"Transfer-Encoding": "chunked", **turn.headers}) + b"".join(chunks) + b"0\r\n\r\n")


async def until_close(turn: Turn) -> None:
    """A body that ends where the connection does."""
    await turn.send(head(200, {"Connection": "close", **turn.headers}) + turn.body)


async def slow(turn: Turn) -> None:
    """Slow-loris: a promise of much, then a byte now and then, for ever."""
    await turn.send(head(200, {"Content-Length": "100000"}))
    while True:
        await turn.send(b"<")
        await asyncio.sleep(0.02)


async def slow_head(turn: Turn) -> None:
    """Slow-loris in the headers."""
    await turn.send(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        await turn.send(b"x")
        await asyncio.sleep(0.02)


async def silent(turn: Turn) -> None:
    """Takes the request and says nothing."""
    await asyncio.sleep(3600)


async def hang_up(turn: Turn) -> None:
    """Closes at once."""


async def bomb(turn: Turn) -> None:
    """1 GiB of zeros as a valid gzip stream of 1 MiB."""
    await turn.send(head(200, {"Content-Encoding": "gzip", "Content-Type": "application/xml"}))
    for piece in _bomb(1024):
        await turn.send(piece)


def _bomb(mebibytes: int) -> Iterator[bytes]:
    zeros = bytes(MIB)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = deflate.compress(zeros) + deflate.flush(zlib.Z_FULL_FLUSH)  # byte-aligned and self-contained: repeatable
    yield b"\x1f\x8b\x08\0\0\0\0\0\x02\xff"
    check = 0
    for _ in range(mebibytes):
        check = zlib.crc32(zeros, check)
        yield block
    yield deflate.flush() + check.to_bytes(4, "little") + (mebibytes * MIB % 2**32).to_bytes(4, "little")


def status(code: int, **headers: str) -> Behaviour:
    """An answer without a feed; `retry_after="60"` is the header Retry-After."""
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}

    async def behave(turn: Turn) -> None:
        await turn.answer(code, named, b"no feed here")

    return behave


def redirect(location: str, code: int = 302) -> Behaviour:
    return status(code, location=location)


def wrong_length(more: int) -> Behaviour:
    """A Content-Length that differs from the body's by `more`."""

    async def behave(turn: Turn) -> None:
        await turn.send(head(200, {"Content-Length": str(len(turn.body) + more), **turn.headers}) + turn.body)

    return behave


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """The first at the first visit, the second at the second; the last from then on."""

    async def behave(turn: Turn) -> None:
        await behaviours[min(turn.nth, len(behaviours)) - 1](turn)

    return behave


def raw(*pieces: bytes) -> Behaviour:
    """These very bytes, then the connection is closed."""

    async def behave(turn: Turn) -> None:
        for piece in pieces:
            await turn.send(piece)

    return behave


def flood(start: bytes, piece: bytes) -> Behaviour:
    """`start`, then `piece` again and again until the other side has enough."""

    async def behave(turn: Turn) -> None:
        await turn.send(start)
        while True:
            await turn.send(piece)

    return behave


@dataclass(frozen=True)
class _Page:
    body: bytes
    headers: Mapping[str, str]
    behaviour: Behaviour


@dataclass
class FeedServer:
    """A context manager; `url`, `add` and the counts may be used from any thread. 404 for paths that were not added."""

    tls: ssl.SSLContext | None = None
    port: int = 0
    open: int = 0  # connections
    most_open: int = 0
    _pages: dict[str, _Page] = field(default_factory=dict)
    _visits: list[Visit] = field(default_factory=list)

    def add(
        self, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, behaviour: Behaviour = document
    ) -> str:
        """Serve `path` (with its query, if it has one); returns its address."""
        self._pages[path] = _Page(body, headers or {}, behaviour)
        return self.url(path)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http{'s' if self.tls else ''}://{host}:{self.port}{path}"

    def visits(self, path: str | None = None) -> list[Visit]:
        return [visit for visit in self._visits if path in (None, visit.path)]

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), name="feed server")
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self.tls, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._talk(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.close())  # also where it was cancelled before it began

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                while await self._turn(reader, writer):
                    pass
        finally:
            self.open -= 1
            writer.transport.abort() if writer.transport.get_write_buffer_size() > MIB else writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _turn(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        path = request[0].split(" ")[1]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in request[1:-2])}
        visit = Visit(path, headers, time.monotonic())
        self._visits.append(visit)
        page = self._pages.get(path, _Page(b"", {}, status(404)))
        turn = Turn(visit, len(self.visits(path)), page.body, page.headers, writer)
        await page.behaviour(turn)
        return turn.keep
