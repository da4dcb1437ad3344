"""Parsing: what an entry holds, how markup and bytes are read, and what the pool of processes guarantees."""

import asyncio
import csv
import html
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hostile import GOOD, URL, XML, item, rss
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import TapewireError
from data.invisible import INVISIBLE
from data.news.document import SUSPECT, UnreadableError, read_document
from data.news.frames import LENGTH
from data.news.markup import clean_text, clean_url
from data.news.parse import CRASHED, Document, Entry, Limits, ParserPool
from data.news.parse_worker import parse_document

FEEDS = Path(__file__).parents[3] / "shared" / "feeds"
Children = Callable[[], set[int]]
PROC = pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="/proc is not there")
SLOW = rss(item(rest=f"<author>{'a' * 1_000_000}</author>")).encode()  # takes feedparser hours


def with_pool(use: Callable[[ParserPool], Awaitable[object]], limits: Limits | None = None, workers: int = 1) -> None:
    async def run() -> None:
        async with ParserPool(limits or Limits(), workers) as pool:
            await use(pool)

    asyncio.run(run())


def read(document: str) -> Document:
    answer = parse_document(document.encode(), None, URL)
    entries = tuple(Entry(*row) for row in answer["entries"])
    return Document(entries, answer["problem"], answer["problem"] in SUSPECT, answer["remark"])


# What an entry holds


def test_entry_of_an_rss_item() -> None:
    fields = (
        "<link>https://a.example/1</link><guid isPermaLink='false'> x-1 </guid>"
        "<description>&lt;p>Up &lt;b>9%&lt;/b>&lt;/p></description>"
        "<pubDate> Tue, 05 Nov 2024\n 16:05:00 EST </pubDate>"
    )
    found = read(rss(item("Acme &amp; Sons <![CDATA[beats]]>", fields)))
    stamp = "Tue, 05 Nov 2024 16:05:00 EST"
    assert found == Document((Entry("x-1", "Acme & Sons beats", "https://a.example/1", stamp, "Up 9%"),))


def test_entry_of_an_atom_entry() -> None:
    fields = "<title>Acme</title><id>urn:1</id><link href='1.html'/><updated>2024-11-05T16:05:00Z</updated>"
    found = read(f"{XML}<feed xmlns='http://www.w3.org/2005/Atom'><entry>{fields}</entry></feed>")
    assert found.entries == (Entry("urn:1", "Acme", "https://wire.example/news/1.html", "2024-11-05T16:05:00Z", None),)


def test_entry_of_an_rdf_item() -> None:
    spaces = 'xmlns="http://purl.org/rss/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"'
    rdf = f'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" {spaces}>'
    found = read(f"{rdf}<item><title>Acme</title><dc:date>2024-11-05</dc:date></item></rdf:RDF>")
    assert found.entries == (Entry(None, "Acme", None, "2024-11-05", None),)


def test_a_link_of_another_type_is_a_link() -> None:
    link = "<link rel='alternate' type='application/pdf' href='https://a.example/1.pdf'/>"
    found = read(f"<feed xmlns='http://www.w3.org/2005/Atom'><entry><title>Acme</title>{link}</entry></feed>")
    assert found.entries[0].url == "https://a.example/1.pdf"


def test_a_guid_stands_in_for_the_link_only_if_it_is_an_address() -> None:
    guids = "<guid>https://a.example/1</guid>", "<guid>/1</guid>", "<guid>17</guid>"
    assert [read(rss(item(rest=guid))).entries[0].url for guid in guids] == ["https://a.example/1", None, None]


def test_a_guid_does_not_depend_on_where_the_feed_was() -> None:
    document = rss(item(rest="<guid>17</guid>")).encode()
    rows = [parse_document(document, None, url)["entries"] for url in (URL, "https://other.example/?token=1")]
    assert [[row[0] for row in found] for found in rows] == [["17"], ["17"]]


def test_creation_is_no_publication() -> None:
    fields = "<title>Acme</title><created>2024-11-05T16:05:00Z</created>"
    found = read(f"<feed xmlns='http://www.w3.org/2005/Atom'><entry>{fields}</entry></feed>")
    assert found.entries[0].published_raw is None


def test_what_was_mended_is_remarked() -> None:
    found = read(rss(item(), item(""), item("<b>R&D")))
    assert found.remark == "references mended; not well-formed: mismatched tag; 1 entries without a title"
    assert found.problem is None


