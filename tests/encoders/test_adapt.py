import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentiments import sentences, tiny_encoder

from data.errors import EncoderError
from encoders.text.adapt import AdaptConfig, Labelled, class_contrast, cross_entropy, fit, training_batches
from encoders.text.classifier import build_classifier, order_labels, own_labels, tokenise
from encoders.text.config import EncoderConfig
from encoders.text.load import resolve

LABELS = ["negative", "neutral", "positive"]
QUICK = {"learning_rate": 3e-3, "epochs": 6, "batch_size": 16}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("tiny-sentiment"))


def source_of(folder, **keys):
    return resolve(EncoderConfig(encoder=str(folder), max_tokens=24, **keys))


def labelled(source, count, seed=0):
    texts, labels = zip(*sentences(count, seed), strict=True)
    return Labelled(tokenise(source, texts), np.array([LABELS.index(label) for label in labels]))


def fresh(source, config):
    torch.manual_seed(config.seed)
    return build_classifier(source, LABELS, config.rank if config.method == "lora" else None)


def adapted(source, config, texts):
    model = fresh(source, config)
    fit(model, labelled(source, texts), config)
    return model


def cosine(a, b):
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(("method", "pooling"), [("full", "mean"), ("full", "cls"), ("full", "max"), ("lora", "mean")])
def test_labels_are_learned_and_opposites_drawn_apart(folder, method, pooling):
    source = source_of(folder, pooling=pooling)
    config = AdaptConfig(method=method, **QUICK)
    model = fresh(source, config)
    pair = tokenise(source, ["kestrel upgraded in may", "kestrel downgraded in may"])
    before = cosine(*model.read(pair)[1])
    fit(model, labelled(source, 240), config)
    held_out = labelled(source, 60, seed=9)
    assert (model.read(held_out.tokens)[0].argmax(1) == held_out.label_N).mean() > 0.9
    assert cosine(*model.read(pair)[1]) < min(0.5, before - 0.3)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_is_saved_is_read_as_an_encoder_and_as_a_classifier(folder, tmp_path, method):
    from transformers import AutoModelForSequenceClassification

    source = source_of(folder)
    model = adapted(source, AdaptConfig(method=method, **QUICK), texts=48)
    texts = [text for text, _ in sentences(12, seed=3)]
    log_NC, pooled_NE = model.read(tokenise(source, texts))
    files = model.save(source, tmp_path)
    assert set(files) == {path.name for path in tmp_path.iterdir()}
    assert not [name for name in files if name.endswith(".bin")]
    assert (tmp_path / "vocab.txt").read_bytes() == (folder / "vocab.txt").read_bytes()
    assert str(folder) not in (tmp_path / "config.json").read_text()

    found = source_of(tmp_path)
    assert found.fingerprint != source.fingerprint
    vectors = np.full((len(texts), found.dimension), np.nan, np.float32)
    for positions, rows in found.config.build(found).encode(texts):
        vectors[positions] = rows
    np.testing.assert_allclose(vectors, pooled_NE, atol=2e-3)

    network = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert network.config.id2label == dict(enumerate(LABELS))
    with torch.inference_mode():
        for tokens, log_C in zip(tokenise(found, texts), log_NC, strict=True):
            logits_1C = network(input_ids=torch.tensor([tokens])).logits
            np.testing.assert_allclose(logits_1C.log_softmax(-1)[0], log_C, atol=1e-4)


def test_the_saved_classifier_gives_the_sentiment_pooling_its_probabilities(folder, tmp_path):
    source = source_of(folder)
    model = adapted(source, AdaptConfig(**QUICK), texts=48)
    model.save(source, tmp_path)
    found = source_of(tmp_path, pooling="sentiment")
    ((positions, rows),) = found.config.build(found).encode(["delta upgraded in may", "delta downgraded in may"])
    shares = np.sort(rows[np.argsort(positions)][:, -3:].astype(np.float32), axis=1)
    expected = np.sort(np.exp(model.read(tokenise(source, ["delta upgraded in may", "delta downgraded in may"]))[0]), 1)
    np.testing.assert_allclose(shares, expected, atol=2e-3)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(folder, tmp_path, method):
    source = source_of(folder)
    hashes = []
    for run, seed in enumerate([0, 0, 1]):
        (tmp_path / str(run)).mkdir()
        model = adapted(source, AdaptConfig(method=method, seed=seed, **QUICK), texts=48)
        hashes.append(model.save(source, tmp_path / str(run)))
    assert hashes[0] == hashes[1]
    assert hashes[0]["model.safetensors"] != hashes[2]["model.safetensors"]
    assert hashes[0]["config.json"] == hashes[2]["config.json"]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_word_vectors_stay_and_the_rest_is_trained(folder, method):
    source = source_of(folder)
    config = AdaptConfig(method=method, **QUICK)
    model = fresh(source, config)
    words = model.network.get_input_embeddings().weight.detach().clone()
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert any("classifier" in name for name in trained)
    assert all("lora" in name or "classifier" in name for name in trained) == (method == "lora")
    fit(model, labelled(source, 48), config)
    assert torch.equal(model.network.get_input_embeddings().weight, words)


def test_the_best_epoch_on_validation_is_kept(folder):
    source = source_of(folder)
    config = AdaptConfig(**QUICK)
    valid = labelled(source, 60, seed=5)
    model, seen = fresh(source, config), []
    best = fit(model, labelled(source, 120), config, valid, advance=lambda: seen.append(None))
    assert 1 <= best <= len(seen) <= config.epochs
    again = fresh(source, config)
    assert fit(again, labelled(source, 120), config, epochs=best) == best
    assert cross_entropy(again, valid) == pytest.approx(cross_entropy(model, valid), rel=1e-4)


