"""Price encoders: what a mask hides stays hidden, rows do not see each other, attention is what it says."""

import math

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from encoders.absent import Absent
from encoders.price import LSTMConfig, PriceEncoderConfig, TransformerConfig
from encoders.price.positions import Learned, Sinusoidal, waves

B, L, F, D = 6, 12, 5, 16
COMMON = {"lookback": L, "width": D}
CONFIGS = [
    LSTMConfig(**COMMON),
    LSTMConfig(**COMMON, layers=2),
    TransformerConfig(**COMMON),
    TransformerConfig(**COMMON, positions="learned", layers=1),
]
each_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.kind}-{c.layers}")


def windows(seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    mask_BL = torch.rand(B, L, generator=draw) < 0.7
    mask_BL[:, -1] = True
    price_BLF = torch.randn(B, L, F, generator=draw)
    return price_BLF.masked_fill(~mask_BL[..., None], 0), mask_BL


def built(config: PriceEncoderConfig, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return config.build(F).eval()


@each_config
def test_shapes(config):
    price_BLF, mask_BL = windows()
    encoded = built(config)(price_BLF, mask_BL)
    assert encoded.pooled_BD.shape == (B, D)
    assert encoded.sequence_BLD.shape == (B, L, D)
    assert torch.equal(encoded.mask_BL, mask_BL)
    assert encoded.attention is None


@each_config
@pytest.mark.parametrize("garbage", [1e9, math.inf, math.nan])
def test_what_stands_at_a_masked_session_changes_nothing(config, garbage):
    price_BLF, mask_BL = windows()
    encoder = built(config)
    clean = encoder(price_BLF, mask_BL)
    dirty = encoder(price_BLF.masked_fill(~mask_BL[..., None], garbage), mask_BL)
    assert torch.equal(clean.pooled_BD, dirty.pooled_BD)
    assert torch.equal(clean.sequence_BLD, dirty.sequence_BLD)


@each_config
def test_a_mask_is_more_than_zeros(config):
    price_BLF, mask_BL = windows()
    encoder = built(config)
    observed = encoder(price_BLF, torch.ones_like(mask_BL)).pooled_BD
    assert not torch.allclose(observed, encoder(price_BLF, mask_BL).pooled_BD)


@each_config
def test_every_observed_session_is_read(config):
    price_BLF, mask_BL = windows()
    price_BLF.requires_grad_()
    encoder = built(config)
    encoder(price_BLF, mask_BL).pooled_BD.square().sum().backward()
    assert torch.equal(price_BLF.grad.abs().sum(-1) > 0, mask_BL)


@each_config
def test_a_window_without_any_session_is_finite(config):
    price_BLF, mask_BL = windows()
    mask_BL[2] = False
    encoder = built(config)
    encoded = encoder(price_BLF, mask_BL, explain=True)
    assert encoded.pooled_BD.isfinite().all()
    encoded.pooled_BD.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


@each_config
def test_rows_do_not_see_each_other(config):
    price_BLF, mask_BL = windows()
    encoder, order = built(config), torch.tensor([3, 0, 5, 1, 4, 2])
    permuted = encoder(price_BLF[order], mask_BL[order]).pooled_BD
    torch.testing.assert_close(permuted, encoder(price_BLF, mask_BL).pooled_BD[order])


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


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_attention_rows_sum_to_one_and_skip_masked_sessions(positions):
    price_BLF, mask_BL = windows()
    encoder = built(TransformerConfig(**COMMON, layers=3, heads=2, positions=positions))
    encoded = encoder(price_BLF, mask_BL, explain=True)
    assert encoded.attention.shape == (B, 3, 2, L, L)
    torch.testing.assert_close(encoded.attention.sum(-1), torch.ones(B, 3, 2, L))
    hidden = ~mask_BL[:, None, None, None].expand_as(encoded.attention)
    assert not encoded.attention[hidden].any()
    assert torch.equal(encoded.pooled_BD, encoder(price_BLF, mask_BL).pooled_BD)


def test_the_map_is_the_attention_that_is_used():
    _, mask_BL = windows()
    block = built(TransformerConfig(**COMMON)).blocks[0]
    tokens_BLD, keys = torch.randn(B, L, D), mask_BL[:, None, None]
    _, _, value = block._split(tokens_BLD)
    mixed_BLD = (block.maps(tokens_BLD, keys) @ value).transpose(1, 2).flatten(2)
    middle_BLD = tokens_BLD + block.out(mixed_BLD)
    torch.testing.assert_close(block(tokens_BLD, keys), middle_BLD + block.mlp(block.norm_mlp(middle_BLD)))


def test_transformer_tells_sessions_apart():
    price_BLF, _ = windows()
    seen = torch.ones(B, L, dtype=torch.bool)
    swapped_BLF = price_BLF[:, [1, 0, *range(2, L)]]
    for positions in ("sinusoidal", "learned"):
        encoder = built(TransformerConfig(**COMMON, positions=positions))
        assert not torch.allclose(encoder(price_BLF, seen).pooled_BD, encoder(swapped_BLF, seen).pooled_BD)


@pytest.mark.parametrize("width", [4, 7])
def test_positions_count_back_from_the_decision(width):
    torch.testing.assert_close(waves(9, width)[-4:], waves(4, width))
    assert torch.equal(waves(9, width)[-1, 0::2], torch.zeros((width + 1) // 2))
    for place in (Sinusoidal(9, width), Learned(9, width)):
        assert torch.equal(place(torch.zeros(1, 4, width))[0], place(torch.zeros(1, 9, width))[0, -4:])


def test_a_window_longer_than_the_lookback_is_refused():
    with pytest.raises(ValueError, match=r"at most 12 sessions .* received 13"):
        built(TransformerConfig(**COMMON))(torch.zeros(1, 13, F), torch.ones(1, 13, dtype=torch.bool))


def test_every_kind_takes_the_common_keys():
    union = TypeAdapter(PriceEncoderConfig)
    common = {"lookback": 30, "width": 32, "layers": 1, "dropout": 0.0}
    for kind in ("lstm", "transformer"):
        config = union.validate_python({"kind": kind, **common})
        assert config.model_dump(include=set(common)) == common


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "gru"}, "'lstm', 'transformer'"),
        ({"kind": "lstm", "heads": 4}, "Extra inputs"),
        ({"kind": "lstm", "lookback": 1}, "greater than or equal to 2"),
        ({"kind": "lstm", "dropout": 1.0}, "less than 1"),
        ({"kind": "transformer", "layers": 0}, "greater than or equal to 1"),
        ({"kind": "transformer", "width": 30}, "multiple of heads: width is 30, heads is 4"),
        ({"kind": "transformer", "positions": "rotary"}, "'sinusoidal' or 'learned'"),
    ],
)
def test_wrong_configs_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(PriceEncoderConfig).validate_python(wrong)


def test_absent_reads_nothing():
    price_BLF, mask_BL = windows()
    encoded = Absent(D)(price_BLF * math.nan, mask_BL, explain=True)
    assert torch.equal(encoded.pooled_BD, torch.zeros(B, D))
    assert encoded.sequence_BLD.shape == (B, 0, D)
    assert encoded.mask_BL.shape == (B, 0)
    assert list(Absent(D).parameters()) == []
