"""Made-up labelled headlines and a tiny encoder that knows their words, for the tests of adapting one."""

from pathlib import Path

import numpy as np

from pipelines.opposites import opposites

PHRASES = {
    "positive": ("beats plan", "profit rises", "upgraded", "raises outlook", "shares jump", "wins order", "tops view"),
    "negative": ("misses plan", "profit falls", "downgraded", "cuts outlook", "shares plunge", "loses order", "trails"),
    "neutral": ("holds meeting", "names auditor", "moves office", "opens site", "publishes agenda", "renames unit"),
}
NAMES = ("delta", "kestrel", "marlow", "pinehurst", "sabre", "vexford", "wren", "zenith", "alder", "birch", "cobalt")
TAILS = ("", "monday", "in may", "again", "this year", "after review")


def sentences(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """That many different (text, label), a third of each label."""
    every = {
        label: [f"{name} {phrase} {tail}".strip() for phrase in phrases for name in NAMES for tail in TAILS]
        for label, phrases in PHRASES.items()
    }
    order = np.random.default_rng(seed)
    drawn = {label: order.permutation(texts) for label, texts in every.items()}
    labels = [tuple(PHRASES)[at % 3] for at in range(count)]
    return [(str(drawn[label][at // 3]), label) for at, label in enumerate(labels)]


def write_csv(path: Path, rows: list[tuple[str, str]], header: str = "text,label") -> Path:
    path.write_text("\n".join([header, *(f"{text},{label}" for text, label in rows)]) + "\n")
    return path


def tiny_encoder(folder: Path) -> Path:
    """A BERT of two layers with its tokenizer, random weights, saved as a local checkpoint."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    known = opposites()
    texts = [*known.good, *known.bad, *(text for text, _ in sentences(1000))]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({word for text in texts for word in split(text)})]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    size |= {"max_position_embeddings": 40, "hidden_dropout_prob": 0}
    config = BertConfig(vocab_size=len(words), initializer_range=0.1, **size)
    model = BertModel(config)
    torch.nn.init.normal_(model.embeddings.word_embeddings.weight)  # louder than positions, as if words meant something
    model.save_pretrained(folder)
    return folder


def split(text: str) -> list[str]:
    """As BERT's tokeniser splits."""
    return text.lower().replace("'", " ' ").replace("-", " - ").replace("%", " % ").split()
