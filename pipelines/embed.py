"""`tapewire embed`: every headline in the lake that has no vector yet, once ever."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data.embeddings import EmbeddingStore
from data.errors import EncoderError
from data.lake import Lake
from data.text import READS, row_texts, text_keys
from encoders.text.config import Reader, TextConfig
from encoders.text.load import Source, resolve
from pipelines.engine.base import Engine
from pipelines.engine.local import LOCAL

Progress = Callable[[int, int], None]
Vectors = npt.NDArray[np.float16]

# Texts of a part, which is what is computed in one go, stored in one go and lost in a crash. On a GPU a part has
# several of the chunks that are tokenised ahead, so that only the first of them is waited for.
CPU_PART = {"encoder": 1_024, "causal-lm": 64}
GPU_PART = {"encoder": 262_144, "causal-lm": 1_024}


@dataclass(frozen=True)
class Embedded:
    """Distinct normalised texts in the lake, how many were run through the model now, and by which encoder."""

    texts: int
    embedded: int
    fingerprint: str

    def as_dict(self) -> dict[str, object]:
        """The contract of `embed --json`."""
        return {"texts": self.texts, "embedded": self.embedded, "fingerprint": self.fingerprint}


def embed(
    lake: Lake,
    folder: Path,
    config: TextConfig,
    progress: Progress = lambda _done, _total: None,
    engine: Engine = LOCAL,
) -> Embedded:
    """Embed what `folder`'s store lacks. The model is only loaded where there is something to do.

    While one part is stored the next is computed; a killed run goes on where it was, but for these two. The last
    bits of a vector may depend on the texts it is computed with. So the parts are the same in every engine, and
    those that a killed run had left are cut again as they were.
    """
    source = resolve(config)
    store = EmbeddingStore.open(folder, source.fingerprint, source.dimension)
    texts = read_texts(lake, config.input)
    keys = text_keys(texts)
    todo = np.flatnonzero(store.missing(keys))
    if len(todo):
        parts = _parts(texts, todo, config.kind)
        here = replace(source, folder=source.folder.resolve(), adapter=source.adapter and source.adapter.resolve())
        vectors = engine.map(_encode_part, _Encoder(here), [[texts[at] for at in part] for part in parts])
        done = 0
        progress(done, len(todo))
        for stored in _store(store, (keys[part] for part in parts), vectors):
            done += stored
            progress(done, len(todo))
        store.settle()
    return Embedded(len(texts), len(todo), source.fingerprint)


def read_texts(lake: Lake, reads: str) -> list[str]:
    """The distinct texts of the lake's headlines by the columns that `reads` names, normalised and sorted."""
    rows = lake.read("headlines", list(READS[reads]))
    distinct = rows.group_by(rows.column_names).aggregate([])
    return sorted(set(row_texts(*(column.to_pylist() for column in distinct.columns))))


def encode_all(encoder: Reader, texts: Sequence[str]) -> Vectors:
    """The vectors [N, E] of texts, in their order."""
    out = np.empty((len(texts), encoder.dimension), dtype=np.float16)
    for positions, rows in encoder.encode(texts):
        out[positions] = rows
    return out


@dataclass(frozen=True)
class _Encoder:
    """An encoder's files, and the encoder itself where it is used: each process loads it once."""

    source: Source

    @cached_property
    def reader(self) -> Reader:
        config = self.source.config
        # Another machine may keep the checkpoint elsewhere.
        source = self.source if self.source.folder.exists() else resolve(config)
        if source.fingerprint != self.source.fingerprint:
            raise EncoderError(
                f"{source.folder}: expected the files of fingerprint {self.source.fingerprint}, as where the job was "
                f"started, found {source.fingerprint}. Give every machine the same files of {source.name}."
            )
        return config.build(source)


def _encode_part(encoder: _Encoder, texts: list[str]) -> Vectors:
    return encode_all(encoder.reader, texts)


def _parts(texts: list[str], todo: npt.NDArray[np.int64], kind: str) -> list[npt.NDArray[np.int64]]:
    """Positions of texts of like length together, shortest first: little padding, and batches of one length.

    Parts are stored in their order, so that what a killed run has left begins with a whole part.
    """
    import torch

    size = (GPU_PART if torch.cuda.is_available() else CPU_PART)[kind]
    by_length = todo[np.argsort([len(texts[at]) for at in todo], kind="stable")]
    return [by_length[start : start + size] for start in range(0, len(by_length), size)]


def _store(store: EmbeddingStore, keys: Iterator[npt.NDArray[np.uint64]], vectors: Iterator[Vectors]) -> Iterator[int]:
    """Append each part while the next is computed; yields how many texts became durable."""
    with ThreadPoolExecutor(1) as writer:
        writing: Future[int] | None = None
        count = 0
        for of_part, rows in zip(keys, vectors, strict=True):
            if writing is not None:
                writing.result()
                yield count
            writing, count = writer.submit(store.append, of_part, rows), len(rows)
        if writing is not None:
            writing.result()
            yield count
