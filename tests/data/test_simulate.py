import dataclasses

import numpy as np
import pandas as pd
import pytest

from data.calendar import sessions
from data.errors import ConfigError
from data.simulate import MarketConfig, World, simulate, world, write
from data.simulate.grammar import TYPES
from data.simulate.phrases import EVENT_TYPES

SEEDS = (11, 12, 13)
SMALL = MarketConfig(seed=5, tickers=16, sessions=400)


@pytest.fixture(scope="module")
def small() -> World:
    return simulate(SMALL)


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [simulate(world("default", seed)) for seed in SEEDS]


def rank_ic(oracle: pd.DataFrame, column: str) -> float:
    """Mean over sessions of the Spearman correlation across tickers."""
    day = oracle["target_session"]
    ranks = oracle.groupby(day)[[column, "realised"]].rank()
    ranks -= ranks.groupby(day).transform("mean")
    moments = pd.DataFrame(
        {"ab": ranks[column] * ranks["realised"], "aa": ranks[column] ** 2, "bb": ranks["realised"] ** 2}
    )
    sums = moments.groupby(day).sum()
    return float((sums["ab"] / np.sqrt(sums["aa"] * sums["bb"])).mean())


def frames(made: World) -> dict[str, pd.DataFrame]:
    return {name: getattr(made, name) for name in ("prices", "headlines", "oracle", "truth")}


def labelled(made: World) -> pd.DataFrame:
    """Headlines beside the truth about them, with the session whose decision each first informs."""
    both = made.headlines.assign(**{name: made.truth[name] for name in made.truth.columns.difference(["id", "ticker"])})
    days = sessions("XNYS")
    informed = days.first_informed(both["published_at"].dt.tz_localize(None).to_numpy())
    return both.assign(informed=days.labels[informed].astype("datetime64[us]"))


def total_returns(prices: pd.DataFrame) -> pd.Series:
    before = prices.groupby("ticker")["close"].shift()
    return np.log((prices["close"] * prices["split"].where(prices["split"] > 0, 1.0) + prices["dividend"]) / before)


def test_the_same_seed_gives_the_same_frames(small: World) -> None:
    again, other = simulate(SMALL), simulate(SMALL.model_copy(update={"seed": 6}))
    for name, frame in frames(again).items():
        pd.testing.assert_frame_equal(frame, frames(small)[name], check_exact=True)
        assert not frame.equals(frames(other)[name])


def test_bars_are_consistent(worlds: list[World]) -> None:
    for made in worlds:
        bars = made.prices
        assert (bars["low"] > 0).all()
        assert (bars["low"] <= bars[["open", "close"]].min(axis=1)).all()
        assert (bars["high"] >= bars[["open", "close"]].max(axis=1)).all()
        assert (bars["volume"] > 0).all()
        assert not bars.duplicated(["ticker", "date"]).any()
        assert set(bars["date"]) <= set(sessions("XNYS").labels.astype("datetime64[us]"))


def test_total_returns_of_the_bars_are_the_realised_ones(worlds: list[World]) -> None:
    for made in worlds:
        bars = made.prices.assign(total=total_returns(made.prices))
        merged = made.oracle.merge(bars, left_on=["ticker", "target_session"], right_on=["ticker", "date"])
        assert len(merged) == len(made.oracle) == bars["total"].notna().sum()
        np.testing.assert_allclose(merged["total"], merged["realised"], atol=1e-12)
        assert merged["realised"].abs().max() < 0.6  # a split that was not undone would stand out


def test_actions_come_apart_and_are_mostly_announced_before(worlds: list[World]) -> None:
    actions = pd.concat([made.prices for made in worlds])
    actions = actions[(actions["split"] > 0) | (actions["dividend"] > 0)]
    assert not ((actions["split"] > 0) & (actions["dividend"] > 0)).any()
    assert (actions["split"] > 0).sum() > 20
    assert 0.9 < actions["announced_at"].notna().mean() < 1
    lead = actions["date"] - actions["announced_at"].dt.tz_localize(None)
    assert lead.min() > pd.Timedelta(days=10)
    assert lead.max() < pd.Timedelta(days=40)


def test_both_legs_carry_signal(worlds: list[World]) -> None:
    bars = pd.concat([made.prices.assign(seed=at) for at, made in enumerate(worlds)])
    oracle = pd.concat([made.oracle.assign(seed=at) for at, made in enumerate(worlds)])
    merged = oracle.merge(bars, left_on=["seed", "ticker", "target_session"], right_on=["seed", "ticker", "date"])
    intraday = np.log(merged["close"] / merged["open"])
    for leg in (intraday, merged["realised"] - intraday):
        assert np.corrcoef(leg, merged["mean_both"])[0, 1] > 0.05


def test_oracle_levels_of_the_default_world(worlds: list[World]) -> None:
    levels = np.array([[rank_ic(made.oracle, f"mean_{view}") for view in ("price", "text", "both")] for made in worlds])
    np.testing.assert_allclose(levels.mean(axis=0), [0.09, 0.15, 0.20], atol=0.02)
    assert (levels[:, 2] > levels[:, :2].max(axis=1)).all()


def test_oracle_levels_of_the_realistic_world() -> None:
    made = simulate(world("realistic", 21))
    for view, level in (("price", 0.05), ("text", 0.05), ("both", 0.075)):
        assert rank_ic(made.oracle, f"mean_{view}") == pytest.approx(level, abs=0.02)


def test_probabilities_are_calibrated(worlds: list[World]) -> None:
    oracle = pd.concat([made.oracle for made in worlds])
    for _, part in oracle.groupby(pd.qcut(oracle["up_both"], 5)):
        assert (part["realised"] > 0).mean() == pytest.approx(part["up_both"].mean(), abs=0.025)


