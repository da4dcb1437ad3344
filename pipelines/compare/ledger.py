"""What a comparison has measured so far, one JSON line each, so that a stopped one goes on where it was.

A line's key is the hash of all its figures depend on. A changed setting, panel or version of torch therefore finds
nothing here and is measured; what no longer matches is left in the file and not read.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from data.errors import InputError
from pipelines.workspace import replace_file

Record = dict[str, Any]


class Ledger:
    """Finished measurements by key. One process at a time: whoever opens it holds the job's lock."""

    def __init__(self, path: Path) -> None:
        """Reads `path` where it is there. A last line that a kill cut short is dropped; it is measured again.

        Raises InputError where another line cannot be read.
        """
        self.path = path
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole, _, torn = text.rpartition("\n")
        self._records = {}
        for number, line in enumerate(whole.splitlines(), start=1):
            key, record = _parse(line, f"{path}, line {number}")
            self._records[key] = record
        if torn:
            replace_file(path, f"{whole}\n".encode() if whole else b"")

    def __contains__(self, key: str) -> bool:
        return key in self._records

    def __getitem__(self, key: str) -> Record:
        return self._records[key]

    def append(self, key: str, record: Record) -> None:
        """Keep `record`; on the disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"key": key, **record}, allow_nan=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
            file.flush()
            os.fsync(file.fileno())
        self._records[key] = json.loads(line)


def key_of(**facts: object) -> str:
    """The key of a measurement that depends on `facts`, which are JSON-ready."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _parse(line: str, where: str) -> tuple[str, Record]:
    try:
        record: Record = json.loads(line)
        return str(record["key"]), record
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{where}: expected a finished measurement, found {line[:60]!r} ({error!r}). Delete that line, or the file "
            "to measure everything again."
        ) from None
