"""Headlines a second: our text encoder against sentence-transformers and the naive pipeline, same model, same process.

`python benchmarks/encode.py [HEADLINES]` (4,000). One thread on a CPU; on a GPU also TFLOP/s and the share of its
dense bf16 peak. BERT-base has random weights and MiniLM's tokenizer: its speed is that of any other BERT-base.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from paired import compare
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import AutoTokenizer, BertConfig, BertModel, pipeline

from data.embeddings import EmbeddingStore
from data.simulate import MarketConfig, simulate
from data.text import text_keys
from encoders.text.config import EncoderConfig
from encoders.text.encode import TextEncoder, batches
from encoders.text.load import resolve

HEADLINES, ROUNDS, NAIVE = 4_000, 3, 200
PEAK = {"H100": 989, "H200": 989, "A100": 312, "B200": 2_250, "L40S": 362, "L4": 121}  # dense bf16 TFLOP/s


def main(count: int) -> None:
    torch.set_num_threads(1)
    texts = headlines(count)
    words = [len(text.split()) for text in texts]
    print(f"{count} headlines of {min(words)} to {max(words)} words")
    with tempfile.TemporaryDirectory() as folder:
        measure("MiniLM", TextEncoder.load(resolve(EncoderConfig(encoder="minilm"))), texts)
        base = bert_base(Path(folder))
        few = texts if torch.cuda.is_available() else texts[: max(count // 10, 1)]
        measure("BERT-base", TextEncoder.load(resolve(EncoderConfig(encoder=base))), few)


def headlines(count: int) -> list[str]:
    """Distinct titles of the simulated market, joined until they have 8 to 20 words."""
    titles = simulate(MarketConfig(sessions=600)).headlines["title"].unique()
    random = np.random.default_rng(0)
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        joined = " ".join(random.choice(titles, 3)).split()
        drawn[" ".join(joined[: random.integers(8, 21)])] = None
    return list(drawn)


def bert_base(folder: Path) -> str:
    torch.manual_seed(0)
    BertModel(BertConfig()).save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve(EncoderConfig(encoder="minilm")).folder).save_pretrained(folder)
    return str(folder)


def measure(name: str, ours: TextEncoder, texts: list[str]) -> None:
    folder, device = str(ours.source.folder), str(ours.device)
    body = Transformer(folder)
    peer = SentenceTransformer(modules=[body, Pooling(ours.source.dimension)], device=device)
    agree(ours, peer, texts[:64])
    compare(
        f"{name}, {len(texts)} headlines against sentence_transformers.encode(batch_size=32)",
        lambda: list(ours.encode(texts)),
        lambda: peer.encode(texts, batch_size=32, show_progress_bar=False),
        rounds=ROUNDS,
    )
    naive = pipeline("feature-extraction", model=folder, tokenizer=folder, device=device)
    few = texts[:: max(len(texts) // NAIVE, 1)]
    compare(
        f"{name}, {len(few)} headlines against pipeline('feature-extraction') one by one",
        lambda: list(ours.encode(few)),
        lambda: [np.mean(naive(text)[0], axis=0) for text in few],
        rounds=1,
    )
    stages(ours, texts)


def agree(ours: TextEncoder, peer: SentenceTransformer, texts: list[str]) -> None:
    theirs = peer.encode(texts, batch_size=32, show_progress_bar=False)
    worst = 1.0
    for positions, rows in ours.encode(texts):
        a, b = rows.astype(np.float64), theirs[positions].astype(np.float64)
        worst = min(worst, ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())
    print(f"worst cosine to sentence-transformers {worst:.6f}")


def stages(ours: TextEncoder, texts: list[str]) -> None:
    """Where the time goes, each stage by itself; in a run tokenising and storing overlap with computing."""
    start = time.perf_counter()
    sequences = ours._tokenise(texts)
    tokenised = time.perf_counter()
    grouped = list(batches(sequences.lengths, ours._budget))
    packed = time.perf_counter()
    rows = np.concatenate(list(ours._run(sequences, grouped)))
    computed = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        EmbeddingStore.open(Path(folder), "bench", rows.shape[1]).append(text_keys(texts), rows)
    stored = time.perf_counter()
    spans = {"tokenise": tokenised - start, "sort": packed - tokenised, "pack and compute": computed - packed}
    spans["store"] = stored - computed
    rate = flops(ours, sequences.lengths) / spans["pack and compute"] / 1e12
    print(", ".join(f"{stage} {span:.3f} s" for stage, span in spans.items()))
    print(f"{len(texts) / (computed - start):.0f} headlines a second, {rate:.3f} TFLOP/s, bf16: {bf16(ours)}")
    if ours.device.type == "cuda":
        card = torch.cuda.get_device_name(ours.device)
        peak = next((peak for part, peak in PEAK.items() if part in card), None)
        print(f"{card}: {f'{rate / peak:.0%} of its dense bf16 peak' if peak else 'its peak is not in the table'}")
    else:
        print("no GPU at hand: no share of a card's peak")


def flops(ours: TextEncoder, lengths: np.ndarray) -> float:
    """Of the matrix products: 24 E^2 a token and layer, and 4 T E for its attention over T tokens."""
    config = BertConfig.from_pretrained(ours.source.folder)
    width, layers = config.hidden_size, config.num_hidden_layers
    products = 8 * width**2 + 4 * width * config.intermediate_size
    return float(layers * (products * lengths.sum() + 4 * width * (lengths.astype(np.float64) ** 2).sum()))


def bf16(ours: TextEncoder) -> bool:
    return next(ours._forward.parameters()).dtype == torch.bfloat16


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else HEADLINES)
