import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny import action_frame, bar_frame, headline_frame, link_frame, span, walk

from data.asof import known
from data.calendar import Sessions
from data.errors import LakeError
from data.features import FEATURES, WARM_UP
from data.news.index import Cells, NewsIndex, build_news
from data.packing import action_rows, bar_rows, pack, positions
from data.panel import Panel, build_panel

DAYS = span(60)
HOUR, DAY = np.timedelta64(1, "h"), np.timedelta64(24, "h")
LABELS = ("close_close", "overnight", "open_close")
NO_NEWS = build_news(headline_frame([]), link_frame([]), ("A",), DAYS, 5)


def panel(bars: pd.DataFrame, actions: pd.DataFrame | None = None, days: Sessions = DAYS, *more: str) -> Panel:
    tickers = tuple(sorted({*bars["ticker"], *more}))
    return build_panel(tickers, days, bars, action_frame() if actions is None else actions, NO_NEWS)


def feature(made: Panel, name: str) -> np.ndarray:
    return made.features[..., FEATURES.index(name)].astype(np.float64)


def total(made: Panel) -> np.ndarray:
    """Return into each session as the feature tells it: masked rows give 0."""
    return np.where(made.mask, feature(made, "return") * made.unit, 0.0)


def row(made: Panel, session: int) -> dict[str, np.ndarray]:
    """All that a decision may see of the panel, and the labels settled by its session."""
    parts = {name: getattr(made, name)[:, session] for name in ("features", "mask", "observed", "unit", "close")}
    return parts | {name: made.labels[name][:, session - 1] for name in LABELS if session}


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray], message: str = "") -> None:
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=f"{name} {message}")


# --- random worlds ---------------------------------------------------------------------------------------------


