"""The price language: bars to codes and back, one distribution over all tokens, a cache that changes nothing."""

from itertools import product

import numpy as np
import pytest
import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from data.features import FEATURES
from encoders.price import PriceEncoderConfig
from encoders.price.attention import importance
from encoders.price.tokens import Decoding, TokensConfig, TokensEncoder, sampling
from encoders.price.tokens.encoder import COLUMNS
from encoders.price.tokens.language import LanguageModel
from encoders.price.tokens.pretraining import _tiles
from encoders.price.tokens.quantiser import Quantiles, ResidualVQ, kmeans
from encoders.price.tokens.sampling import pick, sample, uniforms

B, L, F, D = 5, 12, 6, 16
STACKS = ("lstm", "transformer")
each_stack = pytest.mark.parametrize("stack", STACKS)
VARIANTS = [
    {"stack": stack, "quantiser": quantiser, "shape_bins": shape_bins, "layers": layers}
    for stack, quantiser, shape_bins, layers in [
        ("lstm", "quantiles", 4, 1),
        ("transformer", "quantiles", 1, 2),
        ("lstm", "rvq", 4, 2),
        ("transformer", "rvq", 4, 1),
    ]
]
each_variant = pytest.mark.parametrize("keys", VARIANTS, ids=lambda keys: "-".join(map(str, keys.values())))


def built(seed: int = 0, **keys) -> TokensEncoder:
    torch.manual_seed(seed)
    config = TokensConfig(**{"lookback": L, "width": D, "bins": 6, "shape_bins": 3, "dropout": 0.2, **keys})
    return config.build(F).eval()


