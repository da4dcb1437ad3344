"""Price encoders, every kind of the union: masked sessions stay hidden, rows do not see each other, maps are maps."""

import math
from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from encoders.absent import Absent
from encoders.price import PriceEncoderConfig
from encoders.price.attention import importance

B, L, F, D = 6, 12, 5, 16
COMMON = {"lookback": L, "width": D}
UNION: TypeAdapter[PriceEncoderConfig] = TypeAdapter(PriceEncoderConfig)
KINDS = [member.model_fields["kind"].default for member in get_args(get_args(PriceEncoderConfig)[0])]
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "lstm": [
        {},
        {"layers": 2},
        {"layers": 4},
        {"bidirectional": True},
        {"bidirectional": True, "pooling": "attention", "layers": 2},
    ],
    "gru": [{}, {"layers": 2, "bidirectional": True}, {"pooling": "attention"}],
    "transformer": [
        {},
        {"layers": 1, "positions": "learned"},
        {"layers": 3, "heads": 2, "positions": "rotary", "norm": "rms"},
        {"layers": 3, "causal": True},
    ],
    "tcn": [{}, {"layers": 2, "kernel": 2, "weight_norm": False}],
    "mlp": [{}, {"layers": 3}],
    "informer": [{}, {"layers": 1}, {"layers": 3}],
    "autoformer": [{}, {"layers": 1, "moving_average": 5}],
    "patchtst": [{}, {"patch_length": 4, "stride": 2, "instance_norm": True}],
    "itransformer": [{}, {"instance_norm": True}],
    "tokens": [{}, {"layers": 2}, {"stack": "transformer"}, {"quantiser": "rvq"}, {"shape_bins": 1}],
}
CONFIGS = [
    UNION.validate_python({"kind": kind, **COMMON, **keys}) for kind in KINDS for keys in VARIANTS.get(kind, [{}])
]


def named(config: PriceEncoderConfig) -> str:
    keys = config.model_dump(exclude={"kind", "lookback", "width"}, exclude_defaults=True)
    return "-".join([config.kind, *(f"{key}={value}" for key, value in keys.items())])


each_config = pytest.mark.parametrize("config", CONFIGS, ids=named)


def windows(seed: int = 0, length: int = L) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    mask_BL = torch.rand(B, length, generator=draw) < 0.7
    mask_BL[:, -1] = True
    price_BLF = torch.randn(B, length, F, generator=draw)
    return price_BLF.masked_fill(~mask_BL[..., None], 0), mask_BL


