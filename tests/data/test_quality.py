from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from clean_tape import NOW, Tape, clean_tape
from planted import FAULTS, PRICES, plant

from data.calendar import Sessions, sessions
from data.quality import CODES, ROW_CODES, check, row_codes

MARKET = Path(__file__).parents[3] / "shared" / "market"
LEVELS = {"recycled-ticker", "unit-error", "unadjusted-split", "unadjusted-reverse-split", "implausible-return"}
REAL = pytest.mark.skipif(not MARKET.is_dir(), reason="../shared/market, optional test data, is not there")


@pytest.fixture(scope="module")
def exchange() -> Sessions:
    return sessions("XNYS")


@pytest.fixture(scope="module")
def tape() -> Tape:
    return clean_tape(12, 500, seed=11)


def flagged(flags: pd.DataFrame) -> set[tuple[str, pd.Timestamp, str]]:
    return set(zip(flags["ticker"], flags["session"], flags["code"], strict=True))


def spoil(tape: Tape, name: str, seed: int) -> tuple[Tape, set[tuple[str, pd.Timestamp, str]]]:
    """Every ticker with the fault `name` at a place of its own, and the flags that it must give."""
    rng = np.random.default_rng([seed, list(FAULTS).index(name)])
    bars, actions, expected = [], [], set()
    for ticker in tape.bars["ticker"].unique():
        one = tape.of(ticker)
        if len(one.bars) < 300:
            continue
        field = plant(name, one.bars, one.actions, rng)
        bars.append(field.bars)
        actions.append(field.actions)
        expected |= {(ticker, session, FAULTS[name][0]) for session in field.wrong}
    return Tape(pd.concat(bars, ignore_index=True), pd.concat(actions, ignore_index=True), tape.days), expected


def real(name: str) -> pd.DataFrame:
    rows = pd.read_parquet(MARKET / f"{name}.parquet").assign(basis="split")
    return rows.assign(session=pd.to_datetime(rows["date"]).astype("datetime64[s]"))


def no_actions() -> pd.DataFrame:
    return pd.DataFrame({"ticker": [], "ex_date": pd.to_datetime([]), "kind": [], "value": []})


@pytest.fixture(scope="module")
def stocknet(exchange: Sessions) -> pd.DataFrame:
    return check(real("stocknet_prices"), no_actions(), exchange, NOW)


def test_every_code_is_explained() -> None:
    assert len(FAULTS) >= 24
    assert {code for code, _ in FAULTS.values()} <= set(CODES)
    assert {CODES[code].severity for code in ROW_CODES[1:]} == {"quarantine"}
    assert all(code.sentence.endswith(".") for code in CODES.values())
    listed = (Path(__file__).parents[2] / "docs" / "price-quality.md").read_text()
    assert [name for name in CODES if f"`{name}`" not in listed] == []


def test_clean_bars_have_no_flag(tape: Tape, exchange: Sessions) -> None:
    assert len(tape.bars) > 4_000
    assert (tape.actions["kind"] == "split").sum() > 1
    assert check(tape.bars, tape.actions, exchange, NOW).empty


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_500_clean_tickers_have_no_flag(seed: int, exchange: Sessions) -> None:
    tape = clean_tape(500, 1000, seed)
    assert check(tape.bars, tape.actions, exchange, NOW).empty


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_flagged_where_it_is(name: str, tape: Tape, exchange: Sessions) -> None:
    spoilt, expected = spoil(tape, name, seed=0)
    found = flagged(check(spoilt.bars, spoilt.actions, exchange, NOW))
    assert expected <= found
    # For a month after a change of level that nobody recorded, what is usual for the ticker is not known.
    assert FAULTS[name][0] in LEVELS or found == expected


