"""Politeness, redirects, TLS and limits of fetching."""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import feed_server
import numpy as np
import pytest
import trustme
from feed_server import FeedServer, redirect, status, wrong_length
from fetching import FEED, PATIENT, SHORT, Detour, Names, fetch, get, kind
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data.news.fetch import LONGEST_WAIT, FetchConfig, Fetcher, Request, Response, retry_at

NOW = np.datetime64("2026-03-02T12:00:00", "us")
ODD_RETRY_AFTER = [
    *(None, "", "soon", "-5", "1.5", "1e3", "\u00b2", "12 h", "\0", "Mon, 32 Mar 2026 12:00:00 GMT"),
    "Mon, 02 Mar 9999999 12:01:00 GMT",
]
LIMITS = ["timeout", "deadline", "max_bytes", "per_host_connections", "per_host_rate", "concurrency", "attempts"]
PAST = {"not_before": datetime(2019, 1, 1, tzinfo=UTC), "not_after": datetime(2020, 1, 1, tzinfo=UTC)}


@pytest.fixture(scope="module")
def server() -> Iterator[FeedServer]:
    with FeedServer() as server:
        yield server


def test_what_has_not_changed_is_not_sent_again(server: FeedServer) -> None:
    url = server.add("/etag", FEED)
    first = get(url)
    second = get(url, etag=first.etag)
    assert (second.outcome, second.reason, second.status, second.body) == ("unchanged", "", 304, b"")
    assert second.etag == first.etag


@pytest.mark.parametrize("etag", ['W/"weak"', '"a, b"', "unquoted", '"\xe9"'])
def test_validators_are_kept_verbatim(server: FeedServer, etag: str) -> None:
    date = "Mon, 02 Mar 2026 12:00:00 GMT"
    path = "/validators"
    fields = {"ETag": etag, "Last-Modified": date}
    url = server.add(path, FEED, headers=fields, behaviour=feed_server.plain)
    first = get(url)
    assert (first.etag, first.last_modified) == (etag, date)
    get(url, etag=first.etag, last_modified=first.last_modified)
    sent = server.visits(path)[-1].headers
    assert (sent["if-none-match"], sent["if-modified-since"]) == (etag, date)


def test_validators_reach_the_end_of_a_redirect(server: FeedServer) -> None:
    end = server.add("/moved-to", FEED)
    start = server.add("/moved", behaviour=redirect("/moved-to", 301))
    first = get(start)
    assert first.url == end
    assert get(start, etag=first.etag).outcome == "unchanged"


@pytest.mark.parametrize("etag", ["", 'a"\r\nX-Injected: 1', "a\0", "\u20ac", "x" * 2000, " "])
def test_a_validator_that_cannot_be_sent_is_left_out(server: FeedServer, etag: str) -> None:
    path = "/odd-validator"
    assert get(server.add(path, FEED), etag=etag).outcome == "fetched"
    assert "if-none-match" not in server.visits(path)[-1].headers
    assert "x-injected" not in server.visits(path)[-1].headers


def test_a_huge_etag_is_not_kept(server: FeedServer) -> None:
    url = server.add("/huge-etag", FEED, headers={"ETag": '"' + "x" * 5000 + '"'}, behaviour=feed_server.plain)
    assert get(url).etag is None


def test_what_is_sent(server: FeedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    cookies = {"Set-Cookie": "track=1", "Content-Type": "text/xml; charset=utf-8"}
    url = server.add("/sent", FEED, headers=cookies, behaviour=feed_server.plain)
    assert get(url).content_type == "text/xml; charset=utf-8"
    get(url)
    sent = server.visits("/sent")[-1].headers
    assert sent["user-agent"].startswith("tapewire/")
    assert sent["user-agent"].endswith(" (desk@example.com)")
    assert sent["accept-encoding"] == "gzip"
    assert sent["host"] == f"127.0.0.1:{server.port}"
    assert not {"cookie", "authorization", "if-none-match"} & set(sent)


@pytest.mark.parametrize("contact", ["a\r\nX: y", "a(b)", "\u20ac", "x" * 300])
def test_a_contact_that_cannot_be_sent_is_refused(contact: str) -> None:
    with pytest.raises(ValidationError):
        FetchConfig(contact=contact)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 120 ", 120),
        ("9" * 5000, LONGEST_WAIT),
        (str(LONGEST_WAIT + 1), LONGEST_WAIT),
        ("Mon, 02 Mar 2026 12:01:00 GMT", 60),
        ("Monday, 02-Mar-26 12:01:00 GMT", 60),
        ("Mon Mar  2 12:01:00 2026", 60),
        ("Mon, 02 Mar 2026 12:01:00 +0001", 0),
        ("Mon, 02 Mar 1999 12:01:00 GMT", 0),
        ("Mon, 02 Mar 2099 12:01:00 GMT", LONGEST_WAIT),
    ],
)
def test_retry_after(value: str, seconds: int) -> None:
    assert retry_at(value, NOW) == NOW + np.timedelta64(seconds, "s")


