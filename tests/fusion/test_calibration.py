"""Calibration: finds how wide and how heavy-tailed the errors really are, and moves no forecast."""

import numpy as np
import pytest
from scipy import stats

from data.types import QUANTILES
from fusion.calibration import WIDEST, Calibration
from fusion.head import DF_HIGH, DF_LOW, Distribution

N = 20_000


def forecasts(df: float = 5.0, seed: int = 0) -> Distribution:
    rng = np.random.default_rng(seed)
    return Distribution(rng.normal(size=N), rng.uniform(0.5, 2.0, N), np.full(N, df))


def targets(forecast: Distribution, scale: float, df: float, seed: int = 1) -> np.ndarray:
    """What happens where the forecasts' scale is short by `scale`, with tails of `df`."""
    return forecast.location + forecast.scale * scale * stats.t.rvs(df, size=N, random_state=seed)


@pytest.mark.parametrize(("scale", "df"), [(1.7, 3.5), (0.6, 5.0), (1.0, 8.0)])
@pytest.mark.parametrize("said", [2.5, 5.0, 29.0])
def test_recovers_the_scale_and_the_tails_of_the_errors(scale, df, said):
    forecast = forecasts(said)
    fitted = Calibration.fit(forecast, targets(forecast, scale, df))
    assert fitted.scale == pytest.approx(scale, rel=0.03)
    assert fitted.df == pytest.approx(df, rel=0.12)


def test_intervals_hold_on_new_samples():
    forecast = forecasts()
    fitted = Calibration.fit(forecast, targets(forecast, 1.6, 3.0))
    fresh = forecasts(seed=2)
    happened = targets(fresh, 1.6, 3.0, seed=3)
    below = (happened[:, None] < fitted.apply(fresh).quantiles(QUANTILES)).mean(axis=0)
    np.testing.assert_allclose(below, QUANTILES, atol=0.01)
    uncalibrated = (happened[:, None] < fresh.quantiles(QUANTILES)).mean(axis=0)
    assert np.abs(uncalibrated - QUANTILES).max() > 0.05


def test_location_and_ranks_are_the_models_own():
    forecast = forecasts()
    calibrated = Calibration(scale=1.8, df=3.0).apply(forecast)
    np.testing.assert_array_equal(calibrated.location, forecast.location)
    np.testing.assert_allclose(calibrated.scale, forecast.scale * 1.8)
    np.testing.assert_array_equal(calibrated.df, np.full(N, 3.0))
    np.testing.assert_array_equal(np.argsort(calibrated.prob_up), np.argsort(forecast.prob_up))
    np.testing.assert_array_equal(calibrated.prob_up > 0.5, forecast.prob_up > 0.5)


def test_what_is_calibrated_already_is_left_as_it_is():
    forecast = forecasts()
    happened = targets(forecast, 1.4, 4.0)
    fitted = Calibration.fit(forecast, happened)
    again = Calibration.fit(fitted.apply(forecast), happened)
    assert again.scale == pytest.approx(1.0, rel=1e-3)
    assert again.df == pytest.approx(fitted.df, rel=1e-2)


def test_no_other_scale_or_tails_are_likelier():
    forecast = forecasts()
    happened = targets(forecast, 1.3, 6.0)
    fitted = Calibration.fit(forecast, happened)

    def likelihood(scale: float, df: float) -> float:
        one = Calibration(scale, df).apply(forecast)
        return float(stats.t.logpdf(happened, one.df, one.location, one.scale).mean())

    best = likelihood(fitted.scale, fitted.df)
    for factor in (0.97, 1.03):
        assert likelihood(fitted.scale * factor, fitted.df) < best
        assert likelihood(fitted.scale, fitted.df * factor) < best + 1e-8


@pytest.mark.parametrize(
    ("scale", "df", "expected"),
    [(50.0, 4.0, {"scale": WIDEST}), (0.01, 4.0, {"scale": 1 / WIDEST}), (1.0, 1e6, {"df": DF_HIGH})],
)
def test_stays_in_bounds(scale, df, expected):
    forecast = forecasts()
    fitted = Calibration.fit(forecast, targets(forecast, scale, df))
    for name, value in expected.items():
        assert getattr(fitted, name) == pytest.approx(value)
    assert 1 / WIDEST - 1e-9 <= fitted.scale <= WIDEST + 1e-9
    assert DF_LOW - 1e-9 <= fitted.df <= DF_HIGH + 1e-9


def test_commutes_with_the_unit():
    forecast, unit, fitted = forecasts(), np.random.default_rng(4).uniform(0.01, 0.05, N), Calibration(1.5, 3.0)
    first, last = fitted.apply(forecast).times(unit), fitted.apply(forecast.times(unit))
    np.testing.assert_allclose(first.scale, last.scale)
    np.testing.assert_array_equal(first.location, last.location)
    np.testing.assert_array_equal(first.df, last.df)


def test_the_same_data_gives_the_same_calibration():
    forecast = forecasts()
    happened = targets(forecast, 1.2, 4.0)
    assert Calibration.fit(forecast, happened) == Calibration.fit(forecast, happened)
