import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from settled_nights import NORMAL

from pipelines.metrics import pinball
from pipelines.scorecard.evidence import ENOUGH, compare, furthest, wealth, winsorised

RUNS, NIGHTS = 2000, 250


def crossed(outcomes: np.ndarray) -> float:
    """The share of runs that ever had enough evidence, looked at every night."""
    return float((wealth(winsorised(outcomes)) >= ENOUGH).any(axis=1).mean())


def called_by_t(outcomes: np.ndarray, first: int = 20) -> float:
    """The share of runs that a one-sided 5% t-test ever called, read every night from the `first` on."""
    count = np.arange(1, outcomes.shape[1] + 1)
    mean = outcomes.cumsum(axis=1) / count
    variance = (outcomes**2).cumsum(axis=1) / count - mean**2
    with np.errstate(divide="ignore", invalid="ignore"):
        t = mean / np.sqrt(variance / (count - 1))
    return float((t > stats.t.ppf(0.95, np.maximum(count - 1, 1)))[:, first:].any(axis=1).mean())


def rare(order: np.random.Generator, chance: float, size: float) -> np.ndarray:
    """Mean 0: mostly a little the one way, and rarely far the other."""
    often = -size * chance / (1 - chance)
    return np.where(order.random((RUNS, NIGHTS)) < chance, size, often)


NULLS = {
    "coins": lambda order: order.choice([-1.0, 1.0], (RUNS, NIGHTS)),
    "uniform": lambda order: order.uniform(-1, 1, (RUNS, NIGHTS)),
    "small": lambda order: 0.03 * order.standard_normal((RUNS, NIGHTS)),
    "heavy tails": lambda order: np.clip(0.03 * order.standard_t(3, (RUNS, NIGHTS)), -1, 1),
    "calm and storm": lambda order: np.clip(
        0.05 * order.standard_t(4, (RUNS, NIGHTS)) * np.exp(np.sin(np.arange(NIGHTS) / 20)), -1, 1
    ),
    "rare gains": lambda order: rare(order, 0.1, 0.9),
    "rare losses": lambda order: rare(order, 0.1, -0.9),
}


@pytest.mark.parametrize("name", NULLS)
def test_a_challenger_that_is_no_better_is_hardly_ever_proposed(name: str) -> None:
    assert crossed(NULLS[name](np.random.default_rng(0))) <= 0.05


def test_a_fixed_n_test_read_every_night_lies() -> None:
    outcomes = NULLS["small"](np.random.default_rng(0))
    assert called_by_t(outcomes) > 0.2
    assert called_by_t(outcomes) > 5 * crossed(outcomes)


@pytest.mark.parametrize(("effect", "power"), [(0.2, 0.5), (0.3, 0.9), (0.4, 0.98)])
def test_a_better_challenger_is_proposed_within_a_year(effect: float, power: float) -> None:
    """`effect` is the mean of a night in standard deviations: .2 is a Sharpe ratio of 3 between the two."""
    outcomes = 0.035 * (np.random.default_rng(1).standard_normal((RUNS, NIGHTS)) + effect)
    assert crossed(outcomes) >= power


@pytest.mark.parametrize(("shift", "low", "high"), [(0.0, 0.0, 0.05), (0.4, 0.9, 1.0)])
def test_on_forecasts_themselves(shift: float, low: float, high: float) -> None:
    """Two forecasts, both off by noise of their own; the champion's is larger by `shift` sigma, or not at all."""
    order, runs, tickers = np.random.default_rng(2), 200, 20
    shape = (runs * NIGHTS, tickers)
    realised = order.standard_normal(shape) + 0.5 * order.standard_normal((runs * NIGHTS, 1))
    errors = [scale * order.standard_normal(shape) for scale in (0.3 + shift, 0.3)]
    first, second = (error.reshape(-1, 1) + 1.12 * NORMAL for error in errors)
    gain = pinball(first, realised.ravel()) - pinball(second, realised.ravel())
    gains, bounds = (part.reshape(runs, NIGHTS, tickers).sum(axis=2) for part in (gain, furthest(first, second)))
    assert low <= crossed(gains / bounds) <= high


