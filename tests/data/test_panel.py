import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import action_frame, bar_frame, headline_frame, known_rows, link_frame, span, walk

from data.asof import known
from data.calendar import Sessions, sessions
from data.errors import LakeError
from data.features import CROSS_SECTIONAL, FEATURES, WARM_UP
from data.lake import Lake
from data.news.index import build_news
from data.packing import Tape, action_rows, pack, places
from data.panel import BLOCK, Panel, build_panel
from data.simulate import MarketConfig, simulate, write
from pipelines.imports import import_prices

DAYS = span(60)
HOUR, DAY = np.timedelta64(1, "h"), np.timedelta64(24, "h")
OWN = slice(0, -CROSS_SECTIONAL)  # the others compare with the market
LABELS = ("close_close", "overnight", "open_close")
NO_NEWS = build_news(headline_frame([]), link_frame([]), ("A",), DAYS, 5, 5)


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


@pytest.mark.parametrize("seed", range(4))
def test_a_row_is_what_a_panel_of_only_its_decisions_knowledge_holds(seed: int) -> None:
    bars, actions = random_world(seed)
    whole = build_panel(("A", "B", "C", "D"), DAYS, bars, actions, NO_NEWS)
    for session in (0, 5, *range(20 + seed, 60, 4), 59):  # each seed other sessions
        then = [known_rows(rows, DAYS.decision_at[session]) for rows in (bars, actions)]
        until = DAYS.between(DAYS.labels[0], DAYS.labels[session])
        for days in (DAYS, until):
            rebuilt = build_panel(("A", "B", "C", "D"), days, *then, NO_NEWS)
            assert_same(row(rebuilt, session), row(whole, session), f"at session {session}")


@pytest.mark.parametrize("seed", range(4))
def test_the_share_ratio_of_a_decision_is_what_was_known_then(seed: int) -> None:
    bars, actions = random_world(seed)
    bars = bars[:0]  # it tells of actions alone
    whole = build_panel(("A", "B", "C", "D"), DAYS, bars, actions, NO_NEWS).share_ratio
    for session in range(60):
        then = known_rows(actions, DAYS.decision_at[session])
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


def test_labels_of_an_imported_world_are_its_realised_returns(tmp_path: Path) -> None:
    made = simulate(MarketConfig(seed=4, tickers=8, sessions=200))
    write(made, tmp_path)
    lake = Lake(tmp_path / "lake")
    now = np.datetime64("2020-01-01", "us")
    assert import_prices(lake, [tmp_path / "prices.parquet"], {}, "XNYS", "raw", None, now).skipped == {}
    assert set(lake.frame("actions")["kind"]) == {"dividend", "split"}
    bars = lake.frame("bars")
    days = sessions("XNYS").between(bars["session"].min(), bars["session"].max())
    imported = build_panel(tuple(sorted(set(bars["ticker"]))), days, bars, lake.frame("actions"), NO_NEWS)
    at = [imported.tickers.index(ticker) for ticker in made.oracle["ticker"]], days.index(made.oracle["session"])
    np.testing.assert_allclose(imported.labels["close_close"][at], made.oracle["realised"], atol=1e-9)
    assert np.isfinite(imported.labels["close_close"]).sum() == len(made.oracle)


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
        np.testing.assert_array_equal(made.features[0, session, OWN], in_time.features[0, session, OWN])
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
    np.testing.assert_array_equal(panel(late).features[1][:, OWN], panel(bars).features[1][:, OWN])


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


def test_a_split_of_the_past_is_in_no_share_ratio() -> None:
    days = DAYS.between(DAYS.labels[20], DAYS.labels[50])
    act = action_frame([("A", DAYS.labels[at], "split", 4.0, DAYS.opens[1]) for at in (5, 20)])
    assert (panel(bar_frame(DAYS, walk(60)), act, days).share_ratio == 1).all()


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
    np.testing.assert_array_equal(made.features[:1], panel(bar_frame(DAYS, walk(60))).features)


