"""One request and its answer over one connection of its own, inside limits; every way to fail has a name.

The connection is never used again: an answer that is longer than it says cannot become the next
one's, and closing is the cheapest way not to read what nobody wants. HTTP is httpx2's own core
(httpcore2), because only there may the connecting be taken over.
"""

import asyncio
import ssl
import zlib
from contextlib import aclosing
from dataclasses import dataclass

import httpcore2
import httpx2

from data.news.addresses import Failure, Gateway, Line

HEAD_BYTES = 64 * 1024  # status line and headers, interim answers (1xx) included
FRAMING = 1.25  # bytes on the wire for one of body: leaves room for small chunks
CHUNKS_A_TURN = 64  # read before others get their turn: a body of one-byte chunks is all processor time
WITH_BODY = (200, 203)

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_GZIP_MAGIC = 0x1F


@dataclass(frozen=True)
class Answer:
    """What a server answered. `body` is decompressed, and read only where `status` is one of WITH_BODY."""

    status: int
    headers: httpx2.Headers
    body: bytes


async def exchange(
    url: httpx2.URL,
    headers: list[tuple[bytes, bytes]],
    gateway: Gateway,
    tls: ssl.SSLContext,
    timeout: float,
    max_bytes: int,
) -> Answer:
    """GET `url`. `timeout` (seconds) bounds connecting and each wait for bytes, not the whole.

    `gateway` is for this exchange alone. Raises Failure for everything else that can happen, with a
    reason that starts with its name: name, address, no connection, certificate, timeout, protocol,
    connection lost, incomplete body, wrong length, too large, encoding.
    """
    target = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    patience = {"timeout": {"connect": timeout, "read": timeout, "write": timeout}}
    connection = httpcore2.AsyncHTTPConnection(target.origin, tls, network_backend=gateway)
    answered = False
    try:
        response = await connection.handle_async_request(
            httpcore2.Request("GET", target, headers=headers, extensions=patience)
        )
        answered = True
        fields = httpx2.Headers(response.headers, encoding="latin-1")
        if gateway.line is None or response.status not in WITH_BODY:
            return Answer(response.status, fields, b"")
        return Answer(response.status, fields, await _read_body(response, fields, gateway.line, max_bytes))
    except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
        raise _named(error, answered) from error
    finally:
        await gateway.aclose()


async def _read_body(response: httpcore2.Response, headers: httpx2.Headers, line: Line, max_bytes: int) -> bytes:
    declared = None if "transfer-encoding" in headers else headers.get("content-length")
    if declared is not None and declared.isdigit() and int(declared) > max_bytes:
        raise Failure(f"too large: {declared[:20]} bytes, of at most {max_bytes}")
    line.left = int(max_bytes * FRAMING) + HEAD_BYTES
    content = _Content(headers, max_bytes)
    chunk, count = b"", 0
    async with aclosing(response.aiter_stream()) as chunks:
        async for chunk in chunks:
            content.add(chunk)
            count += 1
            if count % CHUNKS_A_TURN == 0:
                await asyncio.sleep(0)
    # The last bytes of a body of declared length are the last that were read, unless more came than was declared.
    if declared is not None and not line.last.endswith(chunk):
        raise Failure(f"wrong length: more than the declared {declared[:20]} bytes")
    return content.finish()


class _Content:
    """A body as it comes in: at most `most` bytes of it, gzip and zlib undone, several gzip members joined."""

    def __init__(self, headers: httpx2.Headers, most: int) -> None:
        codings = [name.strip().lower() for name in headers.get_list("content-encoding", split_commas=True)]
        codings = [name for name in codings if name not in ("", "identity")]
        if len(codings) > 1 or not {*codings} <= {"gzip", "x-gzip", "deflate"}:
            raise Failure(f"encoding: expected at most gzip, found {ascii(', '.join(codings))[:80]}")
        self._coding = zlib.decompressobj(_GZIP_OR_ZLIB) if codings else None
        self._most = most
        self._body = bytearray()

    def add(self, data: bytes) -> None:
        """Raises Failure where the body gets too large, having made no more of it than one byte too many."""
        if self._coding is None:
            self._body += data[: self._room]
        while data and self._coding is not None:
            data = self._inflate(data, self._coding)
        if len(self._body) > self._most:
            raise Failure(f"too large: more than {self._most} bytes")

    def finish(self) -> bytes:
        if self._coding is not None and not self._coding.eof:
            raise Failure("incomplete body: the compressed data has no end", passing=True)
        return bytes(self._body)

    @property
    def _room(self) -> int:
        return self._most + 1 - len(self._body)

    def _inflate(self, data: bytes, coding: "zlib._Decompress") -> bytes:
        """Inflate into the body; what of `data` belongs to the next gzip member. Padding is dropped."""
        if coding.eof:
            if data[0] != _GZIP_MAGIC:
                return b""
            coding = self._coding = zlib.decompressobj(_GZIP_OR_ZLIB)
        try:
            self._body += coding.decompress(data, self._room)
        except zlib.error as error:
            raise Failure(f"encoding: the compressed data is broken ({error})") from error
        return coding.unused_data if self._room else b""


def _named(error: Exception, answered: bool) -> Failure:
    said = ascii(str(error))[1:-1][:200]
    match error:
        case httpcore2.ConnectTimeout():
            return Failure("timeout: no connection in time", passing=True)
        case httpcore2.TimeoutException():
            return Failure("timeout: the server went silent", passing=True)
        case httpcore2.LocalProtocolError() if not answered:
            return Failure(f"protocol: {said}")
        case _ if answered:
            return Failure(f"incomplete body: {said}", passing=True)
        case httpcore2.ConnectError():
            return Failure(f"no connection: {said}", passing=True)
        case httpcore2.ProtocolError():
            return Failure(f"protocol: {said}", passing=True)
        case _:
            return Failure(f"connection lost: {said}", passing=True)
