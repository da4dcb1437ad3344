"""ProbSparse attention and distilling against transformers' own, and what a fixed sample of keys is for."""

import math

import pytest
import torch
from allocations import Largest
from price_windows import random_windows
from torch import Tensor, nn
from transformers.models.informer.modeling_informer import InformerConvLayer, InformerProbSparseAttention

from encoders.price import informer
from encoders.price.informer import Distil, InformerConfig, SparseBlock, budget, expand, sampled
from encoders.price.transformer import TransformerConfig

B, L, F, D, HEADS = 5, 40, 6, 16, 4


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def block(factor: int = 2) -> SparseBlock:
    return SparseBlock(TransformerConfig(width=D, heads=HEADS, dropout=0.0), factor, layer=0).eval()


def windows() -> tuple[Tensor, Tensor]:
    return random_windows(B, L, F)


@pytest.mark.parametrize("factor", [2, 5, 100])
def test_attention_is_that_of_transformers(monkeypatch, factor):
    ours, theirs = block(factor), InformerProbSparseAttention(D, HEADS, sampling_factor=factor).eval()
    for name, weight in zip(("q_proj", "k_proj", "v_proj"), ours.qkv.weight.chunk(3), strict=True):
        getattr(theirs, name).weight.data.copy_(weight)
        getattr(theirs, name).bias.data.zero_()
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    ours.norm_attention, ours.mlp = nn.Identity(), Zero()
    monkeypatch.setattr(informer, "sampled", lambda length, _factor, _layer: torch.arange(length))
    monkeypatch.setattr(torch, "randint", lambda _low, high, _size: torch.arange(high))
    tokens_BLD = torch.randn(B, L, D)
    expected_BLD = tokens_BLD + theirs(tokens_BLD)[0]
    torch.testing.assert_close(ours(tokens_BLD, torch.ones(B, L).bool()), expected_BLD, atol=1e-5, rtol=0)


class Zero(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return torch.zeros_like(tokens)


def test_distilling_is_that_of_transformers():
    ours, theirs = Distil(D), InformerConvLayer(D)
    theirs.downConv.weight.data.copy_(ours.convolution.weight.unflatten(1, (3, D)).transpose(1, 2))
    theirs.downConv.bias.data.copy_(ours.convolution.bias)
    theirs.downConv.padding_mode, theirs.norm = "zeros", nn.Identity()
    tokens_BLD = torch.randn(B, L, D)
    torch.testing.assert_close(ours(tokens_BLD, torch.ones(B, L).bool())[0], theirs(tokens_BLD), atol=1e-5, rtol=0)


def test_an_odd_window_gets_a_blank_before_its_first_session():
    distil, tokens_BLD, mask_BL = Distil(D), torch.randn(B, 7, D), torch.rand(B, 7) < 0.5
    odd = distil(tokens_BLD, mask_BL)
    even = distil(nn.functional.pad(tokens_BLD, (0, 0, 1, 0), value=9.0), nn.functional.pad(mask_BL, (1, 0)))
    assert torch.equal(odd[0], even[0])
    assert torch.equal(odd[1], even[1])
    assert odd[1].tolist() == [[bool(m[:1].any())] + [bool(m[i : i + 2].any()) for i in (1, 3, 5)] for m in mask_BL]


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 20, 60, 61, 64, 250, 500])
def test_the_sample_of_keys_is_spread_and_always_the_same(length):
    sample = sampled(length, 5, layer=1)
    assert len(set(sample.tolist())) == len(sample) == budget(length, 5)
    assert torch.equal(sample, sampled(length, 5, layer=1))
    gaps = sample.sort().values.diff(prepend=torch.tensor([-1]), append=torch.tensor([length]))
    assert gaps.max() <= 4 * length / len(sample)
    assert length < 20 or len({int(place) % 5 for place in sample}) == 5  # no weekday is left out


def test_the_budget_is_logarithmic():
    assert [budget(length, 5) for length in (2, 60, 500)] == [2, 25, 35]


def test_active_queries_are_those_of_equation_4():
    query, key = torch.randn(1, HEADS, L, 4), torch.randn(1, HEADS, L, 4)
    mask_BL = torch.rand(1, L) < 0.6
    sample = sampled(L, 2, layer=0)
    found = informer.active(query, key, mask_BL, sample, 8)
    seen = [place for place in sample.tolist() if mask_BL[0, place]]
    for head in range(HEADS):
        score = query[0, head] @ key[0, head].T
        peak = {i: float(score[i, seen].max() - score[i, seen].mean()) for i in range(L) if mask_BL[0, i]}
        assert set(found[0, head].tolist()) == set(sorted(peak, key=peak.__getitem__)[-8:])


def test_maps_are_what_attention_did():
    sparse, mask_BL = block(), windows()[1]
    tokens_BLD = torch.randn(B, L, D)
    maps = sparse.maps(tokens_BLD, mask_BL)
    _, _, value = sparse.split(tokens_BLD)
    mixed_BLD = (maps @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(sparse._deepen(tokens_BLD, mixed_BLD), sparse(tokens_BLD, mask_BL), atol=1e-5, rtol=0)
    uniform = mask_BL.float() / mask_BL.sum(-1, keepdim=True)
    lazy = torch.isclose(maps, uniform[:, None, None], atol=1e-7).all(-1)
    assert (lazy.sum(-1) == L - budget(L, 2)).all()


@pytest.mark.parametrize("layers", [1, 2, 3, 8])
@pytest.mark.parametrize("length", [2, 3, 13, 37, 40])
def test_attention_of_sessions_sums_to_one_over_the_observed(layers, length):
    price_BLF, mask_BL = (part[:, -length:] for part in windows())
    encoder = InformerConfig(lookback=L, width=D, layers=layers, factor=1).build(F).eval()
    encoded = encoder(price_BLF, mask_BL, explain=True)
    assert encoded.attention.shape == (B, layers, HEADS, length, length)
    torch.testing.assert_close(encoded.attention.sum(-1), torch.ones(B, layers, HEADS, length))
    assert not encoded.attention[~mask_BL[:, None, None, None].expand_as(encoded.attention)].any()
    assert encoded.sequence_BLD.shape[1] == encoded.mask_BL.shape[1] == math.ceil(length / 2 ** (layers - 1))


def test_a_merged_token_shares_its_weight_among_its_observed_sessions():
    maps = torch.tensor([[0.25, 0.75], [1.0, 0.0]])[None, None]
    shared = expand(maps, torch.tensor([[True, True, False]]))[0, 0]
    expected = torch.tensor([[0.25, 0.75, 0], [1, 0, 0], [1, 0, 0]])
    torch.testing.assert_close(shared, expected)


def test_in_training_a_row_does_not_see_its_company():
    price_BLF, mask_BL = windows()
    encoder = InformerConfig(lookback=L, width=D, dropout=0, factor=1).build(F).train()
    together = encoder(price_BLF, mask_BL).pooled_BD
    alone = torch.cat([encoder(price_BLF[i : i + 1], mask_BL[i : i + 1]).pooled_BD for i in range(B)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_no_tensor_grows_like_the_square_of_the_lookback():
    encoder = InformerConfig(lookback=1024, width=D).build(F).train()
    with Largest() as largest:
        encoder(torch.randn(1, 1024, F), torch.ones(1, 1024).bool()).pooled_BD.sum().backward()
    assert largest.elements < 1024 * HEADS * 50
