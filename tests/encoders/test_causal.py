import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoded_texts import vectors
from pydantic import ValidationError

from data.errors import EncoderError
from encoders.text.causal import CausalEncoder
from encoders.text.config import FINGPT_PROMPT, CausalLMConfig
from encoders.text.load import resolve

HEADLINES = [
    "profit rose",
    "profit fell and the outlook was cut",
    "the bank said profit rose in the quarter and the outlook was good",
    "",
    "shares fell",
    "the board said",
]
LABELS = ("positive", "negative", "neutral")

# peft 0.21 reads a property that transformers 5.23 is about to rename.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def tokenizer(folder: Path, side: str) -> int:
    """A tokenizer of whole words behind a <s>, saved to `folder`; how many it knows."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    words = f"{' '.join(HEADLINES)} {FINGPT_PROMPT} {' '.join(LABELS)} pos #itive #itudes".split()
    known = ["<s>", "</s>", "<unk>", *dict.fromkeys(words)]
    raw = Tokenizer(WordLevel({word: at for at, word in enumerate(known)}, unk_token="<unk>"))  # noqa: S106
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=raw, padding_side=side, **special).save_pretrained(folder)
    return len(known)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with random weights and its tokenizer, which would pad on the left."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = Path(tmp_path_factory.mktemp("causal") / "tiny-llama")
    vocabulary = tokenizer(folder, "left")
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=vocabulary, intermediate_size=32, max_position_embeddings=64, **size)
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model.save_pretrained(folder)
    return folder


def adapt(base: Path, folder: Path, **keys: Any) -> Path:
    """A LoRA adapter for `base`, with random matrices."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    config = LoraConfig(**({"r": 2, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"} | keys))
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapt(base, tmp_path_factory.mktemp("adapter"))


def config_of(base: Path, **keys: Any) -> CausalLMConfig:
    return CausalLMConfig(encoder=str(base), **({"bits": 32, "max_tokens": 16} | keys))


def encoder_of(base: Path, **keys: Any) -> CausalEncoder:
    config = config_of(base, **keys)
    encoder = config.build(resolve(config))
    assert isinstance(encoder, CausalEncoder)
    return encoder


def reference(base: Path, adapter: Path | None = None) -> tuple[Any, Any]:
    """The library's own model and tokenizer."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base).eval()
    return PeftModel.from_pretrained(model, adapter) if adapter else model, AutoTokenizer.from_pretrained(base)


def hidden(model: Any, tokenizer: Any, text: str) -> torch.Tensor:
    """[T, E] of one text."""
    with torch.inference_mode():
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        states: torch.Tensor = model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
    return states


def asked(model: Any, tokenizer: Any, text: str, prompt: str = FINGPT_PROMPT, labels: Any = LABELS) -> torch.Tensor:
    """Log-probabilities of the labels' words after the prompt, by running each whole sentence."""
    scores = []
    for label in labels:
        start = tokenizer(prompt.replace("{text}", text))["input_ids"]
        word = tokenizer(label, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([start + word])).logits[0].log_softmax(-1)
        scores.append(sum(logits[len(start) - 1 + at, token] for at, token in enumerate(word)))
    return torch.stack(scores).softmax(-1)


# --- what it computes


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("with_adapter", [False, True])
def test_hidden_states_are_the_librarys_own(base: Path, adapter: Path, pooling: str, with_adapter: bool) -> None:
    ours = encoder_of(base, pooling=pooling, adapter=str(adapter) if with_adapter else None)
    theirs = reference(base, adapter if with_adapter else None)
    expected = [hidden(*theirs, text) for text in HEADLINES]
    expected = [states[-1] if pooling == "last" else states.mean(0) for states in expected]
    found = ours._embed([ours._tokenizer(text)["input_ids"] for text in HEADLINES])
    np.testing.assert_allclose(found, torch.stack(expected), atol=1e-5)
    np.testing.assert_array_equal(vectors(ours, HEADLINES), found.half().numpy())


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_vector_does_not_depend_on_its_company_or_the_side_of_padding(base: Path, tmp_path: Path, side: str) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "copy"))
    tokenizer(folder, side)
    ours = encoder_of(folder, sentiment="beside")
    together = vectors(ours, HEADLINES)
    alone = np.vstack([vectors(ours, [text]) for text in HEADLINES])
    np.testing.assert_allclose(together, alone, atol=1e-3)
    np.testing.assert_allclose(together, vectors(ours, HEADLINES[::-1])[::-1], atol=1e-3)
    np.testing.assert_allclose(together, vectors(encoder_of(base, sentiment="beside"), HEADLINES), atol=1e-3)