def windows(batch: int = B, length: int = L, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    mask_BL = torch.rand(batch, length, generator=draw) < 0.8
    mask_BL[:, -1] = True
    return torch.randn(batch, length, F, generator=draw).masked_fill(~mask_BL[..., None], 0), mask_BL


def history(encoder: TokensEncoder, tickers: int = 4, sessions: int = 70) -> tuple[Tensor, Tensor]:
    price, mask = windows(tickers, sessions, seed=9)
    return price[..., list(encoder.columns)], mask


def taught(seed: int = 0, **keys) -> TokensEncoder:
    encoder = built(**keys)
    encoder.pretrain(*history(encoder), seed=seed)
    return encoder


def generators(count: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(100 * seed + row) for row in range(count)]


# The quantiser


def test_the_bar_is_where_the_features_have_it():
    assert [FEATURES[column] for column in COLUMNS] == ["return", "overnight", "range", "close_location"]


def test_bins_hold_equal_shares_of_training():
    rows = torch.randn(10_000, 3, generator=torch.Generator().manual_seed(0)).exp()
    quantiser = Quantiles(8, 4, 3)
    quantiser.fit(rows, torch.Generator())
    codes = quantiser.encode(rows)
    assert quantiser.levels == (8, 4, 4)
    for column, count in enumerate(quantiser.levels):
        shares = torch.bincount(codes[:, column], minlength=count) / len(rows)
        torch.testing.assert_close(shares, torch.full((count,), 1 / count), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("make", "told"),
    [(lambda: Quantiles(16, 4, 4), 0.95), (lambda: ResidualVQ(16, 2, 4), 0.4)],  # the latter shares its codes among all
    ids=["quantiles", "rvq"],
)
def test_returns_drawn_within_their_bins_are_spread_as_in_training(make, told):
    draw = torch.Generator().manual_seed(1)
    rows = torch.randn(20_000, 4, generator=draw) ** 3
    quantiser = make()
    quantiser.fit(rows, draw)
    decoded = quantiser.decode(quantiser.encode(rows), torch.rand(len(rows), generator=draw))
    levels = torch.tensor([0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95])
    torch.testing.assert_close(decoded.quantile(levels), rows[:, 0].quantile(levels), atol=0.12, rtol=0.05)
    rank = torch.stack([each.argsort().argsort().float() for each in (decoded, rows[:, 0])])
    assert torch.corrcoef(rank)[0, 1] > told


def test_decoding_stays_in_the_bin_and_rises_with_the_place():
    rows = torch.randn(5_000, 1, generator=torch.Generator().manual_seed(2))
    quantiser = Quantiles(8, 1, 1)
    quantiser.fit(rows, torch.Generator())
    codes = torch.arange(8)[:, None].expand(8, 21)
    decoded = quantiser.decode(codes[..., None], torch.linspace(0, 1, 21).expand(8, 21))
    assert torch.equal(quantiser.encode(decoded[..., None])[..., 0], codes)
    assert (decoded.diff(dim=1) >= 0).all()


def test_equal_values_never_part_and_distinct_ones_may():
    symbols = torch.tensor([-1.0, 0.0, 2.0, 5.0])
    rows = symbols[torch.randint(4, (1_000,), generator=torch.Generator().manual_seed(3))][:, None]
    quantiser = Quantiles(16, 1, 1)
    quantiser.fit(rows, torch.Generator())
    codes = quantiser.encode(symbols[:, None])[:, 0]
    assert len(set(codes.tolist())) == 4
    for place in (0.0, 0.3, 1.0):
        assert torch.equal(quantiser.decode(codes[:, None], torch.full((4,), place)), symbols)


def test_constant_and_extreme_bars_are_no_error():
    for quantiser in (Quantiles(8, 4, 2), ResidualVQ(8, 3, 2)):
        quantiser.fit(torch.ones(50, 2), torch.Generator())
        codes = quantiser.encode(torch.tensor([[1e30, -1e30], [1.0, 1.0], [-6.0, 6.0]]))
        assert (codes >= 0).all()
        assert (codes < torch.tensor(quantiser.levels)).all()
        assert quantiser.decode(codes, torch.tensor([0.0, 0.5, 1.0])).isfinite().all()
        assert all(buffer.isfinite().all() for buffer in quantiser.buffers())


def test_each_stage_of_the_residual_quantiser_says_more():
    rows = torch.randn(4_000, 4, generator=torch.Generator().manual_seed(4))
    errors = []
    for stages in (1, 2, 3):
        quantiser = ResidualVQ(16, stages, 4)
        quantiser.fit(rows, torch.Generator().manual_seed(0))
        codes = quantiser.encode(rows)
        told = sum(quantiser.codebook_GKV[stage][codes[:, stage]] for stage in range(stages))
        errors.append(float((rows - told).square().mean()))
    assert errors[1] < 0.6 * errors[0]
    assert errors[2] < 0.7 * errors[1]


def test_kmeans_finds_what_is_there():
    centres = torch.tensor([[-4.0, 0.0], [0.0, 3.0], [5.0, 5.0]])
    draw = torch.Generator().manual_seed(5)
    rows = centres[torch.randint(3, (900,), generator=draw)] + 0.1 * torch.randn(900, 2, generator=draw)
    found = kmeans(rows, 3, draw)
    torch.testing.assert_close(found[found[:, 0].argsort()], centres, atol=0.05, rtol=0)


# The language model


def codes_of(language: LanguageModel, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(count, shape, generator=draw) for count in language.levels], dim=-1)


@each_variant
def test_probabilities_of_all_tokens_add_up_to_one(keys):
    language = built(**keys).language
    tokens = torch.tensor(list(product(*(range(count) for count in language.levels))))
    states = torch.randn(3, 1, D).expand(3, len(tokens), D)
    total = language.log_prob(states, tokens.expand(3, *tokens.shape)).sum(-1).exp().sum(-1)
    torch.testing.assert_close(total, torch.ones(3))


