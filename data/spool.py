"""Arrow tables that wait in a file without a name: what was checked is what is stored, and a kill leaves nothing.

Knows nothing of what it holds. Not safe for several threads.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pyarrow as pa


class Spool:
    """Tables in one temporary file, in the order in which they came."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._starts: list[int] = []

    def __len__(self) -> int:
        return len(self._starts)

    def append(self, table: pa.Table) -> int:
        """Keep `table`; the number by which it is found again."""
        self._file.seek(0, 2)
        self._starts.append(self._file.tell())
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.ipc.new_stream(self._file, table.schema, options=options) as stream:
            stream.write_table(table)
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> pa.Table:
        self._file.seek(self._starts[number])
        with pa.ipc.open_stream(self._file) as stream:
            return stream.read_all()


@contextmanager
def open_spool(folder: Path) -> Iterator[Spool]:
    """A spool in a file of `folder`, for as long as the context lasts."""
    with tempfile.TemporaryFile(dir=folder) as file:
        yield Spool(file)
