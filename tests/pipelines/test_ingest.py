"""`tapewire ingest --news` end to end: a local web server, real parsing, a real lake."""

from pathlib import Path

import numpy as np
import pytest
from feed_server import FeedServer, hang_up, in_turn, plain, slow, status
from killing import kill_after, row_hashes, run_to_its_end
from wires import NOON, SECOND, feed, headlines, ingest, ingest_at_noon, item, outcomes, rss, workspace

from data.lake import Lake
from pipelines.workspace import open_workspace


@pytest.fixture
def server():
    with FeedServer() as started:
        yield started


def test_items_are_stored_as_first_seen_with_what_their_stamps_say(server, tmp_path):
    dated = server.add("/a", rss(item(1), item(2, pubDate="2024-11-05 16:05"), item(3, pubDate="soon")))
    zoned = server.add("/b", rss(item(4, pubDate="2024-11-05 16:05"), item(5, pubDate="Fri, 06 Nov 2026 10:00:00 GMT")))
    zone = {"default_tz": '"America/New_York"'}
    folder = workspace(tmp_path / "w", feed("dated", dated), feed("zoned", zoned, **zone))
    result = ingest(folder)
    assert (result.exit_code, result.stored.headlines) == (0, 5)
    rows = {row["url"][-1]: row for row in headlines(folder)}
    published = {name: row["published_at"] and row["published_at"].isoformat() for name, row in rows.items()}
    closing = "2024-11-05T21:05:00+00:00"
    assert published == {"1": closing, "2": None, "3": None, "4": closing, "5": None}
    assert {row["available_at"].isoformat() for row in rows.values()} == {f"{NOON.astype('datetime64[s]')}+00:00"}
    assert rows["3"]["published_raw"] == "soon"
    assert {row["origin"] for row in rows.values()} == {"live"}


def test_the_same_feeds_twice_add_nothing(server, tmp_path):
    url = server.add("/a", rss(item(1), item(2)), behaviour=plain)  # no validators: read in full both times
    folder = workspace(tmp_path / "w", feed("wire", url))
    assert ingest(folder).stored.headlines == 2
    before = row_hashes(Lake(folder / "lake"))
    again = ingest(folder, NOON + 60 * SECOND)
    assert (outcomes(again), again.stored.headlines) == ({"wire": "fed"}, 0)
    assert row_hashes(Lake(folder / "lake")) == before


def test_an_unchanged_feed_counts_as_fed(server, tmp_path):
    folder = workspace(tmp_path / "w", feed("wire", server.add("/a", rss(item(1)))))
    ingest(folder)
    again = ingest(folder, NOON + 60 * SECOND)
    assert (outcomes(again), again.exit_code) == ({"wire": "unchanged"}, 0)


def test_an_edited_title_is_a_version_of_its_own_moment(server, tmp_path):
    url = server.add("/a", rss(item(1, "Acme to buy Apex")))
    folder = workspace(tmp_path / "w", feed("wire", url))
    ingest(folder)
    server.add("/a", rss(item(1, "Acme not to buy Apex")))
    ingest(folder, NOON + 60 * SECOND)
    first, second = headlines(folder)
    assert (first["title"], first["version"]) == ("Acme to buy Apex", 1)
    assert (second["title"], second["version"], second["id"]) == ("Acme not to buy Apex", 2, first["id"])
    assert (second["available_at"] - first["available_at"]).total_seconds() == 60


def test_reused_ids_and_edgars_pairs_stay_apart(server, tmp_path):
    reused = rss(item(1), {**item(1, "Another matter"), "link": "https://wire.example/other"})
    entry = (
        "<entry><title>4 - {name} ({role})</title><id>urn:tag:sec.gov,2008:accession-number=1</id>"
        '<link href="https://www.sec.gov/data/{number}/1.htm"/><updated>2024-11-05T16:05:00-05:00</updated></entry>'
    )
    parties = ("A Co", "Issuer", 1), ("B", "Reporting", 2)
    pair = [entry.format(name=name, role=role, number=number) for name, role, number in parties]
    atom = f'<feed xmlns="http://www.w3.org/2005/Atom">{"".join(pair)}</feed>'.encode()
    feeds = feed("reused", server.add("/a", reused)), feed("edgar", server.add("/b", atom))
    folder = workspace(tmp_path / "w", *feeds)
    assert ingest(folder).stored.headlines == 4
    assert ingest(folder, NOON + 60 * SECOND).stored.headlines == 0
    assert len({row["id"] for row in headlines(folder)}) == 4