# Text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("", ""),
        ("  a \n b\t", "a b"),
        ("AT&T < 5 > 3 & B<C", "AT&T < 5 > 3 & B<C"),
        ("AT&amp;T &lt; 5", "AT&T < 5"),
        ("AT&amp;amp;T", "AT&T"),
        ("BTC&ETH, R&D, Q&A, S&P&copy", "BTC&ETH, R&D, Q&A, S&P&copy"),
        ("Moody&rsquo;s&nbsp;cuts&#8230;", "Moody’s cuts…"),
        ("&#146;s &#x2019;s", "’s ’s"),
        ("&amp;lt;script&amp;gt;x&amp;lt;/script&amp;gt;y", "y"),
        ("&lt;b&gt;a&lt;/b&gt;", "a"),
        ("<b>A</b>pple", "Apple"),
        ("<p>One</p><p>Two</p>", "One Two"),
        ("a<br/>b<img src='x'>c", "a b c"),
        ("a<!-- b -->c", "a c"),
        ("a<style>b</style><SCRIPT>c</SCRIPT >d", "a d"),
        ("<![CDATA[Acme <b>up</b>]]>", "Acme up"),
        ("a <3 b, <$5, 1<2>0", "a <3 b, <$5, 1<2>0"),
        ("a <a href='http://", "a"),
        ("&#x110000;&#xD800;&#0;a", "a"),
        ("a\u202eb\u200bc\ufeffd\ud800e", "abcde"),
        ("&unknown; &;", "&unknown; &;"),
    ],
)
def test_clean_text(markup: str, text: str) -> None:
    assert clean_text(markup, 1000) == text


def test_clean_text_cuts() -> None:
    assert clean_text("ab " * 10, 7) == "ab ab a"
    assert clean_text("ab " * 10, 6) == "ab ab"


MARKUP = st.lists(
    st.sampled_from(
        ("<", ">", "</", "&", "&amp;", "&lt;", "&#60;", "amp;", "lt;", "script", "b", " ", "=", "<!--", "-->", "\u200b")
    )
    | st.text(max_size=3)
).map("".join)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(MARKUP)
def test_clean_text_is_done_once(markup: str) -> None:
    text = clean_text(markup, 1000)
    assert clean_text(text, 1000) == text
    assert len(text) <= 1000
    assert not INVISIBLE.search(text)
    assert text == " ".join(text.split())


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(st.characters(exclude_categories=("Cs", "Cc", "Cf")), max_size=50), st.integers(0, 6))
def test_escapes_are_undone_however_deep(text: str, depth: int) -> None:
    plain = clean_text(text, 1000)
    escaped = plain
    for _ in range(depth):
        escaped = html.escape(escaped)
    assert clean_text(escaped, 10_000) == plain


# Addresses


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("https://a.example/b?c=1&d=2#e", "https://a.example/b?c=1&d=2#e"),
        ("HTTP://A.example", "http://A.example"),
        ("/b", "https://wire.example/b"),
        ("../b", "https://wire.example/b"),
        ("?b", "https://wire.example/news/feed.xml?b"),
        ("//a.example/b", "https://a.example/b"),
        (" https://a.example/\n  b ", "https://a.example/b"),
        ("https://a.example/b c\u3000d", "https://a.example/b%20c%E3%80%80d"),
        ("https://müller.example:8080/ü", "https://müller.example:8080/ü"),
        ("http://127.0.0.1/", "http://127.0.0.1/"),
        ("http://[::1]:80/", "http://[::1]:80/"),
        ("", None),
        ("javascript:alert(1)", None),
        ("\x01javascript:alert(1)", None),
        ("data:text/html,x", None),
        ("file:///etc/passwd", None),
        ("mailto:a@b.example", None),
        ("https://a@b.example/", None),
        ("https://a:b@c.example/", None),
        ("https://", None),
        ("https://?", None),
        ("https://a b.example/", None),
        ("https://a.example\\b", None),
        ("https://a.example:0/", None),
        ("https://a.example:x/", None),
        ("https://[x/", None),
        ("https://" + "a" * 3000, None),
    ],
)
def test_clean_url(address: str, url: str | None) -> None:
    assert clean_url(address, URL) == url


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(
        st.sampled_from(("http", "s", ":", "/", "//", "\\", "@", "[", "]", "a", ".", " ", "%", "?"))
        | st.text(max_size=2)
    ).map("".join)
)
def test_clean_url_gives_an_address_or_nothing(address: str) -> None:
    url = clean_url(address, URL)
    assert url is None or url.startswith(("http://", "https://"))
    assert url is None or (clean_url(url, URL) == url and len(url.split()) == 1)


# Bytes


@pytest.mark.parametrize("path", ["encoding/utf8-incorrect-prolog.xml", "encoding/invalid-prolog.xml"])
def test_a_wrong_declaration_does_not_garble_utf8(path: str) -> None:
    if not FEEDS.is_dir():
        pytest.skip("../shared/feeds, optional test data, is not there")
    for header in (None, "text/xml; charset=iso-8859-1", "text/xml; charset=koi8-r"):
        assert "Café" in read_document((FEEDS / path).read_bytes(), header).text


