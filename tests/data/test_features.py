import dataclasses

import numpy as np
import pytest

from data.adjust import SMALLEST_UNIT, UNIT_DECAY, Array, PackedBars, Returns, returns
from data.features import CROSS_SECTIONAL, FEATURES, WARM_UP, features

COLUMNS = FEATURES[:-CROSS_SECTIONAL]


def packed(tickers: int = 3, bars: int = 120, seed: int = 0, volatility: float = 0.02) -> PackedBars:
    """Random bars on consecutive calendar days, with a few splits and dividends."""
    rng = np.random.default_rng(seed)
    close = 50 * np.exp(rng.normal(0, volatility, (tickers, bars)).cumsum(axis=1))
    opening = close * np.exp(rng.normal(0, volatility / 2, close.shape))
    split = np.where(rng.random(close.shape) < 0.02, 2.0, 1.0)
    split[:, 0] = 1.0
    close, opening = close / split.cumprod(axis=1), opening / split.cumprod(axis=1)
    high = np.maximum(close, opening) * (1 + rng.uniform(0, volatility, close.shape))
    low = np.minimum(close, opening) * (1 - rng.uniform(0, volatility, close.shape))
    dividend = np.where(rng.random(close.shape) < 0.02, close * 0.01, 0.0)
    day = np.broadcast_to(np.arange(16436.0, 16436.0 + bars), close.shape).copy()
    return PackedBars(opening, high, low, close, rng.lognormal(21, 0.4, close.shape), split, dividend, day)


def of_bars(bars: PackedBars, moves: Returns) -> Array:
    """[tickers, bars, features]."""
    return np.stack(features(bars, moves), axis=2)


def table(bars: PackedBars) -> dict[str, Array]:
    """Features by name, [tickers, bars]."""
    values = of_bars(bars, returns(bars))
    return {name: values[..., at] for at, name in enumerate(COLUMNS)}


def changed(bars: PackedBars, **parts: Array) -> PackedBars:
    return dataclasses.replace(bars, **parts)


def first(bars: PackedBars, count: int) -> PackedBars:
    return PackedBars(*(getattr(bars, field.name)[:, :count] for field in dataclasses.fields(bars)))


def test_total_return_across_a_split_and_a_dividend() -> None:
    close = np.array([[100.0, 51.0, 50.5, 33.0]])
    bars = PackedBars(
        open=np.array([[99.0, 50.0, 50.0, 34.0]]), high=close + 2, low=close - 2, close=close,
        volume=np.ones_like(close), split=np.array([[1.0, 2.0, 1.0, 1.5]]),
        dividend=np.array([[0.0, 0.0, 0.5, 0.25]]), day=np.arange(4.0)[None],
    )  # fmt: skip
    moves = returns(bars)
    total = [0.0, np.log(102 / 100), np.log(51 / 51), np.log((33 + 0.25) * 1.5 / 50.5)]
    overnight = [0.0, np.log(100 / 100), np.log(50.5 / 51), np.log((34 + 0.25) * 1.5 / 50.5)]
    np.testing.assert_allclose(moves.total, [total], atol=1e-9)
    np.testing.assert_allclose(moves.overnight, [overnight], atol=1e-9)
    np.testing.assert_allclose(moves.intraday, np.log(close / bars.open), atol=1e-9)


def test_the_unit_is_the_decayed_root_mean_square_so_far() -> None:
    bars = packed()
    moves = returns(bars)
    for last in (0, 1, 7, 119):
        weight = UNIT_DECAY ** np.arange(last, -1, -1)
        expected = np.sqrt((weight * moves.total[:, : last + 1] ** 2).sum(axis=1) / weight.sum())
        np.testing.assert_allclose(moves.unit[:, last], np.maximum(expected, SMALLEST_UNIT), rtol=1e-9)


