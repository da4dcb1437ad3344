"""What `[text]` can say, from end to end: other inputs and kinds of encoder on a small lake."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data.embeddings import EmbeddingStore
from data.errors import LakeError
from encoders.text.load import resolve
from pipelines.dataset import load_embeddings, load_panel
from pipelines.workspace import Workspace, open_workspace

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "profit", "rose", "fell", "shares", "the", "answer:", "of"]
NEWS = """id,published_at,title,summary,ticker
x1,{day}T15:00:00Z,Widget maker opens a foundry,The foundry stands in Ohio.,{ticker}
x2,{day}T15:01:00Z,WIDGET MAKER OPENS A FOUNDRY,A copy with other words.,{ticker}
x3,{day}T15:02:00Z,Ferries stay in harbour,,{ticker}
"""


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder with random weights."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = Path(tmp_path_factory.mktemp("bert"))
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=64, **size)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny causal language model with random weights."""
    from transformers import BertTokenizerFast, LlamaConfig, LlamaForCausalLM

    folder = Path(tmp_path_factory.mktemp("llama"))
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), eos_token="[SEP]").save_pretrained(folder)  # noqa: S106
    torch.manual_seed(0)
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), max_position_embeddings=128, **size)).save_pretrained(folder)
    return folder


def settings(*keys: str) -> list[str]:
    return [part for key in keys for part in ("--set", f"text.{key}")]


def store_of(workspace: Workspace) -> tuple[EmbeddingStore, Any]:
    source = resolve(workspace.config.text)
    return EmbeddingStore.open(workspace.embeddings, source.fingerprint, source.dimension), source


def test_title_and_summary_are_one_text_and_one_vector(fresh: Path, bert: Path, tapewire: Callable[..., Any]) -> None:
    bars = open_workspace(fresh).lake.frame("bars", ["ticker", "session"])
    day, ticker = str(bars["session"].iloc[-1])[:10], bars["ticker"].iloc[-1]
    (fresh / "more.csv").write_text(NEWS.format(day=day, ticker=ticker))
    assert tapewire(fresh, "import", "headlines", "more.csv").code == 0
    ours = f"encoder={bert}"
    titles = tapewire(fresh, "embed", "--json", *settings(ours)).json
    workspace = open_workspace(fresh, (f"text.{ours}", "text.input=title+summary"))
    panel = load_panel(workspace, workspace.config)
    texts = [text for text in panel.news.texts if "foundry" in text.casefold() or "Ferries" in text]
    assert texts == ["Widget maker opens a foundry. The foundry stands in Ohio.", "Ferries stay in harbour"]
    with pytest.raises(LakeError, match="1 of"):
        load_embeddings(panel, *store_of(workspace))
    both = tapewire(fresh, "embed", "--json", *settings(ours, "input=title+summary")).json
    assert (both["embedded"], both["fingerprint"]) == (2, titles["fingerprint"])  # a text without a summary is known
    assert load_embeddings(panel, *store_of(workspace)).shape == (len(panel.news.texts), 8)


def test_a_causal_model_serves_from_embedding_to_forecast(
    fresh: Path, llama: Path, tapewire: Callable[..., Any]
) -> None:
    keys = settings(
        "kind=causal-lm", f"encoder={llama}", "bits=32", "sentiment=beside", "prompt=the {text} answer:",
        "labels=['rose','fell','shares']",
    )  # fmt: skip
    for command in ("embed", "train"):
        ran = tapewire(fresh, command, *keys, "--set", "train.epochs=1")
        assert ran.code == 0, ran.err
    scored = tapewire(fresh, "score", "--json")  # the model knows what reads its texts
    assert scored.code == 0, scored.err
    assert scored.json["scored"] > 0
    workspace = open_workspace(fresh, [key for key in keys if key != "--set"])
    store, source = store_of(workspace)
    vectors = load_embeddings(load_panel(workspace, workspace.config), store, source).astype(float)
    assert vectors.shape[1] == 8 + 3
    assert abs(vectors[:, 8:].sum(1) - 1).max() < 2e-3
