"""The embedding store: fp16 rows under 128-bit text keys, append-only and memory-mapped. No torch.

One folder per encoder fingerprint:

    <folder>/<fingerprint>/manifest.json         what is committed: dimension, rows in each shard
    <folder>/<fingerprint>/shard-000000.f16      rows, little-endian fp16, [rows, E]
    <folder>/<fingerprint>/shard-000000.keys     keys of those rows, 16 bytes each
    <folder>/<fingerprint>/keys.index            the keys of the first rows once more, sorted

An append writes behind the committed rows of the last shard, fsyncs, and only then replaces the
manifest. What lies behind the committed rows is debris of a crash: never read, overwritten by the
next append. Rows are never moved, so a row id stays valid. The index is derived: it may be absent,
behind or damaged, and then costs an opening its sorting and nothing else. The store does not say what
a key stands for, deletes nothing, and does not notice rows altered in place.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from data.errors import LakeError
from data.key_file import read_index, write_index
from data.key_index import KeyIndex, SortedKeys, first_of_each
from data.text import Keys

log = logging.getLogger(__name__)

Rows = npt.NDArray[np.float16]
RowIds = npt.NDArray[np.int64]

FORMAT = 1
SHARD_ROWS = 4_194_304  # 6 GB at E = 768: no single file grows without end, and most stores are one
KEY_BYTES = 16
# Keys that may be missing from the index: while a job appends, and after it. Sorting 100,000 takes some 10 ms.
TAIL_ROWS, SETTLE_ROWS = 262_144, 8_192
NO_KEYS = SortedKeys.of(np.empty((0, 2), dtype=np.uint64))


class EmbeddingStore:
    """The embeddings of one encoder. Made by `open`; several processes may append at once."""

    def __init__(self, folder: Path, fingerprint: str, dimension: int) -> None:
        self.folder = folder / fingerprint
        self.fingerprint = fingerprint
        self.dimension = dimension
        self._shards: list[Rows] = []
        self._keys: list[Keys] = []
        self._starts: RowIds = np.zeros(1, dtype=np.int64)
        self._settled = self._tail = KeyIndex(NO_KEYS)

    @classmethod
    def open(cls, folder: Path, fingerprint: str, dimension: int) -> Self:
        """The store of `fingerprint` under `folder`; empty where none was committed. Writes nothing.

        Raises LakeError where what is there belongs to another encoder or dimension, is of another
        format, or holds fewer rows than were committed. Files are left as they are.
        """
        store = cls(folder, fingerprint, dimension)
        # Before the manifest: an index is written after the rows it covers are committed.
        index = read_index(store._index_path)
        store._map(store._committed())
        settled = KeyIndex(index) if index is not None else store._settled
        if store._holds(settled):
            store._settled = settled
        store._sort_tail()
        return store

    def __len__(self) -> int:
        return int(self._starts[-1])

    def rows(self, keys: Keys) -> RowIds:
        """Row id of each of [N, 2] keys; -1 where it is not stored."""
        found = self._settled.find(keys)
        if not self._stand_at(found, keys):
            log.warning("%s is not of these rows; the keys are sorted anew, nothing is lost", self._index_path)
            self._settled = self._tail = KeyIndex(NO_KEYS)
            self._sort_tail()
            found = self._settled.find(keys)
        if len(self._tail):
            rest = np.flatnonzero(found < 0)
            found[rest] = self._tail.find(keys[rest])
        return found

    def missing(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Which of [N, 2] keys are not stored."""
        return self.rows(keys) < 0

    def gather(self, row_ids: RowIds) -> Rows:
        """The embeddings [N, E] of row ids, copied out of the memory maps; [0, E] for none.

        Raises IndexError for an id that is not stored, the -1 of `rows` included.
        """
        row_ids = np.asarray(row_ids, dtype=np.int64)
        if len(row_ids) and (row_ids.min() < 0 or row_ids.max() >= len(self)):
            raise IndexError(f"row ids must lie in [0, {len(self)}), got {row_ids.min()} to {row_ids.max()}")
        if len(self._shards) == 1:
            return np.take(self._shards[0], row_ids, axis=0)
        out = np.empty((len(row_ids), self.dimension), dtype=np.float16)
        shard_of = np.searchsorted(self._starts, row_ids, side="right") - 1
        for number in np.unique(shard_of):
            here = np.flatnonzero(shard_of == number)
            out[here] = np.take(self._shards[number], row_ids[here] - self._starts[number], axis=0)
        return out

    def append(self, keys: Keys, rows: npt.NDArray[np.floating]) -> int:
        """Store `rows` [N, E] under `keys` [N, 2]; durable on return. Returns how many were new.

        A key that is stored already, or comes twice, keeps its first row. Waits for other writers.
        Raises LakeError where the disk refuses; what was committed before stays as it was.
        """
        if rows.shape != (len(keys), self.dimension) or keys.shape[1:] != (2,):
            raise ValueError(f"expected keys [N, 2], rows [N, {self.dimension}]; got {keys.shape}, {rows.shape}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "lock"):
                self.refresh()
                new = first_of_each(keys)
                new = new[self.missing(keys[new])]
                if len(new) < len(keys):
                    keys, rows = keys[new], rows[new]
                if len(new):
                    self._write(keys.astype("<u8", copy=False), rows.astype("<f2", copy=False))
                    self.refresh()
                self._settle(max(TAIL_ROWS, len(self._settled) // 2))
        except OSError as error:
            raise self._refused(error) from error
        return len(new)

    def settle(self) -> None:
        """Sort the keys of what was appended into the index, so that later openings need not. At the end of a job.

        Raises LakeError where the disk refuses; nothing committed is touched.
        """
        if not len(self):
            return
        try:
            with FileLock(self.folder / "lock"):
                self.refresh()
                self._settle(SETTLE_ROWS)
        except OSError as error:
            raise self._refused(error) from error

    def refresh(self) -> None:
        """See what other processes have committed since; row ids known before stay valid."""
        counts = self._committed()
        if sum(counts) < len(self):  # another store was put in this one's place
            self._settled = self._tail = KeyIndex(NO_KEYS)
        if sum(counts) != len(self):
            self._map(counts)
            self._sort_tail()

    def _settle(self, most: int) -> None:
        """Write the index anew where more than `most` keys are not in it."""
        if len(self._tail) > most:
            keys = self._settled.keys.merged(self._tail.keys)
            write_index(self._index_path, keys)
            self._settled, self._tail = KeyIndex(keys), KeyIndex(NO_KEYS)

    def _sort_tail(self) -> None:
        start = len(self._settled) + len(self._tail)
        keys = SortedKeys.of(self._keys_between(start, len(self)), start)
        self._tail = KeyIndex(self._tail.keys.merged(keys))

    def _keys_between(self, start: int, stop: int) -> Keys:
        spans = zip(self._keys, self._starts[:-1], strict=True)
        parts = [keys[max(start - at, 0) : max(stop - at, 0)] for keys, at in spans]
        return np.concatenate([np.empty((0, 2), dtype=np.uint64), *parts])

    def _holds(self, index: KeyIndex) -> bool:
        """Whether an index is of these rows, judged by the last it covers: a backup may have been put in their place.

        What this does not see, such as a flipped bit, `rows` does: it looks at the key of every row it finds.
        """
        if len(index) > len(self):
            return False
        start = max(len(index) - 64, 0)
        rows = np.arange(start, len(index))
        return bool((index.find(self._keys_between(start, len(index))) == rows).all())

    def _stand_at(self, found: RowIds, keys: Keys) -> bool:
        """Whether the rows found, where any was, are stored under just these keys."""
        asked = np.flatnonzero(found >= 0)
        rows, second = found[asked], keys[asked, 1]  # of two keys that differ the second words do, too
        if not len(rows):
            return True
        if rows.max() >= len(self):
            return False
        for start, stored in zip(self._starts[:-1], self._keys, strict=True):
            here = slice(None) if len(self._keys) == 1 else (rows >= start) & (rows < start + len(stored))
            if not (stored[rows[here] - start, 1] == second[here]).all():
                return False
        return True

    def _write(self, keys: Keys, rows: Rows) -> None:
        counts = self._committed() or [0]
        while len(keys):
            if counts[-1] >= SHARD_ROWS:
                counts.append(0)
            take = SHARD_ROWS - counts[-1]
            number = len(counts) - 1
            _write_at(self._path(number, "f16"), counts[-1] * self.dimension * 2, rows[:take])
            _write_at(self._path(number, "keys"), counts[-1] * KEY_BYTES, keys[:take])
            counts[-1] += len(keys[:take])
            keys, rows = keys[take:], rows[take:]
        self._commit(counts)

    def _commit(self, counts: list[int]) -> None:
        manifest = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "dimension": self.dimension,
            "shards": [{"rows": count} for count in counts],
        }
        draft = self.folder / "manifest.json.tmp"
        with draft.open("w") as file:
            json.dump(manifest, file, indent=1)
            file.flush()
            _sync(file.fileno())
        _sync_folder(self.folder)  # the shards' own names must be on disk before the manifest speaks of them
        draft.replace(self.folder / "manifest.json")
        _sync_folder(self.folder)

    def _committed(self) -> list[int]:
        """Rows of each shard as of the last commit; [] before the first."""
        path = self.folder / "manifest.json"
        try:
            manifest: Any = json.loads(path.read_text())
            found = {key: manifest[key] for key in ("format", "fingerprint", "dimension")}
            counts = [int(shard["rows"]) for shard in manifest["shards"]]
            if min(counts, default=1) < 1:
                raise ValueError(f"a shard of {min(counts)} rows")
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LakeError(
                f"{path} is no manifest of an embedding store ({error!r}). The shards beside it were left alone; "
                "restore the manifest from a backup, or delete the folder and embed again."
            ) from error
        expected = {"format": FORMAT, "fingerprint": self.fingerprint, "dimension": self.dimension}
        if found != expected:
            raise LakeError(
                f"{self.folder} holds embeddings of another encoder: expected {expected}, found {found}. Nothing was "
                "changed; use the encoder they were made with, or another folder."
            )
        return counts

    def _map(self, counts: list[int]) -> None:
        self._shards = [self._open(number, "f16", "<f2", count, self.dimension) for number, count in enumerate(counts)]
        self._keys = [self._open(number, "keys", "<u8", count, 2) for number, count in enumerate(counts)]
        self._starts = np.cumsum([0, *counts], dtype=np.int64)

    def _open(self, number: int, suffix: str, dtype: str, count: int, width: int) -> npt.NDArray[Any]:
        """A shard's committed part, mapped."""
        path = self._path(number, suffix)
        expected = count * width * np.dtype(dtype).itemsize
        size = path.stat().st_size if path.is_file() else 0
        if size < expected:
            raise LakeError(
                f"{path} is truncated: {expected} bytes ({count} rows) were committed, {size} are there. "
                f"Nothing was changed; restore the file from a backup, or delete {self.folder} and embed again."
            )
        # A plain array over the map: numpy's own memmap class costs a gather time for every view it makes.
        return np.asarray(np.memmap(path, dtype=dtype, mode="r", shape=(count, width)))

    def _refused(self, error: OSError) -> LakeError:
        return LakeError(f"embeddings could not be written to {self.folder}: {error}. Nothing was lost.")

    def _path(self, number: int, suffix: str) -> Path:
        return self.folder / f"shard-{number:06d}.{suffix}"

    @property
    def _index_path(self) -> Path:
        return self.folder / "keys.index"


def _write_at(path: Path, offset: int, values: npt.NDArray[Any]) -> None:
    """Replace everything behind `offset` with `values`, and put it on the disk."""
    with path.open("r+b" if path.exists() else "w+b", buffering=0) as file:
        file.truncate(offset)
        file.seek(offset)
        rest = np.ascontiguousarray(values).data.cast("B")
        while rest:  # the kernel takes 2 GB at a time
            rest = rest[file.write(rest) :]
        _sync(file.fileno())


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)
