"""Headlines a second: our text encoder against sentence-transformers, same model, same headlines, same process.

Prints one line a round and the median ratio. The two take turns, so that a machine's drift hits both alike.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
from sentence_transformers import SentenceTransformer

from data.simulate import MarketConfig, simulate
from encoders.text.config import TextConfig
from encoders.text.encode import TextEncoder
from encoders.text.load import resolve

HEADLINES, ROUNDS = 2_000, 3


def main() -> None:
    titles = simulate(MarketConfig(sessions=600)).headlines["title"].unique()
    texts = list(np.random.default_rng(0).choice(titles, HEADLINES, replace=False))
    source = resolve(TextConfig(encoder="minilm"))
    ours, peer = TextEncoder.load(source), SentenceTransformer(str(source.folder))
    ratios = []
    for turn in range(ROUNDS):
        fast = seconds(lambda: list(ours.encode(texts)))
        slow = seconds(lambda: peer.encode(texts, batch_size=32, show_progress_bar=False))
        ratios.append(slow / fast)
        print(f"round {turn + 1}: {HEADLINES / fast:.0f}/s against {HEADLINES / slow:.0f}/s, ratio {ratios[-1]:.2f}")
    print(f"encode: {statistics.median(ratios):.2f}x sentence_transformers.encode(batch_size=32), median of {ROUNDS}")


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