@pytest.mark.parametrize("value", ODD_RETRY_AFTER)
def test_retry_after_that_says_nothing(value: str | None) -> None:
    assert retry_at(value, NOW) is None


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=60) | st.from_regex(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{1,6} \d\d:\d\d:\d\d [+A-Z-]\w*"))
def test_retry_after_stays_in_bounds(value: str) -> None:
    at = retry_at(value, NOW)
    assert at is None or NOW <= at <= NOW + np.timedelta64(LONGEST_WAIT, "s")


def test_limits_say_until_when(server: FeedServer) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
    for value, hours in (("3600", 1), (later, 2)):
        response = get(server.add("/later", behaviour=status(429, retry_after=value)))
        wait = response.retry_at - np.datetime64(datetime.now(UTC).replace(tzinfo=None), "us")
        assert response.outcome == "limited"
        assert np.timedelta64(hours * 60 - 2, "m") < wait <= np.timedelta64(hours, "h")
    assert len(server.visits("/later")) == 2


def test_only_what_may_pass_is_tried_again(server: FeedServer) -> None:
    for path, behaviour, visits in (("/5", status(502), 3), ("/4", status(404), 1), ("/0", feed_server.hang_up, 3)):
        get(server.add(path, behaviour=behaviour))
        assert len(server.visits(path)) == visits


def test_five_redirects_and_no_more(server: FeedServer) -> None:
    for code, step in zip((301, 302, 303, 307, 308, 302), range(6), strict=True):
        server.add(f"/hop{step}", behaviour=redirect(f"/hop{step + 1}", code))
    end = server.add("/hop6", FEED)
    assert get(server.url("/hop1")).url == end
    late = get(server.url("/hop0"))
    assert (kind(late), late.url) == ("failed redirect", server.url("/hop5"))


def test_redirects_in_a_circle_are_noticed_at_once(server: FeedServer) -> None:
    server.add("/here", behaviour=redirect("/there"))
    server.add("/there", behaviour=redirect("/here"))
    assert get(server.url("/here")).reason == "redirect: they go round in a circle"
    assert len(server.visits("/here")) == 1


@pytest.mark.parametrize("location", ["b c?q=\xe9#part", "//127.0.0.1:{port}/a/b%20c?q=%E9", "./../a/b%20c?q=%E9"])
def test_relative_and_sloppy_locations(server: FeedServer, location: str) -> None:
    end = server.add("/a/b%20c?q=%E9", FEED)
    start = server.add("/a/start", behaviour=redirect(location.format(port=server.port)))
    assert get(start).url == end


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def serving(authority: trustme.CA, name: str, **options: object) -> FeedServer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **options).configure_cert(context)  # type: ignore[arg-type]
    return FeedServer(tls=context)


def test_tls_with_a_good_certificate(authority: trustme.CA) -> None:
    with serving(authority, "127.0.0.1") as server:
        request = Request(server.add("/tls", FEED), allow_private=True)
        assert fetch(request, tls=trusting(authority))[0].body == FEED
        server.add("/cut", FEED, behaviour=wrong_length(5))
        request = Request(server.url("/cut"), allow_private=True)
        assert kind(fetch(request, tls=trusting(authority))[0]) == "failed incomplete body"


@pytest.mark.parametrize(
    ("name", "options", "trusted", "said"),
    [
        ("127.0.0.1", PAST, True, "expired"),
        ("127.0.0.1", {}, False, "unable to get local issuer|self-signed"),
        ("other.example.com", {}, True, "mismatch"),
    ],
)
def test_bad_certificates_are_refused(
    authority: trustme.CA, name: str, options: dict[str, object], trusted: bool, said: str
) -> None:
    tls = trusting(authority) if trusted else None
    with serving(authority, name, **options) as server:
        [response] = fetch(Request(server.add("/tls", FEED), allow_private=True), tls=tls)
        assert kind(response) == "failed certificate"
        assert any(words in response.reason for words in said.split("|"))
        assert server.visits() == []


def test_a_redirect_to_a_bad_certificate_is_refused(server: FeedServer, authority: trustme.CA) -> None:
    with serving(authority, "127.0.0.1") as secure:
        start = server.add("/to-tls", behaviour=redirect(secure.add("/tls", FEED)))
        assert kind(get(start)) == "failed certificate"


def test_plain_http_to_a_tls_server(authority: trustme.CA) -> None:
    with serving(authority, "127.0.0.1") as secure:
        assert get(secure.add("/tls", FEED).replace("https:", "http:")).outcome == "failed"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [(b"", "failed deadline"), (b"HTTP/1.1 400 Speak plainly\r\n\r\n", "failed no connection")],
)
def test_no_tls_where_there_should_be(reply: bytes, expected: str) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            writer.write(reply)
            await reader.read()

    async def run() -> Response:
        async with await asyncio.start_server(accept, "127.0.0.1", 0) as quiet:
            port = quiet.sockets[0].getsockname()[1]
            return await Fetcher(SHORT).fetch(Request(f"https://127.0.0.1:{port}/", allow_private=True))

    assert kind(asyncio.run(run())) == expected


