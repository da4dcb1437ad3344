"""Calibration: finds how far text is to be believed, and how wide and heavy-tailed the errors really are."""

import numpy as np
import pytest
from scipy import stats

from data.types import QUANTILES
from fusion.calibration import WIDEST, Calibration, Heard
from fusion.head import DF_HIGH, DF_LOW, Distribution

N, TICKERS = 20_000, 20
SESSION = 5 + np.arange(N) // TICKERS
RATIO = 4.0


def forecasts(df: float = 5.0, seed: int = 0) -> Distribution:
    rng = np.random.default_rng(seed)
    return Distribution(rng.normal(size=N), rng.uniform(0.5, 2.0, N), np.full(N, df))


def unmoved(forecast: Distribution) -> Heard:
    """A model that says with news what it says without."""
    return Heard(forecast, forecast)


def moved(by: float = 0.5) -> Heard:
    """A model whose news moves the location by about `by`, and narrows the scale."""
    silence, rng = forecasts(), np.random.default_rng(9)
    location = silence.location + by * rng.normal(size=N)
    return Heard(Distribution(location, silence.scale * 0.9, silence.df), silence)


def targets(forecast: Distribution, scale: float, df: float, seed: int = 1) -> np.ndarray:
    """What happens where the forecasts' scale is short by `scale`, with tails of `df`."""
    return forecast.location + forecast.scale * scale * stats.t.rvs(df, size=N, random_state=seed)


