"""Jobs that are killed at some moment: each in a process forked from one that has imported everything already."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Any
from unittest.mock import patch

from data.lake import Lake
from data.schemas import SCHEMAS

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["pipelines.ingest", "killing", "tapes"])


def run_to_its_end(job: Callable[..., None], *args: Any) -> float:
    """Seconds that the job took; it must succeed."""
    start = time.monotonic()
    child = _start(job, *args)
    child.join()
    assert child.exitcode == 0
    return time.monotonic() - start


def kill_after(seconds: float, job: Callable[..., None], *args: Any) -> bool:
    """SIGKILL so many seconds after the start; whether the job was still at work."""
    child = _start(job, *args)
    child.join(seconds)
    at_work = child.exitcode is None
    child.kill()
    child.join()
    return at_work


def dies(job: Callable[..., None], *args: Any) -> None:
    """Run a job that kills itself; it must have."""
    child = _start(job, *args)
    child.join(300)
    code = child.exitcode  # None where it hangs
    child.kill()
    child.join()
    assert code == -signal.SIGKILL, code


def _start(job: Callable[..., None], *args: Any) -> Any:
    child = _context.Process(target=job, args=args)
    # Before Python 3.13 the server that forks looks for what it imports nowhere but there.
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        child.start()
    return child


def row_hashes(lake: Lake) -> dict[str, list[str]]:
    """Each table as the sorted hashes of its rows."""
    return {table: sorted(_hashes(lake, table)) for table in SCHEMAS}


def _hashes(lake: Lake, table: str) -> list[str]:
    rows = lake.read(table).to_pylist()
    return [blake2b(repr(sorted(row.items())).encode(), digest_size=16).hexdigest() for row in rows]
