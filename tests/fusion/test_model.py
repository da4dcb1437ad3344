"""The assembled model: every pair of kinds runs, ablations are exact, and paired variants start paired."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from pydantic import TypeAdapter

from data.types import Batch, NewsBatch
from encoders.absent import Absent
from encoders.price import PriceEncoderConfig
from fusion.head import nll
from fusion.kinds import FusionConfig
from fusion.model import ForecastModel, build_model

B, L, F, K, E, AGES = 8, 10, 4, 3, 12, 2
PRICES, FUSIONS = ("lstm", "transformer"), ("concat", "gated", "cross_attention", "price_only", "text_only")
SESSION_B = torch.tensor([4, 4, 9, 2, 2, 9, 4, 7])
MARKET_ROW_B = torch.tensor([1, 1, 3, 0, 0, 3, 1, 2])  # of its distinct sessions in order: 2, 4, 7, 9
SESSIONS = 4
every_pair = pytest.mark.parametrize(("price", "fusion"), [*product(PRICES, FUSIONS)])


def headlines(seed: int, rows: int = B) -> NewsBatch:
    draw = torch.Generator().manual_seed(seed)
    mask_BK = torch.rand(rows, K, generator=draw) < 0.6
    mask_BK[0] = False
    return NewsBatch(
        torch.randn(rows, K, E, generator=draw),
        mask_BK,
        torch.randint(0, AGES, (rows, K), generator=draw),
        torch.randint(1, 9, (rows, K), generator=draw),
    )


def market(seed: int) -> NewsBatch:
    return headlines(seed, SESSIONS)


def silence(rows: int) -> NewsBatch:
    mask_BK = torch.zeros(rows, 0, dtype=torch.bool)
    return NewsBatch(torch.zeros(rows, 0, E), mask_BK, mask_BK.long(), mask_BK.long())


def batch(seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    mask_BL = torch.rand(B, L, generator=draw) < 0.8
    mask_BL[:, -1] = True
    price_BLF = torch.randn(B, L, F, generator=draw).masked_fill(~mask_BL[..., None], 0)
    target_B = torch.randn(B, generator=draw)
    return Batch(
        price_BLF=price_BLF,
        mask_BL=mask_BL,
        news=headlines(seed + 1),
        market=market(seed + 2),
        market_row_B=MARKET_ROW_B,
        target_B=target_B,
        unit_B=torch.full((B,), 0.02),
        session_B=SESSION_B,
    )


def model(price: str = "lstm", fusion: str = "gated", seed: int = 0) -> ForecastModel:
    torch.manual_seed(seed)
    return build_model(
        TypeAdapter(PriceEncoderConfig).validate_python({"kind": price, "lookback": L, "width": 16}),
        TypeAdapter(FusionConfig).validate_python({"kind": fusion}),
        features=F,
        embedding=E,
        ages=AGES,
    )


def trained(price: str, fusion: str, steps: int = 4) -> ForecastModel:
    """Far enough from the start that parts which began at zero are read."""
    forecaster = model(price, fusion)
    step = torch.optim.Adam(forecaster.parameters(), lr=0.01)
    for _ in range(steps):
        step.zero_grad()
        nll(forecaster(batch()), batch().target_B).backward()
        step.step()
    return forecaster.eval()


def location(forecaster: ForecastModel, samples: Batch) -> torch.Tensor:
    with torch.inference_mode():
        return forecaster(samples).location_B


@every_pair
def test_every_pair_forecasts_and_trains(price, fusion):
    forecaster = trained(price, fusion)
    forecast = forecaster(batch())
    assert forecast.location_B.shape == forecast.scale_B.shape == (B,)
    assert forecast.df.shape == ()
    assert torch.isfinite(forecast.location_B).all()
    assert [name for name, p in forecaster.named_parameters() if not p.grad.any()] == []


@every_pair
def test_same_seed_same_weights_same_forecast(price, fusion):
    first, again = trained(price, fusion), trained(price, fusion)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert torch.equal(location(first, batch()), location(again, batch()))
    assert not torch.equal(location(first, batch()), location(model(price, fusion, seed=1).eval(), batch()))


@every_pair
def test_without_news_a_batch_is_forecast_as_if_nothing_had_been_published(price, fusion):
    forecaster, one = trained(price, fusion), batch()
    unspoken = replace(
        one,
        news=replace(one.news, mask_BK=torch.zeros_like(one.news.mask_BK)),
        market=replace(one.market, mask_BK=torch.zeros_like(one.market.mask_BK)),
    )
    quiet = one.without_news()
    assert quiet.news.mask_BK.shape == (B, 0)
    assert quiet.market.mask_BK.shape == (SESSIONS, 0)
    torch.testing.assert_close(location(forecaster, quiet), location(forecaster, unspoken))
    assert torch.equal(location(forecaster, quiet), location(forecaster, one)) == (fusion == "price_only")


@pytest.mark.parametrize("price", PRICES)
def test_price_only_ignores_news_bit_for_bit(price):
    forecaster, one = trained(price, "price_only"), batch()
    for own, wire in ((headlines(8), market(9)), (silence(B), silence(SESSIONS))):
        assert torch.equal(location(forecaster, one), location(forecaster, replace(one, news=own, market=wire)))
    assert isinstance(forecaster.news, Absent)


@pytest.mark.parametrize("price", PRICES)
def test_text_only_ignores_prices_bit_for_bit(price):
    forecaster, one = trained(price, "text_only"), batch()
    other = replace(one, price_BLF=one.price_BLF * math.nan, mask_BL=~one.mask_BL)
    assert torch.equal(location(forecaster, one), location(forecaster, other))
    assert isinstance(forecaster.price, Absent)


@pytest.mark.parametrize("fusion", ["concat", "gated", "cross_attention"])
def test_fusions_read_prices_and_both_channels_of_news(fusion):
    forecaster, one = trained("lstm", fusion), batch()
    base = location(forecaster, one)
    for changed in ({"price_BLF": batch(5).price_BLF}, {"news": headlines(8)}, {"market": market(9)}):
        assert not torch.equal(base, location(forecaster, replace(one, **changed)))


@pytest.mark.parametrize("fusion", ["concat", "gated", "cross_attention", "text_only"])
def test_the_markets_headlines_reach_the_samples_of_their_session_only(fusion):
    forecaster, one = trained("lstm", fusion), batch()
    last = torch.arange(SESSIONS) == SESSIONS - 1
    turned_BKE = torch.where(last[:, None, None], market(9).embedding_BKE, one.market.embedding_BKE)
    every_BK = one.market.mask_BK | last[:, None]
    changed = replace(one.market, embedding_BKE=turned_BKE, mask_BK=every_BK)
    before, after = location(forecaster, one), location(forecaster, replace(one, market=changed))
    assert torch.equal(before != after, last[MARKET_ROW_B])


def test_a_market_row_a_session_forecasts_as_a_market_row_a_sample_would():
    forecaster, one = trained("lstm", "cross_attention"), batch()
    parts = (one.market.embedding_BKE, one.market.mask_BK, one.market.age_BK, one.market.copies_BK)
    repeated = replace(one, market=NewsBatch(*(part[MARKET_ROW_B] for part in parts)), market_row_B=torch.arange(B))
    torch.testing.assert_close(location(forecaster, one), location(forecaster, repeated))


@every_pair
def test_neither_target_nor_unit_nor_session_is_read(price, fusion):
    forecaster, one = trained(price, fusion), batch()
    blind = replace(
        one, target_B=one.target_B * math.nan, unit_B=one.unit_B * math.nan, session_B=torch.zeros_like(SESSION_B)
    )
    assert torch.equal(location(forecaster, one), location(forecaster, blind))


@pytest.mark.parametrize("price", PRICES)
def test_paired_variants_start_with_the_same_parts(price):
    """The ablation's paired difference must not hold the noise of two initialisations."""
    both, price_only, text_only = (model(price, fusion) for fusion in ("gated", "price_only", "text_only"))

    def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
        return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))

    assert same(both.price, price_only.price)
    assert same(both.head, price_only.head)
    assert same(both.head, text_only.head)
    assert same(both.news, text_only.news)
    assert torch.equal(location(both.eval(), batch()), location(price_only.eval(), batch()))


def test_building_any_variant_leaves_the_generator_alike():
    states = []
    for fusion in FUSIONS:
        model(fusion=fusion)
        states.append(torch.get_rng_state())
    assert all(torch.equal(states[0], state) for state in states)


def test_explain_gives_the_attention_of_a_transformer_only():
    assert model("transformer").eval().explain(batch()).attention.shape == (B, 2, 4, L, L)
    assert model("lstm").explain(batch()).attention is None
    assert model("transformer", "text_only").explain(batch()).attention is None


@every_pair
def test_weights_survive_a_state_dict(price, fusion):
    forecaster, fresh = trained(price, fusion), model(price, fusion, seed=9)
    fresh.load_state_dict(forecaster.state_dict())
    assert torch.equal(location(forecaster, batch()), location(fresh.eval(), batch()))


@every_pair
def test_trains_under_bf16(price, fusion):
    forecaster = model(price, fusion)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nll(forecaster(batch()), batch().target_B)
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad is None or p.grad.isfinite().all() for p in forecaster.parameters())
