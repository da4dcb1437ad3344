import numpy as np
import pytest
from scipy import stats

from data.types import QUANTILES
from fusion.head import Distribution
from pipelines.metrics import Days, evaluate_draws
from pipelines.scorecard.measures import (
    MEASURES,
    Outcomes,
    between_quantiles,
    by_day,
    estimate,
    estimates,
    expected_between,
)


def drawn(days: int = 60, tickers: int = 40, df: float = 5.0, seed: int = 0) -> tuple[Outcomes, Distribution]:
    """Outcomes of a forecast that is exactly right: Student-t of known scale around a known mean."""
    order = np.random.default_rng(seed)
    rows = days * tickers
    forecast = Distribution(order.normal(0, 0.01, rows), order.uniform(0.01, 0.03, rows), np.full(rows, df))
    realised = forecast.location + forecast.scale * order.standard_t(df, rows)
    day = np.repeat(np.arange(days), tickers).astype("datetime64[D]")
    return Outcomes(day, forecast.mean, forecast.prob_up, forecast.quantiles(QUANTILES), realised), forecast


def test_a_right_forecast_is_calibrated_and_its_density_recovered() -> None:
    outcomes, forecast = drawn()
    found = estimates(by_day(outcomes))
    for name, share in (("coverage_50", 0.5), ("coverage_80", 0.8), ("coverage_90", 0.9)):
        assert found[name] is not None
        assert found[name].low < share < found[name].high
    exact = -stats.t.logpdf(outcomes.realised, 5.0, forecast.location, forecast.scale)
    assert found["nll"].mean == pytest.approx(exact.mean(), abs=1e-4)
    np.testing.assert_allclose(between_quantiles(outcomes), expected_between(), atol=0.02)


def test_they_are_the_ablations_where_every_day_has_as_many_rows() -> None:
    outcomes, forecast = drawn()
    days = Days.draw(outcomes.day.astype(np.int64))
    ablated = evaluate_draws(forecast, outcomes.realised, days)
    found = estimates(by_day(outcomes))
    for ours, theirs in (("rank_ic", "rank_ic"), ("hit_rate", "accuracy"), ("pinball", "pinball")):
        assert found[ours].mean == pytest.approx(ablated[theirs][0], rel=1e-12)


def test_the_interval_is_over_days_not_rows() -> None:
    """Rows of a day that all share one shock say no more than one row does."""
    shock = np.random.default_rng(1).normal(size=50)
    alone = estimate(shock)
    assert alone.high - alone.low == pytest.approx(2 * 1.96 * shock.std(ddof=1) / np.sqrt(50), rel=0.15)
    assert alone.days == 50
    assert alone.sd == pytest.approx(shock.std(ddof=1))


def test_few_rows_and_none() -> None:
    outcomes, _ = drawn(days=3, tickers=4)
    daily = by_day(outcomes)
    assert np.isnan(daily.values["rank_ic"]).all()  # four tickers are no ranking
    assert estimates(daily)["rank_ic"] is None
    empty = by_day(Outcomes(outcomes.day[:0], *(np.empty(0),) * 2, np.empty((0, 7)), np.empty(0)))
    assert len(empty) == 0
    assert estimates(empty) == dict.fromkeys(MEASURES)


def test_quantiles_of_no_student_t_have_no_density() -> None:
    outcomes, _ = drawn(days=3)
    skewed = Outcomes(
        outcomes.day, outcomes.mean, outcomes.prob_up, np.exp(10 * outcomes.quantiles), np.exp(outcomes.realised)
    )
    assert estimates(by_day(skewed))["nll"] is None
    assert estimates(by_day(skewed))["pinball"] is not None


def test_a_row_without_a_density_spoils_its_own_day_alone() -> None:
    outcomes, _ = drawn(days=3, tickers=6)
    outcomes.quantiles[0] = np.exp(outcomes.quantiles[0])
    assert np.isnan(by_day(outcomes).values["nll"]).tolist() == [True, False, False]


def test_days_measured_anew_take_the_place_of_the_old() -> None:
    outcomes, _ = drawn(days=5, tickers=6)
    of_day = np.arange(5).repeat(6)
    kept = (of_day != 3) & (np.arange(30) != 7)  # nothing of day 3, and day 1 without a row
    part = {name: getattr(outcomes, name) for name in ("day", "mean", "prob_up", "quantiles", "realised")}
    left = Outcomes(**{name: values[kept] for name, values in part.items()})
    anew = by_day(Outcomes(**{name: values[kept & (of_day == 1)] for name, values in part.items()}))
    found, wanted = by_day(outcomes).replaced(np.array([1, 3]).astype("datetime64[D]"), anew), by_day(left)
    assert (found.day.tolist(), found.rows.tolist()) == (wanted.day.tolist(), [6, 5, 6, 6])
    for name in MEASURES:
        np.testing.assert_array_equal(found.values[name], wanted.values[name])
