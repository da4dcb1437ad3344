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
        copies_BK=torch.randint(1, 9, (B, K), generator=draw),
    )


def take(batch: NewsBatch, rows: torch.Tensor) -> NewsBatch:
    return NewsBatch(batch.embedding_BKE[rows], batch.mask_BK[rows], batch.age_BK[rows], batch.copies_BK[rows])


def no_columns() -> NewsBatch:
    nothing = torch.zeros(B, 0, dtype=torch.long)
    return NewsBatch(torch.zeros(B, 0, E), nothing.bool(), nothing, nothing)


@pytest.fixture
def encoder() -> NewsEncoder:
    torch.manual_seed(0)
    return NewsEncoder(E, D, AGES, dropout=0.1).eval()


def test_shapes_and_weights(encoder):
    encoded = encoder(news())
    assert encoded.pooled_BD.shape == (B, D)
    assert encoded.sequence_BLD.shape == (B, K, D)
    assert torch.equal(encoded.mask_BL, news().mask_BK)
    assert encoded.attention.shape == (B, K)
    assert (encoded.attention[news().mask_BK] > 0).all()
    assert not encoded.attention[~news().mask_BK].any()


def test_headlines_and_the_no_news_vector_share_one_weight(encoder):
    """What the headlines' weights leave of 1 is the no-news vector's, and the pooled vector is their mean."""
    encoded, has_news = encoder(news()), news().mask_BK.any(-1)
    spoken_B = encoded.attention.sum(-1)
    assert ((spoken_B > 0) == has_news).all()
    assert (spoken_B < 1).all()
    mean_BD = torch.einsum("bk,bkd->bd", encoded.attention, encoded.sequence_BLD)
    torch.testing.assert_close(encoded.pooled_BD, mean_BD + (1 - spoken_B)[:, None] * encoder.no_news_D)


@pytest.mark.parametrize("garbage", [1e9, math.inf, math.nan])
def test_padding_changes_nothing(encoder, garbage):
    clean = news()
    dirty = replace(
        clean,
        embedding_BKE=clean.embedding_BKE.masked_fill(~clean.mask_BK[..., None], garbage),
        age_BK=clean.age_BK.masked_fill(~clean.mask_BK, -999),
        copies_BK=clean.copies_BK.masked_fill(~clean.mask_BK, -999),
    )
    assert torch.equal(encoder(clean).pooled_BD, encoder(dirty).pooled_BD)
    encoder(dirty).pooled_BD.sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


def test_order_of_headlines_is_irrelevant(encoder):
    batch, order = news(), torch.tensor([2, 0, 3, 1])
    columns = (batch.embedding_BKE, batch.mask_BK, batch.age_BK, batch.copies_BK)
    shuffled = NewsBatch(*(column[:, order] for column in columns))
    torch.testing.assert_close(encoder(shuffled).pooled_BD, encoder(batch).pooled_BD)


def test_rows_do_not_see_each_other(encoder):
    batch, order = news(), torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(encoder(take(batch, order)).pooled_BD, encoder(batch).pooled_BD[order])


def test_no_news_is_exactly_the_learned_vector(encoder):
    assert torch.equal(encoder(news()).pooled_BD[2], encoder.no_news_D)
    assert torch.equal(encoder(no_columns()).pooled_BD, encoder.no_news_D.expand(B, D))
    assert torch.equal(encoder(news(counts=(0,) * B)).pooled_BD, encoder.no_news_D.expand(B, D))


def test_no_news_touches_samples_with_news_by_its_weight_and_no_more(encoder):
    before = encoder(news())
    with torch.no_grad():
        encoder.no_news_D.add_(100)
    after, share_B = encoder(news()), 1 - before.attention.sum(-1)
    assert torch.equal(after.attention, before.attention)
    assert torch.equal(after.sequence_BLD, before.sequence_BLD)
    moved_BD = (100 * share_B)[:, None].expand(B, D)
    torch.testing.assert_close(after.pooled_BD - before.pooled_BD, moved_BD, atol=1e-4, rtol=1e-4)


def test_one_headline_lies_between_its_token_and_no_news(encoder):
    encoded = encoder(news())
    share = encoded.attention[3, 0]
    assert 0.05 < share < 0.95
    expected_D = torch.lerp(encoder.no_news_D, encoded.sequence_BLD[3, 0], share)
    torch.testing.assert_close(encoded.pooled_BD[3], expected_D)


@pytest.mark.parametrize(("recency", "is_no_news"), [(-100.0, True), (100.0, False)])
def test_a_recency_can_be_learned_that_fades_news_out_or_takes_it_in_full(encoder, recency, is_no_news):
    batch = news(counts=(1,) * B)
    with torch.no_grad():
        encoder.recency.weight.fill_(recency)
    encoded = encoder(batch)
    expected_BD = encoder.no_news_D.expand(B, D) if is_no_news else encoded.sequence_BLD[:, 0]
    torch.testing.assert_close(encoded.pooled_BD, expected_BD)