@pytest.mark.parametrize(
    "header", [None, "text/xml", "text/xml; charset=utf-8", "text/html; charset=iso-8859-1", "; charset=''", ";" * 99]
)
@pytest.mark.parametrize("encoding", ["koi8-r", "windows-1251", "iso-8859-5", "mac-cyrillic", "utf-8"])
def test_the_documents_own_declaration_wins(encoding: str, header: str | None) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?><rss>Новость</rss>'
    assert read_document(text.encode(encoding), header).text == "<rss>Новость</rss>"


@pytest.mark.parametrize(
    "name", ["gb2312", "gbk", "gb18030", "big5", "shift_jis", "euc-jp", "euc-kr", "windows-1252", "iso-8859-15"]
)
def test_encodings_that_are_read(name: str) -> None:
    text = {"w": "€uro", "i": "€uro", "e": "日本", "s": "日本", "b": "中國", "g": "中国"}[name[0]]
    if name == "euc-kr":
        text = "한국"
    document = f'<?xml version="1.0" encoding="{name}"?><rss>{text}</rss>'.encode(name)
    assert read_document(document, None).text == f"<rss>{text}</rss>"


@pytest.mark.parametrize(
    "name", ["utf-7", "hz", "iso-2022-jp", "cp037", "cp500", "punycode", "rot13", "zip", "idna", "unicode_escape"]
)
def test_encodings_that_are_refused(name: str) -> None:
    with pytest.raises(UnreadableError, match=f"encoding {name} is not read"):
        read_document(f'<?xml version="1.0" encoding="{name}"?><rss/>'.encode(), None)


# The processes


@PROC
def test_one_process_reads_many_documents(children: Children) -> None:
    ballast = b"x" * (200 << 20)  # what the parent takes is not the child's

    async def use(pool: ParserPool) -> None:
        seen = set()
        for _ in range(5):
            assert (await pool.parse(GOOD, None, URL)).entries
            seen |= children()
        assert len(seen) == 1

    with_pool(use)
    del ballast


def all_children() -> set[int]:
    """The processes that this one has started, by whichever thread."""
    lists = Path("/proc/self/task").glob("*/children")
    return {int(pid) for path in lists for pid in path.read_text().split()}


@pytest.fixture
def children() -> Children:
    """The processes that were started since; what earlier tests have left, such as Ray's zombies, is not the pool's."""
    before = all_children()
    return lambda: all_children() - before


def test_each_of_many_tasks_gets_its_own_answer() -> None:
    async def use(pool: ParserPool) -> None:
        documents = [rss(*[item(f"Item {n}")] * (n % 7 + 1)).encode() for n in range(60)]
        answers = await asyncio.gather(*(pool.parse(document, None, URL) for document in documents))
        for n, answer in enumerate(answers):
            assert [entry.title for entry in answer.entries] == [f"Item {n}"] * (n % 7 + 1)

    with_pool(use, workers=3)


def test_a_document_that_hangs_does_not_hold_up_the_others() -> None:
    async def use(pool: ParserPool) -> None:
        slow = asyncio.create_task(pool.parse(SLOW, None, URL))
        for _ in range(3):
            assert (await pool.parse(GOOD, None, URL)).entries
        assert not slow.done()
        assert (await slow).problem == "took more than 2 s CPU"

    with_pool(use, Limits(cpu_seconds=2), workers=2)


def test_a_cancelled_parse_leaves_no_answer_behind() -> None:
    async def use(pool: ParserPool) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.parse(SLOW, None, URL), 1)
        assert [entry.title for entry in (await pool.parse(GOOD, None, URL)).entries] == ["Sound"]

    with_pool(use)


@PROC
def test_a_killed_process_is_replaced(children: Children) -> None:
    async def use(pool: ParserPool) -> None:
        await pool.parse(GOOD, None, URL)
        slow = asyncio.create_task(pool.parse(SLOW, None, URL))
        await asyncio.sleep(0.2)
        (before,) = children()
        os.kill(before, signal.SIGKILL)
        assert (await slow).problem == CRASHED
        assert (await pool.parse(GOOD, None, URL)).entries
        assert children() != {before}

    with_pool(use)


@PROC
def test_no_process_survives_its_pool(children: Children) -> None:
    async def use(pool: ParserPool) -> None:
        await pool.parse(GOOD, None, URL)
        started.update(children())

    started: set[int] = set()
    with_pool(use)
    assert len(started) == 1
    assert not started & children()


