"""Where a feed may lead: its name to addresses, the addresses judged, connections to none but the judged ones.

A name is looked up once a connection, and the connection goes to the very address that was judged,
so a name server that changes its answer in between (DNS rebinding) gains nothing. Knows nothing of HTTP.
"""

import asyncio
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import httpcore2

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

MOST_ADDRESSES = 4  # of one name that are tried, each for its share of the time to connect
READ_BYTES = 8 * 1024  # at a time: what is read is worked off in one go, and others wait for that

# Not globally reachable, or with no feed behind them: the IANA special-purpose registries (RFC 6890 and
# its updates), multicast, and Azure's platform address, which is public by number only.
_CLOSED_NETWORKS = """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
    192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
    168.63.129.16/32 2001::/23 2001:db8::/32 2002::/16 3fff::/20
"""
_CLOSED = tuple(map(ip_network, _CLOSED_NETWORKS.split()))
_UNICAST = ip_network("2000::/3")  # all of IPv6 that is global; leaves out ::1, fc00::/7, fe80::/10, mapped IPv4
_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address in its last 32 bits


class Failure(Exception):  # noqa: N818  (it is an outcome that the caller gets, not a bug)
    """Why there is no answer. A `passing` one may go better at once; `status` is the server's, if it gave one."""

    def __init__(self, reason: str, *, passing: bool = False, status: int | None = None) -> None:
        super().__init__(reason)
        self.passing = passing
        self.status = status


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet. ValueError for what is no address."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address) and ip in _NAT64:
        ip = IPv4Address(int(ip) & 0xFFFF_FFFF)
    return (isinstance(ip, IPv4Address) or ip in _UNICAST) and not any(ip in network for network in _CLOSED)


async def resolve(host: str, port: int) -> list[str]:
    """The system's addresses of `host` (ASCII), in its order of preference. OSError where it has none.

    Every look-up has a daemon thread of its own: one that hangs holds up neither the others, as it
    would in a pool, nor the end of the process. A literal address is its own answer.
    """
    with suppress(ValueError):
        return [str(ip_address(host))]
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def settle(found: list[str] | OSError) -> None:
        if answer.done():
            return
        if isinstance(found, OSError):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    def look_up() -> None:
        found: list[str] | OSError
        try:
            rows = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(row[4][0]) for row in rows))
        except OSError as error:
            found = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, found)

    threading.Thread(target=look_up, name=f"look up {host}", daemon=True).start()
    return await answer


class Line(httpcore2.AsyncNetworkStream):
    """One connection. Reads at most `left` more bytes; `last` is what the last read gave."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream, left: int) -> None:
        self._stream = stream
        self.left = left
        self.last = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """As the stream's. Raises Failure where no more may be read."""
        if self.left <= 0:
            raise Failure("too large: the server sends more than a feed may hold")
        self.last = await self._stream.read(min(max_bytes, self.left, READ_BYTES), timeout)
        self.left -= len(self.last)
        return self.last

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """As the stream's."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """As the stream's."""
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> "Line":
        """Go on under TLS. Raises Failure where the certificate is not good for the host."""
        try:
            self._stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except httpcore2.ConnectError as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                raise Failure(f"certificate: {error.__cause__.verify_message}") from error
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        """As the stream's."""
        return self._stream.get_extra_info(info)


class Gateway(httpcore2.AsyncNetworkBackend):
    """The way out for one connection, which is `line` once it stands; it may read `head` bytes at first."""

    line: Line | None = None

    def __init__(
        self, network: httpcore2.AsyncNetworkBackend, resolve: Resolve, *, allow_private: bool, head: int
    ) -> None:
        self._network = network
        self._resolve = resolve
        self._allow_private = allow_private
        self._head = head

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> Line:
        """Connect to an address of `host` that may be reached; Failure where there is none or no look-up."""
        addresses = await self._reachable(host, port, timeout)
        share = timeout and timeout / len(addresses)
        refusal: Exception | None = None
        for address in addresses:
            try:
                stream = await self._network.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                refusal = error
            else:
                self.line = Line(stream, self._head)
                return self.line
        raise Failure(f"no connection: {host} at {', '.join(addresses)}", passing=True) from refusal

    async def aclose(self) -> None:
        """Close the connection, if there is one."""
        if self.line is not None:
            await self.line.aclose()

    async def _reachable(self, host: str, port: int, timeout: float | None) -> Sequence[str]:
        try:
            async with asyncio.timeout(timeout):
                found = await self._resolve(host, port)
        except OSError as error:  # TimeoutError is one
            raise Failure(f"name: {host} was not resolved", passing=True) from error
        allowed = found if self._allow_private else [address for address in found if is_public(address)]
        if not allowed:
            where = f", which {host} leads to," if host not in found else ""
            raise Failure(f"address: {found[0]}{where} is not public; allow_private = true would permit it")
        return allowed[:MOST_ADDRESSES]