@each_variant
def test_a_cache_changes_nothing(keys):
    language = built(**keys).language
    length = 3 * L  # past the window of the Transformer's attention
    codes, mask = codes_of(language, (B, length)), windows(B, length)[1]
    whole, _ = language(codes, mask)
    parts, cache = [], None
    for first, last in [(0, 5), (5, 6), (6, L + 7), *[(at, at + 1) for at in range(L + 7, length)]]:
        part, cache = language(codes[:, first:last], mask[:, first:last], cache)
        parts.append(part)
    # A masked session before the first observed one may see any; its state is read by nobody.
    torch.testing.assert_close(torch.cat(parts, dim=1)[mask], whole[mask], atol=1e-5, rtol=0)


@each_variant
def test_no_state_reads_a_later_bar(keys):
    language = built(**keys).language
    codes, mask = codes_of(language, (B, L)), torch.ones(B, L, dtype=torch.bool)
    other = torch.cat([codes[:, :7], codes_of(language, (B, L - 7), seed=1)], dim=1)
    first, second = (language(each, mask)[0] for each in (codes, other))
    torch.testing.assert_close(first[:, :7], second[:, :7])
    assert not torch.allclose(first[:, -1], second[:, -1])


@each_stack
def test_the_transformer_forgets_what_is_outside_its_window_and_the_place_does_not_count(stack):
    language = built(stack=stack, layers=1).language
    codes = codes_of(language, (B, 2 * L))
    mask = torch.ones(B, 2 * L, dtype=torch.bool)
    late, early = language(codes, mask)[0][:, -1], language(codes[:, L:], mask[:, L:])[0][:, -1]
    assert torch.allclose(late, early, atol=1e-5) == (stack == "transformer")


@each_stack
def test_only_an_observed_bar_after_an_observed_one_is_forecast(stack):
    language = built(stack=stack).language
    codes, (_, mask) = codes_of(language, (B, L)), windows()
    said = language.next_log_prob(codes, mask)
    assert len(said) == int((mask[:, 1:] & mask[:, :-1]).sum())
    elsewhere = codes.masked_fill(~mask[..., None], 0)
    torch.testing.assert_close(language.next_log_prob(elsewhere, mask), said)


# Decoding


def test_truncation_keeps_the_likeliest():
    share = torch.tensor([[0.1, 0.4, 0.2, 0.3]])
    logits = share.log()
    torch.testing.assert_close(Decoding().probabilities(logits), share)
    torch.testing.assert_close(Decoding(top_k=2).probabilities(logits), torch.tensor([[0, 4 / 7, 0, 3 / 7]]))
    torch.testing.assert_close(Decoding(top_p=0.6).probabilities(logits), torch.tensor([[0, 4 / 7, 0, 3 / 7]]))
    torch.testing.assert_close(Decoding(top_p=1e-9).probabilities(logits), torch.tensor([[0.0, 1, 0, 0]]))
    torch.testing.assert_close(Decoding(greedy=True).probabilities(logits), torch.tensor([[0.0, 1, 0, 0]]))
    torch.testing.assert_close(Decoding(top_k=9, top_p=1.0).probabilities(logits), share)
    sharp = Decoding(temperature=0.5).probabilities(logits)
    torch.testing.assert_close(sharp, share**2 / share.square().sum())


@pytest.mark.parametrize("wrong", [{"temperature": 0}, {"temperature": float("nan")}, {"top_k": 0}, {"top_p": 0.0}])
def test_decoding_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
        Decoding(**wrong)


def test_nothing_impossible_is_picked():
    share = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]])
    draws = torch.tensor([0.0, 0.4999, 0.5, 1 - 2**-24])
    assert pick(share.expand(4, 5), draws).tolist() == [1, 1, 3, 3]


def test_picks_are_as_frequent_as_they_are_likely():
    share = torch.rand(7, generator=torch.Generator().manual_seed(0)).softmax(-1)
    draws = torch.rand(40_000, generator=torch.Generator().manual_seed(1))
    found = torch.bincount(pick(share.expand(40_000, 7), draws), minlength=7) / 40_000
    torch.testing.assert_close(found, share, atol=0.008, rtol=0)


# Paths


