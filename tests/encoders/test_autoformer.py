"""Auto-correlation and decomposition against transformers' own and against the paper's sums, written out."""

import math

import numpy as np
import pytest
import torch
from allocations import Largest
from price_windows import random_windows
from pydantic import ValidationError
from torch import Tensor
from transformers import AutoformerConfig as TheirConfig
from transformers.models.autoformer.modeling_autoformer import AutoformerAttention, AutoformerSeriesDecompositionLayer

from encoders.price.autoformer import (
    AutoformerBlock,
    AutoformerConfig,
    aggregate,
    chosen,
    circle,
    correlation,
    repeated,
    split,
)

B, L, F, D, HEADS = 5, 30, 6, 16, 4


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def windows() -> tuple[Tensor, Tensor]:
    return random_windows(B, L, F)


def block(**keys) -> AutoformerBlock:
    return AutoformerBlock(AutoformerConfig(width=D, moving_average=5, dropout=0, **keys)).eval()


@pytest.mark.parametrize("span", [3, 5, 25, 61])
def test_decomposition_is_that_of_transformers(span):
    series_BLD = torch.randn(B, L, D)
    expected = AutoformerSeriesDecompositionLayer(TheirConfig(moving_average=span))(series_BLD)
    for ours, theirs in zip(split(series_BLD, span), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor", [1, 3])
def test_auto_correlation_is_that_of_transformers(factor):
    ours = block(heads=1, factor=factor)
    theirs = AutoformerAttention(D, 1, autocorrelation_factor=factor).eval()
    for name, weight in zip(("k_proj", "q_proj", "v_proj"), ours.qkv.weight.chunk(3), strict=True):
        getattr(theirs, name).weight.data.copy_(weight)  # queries and keys exchanged: they roll the other way
        getattr(theirs, name).bias.data.zero_()
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    tokens_BLD = torch.randn(B, L, D)
    mixed_BLD = ours.out(ours._correlate(tokens_BLD))
    torch.testing.assert_close(mixed_BLD, theirs(tokens_BLD)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [2, 7, 30])
def test_auto_correlation_is_that_of_the_paper(length):
    query, key, value = torch.randn(3, B, length, HEADS, 4)
    spectra = torch.fft.rfft(torch.stack([query, key, value]), dim=2)
    weight = chosen(correlation(*spectra[:2], length), factor=2)
    found = aggregate(weight, spectra[2], length)
    kept = min(length, max(1, int(2 * math.log(length))))
    for sample in range(B):
        for head in range(HEADS):
            q, k, v = (part[sample, :, head].numpy() for part in (query, key, value))
            correlations = np.array([(q * np.roll(k, delay, 0)).sum(0).mean() for delay in range(length)])
            delays = np.argsort(correlations)[-kept:]
            weights = np.exp(correlations[delays] - correlations.max())
            rolled = sum(w * np.roll(v, delay, 0) for w, delay in zip(weights / weights.sum(), delays, strict=True))
            np.testing.assert_allclose(found[sample, :, head].numpy(), rolled, atol=1e-5)


def test_a_layer_is_equation_3_and_its_trend_that_of_equation_4():
    layer, tokens_BLD = block(), torch.randn(B, L, D)
    season, trend = split(tokens_BLD + layer.out(layer._correlate(tokens_BLD)), 5)
    deeper, further = split(season + layer.mlp(season), 5)
    found_BLD, found_BD = layer(tokens_BLD)
    torch.testing.assert_close(found_BLD, deeper)
    first, second = layer.trends
    torch.testing.assert_close(found_BD, first(trend[:, -1]) + second(further[:, -1]))


@pytest.mark.parametrize("span", [3, 9, 25, 61])
@pytest.mark.parametrize("length", [2, 9, 30])
def test_the_last_layer_computes_the_last_row_alone(span, length):
    layer = AutoformerBlock(AutoformerConfig(width=D, moving_average=span)).eval()
    tokens_BLD = torch.randn(B, length, D)
    whole, last = layer(tokens_BLD), layer.latest(tokens_BLD)
    torch.testing.assert_close(last[0], whole[0][:, -1])
    torch.testing.assert_close(last[1], whole[1])


def test_a_masked_session_repeats_the_one_before_it():
    holes = torch.tensor([[0, 0, 1, 0, 1, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]]).bool()
    assert repeated(holes).tolist() == [[2, 2, 2, 2, 4, 4], [0, 1, 2, 3, 4, 5], [0] * 6]


def test_maps_are_what_aggregation_did():
    weight = chosen(torch.randn(B, HEADS, L), factor=2)
    value = torch.randn(B, L, HEADS, 4)
    maps = circle(weight, repeated(torch.ones(B, L).bool()))
    found = aggregate(weight, torch.fft.rfft(value, dim=1), L)
    torch.testing.assert_close((maps @ value.transpose(1, 2)).transpose(1, 2), found)


def test_attention_sums_to_one_over_the_observed_sessions():
    price_BLF, mask_BL = windows()
    encoder = AutoformerConfig(lookback=L, width=D, layers=3).build(F).eval()
    attention = encoder(price_BLF, mask_BL, explain=True).attention
    assert attention.shape == (B, 3, HEADS, L, L)
    torch.testing.assert_close(attention.sum(-1), torch.ones(B, 3, HEADS, L))
    assert not attention[~mask_BL[:, None, None, None].expand_as(attention)].any()


def test_in_training_a_row_does_not_see_its_company():
    price_BLF, mask_BL = windows()
    encoder = AutoformerConfig(lookback=L, width=D, dropout=0).build(F).train()
    together = encoder(price_BLF, mask_BL).pooled_BD
    alone = torch.cat([encoder(price_BLF[i : i + 1], mask_BL[i : i + 1]).pooled_BD for i in range(B)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_no_tensor_grows_like_the_square_of_the_lookback():
    encoder = AutoformerConfig(lookback=1024, width=D).build(F).train()
    with Largest() as largest:
        encoder(torch.randn(1, 1024, F), torch.ones(1, 1024).bool()).pooled_BD.sum().backward()
    assert largest.elements < 1024 * D * 8


def test_an_average_without_a_middle_is_refused():
    with pytest.raises(ValidationError, match="moving_average"):
        AutoformerConfig(moving_average=24)


def test_gradients_reach_every_parameter():
    price_BLF, mask_BL = windows()
    encoder = AutoformerConfig(lookback=L, width=D).build(F)
    encoder(price_BLF, mask_BL).pooled_BD.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in encoder.parameters())
