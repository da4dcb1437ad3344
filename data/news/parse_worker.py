"""The process in which feeds are parsed: frames in on stdin, frames out on stdout, until stdin ends.

It is started, killed and replaced by `data.news.parse`, and imports as little as it can: feedparser and
a few small modules. Nothing is stored, fetched or logged here.
"""

import io
import json
import os
import resource
import signal
import sys
import xml.sax
from typing import Any

import feedparser  # type: ignore[import-untyped]

from data.news.document import CUT, NO_ENTRIES, NO_FEED, NO_TITLES, Readable, UnreadableError, read_document
from data.news.frames import HEAD, LENGTH, MIB
from data.news.markup import clean_line, clean_text, clean_url

MOST_ENTRIES = 2000
LONGEST_TITLE = 1000
LONGEST_SUMMARY = 2000
LONGEST_STAMP = 100
LONGEST_GUID = 2048

# One declaration, in the encoding that `read_document` leaves: feedparser sees no other.
_DECLARATION = "<?xml version='1.0' encoding='utf-8'?>\n"
_HEADERS = {"content-type": "application/xml; charset=utf-8"}


def main() -> None:
    """Serve until stdin ends. Arguments: the folder on `sys.path`, CPU seconds a document, MiB in all."""
    cpu_seconds, memory_mib = float(sys.argv[2]), int(sys.argv[3])
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # what a library prints must not pass for an answer
    _confine(memory_mib)
    answers.write(LENGTH.pack(0))
    answers.flush()
    while lengths := requests.read(HEAD.size):
        head, body = HEAD.unpack(lengths)
        content_type, url = json.loads(requests.read(head))
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)  # the CPU time of this process alone; then SIGPROF ends it
        answer, last = _answer(requests.read(body), content_type, url, memory_mib)
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(LENGTH.pack(len(answer)))
        answers.write(answer)
        answers.flush()
        if last:
            return


def _confine(memory_mib: int) -> None:
    """What a document could make the parser do ends with this process, and leaves nothing behind."""
    sys.dont_write_bytecode = True
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    for name, most in {"AS": memory_mib * MIB, "CORE": 0, "FSIZE": 0, "NOFILE": 16, "NPROC": 0}.items():
        limit = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(limit)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (most, most))


def _answer(document: bytes, content_type: str | None, url: str, memory_mib: int) -> tuple[bytes, bool]:
    """The answer, and whether it is the last of this process."""
    try:
        answer = parse_document(document, content_type, url)
        # A process that has grown would deny the next document memory that it is entitled to.
        last = _address_space() > memory_mib * MIB / 4
        return _encode(answer, last), last
    except MemoryError:
        pass  # what the parser holds is freed only when this block is left
    return _encode(_unread(f"needed more than {memory_mib} MiB"), True), True


def _address_space() -> int:
    """Bytes mapped now, which is what the limit counts. Not `ru_maxrss`: that remembers the parent's size."""
    try:
        with open("/proc/self/statm", encoding="ascii") as pages:
            return int(pages.read().split()[0]) * resource.getpagesize()
    except OSError:  # no Linux
        return 0


def _encode(answer: dict[str, Any], last: bool) -> bytes:
    return json.dumps(answer | {"last": last}, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def parse_document(document: bytes, content_type: str | None, url: str) -> dict[str, Any]:
    """`entries` as rows of guid, title, url, published_raw and summary; `problem` and `remark`, or None.

    Takes what time and memory the document makes it take: call it in a process that can be killed.
    """
    try:
        readable = read_document(document, content_type)
        source = io.BytesIO((_DECLARATION + readable.text).encode("utf-8", "replace"))
        # Not sanitised and not resolved, which takes half of its time: titles and summaries are stripped of
        # all markup here. Without a base, because it would make addresses of guids, which then change with it.
        parsed = feedparser.parse(source, response_headers=_HEADERS, sanitize_html=False, resolve_relative_uris=False)
        return _judged(parsed, readable, url)
    except UnreadableError as error:
        return _unread(str(error))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever a document makes feedparser raise, it is the document's)
        return _unread(f"parser failed: {type(error).__name__}")


def _judged(parsed: Any, readable: Readable, url: str) -> dict[str, Any]:
    items = parsed.entries[:-1] if readable.cut else parsed.entries
    rows = [row for item in items[:MOST_ENTRIES] if (row := _entry(item, url))]
    untitled = min(len(items), MOST_ENTRIES) - len(rows)
    notes = [
        *readable.remarks,
        *([f"not well-formed: {_fault(parsed.bozo_exception)}"] if parsed.bozo else []),
        *([f"{untitled} entries without a title"] if untitled else []),
    ]
    problem = CUT if readable.cut else None
    if not rows:
        problem = NO_TITLES if items else NO_ENTRIES if parsed.version else NO_FEED
    elif len(items) > MOST_ENTRIES:
        problem = f"more than {MOST_ENTRIES} entries"
    return {"entries": rows, "problem": problem, "remark": "; ".join(notes) or None}


def _unread(problem: str) -> dict[str, Any]:
    return {"entries": [], "problem": problem, "remark": None}


def _fault(error: Exception) -> str:
    return clean_text(error.getMessage() if isinstance(error, xml.sax.SAXException) else str(error), LONGEST_STAMP)


def _entry(item: Any, url: str) -> list[str | None] | None:
    """One item's row, or None where it has no title. `item` is feedparser's dictionary, read past its aliases."""
    title = clean_text(_text(item, "title"), LONGEST_TITLE)
    if not title:
        return None
    guid = clean_line(_text(item, "id"), LONGEST_GUID + 1)
    # Not `created`, which may precede publication. `updated` (an edit, or dc:date) can only be later than it.
    stamp = clean_line(_text(item, "published") or _text(item, "updated"), LONGEST_STAMP)
    summary = clean_text(_text(item, "summary"), LONGEST_SUMMARY)
    return [guid if 0 < len(guid) <= LONGEST_GUID else None, title, _link(item, url), stamp or None, summary or None]


def _text(item: Any, name: str) -> str:
    value = dict.get(item, name)
    return value if isinstance(value, str) else ""


def _link(item: Any, url: str) -> str | None:
    link = _text(item, "link")
    if not link:  # an Atom link of another type than HTML
        links = [link for link in dict.get(item, "links", ()) if isinstance(link, dict)]
        link = next((_text(other, "href") for other in links if other.get("rel") == "alternate"), "")
    # A guid stands in for a missing link only if it is an address by itself.
    stands_in = dict.get(item, "guidislink") and link == _text(item, "id")
    return clean_url(link, "" if stands_in else url)
