"""Feed documents to entries, in processes that can be killed: a pool of `data.news.parse_worker`.

An entry is what the feed said, cleaned and bounded; nothing is judged, dated, linked or stored here.
Every byte of a document is untrusted. It is parsed under limits on CPU time, wall time and memory, and a
process that exceeds one is replaced; the next document finds a sound one. POSIX only.
"""

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import cast

from data.errors import TapewireError
from data.news.document import SUSPECT
from data.news.frames import HEAD, LENGTH, MIB

MOST_ANSWER = 64 * MIB
CRASHED = "parser crashed"
GRACE = 5.0  # seconds for a process that has nothing left to do

# Isolated (-I) from the user's environment and folder, but with the very package this module came from.
_ROOT = str(Path(__file__).resolve().parents[2])
_START = "import sys; sys.path.insert(0, sys.argv[1]); from data.news.parse_worker import main; main()"


@dataclass(frozen=True)
class Limits:
    """What one document may take: CPU seconds, seconds by the clock, and MiB of address space."""

    cpu_seconds: float = 10.0
    wall_seconds: float = 60.0
    memory_mib: int = 512


@dataclass(frozen=True)
class Entry:
    """One item as the feed gave it: plain text of one line each, nothing judged. The title is never empty.

    `title` has at most 1,000 characters, `summary` 2,000, `published_raw` 100; a longer one is cut. `guid`
    and `url` have at most 2,048; a longer one is None. `url` is an absolute http(s) address.
    `published_raw` is the publication's stamp, else the update's, which can only be later; white space is
    collapsed, nothing else is read into it.
    """

    guid: str | None
    title: str
    url: str | None
    published_raw: str | None
    summary: str | None


@dataclass(frozen=True)
class Document:
    """What could be read of one document: at most 2,000 entries, in its order.

    `problem` says why nothing, or not all, could be read. `suspect` marks a document that was read and
    is empty, an HTML page or without an entry. `remark` says what was wrong with one whose entries were
    kept all the same.
    """

    entries: tuple[Entry, ...]
    problem: str | None = None
    suspect: bool = False
    remark: str | None = None


class ParserPool:
    """Up to `workers` parser processes (default: one a core), started when needed and reused.

    An async context manager; its processes end with it. `parse` may be called from any number of tasks of
    one event loop.
    """

    def __init__(self, limits: Limits = Limits(), workers: int | None = None) -> None:
        self._limits = limits
        self._workers = workers or os.cpu_count() or 1
        self._idle: asyncio.LifoQueue[_Worker | None] = asyncio.LifoQueue()

    async def __aenter__(self) -> "ParserPool":
        for _ in range(self._workers):
            self._idle.put_nowait(None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _ in range(self._workers):  # those at work are waited for
            worker = await self._idle.get()
            if worker:
                await worker.end(GRACE)

    async def parse(self, document: bytes, content_type: str | None, url: str) -> Document:
        """The entries of `document`, fetched from `url` with the header `content_type`, if there was one.

        Whatever the document is, the answer comes within the limits. Raises TapewireError where the parser
        process does not start.
        """
        worker, sound = await self._idle.get(), False
        try:
            if worker is None or worker.ended:
                worker = await _Worker.start(self._limits)
            answer, sound = await worker.ask(document, content_type, url)
            return answer
        finally:  # a cancelled one is in the middle of its answer
            self._idle.put_nowait(worker if sound else None)
            if worker and not sound:
                await asyncio.shield(worker.end())


class _Worker:
    """One process and its two pipes."""

    def __init__(self, process: asyncio.subprocess.Process, limits: Limits) -> None:
        self._process, self._limits = process, limits
        self._stdin = cast(asyncio.StreamWriter, process.stdin)
        self._stdout = cast(asyncio.StreamReader, process.stdout)

    @classmethod
    async def start(cls, limits: Limits) -> "_Worker":
        """A process that has said that it is ready."""
        arguments = (_ROOT, str(limits.cpu_seconds), str(limits.memory_mib))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", _START, *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,  # Ctrl-C is for the parent to deal with
        )
        worker, ready = cls(process, limits), False
        try:
            async with asyncio.timeout(60):
                ready = bool(await worker._stdout.readexactly(LENGTH.size))
        except (TimeoutError, asyncio.IncompleteReadError) as error:
            raise TapewireError(
                f"the feed parser: expected {sys.executable} to start its process, and it did not. "
                f"`{sys.executable} -I -c 'import feedparser'` says why; install Tapewire again where that fails."
            ) from error
        finally:
            if not ready:
                await worker.end(GRACE)
        return worker

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    async def ask(self, document: bytes, content_type: str | None, url: str) -> tuple[Document, bool]:
        """The answer, and whether this process can take another document."""
        head = json.dumps([content_type, url]).encode()
        try:
            async with asyncio.timeout(self._limits.wall_seconds):
                self._stdin.writelines((HEAD.pack(len(head), len(document)), head, document))
                await self._stdin.drain()
                (length,) = LENGTH.unpack(await self._stdout.readexactly(LENGTH.size))
                if length > MOST_ANSWER:
                    return _nothing(f"more than {MOST_ANSWER // MIB} MiB of text"), False
                answer = await self._stdout.readexactly(length)
        except TimeoutError:
            return _nothing(f"took more than {self._limits.wall_seconds:g} s"), False
        except (asyncio.IncompleteReadError, ConnectionError):
            return _nothing(await self._cause()), False
        read, last = _document(answer)
        if last:
            await self.end(GRACE)
        return read, not last

    async def end(self, patience: float = 0.0) -> None:
        """Have the process end, by itself within `patience` seconds or killed, and wait for it."""
        self._stdin.close()
        try:
            async with asyncio.timeout(patience):
                await self._process.wait()
        except TimeoutError:
            # Not sooner: asyncio loses the exit status of a process that is killed while it ends.
            self._process.kill()
            await self._process.wait()

    async def _cause(self) -> str:
        """What ended the process, whose pipe is closed."""
        await self.end(GRACE)
        if self._process.returncode == -signal.SIGPROF:
            return f"took more than {self._limits.cpu_seconds:g} s CPU"
        return CRASHED


def _document(answer: bytes) -> tuple[Document, bool]:
    """What an answer says, and whether it is the last. A process that a document has taken over may say anything."""
    try:
        said = json.loads(answer)
        rows, problem, remark = said["entries"], said["problem"], said["remark"]
        if any(value is not None and not isinstance(value, str) for row in [*rows, (problem, remark)] for value in row):
            raise TypeError
        return Document(tuple(Entry(*row) for row in rows), problem, problem in SUSPECT, remark), bool(said["last"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return _nothing(CRASHED), True


def _nothing(problem: str) -> Document:
    return Document((), problem)
