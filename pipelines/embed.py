"""`tapewire embed`: every headline in the lake that has no vector yet, once ever."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.embeddings import EmbeddingStore
from data.lake import Lake
from data.text import normalise_all, text_keys
from encoders.text.config import TextConfig
from encoders.text.load import resolve

Progress = Callable[[int, int], None]


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

    Each chunk is durable before the next is computed, so a killed run goes on where it was.
    """
    source = resolve(config)
    store = EmbeddingStore.open(folder, source.fingerprint, source.dimension)
    titles = lake.read("headlines", ["title"])["title"].unique().to_pylist()
    texts = sorted(set(normalise_all(titles)))
    keys = text_keys(texts)
    todo = np.flatnonzero(store.missing(keys))
    if len(todo):
        from encoders.text.encode import TextEncoder

        encoder = TextEncoder.load(source)
        done = 0
        progress(done, len(todo))
        for chunk, rows in encoder.encode([texts[at] for at in todo]):
            store.append(keys[todo[chunk]], rows)
            done += len(chunk)
            progress(done, len(todo))
    return Embedded(len(texts), len(todo), source.fingerprint)
