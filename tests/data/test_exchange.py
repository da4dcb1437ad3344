"""What servers do to a fetch, and what comes of it; all of them on 127.0.0.1."""

import gzip
import tracemalloc
import zlib
from collections.abc import Iterator

import feed_server
import numpy as np
import pytest
from feed_server import MIB, FeedServer, flood, head, in_turn, raw, redirect, status, wrong_length
from fetching import FEED, HASTY, PATIENT, SHORT, fetch, get, kind

from data.news.fetch import Request


@pytest.fixture(scope="module")
def server() -> Iterator[FeedServer]:
    with FeedServer() as server:
        yield server


OK = b"HTTP/1.1 200 OK"
CHUNKED = head(200, {"Transfer-Encoding": "chunked"})
ZIPPED = head(200, {"Content-Encoding": "gzip"})
DEFLATED = zlib.compress(FEED)
GZIPPED = gzip.compress(FEED)


def encoded(body: bytes, *codings: str) -> feed_server.Behaviour:
    fields = [f"Content-Encoding: {coding}\r\n" for coding in codings]
    return raw(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{''.join(fields)}\r\n".encode() + body)


def answer(*lines: bytes, body: bytes = b"") -> feed_server.Behaviour:
    return raw(b"\r\n".join([*lines, b"", body]))


FETCHED = {
    "plain": feed_server.plain,
    "document": feed_server.document,
    "gzip": feed_server.gzipped,
    "chunked": feed_server.chunked,
    "until close": feed_server.until_close,
    "x-gzip": encoded(GZIPPED, "x-gzip"),
    "deflate with a zlib header": encoded(DEFLATED, "deflate"),
    "several gzip members": encoded(gzip.compress(FEED[:100]) + gzip.compress(FEED[100:]), "gzip"),
    "gzip with padding": encoded(GZIPPED + bytes(512), "gzip"),
    "identity": encoded(FEED, "identity"),
    "500 once": in_turn(status(500), feed_server.plain),
    "closed once": in_turn(feed_server.hang_up, feed_server.plain),
    "cut off once": in_turn(wrong_length(9), feed_server.plain),
    "503 once": in_turn(status(503, retry_after="soon"), feed_server.plain),
    "some interim answers": raw(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5 + head(200, {}) + FEED),
    "LF alone": raw(head(200, {}).replace(b"\r\n", b"\n") + FEED),
    "HTTP/1.0": raw(b"HTTP/1.0 200 OK\r\n\r\n" + FEED),
    "203": raw(head(203, {}) + FEED),
    "obsolete bytes in a header": raw(b"HTTP/1.1 200 OK\r\nX: \xff\xfe\r\n\r\n" + FEED),
    "a declared type that is none": raw(b"HTTP/1.1 200 OK\r\nContent-Type: ; charset=no-such\r\n\r\n" + FEED),
}
OTHERWISE = {
    "404": (status(404), "failed status"),
    "403": (status(403), "failed status"),
    "410": (status(410), "gone status"),
    "429": (status(429), "limited status"),
    "503 with Retry-After": (status(503, retry_after="60"), "limited status"),
    "503": (status(503), "failed status"),
    "500": (status(500), "failed status"),
    "304 unasked": (status(304), "failed status"),
    "206 unasked": (status(206), "failed status"),
    "204": (raw(b"HTTP/1.1 204 Nothing\r\n\r\n"), "failed status"),
    "300": (status(300), "failed status"),
    "status 999": (status(999), "failed status"),
    "closes at once": (feed_server.hang_up, "failed protocol"),
    "HTTP/0.9": (raw(FEED), "failed protocol"),
    "no HTTP": (raw(b"SSH-2.0-OpenSSH_9.6\r\n"), "failed protocol"),
    "status 20": (raw(b"HTTP/1.1 20 OK\r\n\r\n"), "failed protocol"),
    "HTTP/2 preface": (raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "failed protocol"),
    "NUL in a header": (answer(OK, b"X: a\0b"), "failed protocol"),
    "bare CR in a header": (answer(OK, b"X: a\rb"), "failed protocol"),
    "a header without a colon": (answer(OK, b"Nonsense"), "failed protocol"),
    "two lengths": (answer(OK, b"Content-Length: 3", b"Content-Length: 4", body=b"abcd"), "failed protocol"),
    "length -1": (answer(OK, b"Content-Length: -1"), "failed protocol"),
    "length 1e30": (answer(OK, b"Content-Length: " + b"9" * 30), "failed protocol"),
    "switches protocols": (answer(b"HTTP/1.1 101 Up", b"Upgrade: x", body=b"ab"), "failed protocol"),
    "closes within the headers": (raw(b"HTTP/1.1 200 OK\r\nContent-"), "failed protocol"),
    "length too long": (wrong_length(7), "failed incomplete body"),
    "length too short": (wrong_length(-7), "failed wrong length"),
    "a chunk cut off": (raw(CHUNKED + b"ff\r\nabc"), "failed incomplete body"),
    "a chunk of length zz": (raw(CHUNKED + b"zz\r\nabc"), "failed incomplete body"),
    "gzip cut off": (encoded(GZIPPED[:-9], "gzip"), "failed incomplete body"),
    "gzip of nothing": (encoded(b"", "gzip"), "failed incomplete body"),
    "gzip that is none": (encoded(FEED, "gzip"), "failed encoding"),
    "gzip with a wrong sum": (encoded(GZIPPED[:-8] + b"\0" * 8, "gzip"), "failed encoding"),
    "brotli": (encoded(FEED, "br"), "failed encoding"),
    "gzip twice": (encoded(gzip.compress(GZIPPED), "gzip", "gzip"), "failed encoding"),
    "gzip and deflate": (encoded(gzip.compress(DEFLATED), "deflate, gzip"), "failed encoding"),
    "declared too large": (raw(head(200, {"Content-Length": "99999999"})), "failed too large"),
    "endless": (flood(head(200, {}), FEED * 100), "failed too large"),
    "endless chunks": (flood(CHUNKED, b"2000\r\n" + b"x" * 8192 + b"\r\n"), "failed too large"),
    "endless gzip of nothing": (flood(ZIPPED, gzip.compress(b"") * 1000), "failed too large"),
    "endless interim answers": (flood(b"", b"HTTP/1.1 103 Hint\r\n\r\n" * 500), "failed too large"),
    "endless headers": (flood(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 500), "failed too large"),
    "an endless header": (flood(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 4096), "failed too large"),
    "an endless status line": (flood(b"HTTP/1.1 200 ", b"y" * 4096), "failed too large"),
    "redirect nowhere": (status(302), "failed redirect"),
    "redirect to file": (redirect("file:///etc/passwd"), "failed address"),
    "redirect to script": (redirect("javascript:alert(1)"), "failed address"),
    "redirect to ftp": (redirect("ftp://example.com/a"), "failed address"),
    "redirect with a password": (redirect("http://me:secret@127.0.0.1/"), "failed address"),
    "redirect to no host": (redirect("http://%00/"), "failed address"),
    "redirect to port 0": (redirect("http://127.0.0.1:0/"), "failed address"),
    "redirect to port 99999": (redirect("http://127.0.0.1:99999/"), "failed address"),
    "redirect to a bad address": (redirect("http://[::1/"), "failed redirect"),
    "redirect to a broken name": (redirect("http://xn--zzzzzz-.invalid./" + "a" * 9000), "failed name"),
    "redirect to a closed port": (redirect("http://127.0.0.1:1/"), "failed no connection"),
}  # fmt: skip


@pytest.mark.parametrize("name", FETCHED)
def test_whole_documents_are_fetched(server: FeedServer, name: str) -> None:
    response = get(server.add(f"/{name.replace(' ', '-')}", FEED, behaviour=FETCHED[name]))
    assert (response.outcome, response.reason, response.body) == ("fetched", "", FEED)


@pytest.mark.parametrize("name", OTHERWISE)
def test_whatever_else_a_server_does_has_a_name(server: FeedServer, name: str) -> None:
    behaviour, expected = OTHERWISE[name]
    url = server.add(f"/{name.replace(' ', '-')}", FEED, behaviour=behaviour)
    response = get(url, PATIENT.model_copy(update={"max_bytes": 300_000}))
    assert kind(response) == expected
    assert response.body == b""
    assert response.reason.isprintable()
    assert response.reason.isascii()
    assert len(response.reason) < 400


@pytest.mark.parametrize("behaviour", [feed_server.slow, feed_server.slow_head, flood(CHUNKED, b"1\r\nx\r\n")])
def test_a_slow_server_ends_at_the_deadline(server: FeedServer, behaviour: feed_server.Behaviour) -> None:
    assert kind(get(server.add("/slow", behaviour=behaviour), SHORT)) == "failed deadline"


def test_a_silent_server_ends_at_the_timeout_or_the_deadline(server: FeedServer) -> None:
    url = server.add("/silent", behaviour=feed_server.silent)
    assert kind(get(url, HASTY)) == "failed timeout"
    late = get(url, SHORT.model_copy(update={"timeout": 0.1, "attempts": 99}))
    assert late.reason == "deadline: no whole answer in 0.4 s; before that, timeout: the server went silent"


def test_random_answers_never_raise(server: FeedServer) -> None:
    dice = np.random.default_rng(0)
    whole = head(200, {"Content-Type": "a/b", "Content-Length": "2160", "ETag": '"x"', "Location": "/y"}) + FEED
    zipped = ZIPPED[:-2] + CHUNKED.partition(b"\r\n")[2] + b"%x\r\n" % len(GZIPPED) + GZIPPED + b"\r\n0\r\n\r\n"
    answers = [whole, zipped, whole.replace(b"200", b"302"), whole.replace(b"200", b"429")]
    urls = []
    for number in range(150):
        bad = bytearray(answers[number % 4])
        for at in dice.integers(min(len(bad), 200), size=dice.integers(0, 6)):
            bad[at] = dice.integers(256)
        del bad[dice.choice([len(bad), dice.integers(len(bad))]) :]
        urls.append(server.add(f"/random{number}", behaviour=raw(bytes(bad))))
    responses = fetch(*(Request(url, allow_private=True) for url in urls), config=HASTY)
    assert {response.outcome for response in responses} <= {"fetched", "gone", "limited", "failed"}
    assert all((response.outcome == "fetched") == (response.reason == "") for response in responses)


def test_a_bomb_costs_no_more_than_a_few_times_the_limit(server: FeedServer) -> None:
    url = server.add("/bomb", behaviour=feed_server.bomb)
    get(server.add("/warm", FEED))
    tracemalloc.start()
    try:
        response = get(url)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert kind(response) == "failed too large"
    assert peak < 40 * MIB


@pytest.mark.parametrize("behaviour", [feed_server.plain, feed_server.gzipped, feed_server.chunked])
def test_the_limit_is_exact_and_after_decompression(server: FeedServer, behaviour: feed_server.Behaviour) -> None:
    url = server.add("/limit", FEED, behaviour=behaviour)
    assert get(url, PATIENT.model_copy(update={"max_bytes": len(FEED)})).body == FEED
    assert kind(get(url, PATIENT.model_copy(update={"max_bytes": len(FEED) - 1}))) == "failed too large"
