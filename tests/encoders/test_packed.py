"""The packed forward and the padded one against transformers' own, architecture by architecture."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel

from encoders.text.attention import Layout, attend
from encoders.text.forward import full_forward, halve, has_bf16_units
from encoders.text.packed import PackedEncoder, packable
from encoders.text.padded import PaddedEncoder

WORDS, E = 50, 16
SIZES = {
    "vocab_size": WORDS,
    "hidden_size": E,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 48,
}
KINDS = {
    "bert": {},
    "roberta": {},
    "xlm-roberta": {},
    "camembert": {},
    "electra": {"embedding_size": 8},
    "mpnet": {},
    "distilbert": {"dim": E, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
    "deberta-v2": {},
}


def make(kind):
    torch.manual_seed(0)
    sizes = {key: value for key, value in SIZES.items() if kind != "distilbert" or key[0] in "vm"}
    model = AutoModel.from_config(AutoConfig.for_model(kind, **(sizes | KINDS[kind])), attn_implementation=None).eval()
    with torch.no_grad():  # as drawn, biases are zero and norms do nothing: a mistake in them would not show
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture(scope="module")
def models():
    return {kind: make(kind) for kind in KINDS}


def texts_of(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, WORDS, (length,), generator=generator) for length in lengths]


def alone(model, texts):
    with torch.inference_mode():
        return [model(input_ids=ids[None]).last_hidden_state[0] for ids in texts]


def together(forward, texts):
    lengths = np.array([len(ids) for ids in texts])
    with torch.inference_mode():
        hidden = forward(torch.cat(texts), Layout.of(lengths, torch.device("cpu")))
    return hidden.split(lengths.tolist()) if len(hidden) == lengths.sum() else hidden


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=6)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12), seed=st.integers(0, 1000))
def test_the_same_vectors_as_each_text_alone(models, kind, lengths, seed):
    texts = texts_of(sorted(lengths), seed)
    forward = full_forward(models[kind], first_only=False)
    assert isinstance(forward, PaddedEncoder if kind == "deberta-v2" else PackedEncoder)
    for ours, theirs in zip(together(forward, texts), alone(models[kind], texts), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "deberta-v2"])
def test_the_same_vectors_as_one_padded_batch(models, kind):
    texts = texts_of([3, 9, 9, 17, 30])
    padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=models[kind].config.pad_token_id)
    mask = torch.arange(30) < torch.tensor([len(ids) for ids in texts])[:, None]
    with torch.inference_mode():
        hidden = models[kind](input_ids=padded, attention_mask=mask.long()).last_hidden_state
    for row, ours in enumerate(together(PackedEncoder(models[kind]), texts)):
        torch.testing.assert_close(ours, hidden[row, : len(ours)], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "deberta-v2"])
def test_any_order_and_company_gives_the_same_vectors(models, kind):
    texts = texts_of([4, 30, 4, 1, 17, 17])
    forward = PackedEncoder(models[kind])
    whole = together(forward, texts)
    order = [3, 0, 5, 1, 4, 2]
    for place, ours in zip(order, together(forward, [texts[at] for at in order]), strict=True):
        torch.testing.assert_close(ours, whole[place], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "deberta-v2"])
def test_the_first_tokens_alone(models, kind):
    texts = texts_of([1, 4, 4, 30])
    first = together(PackedEncoder(models[kind], first_only=True), texts)
    assert first.shape == (4, E)
    for ours, theirs in zip(first, alone(models[kind], texts), strict=True):
        torch.testing.assert_close(ours, theirs[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["roberta", "mpnet", "bert"])
def test_a_text_that_spells_the_padding_token(models, kind):
    texts = texts_of([4, 9])
    texts[1][[2, 5]] = models[kind].config.pad_token_id
    for ours, theirs in zip(together(PackedEncoder(models[kind]), texts), alone(models[kind], texts), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_no_padding_is_computed(models):
    seen = []
    forward = PackedEncoder(models["bert"])
    hook = forward.layers[0].wide.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    together(forward, texts_of([2, 3, 30]))
    hook.remove()
    assert seen == [35]


def test_attention_stays_within_a_sequence():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 12, 2, 4).unbind(0)
    layout = Layout.of(np.array([5, 1, 3, 3]), torch.device("cpu"))
    block = torch.repeat_interleave(layout.offset.diff())
    scores = torch.einsum("ihc,jhc->hij", query, key) / 2
    weights = scores.masked_fill(block[:, None] != block, -torch.inf).softmax(-1)
    expected = torch.einsum("hij,jhc->ihc", weights, value)
    torch.testing.assert_close(attend(query, key, value, layout), expected)
    first = layout.offset[:-1]
    torch.testing.assert_close(attend(query[first], key, value, layout), expected[first])


def test_decoders_have_no_packed_forward(models):
    config = AutoConfig.for_model("bert", is_decoder=True, **SIZES)
    assert not packable(AutoModel.from_config(config))
    assert packable(models["bert"])


@pytest.mark.parametrize("good", [True, False])
def test_bf16_only_where_it_keeps_the_vectors(models, good):
    full = PackedEncoder(models["bert"])

    def embed(forward):
        half = next(forward.parameters()).dtype == torch.bfloat16
        vectors = torch.stack([rows.float().mean(0) for rows in together(forward, texts_of([5, 9]))])
        return vectors * torch.linspace(-1, 1, E) if half and not good else vectors

    chosen = halve(full, embed)
    assert (chosen is full) is not good
    assert next(full.parameters()).dtype == torch.float32
    if good:
        assert {parameter.dtype for parameter in chosen.parameters()} == {torch.bfloat16}
        assert torch.cosine_similarity(embed(full), embed(chosen)).min() > 0.999


def test_devices_without_units_are_told():
    assert has_bf16_units(torch.device("meta")) is False
    assert isinstance(has_bf16_units(torch.device("cpu")), bool)
