"""Bars as they were traded, from what a vendor has divided by later splits."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.prices.source import ACTION_COLUMNS, BAR_COLUMNS, History, MalformedError
from data.prices.traded import PRICES, Quotes, Traded, as_traded, differs, has_new, settle_actions

DAYS = pd.bdate_range("2024-01-02", periods=20).astype("datetime64[s]")
NO_BARS = pd.DataFrame({name: pd.Series(dtype="float64") for name in BAR_COLUMNS}).astype({"session": "datetime64[s]"})
UNIT = 1e-6


def bars(seed=0, price=100.0, moves=0.01):
    chance = np.random.default_rng(seed)
    close = np.round(price * np.exp(np.cumsum(chance.normal(0, moves, len(DAYS)))), 2)
    opening = np.append(price, close[:-1])
    high, low = np.maximum(opening, close) * 1.01, np.minimum(opening, close) * 0.99
    volume = chance.integers(1000, 100_000, len(DAYS)).astype(float)
    columns = {"open": opening, "high": np.round(high, 2), "low": np.round(low, 2), "close": close, "volume": volume}
    return pd.DataFrame({"session": DAYS, **columns})[BAR_COLUMNS]


def actions(*rows):
    return pd.DataFrame(
        {
            "ex_date": pd.to_datetime([DAYS[at] for at, _, _ in rows]).astype("datetime64[s]"),
            "kind": pd.Series([kind for _, kind, _ in rows], dtype="str"),
            "value": [float(value) for _, _, value in rows],
        }
    )[ACTION_COLUMNS]


def traded_with(split_at, ratio, rows):
    """As traded: the price falls by the ratio at the split."""
    after = np.arange(len(rows)) >= split_at
    return rows.assign(**{name: np.where(after, rows[name] / ratio, rows[name]) for name in PRICES})


def adjusted(rows, *splits):
    """As a vendor gives it: divided by all later splits, as 32-bit floats, volumes as whole shares."""
    factor = np.ones(len(rows))
    for at, ratio in splits:
        factor[:at] *= ratio
    prices = {name: (rows[name] / factor).astype(np.float32).astype(np.float64) for name in PRICES}
    return rows.assign(**prices, volume=np.round(rows["volume"] * factor))


def undone(history: History, stored: pd.DataFrame, custom: bool) -> Traded:
    return as_traded(history, Quotes.of(stored), UNIT, custom)


def test_a_split_is_undone_and_the_factor_is_told():
    true = traded_with(12, 4.0, bars())
    result = undone(History(adjusted(true, (12, 4.0)), actions((12, "split", 4.0))), NO_BARS, True)
    for name in PRICES:
        np.testing.assert_allclose(result.bars.frame()[name], true[name], rtol=2e-7)
    assert result.bars.frame()["volume"].tolist() == true["volume"].tolist()
    (split,) = result.splits
    assert (split.ratio, split.factor, split.evidence) == (4.0, 4.0, "step")


def test_a_split_that_is_not_in_the_prices_yet_is_not_undone():
    true = traded_with(12, 4.0, bars())
    result = undone(History(true, actions((12, "split", 4.0))), NO_BARS, True)
    assert result.bars.frame()["close"].tolist() == true["close"].tolist()
    assert (result.splits[0].factor, result.splits[0].evidence) == (1.0, "step")


@pytest.mark.parametrize("custom", [True, False])
def test_a_small_split_on_a_first_load_follows_the_vendors_custom(custom):
    true = traded_with(12, 1.05, bars(moves=0.03))
    result = undone(History(adjusted(true, (12, 1.05)), actions((12, "split", 1.05))), NO_BARS, custom)
    assert (result.splits[0].factor, result.splits[0].evidence) == (1.05 if custom else 1.0, "custom")


@pytest.mark.parametrize("given_adjusted", [True, False])
def test_stored_bars_tell_even_of_a_small_split(given_adjusted):
    true = traded_with(12, 1.02, bars(moves=0.03))
    served = adjusted(true, (12, 1.02)) if given_adjusted else true
    result = undone(History(served, actions((12, "split", 1.02))), true.head(12), True)
    assert (result.splits[0].factor, result.splits[0].evidence) == (1.02 if given_adjusted else 1.0, "stored")
    assert result.bars.frame()["close"].head(12).tolist() == true["close"].head(12).tolist()


@given(
    seed=st.integers(0, 10_000),
    splits=st.lists(
        st.tuples(st.integers(1, len(DAYS) - 1), st.sampled_from([0.05, 0.1, 0.5, 1.5, 2.0, 3.0, 7.0, 20.0])),
        max_size=3,
        unique_by=lambda split: split[0],
    ),
    stored=st.integers(0, len(DAYS)),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_splits_leave_stored_bars_as_they_are(seed, splits, stored):
    true = bars(seed)
    for at, ratio in splits:
        true = traded_with(at, ratio, true)
    rows = actions(*((at, "split", ratio) for at, ratio in splits))
    result = undone(History(adjusted(true, *splits), rows), true.head(stored), True)
    assert not differs(result.bars, Quotes.of(true.head(stored)))
    assert result.bars.frame()["volume"].head(stored).tolist() == true["volume"].head(stored).tolist()
    for name in PRICES:
        np.testing.assert_allclose(result.bars.frame()[name], true[name], rtol=1e-5)


def test_dividends_before_a_split_are_of_the_shares_of_then():
    true = traded_with(12, 4.0, bars())
    served = History(
        adjusted(true, (12, 4.0)), actions((5, "dividend", 0.25), (12, "split", 4.0), (15, "dividend", 0.3))
    )
    result = undone(served, NO_BARS, True)
    dividends = result.actions[result.actions["kind"] == "dividend"]
    assert dividends["value"].tolist() == [1.0, 0.3]


def test_rounding_of_a_dividend_is_no_new_action():
    stored = actions((5, "dividend", 0.12))
    rounded = round(0.12 / 112, 6)
    rows = actions((5, "dividend", rounded * 112)).assign(slack=UNIT * 112)
    assert not has_new(settle_actions(rows, stored), stored)
    changed = actions((5, "dividend", 0.13)).assign(slack=UNIT)
    assert has_new(settle_actions(changed, stored), stored)
    assert has_new(settle_actions(actions((6, "dividend", 0.12)).assign(slack=UNIT), stored), stored)


def test_a_restated_price_is_seen_and_rounding_is_not():
    stored = bars()
    noisy = stored.assign(close=stored["close"].astype(np.float32).astype(np.float64))
    assert not differs(undone(History(noisy, actions()), stored, True).bars, Quotes.of(stored))
    one_cent = stored.assign(close=stored["close"] + np.eye(len(DAYS))[3] * 0.01)
    assert differs(undone(History(one_cent, actions()), stored, True).bars, Quotes.of(stored))


def test_a_volume_of_zero_is_no_restatement_and_another_one_is():
    stored = bars()
    volume = stored["volume"].to_numpy().copy()
    volume[[3, 4]] = 0.0, volume[4] + 1
    result = undone(History(stored.assign(volume=volume), actions()), stored, True).bars
    assert result.frame()["volume"].iloc[3] == stored["volume"].iloc[3]
    assert result.frame()["volume"].iloc[4] == stored["volume"].iloc[4] + 1
    assert not differs(result, Quotes.of(stored))


def test_history_that_is_off_by_one_factor_without_a_split_is_refused():
    stored = bars()
    with pytest.raises(MalformedError, match="4 times the vendor's"):
        undone(History(adjusted(stored, (len(DAYS), 4.0)), actions()), stored, True)


def test_two_rows_of_a_session_that_disagree_are_refused_and_the_same_row_twice_is_one():
    rows = bars()
    assert len(undone(History(pd.concat([rows, rows.head(3)]), actions()), NO_BARS, True).bars) == len(rows)
    other = rows.head(1).assign(close=1.0)
    with pytest.raises(MalformedError, match="2024-01-02 disagree"):
        undone(History(pd.concat([rows, other]), actions()), NO_BARS, True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -2.0])
def test_an_action_without_a_sound_value_is_none(value):
    rows = actions((5, "dividend", value), (6, "split", value), (7, "split", 1.0))
    assert undone(History(bars(), rows), NO_BARS, True).actions.empty


def test_missing_numbers_do_not_disturb_the_judgement():
    true = traded_with(12, 2.0, bars())
    served = adjusted(true, (12, 2.0))
    served.loc[[11, 12], PRICES] = np.nan
    result = undone(History(served, actions((12, "split", 2.0))), NO_BARS, True)
    assert result.splits[0].factor == 2.0
    assert result.bars.frame()["close"].isna().sum() == 2