@each_variant
def test_paths_are_what_reading_everything_again_would_give(keys):
    encoder = taught(**keys)
    language, horizon, paths = encoder.language, 4, 3
    codes, (_, mask) = codes_of(language, (B, L)), windows()
    drawn = sample(language, encoder.quantiser, codes, mask, horizon, paths, generators(B))
    assert drawn.returns_BNH.shape == (B, paths, horizon)
    draws = uniforms(generators(B), paths, horizon, len(language.levels) + 1)
    for row, path in product(range(B), range(paths)):
        read, seen = codes[row : row + 1], mask[row : row + 1]
        for step in range(horizon):
            state = language(read, seen)[0][:, -1]
            bar: list[Tensor] = []
            for position in range(len(language.levels)):
                share = language.logits(state, position).softmax(-1)
                bar.append(pick(share, draws[row, path, step, position][None]))
                state = language.follow(state, position, bar[-1])
            read = torch.cat([read, torch.stack(bar, dim=-1)[:, None]], dim=1)
            seen = torch.cat([seen, torch.ones(1, 1, dtype=torch.bool)], dim=1)
        assert torch.equal(read[0, L:], drawn.codes_BNHG[row, path])


@each_variant
def test_one_seed_one_set_of_paths_whatever_the_company(keys):
    encoder, (price, mask) = taught(**keys), windows()
    whole = encoder.paths(price, mask, 5, 20, generators(B)).returns_BNH
    again = encoder.paths(price, mask, 5, 20, generators(B)).returns_BNH
    other = encoder.paths(price, mask, 5, 20, generators(B, seed=1)).returns_BNH
    assert torch.equal(whole, again)
    assert not torch.equal(whole, other)
    for row in range(B):
        alone = encoder.paths(price[row : row + 1], mask[row : row + 1], 5, 20, [generators(B)[row]])
        torch.testing.assert_close(alone.returns_BNH[0], whole[row])