@pytest.fixture(scope="module")
def large() -> Tape:
    return clean_tape(500, 1000, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_planted_in_500_tickers_is_flagged_in_each(name: str, large: Tape, exchange: Sessions) -> None:
    spoilt, expected = spoil(large, name, seed=0)
    assert expected <= flagged(check(spoilt.bars, spoilt.actions, exchange, NOW))


@pytest.fixture(scope="module")
def faulty(tape: Tape) -> Tape:
    """Each ticker with another fault."""
    parts = []
    for ticker, name in zip(tape.bars["ticker"].unique(), [*FAULTS][12:], strict=False):
        one = tape.of(ticker)
        if len(one.bars) >= 300:
            parts.append(spoil(one, name, seed=3)[0])
    bars, actions = (pd.concat([getattr(part, name) for part in parts]) for name in ("bars", "actions"))
    return Tape(bars, actions, tape.days)


def test_the_order_of_rows_does_not_matter(faulty: Tape, exchange: Sessions) -> None:
    straight = check(faulty.bars, faulty.actions, exchange, NOW)
    mixed = check(
        faulty.bars.sample(frac=1, random_state=1), faulty.actions.sample(frac=1, random_state=2), exchange, NOW
    )
    assert not straight.empty
    pd.testing.assert_frame_equal(mixed, straight)


def test_the_level_of_prices_does_not_matter(faulty: Tape, exchange: Sessions) -> None:
    columns = [*PRICES, "adj_close"]
    bars = faulty.bars.assign(**{name: faulty.bars[name] * 4 for name in columns if name in faulty.bars})
    dividends = faulty.actions["kind"] == "dividend"
    actions = faulty.actions.assign(value=faulty.actions["value"] * np.where(dividends, 4, 1))
    assert flagged(check(bars, actions, exchange, NOW)) == flagged(check(faulty.bars, faulty.actions, exchange, NOW))


def test_a_later_bar_takes_no_flag_back(tape: Tape, exchange: Sessions) -> None:
    for name in (
        "high below low",
        "stale",
        "no trade",
        "unit of a run",
        "split",
        "missing sessions",
        "stray high or low",
    ):
        spoilt, expected = spoil(tape, name, seed=4)
        for part in (0.7, 1.0):
            until = tape.days.labels[int(part * len(tape.days)) - 1]
            bars = spoilt.bars[spoilt.bars["session"] <= until]
            last = bars.groupby("ticker")["session"].max()
            due = {flag for flag in expected if flag[1] < last[flag[0]] - pd.Timedelta(days=90)}
            assert due <= flagged(check(bars, spoilt.actions, exchange, NOW)), (name, part)


def test_blocks_of_tickers_see_what_the_whole_sees(
    faulty: Tape, exchange: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = check(faulty.bars, faulty.actions, exchange, NOW)
    monkeypatch.setattr("data.quality.checks.BLOCK_BARS", 1000)
    pd.testing.assert_frame_equal(check(faulty.bars, faulty.actions, exchange, NOW), whole)


def test_tickers_as_categories_are_the_same(faulty: Tape, exchange: Sessions) -> None:
    names = faulty.bars["ticker"].unique()[::-1]
    coded = faulty.bars.assign(ticker=pd.Categorical(faulty.bars["ticker"], categories=names))
    pd.testing.assert_frame_equal(
        check(coded, faulty.actions, exchange, NOW), check(faulty.bars, faulty.actions, exchange, NOW)
    )


def test_no_bars_have_no_flag(tape: Tape, exchange: Sessions) -> None:
    flags = check(tape.bars[:0], tape.actions, exchange, NOW)
    assert list(flags.columns) == ["ticker", "session", "code", "severity", "detail"]
    assert flags.empty


def test_a_split_of_raw_prices_is_applied_and_one_of_split_prices_is_not(tape: Tape, exchange: Sessions) -> None:
    ticker = tape.actions["ticker"][tape.actions["kind"] == "split"].iloc[0]
    one = tape.of(ticker)
    adjusted = one.bars.drop(columns="adj_close").assign(basis="split")
    codes = set(check(adjusted, one.actions, exchange, NOW)["code"])
    assert codes & {"unadjusted-split", "unadjusted-reverse-split"}
    assert check(adjusted.assign(basis="raw"), one.actions, exchange, NOW).empty


def test_a_ticker_without_any_volume_is_an_index(tape: Tape, exchange: Sessions) -> None:
    one = tape.of(tape.bars["ticker"][0])
    assert check(one.bars.assign(volume=0.0), one.actions, exchange, NOW).empty


def test_an_exchange_judges_by_its_own_calendar() -> None:
    days = pd.to_datetime(["2024-07-03", "2024-07-04", "2024-07-05", "2024-07-06", "2024-08-26"]).as_unit("s")
    rows = pd.DataFrame({"session": days, **dict.fromkeys([*PRICES, "volume"], 1.0)})
    for calendar, expected in (
        ("XNYS", ["", "holiday-bar", "", "weekend-bar", ""]),
        ("XLON", ["", "", "", "weekend-bar", "holiday-bar"]),
        ("24/7", ["", "", "", "", ""]),
    ):
        assert row_codes(rows, sessions(calendar), NOW).tolist() == expected


def test_the_first_fault_of_a_row_is_its_code_and_the_index_is_kept(exchange: Sessions) -> None:
    days = pd.to_datetime(["2024-07-03", None, "2026-01-05", "2026-01-06", "1970-01-02", "2024-07-05"]).as_unit("s")
    rows = pd.DataFrame({"session": days, **dict.fromkeys([*PRICES, "volume"], 1.0)}, index=list("abcdef"))
    rows.loc["f", ["close", "volume"]] = [-1.0, np.nan]
    codes = row_codes(rows, exchange, NOW)
    assert codes.to_dict() == {
        "a": "",
        "b": "missing-date",
        "c": "partial-last-bar",
        "d": "future-bar",
        "e": "before-calendar",
        "f": "negative-price",
    }
    before_the_close = np.datetime64("2024-07-03T16:59:59", "us")  # a half day: it closes at 17:00 UTC
    assert row_codes(rows[:1], exchange, before_the_close).tolist() == ["partial-last-bar"]
    assert row_codes(rows[:1], exchange, before_the_close + np.timedelta64(1, "s")).tolist() == [""]


def test_rounding_is_no_fault(exchange: Sessions) -> None:
    rows = pd.DataFrame({"session": pd.to_datetime(["2024-07-03"]).as_unit("s")})
    rows = rows.assign(open=10.0, high=9.99999, low=9.5, close=9.7, volume=1.0)
    assert row_codes(rows, exchange, NOW).tolist() == [""]
    assert row_codes(rows.assign(high=9.99), exchange, NOW).tolist() == ["open-outside-range"]


@REAL
def test_closures_and_half_days_of_these_years(exchange: Sessions) -> None:
    half = exchange.index(["2012-11-23", "2013-07-03", "2014-12-24", "2015-11-27"])
    local = pd.DatetimeIndex(exchange.closes[half]).tz_localize("UTC").tz_convert("America/New_York")
    assert set(local.strftime("%H:%M")) == {"13:00"}
    assert exchange.index(["2012-10-29", "2012-10-30", "2015-07-03"]).tolist() == [-1, -1, -1]


@REAL
def test_flags_of_stocknet_prices(stocknet: pd.DataFrame) -> None:
    idle = stocknet[stocknet["code"] == "zero-volume"]
    assert idle["ticker"].value_counts().to_dict() == {"SPLP": 61, "AGFS": 49, "PTR": 1}
    rest = stocknet[stocknet["code"] != "zero-volume"]
    assert [(row.ticker, f"{row.session:%Y-%m-%d}", row.code) for row in rest.itertuples()] == [
        ("CHTR", "2016-05-18", "unadjusted-reverse-split"),
        ("NGG", "2017-05-22", "missing-dividend-adjustment"),
        ("PTR", "2016-06-29", "missing-price"),
        ("REX", "2016-06-29", "missing-price"),
        ("SNP", "2016-06-29", "missing-price"),
    ]


@REAL
def test_a_split_that_prices_know_and_a_late_listing_are_no_faults(stocknet: pd.DataFrame) -> None:
    bars = real("stocknet_prices")
    first = bars.groupby("ticker")["session"].min()
    assert (first["ABBV"], first["BABA"]) == (pd.Timestamp("2013-01-02"), pd.Timestamp("2014-09-19"))
    assert stocknet[stocknet["ticker"].isin(["AAPL", "ABBV", "BABA"])].empty


@REAL
def test_flags_of_news_prices(exchange: Sessions) -> None:
    flags = check(real("news_prices"), no_actions(), exchange, NOW)
    assert flags["code"].value_counts().to_dict() == {
        "adjusted-close-falls": 18,
        "unadjusted-split": 2,
        "zero-volume": 1,
        "stray-extreme": 1,
        "unadjusted-reverse-split": 1,
        "open-outside-range": 1,
    }
    joined = flags[flags["session"].isin(pd.to_datetime(["2020-04-02", "2020-07-06"]))]
    assert len(joined) == 21