def test_small_batches_and_groups_change_nothing(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = encoder_of(base, sentiment="beside")
    whole = vectors(ours, HEADLINES)
    monkeypatch.setattr("encoders.text.causal.CHUNK_TEXTS", 4)
    monkeypatch.setattr(ours, "_texts", 2)
    monkeypatch.setattr(ours, "_budget", 1)
    np.testing.assert_allclose(vectors(ours, HEADLINES), whole, atol=1e-3)
    assert len(list(ours.encode(HEADLINES))) == 3
    assert list(ours.encode([])) == []


def test_sentiment_is_the_probability_of_each_label_as_the_next_word(base: Path, adapter: Path) -> None:
    ours = encoder_of(base, adapter=str(adapter), sentiment="only")
    found = ours.score(HEADLINES)
    model, words = reference(base, adapter)
    np.testing.assert_allclose(found, torch.stack([asked(model, words, text) for text in HEADLINES]), atol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert found.std(0).min() > 0.01
    np.testing.assert_allclose(vectors(ours, HEADLINES), found, atol=1e-3)


def test_labels_that_begin_alike_are_scored_as_whole_words(base: Path) -> None:
    labels = ("pos #itive", "pos #itudes", "neutral")
    ours = encoder_of(base, sentiment="only", labels=labels, prompt="{text} Answer: ")
    expected = [asked(*reference(base), text, "{text} Answer: ", labels) for text in HEADLINES]
    np.testing.assert_allclose(ours.score(HEADLINES), torch.stack(expected), atol=1e-5)


def test_sentiment_stands_beside_the_embedding(base: Path) -> None:
    both = vectors(encoder_of(base, sentiment="beside"), HEADLINES)
    assert both.shape == (len(HEADLINES), 16 + 3)
    np.testing.assert_array_equal(both[:, :16], vectors(encoder_of(base), HEADLINES))
    np.testing.assert_array_equal(both[:, 16:], vectors(encoder_of(base, sentiment="only"), HEADLINES))


def test_an_adapter_changes_vectors_and_merged_is_as_good(base: Path, adapter: Path, tmp_path: Path) -> None:
    plain, beside = encoder_of(base, sentiment="beside"), encoder_of(base, sentiment="beside", adapter=str(adapter))
    assert not np.allclose(vectors(plain, HEADLINES), vectors(beside, HEADLINES), atol=0.1)
    shutil.copytree(base, tmp_path / "merged")
    reference(base, adapter)[0].merge_and_unload().save_pretrained(tmp_path / "merged")
    merged = encoder_of(tmp_path / "merged", sentiment="beside")
    tokens = [beside._tokenizer(text)["input_ids"] for text in HEADLINES]
    np.testing.assert_allclose(merged._embed(tokens), beside._embed(tokens), atol=1e-5)
    np.testing.assert_allclose(merged.score(HEADLINES), beside.score(HEADLINES), atol=1e-5)


def test_what_is_beyond_max_tokens_is_read_in_windows_or_not_at_all(base: Path) -> None:
    long = HEADLINES[2]
    words = long.split()
    cut = encoder_of(base, max_tokens=5, sentiment="beside")
    np.testing.assert_array_equal(vectors(cut, [long]), vectors(cut, [" ".join(words[:4])]))
    chunked = encoder_of(base, max_tokens=5, sentiment="beside", chunks=3, overlap=1)
    starts = [words[0:4], words[3:7], words[6:10]]
    windows = vectors(cut, [" ".join(part) for part in starts]).astype(float)
    np.testing.assert_allclose(vectors(chunked, [long])[0], windows.mean(0), atol=2e-3)
    np.testing.assert_allclose(vectors(chunked, HEADLINES)[2], windows.mean(0), atol=2e-3)
    np.testing.assert_array_equal(vectors(chunked, ["profit rose"]), vectors(cut, ["profit rose"]))


def test_windows_weigh_by_their_tokens(base: Path) -> None:
    text = " ".join(HEADLINES[2].split()[:6])  # 4 words and 2, behind a <s> each
    cut = encoder_of(base, max_tokens=5)
    first, second = vectors(cut, [" ".join(text.split()[:4]), " ".join(text.split()[4:])]).astype(float)
    found = vectors(encoder_of(base, max_tokens=5, chunks=9), [text])[0]
    np.testing.assert_allclose(found, (5 * first + 3 * second) / 8, atol=2e-3)


def test_a_text_of_a_megabyte_is_read_as_far_as_the_budget_goes(base: Path) -> None:
    text = "profit rose " * 90_000
    for keys, words in (({}, 15), ({"chunks": 3, "sentiment": "beside"}, 45)):
        ours = encoder_of(base, **keys)
        np.testing.assert_array_equal(vectors(ours, [text]), vectors(ours, [" ".join(text.split()[:words])]))


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_fewer_bits_say_nearly_the_same(base: Path, adapter: Path, bits: int) -> None:
    if bits < 16:
        pytest.importorskip("bitsandbytes", reason="the extra `quantised` is absent")
    exact = vectors(encoder_of(base, adapter=str(adapter)), HEADLINES).astype(float)
    coarse = vectors(encoder_of(base, adapter=str(adapter), bits=bits), HEADLINES).astype(float)
    cosine = (exact * coarse).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(coarse, axis=1)
    assert np.median(cosine) > {16: 0.999, 8: 0.99, 4: 0.9}[bits]
    assert not np.array_equal(exact, coarse)


# --- what it refuses


def test_fingerprint_names_everything_the_vectors_depend_on(base: Path, adapter: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    ask = {"sentiment": "beside"}
    variants: list[dict[str, Any]] = [
        {}, {"pooling": "mean"}, {"max_tokens": 8}, {"bits": 16}, {"chunks": 2}, {"chunks": 2, "overlap": 1},
        {"adapter": str(own)}, ask, {"sentiment": "only"}, ask | {"prompt": "{text}?"}, ask | {"labels": LABELS[:2]},
    ]  # fmt: skip
    prints = [resolve(config_of(base, **keys)).fingerprint for keys in variants]
    weights = own / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    prints.append(resolve(config_of(base, adapter=str(own))).fingerprint)
    assert len(set(prints)) == len(variants) + 1
    same = [{"overlap": 3}, {"prompt": "{text}?"}, {"input": "title+summary"}]  # of no effect on a text's vector
    assert {resolve(config_of(base, **keys)).fingerprint for keys in same} == {prints[0]}


def edit(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def to_pickle(folder: Path) -> None:
    from safetensors.torch import load_file

    (weights,) = folder.glob("*model.safetensors")
    torch.save(load_file(weights), folder / ("adapter_model.bin" if "adapter" in weights.name else "pytorch_model.bin"))
    weights.unlink()


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda folder: edit(folder / "config.json", architectures=["BertModel"]), 'BertModel; text.kind = "encoder"'),
        (lambda folder: edit(folder / "config.json", architectures=["T5ForConditionalGeneration"]), "architecture is"),
        (to_pickle, "no model.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"junk"), "cannot load it"),
        (lambda folder: edit(folder / "config.json", num_hidden_layers=3), "lack"),
        (lambda folder: edit(folder / "config.json", intermediate_size=64), "contradict|cannot load"),
        (lambda folder: edit(folder / "config.json", model_type="never-heard-of"), "cannot load it"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer cannot be loaded"),
        (lambda folder: [file.unlink() for file in folder.glob("tok*")], "no tokenizer"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "x.st"}}'), "x.st"),
        (shutil.rmtree, "cannot be had"),
    ],
)
@pytest.mark.usefixtures("no_hub")
def test_what_is_no_causal_model_is_refused(base: Path, tmp_path: Path, spoil: Any, found: str) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "copy"))
    spoil(folder)
    with pytest.raises(EncoderError, match=found) as caught:
        encoder_of(folder)
    assert "\n" not in str(caught.value)
    assert "text.encoder" in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (to_pickle, "no adapter_model.safetensors.*docs/text-encoders.md"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"junk"), "does not fit"),
        (lambda folder: edit(folder / "adapter_config.json", peft_type="IA3"), "peft_type IA3"),
        (lambda folder: edit(folder / "adapter_config.json", target_modules=["c_attn"]), "does not fit"),
        (lambda folder: edit(folder / "adapter_config.json", target_modules=["q_proj"]), "do not pair up"),
        (lambda folder: edit(folder / "adapter_config.json", r=3), "does not fit"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "adapter_config.json cannot be read"),
        (shutil.rmtree, "cannot be had"),
    ],
)
@pytest.mark.usefixtures("no_hub")
def test_what_is_no_adapter_for_the_base_is_refused(
    base: Path, adapter: Path, tmp_path: Path, spoil: Any, found: str
) -> None:
    folder = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    spoil(folder)
    with pytest.raises(EncoderError, match=found) as caught:
        encoder_of(base, adapter=str(folder))
    assert "\n" not in str(caught.value)
    assert "text.adapter" in str(caught.value)


