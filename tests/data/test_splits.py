import dataclasses
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny import span

from data.calendar import Sessions, sessions
from data.errors import LakeError
from data.scaling import LIMIT, Scaler
from data.splits import Fold, SplitConfig, make_folds

DAYS = span(400)
DATES = {"train_end": date(2015, 8, 3), "valid_end": date(2015, 10, 1), "test_end": date(2016, 1, 4)}


def parts(fold: Fold) -> list[np.ndarray]:
    return [fold.train, fold.valid, fold.test]


def assert_walks_forward(fold: Fold, embargo: int, days: Sessions) -> None:
    """No target session on two sides, the embargo left out, every label settled before the next part decides."""
    for earlier, later in ((fold.train, fold.valid), (fold.valid, fold.test)):
        assert earlier[-1] + embargo < later[0]
        assert days.target[earlier[-1]] < days.target[later[0]]
        assert days.target_close[earlier[-1]] <= days.decision_at[later[0]]
    assert all((np.diff(part) == 1).all() for part in parts(fold))


@settings(deadline=None)
@given(
    folds=st.integers(1, 6), embargo=st.integers(0, 20), valid=st.floats(0.1, 0.3), test=st.floats(0.1, 0.5),
    count=st.integers(250, 400), clock=st.sampled_from(["close", "nightly", "pre-open"]),
)  # fmt: skip
def test_folds_walk_forward_and_cover_the_test_share(
    folds: int, embargo: int, valid: float, test: float, count: int, clock: Any
) -> None:
    days = sessions("XNYS", clock).between(DAYS.labels[0], DAYS.labels[count - 1])
    made = make_folds(SplitConfig(folds=folds, embargo=embargo, valid_share=valid, test_share=test), days)
    assert len(made) == folds
    for fold in made:
        assert_walks_forward(fold, embargo, days)
        assert fold.train[0] == 0
    tested = np.concatenate([fold.test for fold in made])
    np.testing.assert_array_equal(tested, np.arange(tested[0], count))  # each session once, to the last
    assert len(tested) == pytest.approx(count * test, abs=1)
    sizes = [len(fold.test) for fold in made]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("embargo", [0, 1, 10])
def test_dates_are_of_target_sessions(embargo: int) -> None:
    (fold,) = make_folds(SplitConfig(**DATES, embargo=embargo), DAYS)
    assert_walks_forward(fold, embargo, DAYS)
    assert DAYS.target[fold.valid[0]] == np.datetime64("2015-08-03")
    assert DAYS.target[fold.test[0]] == np.datetime64("2015-10-01")
    assert DAYS.target[fold.test[-1]] == np.datetime64("2015-12-31")
    assert fold.train[0] == 0


def test_training_may_begin_later() -> None:
    (fold,) = make_folds(SplitConfig(train_start=date(2015, 3, 2), **DATES), DAYS)
    assert DAYS.target[fold.train[0]] == np.datetime64("2015-03-02")


def test_given_dates_count_and_folds_do_not() -> None:
    assert len(make_folds(SplitConfig(folds=3, **DATES), DAYS)) == 1


def test_a_label_that_settles_after_the_next_decision_is_purged() -> None:
    slow = dataclasses.replace(DAYS, target_close=DAYS.target_close + np.timedelta64(3 * 24, "h"))
    (fold,) = make_folds(SplitConfig(**DATES, embargo=0), slow)
    assert_walks_forward(fold, 0, slow)
    assert fold.train[-1] < fold.valid[0] - 1
    assert fold.valid[-1] < fold.test[0] - 1


def test_a_label_that_settles_exactly_at_the_next_decision_stays() -> None:
    days = sessions("XNYS", "close").between(DAYS.labels[0], DAYS.labels[-1])
    (fold,) = make_folds(SplitConfig(**DATES, embargo=0), days)
    assert days.target_close[fold.train[-1]] == days.decision_at[fold.valid[0]]
    assert fold.train[-1] == fold.valid[0] - 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"train_end": date(2015, 8, 1)},
        {"train_end": date(2015, 8, 1), "valid_end": date(2015, 10, 1)},
        {"train_end": date(2015, 10, 1), "valid_end": date(2015, 8, 1), "test_end": date(2016, 1, 1)},
        {"train_end": date(2015, 8, 1), "valid_end": date(2015, 8, 1), "test_end": date(2016, 1, 1)},
        {"train_start": date(2015, 9, 1), **DATES},
        {"valid_share": 0.45, "test_share": 0.55},
        {"folds": 0},
        {"embargo": -1},
        {"valid_share": 0.0},
        {"shuffle": True},
    ],
)
def test_a_wrong_split_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SplitConfig(**wrong)