def test_features_agree_with_their_definitions() -> None:
    bars = packed()
    moves, found = returns(bars), table(bars)
    level, unit = moves.total.cumsum(axis=1), moves.unit
    for bar in (WARM_UP, 60, 119):
        now = {name: values[:, bar] for name, values in found.items()}
        np.testing.assert_allclose(now["return"], moves.total[:, bar] / unit[:, bar])
        np.testing.assert_allclose(now["range"], np.log(bars.high / bars.low)[:, bar] / unit[:, bar])
        for days in (5, 10, 20):
            move = moves.total[:, bar - days + 1 : bar + 1].sum(axis=1)
            np.testing.assert_allclose(now[f"momentum_{days}"], move / (unit[:, bar] * np.sqrt(days)), atol=1e-9)
        for days in (5, 20):
            away = level[:, bar] - level[:, bar - days + 1 : bar + 1].mean(axis=1)
            np.testing.assert_allclose(now[f"ma_ratio_{days}"], away / unit[:, bar], atol=1e-9)
        window = level[:, bar - 19 : bar + 1]
        b = (level[:, bar] - window.mean(axis=1)) / (2 * window.std(axis=1))
        np.testing.assert_allclose(now["bollinger_b"], b, atol=1e-7)
        dollars = np.log1p(bars.volume * bars.close)[:, bar - 19 : bar + 1]
        z = (dollars[:, -1] - dollars.mean(axis=1)) / dollars.std(axis=1)
        np.testing.assert_allclose(now["volume_z"], z, atol=1e-7)


def naive_ema(values: Array, span: int) -> Array:
    decay = 1 - 2 / (span + 1)
    weight = decay ** np.arange(values.shape[1])
    return np.stack(
        [values[:, : t + 1] @ weight[t::-1] / weight[: t + 1].sum() for t in range(values.shape[1])], axis=1
    )


def test_rsi_and_macd_agree_with_naive_loops() -> None:
    bars = packed()
    moves, found = returns(bars), table(bars)
    gain, loss = (naive_ema(np.maximum(sign * moves.total, 0), 27)[:, 1:] for sign in (1, -1))
    np.testing.assert_allclose(found["rsi"][:, 1:], gain / (gain + loss) - 0.5, atol=1e-9)
    level = moves.total.cumsum(axis=1)
    macd = (naive_ema(level, 12) - naive_ema(level, 26)) / moves.unit
    np.testing.assert_allclose(found["macd"], macd, atol=1e-8)
    np.testing.assert_allclose(found["macd_histogram"], macd - naive_ema(macd, 9), atol=1e-8)


@pytest.mark.parametrize("volatility", [0.002, 0.02, 0.15])
def test_features_are_finite_and_bounded(volatility: float) -> None:
    found = {name: values[:, WARM_UP:] for name, values in table(packed(8, 250, 1, volatility)).items()}
    assert list(found) == list(COLUMNS)
    for name, values in found.items():
        assert np.isfinite(values).all(), name
        assert np.abs(values).max() < 60, name
    assert np.abs(found["rsi"]).max() <= 0.5
    assert np.abs(found["close_location"]).max() <= 1 + 1e-9
    for name in ("weekday_sin", "weekday_cos"):
        assert np.abs(found[name]).max() <= 1
    assert np.abs(found["bollinger_b"]).max() <= np.sqrt(19) / 2 + 1e-9  # the farthest one of 20 can be
    assert (found["range"] >= 0).all()
    assert (found["atr"] >= 0).all()


@pytest.mark.parametrize(("drift", "rsi"), [(0.01, 0.5), (-0.01, -0.5), (0.0, -0.5)])
def test_steady_and_constant_prices_stay_finite(drift: float, rsi: float) -> None:
    bars = packed(1, 60)
    flat = np.exp(drift * np.arange(60.0))[None] * 20
    still = changed(
        bars, open=flat, high=flat, low=flat, close=flat, split=np.ones((1, 60)), dividend=np.zeros((1, 60))
    )
    found = table(changed(still, volume=np.zeros((1, 60))))
    assert all(np.isfinite(values).all() for values in found.values())
    np.testing.assert_allclose(found["rsi"][:, 1:], rsi, atol=1e-9)