def test_untrained_fresh_news_outweighs_no_news_and_fades_by_the_session(encoder):
    batch = news(counts=(1,) * B)
    with torch.no_grad():
        encoder.score.weight.zero_()  # what a headline says does not count here
    ages = [replace(batch, age_BK=torch.full((B, K), age)) for age in range(AGES)]
    weight_AB = torch.stack([encoder(aged).attention[:, 0] for aged in ages])
    assert (weight_AB[0] > 0.8).all()
    assert (weight_AB.diff(dim=0) < 0).all()
    assert (weight_AB[-1] < 0.5).all()


def test_fresh_headlines_outweigh_stale_ones_in_one_sample(encoder):
    batch = news(counts=(K,) * B)
    with torch.no_grad():
        encoder.score.weight.zero_()
    attention_BK = encoder(replace(batch, age_BK=torch.tensor([0, 1, 1, 2]).expand(B, K))).attention
    assert (attention_BK[:, 0] > attention_BK[:, 1]).all()
    torch.testing.assert_close(attention_BK[:, 1], attention_BK[:, 2])
    assert (attention_BK[:, 2] > attention_BK[:, 3]).all()


def test_age_matters_and_old_is_old(encoder):
    batch = news()
    fresh, oldest, older = (encoder(replace(batch, age_BK=torch.full((B, K), age))) for age in (0, AGES - 1, AGES + 7))
    assert not torch.allclose(fresh.sequence_BLD[0], oldest.sequence_BLD[0])
    assert not torch.allclose(fresh.attention[0], oldest.attention[0])
    assert not torch.allclose(fresh.pooled_BD[0], oldest.pooled_BD[0])
    assert torch.equal(oldest.pooled_BD, older.pooled_BD)
    assert torch.equal(oldest.attention, older.attention)


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
    row_B = torch.tensor([0, 0, 1, 2, 2])  # three distinct sessions
    markets = [take(news(seed), torch.arange(3)) for seed in (1, 2)]
    first, other = (channels(news(), market, row_B) for market in markets)
    assert torch.equal(first.pooled_BD, channels.own(news()).pooled_BD)
    assert torch.equal(first.pooled_BD, other.pooled_BD)
    first.pooled_BD.square().sum().backward()
    assert channels.from_market.weight.grad.any()
    with torch.no_grad():
        channels.from_market.weight.normal_()
    spoken = [channels(news(), market, row_B).pooled_BD for market in markets]
    assert not torch.allclose(*spoken)
    assert channels(news(), no_columns(), row_B).pooled_BD.isfinite().all()


def speaking() -> NewsChannels:
    """Channels whose market part has left its silent start."""
    torch.manual_seed(0)
    channels = NewsChannels(E, D, AGES, dropout=0.0).eval()
    torch.nn.init.normal_(channels.from_market.weight)
    return channels


def test_samples_of_one_session_hear_the_same_market():
    """A market row a distinct session says what a market row a sample would."""
    channels, market = speaking(), take(news(seed=1), torch.tensor([0, 1, 4]))
    row_B = torch.tensor([2, 0, 2, 1, 0])
    pooled_BD = channels(news(), market, row_B).pooled_BD
    repeated = channels(news(), take(market, row_B), torch.arange(B)).pooled_BD
    torch.testing.assert_close(pooled_BD, repeated)
    heard_BD = pooled_BD - channels.own(news()).pooled_BD
    torch.testing.assert_close(heard_BD[[0, 1]], heard_BD[[2, 4]])
    assert not torch.allclose(heard_BD[0], heard_BD[1])


def test_market_news_reaches_its_own_session_only():
    channels, market, row_B = speaking(), take(news(seed=1), torch.tensor([0, 1])), torch.tensor([0, 1, 1, 0, 1])
    louder = replace(market, embedding_BKE=market.embedding_BKE * torch.tensor([1.0, -1.0])[:, None, None])
    before, after = (channels(news(), heard, row_B).pooled_BD for heard in (market, louder))
    assert torch.equal(before[row_B == 0], after[row_B == 0])
    assert ((before - after)[row_B == 1].abs().amax(-1) > 1e-3).all()


def test_what_channels_show_besides_the_pooled_vector_is_their_own_headlines():
    channels = speaking()
    encoded, own = channels(news(), take(news(seed=1), torch.tensor([0])), torch.zeros(B).long()), channels.own(news())
    assert torch.equal(encoded.sequence_BLD, own.sequence_BLD)
    assert torch.equal(encoded.mask_BL, own.mask_BL)
    assert torch.equal(encoded.attention, own.attention)