def test_news_of_the_placebo_world_means_nothing() -> None:
    made = simulate(world("placebo", 3))
    assert (made.oracle["mean_text"] == 0).all()
    assert np.ptp(made.oracle["up_text"]) == 0
    assert made.oracle["mean_both"].equals(made.oracle["mean_price"])
    assert {"event", "reaction"} <= set(made.truth["kind"])
    assert rank_ic(made.oracle, "mean_price") == pytest.approx(0.09, abs=0.02)


def test_each_event_moves_the_session_after_the_first_decision_it_informs(worlds: list[World]) -> None:
    for made in worlds:
        events = labelled(made).query("kind == 'event' and polarity != 0")
        assert (events["informed"] == events["session"]).all()
        views = made.oracle.merge(events, left_on=["ticker", "session"], right_on=["ticker", "informed"], how="left")
        np.testing.assert_array_equal(np.sign(views["mean_text"]), views["polarity"].fillna(0))


def test_reactions_come_after_their_move_and_tell_nothing_new(worlds: list[World]) -> None:
    days = sessions("XNYS")
    for made in worlds:
        told = labelled(made).query("kind == 'reaction'")
        assert len(told) > 500
        closes = days.closes[days.index(told["session"])]
        late = told["published_at"].dt.tz_localize(None).to_numpy() - closes
        assert (late > -np.timedelta64(30, "m")).all()
        assert (late > np.timedelta64(0, "m")).mean() > 0.8
        assert (told["informed"] >= told["session"]).all()
        moved = made.oracle.merge(told, left_on=["ticker", "target_session"], right_on=["ticker", "session"])
        up = moved["title"].str.contains(r"\b(?:rise|up|gains|climbed|jumps|higher)\b")
        assert ((moved["realised"] > 0) == up).all()  # it gives its own session's move away
        after = made.oracle.merge(told, left_on=["ticker", "session"], right_on=["ticker", "informed"])
        up = after["title"].str.contains(r"\b(?:rise|up|gains|climbed|jumps|higher)\b")
        unit = np.where(up, 1, -1) * np.sign(after["realised"])
        assert abs(unit.mean()) < 4 / np.sqrt(len(unit))  # and nothing of the next


def test_stamps_never_fall_on_a_full_minute(small: World) -> None:
    assert (small.headlines["published_at"].dt.second > 0).all()
    assert (small.prices["announced_at"].dropna().dt.second > 0).all()
    assert str(small.headlines["published_at"].dt.tz) == str(small.prices["announced_at"].dt.tz) == "UTC"


def test_reserved_phrasings_and_new_companies_appear_only_late(worlds: list[World]) -> None:
    for made in worlds:
        told = labelled(made)
        fresh = told[told["kind"] == "event"]
        test = fresh["session"] >= pd.Timestamp(made.valid_end)
        assert not fresh.loc[~test, "reserved"].any()
        assert 0.10 < fresh.loc[test, "reserved"].mean() < 0.20
        listed = made.prices.groupby("ticker")["date"].agg(["min", "max"])
        assert (listed["min"] >= pd.Timestamp(made.train_end)).sum() >= 2
        assert (listed["max"] < pd.Timestamp(made.valid_end)).sum() >= 1
        assert made.prices.groupby("date").size().min() >= 30


def test_grammar_has_many_types_with_good_and_bad_news() -> None:
    assert len(TYPES) >= 20
    for ups, downs in EVENT_TYPES.values():
        assert len(set(ups)) == len(set(downs)) == 6
        assert not set(ups) & set(downs)


def test_the_wire_holds_every_kind_of_item(worlds: list[World]) -> None:
    for made in worlds:
        shares = made.truth.drop_duplicates(["id"])["kind"].value_counts(normalize=True)
        assert set(shares.index) == {"event", "copy", "stale", "mislinked", "distractor", "reaction", "market"}
        assert 0.6 < shares["event"] < 0.8
        assert made.headlines.loc[made.truth["kind"] == "market", "ticker"].isna().all()
        assert made.headlines["id"].duplicated().any()
        assert (made.headlines["published_at"].dt.tz_convert("America/New_York").dt.day_of_week >= 5).any()
        assert 12_000 < made.headlines["title"].nunique() < 20_000
        assert not made.headlines["title"].str.contains("[{}]").any()


def test_written_sources_hold_no_truth(small: World, tmp_path) -> None:
    write(small, tmp_path / "market")
    prices, headlines, oracle = (
        pd.read_parquet(tmp_path / "market" / f"{name}.parquet") for name in ("prices", "headlines", "oracle")
    )
    assert list(prices) == [
        "ticker", "date", "open", "high", "low", "close", "volume", "dividend", "split", "announced_at",
    ]  # fmt: skip
    assert list(headlines) == ["id", "published_at", "title", "ticker", "source", "url"]
    pd.testing.assert_frame_equal(prices, small.prices)
    pd.testing.assert_frame_equal(oracle, small.oracle)
    assert len(list((tmp_path / "market").iterdir())) == 3


def test_splits_of_the_samples_are_ordered(worlds: list[World]) -> None:
    made = worlds[0]
    target = made.oracle["target_session"]
    assert (target < pd.Timestamp(made.train_end)).mean() == pytest.approx(0.68, abs=0.03)
    assert (target >= pd.Timestamp(made.valid_end)).mean() == pytest.approx(0.20, abs=0.03)
    assert (target < pd.Timestamp(made.test_end)).all()
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.train_end = made.test_end  # type: ignore[misc]


def test_a_calendar_that_ends_too_early_is_refused() -> None:
    with pytest.raises(ConfigError, match="Begin earlier"):
        simulate(MarketConfig(sessions=100_000))
