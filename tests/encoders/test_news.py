"""News encoder: a set of headlines, padding that says nothing, and silence as a vector of its own."""

import math
from dataclasses import replace

import pytest
import torch

from data.types import NewsBatch
from encoders.news import NewsChannels, NewsEncoder

B, K, E, D, AGES = 5, 4, 12, 8, 3
COUNTS = (4, 2, 0, 1, 3)  # headlines of each sample; the third has none


def news(seed: int = 0, counts: tuple[int, ...] = COUNTS) -> NewsBatch:
    draw = torch.Generator().manual_seed(seed)
    return NewsBatch(
        embedding_BKE=torch.randn(B, K, E, generator=draw),
        mask_BK=torch.arange(K)[None] < torch.tensor(counts)[:, None],
        age_BK=torch.randint(0, AGES, (B, K), generator=draw),
    )


def no_columns() -> NewsBatch:
    return NewsBatch(torch.zeros(B, 0, E), torch.zeros(B, 0, dtype=torch.bool), torch.zeros(B, 0, dtype=torch.long))


@pytest.fixture
def encoder() -> NewsEncoder:
    torch.manual_seed(0)
    return NewsEncoder(E, D, AGES, dropout=0.1).eval()


def test_shapes_and_weights(encoder):
    encoded = encoder(news())
    assert encoded.pooled_BD.shape == (B, D)
    assert encoded.sequence_BLD.shape == (B, K, D)
    assert torch.equal(encoded.mask_BL, news().mask_BK)
    torch.testing.assert_close(encoded.attention.sum(-1), torch.tensor([1.0, 1, 0, 1, 1]))
    assert not encoded.attention[~news().mask_BK].any()


@pytest.mark.parametrize("garbage", [1e9, math.inf, math.nan])
def test_padding_changes_nothing(encoder, garbage):
    clean = news()
    dirty = replace(
        clean,
        embedding_BKE=clean.embedding_BKE.masked_fill(~clean.mask_BK[..., None], garbage),
        age_BK=clean.age_BK.masked_fill(~clean.mask_BK, -999),
    )
    assert torch.equal(encoder(clean).pooled_BD, encoder(dirty).pooled_BD)
    encoder(dirty).pooled_BD.sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


def test_order_of_headlines_is_irrelevant(encoder):
    batch, order = news(), torch.tensor([2, 0, 3, 1])
    shuffled = NewsBatch(batch.embedding_BKE[:, order], batch.mask_BK[:, order], batch.age_BK[:, order])
    torch.testing.assert_close(encoder(shuffled).pooled_BD, encoder(batch).pooled_BD)


def test_rows_do_not_see_each_other(encoder):
    batch, order = news(), torch.tensor([4, 2, 0, 1, 3])
    permuted = NewsBatch(batch.embedding_BKE[order], batch.mask_BK[order], batch.age_BK[order])
    torch.testing.assert_close(encoder(permuted).pooled_BD, encoder(batch).pooled_BD[order])


def test_no_news_is_exactly_the_learned_vector(encoder):
    assert torch.equal(encoder(news()).pooled_BD[2], encoder.no_news_D)
    assert torch.equal(encoder(no_columns()).pooled_BD, encoder.no_news_D.expand(B, D))
    assert torch.equal(encoder(news(counts=(0,) * B)).pooled_BD, encoder.no_news_D.expand(B, D))


def test_no_news_does_not_touch_samples_with_news(encoder):
    before = encoder(news()).pooled_BD
    with torch.no_grad():
        encoder.no_news_D.add_(100)
    has_news = news().mask_BK.any(-1)
    assert torch.equal(encoder(news()).pooled_BD[has_news], before[has_news])


def test_one_headline_is_its_own_token(encoder):
    encoded = encoder(news())
    torch.testing.assert_close(encoded.pooled_BD[3], encoded.sequence_BLD[3, 0])


def test_age_matters_and_old_is_old(encoder):
    batch = news()
    fresh, oldest, older = (
        encoder(replace(batch, age_BK=torch.full((B, K), age))).pooled_BD for age in (0, AGES - 1, AGES + 7)
    )
    assert not torch.allclose(fresh[0], oldest[0])
    assert torch.equal(oldest, older)


def test_half_precision_embeddings_are_read(encoder):
    batch = news()
    half = replace(batch, embedding_BKE=batch.embedding_BKE.half())
    torch.testing.assert_close(encoder(half).pooled_BD, encoder(batch).pooled_BD, atol=1e-2, rtol=1e-2)


def test_gradient_reaches_every_parameter(encoder):
    encoder(news()).pooled_BD.pow(3).sum().backward()
    assert [name for name, p in encoder.named_parameters() if not p.grad.any()] == []


def test_no_headlines_anywhere_still_trains(encoder):
    encoder(no_columns()).pooled_BD.square().sum().backward()
    assert encoder.no_news_D.grad.any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


def test_runs_under_bf16(encoder):
    for batch in (news(), no_columns()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert encoder(batch).pooled_BD.isfinite().all()


def test_market_news_starts_silent_and_can_learn_to_speak():
    torch.manual_seed(0)
    channels = NewsChannels(E, D, AGES, dropout=0.0)
    first, other = channels(news(), news(seed=1)), channels(news(), news(seed=2))
    assert torch.equal(first.pooled_BD, channels.own(news()).pooled_BD)
    assert torch.equal(first.pooled_BD, other.pooled_BD)
    first.pooled_BD.square().sum().backward()
    assert channels.from_market.weight.grad.any()
    with torch.no_grad():
        channels.from_market.weight.normal_()
    assert not torch.allclose(channels(news(), news(seed=1)).pooled_BD, channels(news(), news(seed=2)).pooled_BD)
    assert channels(news(), no_columns()).pooled_BD.isfinite().all()
