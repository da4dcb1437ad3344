"""Which addresses a feed may lead to, in which spelling, by which way round."""

import asyncio
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address

import httpcore2
import pytest
from feed_server import FeedServer, redirect
from fetching import FEED, HASTY, PUBLIC, Detour, Names, fetch, get, kind
from hypothesis import given, settings
from hypothesis import strategies as st

from data.news.addresses import is_public, resolve
from data.news.fetch import Request

NOT_PUBLIC = """
    0.0.0.0 0.1.2.3 10.1.2.3 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1
    172.31.255.255 192.0.0.192 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.7 203.0.113.9 224.0.0.1
    239.255.255.255 240.0.0.1 255.255.255.255 168.63.129.16 :: ::1 fe80::1 fe80::1%1 fc00::1 fd00:ec2::254 fec0::1
    ff02::1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::127.0.0.1 2002:7f00:1:: 2002:808:808::1 2001::1 2001:db8::1 3fff::1
    64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b:1::808:808 100::1 5f00::1 4000::1
"""
IS_PUBLIC = """
    8.8.8.8 93.184.215.14 100.63.255.255 172.32.0.1 2606:4700::1111 2a00:1450:4001::200e 64:ff9b::808:808
"""
SPELLINGS = """
    127.0.0.1 2130706433 0x7f000001 0x7f.1 0177.0.0.01 127.1 127.0.1 0 0.0.0.0 localhost LOCALHOST. 169.254.169.254
    10.0.0.1 [::] [::1] [::ffff:127.0.0.1] [::FFFF:7f00:1] [0:0:0:0:0:0:0:1]
"""
INSIDE = """
    http://127.0.0.1:{port}/inside http://2130706433:{port}/inside http://inside.test/ http://[::1]:{port}/ //10.0.0.1/
"""
NO_ADDRESSES = [
    *[
        "feed.xml",
        "file:///etc/passwd",
        "ftp://a.b/",
        "gopher://a.b/",
        "http://",
        "http:///x",
        "http://u:p@a.b/",
        "http://a.b:0/",
    ],
    *[
        "http://a.b:-1/",
        "http://a.b:70000/",
        "http://a.b:x/",
        "http://a..b/",
        "http://.a/",
        "http://a%2eb/",
        "http://[::1",
    ],
    *("", "http://a b/", "http://a\r\nb/", "http://a.b/\r\nX: y", "http://\u2460.b/", "\ud800", "data:text/xml,<rss/>"),
    *("http://" + "a" * 64 + ".b/", "http://a.b/" + "x" * 70_000),
]


@pytest.fixture(scope="module")
def server() -> Iterator[FeedServer]:
    with FeedServer() as server:
        yield server


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", IS_PUBLIC.split())
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_ipv4_in_ipv6_is_never_more_public(number: int) -> None:
    plain = IPv4Address(number)
    assert is_public(str(IPv6Address(0x64FF9B << 96 | number))) == is_public(str(plain))
    assert not is_public(str(IPv6Address(0xFFFF << 32 | number)))
    assert not is_public(str(IPv6Address(0x2002 << 112 | number << 80)))
    assert plain.is_global or not is_public(str(plain))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 2**128 - 1))
def test_ipv6_is_never_more_public_than_python_thinks(number: int) -> None:
    address = IPv6Address(number)
    assert address.is_global or not is_public(str(address))


@pytest.mark.parametrize("host", SPELLINGS.split())
def test_private_addresses_are_refused_however_they_are_spelt(server: FeedServer, host: str) -> None:
    server.add("/own", FEED)
    before = len(server.visits())
    [response] = fetch(Request(server.url("/own", host)))
    assert response.outcome == "failed"
    # "name": there are systems whose resolver does not know the odd spellings.
    assert kind(response) in ("failed address", "failed name")
    assert len(server.visits()) == before