def random_world(seed: int, days: Sessions = DAYS) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Bars and actions with gaps, late and restated rows, early, late and restated actions."""
    rng = np.random.default_rng(seed)
    bars, actions = [], []
    for ticker in ("A", "B", "C", "D"):
        closes = walk(len(days), int(rng.integers(1 << 30)))
        closes[rng.random(len(days)) < 0.08] = np.nan
        closes[: int(rng.integers(0, 15))] = np.nan
        first = bar_frame(days, closes, ticker)
        late = rng.random(len(first)) < 0.06
        first["available_at"] += np.where(late, rng.integers(1, 12 * 24, len(first)), 0) * HOUR
        again = first[rng.random(len(first)) < 0.08].copy()
        factor = np.exp(rng.normal(0, 0.05, len(again)))
        for name in ("open", "high", "low", "close"):
            again[name] *= factor
        again["available_at"] += rng.integers(1, 20 * 24, len(again)) * HOUR
        bars += [first, again.assign(version=2)]
        for at in rng.choice(len(days), 6, replace=False):
            kind, value = ("split", float(rng.choice([0.5, 2.0, 3.0]))) if rng.random() < 0.5 else ("dividend", 0.5)
            stamp = days.opens[at] - int(rng.integers(-5 * 24, 10 * 24)) * HOUR
            actions.append((ticker, days.labels[at], kind, value, stamp))
    table = action_frame(actions)
    again = table[rng.random(len(table)) < 0.2]
    again = again.assign(version=2, value=again["value"] * 1.5, available_at=again["available_at"] + 3 * DAY)
    return pd.concat(bars, ignore_index=True), pd.concat([table, again], ignore_index=True)


def rows_known(rows: pd.DataFrame, decision: np.datetime64) -> pd.DataFrame:
    return rows[known(rows["available_at"].dt.tz_localize(None), decision)]


@pytest.mark.parametrize("seed", range(4))
def test_a_row_is_what_a_panel_of_only_its_decisions_knowledge_holds(seed: int) -> None:
    bars, actions = random_world(seed)
    whole = build_panel(("A", "B", "C", "D"), DAYS, bars, actions, NO_NEWS)
    for session in (0, 5, *range(20, 60, 2), 59):
        then = [rows_known(rows, DAYS.decision_at[session]) for rows in (bars, actions)]
        until = DAYS.between(DAYS.labels[0], DAYS.labels[session])
        for days in (DAYS, until):
            rebuilt = build_panel(("A", "B", "C", "D"), days, *then, NO_NEWS)
            assert_same(row(rebuilt, session), row(whole, session), f"at session {session}")


@pytest.mark.parametrize("seed", range(4))
def test_the_share_ratio_of_a_decision_is_what_was_known_then(seed: int) -> None:
    bars, actions = random_world(seed)
    whole = build_panel(("A", "B", "C", "D"), DAYS, bars, actions, NO_NEWS).share_ratio
    for session in range(0, 60, 3):
        then = rows_known(actions, DAYS.decision_at[session])
        rebuilt = build_panel(("A", "B", "C", "D"), DAYS, bars, then, NO_NEWS).share_ratio
        np.testing.assert_array_equal(rebuilt[:, session], whole[:, session], err_msg=str(session))


@pytest.mark.parametrize("change", ["scale", "delete", "add"])
def test_later_bars_and_actions_change_no_earlier_row(change: str) -> None:
    bars, actions = random_world(9)
    whole = panel(bars, actions)
    for session in (25, 40, 58):
        later = ~known(bars["available_at"].dt.tz_localize(None), DAYS.decision_at[session])
        act = actions[known(actions["available_at"].dt.tz_localize(None), DAYS.decision_at[session])]
        if change == "scale":
            other = bars.copy()
            other.loc[later, ["open", "high", "low", "close"]] *= 3
        elif change == "delete":
            other = bars[~later]
        else:
            extra = bars[later].assign(version=7, close=bars["close"] * 1.001)
            other = pd.concat([bars, extra], ignore_index=True)
        perturbed = build_panel(whole.tickers, DAYS, other, act, NO_NEWS)
        for before in range(session + 1):
            assert_same(row(perturbed, before), row(whole, before), f"{change} after {session}: row {before}")
        assert not np.array_equal(perturbed.close[:, session + 1 :], whole.close[:, session + 1 :], equal_nan=True)


# --- returns and labels ----------------------------------------------------------------------------------------


def test_labels_across_a_split_and_a_dividend() -> None:
    closes = np.full(60, 100.0)
    closes[30], closes[31:] = 51.0, 50.5
    act = action_frame(
        [
            ("A", DAYS.labels[30], "split", 2.0, DAYS.opens[20]),
            ("A", DAYS.labels[31], "dividend", 0.75, DAYS.opens[31]),
        ]
    )
    made = panel(bar_frame(DAYS, closes), act)
    np.testing.assert_allclose(
        made.labels["close_close"][0, 28:32], [0, np.log(1.02), np.log(51.25 / 51), 0], atol=1e-9
    )
    opens = [np.log(51 * 1.001 * 2 / 100), np.log((50.5 * 1.001 + 0.75) / 51)]
    np.testing.assert_allclose(made.labels["overnight"][0, 29:31], opens, atol=1e-9)
    np.testing.assert_allclose(made.labels["open_close"][0, :-1], -np.log(1.001), atol=1e-9)


def test_an_action_on_a_day_the_exchange_was_closed_counts_on_the_next_session() -> None:
    closes = np.full(60, 100.0)
    closes[11:] = 50.0  # 2015-01-20, the day after Martin Luther King's
    act = action_frame([("A", "2015-01-19", "split", 2.0, DAYS.opens[1])])
    assert DAYS.labels[11] == np.datetime64("2015-01-20")
    np.testing.assert_allclose(panel(bar_frame(DAYS, closes), act).labels["close_close"][0, :-1], 0, atol=1e-9)


def test_the_legs_add_up_to_the_whole() -> None:
    bars, _ = random_world(3)
    made = panel(bars)
    both = made.labels["overnight"] + made.labels["open_close"]
    np.testing.assert_allclose(both, made.labels["close_close"], atol=1e-12)
    paying = action_frame([("A", day, "dividend", 0.5, "2015-01-01") for day in DAYS.labels[20:40]])
    made = panel(bars, paying)
    np.testing.assert_allclose(
        made.labels["overnight"] + made.labels["open_close"], made.labels["close_close"], atol=1e-3
    )


def test_a_label_is_missing_where_either_bar_is() -> None:
    closes = walk(60)
    closes[[30, 31]] = np.nan
    made = panel(bar_frame(DAYS, closes))
    for target in LABELS:
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(made.labels[target][0])), [29, 30, 31, 59])


# --- missing, late and restated bars ---------------------------------------------------------------------------


def test_a_missing_session_is_masked_and_the_next_return_spans_it() -> None:
    closes = walk(60)
    closes[40] = np.nan
    made = panel(bar_frame(DAYS, closes))
    assert not made.mask[0, 40]
    assert not made.observed[0, 40]
    assert (made.features[0, 40] == 0).all()
    assert np.isnan([made.close[0, 40], made.unit[0, 40]]).all()
    np.testing.assert_allclose(total(made)[0, 41], np.log(closes[41] / closes[39]), rtol=1e-5)
    days = (DAYS.labels[41] - DAYS.labels[39]).astype(int)
    np.testing.assert_allclose(feature(made, "days_since_bar")[0, 41], np.log(days), rtol=1e-5)
    np.testing.assert_array_equal(made.history[0, 39:42], [40, 40, 41])


def test_the_warm_up_is_observed_and_masked() -> None:
    made = panel(bar_frame(DAYS, walk(60)))
    assert made.observed.all()
    np.testing.assert_array_equal(made.mask[0], np.arange(60) >= WARM_UP)
    assert (made.features[~made.mask] == 0).all()


def test_a_late_bar_stays_masked_in_its_own_session_and_counts_in_later_rows() -> None:
    closes = walk(60)
    bars = bar_frame(DAYS, closes)
    bars.loc[40, "available_at"] += 4 * DAY
    made, in_time, without = panel(bars), panel(bar_frame(DAYS, closes)), panel(bars.drop(40))
    first = int(DAYS.first_informed([DAYS.closes[40] + 4 * DAY])[0])
    assert first > 41
    assert not made.observed[0, 40]
    assert_same(row(made, 40), row(without, 40))
    for session in range(41, first):
        assert_same(row(made, session), row(without, session))
    for session in range(first, 60):
        np.testing.assert_array_equal(made.features[0, session], in_time.features[0, session])
    assert not np.array_equal(made.features[0, first], without.features[0, first])


def test_a_restated_bar_changes_rows_from_the_first_decision_that_knew_it() -> None:
    bars = bar_frame(DAYS, walk(60))
    again = bars.iloc[[40]].assign(version=2, available_at=bars["available_at"][40] + 4 * DAY)
    again[["open", "high", "low", "close"]] *= 1.1
    made, before = panel(pd.concat([bars, again], ignore_index=True)), panel(bars)
    first = int(DAYS.first_informed([DAYS.closes[40] + 4 * DAY])[0])
    for session in range(first):
        assert_same(row(made, session), row(before, session))
    for session in range(first, 60):
        assert not np.array_equal(made.features[0, session], before.features[0, session])
    assert made.close[0, 40] == before.close[0, 40]  # of its own session, for ever


def test_a_restatement_before_its_own_decision_is_the_bar() -> None:
    bars = bar_frame(DAYS, walk(60))
    again = bars.iloc[[40]].assign(version=2, available_at=bars["available_at"][40] + HOUR)
    again[["open", "high", "low", "close"]] *= 1.1
    corrected = bars.copy()
    corrected.loc[40, ["open", "high", "low", "close"]] *= 1.1
    made, expected = panel(pd.concat([bars, again], ignore_index=True)), panel(corrected)
    np.testing.assert_array_equal(made.features, expected.features)


def test_one_tickers_late_bar_leaves_another_tickers_own_features_alone() -> None:
    bars = pd.concat([bar_frame(DAYS, walk(60, 1)), bar_frame(DAYS, walk(60, 2), "B")], ignore_index=True)
    late = bars.copy()
    late.loc[40, "available_at"] += 4 * DAY
    own = slice(0, -2)  # the last two compare with the market
    np.testing.assert_array_equal(panel(late).features[1, :, own], panel(bars).features[1, :, own])


# --- splits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("announced", "ratio"), [(DAYS.decision_at[29], 4.0), (DAYS.opens[30], 1.0)])
def test_the_share_ratio_counts_announced_splits_only(announced: np.datetime64, ratio: float) -> None:
    act = action_frame(
        [("A", DAYS.labels[30], "split", 4.0, announced), ("Z", DAYS.labels[30], "split", 9.0, announced)]
    )
    made = panel(bar_frame(DAYS, walk(60)), act)
    expected = np.ones((1, 60))
    expected[0, 29] = ratio
    np.testing.assert_array_equal(made.share_ratio, expected)


def test_a_split_on_the_target_of_the_last_session_counts() -> None:
    act = action_frame([("A", DAYS.target[-1], "split", 4.0, DAYS.opens[10])])
    assert panel(bar_frame(DAYS, walk(60)), act).share_ratio[0, -1] == 4.0


def test_an_action_at_or_before_the_first_bar_changes_no_feature() -> None:
    closes = walk(60)
    closes[:10] = np.nan
    bars = bar_frame(DAYS, closes)
    plain = panel(bars)
    for session in (5, 10):
        act = action_frame([("A", DAYS.labels[session], "split", 2.0, DAYS.opens[1])])
        np.testing.assert_array_equal(panel(bars, act).features, plain.features, err_msg=str(session))


# --- the panel as a whole --------------------------------------------------------------------------------------


def test_the_level_of_a_tickers_prices_changes_nothing() -> None:
    bars = pd.concat([bar_frame(DAYS, walk(60, 1)), bar_frame(DAYS, walk(60, 2), "B")], ignore_index=True)
    scaled = bars.copy()
    scaled.loc[bars["ticker"] == "A", ["open", "high", "low", "close"]] *= 7
    one, other = panel(bars), panel(scaled)
    np.testing.assert_allclose(other.features, one.features, atol=2e-6)  # float32
    np.testing.assert_allclose(other.unit, one.unit, rtol=1e-9)
    for target in LABELS:
        np.testing.assert_allclose(other.labels[target], one.labels[target], atol=1e-9)
    np.testing.assert_allclose(other.close[0], one.close[0] * 7)


def test_the_market_return_is_the_mean_of_those_seen() -> None:
    closes = np.stack([walk(60, seed) for seed in range(3)])
    closes[0, 40:42] = np.nan
    made = panel(pd.concat([bar_frame(DAYS, line, name) for line, name in zip(closes, "ABC", strict=True)]))
    moves = np.log(closes[:, 45] / closes[:, 44])
    relative = feature(made, "relative_return")[:, 45] * made.unit[:, 45]
    np.testing.assert_allclose(relative, moves - moves.mean(), atol=1e-6)
    market = feature(made, "market_return")
    np.testing.assert_array_equal(market[1, WARM_UP:], market[2, WARM_UP:])
    assert np.sign(market[1, 45]) == np.sign(moves.mean())


def test_a_ticker_without_bars_has_a_masked_row() -> None:
    made = panel(bar_frame(DAYS, walk(60)), None, DAYS, "Z")
    assert made.tickers == ("A", "Z")
    assert not made.mask[1].any()
    assert (made.features[1] == 0).all()
    assert np.isnan(made.labels["close_close"][1]).all()
    np.testing.assert_array_equal(made.features[:1, :, :-2], panel(bar_frame(DAYS, walk(60))).features[..., :-2])


def test_bars_of_others_and_outside_the_sessions_are_left_out() -> None:
    inside = DAYS.between(DAYS.labels[10], DAYS.labels[59])
    bars = pd.concat([bar_frame(DAYS, walk(60)), bar_frame(DAYS, walk(60), "Z")])
    made = build_panel(("A",), inside, bars, action_frame(), NO_NEWS)
    np.testing.assert_array_equal(made.mask[0], np.arange(50) >= WARM_UP)
    closes = walk(60)
    closes[:10] = np.nan
    np.testing.assert_array_equal(made.features, panel(bar_frame(DAYS, closes)).features[:, 10:])


def test_a_feature_that_is_not_finite_is_refused() -> None:
    bars = bar_frame(DAYS, walk(60))
    bars.loc[30, "volume"] = np.inf
    with np.errstate(invalid="ignore"), pytest.raises(LakeError, match="A on 2015-02-18.*volume_z"):
        panel(bars)


# --- packing ---------------------------------------------------------------------------------------------------


def test_packing_puts_observed_bars_side_by_side() -> None:
    lines = {"A": [1.0, np.nan, 3.0, 4.0], "B": [np.nan, 6.0]}
    bars = bar_rows(pd.concat([bar_frame(DAYS, line, name) for name, line in lines.items()]), ("A", "B"), DAYS)
    act = action_frame(
        [
            ("A", DAYS.labels[1], "split", 2.0, "2015-01-01"),  # on the missing bar: counts on the next
            ("A", DAYS.labels[2], "split", 5.0, "2015-01-01"),
            ("A", DAYS.labels[3], "dividend", 0.25, "2015-01-01"),
            ("B", DAYS.labels[9], "split", 3.0, "2015-01-01"),  # there is no bar yet
        ]
    )
    splits, dividends = (action_rows(act, kind, ("A", "B"), DAYS) for kind in ("split", "dividend"))
    both = np.array([0, 1])
    known_bars = bars.as_known(0, both)
    np.testing.assert_array_equal(positions(known_bars), [0, 1, 2, 0])
    made = pack(known_bars, splits.as_known(0, both), dividends.as_known(0, both), both)
    np.testing.assert_array_equal(made.close, [[1, 3, 4], [6, np.nan, np.nan]])
    np.testing.assert_array_equal(made.split, [[1, 10, 1], [1, 1, 1]])
    np.testing.assert_array_equal(made.dividend, [[0, 0, 0.25], [0, 0, 0]])
    only = pack(bars.as_known(0, both[1:]), splits.as_known(0, both[1:]), dividends.as_known(0, both[1:]), both[1:])
    np.testing.assert_array_equal(only.close, [[6]])


def test_the_newest_version_known_in_time_or_late_but_by_then() -> None:
    bars = bar_frame(DAYS, [1.0, 2.0])
    late = bars.iloc[[0]].assign(close=9.0, version=2, available_at=bars["available_at"].iloc[0] + 7 * DAY)
    rows = bar_rows(pd.concat([late, bars]), ("A",), DAYS)
    since = int(DAYS.first_informed([DAYS.closes[0] + 7 * DAY])[0])
    np.testing.assert_array_equal(rows.late, [True, False, False])
    close = {when: rows.as_known(when, np.array([0])).values[:, 3].tolist() for when in (0, since - 1, since)}
    assert close == {0: [1.0, 2.0], since - 1: [1.0, 2.0], since: [9.0, 2.0]}


# --- news ------------------------------------------------------------------------------------------------------


def cell(index: NewsIndex, cells: Cells, at: int) -> list[str]:
    """Titles of one cell, oldest first."""
    return [index.texts[text] for text in cells.text[cells.start[at] : cells.start[at + 1]]]


def news(rows: list[tuple[str, str, Any]], links: list[tuple[str, str, Any]], most: int = 5) -> NewsIndex:
    return build_news(headline_frame(rows), link_frame(links), ("A", "B"), DAYS, most)


def test_a_headline_stands_in_the_session_whose_decision_knew_it_first() -> None:
    at, tick = DAYS.decision_at, np.timedelta64(1, "us")
    rows = [("1", "on time", at[5]), ("2", "too late", at[5] + tick), ("3", "before", DAYS.decision_before)]
    index = news([*rows, ("4", "after", at[-1] + tick)], [(name, "A", "2014-01-01") for name in "1234"])
    assert cell(index, index.own, 5) == ["on time"]
    assert cell(index, index.own, 6) == ["too late"]
    assert len(index) == 2
    assert len(index.own.start) == 2 * 60 + 1
    np.testing.assert_array_equal(index.own.session, [5, 6])


def test_a_link_known_later_than_its_headline_decides() -> None:
    index = news([("1", "t", DAYS.closes[5])], [("1", "B", DAYS.closes[9])])
    assert cell(index, index.own, 60 + 9) == ["t"]
    assert len(index.own.text) == 1


def test_an_item_of_several_tickers_and_of_none() -> None:
    rows = [("1", "both", DAYS.closes[5]), ("2", "market", DAYS.closes[5]), ("3", "other", DAYS.closes[5])]
    index = news(rows, [("1", "A", "2014-01-01"), ("1", "B", "2014-01-01"), ("3", "Z", "2014-01-01")])
    assert cell(index, index.own, 5) == cell(index, index.own, 65) == ["both"]
    assert cell(index, index.market, 5) == ["market"]
    assert len(index.market.start) == 61
    assert index.texts == ("both", "market")  # that of an unwatched ticker is nowhere


def test_an_edit_stands_again_where_it_was_known_and_once_within_a_cell() -> None:
    first = headline_frame([("1", "old", DAYS.closes[5]), ("2", "kept", DAYS.closes[5])])
    edits = headline_frame([("1", "new", DAYS.closes[8]), ("2", "mended", DAYS.closes[5] + HOUR)], version=2)
    links = link_frame([("1", "A", "2014-01-01"), ("2", "A", "2014-01-01")])
    index = build_news(pd.concat([first, edits]), links, ("A",), DAYS, 5)
    assert cell(index, index.own, 5) == ["old", "mended"]
    assert cell(index, index.own, 8) == ["new"]


def test_a_cell_keeps_its_newest_distinct_texts() -> None:
    rows = [(str(number), f"t{number}", DAYS.closes[5] + number * HOUR / 4) for number in range(6)]
    copy = ("9", " t3 ", DAYS.closes[5] + 2 * HOUR)
    index = news([copy, *rows[::-1]], [(name, "A", "2014-01-01") for name in "0123459"], most=3)
    assert cell(index, index.own, 5) == ["t3", "t4", "t5"]


def test_a_window_of_sessions_is_one_slice() -> None:
    rng = np.random.default_rng(0)
    at = rng.integers(0, 60, 80)
    rows = [(str(n), f"t{n}", DAYS.closes[session] + n * np.timedelta64(1, "s")) for n, session in enumerate(at)]
    tickers = rng.choice(["A", "B"], 80)
    index = news(rows, [(str(n), name, "2014-01-01") for n, name in enumerate(tickers)], most=99)
    for ticker, offset in (("A", 0), ("B", 60)):
        low, high = index.own.start[offset + 20], index.own.start[offset + 31]
        inside = [n for n in range(80) if tickers[n] == ticker and 20 <= at[n] <= 30]
        expected = [f"t{n}" for n in sorted(inside, key=lambda n: (at[n], n))]
        assert [index.texts[text] for text in index.own.text[low:high]] == expected
        assert (np.diff(index.own.session[low:high]) >= 0).all()


def test_no_headlines_give_an_empty_index() -> None:
    assert len(NO_NEWS) == 0
    assert NO_NEWS.texts == ()
    assert (NO_NEWS.own.start == 0).all()


def random_wire(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Headlines with edits; each link as old as its headline."""
    rng = np.random.default_rng(seed)
    stamps = DAYS.opens[0] + rng.integers(0, 80 * 24, 150) * HOUR
    first = headline_frame([(str(n), f"title {rng.integers(60)}", at) for n, at in enumerate(stamps)])
    edits = first[rng.random(150) < 0.2]
    later = edits["available_at"] + rng.integers(1, 100, len(edits)) * HOUR
    edits = edits.assign(version=2, title=edits["title"] + " edited", available_at=later)
    linked = [(str(n), name, at) for n, at in enumerate(stamps) for name in "AB" if n % 3 and rng.random() < 0.6]
    return pd.concat([first, edits], ignore_index=True), link_frame(linked)


