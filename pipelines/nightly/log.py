"""A night's log: `nights/<session>/log.jsonl`, one JSON object a line, through the standard logging module.

Each line is written in one call and at once, so that it survives whatever comes next; a line that a kill or a full
disk has cut is removed by the next run. A line that cannot be written stops nothing; a log that cannot be opened
raises OSError.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from pipelines.nightly.ledger import stamp

FILE = "log.jsonl"
OURS = "pipelines.nightly"

log = logging.getLogger(OURS)


def note(event: str, **facts: object) -> None:
    """A line of the log: what happened, and JSON-ready facts of it."""
    log.info(event, extra={"facts": facts})


@contextmanager
def night_log(folder: Path, clock: Callable[[], np.datetime64]) -> Iterator[None]:
    """What we note and others warn of goes to the log in `folder` meanwhile; its times are `clock`'s."""
    root, level = logging.getLogger(), log.level
    handler = _Lines(folder / FILE, clock)
    root.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        root.removeHandler(handler)
        handler.close()


class _Lines(logging.Handler):
    """Appends a line a record."""

    def __init__(self, path: Path, clock: Callable[[], np.datetime64]) -> None:
        super().__init__()
        self._clock = clock
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        os.ftruncate(self._file, _whole_lines(self._file))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; where that fails, there is none."""
        with suppress(OSError):  # a full disk is told by the step that needs it
            os.write(self._file, self.format(record).encode())

    def format(self, record: logging.LogRecord) -> str:
        """`at`, `level`, `event` and, where there are some, facts and the traceback."""
        line = {"at": stamp(self._clock()), "level": record.levelname.lower(), "event": record.getMessage()}
        if record.name != OURS:
            line["logger"] = record.name
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["traceback"] = logging.Formatter().formatException(record.exc_info)
        return json.dumps(line, default=str) + "\n"

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
        super().close()


def _whole_lines(file: int) -> int:
    """Bytes up to the end of the last whole line."""
    end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - 4096)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