def built(config: PriceEncoderConfig, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return config.build(F).eval()


def test_every_kind_of_the_union_is_tested():
    assert {config.kind for config in CONFIGS} == set(KINDS)
    assert {"lstm", "gru", "transformer", "tcn", "dlinear", "mlp"} <= set(KINDS)


@each_config
def test_shapes(config):
    price_BLF, mask_BL = windows()
    encoded = built(config)(price_BLF, mask_BL)
    assert encoded.pooled_BD.shape == (B, D)
    assert encoded.sequence_BLD.shape == (*encoded.mask_BL.shape, D)
    assert encoded.mask_BL.shape[0] == B
    assert encoded.mask_BL.dtype == torch.bool
    assert encoded.attention is None


@each_config
@pytest.mark.parametrize("garbage", [1e9, math.inf, math.nan])
def test_what_stands_at_a_masked_session_changes_nothing(config, garbage):
    price_BLF, mask_BL = windows()
    encoder = built(config)
    clean = encoder(price_BLF, mask_BL, explain=True)
    dirty = encoder(price_BLF.masked_fill(~mask_BL[..., None], garbage), mask_BL, explain=True)
    assert torch.equal(clean.pooled_BD, dirty.pooled_BD)
    assert torch.equal(clean.sequence_BLD, dirty.sequence_BLD)
    assert clean.attention is dirty.attention is None or torch.equal(clean.attention, dirty.attention)


@each_config
def test_garbage_at_a_masked_session_spoils_no_gradient(config):
    price_BLF, mask_BL = windows()
    encoder = built(config)
    encoder(price_BLF.masked_fill(~mask_BL[..., None], math.nan), mask_BL).pooled_BD.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


@each_config
def test_a_mask_is_more_than_zeros(config):
    price_BLF, mask_BL = windows()
    encoder = built(config)
    observed = encoder(price_BLF, torch.ones_like(mask_BL)).pooled_BD
    assert not torch.allclose(observed, encoder(price_BLF, mask_BL).pooled_BD)


@each_config
def test_no_masked_session_is_read_and_the_last_is(config):
    price_BLF, mask_BL = windows()
    price_BLF.requires_grad_()
    encoder = built(config)
    encoder(price_BLF, mask_BL).pooled_BD.pow(3).sum().backward()
    read_BL = price_BLF.grad.abs().sum(-1) > 0
    assert not (read_BL & ~mask_BL).any()
    assert read_BL[:, -1].all()


@each_config
def test_the_oldest_session_is_read(config):
    price_BLF, mask_BL = windows()
    mask_BL[:] = True
    encoder = built(config)
    changed_BLF = price_BLF.clone()
    changed_BLF[:, 0] += 3
    assert not torch.equal(encoder(price_BLF, mask_BL).pooled_BD, encoder(changed_BLF, mask_BL).pooled_BD)


@each_config
def test_a_window_without_any_session_is_finite(config):
    price_BLF, mask_BL = windows()
    mask_BL[2] = False
    encoder = built(config)
    encoded = encoder(price_BLF * math.nan, torch.zeros_like(mask_BL), explain=True)
    assert encoded.pooled_BD.isfinite().all()
    encoded = encoder(price_BLF.masked_fill(~mask_BL[..., None], math.nan), mask_BL, explain=True)
    assert encoded.pooled_BD.isfinite().all()
    encoded.pooled_BD.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


@each_config
def test_rows_do_not_see_each_other(config):
    price_BLF, mask_BL = windows()
    encoder, order = built(config), torch.tensor([3, 0, 5, 1, 4, 2])
    whole_BD = encoder(price_BLF, mask_BL).pooled_BD
    torch.testing.assert_close(encoder(price_BLF[order], mask_BL[order]).pooled_BD, whole_BD[order])
    for row in range(B):
        alone_BD = encoder(price_BLF[row : row + 1], mask_BL[row : row + 1]).pooled_BD
        torch.testing.assert_close(alone_BD, whole_BD[row : row + 1])


@each_config
@pytest.mark.parametrize("length", [1, 2, 5, L - 1])
def test_a_shorter_window_is_read_from_its_end(config, length):
    price_BLF, mask_BL = windows(length=length)
    encoder = built(config)
    encoded = encoder(price_BLF, mask_BL, explain=True)
    assert encoded.pooled_BD.shape == (B, D)
    assert encoded.pooled_BD.isfinite().all()
    assert encoded.attention is None or encoded.attention.shape[-2:] == (length, length)


@each_config
def test_gradient_reaches_every_parameter(config):
    encoder = built(config)
    encoder(*windows()).pooled_BD.pow(3).sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []


@each_config
def test_one_seed_one_encoder(config):
    first, again, other = (built(config, seed)(*windows()).pooled_BD for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@each_config
def test_runs_under_bf16(config):
    encoder = built(config).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled_BD = encoder(*windows()).pooled_BD
    pooled_BD.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


@each_config
def test_a_saved_state_is_all_there_is(config):
    encoder, other = built(config), built(config, seed=1)
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(encoder(*windows()).pooled_BD, other(*windows()).pooled_BD)


@each_config
def test_explain_changes_nothing_and_its_rows_sum_to_one(config):
    price_BLF, mask_BL = windows()
    mask_BL[0, :3] = False  # a leading gap, before which no session was observed
    encoder = built(config)
    plain, explained = encoder(price_BLF, mask_BL), encoder(price_BLF, mask_BL, explain=True)
    assert torch.equal(plain.pooled_BD, explained.pooled_BD)
    assert torch.equal(plain.sequence_BLD, explained.sequence_BLD)
    if explained.attention is None:
        return
    layers, heads = explained.attention.shape[1:3]
    assert explained.attention.shape == (B, layers, heads, L, L)
    assert (explained.attention >= 0).all()
    torch.testing.assert_close(explained.attention.sum(-1), torch.ones(B, layers, heads, L))
    hidden = ~mask_BL[:, None, None, None].expand_as(explained.attention)
    assert not explained.attention[hidden].any()
    weight_BL = importance(explained.attention, mask_BL)
    torch.testing.assert_close(weight_BL.sum(-1), torch.ones(B))
    assert not weight_BL[~mask_BL].any()


@each_config
def test_a_window_without_any_session_is_explained_too(config):
    price_BLF, mask_BL = windows()
    attention = built(config)(price_BLF * math.nan, torch.zeros_like(mask_BL), explain=True).attention
    if attention is not None:
        torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:-1]))
        torch.testing.assert_close(importance(attention, torch.zeros_like(mask_BL)).sum(-1), torch.ones(B))