def assert_news_is_as_known(headlines: pd.DataFrame, links: pd.DataFrame) -> None:
    whole = build_news(headlines, links, ("A", "B"), DAYS, 3)
    for session in range(0, 60, 5):
        then = [rows_known(rows, DAYS.decision_at[session]) for rows in (headlines, links)]
        rebuilt = build_news(*then, ("A", "B"), DAYS, 3)
        for name, tickers in (("own", 2), ("market", 1)):
            for at in (ticker * 60 + before for ticker in range(tickers) for before in range(session + 1)):
                expected = cell(whole, getattr(whole, name), at)
                assert cell(rebuilt, getattr(rebuilt, name), at) == expected, f"{name} cell {at} as of {session}"


@pytest.mark.parametrize("seed", range(3))
def test_a_cell_holds_what_its_decision_knew(seed: int) -> None:
    assert_news_is_as_known(*random_wire(seed))


def test_a_later_link_takes_no_headline_out_of_the_market_channels_past() -> None:
    headlines = headline_frame([("1", "unlinked at first", DAYS.closes[5])])
    assert_news_is_as_known(headlines, link_frame([("1", "A", DAYS.closes[12])]))


def test_a_panel_is_frozen() -> None:
    made = panel(bar_frame(DAYS, walk(60)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.mask = made.observed  # type: ignore[misc]