def test_a_template_is_read_for_each_ticker_and_a_shared_item_is_one_headline(server, tmp_path):
    server.add("/t?s=AA", rss(item(1), item(2)))
    server.add("/t?s=BB", rss(item(1)))
    template = feed("per-ticker", server.url("/t?s={ticker}"))
    folder = workspace(tmp_path / "w", template, top='watchlist = ["AA", "BB"]')
    result = ingest(folder)
    assert outcomes(result) == {"per-ticker AA": "fed", "per-ticker BB": "fed"}
    links = open_workspace(folder).lake.read("links").to_pylist()
    assert (result.stored.headlines, result.stored.links) == (2, 3)
    assert {link["rule"] for link in links} == {"feed"}


def test_titles_lose_what_their_feed_puts_around_them(server, tmp_path):
    url = server.add("/a", rss(item(1, ": Acme buys Apex - at last - The Daily")))
    quirks = {"strip_prefixes": '[": "]', "strip_after": '" - "'}
    folder = workspace(tmp_path / "w", feed("wire", url, **quirks))
    ingest(folder)
    assert headlines(folder)[0]["title"] == "Acme buys Apex - at last"


def test_a_title_that_names_a_ticker_is_linked(server, tmp_path):
    url = server.add("/a", rss(item(1, "Acme Corp (NASDAQ: ACME) beats estimates"), item(2)))
    folder = workspace(tmp_path / "w", feed("wire", url))
    ingest(folder)
    (link,) = open_workspace(folder).lake.read("links").to_pylist()
    assert (link["ticker"], link["rule"], link["hindsight"]) == ("ACME", "tag", False)


def test_one_bad_feed_spoils_no_other_and_each_is_named(server, tmp_path):
    feeds = {
        "good": server.add("/good", rss(item(1))),
        "missing": server.add("/missing", behaviour=status(404)),
        "gone": server.add("/gone", behaviour=status(410)),
        "limited": server.add("/limited", behaviour=status(429, retry_after="3600")),
        "page": server.add("/page", b"<!DOCTYPE html><html><body>Log in</body></html>"),
        "empty": server.add("/empty", b""),
        "none": server.add("/none", rss()),
        "silent": server.add("/silent", behaviour=hang_up),
        "entity": server.add("/entity", b'<!DOCTYPE x [<!ENTITY a "b">]><rss><item><title>&a;</title></item></rss>'),
    }
    folder = workspace(tmp_path / "w", *(feed(name, url) for name, url in feeds.items()))
    result = ingest(folder)
    assert outcomes(result) == {
        "good": "fed",
        "missing": "failed",
        "gone": "gone",
        "limited": "limited",
        "page": "suspect",
        "empty": "suspect",
        "none": "suspect",
        "silent": "failed",
        "entity": "failed",
    }
    assert all(read.reason for read in result.feeds if read.outcome != "fed")
    assert (result.exit_code, result.stored.headlines) == (3, 1)


def test_a_server_that_asks_for_peace_is_left_alone_until_then(server, tmp_path):
    url = server.add("/a", rss(item(1)), behaviour=in_turn(status(429, retry_after="3600"), plain))
    folder = workspace(tmp_path / "w", feed("wire", url))
    assert outcomes(ingest(folder)) == {"wire": "limited"}
    retry_at = open_workspace(folder).lake.read("feeds").to_pylist()[0]["retry_at"].replace(tzinfo=None)
    due = np.datetime64(retry_at, "us")
    assert due == NOON + 3600 * SECOND  # by the run's own clock
    early = ingest(folder, due - SECOND)
    assert (outcomes(early), len(server.visits("/a"))) == ({"wire": "limited"}, 1)
    assert (outcomes(ingest(folder, due)), len(server.visits("/a"))) == ({"wire": "fed"}, 2)


def test_a_feed_that_is_gone_is_not_asked_again(server, tmp_path):
    folder = workspace(tmp_path / "w", feed("wire", server.add("/a", behaviour=status(410))))
    assert [ingest(folder).exit_code, ingest(folder).exit_code] == [4, 4]
    assert len(server.visits("/a")) == 1


def test_a_suspect_document_does_not_hide_behind_its_etag(server, tmp_path):
    folder = workspace(tmp_path / "w", feed("wire", server.add("/a", rss())))
    assert [outcomes(ingest(folder))["wire"] for _ in range(2)] == ["suspect", "suspect"]
    server.add("/a", rss(item(1)))
    assert outcomes(ingest(folder)) == {"wire": "fed"}


