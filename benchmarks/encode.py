"""Headlines a second: our text encoder against sentence-transformers, same model, same headlines, same process."""

import numpy as np
from paired import compare
from sentence_transformers import SentenceTransformer

from data.simulate import MarketConfig, simulate
from encoders.text.config import TextConfig
from encoders.text.encode import TextEncoder
from encoders.text.load import resolve

HEADLINES = 2_000


def main() -> None:
    titles = simulate(MarketConfig(sessions=600)).headlines["title"].unique()
    texts = list(np.random.default_rng(0).choice(titles, HEADLINES, replace=False))
    source = resolve(TextConfig(encoder="minilm"))
    ours, peer = TextEncoder.load(source), SentenceTransformer(str(source.folder))
    compare(
        f"{HEADLINES} headlines against sentence_transformers.encode(batch_size=32)",
        lambda: list(ours.encode(texts)),
        lambda: peer.encode(texts, batch_size=32, show_progress_bar=False),
        rounds=3,
    )


if __name__ == "__main__":
    main()
