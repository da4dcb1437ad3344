"""The price language model on a Markov market: it comes to know what can be known, and its intervals cover."""

import pytest
from markov import MarkovMarket, coverage, nats_a_session, taught

from encoders.price.tokens import TokensConfig

LOOKBACK, DAYS, PATHS = 16, 5, 200
CONFIG = TokensConfig(lookback=LOOKBACK, width=32, dropout=0.0, shape_bins=1)
each_stack = pytest.mark.parametrize("stack", ["lstm", "transformer"])


def test_the_market_is_what_it_says():
    market = MarkovMarket.draw(states=3, spread=0.5)
    returns = market.returns(tickers=200, sessions=200, seed=1)
    shares = [(abs(returns - centre) <= market.spread / 2).mean() for centre in market.centre_K]
    assert shares == pytest.approx(market.long_run, abs=0.02)
    assert sum(shares) == pytest.approx(1)


def test_a_small_model_learns_a_small_market():
    market = MarkovMarket.draw(states=3, spread=0.0)
    encoder = taught(market, CONFIG.model_copy(update={"width": 16, "bins": 8}), tickers=32, sessions=256)
    assert nats_a_session(encoder, market, tickers=100, sessions=65, seed=99) < 1.1 * market.entropy_rate


@pytest.mark.slow
@each_stack
def test_log_likelihood_comes_within_two_percent_of_the_entropy(stack):
    market = MarkovMarket.draw(states=5, spread=0.0)
    encoder = taught(market, CONFIG.model_copy(update={"stack": stack}), tickers=64, sessions=512)
    nats = nats_a_session(encoder, market, tickers=1000, sessions=129, seed=99)  # its own error is .3%
    assert nats == pytest.approx(market.entropy_rate, rel=0.02)


@pytest.mark.slow
@each_stack
def test_intervals_of_eighty_percent_cover_seventy_eight_to_eighty_two(stack):
    market = MarkovMarket.draw(states=5, spread=0.8)
    encoder = taught(market, CONFIG.model_copy(update={"stack": stack, "bins": 32}), tickers=64, sessions=512)
    held = coverage(encoder, market, samples=4000, lookback=LOOKBACK, days=DAYS, paths=PATHS, seed=1_000_000)
    # With 4,000 independent samples the standard error is .6%: an interval that covers 75% or 85% is found out.
    assert 0.78 <= held[0] <= 0.82
    assert 0.78 <= held[-1] <= 0.82
