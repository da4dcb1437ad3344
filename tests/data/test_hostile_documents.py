"""Hostile documents: each ends with its stated outcome, within the limits, and leaves the next one alone.

Nothing is fetched, opened or written for any of them: their addresses are of a closed port, and the worker
may not create a file.
"""

import asyncio
import random
import time
from collections.abc import Iterator

import hostile
import pytest

from data.invisible import INVISIBLE
from data.news.document import SUSPECT
from data.news.parse import CRASHED, Document, Limits, ParserPool

CASES = hostile.cases()
COSTLY = list(hostile.costly())
FUZZ_MINUTES = 2


class Parser:
    """A pool of one process, and a loop to call it from."""

    def __init__(self, limits: Limits) -> None:
        self._runner = asyncio.Runner()
        self._pool = self._runner.run(ParserPool(limits, workers=1).__aenter__())

    def parse(self, document: bytes, content_type: str | None = None) -> Document:
        return self._runner.run(self._pool.parse(document, content_type, hostile.URL))

    def close(self) -> None:
        self._runner.run(self._pool.__aexit__(None, None, None))
        self._runner.close()


@pytest.fixture(scope="module")
def parser() -> Iterator[Parser]:
    parser = Parser(Limits())
    yield parser
    parser.close()


def check(case: hostile.Case, document: Document) -> None:
    found = {name: getattr(entry, name) for entry in document.entries[:1] for name in case.first}
    assert (len(document.entries), document.problem, found) == (case.entries, case.problem, case.first)
    assert document.suspect == (case.problem in SUSPECT)


def check_bounds(document: Document) -> None:
    """What holds for every document, whatever it was."""
    assert len(document.entries) <= 2000
    assert document.entries or document.problem
    for entry in document.entries:
        assert entry.title
        assert entry.url is None or entry.url.startswith(("http://", "https://"))
        limits = {"title": 1000, "guid": 2048, "url": 2048, "published_raw": 100, "summary": 2000}
        for name, limit in limits.items():
            text = getattr(entry, name)
            assert text is None or 0 < len(text) <= limit
            assert text is None or (not INVISIBLE.search(text) and text == " ".join(text.split())), (name, text)


def test_names_are_distinct_and_enough() -> None:
    names = [case.name for case in CASES] + [case.name for _, case in COSTLY]
    assert len(names) == len(set(names)) > 40


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_outcome(parser: Parser, case: hostile.Case) -> None:
    document = parser.parse(case.document, case.content_type)
    check(case, document)
    check_bounds(document)
    assert [entry.title for entry in parser.parse(hostile.GOOD).entries] == ["Sound"]


@pytest.mark.parametrize(("limits", "case"), COSTLY, ids=lambda value: getattr(value, "name", ""))
def test_document_that_takes_too_much(limits: Limits, case: hostile.Case) -> None:
    parser = Parser(limits)
    try:
        check(case, parser.parse(case.document))
        assert [entry.title for entry in parser.parse(hostile.GOOD).entries] == ["Sound"]
    finally:
        parser.close()


TOKENS = (
    *(
        "<item>",
        "</item>",
        "<title>",
        "</title>",
        "<![CDATA[",
        "]]>",
        "<!--",
        "-->",
        "<!DOCTYPE a [",
        "<!ENTITY b 'c'>",
    ),
    *(
        "&",
        ";",
        "&#",
        "&#x",
        "&amp;",
        "<",
        ">",
        "'",
        '"',
        "\0",
        "\ud800",
        "\u202e",
        "<feed xmlns='http://www.w3.org/2005/Atom'>",
    ),
    *(
        "<entry>",
        "<link href='",
        "xml:base='//",
        "<content type='xhtml'>",
        "<a:b>",
        "xmlns:a='",
        "<author>",
        "a@b.c",
        "<source>",
    ),
    *(
        "<pubDate>",
        "24:00",
        "<dc:date>",
        "<?xml",
        "?>",
        "<svg>",
        "<image>",
        "<textinput>",
        "<guid isPermaLink='false'>",
        "</rss>",
    ),
)


def mutate(document: bytes, chance: random.Random) -> bytes:
    """`document` with a few splices: tokens put in, pieces cut, doubled, moved or overwritten."""
    data = bytearray(document[:20_000])
    for _ in range(chance.randint(1, 8)):
        at, to = sorted(chance.randint(0, len(data)) for _ in range(2))
        match chance.randrange(5):
            case 0:
                data[at:at] = chance.choice(TOKENS).encode("utf-8", "surrogatepass") * chance.choice((1, 1, 1, 50))
            case 1:
                del data[at : min(to, at + 200)]
            case 2:
                data[at:at] = data[at : min(to, at + 500)] * chance.randint(1, 5)
            case 3:
                data[at : at + 4] = chance.randbytes(4)
            case _:
                data[at:at] = chance.choice(CASES).document[:2_000]
    if chance.random() < 0.1:
        return bytes(data).decode("utf-8", "replace").encode(chance.choice(("utf-16", "latin-1")), "replace")
    return bytes(data)


@pytest.mark.slow
def test_mutated_documents_neither_crash_nor_hang(parser: Parser) -> None:
    chance = random.Random(3)  # noqa: S311  (no secret)
    until, count = time.monotonic() + 60 * FUZZ_MINUTES, 0
    small = [case.document for case in CASES if len(case.document) < 20_000]
    failures = set()
    while time.monotonic() < until:
        data = mutate(chance.choice(small), chance)
        document = parser.parse(data, chance.choice((None, "text/xml; charset=iso-8859-1", "text/html")))
        check_bounds(document)
        assert document.problem != CRASHED, data
        assert not (document.problem or "").startswith(("took", "needed")), data
        failures |= {document.problem} if (document.problem or "").startswith("parser failed") else set()
        count += 1
    print(f"{count} documents, of which feedparser raised: {failures or 'never'}")
