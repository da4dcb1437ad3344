"""The embedding store: fp16 rows under 128-bit text keys, append-only and memory-mapped. No torch.

One folder per encoder fingerprint:

    <folder>/<fingerprint>/manifest.json         what is committed: dimension, rows in each shard
    <folder>/<fingerprint>/shard-000000.f16      rows, little-endian fp16, [rows, E]
    <folder>/<fingerprint>/shard-000000.keys     keys of those rows, 16 bytes each

An append writes behind the committed rows of the last shard, fsyncs, and only then replaces the
manifest. What lies behind the committed rows is debris of a crash: never read, overwritten by the
next append. Rows are never moved, so a row id stays valid. It does not say what a key stands for,
deletes nothing, and does not notice bytes altered in place.
"""

import json
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from data.errors import LakeError
from data.text import Keys

Rows = npt.NDArray[np.float16]
RowIds = npt.NDArray[np.int64]

FORMAT = 1
SHARD_ROWS = 262_144  # 400 MB at E = 768: few files, and no single file grows without end
KEY_BYTES = 16


class KeyIndex:
    """Finds keys: sorted once by their first word, then binary search; the second word is verified."""

    def __init__(self, keys: Keys) -> None:
        self._order: RowIds = np.argsort(keys[:, 0], kind="stable").astype(np.int64, copy=False)
        self._sorted: Keys = keys[self._order]
        self._first = np.ascontiguousarray(self._sorted[:, 0])

    def find(self, keys: Keys) -> RowIds:
        """Position of each of [N, 2] keys; -1 where it is not there."""
        found = np.full(len(keys), -1, dtype=np.int64)
        at = np.searchsorted(self._first, keys[:, 0])
        open_ids = np.arange(len(keys))
        while True:  # one round, and one more for each key in a run of equal first words
            alike = at < len(self._first)
            alike[alike] = self._first[at[alike]] == keys[open_ids[alike], 0]
            open_ids, at = open_ids[alike], at[alike]
            if not len(open_ids):
                return found
            hit = self._sorted[at, 1] == keys[open_ids, 1]
            found[open_ids[hit]] = self._order[at[hit]]
            open_ids, at = open_ids[~hit], at[~hit] + 1


class EmbeddingStore:
    """The embeddings of one encoder. Made by `open`; several processes may append at once."""

    def __init__(self, folder: Path, fingerprint: str, dimension: int) -> None:
        self.folder = folder / fingerprint
        self.fingerprint = fingerprint
        self.dimension = dimension
        self._shards: list[Rows] = []
        self._starts: RowIds = np.zeros(1, dtype=np.int64)
        self._keys: Keys = np.empty((0, 2), dtype=np.uint64)
        self._index = KeyIndex(self._keys)

    @classmethod
    def open(cls, folder: Path, fingerprint: str, dimension: int) -> Self:
        """The store of `fingerprint` under `folder`; empty where none was committed. Writes nothing.

        Raises LakeError where what is there belongs to another encoder or dimension, is of another
        format, or holds fewer rows than were committed. Files are left as they are.
        """
        store = cls(folder, fingerprint, dimension)
        store.refresh()
        return store

    def __len__(self) -> int:
        return len(self._keys)

    def rows(self, keys: Keys) -> RowIds:
        """Row id of each of [N, 2] keys; -1 where it is not stored."""
        return self._index.find(keys)

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
        out = np.empty((len(row_ids), self.dimension), dtype=np.float16)
        shard_of = np.searchsorted(self._starts, row_ids, side="right") - 1
        for number in np.unique(shard_of):
            here = shard_of == number
            out[here] = self._shards[number][row_ids[here] - self._starts[number]]
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
                first = np.sort(np.unique(keys, axis=0, return_index=True)[1])
                new = first[self.missing(keys[first])]
                if len(new):
                    self._write(keys[new].astype("<u8"), rows[new].astype("<f2"))
                    self.refresh()
        except OSError as error:
            raise LakeError(f"embeddings could not be written to {self.folder}: {error}. Nothing was lost.") from error
        return len(new)

    def refresh(self) -> None:
        """See what other processes have committed since; row ids known before stay valid."""
        counts = self._committed()
        if sum(counts) == len(self):
            return
        self._shards = [self._map(number, count) for number, count in enumerate(counts)]
        self._starts = np.cumsum([0, *counts], dtype=np.int64)
        keys = [self._read_keys(number, count) for number, count in enumerate(counts)]
        self._keys = np.concatenate(keys).astype(np.uint64, copy=False)
        self._index = KeyIndex(self._keys)

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

    def _map(self, number: int, count: int) -> Rows:
        path = self._path(number, "f16")
        self._check_size(path, count, self.dimension * 2)
        return np.memmap(path, dtype="<f2", mode="r", shape=(count, self.dimension))

    def _read_keys(self, number: int, count: int) -> Keys:
        path = self._path(number, "keys")
        self._check_size(path, count, KEY_BYTES)
        return np.fromfile(path, dtype="<u8", count=count * 2).reshape(-1, 2)

    def _check_size(self, path: Path, count: int, row_bytes: int) -> None:
        size = path.stat().st_size if path.exists() else 0
        if size < count * row_bytes:
            raise LakeError(
                f"{path} is truncated: {count * row_bytes} bytes ({count} rows) were committed, {size} are there. "
                f"Nothing was changed; restore the file from a backup, or delete {self.folder} and embed again."
            )

    def _path(self, number: int, suffix: str) -> Path:
        return self.folder / f"shard-{number:06d}.{suffix}"


def _write_at(path: Path, offset: int, values: npt.NDArray[Any]) -> None:
    """Replace everything behind `offset` with `values`, and put it on the disk."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(offset)
        file.seek(offset)
        file.write(np.ascontiguousarray(values).data)
        _sync(file.fileno())


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)