@pytest.mark.parametrize(
    "split",
    [
        SplitConfig(train_end=date(2010, 1, 1), valid_end=date(2015, 8, 1), test_end=date(2016, 1, 1)),
        SplitConfig(train_end=date(2015, 8, 1), valid_end=date(2015, 8, 2), test_end=date(2016, 1, 1)),
        SplitConfig(train_end=date(2015, 8, 1), valid_end=date(2019, 1, 1), test_end=date(2020, 1, 1)),
        SplitConfig(train_start=date(2015, 7, 31), embargo=5, **DATES),
        SplitConfig(embargo=250),
        SplitConfig(folds=50, valid_share=0.49, test_share=0.5, embargo=5),
    ],
)
def test_an_empty_part_is_an_error(split: SplitConfig) -> None:
    with pytest.raises(LakeError, match=r"\[split\].*found none"):
        make_folds(split, DAYS)


# --- scaling ---------------------------------------------------------------------------------------------------


def apply(scaler: Scaler, rows: np.ndarray) -> np.ndarray:
    return np.clip((rows - scaler.centre) * scaler.scale, -scaler.limit, scaler.limit)


def test_a_normal_feature_becomes_standard_whatever_its_level_and_outliers() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal([3, -2000, 0], [1, 50, 1e-3], (20_000, 3))
    rows[:10] = 1e9
    scaled = apply(Scaler.fit(rows), rows)
    np.testing.assert_allclose(np.median(scaled, axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(scaled[10:].std(axis=0), 1, atol=0.03)
    assert np.abs(scaled).max() == LIMIT


def test_later_rows_change_nothing_that_was_fitted() -> None:
    rows = np.random.default_rng(0).normal(size=(100, 3))
    for fit in (Scaler.fit, Scaler.fit_common):
        fitted = fit(rows[:60])
        before = fitted.centre.copy(), fitted.scale.copy()
        rows[60:] *= 1e6  # the scaler holds no view of what it was fitted on
        again = fit(rows[:60])
        np.testing.assert_array_equal([fitted.centre, fitted.scale], before)
        np.testing.assert_array_equal([again.centre, again.scale], before)


def test_a_constant_feature_stays_finite() -> None:
    rows = np.tile([5.0, 0.0], (50, 1))
    scaler = Scaler.fit(rows)
    np.testing.assert_array_equal(apply(scaler, rows), 0)
    np.testing.assert_array_equal(scaler.scale, 1)
    assert np.isfinite(apply(scaler, rows + 1e12)).all()


def test_the_common_scale_keeps_the_proportions_of_directions() -> None:
    rows = np.random.default_rng(0).normal([10, -10], [1, 0.1], (5000, 2))
    scaler = Scaler.fit_common(rows)
    assert scaler.scale[0] == scaler.scale[1]
    centred = (rows - scaler.centre) * scaler.scale
    np.testing.assert_allclose(centred.mean(axis=0), 0, atol=1e-3)
    assert centred.std(axis=0)[0] / centred.std(axis=0)[1] == pytest.approx(10, rel=0.05)
    assert np.sqrt((centred**2).mean()) == pytest.approx(1, rel=1e-3)


def test_the_common_scale_of_half_precision_rows_is_exact_enough() -> None:
    rows = np.random.default_rng(0).normal(0.05, 0.03, (60_000, 2))
    one, half = Scaler.fit_common(rows), Scaler.fit_common(rows.astype(np.float16))
    np.testing.assert_allclose(half.centre, one.centre, rtol=1e-3)
    np.testing.assert_allclose(half.scale, one.scale, rtol=1e-3)


def test_no_rows_and_equal_rows_leave_embeddings_finite() -> None:
    none = Scaler.fit_common(np.zeros((0, 3), np.float16))
    np.testing.assert_array_equal(apply(none, np.ones((2, 3))), 1)
    same = Scaler.fit_common(np.ones((7, 3), np.float16))
    np.testing.assert_array_equal(apply(same, np.ones((2, 3))), 0)
