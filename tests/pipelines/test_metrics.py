import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    matthews_corrcoef,
    mean_pinball_loss,
    roc_auc_score,
)

from data.types import QUANTILES
from fusion.head import Distribution
from pipelines.metrics import METRICS, Days, Interval, average, difference, evaluate_draws, intervals, rank_ic

DAYS, TICKERS = 50, 30


def made(seed: int, days: int = DAYS, tickers: int = TICKERS) -> tuple[Distribution, np.ndarray, np.ndarray]:
    """Forecasts that know a little, what came true, and the session of each row, shuffled."""
    rng = np.random.default_rng(seed)
    session = np.repeat(np.arange(100, 100 + days), tickers)
    location = rng.normal(0, 0.01, len(session))
    realised = 0.4 * location + rng.normal(0, 0.02, len(session))
    order = rng.permutation(len(session))
    forecast = Distribution(location, rng.uniform(0.01, 0.03, len(session)), np.full(len(session), 5.0))
    return forecast.take(order), realised[order], session[order]


def point(draws: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(values[0]) for name, values in draws.items()}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_estimates_agree_with_scikit_learn(seed: int) -> None:
    forecast, realised, session = made(seed)
    found = point(evaluate_draws(forecast, realised, Days.draw(session)))
    up, prob = realised > 0, forecast.prob_up
    assert tuple(found) == METRICS
    assert found["accuracy"] == pytest.approx(accuracy_score(up, prob > 0.5), abs=1e-12)
    assert found["mcc"] == pytest.approx(matthews_corrcoef(up, prob > 0.5), abs=1e-12)
    assert found["brier"] == pytest.approx(brier_score_loss(up, prob), abs=1e-12)
    assert found["auc"] == pytest.approx(roc_auc_score(up, prob), abs=1e-3)
    quantiles = forecast.quantiles(QUANTILES)
    pinball = [mean_pinball_loss(realised, quantiles[:, at], alpha=level) for at, level in enumerate(QUANTILES)]
    assert found["pinball"] == pytest.approx(np.mean(pinball), abs=1e-12)


def test_rank_ic_is_the_mean_of_each_days_spearman() -> None:
    forecast, realised, session = made(3)
    realised = np.round(realised, 2)  # with ties
    daily = [spearmanr(forecast.mean[session == day], realised[session == day]).statistic for day in np.unique(session)]
    assert rank_ic(forecast.mean, realised, Days.draw(session))[0] == pytest.approx(np.mean(daily), abs=1e-12)


def test_a_draw_is_the_metric_on_its_days() -> None:
    forecast, realised, session = made(4, days=12)
    days = Days.draw(session)
    draws = evaluate_draws(forecast, realised, days)
    for draw in (1, 7, 2000):
        repeats = days.weights[draw].astype(int)
        assert repeats.sum() == days.count == 12
        rows = np.concatenate([np.flatnonzero(days.day == day) for day in np.repeat(np.arange(12), repeats)])
        up, prob = realised[rows] > 0, forecast.prob_up[rows]
        assert draws["mcc"][draw] == pytest.approx(matthews_corrcoef(up, prob > 0.5), abs=1e-12)
        assert draws["auc"][draw] == pytest.approx(roc_auc_score(up, prob), abs=2e-3)
        assert draws["brier"][draw] == pytest.approx(brier_score_loss(up, prob), abs=1e-12)


def test_auc_counts_ties_as_half() -> None:
    forecast = Distribution(np.repeat([-0.01, 0.0, 0.01], 40), np.full(120, 0.02), np.full(120, 5.0))
    realised = np.random.default_rng(0).normal(0.002, 0.01, 120)
    days = Days.draw(np.tile(np.arange(10), 12))
    found = point(evaluate_draws(forecast, realised, days))["auc"]
    assert found == pytest.approx(roc_auc_score(realised > 0, forecast.prob_up), abs=1e-12)