@each_variant
@pytest.mark.parametrize("together", [1, 3 * B, 16 * B])
def test_paths_drawn_a_few_at_a_time_are_those_drawn_together(keys, together, monkeypatch):
    encoder, (price, mask), ahead, drawn = taught(**keys), windows(), sampling._ahead, []

    def watched(language, state_BD, cache, draws_BNHU, decoding):
        drawn.append(draws_BNHU.shape[1])
        return ahead(language, state_BD, cache, draws_BNHU, decoding)

    monkeypatch.setattr(sampling, "_ahead", watched)
    whole = encoder.paths(price, mask, 5, 20, generators(B))
    monkeypatch.setattr(sampling, "AT_ONCE", together)
    parts = encoder.paths(price, mask, 5, 20, generators(B))
    most = max(1, together // B)
    assert drawn == [20, *[most] * (20 // most), *([20 % most] if 20 % most else [])]
    assert torch.equal(parts.codes_BNHG, whole.codes_BNHG)
    assert torch.equal(parts.returns_BNH, whole.returns_BNH)


def test_masked_sessions_change_no_path():
    encoder, (price, mask) = taught(), windows()
    garbage = price.masked_fill(~mask[..., None], torch.nan)
    first, second = (encoder.paths(each, mask, 3, 10, generators(B)) for each in (price, garbage))
    assert torch.equal(first.returns_BNH, second.returns_BNH)


@each_stack
def test_greedy_paths_are_all_one_and_the_likeliest(stack):
    encoder, (price, mask) = taught(stack=stack), windows()
    greedy = encoder.paths(price, mask, 4, 3, generators(B), Decoding(greedy=True))
    likeliest = encoder.paths(price, mask, 4, 3, generators(B), Decoding(top_k=1))
    assert torch.equal(greedy.codes_BNHG, likeliest.codes_BNHG)
    assert torch.equal(greedy.returns_BNH[:, :1].expand_as(greedy.returns_BNH), greedy.returns_BNH)


def test_a_language_never_learnt_gives_no_paths():
    with pytest.raises(ValueError, match="expected a pretrained language model"):
        built().paths(*windows(), 2, 3, generators(B))


# Pretraining, and the encoder beside it


@pytest.mark.parametrize(("sessions", "tile"), [(10, 4), (9, 4), (3, 4), (1, 4), (12, 1)])
def test_tiles_cover_every_step_once(sessions, tile):
    values = torch.arange(1, sessions + 1)[None, :, None]
    for offset in range(tile):
        tiles = _tiles(values, offset, tile)[..., 0]
        steps = torch.stack([tiles[:, :-1], tiles[:, 1:]], dim=-1).flatten(0, 1)
        inside = steps[(steps > 0).all(-1)]
        assert sorted(inside.tolist()) == [[at, at + 1] for at in range(1, sessions)]


@each_variant
def test_the_same_seed_teaches_the_same_and_leaves_the_generator_alone(keys):
    torch.manual_seed(3)
    expected = torch.rand(2)
    first, again, other = taught(seed=1, **keys), taught(seed=1, **keys), taught(seed=2, **keys)
    states = [each.state_dict() for each in (first, again, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["language.norm.weight"], states[2]["language.norm.weight"])
    encoder = built(**keys)
    torch.manual_seed(3)
    encoder.pretrain(*history(encoder), seed=0)
    assert torch.equal(torch.rand(2), expected)


@each_variant
def test_teaching_makes_what_was_seen_likelier(keys):
    encoder = built(**keys, pretrain=30)
    price, mask = torch.zeros(8, 40, F), torch.ones(8, 40, dtype=torch.bool)
    price[..., 0] = torch.tensor([-1.0, 0.0, 1.0, 2.0]).repeat(10)  # a cycle: the next is always known
    encoder.quantiser.fit(price[mask][:, list(encoder.columns)], torch.Generator())
    before = encoder.log_prob(price, mask).sum(-1).mean()
    encoder.pretrain(price[..., list(encoder.columns)], mask, seed=0)
    assert encoder.log_prob(price, mask).sum(-1).mean() > before + 1


def test_what_is_not_marked_is_not_learnt_from():
    encoder = built()
    prices, mask = history(encoder)
    states = []
    for garbage in (0.0, torch.nan, 1e9):
        encoder = built()
        encoder.pretrain(prices.masked_fill(~mask[..., None], garbage), mask, seed=0)
        states.append(encoder.state_dict())
    assert all(torch.equal(states[0][name], each[name]) for each in states[1:] for name in states[0])


def test_nothing_to_learn_from_is_an_error():
    encoder = built()
    prices, mask = history(encoder)
    with pytest.raises(ValueError, match="expected observed sessions to learn from"):
        encoder.pretrain(prices, torch.zeros_like(mask), seed=0)


def test_histories_without_two_bars_in_a_row_teach_the_quantiser_alone():
    encoder = built()
    prices, mask = history(encoder)
    alternate = (torch.arange(mask.shape[1]) % 2 == 0).expand_as(mask)
    before = encoder.language.norm.weight.clone()
    encoder.pretrain(prices, alternate, seed=0)
    assert torch.equal(encoder.language.norm.weight, before)


@each_variant
def test_the_language_stands_still_while_the_reader_learns(keys):
    encoder = taught(**keys).train()
    encoder(*windows()).pooled_BD.pow(3).sum().backward()
    moved = {name.split(".")[0] for name, p in encoder.named_parameters() if p.grad is not None}
    assert moved == {"read", "score", "norm"}
    assert not encoder.language.training
    assert encoder.dropout.training


@each_variant
def test_weights_carry_the_quantiser_and_the_language(keys, tmp_path):
    encoder = taught(**keys)
    safetensors.torch.save_file(encoder.state_dict(), tmp_path / "weights.safetensors")
    loaded = built(seed=1, **keys)
    loaded.load_state_dict(safetensors.torch.load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(loaded(*windows()).pooled_BD, encoder(*windows()).pooled_BD)
    ours, theirs = (each.paths(*windows(), 3, 8, generators(B)).returns_BNH for each in (encoder, loaded))
    assert torch.equal(ours, theirs)


@each_stack
@pytest.mark.parametrize("teach", [built, taught])
def test_maps_are_causal_and_sum_to_one(stack, teach):
    encoder, (price, mask) = teach(stack=stack, layers=2, heads=2), windows()
    mask[0, :3] = False
    encoded = encoder(price, mask, explain=True)
    assert torch.equal(encoded.pooled_BD, encoder(price, mask).pooled_BD)
    if stack == "lstm":
        assert encoded.attention is None
        return
    assert encoded.attention.shape == (B, 2, 2, L, L)
    torch.testing.assert_close(encoded.attention.sum(-1), torch.ones(B, 2, 2, L))
    assert not encoded.attention[~mask[:, None, None, None].expand_as(encoded.attention)].any()
    observed = encoded.attention.masked_fill(~mask[:, None, None, :, None], 0)
    assert not observed.triu(1).any()
    torch.testing.assert_close(importance(encoded.attention, mask).sum(-1), torch.ones(B))


@each_variant
def test_a_masked_session_changes_no_code_and_a_blind_window_is_finite(keys):
    encoder, (price, mask) = taught(**keys), windows()
    dirty = encoder(price.masked_fill(~mask[..., None], torch.nan), mask).pooled_BD
    assert torch.equal(encoder(price, mask).pooled_BD, dirty)
    blind = encoder(price * torch.nan, torch.zeros_like(mask), explain=True)
    assert blind.pooled_BD.isfinite().all()
    order = torch.randperm(B, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encoder(price[order], mask[order]).pooled_BD, dirty[order])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stack": "gru"}, "'lstm' or 'transformer'"),
        ({"quantiser": "kmeans"}, "'quantiles' or 'rvq'"),
        ({"stack": "transformer", "width": 20, "heads": 4}, "twice the heads: width is 20, heads is 4"),
        ({"quantiser": "rvq", "bins": 32, "stages": 3}, "at most 4096: bins is 32, stages is 3"),
        ({"bins": 1}, "greater than or equal to 2"),
        ({"pretrain": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_configs_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(PriceEncoderConfig).validate_python({"kind": "tokens", **wrong})


def test_features_without_a_bar_are_refused():
    with pytest.raises(ValueError, match="at least 5 features, a bar's among them, received 3"):
        TokensConfig().build(3)
    assert TokensConfig(shape_bins=1).build(1).language.levels == (16,)


def test_unfitted_codes_cut_a_standard_normal():
    quantiser = built(bins=8).quantiser
    codes = quantiser.encode(torch.from_numpy(np.random.default_rng(0).standard_normal((8_000, 4))))
    shares = torch.bincount(codes[:, 0]) / 8_000
    torch.testing.assert_close(shares, torch.full((8,), 1 / 8), atol=0.02, rtol=0)


@pytest.mark.parametrize("stack", ["lstm", "transformer"])
def test_importance_follows_what_the_reader_pools(stack):
    config = TokensConfig(lookback=12, width=16, stack=stack)
    torch.manual_seed(0)
    encoder = config.build(10).eval()
    price, mask = torch.randn(3, 12, 10), torch.ones(3, 12, dtype=torch.bool)
    with torch.no_grad():
        encoded = encoder(price, mask, explain=True)
        weight = encoder.score(encoded.sequence_BLD)[..., 0].softmax(-1)
    last = torch.zeros(12)
    last[-1] = 1
    torch.testing.assert_close(encoded.pooling_BL, (weight + last) / 2)
    told = importance(encoded.attention, mask, encoded.pooling_BL)
    torch.testing.assert_close(told.sum(-1), torch.ones(3))
    if stack == "lstm":
        torch.testing.assert_close(told, encoded.pooling_BL)
