"""Fusions: what each reads, where it starts, and that text can turn with the price state."""

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from encoders.encoded import Encoded
from fusion.kinds import FusionConfig

B, K, D = 7, 3, 16
READS_BOTH = ("concat", "gated", "cross_attention")
KINDS = (*READS_BOTH, "price_only", "text_only")


def config(kind: str, **keys: float) -> FusionConfig:
    return TypeAdapter(FusionConfig).validate_python({"kind": kind, **keys})


def built(kind: str, width: int = D, seed: int = 0, **keys: float) -> nn.Module:
    torch.manual_seed(seed)
    return config(kind, **keys).build(width)


def grown(kind: str) -> nn.Module:
    """A fusion that has left its start: whatever was zero no longer is."""
    fusion = built(kind).eval()
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return fusion


def price(seed: int = 0, width: int = D) -> Encoded:
    draw = torch.Generator().manual_seed(seed)
    sequence_BLD = torch.randn(B, 4, width, generator=draw)
    return Encoded(sequence_BLD[:, -1], sequence_BLD, torch.ones(B, 4, dtype=torch.bool))


def news(seed: int = 10, width: int = D, headlines: int = K) -> Encoded:
    draw = torch.Generator().manual_seed(seed)
    mask_BL = torch.arange(headlines)[None] < (torch.arange(B) % (headlines + 1))[:, None]
    return Encoded(torch.randn(B, width, generator=draw), torch.randn(B, headlines, width, generator=draw), mask_BL)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [4, 16, 20, 64])
def test_shape_for_any_width_with_and_without_headlines(kind, width):
    fusion = built(kind, width)
    for headlines in (0, K):
        fused_BD = fusion(price(width=width), news(width=width, headlines=headlines))
        assert fused_BD.shape == (B, width)
        assert fused_BD.isfinite().all()


def test_what_a_kind_reads():
    reads = {kind: (config(kind).reads_price, config(kind).reads_text) for kind in KINDS}
    assert reads == dict.fromkeys(READS_BOTH, (True, True)) | {"price_only": (True, False), "text_only": (False, True)}


@pytest.mark.parametrize("kind", KINDS)
def test_reads_what_it_says_and_nothing_else(kind):
    fusion = grown(kind)
    base = fusion(price(), news())
    assert torch.equal(base, fusion(price(seed=1), news())) != config(kind).reads_price
    assert torch.equal(base, fusion(price(), news(seed=11))) != config(kind).reads_text


@pytest.mark.parametrize("kind", ["gated", "cross_attention"])
def test_text_has_to_earn_its_place(kind):
    fusion = built(kind)
    assert torch.equal(fusion(price(), news()), built("price_only")(price(), news()))


@pytest.mark.parametrize("kind", READS_BOTH)
def test_after_one_step_the_gradient_reaches_every_parameter(kind):
    fusion = built(kind, dropout=0)
    step = torch.optim.Adam(fusion.parameters(), lr=0.01)
    target_BD = torch.randn(B, D)
    for _ in range(2):
        step.zero_grad()
        (fusion(price(), news()) - target_BD).square().mean().backward()
        step.step()
    assert [name for name, p in fusion.named_parameters() if not p.grad.any()] == []


@pytest.mark.parametrize("kind", KINDS)
def test_rows_do_not_see_each_other(kind):
    fusion, order, p, n = grown(kind), torch.tensor([3, 6, 0, 5, 1, 4, 2]), price(), news()
    permuted = fusion(
        Encoded(p.pooled_BD[order], p.sequence_BLD[order], p.mask_BL[order]),
        Encoded(n.pooled_BD[order], n.sequence_BLD[order], n.mask_BL[order]),
    )
    torch.testing.assert_close(permuted, fusion(p, n)[order])


def test_cross_attention_ignores_padding_and_order():
    fusion, n = grown("cross_attention"), news()
    dirty = Encoded(n.pooled_BD, n.sequence_BLD.masked_fill(~n.mask_BL[..., None], 1e4), n.mask_BL)
    assert torch.equal(fusion(price(), n), fusion(price(), dirty))
    order = torch.tensor([2, 0, 1])
    shuffled = Encoded(n.pooled_BD, n.sequence_BLD[:, order], n.mask_BL[:, order])
    torch.testing.assert_close(fusion(price(), n), fusion(price(), shuffled))


def test_cross_attention_asks_according_to_price():
    fusion = grown("cross_attention")
    p, n = price(), news()
    tokens_BND = torch.cat([n.pooled_BD[:, None], n.sequence_BLD], dim=1)
    open_BN = torch.ones(B, 1 + K, dtype=torch.bool)
    heard = [fusion._attend(pooled_BD, tokens_BND, open_BN) for pooled_BD in (p.pooled_BD, -p.pooled_BD)]
    assert not torch.allclose(*heard)


@pytest.mark.parametrize("kind", KINDS)
def test_runs_under_bf16(kind):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert built(kind)(price(), news()).isfinite().all()


@pytest.mark.parametrize("kind", READS_BOTH)
def test_learns_that_the_price_state_turns_the_sign_of_text(kind):
    """y = sign(text) * state: worthless to either input alone, so the correlation is fusion's own."""
    draw = torch.Generator().manual_seed(3)

    def sample(rows: int) -> tuple[Encoded, Encoded, Tensor]:
        price_BD, news_BD = torch.randn(rows, D, generator=draw), torch.randn(rows, D, generator=draw)
        seen_B1 = torch.ones(rows, 1, dtype=torch.bool)
        encoded = [Encoded(code_BD, code_BD[:, None], seen_B1) for code_BD in (price_BD, news_BD)]
        return encoded[0], encoded[1], news_BD[:, 0].sign() * price_BD[:, 0]

    fusion, readout = built(kind, dropout=0), nn.Linear(D, 1)
    step = torch.optim.Adam([*fusion.parameters(), *readout.parameters()], lr=0.01)
    for _ in range(150):
        *encoded, target_B = sample(256)
        step.zero_grad()
        (readout(fusion(*encoded)).squeeze(-1) - target_B).square().mean().backward()
        step.step()
    *encoded, target_B = sample(1000)
    with torch.no_grad():
        forecast_B = readout(fusion(*encoded)).squeeze(-1)
    assert torch.corrcoef(torch.stack([forecast_B, target_B]))[0, 1] > 0.7


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_on_unless_set_and_acts_on_what_reads_text(kind):
    assert config(kind).dropout == 0.3
    fusion = grown(kind).train()
    first, second = fusion(price(), news()), fusion(price(), news())
    assert torch.equal(first, second) != config(kind).reads_text
    silent = built(kind, dropout=0)
    assert torch.equal(silent(price(), news()), silent.eval()(price(), news()))


def test_wrong_configs_are_refused():
    with pytest.raises(ValidationError, match="'concat', 'gated', 'cross_attention'"):
        config("sum")
    with pytest.raises(ValidationError, match="Extra inputs"):
        config("gated", heads=4)
    with pytest.raises(ValidationError, match="less than 1"):
        config("gated", dropout=1)