def test_odd_spellings_lead_there_if_the_feed_may(server: FeedServer) -> None:
    server.add("/own", FEED)
    assert get(server.url("/own", "localhost")).body == FEED
    assert get(server.url("/own")).body == FEED


@pytest.mark.parametrize("to", INSIDE.split())
def test_a_public_feed_cannot_lead_inside(server: FeedServer, to: str) -> None:
    server.add("/inside", FEED)
    server.add("/outside", behaviour=redirect(to.format(port=server.port)))
    detour, before = Detour(server.port), len(server.visits())

    async def lookup(host: str, port: int) -> Sequence[str]:
        names = {"outside.test": [PUBLIC], "inside.test": ["192.168.0.7"]}
        return names.get(host) or await resolve(host, port)

    [response] = fetch(Request("http://outside.test/outside"), resolve=lookup, network=detour)
    assert kind(response) == "failed address"
    assert detour.asked == [PUBLIC]
    assert len(server.visits()) == before + 1
    [allowed] = fetch(Request("http://outside.test/outside", allow_private=True), resolve=lookup, network=detour)
    assert len(detour.asked) == 3
    assert allowed.status is not None


def test_the_address_that_was_judged_is_the_one_that_is_asked(server: FeedServer) -> None:
    server.add("/rebind", FEED)
    detour = Detour(server.port)
    names = Names(rebind_test=[[PUBLIC], ["127.0.0.1"]])
    first, second = (fetch(Request("http://rebind.test/rebind"), resolve=names, network=detour)[0] for _ in range(2))
    assert (first.outcome, kind(second)) == ("fetched", "failed address")
    assert detour.asked == [PUBLIC]


def test_of_several_addresses_only_public_ones_are_asked(server: FeedServer) -> None:
    server.add("/mixed", FEED)
    detour = Detour(server.port)
    names = Names(mixed_test=[["::1", "10.0.0.1", "8.8.8.8", "127.0.0.1"]])
    [response] = fetch(Request("http://mixed.test/mixed"), resolve=names, network=detour)
    assert response.outcome == "fetched"
    assert detour.asked == ["8.8.8.8"]


def test_the_next_address_is_asked_where_one_is_dead(server: FeedServer) -> None:
    server.add("/dead", FEED)
    names = Names(dead_test=[["127.0.0.1", "127.0.0.1"]])

    class Half(Detour):
        async def connect_tcp(self, host: str, port: int, *rest: object) -> httpcore2.AsyncNetworkStream:
            if not self.asked:
                self.asked.append(host)
                raise httpcore2.ConnectError("dead")
            return await super().connect_tcp(host, port)

    [response] = fetch(Request("http://dead.test/dead", allow_private=True), resolve=names, network=Half(server.port))
    assert response.outcome == "fetched"


@pytest.mark.parametrize("url", NO_ADDRESSES)
def test_addresses_that_are_not_even_looked_up(url: str) -> None:
    async def never(host: str, port: int) -> Sequence[str]:
        raise AssertionError(host)

    [response] = fetch(Request(url, allow_private=True), resolve=never)
    assert kind(response) == "failed address"


def test_a_name_server_that_hangs_or_knows_nothing(server: FeedServer) -> None:
    url = server.add("/hung", FEED)

    async def hung(host: str, port: int) -> Sequence[str]:
        if host == "127.0.0.1":
            return [host]
        if host == "hung.test":
            await asyncio.sleep(3600)
        raise OSError("no such name")

    requests = [Request(address, allow_private=True) for address in ("http://hung.test/", "http://no.test/", url)]
    kinds = [kind(response) for response in fetch(*requests, config=HASTY, resolve=hung)]
    assert kinds == ["failed name", "failed name", "fetched"]


def test_the_systems_names() -> None:
    assert "127.0.0.1" in asyncio.run(resolve("localhost", 80))
    with pytest.raises(OSError):  # noqa: PT011  (which one depends on the system)
        asyncio.run(resolve("no-such-name.invalid", 80))