def test_no_column_depends_on_a_later_one() -> None:
    bars = packed()
    whole = of_bars(bars, returns(bars))
    for count in (1, 2, 21, 64, 119):
        part = first(bars, count)
        np.testing.assert_array_equal(of_bars(part, returns(part)), whole[:, :count])


def test_what_lies_behind_a_tickers_last_bar_changes_nothing_before() -> None:
    bars = packed()
    whole = of_bars(bars, returns(bars))
    names = ("open", "high", "low", "close", "volume", "day")
    ended = changed(bars, **{name: np.where(np.arange(120) < 70, getattr(bars, name), np.nan) for name in names})
    np.testing.assert_array_equal(of_bars(ended, returns(ended))[:, :70], whole[:, :70])


def test_a_tickers_features_are_its_own() -> None:
    bars = packed()
    alone = PackedBars(*(getattr(bars, field.name)[1:2] for field in dataclasses.fields(bars)))
    np.testing.assert_array_equal(of_bars(alone, returns(alone))[0], of_bars(bars, returns(bars))[1])


@pytest.mark.parametrize("factor", [7.0, 1 / 7])
def test_the_level_of_prices_changes_nothing(factor: float) -> None:
    bars = packed()
    prices = ("open", "high", "low", "close", "dividend")
    scaled = changed(bars, **{name: getattr(bars, name) * factor for name in prices})
    for name, values in table(bars).items():
        np.testing.assert_allclose(table(scaled)[name], values, atol=1e-9, err_msg=name)


def test_a_split_changes_nothing_but_the_numbers_on_the_tape() -> None:
    bars = changed(packed(), split=np.ones((3, 120)))
    shares = np.where(np.arange(120) >= 50, 3.0, 1.0)
    parts = {name: getattr(bars, name) / shares for name in ("open", "high", "low", "close", "dividend")}
    split = np.where(np.arange(120) == 50, 3.0, 1.0) * np.ones((3, 1))
    after = changed(bars, **parts, volume=bars.volume * shares, split=split)
    for name, values in table(bars).items():
        np.testing.assert_allclose(table(after)[name], values, atol=1e-9, err_msg=name)


def test_a_missing_session_is_a_longer_step() -> None:
    bars = packed()
    later = changed(bars, day=bars.day + np.where(np.arange(120) >= 60, 4.0, 0.0))
    np.testing.assert_allclose(table(later)["days_since_bar"][:, 60], np.log(5))
    np.testing.assert_allclose(table(bars)["days_since_bar"], 0)
    np.testing.assert_array_equal(table(later)["return"], table(bars)["return"])


def test_weekdays_repeat_after_seven_days() -> None:
    found = table(packed())
    for name in ("weekday_sin", "weekday_cos"):
        np.testing.assert_allclose(found[name][:, 7:], found[name][:, :-7], atol=1e-9)
    angles = np.arctan2(found["weekday_sin"], found["weekday_cos"])[0, :7]
    assert len(np.unique(angles.round(6))) == 7


def test_a_gap_is_what_lies_outside_the_range_before() -> None:
    bars = packed(1, 40)
    close = np.full((1, 40), 10.0)
    opening = close.copy()
    opening[0, 25:28] = [12.0, 9.0, 10.5]
    parts = {"split": np.ones((1, 40)), "dividend": np.zeros((1, 40)), "high": close + 1, "low": close - 1}
    gap = table(changed(bars, open=opening, close=close, **parts))["gap"][0] * SMALLEST_UNIT
    np.testing.assert_allclose(gap[24:29], [0, np.log(12 / 11), 0, 0, 0], atol=1e-9)
