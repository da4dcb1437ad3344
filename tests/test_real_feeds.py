"""Real feed documents (../shared/feeds, optional test data) through the whole of ingest, served well and badly.

Whatever a server makes of a document, its feed ends with stored items or a named reason, and what the
other feeds stored stays as it is.
"""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from feed_server import FeedServer, bomb, chunked, gzipped, plain, redirect, slow, status, wrong_length
from test_fetch import serving
from wires import NOON, SECOND, feed, headlines, ingest, item, rss, workspace

FEEDS = Path(__file__).parents[2] / "shared" / "feeds"
pytestmark = pytest.mark.skipif(not FEEDS.is_dir(), reason="../shared/feeds, optional test data, is not there")
FILES = sorted(path for path in FEEDS.glob("*/*") if path.is_file())  # index.csv lies beside the folders

# What cannot be read as a feed with items; every other file is fed. A compressed file's server must say that it is.
NOT_FED = {
    "encoding/feed-with-whitespace-before-xml-declaration.xml": "suspect no entries",
    "encoding/iso88591_utf8_mismatch.xml": "suspect neither RSS nor Atom",
    "encoding/windows-1252-incorrect-prolog.xml": "suspect no entries",
    "finance/sec_edgar_company_aapl_10q_legacy.xml": "suspect HTML page",
    "malformed/compressed.xml": "failed compressed document",
    "malformed/invalid-characters-gzipped.xml": "failed compressed document",
    "malformed/missing_fields.atom": "suspect no entry has a title",
    "malformed/rss_2.0_invalid_1.xml": "suspect no entries",
    "malformed/unrecognized.rss": "suspect HTML page",
}
EXPIRED = {"not_before": datetime(2019, 1, 1, tzinfo=UTC), "not_after": datetime(2020, 1, 1, tzinfo=UTC)}


@pytest.fixture
def server():
    with FeedServer() as started:
        yield started


def name_of(path: Path) -> str:
    """A feed's name for a file: lower case, as names of feeds are."""
    return f"{path.parent.name}.{path.name}".lower().replace("_", "-")


def test_every_real_document_ends_in_items_or_a_named_reason(server, tmp_path):
    feeds = [feed(name_of(path), server.add(f"/{n}", path.read_bytes())) for n, path in enumerate(FILES)]
    folder = workspace(tmp_path / "w", *feeds)
    result = ingest(folder)
    ended = {name_of(path): NOT_FED.get(f"{path.parent.name}/{path.name}", "fed") for path in FILES}
    found = {
        read.feed.label: "fed" if read.outcome == "fed" else f"{read.outcome} {read.reason}" for read in result.feeds
    }
    assert len(FILES) == 57
    assert found == ended
    assert {row["source"] for row in headlines(folder)} == {name for name, outcome in ended.items() if outcome == "fed"}
    assert all(row["published_at"] is None or row["published_at"] <= row["first_seen_at"] for row in headlines(folder))
    again = ingest(folder, NOON + 60 * SECOND)
    assert (again.stored.headlines, again.stored.links) == (0, 0)


@pytest.mark.parametrize(
    ("behaviour", "headers"),
    [
        (plain, {"Content-Type": "text/xml; charset=iso-8859-1"}),
        (plain, {"Content-Type": "application/rss+xml; charset=utf-16"}),
        (plain, {"Content-Type": "image/png; charset=no-such"}),
        (wrong_length(-7), {}),
        (wrong_length(7), {}),
        (gzipped, {}),
        (gzipped, {"Content-Encoding": "br"}),
        (chunked, {"Content-Length": "3"}),
    ],
    ids=["latin-1", "utf-16", "image", "too short", "too long", "gzip", "not brotli", "both lengths"],
)
def test_bad_servers_of_real_documents_disturb_nobody(server, tmp_path, behaviour, headers):
    good = feed("good", server.add("/good", rss(item(1), item(2))))
    bad = [
        feed(name_of(path), server.add(f"/{n}", path.read_bytes(), headers, behaviour)) for n, path in enumerate(FILES)
    ]
    alone = workspace(tmp_path / "alone", good)
    ingest(alone)
    folder = workspace(tmp_path / "among", *bad, good)
    result = ingest(folder)
    assert result.exit_code in (0, 3)
    assert all(read.outcome == "fed" or read.reason for read in result.feeds)
    assert [row for row in headlines(folder) if row["source"] == "good"] == headlines(alone)


def test_hostile_servers_end_in_named_statuses(server, tmp_path, monkeypatch):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with serving(authority, "127.0.0.1", **EXPIRED) as expired:
        urls = {
            "good": server.add("/good", rss(item(1))),
            "bomb": server.add("/bomb", behaviour=bomb),
            "loris": server.add("/loris", behaviour=slow),
            "loop": server.add("/loop", behaviour=redirect("/loop")),
            "file": server.add("/file", behaviour=redirect("file:///etc/passwd")),
            "limited": server.add("/limited", behaviour=status(429, retry_after="120")),
            "expired": expired.add("/tls", rss(item(1))),
        }
        feeds = [feed(name, url) for name, url in urls.items()]
        feeds.append(feed("private", urls["good"]).replace("allow_private = true", "allow_private = false"))
        folder = workspace(tmp_path / "w", *feeds)
        toml = folder / "tapewire.toml"
        toml.write_text(toml.read_text().replace("[news.fetch]", "[news.fetch]\ndeadline = 3"))
        result = ingest(folder)
    reasons = {read.feed.label: f"{read.outcome} {read.reason}".partition(":")[0] for read in result.feeds}
    assert reasons == {
        "good": "fed ",
        "bomb": "failed too large",
        "loris": "failed deadline",
        "loop": "failed redirect",
        "file": "failed address",
        "limited": "limited status",
        "expired": "failed certificate",
        "private": "failed address",
    }
    assert [row["source"] for row in headlines(folder)] == ["good"]
