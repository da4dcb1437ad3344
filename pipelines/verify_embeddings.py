"""`tapewire embed --verify`: a sample of the stored vectors, computed again and compared. Changes nothing."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data.embeddings import EmbeddingStore
from data.errors import LakeError
from data.lake import Lake
from data.text import text_keys
from encoders.text.config import TextConfig
from encoders.text.load import Source, resolve
from pipelines.embed import encode_all, read_texts

SAMPLE = 256
ALIKE = 0.999  # fp16 rounding costs 1e-6, another device's bf16 up to 1e-4


@dataclass(frozen=True)
class Verified:
    """How many stored texts were computed again, of how many, and the worst likeness to what is stored."""

    checked: int
    stored: int
    worst_cosine: float
    fingerprint: str

    def as_dict(self) -> dict[str, object]:
        """The contract of `embed --verify --json`."""
        return {
            "checked": self.checked,
            "stored": self.stored,
            "worst_cosine": self.worst_cosine,
            "fingerprint": self.fingerprint,
        }


def verify_embeddings(lake: Lake, folder: Path, config: TextConfig, sample: int = SAMPLE, seed: int = 0) -> Verified:
    """Embed `sample` of the lake's stored texts again, the same ones under one `seed`, and compare with the store.

    Raises LakeError where no text is stored, and where a vector differs: then it names the text that differs most.
    """
    source = resolve(config)
    store = EmbeddingStore.open(folder, source.fingerprint, source.dimension)
    texts = read_texts(lake, config.input)
    rows = store.rows(text_keys(texts))
    stored = np.flatnonzero(rows >= 0)
    if not len(stored):
        raise LakeError(
            f"expected vectors of the lake's {len(texts)} texts in {store.folder} to verify, found none. "
            "Run `tapewire embed` first, with the same [text] settings."
        )
    some = np.sort(np.random.default_rng(seed).permutation(stored)[:sample])
    asked = [texts[at] for at in some]
    alike = likeness(store.gather(rows[some]), encode_all(config.build(source), asked))
    if alike.min() < ALIKE:
        raise _differs(store, source, asked, alike)
    return Verified(len(some), len(stored), float(alike.min()), source.fingerprint)


def likeness(stored: npt.NDArray[np.float16], computed: npt.NDArray[np.float16]) -> npt.NDArray[np.float64]:
    """The cosine of each pair of rows [N, E], lowered where their lengths differ: 2ab / (aa + bb). 1 for equal rows.

    0 where a number is not finite.
    """
    a, b = stored.astype(np.float64), computed.astype(np.float64)
    finite = np.isfinite(a).all(1) & np.isfinite(b).all(1)
    a[~finite] = b[~finite] = 0
    squares = (a * a).sum(1) + (b * b).sum(1)
    alike = np.divide(2 * (a * b).sum(1), squares, out=np.ones(len(a)), where=squares > 0)
    return np.where(finite, alike, 0.0)


def _differs(store: EmbeddingStore, source: Source, texts: list[str], alike: npt.NDArray[np.float64]) -> LakeError:
    worst = int(alike.argmin())
    return LakeError(
        f"{store.folder}: expected stored vectors that {source.name} gives again (cosine of {ALIKE} or more), found "
        f"{int((alike < ALIKE).sum())} of {len(texts)} that differ; the worst, {alike[worst]:.4f}, is that of "
        f"{texts[worst][:200]!r}. Nothing was changed; restore the folder from a backup, or delete it and run "
        "`tapewire embed` again."
    )
