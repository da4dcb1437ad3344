"""Price encoders against reference implementations and the papers' equations; attention against what is made of it."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from encoders.price import DLinearConfig, GRUConfig, LSTMConfig, MLPConfig, TCNConfig, TransformerConfig
from encoders.price.attention import causal, importance, readable
from encoders.price.linear import decompose
from encoders.price.positions import Learned, Rotary, Sinusoidal, waves
from encoders.price.transformer import Block

B, L, F, D = 4, 12, 5, 16
COMMON = {"lookback": L, "width": D, "dropout": 0.0}
PLACES = ("sinusoidal", "learned", "rotary")


def windows(seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    mask_BL = torch.rand(B, L, generator=draw) < 0.7
    mask_BL[:, -1] = True
    return torch.randn(B, L, F, generator=draw), mask_BL


def built(config, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return config.build(F).eval()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# Recurrent


def numbers(encoder: nn.Module) -> dict[str, np.ndarray]:
    return {name: parameter.detach().double().numpy() for name, parameter in encoder.named_parameters()}


def steps(price_BLF: Tensor, mask_BL: Tensor) -> np.ndarray:
    zeroed = price_BLF.masked_fill(~mask_BL[..., None], 0)
    return torch.cat([zeroed, mask_BL[..., None].float()], -1).double().numpy()


def lstm_states(step_BLF, weights, suffix):
    into, across = weights[f"lstm.weight_ih_{suffix}"], weights[f"lstm.weight_hh_{suffix}"]
    bias = weights[f"lstm.bias_ih_{suffix}"] + weights[f"lstm.bias_hh_{suffix}"]
    hidden = cell = np.zeros((len(step_BLF), across.shape[1]))
    for step_BF in step_BLF.transpose(1, 0, 2):
        i, f, g, o = np.split(step_BF @ into.T + hidden @ across.T + bias, 4, axis=1)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        yield hidden


def gru_states(step_BLF, weights, suffix):
    into, across = weights[f"gru.weight_ih_{suffix}"], weights[f"gru.weight_hh_{suffix}"]
    hidden = np.zeros((len(step_BLF), across.shape[1]))
    for step_BF in step_BLF.transpose(1, 0, 2):
        r, z, n = np.split(step_BF @ into.T + weights[f"gru.bias_ih_{suffix}"], 3, axis=1)
        r2, z2, n2 = np.split(hidden @ across.T + weights[f"gru.bias_hh_{suffix}"], 3, axis=1)
        update = sigmoid(z + z2)
        hidden = (1 - update) * np.tanh(n + sigmoid(r + r2) * n2) + update * hidden
        yield hidden


def normed(code_BD, last_BF, weights):
    code_BD = code_BD + last_BF @ weights["skip.weight"].T + weights["skip.bias"]
    centred = code_BD - code_BD.mean(-1, keepdims=True)
    scaled = centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-5)
    return scaled * weights["norm.weight"] + weights["norm.bias"]


@pytest.mark.parametrize(("config", "states"), [(LSTMConfig, lstm_states), (GRUConfig, gru_states)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_recurrence_is_its_equations(config, states, bidirectional):
    encoder = built(config(**COMMON, bidirectional=bidirectional))
    weights, step_BLF = numbers(encoder), steps(*windows())
    last = [*states(step_BLF, weights, "l0")][-1]
    if bidirectional:  # the other direction ends at the window's first session
        last = np.concatenate([last, [*states(step_BLF[:, ::-1], weights, "l0_reverse")][-1]], axis=1)
    expected = normed(last, step_BLF[:, -1, :-1], weights)
    np.testing.assert_allclose(encoder(*windows()).pooled_BD.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_attention_pooling_is_its_equations():
    encoder = built(LSTMConfig(**COMMON, pooling="attention"))
    (price_BLF, mask_BL), weights = windows(), numbers(encoder)
    step_BLF = steps(price_BLF, mask_BL)
    state_BLD = np.stack([*lstm_states(step_BLF, weights, "l0")], axis=1)
    score_BL = (
        np.tanh(state_BLD @ weights["pool.key.weight"].T + weights["pool.key.bias"]) @ weights["pool.score.weight"][0]
    )
    weight_BL = np.exp(score_BL) * mask_BL.numpy()
    weight_BL /= weight_BL.sum(-1, keepdims=True)
    encoded = encoder(price_BLF, mask_BL, explain=True)
    for row_BL in encoded.attention[:, 0, 0].unbind(1):
        np.testing.assert_allclose(row_BL.detach().numpy(), weight_BL, rtol=1e-4, atol=1e-6)
    expected = normed(np.einsum("bl,bld->bd", weight_BL, state_BLD), step_BLF[:, -1, :-1], weights)
    np.testing.assert_allclose(encoded.pooled_BD.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [LSTMConfig, GRUConfig])
def test_an_untrained_state_remembers(config):
    encoder = built(config(lookback=L, width=D, layers=2, bidirectional=True))
    kept = [p[D // 2 : D] for name, p in encoder.named_parameters() if ".bias_ih" in name]
    assert len(kept) == 4
    assert all(torch.equal(part, torch.ones(D // 2)) for part in kept)


def test_names_in_saved_models_stay():
    lstm = ["lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.bias_ih_l0", "lstm.bias_hh_l0"]
    ends = ["skip.weight", "skip.bias", "norm.weight", "norm.bias"]
    assert [*built(LSTMConfig()).state_dict()] == lstm + ends
    block = ["norm_attention.weight", "norm_attention.bias", "qkv.weight", "out.weight", "out.bias"]
    block += ["norm_mlp.weight", "norm_mlp.bias", "mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias"]
    blocks = [f"blocks.{index}.{name}" for index in (0, 1) for name in block]
    assert [*built(TransformerConfig()).state_dict()] == ["token.weight", "token.bias", *blocks, *ends[2:]]


# Transformer


def torch_layer(block: Block, width: int, heads: int) -> nn.TransformerEncoderLayer:
    """torch's own pre-norm layer with the block's weights."""
    layer = nn.TransformerEncoderLayer(
        width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    named = {
        "self_attn.in_proj_weight": block.qkv.weight,
        "self_attn.in_proj_bias": torch.zeros(3 * width),
        "self_attn.out_proj.weight": block.out.weight,
        "self_attn.out_proj.bias": block.out.bias,
        "linear1.weight": block.mlp[0].weight,
        "linear1.bias": block.mlp[0].bias,
        "linear2.weight": block.mlp[2].weight,
        "linear2.bias": block.mlp[2].bias,
        "norm1.weight": block.norm_attention.weight,
        "norm1.bias": block.norm_attention.bias,
        "norm2.weight": block.norm_mlp.weight,
        "norm2.bias": block.norm_mlp.bias,
    }
    layer.load_state_dict(named)
    return layer


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_a_transformer_is_torchs_own_of_which_only_the_last_row_is_used(is_causal, layers):
    encoder = built(TransformerConfig(**COMMON, layers=layers, causal=is_causal))
    price_BLF, mask_BL = windows()
    mask_BL[:, 0] = True  # torch knows no way out where a causal query has no key
    tokens_BLD = encoder.place(encoder.token(price_BLF.masked_fill(~mask_BL[..., None], 0)))
    future_LL = torch.ones(L, L).triu(1).bool() if is_causal else None
    for block in encoder.blocks:
        layer = torch_layer(block, D, 4)
        tokens_BLD = layer(tokens_BLD, src_mask=future_LL, src_key_padding_mask=~mask_BL)
    expected_BD = encoder.norm(tokens_BLD)[:, -1]
    torch.testing.assert_close(encoder(price_BLF, mask_BL).pooled_BD, expected_BD, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("positions", PLACES)
def test_the_last_layer_computes_the_last_row_of_the_whole(positions, norm):
    encoder = built(TransformerConfig(**COMMON, positions=positions, norm=norm, layers=1))
    block, (_, mask_BL) = encoder.blocks[0], windows()
    tokens_BLD, again_BLD = (torch.randn(B, L, D, generator=torch.manual_seed(1)).requires_grad_() for _ in range(2))
    code_BD, read_BLD = block.latest(tokens_BLD, mask_BL, encoder.rotary)
    whole_BD = block(again_BLD, mask_BL[:, None, None], encoder.rotary)[:, -1]
    torch.testing.assert_close(code_BD, whole_BD, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(read_BLD, block.norm_attention(tokens_BLD))
    code_BD.square().sum().backward()
    whole_BD.square().sum().backward()
    torch.testing.assert_close(tokens_BLD.grad, again_BLD.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positions", PLACES)
def test_the_map_is_the_attention_that_is_used(positions):
    _, mask_BL = windows()
    encoder = built(TransformerConfig(**COMMON, positions=positions))
    block, turn = encoder.blocks[0], encoder.rotary
    tokens_BLD, keys = torch.randn(B, L, D), mask_BL[:, None, None]
    _, _, value = block.split(tokens_BLD, turn)
    map_BHLL = block.maps(tokens_BLD, keys, turn)
    mixed_BLD = (map_BHLL @ value).transpose(1, 2).flatten(2)
    middle_BLD = tokens_BLD + block.out(mixed_BLD)
    torch.testing.assert_close(block(tokens_BLD, keys, turn), middle_BLD + block.mlp(block.norm_mlp(middle_BLD)))
    weights_BHL = block._weights_of_latest(block.norm_attention(tokens_BLD), mask_BL, turn)
    torch.testing.assert_close(weights_BHL, map_BHLL[:, :, -1])


@pytest.mark.parametrize("positions", PLACES)
def test_a_causal_session_sees_only_earlier_ones(positions):
    encoder = built(TransformerConfig(**COMMON, positions=positions, layers=3, causal=True))
    price_BLF, mask_BL = windows()
    later_BLF = price_BLF.clone()
    later_BLF[:, 8:] += 1
    before, after = (encoder(price, mask_BL, explain=True) for price in (price_BLF, later_BLF))
    observed = mask_BL[:, :8]
    torch.testing.assert_close(before.sequence_BLD[:, :8][observed], after.sequence_BLD[:, :8][observed])
    seen = before.attention.transpose(1, 3)[mask_BL]  # the observed queries: [N, heads, layers, L]
    position = torch.arange(L).expand(B, L)[mask_BL]
    assert all(not rows[..., at + 1 :].any() for rows, at in zip(seen, position, strict=True))
    assert not torch.allclose(before.pooled_BD, after.pooled_BD)


def test_a_query_without_an_earlier_session_reads_all_that_were_observed():
    mask_BL = torch.tensor([[False, True, False, True], [False, False, False, False]])
    allowed = causal(readable(mask_BL))[:, 0].int().tolist()
    assert allowed[0] == [[0, 1, 0, 1], [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 1]]
    assert allowed[1] == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize("positions", PLACES)
def test_transformer_tells_sessions_apart(positions):
    price_BLF, _ = windows()
    seen = torch.ones(B, L, dtype=torch.bool)
    encoder = built(TransformerConfig(**COMMON, positions=positions))
    swapped_BLF = price_BLF[:, [1, 0, *range(2, L)]]
    assert not torch.allclose(encoder(price_BLF, seen).pooled_BD, encoder(swapped_BLF, seen).pooled_BD)


@pytest.mark.parametrize("width", [4, 7])
def test_positions_count_back_from_the_decision(width):
    torch.testing.assert_close(waves(9, width)[-4:], waves(4, width))
    assert torch.equal(waves(9, width)[-1, 0::2], torch.zeros((width + 1) // 2))
    for place in (Sinusoidal(9, width), Learned(9, width)):
        assert torch.equal(place(torch.zeros(1, 4, width))[0], place(torch.zeros(1, 9, width))[0, -4:])


def test_rotary_turns_pairs_by_the_papers_angle():
    head = torch.randn(2, 3, L, 8)
    turned = Rotary(L, 8)(head)
    angle = torch.arange(1 - L, 1).double()[:, None] * 10_000.0 ** (-torch.arange(0, 8, 2).double() / 8)
    expected = torch.view_as_complex(head.double().unflatten(-1, (-1, 2))) * torch.polar(torch.ones_like(angle), angle)
    torch.testing.assert_close(turned, torch.view_as_real(expected).flatten(-2).float())
    torch.testing.assert_close(turned[:, :, -1], head[:, :, -1])  # the decision's own place is 0
    torch.testing.assert_close(Rotary(L, 8)(head[:, :, -4:]), turned[:, :, -4:])


def test_a_rotary_product_knows_only_the_distance():
    query, key = torch.randn(2, 8)
    rotary = Rotary(L, 8)
    products = rotary(query.expand(1, 1, L, 8))[0, 0] @ rotary(key.expand(1, 1, L, 8))[0, 0].T
    for distance in range(1 - L, L):
        along = products.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along))


# Convolutions


@pytest.mark.parametrize("keys", [{}, {"layers": 2, "kernel": 2}, {"kernel": 5, "weight_norm": False}])
def test_a_tcn_is_its_dilated_convolutions(keys):
    encoder = built(TCNConfig(**COMMON, **keys))
    series = steps(*windows()).transpose(0, 2, 1)
    for index, block in enumerate(encoder.blocks):
        series = dilated_block(block, series, 2 ** (index % encoder.depth))
    np.testing.assert_allclose(encoder(*windows()).pooled_BD.detach().numpy(), series[..., -1], rtol=1e-4, atol=1e-5)


def dilated_block(block: nn.Module, series: np.ndarray, dilation: int) -> np.ndarray:
    hidden = series
    for layer in (block.first, block.second):
        hidden = np.maximum(dilated(hidden, layer.weight, layer.bias, dilation), 0)
    residual = series if isinstance(block.residual, nn.Identity) else dilated(series, *block.residual.parameters(), 1)
    return np.maximum(hidden + residual, 0)


def dilated(series_BCL: np.ndarray, weight: Tensor, bias: Tensor, dilation: int) -> np.ndarray:
    """F(s) = sum over i of f(i) x(s - d i), the paper's equation in section 3.2, with torch's order of the filter."""
    weight_DCK, output = weight.detach().double().numpy(), np.zeros((len(series_BCL), len(weight), series_BCL.shape[2]))
    for s in range(series_BCL.shape[2]):
        output[..., s] = bias.detach().double().numpy()
        for i in range(weight_DCK.shape[2]):
            if s - dilation * i >= 0:
                output[..., s] += series_BCL[..., s - dilation * i] @ weight_DCK[..., -1 - i].T
    return output


@pytest.mark.parametrize("kernel", [2, 3, 4])
@pytest.mark.parametrize("lookback", [2, 3, 29, 30, 61, 62])
def test_a_tcn_sees_as_far_as_the_lookback_and_no_block_is_idle(kernel, lookback):
    config = TCNConfig(lookback=lookback, width=8, kernel=kernel)
    field = 1 + 2 * (kernel - 1) * (2**config.blocks - 1)
    assert field >= lookback
    assert config.blocks == 1 or 1 + 2 * (kernel - 1) * (2 ** (config.blocks - 1) - 1) < lookback
    price_BLF = torch.randn(16, field + 5, F, requires_grad=True)
    built(config)(price_BLF, torch.ones(16, field + 5, dtype=torch.bool)).pooled_BD.sum().backward()
    assert not price_BLF.grad[:, :5].any()
    assert price_BLF.grad[:, 5].any()


# Linear and plain


def test_the_decomposition_is_the_papers_where_all_was_observed():
    series = torch.randn(B, 40, F).double()
    trend_BLF, remainder_BLF = decompose(torch.cat([series, torch.ones(B, 40, 1)], -1), kernel=25)
    padded = np.pad(series.numpy(), ((0, 0), (12, 12), (0, 0)), mode="edge")
    expected = np.stack([padded[:, at : at + 25].mean(1) for at in range(40)], axis=1)
    np.testing.assert_allclose(trend_BLF, expected, atol=1e-12)
    torch.testing.assert_close(trend_BLF + remainder_BLF, series)


def test_a_trend_is_the_mean_of_what_was_observed():
    flagged_BLF = torch.tensor([[[1.0, 1], [0, 0], [4, 1], [0, 0], [0, 0], [0, 0]]])
    trend_BLF, remainder_BLF = decompose(flagged_BLF, kernel=3)
    torch.testing.assert_close(trend_BLF[0, :, 0], torch.tensor([1, 2.5, 4, 4, 0, 0]))
    torch.testing.assert_close(remainder_BLF[0, :, 0], torch.zeros(6))


def test_dlinear_is_its_equations():
    config = DLinearConfig(**COMMON, kernel=5, steps=3)
    encoder = built(config)
    price_BLF, mask_BL = windows()
    flagged_BLF = torch.from_numpy(steps(price_BLF, mask_BL))
    channels = torch.cat([*decompose(flagged_BLF, 5), flagged_BLF[..., -1:]], -1).numpy()
    weights = numbers(encoder)
    sums = np.stack([channels[..., c] @ weights["time_CLT"][c] + weights["bias_CT"][c] for c in range(2 * F + 1)], 1)
    expected = sums.reshape(B, -1) @ weights["width.weight"].T + weights["width.bias"]
    np.testing.assert_allclose(encoder(price_BLF, mask_BL).pooled_BD.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [DLinearConfig(**COMMON), MLPConfig(**COMMON, layers=2)])
def test_sessions_before_the_window_count_as_masked(config):
    encoder = built(config)
    price_BLF, mask_BL = windows()
    mask_BL[:, :5] = False
    whole, short = encoder(price_BLF, mask_BL), encoder(price_BLF[:, 5:], mask_BL[:, 5:])
    torch.testing.assert_close(whole.pooled_BD, short.pooled_BD)


def test_an_mlp_is_its_layers():
    encoder = built(MLPConfig(**COMMON))
    hidden = encoder.net[0][0](torch.from_numpy(steps(*windows())).float().flatten(1))
    erf = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    torch.testing.assert_close(encoder(*windows()).pooled_BD, nn.functional.layer_norm(erf, (D,)))


# Importance


def test_importance_of_one_layer_is_half_the_last_row_and_half_the_decisions_session():
    mask_BL = torch.ones(1, 3, dtype=torch.bool)
    attention = torch.zeros(1, 1, 2, 3, 3)
    attention[..., 0, 0] = attention[..., 1, 1] = 1
    attention[0, 0, 0, 2] = torch.tensor([1.0, 0, 0])
    attention[0, 0, 1, 2] = torch.tensor([0, 0.5, 0.5])
    torch.testing.assert_close(importance(attention, mask_BL), torch.tensor([[0.25, 0.125, 0.625]]))


def test_importance_is_the_rollout_of_all_layers():
    mask_BL = torch.ones(B, L, dtype=torch.bool)
    attention = torch.randn(B, 3, 2, L, L).softmax(-1)
    rolled = torch.eye(L).expand(B, L, L)
    for layer in range(3):
        rolled = (0.5 * attention[:, layer].mean(1) + 0.5 * torch.eye(L)) @ rolled
    torch.testing.assert_close(importance(attention, mask_BL), rolled[:, -1])


def test_importance_of_a_masked_session_is_none_even_of_the_decisions_own():
    mask_BL = torch.tensor([[True, True, False]])
    attention = torch.tensor([0.75, 0.25, 0]).expand(1, 2, 1, 3, 3)
    torch.testing.assert_close(importance(attention, mask_BL), torch.tensor([[0.75, 0.25, 0]]))


@pytest.mark.parametrize("shape", [(1, 1, 3, 3), (2, 1, 1, 3, 3), (1, 1, 1, 3, 4)])
def test_importance_refuses_another_shape(shape):
    with pytest.raises(ValueError, match=r"expected attention \[1, layers, heads, 3, 3\]"):
        importance(torch.zeros(shape), torch.ones(1, 3, dtype=torch.bool))