def test_an_adapter_of_a_deeper_or_wider_base_is_refused(base: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    for name, keys in {"deeper": {"num_hidden_layers": 3}, "wider": {"hidden_size": 32}}.items():
        other = LlamaConfig.from_pretrained(base)
        other.update(keys)
        LlamaForCausalLM(other).save_pretrained(tmp_path / name)
        foreign = adapt(tmp_path / name, tmp_path / f"adapter-{name}")
        with pytest.raises(EncoderError, match=r"does not fit|pair up"):
            encoder_of(base, adapter=str(foreign))


def test_an_adapter_that_names_another_model_is_refused(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    monkeypatch.setattr("encoders.text.checkpoint._hub", lambda *_: base)
    for meant in ("meta-llama/Llama-2-7b-hf", "/old/disk/llama-2-7B-hf/", ""):
        edit(folder / "adapter_config.json", base_model_name_or_path=meant)
        resolve(CausalLMConfig(encoder="mirror/Llama-2-7b-hf", adapter=str(folder), max_tokens=16))
    edit(folder / "adapter_config.json", base_model_name_or_path="meta-llama/Llama-2-13b-hf")
    with pytest.raises(EncoderError, match=r"for mirror/Llama-2-7b-hf, but .* made for meta-llama/Llama-2-13b-hf"):
        resolve(CausalLMConfig(encoder="mirror/Llama-2-7b-hf", adapter=str(folder), max_tokens=16))
    assert not caplog.records
    resolve(config_of(base, adapter=str(folder)))  # a folder may be called anything
    assert "made for meta-llama/Llama-2-13b-hf" in caplog.text


@pytest.mark.parametrize("bits", [4, 8])
def test_a_missing_extra_is_named(base: Path, monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    import importlib.util as spec

    find = spec.find_spec
    monkeypatch.setattr(spec, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else find(name, *rest))
    with pytest.raises(EncoderError, match=r"needs the Python package bitsandbytes.*tapewire\[quantised\]"):
        encoder_of(base, bits=bits)


def test_labels_and_prompts_that_cannot_be_told_apart_or_read_are_refused(base: Path) -> None:
    with pytest.raises(EncoderError, match=r"text\.labels"):
        encoder_of(base, sentiment="only", labels=("unheard", "unknown"))
    with pytest.raises(EncoderError, match=r"text\.prompt adds .* at most 64"):
        encoder_of(base, sentiment="only", max_tokens=60)
    with pytest.raises(EncoderError, match="at most 64"):
        encoder_of(base, max_tokens=65)


def test_a_vector_that_is_not_finite_names_the_text(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = encoder_of(base)
    monkeypatch.setattr(ours, "_embed", lambda tokens: torch.full((len(tokens), 16), 1e6))
    with pytest.raises(EncoderError, match="profit rose"):
        list(ours.encode(["profit rose"]))


@pytest.mark.parametrize(
    "keys",
    [{"bits": 5}, {"pooling": "cls"}, {"prompt": "no place"}, {"labels": ("one",)}, {"labels": ("a", "a")}, {"x": 1},
     {"encoder": ""}, {"adapter": ""}, {"labels": ("a", " ")}, {"overlap": 32}],
)  # fmt: skip
def test_wrong_config_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CausalLMConfig(**({"encoder": "a/b"} | keys))