@each_config
def test_a_config_survives_being_written_down(config):
    assert UNION.validate_json(UNION.dump_json(config)) == config
    assert UNION.validate_python(config.model_dump(mode="json", exclude_none=True)) == config


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_takes_the_common_keys(kind):
    common = {"lookback": 30, "width": 32, "layers": 1, "dropout": 0.0}
    config = UNION.validate_python({"kind": kind, **common})
    assert config.model_dump(include=set(common)) == common


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("gates", 4, "Extra inputs"),
        ("lookback", 1, "greater than or equal to 2"),
        ("lookback", "long", "valid integer"),
        ("width", 3, "greater than or equal to 4"),
        ("layers", 0, "greater than or equal to 1"),
        ("dropout", 1.0, "less than 1"),
        ("dropout", -0.1, "greater than or equal to 0"),
    ],
)
def test_every_kind_refuses_nonsense(kind, key, value, message):
    with pytest.raises(ValidationError, match=message):
        UNION.validate_python({"kind": kind, key: value})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "perceptron"}, "'lstm', 'gru', 'transformer'"),
        ({"kind": "lstm", "heads": 4}, "Extra inputs"),
        ({"kind": "lstm", "pooling": "mean"}, "'last' or 'attention'"),
        ({"kind": "gru", "width": 33, "bidirectional": True}, "width must be even .*: width is 33"),
        ({"kind": "transformer", "width": 30}, "multiple of heads: width is 30, heads is 4"),
        ({"kind": "transformer", "positions": "relative"}, "'sinusoidal', 'learned' or 'rotary'"),
        ({"kind": "transformer", "positions": "rotary", "width": 12}, "must be even for rotary .*: width is 12"),
        ({"kind": "transformer", "norm": "batch"}, "'layer' or 'rms'"),
        ({"kind": "tcn", "kernel": 1}, "greater than or equal to 2"),
        ({"kind": "dlinear", "layers": 2}, "less than or equal to 1"),
        ({"kind": "dlinear", "kernel": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_configs_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        UNION.validate_python(wrong)


@pytest.mark.parametrize("kind", ["transformer", "dlinear", "mlp"])
def test_a_window_longer_than_the_lookback_is_refused(kind):
    encoder = built(UNION.validate_python({"kind": kind, **COMMON}))
    with pytest.raises(ValueError, match=r"at most 12 sessions .* received 13"):
        encoder(torch.zeros(1, 13, F), torch.ones(1, 13, dtype=torch.bool))


def test_absent_reads_nothing():
    price_BLF, mask_BL = windows()
    encoded = Absent(D)(price_BLF * math.nan, mask_BL, explain=True)
    assert torch.equal(encoded.pooled_BD, torch.zeros(B, D))
    assert encoded.sequence_BLD.shape == (B, 0, D)
    assert encoded.mask_BL.shape == (B, 0)
    assert list(Absent(D).parameters()) == []