def test_a_slow_feed_ends_at_its_own_deadline(server, tmp_path):
    feeds = feed("slow", server.add("/slow", behaviour=slow)), feed("good", server.add("/good", rss(item(1))))
    folder = workspace(tmp_path / "w", *feeds)
    toml = folder / "tapewire.toml"
    toml.write_text(toml.read_text().replace("[news.fetch]", "[news.fetch]\ndeadline = 0.5"))
    assert outcomes(ingest(folder)) == {"slow": "failed", "good": "fed"}


def test_the_command_prints_a_line_a_feed_and_says_what_went_wrong(server, tmp_path, tapewire):
    good, bad = server.add("/good", rss(item(1))), server.url("/nothing")
    folder = workspace(tmp_path / "w", feed("good", good), feed("bad", bad))
    told = tapewire(folder, "ingest", "--news")
    assert told.code == 3
    assert [line.split()[:2] for line in told.out.splitlines()[1:3]] == [["good", "fed"], ["bad", "failed"]]
    given = tapewire(folder, "ingest", "--news", "--json")
    assert given.json["added"] == 0
    assert {each["name"]: each["outcome"] for each in given.json["feeds"]} == {"good": "unchanged", "bad": "failed"}


def test_nothing_to_read_is_a_mistake_of_the_users(tmp_path, tapewire):
    folder = workspace(tmp_path / "w")
    assert tapewire(folder, "ingest", "--news").code == 2
    assert tapewire(folder, "ingest").code == 2
    twice = workspace(tmp_path / "x", feed("a", "http://a.example/"), feed("a", "http://b.example/"))
    assert tapewire(twice, "ingest", "--news").code == 2
    template = workspace(tmp_path / "y", feed("a", "http://a.example/{ticker}"))
    assert "watchlist" in tapewire(template, "ingest", "--news").err


def test_two_runs_at_once_are_one_too_many(server, tmp_path, tapewire):
    folder = workspace(tmp_path / "w", feed("wire", server.add("/a", rss(item(1)))))
    with open_workspace(folder).lock("ingest"):
        assert tapewire(folder, "ingest", "--news").code == 75


def test_health_of_feeds_is_told_and_nothing_is_stored(server, tmp_path, tapewire):
    titles = ("Acme (NYSE: ACM) rises", "Weather is fine")
    url = server.add("/a", rss(item(1, titles[0]), item(2, titles[1], pubDate="who knows")))
    folder = workspace(tmp_path / "w", feed("wire", url))
    (health,) = tapewire(folder, "feeds", "check", "--json").json["feeds"]
    assert (health["outcome"], health["entries"], health["dated_share"], health["linked_share"]) == ("fed", 2, 0.5, 0.5)
    assert health["newest_hours"] > 0
    assert not (folder / "lake").exists()


def _two_feeds(server: FeedServer, folder: Path) -> Path:
    first = server.add("/a", rss(*(item(n) for n in range(40))))
    second = server.add("/b", rss(*(item(n, f"Acme (NYSE: ACM) unveils model {n}") for n in range(40, 60))))
    return workspace(folder, feed("first", first), feed("second", second, tickers='["AA"]'))


def _killed_runs_end_as_undisturbed_ones(server: FeedServer, folder: Path, kills: int) -> None:
    whole = _two_feeds(server, folder / "whole")
    run_to_its_end(ingest_at_noon, whole)
    expected = row_hashes(Lake(whole / "lake"))
    seconds = run_to_its_end(ingest_at_noon, _two_feeds(server, folder / "timed"))
    moments = np.random.default_rng(0).uniform(0, seconds, kills)
    at_work = 0
    for number, moment in enumerate(moments):
        killed = _two_feeds(server, folder / str(number))
        at_work += kill_after(moment, ingest_at_noon, killed)
        run_to_its_end(ingest_at_noon, killed)
        assert row_hashes(Lake(killed / "lake")) == expected
    assert at_work >= kills // 2


def test_a_killed_ingest_is_completed_by_the_next(server, tmp_path):
    _killed_runs_end_as_undisturbed_ones(server, tmp_path, 4)


@pytest.mark.slow
def test_ingest_killed_at_a_hundred_moments(server, tmp_path):
    _killed_runs_end_as_undisturbed_ones(server, tmp_path, 100)
