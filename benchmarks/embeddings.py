"""The embedding store at a million rows of 768, each figure against a named peer in the same run.

`python benchmarks/embeddings.py [FOLDER] [ROWS]`: FOLDER (a disk, not a RAM disk; needs 4 GB) and how many rows.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.embeddings import EmbeddingStore

ROWS, E, CHUNK, ROUNDS = 1_000_000, 768, 65_536, 5


def main(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    chunk = rng.normal(size=(CHUNK, E)).astype(np.float16)
    keys = rng.integers(0, 2**64, (count, 2), dtype=np.uint64)
    append(folder, keys, chunk)
    opening(folder)
    store = EmbeddingStore.open(folder, "store", E)
    gather(store, folder / "plain.f16", rng)
    lookup(store, keys, rng)


def append(folder: Path, keys: np.ndarray, chunk: np.ndarray) -> None:
    """Chunk by chunk in turn, so that both meet the same disk."""
    store = EmbeddingStore.open(folder, "store", E)
    ours = plain = 0.0
    with (folder / "plain.f16").open("wb") as file:
        for start in range(0, len(keys), CHUNK):
            part = chunk[: len(keys) - start]
            ours += seconds(lambda at=start, rows=part: store.append(keys[at : at + CHUNK], rows))
            plain += seconds(lambda rows=part: write(file, rows))
    ours += seconds(store.settle)
    size = len(keys) * E * 2 / 1e6
    print(
        f"append: {size / ours:.0f} MB/s; write + fsync of the bytes {size / plain:.0f}: {ours / plain:.2f}x its time"
    )


def write(file: object, rows: np.ndarray) -> None:
    file.write(rows.data)
    file.flush()
    os.fsync(file.fileno())


def opening(folder: Path) -> None:
    times = [seconds(lambda: EmbeddingStore.open(folder, "store", E)) for _ in range(ROUNDS)]
    index = folder / "store" / "keys.index"
    index.rename(folder / "aside")
    bare = [seconds(lambda: EmbeddingStore.open(folder, "store", E)) for _ in range(ROUNDS)]
    (folder / "aside").rename(index)
    print(f"open: {statistics.median(times):.3f} s; without the index {statistics.median(bare):.3f} s")


def gather(store: EmbeddingStore, plain: Path, rng: np.random.Generator) -> None:
    mapped = np.memmap(plain, dtype=np.float16, mode="r", shape=(len(store), E))
    ratios = []
    for _ in range(20):
        at = rng.integers(0, len(store), 4_096)
        mapped[at], store.gather(at)  # both from memory
        ratios.append(cpu_seconds(lambda at=at: store.gather(at)) / cpu_seconds(lambda at=at: mapped[at]))
    print(f"gather of 4,096 rows: {statistics.median(ratios):.2f}x the CPU time of np.memmap[idx], median of 20")


def lookup(store: EmbeddingStore, keys: np.ndarray, rng: np.random.Generator) -> None:
    known = {key: row for row, key in enumerate(map(bytes, keys))}
    strange = rng.integers(0, 2**64, (len(keys) // 5, 2), dtype=np.uint64)
    asked = np.vstack([rng.permutation(keys)[len(strange) :], strange])
    words = [bytes(key) for key in asked]
    ours = [cpu_seconds(lambda: store.rows(asked)) for _ in range(ROUNDS)]
    peer = [cpu_seconds(lambda: [known.get(word, -1) for word in words]) for _ in range(ROUNDS)]
    rate, other = (len(asked) / statistics.median(times) / 1e6 for times in (ours, peer))
    print(f"look-ups: {rate:.1f} million a CPU second; a dict {other:.1f}: {rate / other:.1f}x")


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def cpu_seconds(run: Callable[[], object]) -> float:
    """What only computes is timed so: it says the same on a machine that others use too."""
    start = time.process_time()
    run()
    return time.process_time() - start


if __name__ == "__main__":
    place = Path(tempfile.mkdtemp(dir=sys.argv[1] if len(sys.argv) > 1 else "."))
    try:
        main(place, int(sys.argv[2]) if len(sys.argv) > 2 else ROWS)
    finally:
        shutil.rmtree(place)