def shocks(size: float) -> np.ndarray:
    """One draw a session, for each of its samples."""
    return size * np.random.default_rng(5).normal(size=N // TICKERS).repeat(TICKERS)


def fit(forecast: Heard, happened: np.ndarray, ratio: float = RATIO) -> Calibration:
    return Calibration.fit(forecast, happened, SESSION, ratio)


def same(one: Distribution, other: Distribution) -> None:
    for name in ("location", "scale", "df"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("scale", "df"), [(1.7, 3.5), (0.6, 5.0), (1.0, 8.0)])
@pytest.mark.parametrize("said", [2.5, 5.0, 29.0])
def test_recovers_the_scale_and_the_tails_of_the_errors(scale, df, said):
    forecast = forecasts(said)
    fitted = fit(unmoved(forecast), targets(forecast, scale, df))
    assert fitted.scale == pytest.approx(scale, rel=0.03)
    assert fitted.df == pytest.approx(df, rel=0.12)


@pytest.mark.parametrize("weight", [0.0, 0.35, 0.8, 1.0])
@pytest.mark.parametrize("shock", [0.0, 1.0])
def test_recovers_how_far_text_is_to_be_believed(weight, shock):
    heard = moved()
    fitted = fit(heard, targets(heard.mix(weight), 1.0, 5.0) + shocks(shock))
    assert fitted.text == pytest.approx(weight, abs=0.06)


@pytest.mark.parametrize(("truth", "expected"), [(-0.5, 0.0), (2.0, 1.0)])
def test_text_is_neither_turned_round_nor_overstated(truth, expected):
    heard = moved()
    heard = Heard(Distribution(heard.news.location, heard.silence.scale, heard.silence.df), heard.silence)
    right = heard.silence.location + truth * (heard.news.location - heard.silence.location)
    fitted = fit(heard, targets(Distribution(right, heard.silence.scale, heard.silence.df), 1.0, 5.0))
    assert 0 <= fitted.text <= 1
    assert fitted.text == pytest.approx(expected, abs=0.06)


def test_what_text_says_of_a_whole_session_is_not_believed_for_hitting_its_shock():
    """News that moves all tickers of a session alike explains a shock; with few sessions that is chance."""
    silence, shock = forecasts(), shocks(1.0)
    tickers = np.random.default_rng(6).normal(size=N)  # and its noise among tickers tells how good it is
    heard = Heard(Distribution(silence.location + shock + tickers, silence.scale, silence.df), silence)
    happened = targets(silence, 1.0, 5.0) + shock
    assert fit(heard, happened, ratio=0.1).text < 0.05
    assert fit(heard, happened, ratio=1e9).text > 0.3


def test_weights_0_and_1_are_the_two_forecasts_and_others_lie_between():
    heard = moved()
    same(heard.mix(0.0), heard.silence)
    same(heard.mix(1.0), heard.news)
    half = heard.mix(0.5)
    np.testing.assert_allclose(half.location, (heard.news.location + heard.silence.location) / 2)
    np.testing.assert_allclose(half.scale, np.sqrt(heard.news.scale * heard.silence.scale))


def test_intervals_hold_on_new_samples_shocks_and_all():
    forecast = forecasts()
    fitted = fit(unmoved(forecast), targets(forecast, 1.3, 3.0) + shocks(0.8))
    fresh = forecasts(seed=2)
    happened = targets(fresh, 1.3, 3.0, seed=3) + np.random.default_rng(8).permutation(shocks(0.8))
    below = (happened[:, None] < fitted.apply(unmoved(fresh)).quantiles(QUANTILES)).mean(axis=0)
    np.testing.assert_allclose(below, QUANTILES, atol=0.015)
    uncalibrated = (happened[:, None] < fresh.quantiles(QUANTILES)).mean(axis=0)
    assert np.abs(uncalibrated - QUANTILES).max() > 0.05


@pytest.mark.parametrize("text", [0.0, 0.6, 1.0])
def test_location_and_ranks_are_those_of_the_mixed_forecast(text):
    heard = moved()
    mixed, calibrated = heard.mix(text), Calibration(text=text, scale=1.8, df=3.0).apply(heard)
    np.testing.assert_array_equal(calibrated.location, mixed.location)
    np.testing.assert_allclose(calibrated.scale, mixed.scale * 1.8)
    np.testing.assert_array_equal(calibrated.df, np.full(N, 3.0))
    np.testing.assert_array_equal(np.argsort(calibrated.prob_up), np.argsort(mixed.prob_up))
    np.testing.assert_array_equal(calibrated.prob_up > 0.5, mixed.prob_up > 0.5)


@pytest.mark.parametrize("text", [0.0, 0.3, 1.0])
def test_where_there_was_no_news_only_the_width_changes(text):
    forecast = forecasts()
    calibrated = Calibration(text=text, scale=1.5, df=4.0).apply(unmoved(forecast))
    same(calibrated, Distribution(forecast.location, forecast.scale * 1.5, np.full(N, 4.0)))


def test_what_is_calibrated_already_is_left_as_it_is():
    forecast = forecasts()
    happened = targets(forecast, 1.4, 4.0)
    fitted = fit(unmoved(forecast), happened)
    again = fit(unmoved(fitted.apply(unmoved(forecast))), happened)
    assert again.scale == pytest.approx(1.0, rel=1e-3)
    assert again.df == pytest.approx(fitted.df, rel=1e-2)


def test_no_other_scale_or_tails_are_likelier():
    forecast = forecasts()
    happened = targets(forecast, 1.3, 6.0)
    fitted = fit(unmoved(forecast), happened)

    def likelihood(scale: float, df: float) -> float:
        one = Calibration(0.0, scale, df).apply(unmoved(forecast))
        return float(stats.t.logpdf(happened, one.df, one.location, one.scale).mean())

    best = likelihood(fitted.scale, fitted.df)
    for factor in (0.97, 1.03):
        assert likelihood(fitted.scale * factor, fitted.df) < best
        assert likelihood(fitted.scale, fitted.df * factor) < best


@pytest.mark.parametrize(
    ("scale", "df", "expected"),
    [(50.0, 4.0, {"scale": WIDEST}), (0.01, 4.0, {"scale": 1 / WIDEST}), (1.0, 1e6, {"df": DF_HIGH})],
)
def test_stays_in_bounds(scale, df, expected):
    forecast = forecasts()
    fitted = fit(unmoved(forecast), targets(forecast, scale, df))
    for name, value in expected.items():
        assert getattr(fitted, name) == pytest.approx(value)
    assert 1 / WIDEST - 1e-9 <= fitted.scale <= WIDEST + 1e-9
    assert DF_LOW - 1e-9 <= fitted.df <= DF_HIGH + 1e-9


def test_commutes_with_the_unit():
    forecast, unit, fitted = forecasts(), np.random.default_rng(4).uniform(0.01, 0.05, N), Calibration(0.4, 1.5, 3.0)
    same(fitted.apply(unmoved(forecast)).times(unit), fitted.apply(unmoved(forecast.times(unit))))


def test_the_same_data_gives_the_same_calibration_whatever_the_order_of_samples():
    heard = moved()
    happened = targets(heard.mix(0.5), 1.2, 4.0) + shocks(1.0)
    fitted, order = fit(heard, happened), np.random.default_rng(3).permutation(N)
    assert fit(heard, happened) == fitted
    shuffled = Heard(heard.news.take(order), heard.silence.take(order))
    again = Calibration.fit(shuffled, happened[order], SESSION[order], RATIO)
    assert (again.text, again.scale, again.df) == pytest.approx((fitted.text, fitted.scale, fitted.df), rel=1e-3)
