"""`tapewire embed`: every headline in the lake that has no vector yet, once ever."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data.embeddings import EmbeddingStore
from data.lake import Lake
from data.text import READS, row_texts, text_keys
from encoders.text.config import TextConfig
from encoders.text.load import resolve

Progress = Callable[[int, int], None]
Encoded = tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]


@dataclass(frozen=True)
class Embedded:
    """Distinct normalised texts in the lake, how many were run through the model now, and by which encoder."""

    texts: int
    embedded: int
    fingerprint: str

    def as_dict(self) -> dict[str, object]:
        """The contract of `embed --json`."""
        return {"texts": self.texts, "embedded": self.embedded, "fingerprint": self.fingerprint}


def embed(lake: Lake, folder: Path, config: TextConfig, progress: Progress = lambda _done, _total: None) -> Embedded:
    """Embed what `folder`'s store lacks. The model is only loaded where there is something to do.

    While one chunk is stored the next is computed; a killed run goes on where it was, but for these two.
    """
    source = resolve(config)
    store = EmbeddingStore.open(folder, source.fingerprint, source.dimension)
    texts = read_texts(lake, config.input)
    keys = text_keys(texts)
    todo = np.flatnonzero(store.missing(keys))
    if len(todo):
        encoder = config.build(source)
        done = 0
        progress(done, len(todo))
        for stored in _store(store, keys[todo], encoder.encode([texts[at] for at in todo])):
            done += stored
            progress(done, len(todo))
        store.settle()
    return Embedded(len(texts), len(todo), source.fingerprint)


def read_texts(lake: Lake, reads: str) -> list[str]:
    """The distinct texts of the lake's headlines by the columns that `reads` names, normalised and sorted."""
    rows = lake.read("headlines", list(READS[reads]))
    distinct = rows.group_by(rows.column_names).aggregate([])
    return sorted(set(row_texts(*(column.to_pylist() for column in distinct.columns))))


def _store(store: EmbeddingStore, keys: npt.NDArray[np.uint64], encoded: Iterator[Encoded]) -> Iterator[int]:
    """Append each chunk while the next is computed; yields how many texts became durable."""
    with ThreadPoolExecutor(1) as writer:
        writing: Future[int] | None = None
        count = 0
        for positions, rows in encoded:
            if writing is not None:
                writing.result()
                yield count
            writing, count = writer.submit(store.append, keys[positions], rows), len(positions)
        if writing is not None:
            writing.result()
            yield count