bounded = hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(-1, 1))


@settings(deadline=None)
@given(bounded)
def test_wealth_is_positive_and_what_was_read_never_changes(outcomes: np.ndarray) -> None:
    process = wealth(winsorised(outcomes))
    assert (process > 0).all()
    for night in range(1, len(outcomes)):
        np.testing.assert_allclose(wealth(winsorised(outcomes[:night])), process[:night], rtol=1e-12)


def test_outcomes_out_of_bounds_are_refused() -> None:
    for bad in (1.5, np.nan):
        with pytest.raises(ValueError, match="expected outcomes"):
            wealth(np.array([0.1, bad]))


@settings(deadline=None)
@given(
    hnp.arrays(np.float64, (4, 7), elements=st.floats(-1, 1)),
    hnp.arrays(np.float64, (4, 7), elements=st.floats(-1, 1)),
    hnp.arrays(np.float64, 4, elements=st.floats(-10, 10)),
)
def test_the_bound_is_known_before_the_outcome(first: np.ndarray, second: np.ndarray, realised: np.ndarray) -> None:
    difference = np.abs(pinball(first, realised) - pinball(second, realised))
    assert (difference <= furthest(first, second) + 1e-12).all()


def frame(mean: np.ndarray, realised: np.ndarray, **columns: object) -> pd.DataFrame:
    """Forecasts [nights, tickers] of normal returns."""
    nights, tickers = mean.shape
    keys = {
        "target_session": np.repeat(pd.date_range("2024-01-01", periods=nights), tickers),
        "ticker": np.tile([f"T{ticker:02d}" for ticker in range(tickers)], nights),
        "target": "close_close",
    }
    quantiles = list(mean.reshape(-1, 1) + 0.02 * NORMAL)
    return pd.DataFrame({**keys, "quantiles": quantiles, "realised": realised.ravel(), "on_time": True} | columns)


def test_a_challenger_that_knows_more_is_proposed_and_not_the_other_way() -> None:
    order = np.random.default_rng(3)
    realised = 0.02 * order.standard_normal((120, 30))
    weak, strong = frame(0 * realised, realised), frame(0.2 * realised, realised)
    found = compare(weak, strong, ("weak", "strong"))
    assert found.proposed
    assert found.gain is not None
    assert found.gain > 0
    assert (found.nights, found.rows) == (120, 3600)
    assert found.highest >= found.e_value >= ENOUGH
    turned = compare(strong, weak, ("strong", "weak"))
    assert not turned.proposed
    assert turned.e_value < 1
    assert compare(weak, weak, ("weak", "weak")).e_value == 1


def test_only_shared_rows_count_and_what_was_settled_late_is_a_draw() -> None:
    order = np.random.default_rng(4)
    realised = 0.02 * order.standard_normal((60, 10))
    weak, strong = frame(0 * realised, realised), frame(0.5 * realised, realised)
    shared = compare(weak[weak["ticker"] != "T00"], strong, ("weak", "strong"))
    assert shared.rows == 540
    late = compare(weak, strong.assign(on_time=True), ("weak", "strong"))
    never = compare(weak.assign(on_time=False), strong, ("weak", "strong"))
    assert (never.e_value, never.gain, never.proposed) == (1.0, 0.0, False)
    missing = weak["realised"].where(weak["ticker"] != "T00")
    part = compare(weak.assign(realised=missing), strong, ("weak", "strong"))
    assert 1 < part.e_value < late.e_value
    nothing = compare(weak, strong.assign(target="overnight"), ("weak", "strong"))
    assert (nothing.nights, nothing.e_value, nothing.gain, nothing.proposed) == (0, 1.0, None, False)