def many(server: FeedServer, count: int, name: str) -> list[Request]:
    return [Request(server.add(f"/{name}{number}", FEED), allow_private=True) for number in range(count)]


def test_connections_of_a_host_are_few(server: FeedServer) -> None:
    server.most_open = 0
    responses = fetch(*many(server, 40, "few"), config=PATIENT.model_copy(update={"per_host_connections": 3}))
    assert all(response.body == FEED for response in responses)
    assert server.most_open <= 3


def test_connections_of_all_hosts_are_few(server: FeedServer) -> None:
    names = Names(**{f"host{number}_test": [["127.0.0.1"]] for number in range(30)})
    requests = [Request(f"http://host{number}.test/few0", allow_private=True) for number in range(30)]
    server.add("/few0", FEED)
    server.most_open = 0
    config = PATIENT.model_copy(update={"concurrency": 2})
    responses = fetch(*requests, config=config, resolve=names, network=Detour(server.port))
    assert all(response.body == FEED for response in responses)
    assert server.most_open <= 2


def test_requests_of_a_host_stand_apart(server: FeedServer) -> None:
    fetch(*many(server, 20, "apart"), config=PATIENT.model_copy(update={"per_host_rate": 100}))
    came = sorted(visit.at for visit in server.visits() if visit.path.startswith("/apart"))
    assert came[-1] - came[0] >= 0.18  # 19 gaps of 10 ms; the first request may take longer to come than the last


def test_waiting_for_a_place_does_not_count(server: FeedServer) -> None:
    slow = [
        Request(server.add(f"/slow{number}", behaviour=feed_server.slow), allow_private=True) for number in range(3)
    ]
    config = SHORT.model_copy(update={"per_host_connections": 1})
    *late, good = fetch(*slow, *many(server, 1, "patient"), config=config)
    assert {kind(response) for response in late} == {"failed deadline"}
    assert good.body == FEED


def test_slow_hosts_leave_places_to_others(server: FeedServer) -> None:
    server.add("/slow", behaviour=feed_server.slow)
    server.add("/quick", FEED)
    names = Names(slow_test=[["127.0.0.1"]], quick_test=[["127.0.0.1"]])
    order: list[str] = []

    async def run() -> None:
        config = PATIENT.model_copy(update={"concurrency": 3, "per_host_connections": 2, "deadline": 1.0})
        fetcher = Fetcher(config, resolve=names, network=Detour(server.port))

        async def note(url: str) -> None:
            order.append(kind(await fetcher.fetch(Request(url, allow_private=True))))

        urls = ["http://slow.test/slow"] * 4 + ["http://quick.test/quick"] * 6
        await asyncio.gather(*map(note, urls))

    asyncio.run(run())
    assert order == ["fetched"] * 6 + ["failed deadline"] * 4


def test_a_host_that_is_down_is_found_out_once(server: FeedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.news.fetch.DOWN_AFTER", 0.0)
    dead = [Request(f"http://127.0.0.1:1/{number}", allow_private=True) for number in range(20)]
    detour = Detour(1)
    config = PATIENT.model_copy(update={"attempts": 1})
    *failed, other = fetch(*dead, *many(server, 1, "alive"), config=config, network=detour)
    assert {kind(response) for response in failed} == {"failed no connection"}
    assert other.status is None  # the detour leads nowhere, but this port of the host was tried all the same
    assert 2 <= len(detour.asked) <= config.per_host_connections + 1


def test_a_host_that_is_up_again_is_asked_again(server: FeedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.news.fetch.DOWN_AFTER", 0.0)
    monkeypatch.setattr("data.news.fetch.DOWN_FOR", 0.0)
    [url] = many(server, 1, "again")
    detour = Detour(1)

    async def run() -> list[str]:
        fetcher = Fetcher(PATIENT.model_copy(update={"attempts": 1}), network=detour)
        first = await fetcher.fetch(url)
        detour.port = server.port
        return [kind(first), kind(await fetcher.fetch(url))]

    assert asyncio.run(run()) == ["failed no connection", "fetched"]


def test_a_cancelled_fetch_leaves_nothing_behind(server: FeedServer) -> None:
    url = server.add("/cancelled", behaviour=feed_server.slow)

    async def run() -> Response:
        fetcher = Fetcher(PATIENT.model_copy(update={"concurrency": 1, "per_host_connections": 1}))
        tasks = [asyncio.create_task(fetcher.fetch(Request(url, allow_private=True))) for _ in range(3)]
        while not server.visits("/cancelled"):
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends)
        return await fetcher.fetch(many(server, 1, "after")[0])

    assert asyncio.run(run()).body == FEED


@pytest.mark.parametrize("setting", LIMITS)
def test_limits_of_zero_are_refused(setting: str) -> None:
    with pytest.raises(ValidationError):
        FetchConfig(**{setting: 0})