def test_a_loss_that_is_not_finite_ends_training(folder):
    source = source_of(folder)
    config = AdaptConfig(learning_rate=1e30, epochs=1)
    with pytest.raises(EncoderError, match="--learning-rate"):
        fit(fresh(source, config), labelled(source, 96), config)


def test_a_text_reads_the_same_in_any_company_and_order(folder):
    source = source_of(folder)
    model = fresh(source, AdaptConfig())
    tokens = labelled(source, 40).tokens
    log_NC, pooled_NE = model.read(tokens)
    order = np.random.default_rng(0).permutation(len(tokens))
    shuffled = model.read([tokens[at] for at in order])
    np.testing.assert_allclose(shuffled[0], log_NC[order], atol=1e-5)
    np.testing.assert_allclose(shuffled[1], pooled_NE[order], atol=1e-5)
    np.testing.assert_allclose(model.read(tokens[:1])[1], pooled_NE[:1], atol=1e-5)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=300), st.integers(2, 40), st.integers(0, 5))
@settings(deadline=None)
def test_batches_hold_every_text_once(lengths, size, seed):
    batches = list(training_batches(np.array(lengths), size, np.random.default_rng(seed)))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= size for batch in batches)


def test_batches_waste_little_on_padding():
    length_N = np.random.default_rng(0).integers(8, 64, 2000)
    padded = sum(
        length_N[batch].max() * len(batch) for batch in training_batches(length_N, 32, np.random.default_rng(1))
    )
    assert padded < 1.1 * length_N.sum()


def test_the_contrastive_loss_is_that_of_the_paper():
    pooled_BE = torch.randn(7, 5, generator=torch.manual_seed(0))
    label = [0, 1, 0, 2, 1, 0, 3]
    unit = torch.nn.functional.normalize(pooled_BE, dim=-1).double()
    terms = []
    for i in range(7):
        same = [p for p in range(7) if p != i and label[p] == label[i]]
        below = sum(torch.exp(unit[i] @ unit[a] / 0.2) for a in range(7) if a != i)
        if same:
            terms.append(-sum(torch.log(torch.exp(unit[i] @ unit[p] / 0.2) / below) for p in same) / len(same))
    expected = sum(terms) / len(terms)
    assert float(class_contrast(pooled_BE, torch.tensor(label), 0.2)) == pytest.approx(float(expected), rel=1e-5)


def test_the_contrastive_loss_of_texts_without_a_like_is_zero_and_has_a_gradient():
    pooled_BE = torch.randn(3, 4, requires_grad=True)
    loss = class_contrast(pooled_BE, torch.tensor([0, 1, 2]), 0.2)
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.isfinite(pooled_BE.grad).all()


def classifier_of(folder, target, labels):
    """The tiny encoder with a classifier of its own."""
    from transformers import AutoModelForSequenceClassification

    names = {"id2label": dict(enumerate(labels)), "label2id": {label: at for at, label in enumerate(labels)}}
    shutil.copytree(folder, target)
    torch.manual_seed(5)
    AutoModelForSequenceClassification.from_pretrained(folder, **names).save_pretrained(target)
    return source_of(target)


def test_a_classifier_for_the_same_labels_is_kept_in_its_order(folder, tmp_path):
    source = classifier_of(folder, tmp_path / "base", ["Positive", "Negative", "Neutral"])
    assert own_labels(source) == ["Positive", "Negative", "Neutral"]
    labels = order_labels(source, ["neutral", "positive", "negative", "neutral"])
    assert labels == ["positive", "negative", "neutral"]
    kept = build_classifier(source, labels, None).network.classifier.weight
    assert torch.equal(kept, build_classifier(source, labels, None).network.classifier.weight)
    assert torch.equal(kept, build_classifier(source, labels, 4).network.get_base_model().classifier.weight)


@pytest.mark.parametrize("own", [["LABEL_0", "LABEL_1", "LABEL_2"], ["good", "bad"]])
def test_a_classifier_for_other_labels_is_replaced(folder, tmp_path, own):
    source = classifier_of(folder, tmp_path / "base", own)
    assert order_labels(source, ["positive", "negative", "neutral"]) == LABELS
    heads = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        heads.append(build_classifier(source, LABELS, None).network.classifier.weight)
    assert heads[0].shape == (3, 64)
    assert not torch.equal(*heads)


def test_an_encoder_that_lacks_weights_is_refused(folder, tmp_path):
    target = shutil.copytree(folder, tmp_path / "base")
    details = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**details, "num_hidden_layers": 3}))
    with pytest.raises(EncoderError, match="lack"):
        build_classifier(source_of(target), LABELS, None)


def test_a_tokenizer_that_cannot_be_read_is_refused(folder, tmp_path):
    target = shutil.copytree(folder, tmp_path / "base")
    (target / "tokenizer.json").write_text("{")
    with pytest.raises(EncoderError, match="tokenizer"):
        tokenise(source_of(target), ["delta"])


def test_an_architecture_without_a_classifier_is_refused(folder, tmp_path):
    target = shutil.copytree(folder, tmp_path / "base")
    details = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**details, "model_type": "vit"}))
    with pytest.raises(EncoderError, match="classifier"):
        build_classifier(source_of(target), LABELS, None)