@PROC
def test_a_process_sees_and_may_do_little(
    children: Children, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")

    async def use(pool: ParserPool) -> None:
        await pool.parse(GOOD, None, URL)
        (pid,) = children()
        folder = Path(f"/proc/{pid}")
        assert (folder / "environ").read_bytes() == b""
        assert (folder / "cwd").readlink() == Path("/")
        assert len(list((folder / "fd").iterdir())) <= 5
        limits = {line[:26].strip(): line[26:].split()[:2] for line in (folder / "limits").read_text().splitlines()}
        wanted = {"address space": 512 << 20, "core file size": 0, "file size": 0, "open files": 16, "processes": 0}
        assert {name: limits[f"Max {name}"] for name in wanted} == {name: [str(n)] * 2 for name, n in wanted.items()}

    with_pool(use)
    assert capfd.readouterr() == ("", "")


def test_a_process_imports_little() -> None:
    root = str(Path(__file__).parents[2])
    code = "import sys; sys.path.insert(0, sys.argv[1]); import data.news.parse_worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code, root], capture_output=True, check=True)
    heavy = {"numpy", "pandas", "pyarrow", "torch", "asyncio", "pydantic", "pickle"}
    assert not heavy & set(done.stdout.decode().split())


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"nonsense",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        b'{"entries": [], "problem": [], "remark": null, "last": false}',
        b'{"entries": [[1, 2, 3, 4, 5]], "problem": null, "remark": null, "last": false}',
        b'{"entries": [["a", "b"]], "problem": null, "remark": null, "last": false}',
    ],
)
def test_a_process_that_lies_is_replaced(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = LENGTH.pack(0) + LENGTH.pack(len(said)) + said
    liar = f"import sys; sys.stdout.buffer.write({answer!r}); sys.stdout.flush(); sys.stdin.read()"
    monkeypatch.setattr("data.news.parse._START", liar)

    async def use(pool: ParserPool) -> None:
        assert await pool.parse(GOOD, None, URL) == Document((), CRASHED)
        monkeypatch.undo()
        assert (await pool.parse(GOOD, None, URL)).entries

    with_pool(use)


def test_a_process_that_cannot_start_is_the_users_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))

    async def use(pool: ParserPool) -> None:
        with pytest.raises(TapewireError, match="to start its process, and it did not"):
            await pool.parse(GOOD, None, URL)

    with_pool(use)


# Real feeds

# Where it is not as many entries as plain feedparser finds, and none of a problem.
FOUND: dict[str, tuple[int, str | None, str]] = {
    "encoding/feed-utf16be.xml": (1, None, "UTF-16 without a byte order mark, which plain feedparser does not see"),
    "encoding/feed-utf16le.xml": (1, None, "the same, little-endian"),
    "encoding/feed-with-whitespace-before-xml-declaration.xml": (0, "no entries", "a feed without any"),
    "encoding/iso88591_utf8_mismatch.xml": (0, "neither RSS nor Atom", "a note"),
    "encoding/no_encoding_ISO-8859-1.xml": (9, None, "one item has no title"),
    "encoding/windows-1252-incorrect-prolog.xml": (0, "no entries", "a feed without any"),
    "finance/sec_edgar_company_aapl_10q_legacy.xml": (0, "HTML page", "EDGAR's old listing"),
    "malformed/compressed.xml": (0, "compressed document", "gzip under the name of XML"),
    "malformed/illegally-nested.xml": (10, None, "the items within items have no title of their own"),
    "malformed/invalid-characters-gzipped.xml": (0, "compressed document", "gzip under the name of XML"),
    "malformed/missing_fields.atom": (0, "no entry has a title", "its one entry has only an id"),
    "malformed/rss_2.0_invalid_1.xml": (0, "no entries", "cut before its first item"),
    "malformed/unrecognized.rss": (0, "HTML page", "a page that says where the feed has moved"),
}


def test_real_documents_end_in_entries_or_a_named_problem() -> None:
    if not FEEDS.is_dir():
        pytest.skip("../shared/feeds, optional test data, is not there")
    with (FEEDS / "index.csv").open(encoding="utf-8", newline="") as file:
        index = {row["file"]: int(row["fp_entries"]) for row in csv.DictReader(file)}
    found: dict[str, tuple[int, str | None]] = {}

    async def use(pool: ParserPool) -> None:
        for name in index:
            document = await pool.parse((FEEDS / name).read_bytes(), None, URL)
            found[name] = len(document.entries), document.problem
            assert document.suspect == (document.problem in SUSPECT)

    with_pool(use)
    assert found == {name: (entries, None) for name, entries in index.items()} | {
        n: row[:2] for n, row in FOUND.items()
    }