def test_rank_ic_is_null_with_fewer_than_five_tickers() -> None:
    forecast, realised, session = made(5, tickers=4)
    found = intervals(evaluate_draws(forecast, realised, Days.draw(session)))
    assert found["rank_ic"] == Interval(None, None, None)
    assert found["accuracy"].mean is not None
    assert found["rank_ic"].as_dict() == {"mean": None, "low": None, "high": None}


def test_days_with_fewer_than_five_tickers_do_not_count_in_rank_ic() -> None:
    forecast, realised, session = made(6)
    thin = session < 110
    few = np.isin(np.arange(len(session)), [np.flatnonzero(session == day)[:4] for day in range(100, 110)])
    kept = ~thin | few
    with_thin, without = (
        rank_ic(forecast.mean[rows], realised[rows], Days.draw(session[rows]))[0] for rows in (kept, ~thin)
    )
    assert with_thin == pytest.approx(without, abs=1e-12)


def test_a_constant_forecast_ranks_and_tells_nothing() -> None:
    _, realised, session = made(7)
    forecast = Distribution(*(np.full(len(session), value) for value in (0.001, 0.02, 5.0)))
    found = intervals(evaluate_draws(forecast, realised, Days.draw(session)))
    assert found["rank_ic"] == Interval(0.0, 0.0, 0.0)
    assert found["mcc"] == Interval(0.0, 0.0, 0.0)
    assert found["auc"].mean == pytest.approx(0.5)


def test_auc_is_null_where_everything_rose() -> None:
    forecast, realised, session = made(8)
    found = intervals(evaluate_draws(forecast, np.abs(realised) + 1e-6, Days.draw(session)))
    assert found["auc"] == Interval(None, None, None)
    assert found["mcc"].mean == 0.0


def test_a_variant_differs_from_itself_by_exactly_nothing() -> None:
    forecast, realised, session = made(9)
    draws = evaluate_draws(forecast, realised, Days.draw(session))
    again = evaluate_draws(forecast, realised, Days.draw(session))
    assert set(intervals(difference(draws, again)).values()) == {Interval(0.0, 0.0, 0.0)}


def test_a_paired_difference_is_tighter_than_its_parts() -> None:
    forecast, realised, session = made(10)
    near = Distribution(forecast.location + 0.0005 * np.sign(realised), forecast.scale, forecast.df)
    days = Days.draw(session)
    first, second = (evaluate_draws(each, realised, days) for each in (near, forecast))
    gain, alone = intervals(difference(first, second))["rank_ic"], intervals(first)["rank_ic"]
    assert None not in (gain.low, gain.high, alone.low, alone.high)
    assert gain.low > 0
    assert gain.high - gain.low < (alone.high - alone.low) / 2


def test_seeds_are_averaged_draw_by_draw() -> None:
    days = Days.draw(made(11)[2])
    each = [evaluate_draws(*made(11)[:2], days), evaluate_draws(*made(12)[:2], days)]
    mean = average(each)
    assert set(mean) == set(METRICS)
    np.testing.assert_allclose(mean["brier"], (each[0]["brier"] + each[1]["brier"]) / 2)


def test_the_same_days_are_drawn_again() -> None:
    session = made(13)[2]
    assert (Days.draw(session).weights == Days.draw(session + 1000).weights).all()


def test_intervals_hold_the_truth_nineteen_times_in_twenty() -> None:
    """Rows of one day share most of what happens to them, so an interval over rows would be far too narrow."""
    rng, held, trials, days, tickers = np.random.default_rng(14), 0, 300, 60, 8
    session = np.repeat(np.arange(days), tickers)
    for _ in range(trials):
        daily = rng.normal(0, 1, days)[session]
        values = 0.3 + daily + rng.normal(0, 0.5, len(session))
        interval = Interval.of(Days.draw(session).means(values))
        held += interval.low <= 0.3 <= interval.high
    assert 0.90 <= held / trials <= 0.985