def test_bars_of_others_and_outside_the_sessions_are_left_out() -> None:
    inside = DAYS.between(DAYS.labels[10], DAYS.labels[59])
    bars = pd.concat([bar_frame(DAYS, walk(60)), bar_frame(DAYS, walk(60), "Z")])
    made = build_panel(("A",), inside, bars, action_frame(), NO_NEWS)
    np.testing.assert_array_equal(made.mask[0], np.arange(50) >= WARM_UP)
    closes = walk(60)
    closes[:10] = np.nan
    np.testing.assert_array_equal(made.features[..., OWN], panel(bar_frame(DAYS, closes)).features[:, 10:, OWN])


def test_a_ticker_is_the_same_alone_and_among_many() -> None:
    parts = [random_world(seed) for seed in range(5)]
    bars = pd.concat([part.assign(ticker=part["ticker"] + str(number)) for number, (part, _) in enumerate(parts)])
    act = pd.concat([part.assign(ticker=part["ticker"] + str(number)) for number, (_, part) in enumerate(parts)])
    bars = bars.sample(frac=1, random_state=0)
    many = panel(bars.assign(ticker=bars["ticker"].astype("category")), act)
    assert len(many.tickers) > 2 * BLOCK
    for number, ticker in enumerate(many.tickers):
        alone = panel(bars[bars["ticker"] == ticker], act)
        np.testing.assert_array_equal(many.features[number, :, OWN], alone.features[0, :, OWN], err_msg=ticker)
        for name in ("mask", "observed", "unit", "close", "share_ratio"):
            np.testing.assert_array_equal(getattr(many, name)[number], getattr(alone, name)[0], err_msg=ticker)
        for target in LABELS:
            np.testing.assert_array_equal(many.labels[target][number], alone.labels[target][0], err_msg=ticker)


def test_a_feature_that_is_not_finite_is_refused() -> None:
    bars = bar_frame(DAYS, walk(60))
    bars.loc[30, "volume"] = np.inf
    with np.errstate(invalid="ignore"), pytest.raises(LakeError, match=r"A on 2015-02-17.*volume_z"):
        panel(bars)


def test_a_panel_is_frozen() -> None:
    made = panel(bar_frame(DAYS, walk(60)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.mask = made.observed  # type: ignore[misc]


# --- packing ---------------------------------------------------------------------------------------------------


def test_packing_puts_observed_bars_side_by_side() -> None:
    lines = {"A": [1.0, np.nan, 3.0, 4.0], "B": [np.nan, 6.0]}
    frame = pd.concat([bar_frame(DAYS, line, name) for name, line in lines.items()])
    bars = Tape.of(frame, ("A", "B"), DAYS).rows(0, 2)
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
    np.testing.assert_array_equal(places(bars, both), [[0, 0, 0, 1], [0, 1, 2, 0]])
    made = pack(bars, splits, dividends, both)
    np.testing.assert_array_equal(made.close, [[1, 3, 4], [6, np.nan, np.nan]])
    np.testing.assert_array_equal(made.split, [[1, 10, 1], [1, 1, 1]])
    np.testing.assert_array_equal(made.dividend, [[0, 0, 0.25], [0, 0, 0]])
    second = both[1:]
    only = pack(bars.among(second), splits.among(second), dividends.among(second), second)
    np.testing.assert_array_equal(only.close, [[6]])


def test_the_newest_version_known_in_time_or_late_but_by_then() -> None:
    bars = bar_frame(DAYS, [1.0, 2.0])
    late = bars.iloc[[0]].assign(close=9.0, version=2, available_at=bars["available_at"].iloc[0] + 7 * DAY)
    rows = Tape.of(pd.concat([late, bars]), ("A",), DAYS).rows(0, 1)
    since = int(DAYS.first_informed([DAYS.closes[0] + 7 * DAY])[0])
    np.testing.assert_array_equal(rows.late, [False, True, False])
    close = {when: rows.as_known(when).values[3].tolist() for when in (0, since - 1, since)}
    assert close == {0: [1.0, 2.0], since - 1: [1.0, 2.0], since: [9.0, 2.0]}
