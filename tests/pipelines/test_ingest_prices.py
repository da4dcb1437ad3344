"""`tapewire ingest --prices` end to end: real yfinance against a local Yahoo, a real lake."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from feed_server import FeedServer, status
from killing import kill_after, row_hashes, run_to_its_end
from tapes import MINUTE, actions, bars, codes, evening, ingest, nightly, outcomes, versions, workspace
from wires import feed, item, rss
from yahoo_stub import Reply, StubSession, YahooStub, days, listing

from data.lake import Lake
from data.prices import limiter as limits
from data.prices.tiingo import TiingoSource
from data.prices.web import Web
from data.prices.yahoo import YahooSource
from pipelines.ingest_prices import ingest_prices
from pipelines.workspace import open_workspace

NIGHT, NEXT, THIRD = evening("2024-03-18"), evening("2024-03-19"), evening("2024-03-20")
NUMBERS = ["open", "high", "low", "close", "volume"]


@pytest.fixture
def stub():
    with YahooStub() as started:
        started.listings["ACME"] = listing(days(60))
        yield started


@pytest.fixture
def folder(tmp_path):
    return workspace(tmp_path / "w", "ACME")


def assert_as_traded(folder, stub, ticker, until):
    """The lake holds the listing to the last digit, from the configured start."""
    true = stub.listings[ticker].bars
    true = true[(true["session"] >= "2024-01-01") & (true["session"] <= until.astype("datetime64[s]"))]
    stored = bars(folder, ticker)
    assert stored["session"].tolist() == true["session"].tolist()
    for name in NUMBERS:
        np.testing.assert_allclose(stored[name], true[name].to_numpy(), rtol=1e-7)


def test_a_first_run_stores_all_and_the_next_night_only_what_is_new(stub, folder):
    first = ingest(folder, stub, NIGHT)
    assert (first.exit_code, first.stored.bars) == (0, 52)
    assert_as_traded(folder, stub, "ACME", NIGHT)
    second = ingest(folder, stub, NEXT)
    assert (second.exit_code, second.stored.bars, stub.asked("ACME")) == (0, 1, 2)
    query = [query for _, query in stub.visits if "period1" in query][-1]
    asked_from = np.datetime64(int(query["period1"]), "s").astype("datetime64[D]")
    assert asked_from == np.datetime64("2024-03-05")  # ten sessions, the last stored one included
    rows = bars(folder, "ACME")
    assert rows["available_at"].iloc[-1] == pd.Timestamp("2024-03-19T20:00:00Z")
    assert rows["origin"].tolist() == ["backfill"] * 52 + ["live"]
    assert set(rows["basis"]) == {"raw"}


def test_a_complete_ticker_is_not_asked_again_the_same_night(stub, folder):
    ingest(folder, stub, NIGHT)
    again = ingest(folder, stub, NIGHT + MINUTE)
    assert (outcomes(again), again.exit_code, stub.asked("ACME")) == ({"ACME": "current"}, 0, 1)


def test_a_restatement_is_a_new_version_known_since_it_was_recorded(stub, folder):
    ingest(folder, stub, NIGHT)
    before = bars(folder, "ACME", NIGHT)
    true = stub.listings["ACME"].bars
    moved = (true["session"] == "2024-03-14") | (true["session"] == "2024-01-17")
    true.loc[moved, "close"] -= 0.01
    result = ingest(folder, stub, NEXT)
    assert (result.stored.bars, stub.asked("ACME")) == (3, 3)  # the overlap, then all of it: two restated, one new
    rows = versions(folder, "ACME")
    restated = rows[rows["version"] == 2]
    assert restated["session"].dt.strftime("%m-%d").tolist() == ["01-17", "03-14"]
    assert set(restated["available_at"]) == {pd.Timestamp(NEXT, tz="UTC")}
    pd.testing.assert_frame_equal(bars(folder, "ACME", NIGHT), before)
    assert_as_traded(folder, stub, "ACME", NEXT)


def test_a_revised_volume_is_a_version_and_no_reason_to_ask_for_all(stub, folder):
    ingest(folder, stub, NIGHT)
    true = stub.listings["ACME"].bars
    true.loc[true["session"] == "2024-03-18", "volume"] += 500
    assert (ingest(folder, stub, NEXT).stored.bars, stub.asked("ACME")) == (2, 2)


@pytest.mark.parametrize("ratio", [4.0, 7.0, 1.05, 0.1])
def test_a_split_is_a_new_action_and_no_restated_bar(stub, folder, ratio):
    true = stub.listings["ACME"].bars
    after = (true["session"] >= "2024-03-19").to_numpy()
    for name in NUMBERS[:4]:
        true.loc[after, name] = (true.loc[after, name] / ratio).round(4)
    ingest(folder, stub, NIGHT)
    before = bars(folder, "ACME")
    stub.listings["ACME"].actions.append(("2024-03-19", "split", ratio))
    result = ingest(folder, stub, NEXT)
    assert (result.stored.bars, result.stored.actions) == (1, 1)
    assert actions(folder, "ACME") == [("2024-03-19", "split", pytest.approx(ratio))]
    assert set(versions(folder, "ACME")["version"]) == {1}
    pd.testing.assert_frame_equal(bars(folder, "ACME").head(len(before)), before)
    action = Lake(folder / "lake").current("actions").iloc[0]
    assert action["available_at"] == pd.Timestamp("2024-03-19T13:30:00Z")
    (factor,) = Lake(folder / "lake").current("adjustments")["factor"]
    assert factor == pytest.approx(ratio)
    assert ingest(folder, stub, THIRD).stored.bars == 1


def test_a_split_that_yahoo_applies_a_day_late_restates_nothing(stub, folder):
    listed = stub.listings["ACME"]
    after = (listed.bars["session"] >= "2024-03-19").to_numpy()
    listed.bars.loc[after, NUMBERS[:4]] = (listed.bars.loc[after, NUMBERS[:4]] / 3).round(4)
    ingest(folder, stub, NIGHT)
    listed.actions.append(("2024-03-19", "split", 3.0))
    listed.unadjusted.add("2024-03-19")
    ingest(folder, stub, NEXT)
    listed.unadjusted.clear()
    ingest(folder, stub, THIRD)
    assert set(versions(folder, "ACME")["version"]) == {1}
    assert_as_traded(folder, stub, "ACME", THIRD)
    assert Lake(folder / "lake").current("adjustments")["factor"].tolist() == [3.0]


def test_prices_that_are_off_by_a_split_nobody_names_are_not_stored(stub, folder):
    ingest(folder, stub, NIGHT)
    listed = stub.listings["ACME"]
    listed.bars[NUMBERS[:4]] = listed.bars[NUMBERS[:4]] / 4
    result = ingest(folder, stub, NEXT)
    assert (outcomes(result), result.stored.bars, result.exit_code) == ({"ACME": "failed"}, 0, 4)
    assert "4 times" in result.reads[0].reason


def test_old_splits_and_dividends_come_out_as_they_were(stub, folder):
    true = stub.listings["ACME"].bars
    for day in ("2024-02-05", "2024-03-04"):
        after = (true["session"] >= day).to_numpy()
        true.loc[after, NUMBERS[:4]] = (true.loc[after, NUMBERS[:4]] / 2).round(4)
    given = [("2024-01-22", "dividend", 0.4), ("2024-02-05", "split", 2.0), ("2024-03-04", "split", 2.0)]
    stub.listings["ACME"].actions = [*given, ("2024-03-12", "dividend", 0.1)]
    ingest(folder, stub, NIGHT)
    assert_as_traded(folder, stub, "ACME", NIGHT)
    assert actions(folder, "ACME") == [*given, ("2024-03-12", "dividend", 0.1)]


def test_a_dividend_is_known_since_the_open_of_its_ex_date(stub, folder):
    ingest(folder, stub, NIGHT)
    stub.listings["ACME"].actions.append(("2024-03-19", "dividend", 0.25))
    assert ingest(folder, stub, NEXT).stored.actions == 1
    row = Lake(folder / "lake").current("actions").iloc[0]
    assert (row["kind"], row["value"]) == ("dividend", 0.25)
    assert row["available_at"] == pd.Timestamp("2024-03-19T13:30:00Z")


def test_a_later_split_and_restatement_change_nothing_that_was_known(stub, folder):
    listed = stub.listings["ACME"]
    listed.actions = [("2024-02-06", "dividend", 0.3)]
    ingest(folder, stub, NIGHT)
    lake = Lake(folder / "lake")
    before = {table: lake.current(table, NIGHT) for table in ("bars", "actions")}
    after = (listed.bars["session"] >= "2024-03-19").to_numpy()
    listed.bars.loc[after, NUMBERS[:4]] = (listed.bars.loc[after, NUMBERS[:4]] / 5).round(4)
    listed.bars.loc[listed.bars["session"] == "2024-03-15", "high"] += 0.05
    listed.actions += [("2024-03-19", "split", 5.0), ("2024-03-20", "dividend", 0.06)]
    for moment in (NEXT, THIRD):
        ingest(folder, stub, moment)
    for table, rows in before.items():
        pd.testing.assert_frame_equal(lake.current(table, NIGHT), rows)
        pd.testing.assert_frame_equal(lake.current(table, recorded_by=NIGHT), rows)
    assert_as_traded(folder, stub, "ACME", THIRD)


def test_a_half_written_last_bar_is_not_stored(stub, folder):
    during = np.datetime64("2024-03-18T17:00:00", "us")
    result = ingest(folder, stub, during)
    assert (result.quarantined, result.exit_code) == ({"partial-last-bar": 1}, 0)
    assert bars(folder, "ACME")["session"].iloc[-1] == pd.Timestamp("2024-03-15")
    just_closed = np.datetime64("2024-03-18T20:10:00", "us")
    assert outcomes(ingest(folder, stub, just_closed)) == {"ACME": "current"}  # not settled, so not due
    assert ingest(folder, stub, np.datetime64("2024-03-18T20:20:00", "us")).stored.bars == 1


def test_a_missing_price_never_takes_the_place_of_a_good_one(stub, folder):
    ingest(folder, stub, NIGHT)
    true = stub.listings["ACME"].bars
    good = true.loc[true["session"] == "2024-03-14", "close"].iloc[0]
    true.loc[true["session"] == "2024-03-14", "close"] = np.nan
    true.loc[true["session"] == "2024-03-15", NUMBERS] = np.nan
    result = ingest(folder, stub, NEXT)
    assert (result.quarantined, result.stored.bars, result.exit_code) == ({"missing-price": 2}, 1, 0)
    rows = versions(folder, "ACME")
    assert set(rows["version"]) == {1}
    assert rows.loc[rows["session"] == "2024-03-14", "close"].iloc[0] == pytest.approx(good)


def test_a_bar_that_was_missing_is_taken_when_it_comes(stub, folder):
    true = stub.listings["ACME"].bars
    whole = true.copy()
    true.loc[true["session"] == "2024-03-18", NUMBERS] = np.nan
    result = ingest(folder, stub, NIGHT)
    assert (outcomes(result), result.reads[0].reason) == ({"ACME": "fed"}, "no bar of 2024-03-18 yet")
    stub.listings["ACME"].bars = whole
    assert ingest(folder, stub, NIGHT + MINUTE).stored.bars == 1
    assert_as_traded(folder, stub, "ACME", NIGHT)


def test_rows_with_faults_are_left_out_and_counted_by_code(stub, folder):
    true = stub.listings["ACME"].bars
    true.loc[10, "close"] = -1.0
    true.loc[11, "high"] = true.loc[11, "low"] / 2
    assert ingest(folder, stub, NIGHT).quarantined == {"negative-price": 1, "high-below-low": 1}


def test_a_delisted_ticker_is_marked_and_keeps_its_history(stub, tmp_path):
    folder = workspace(tmp_path / "w", "ACME", "GONE")
    stub.listings["GONE"] = listing(days(60), seed=1)
    ingest(folder, stub, NIGHT)
    kept = bars(folder, "GONE")
    del stub.listings["GONE"]
    found = ingest(folder, stub, NEXT)
    assert (outcomes(found), found.exit_code) == ({"ACME": "fed", "GONE": "ended"}, 3)
    assert "its history ends on 2024-03-18" in found.reads[1].reason
    asked = []
    for day in pd.bdate_range("2024-03-20", "2024-03-28"):
        before = stub.asked("GONE")
        later = ingest(folder, stub, evening(f"{day:%Y-%m-%d}"))
        asked.append(stub.asked("GONE") - before)
        assert (outcomes(later)["GONE"], later.exit_code) == ("ended", 0)  # told once
    assert asked == [1, 1, 0, 1, 0, 0, 0]
    pd.testing.assert_frame_equal(bars(folder, "GONE"), kept)


def test_a_ticker_that_comes_back_goes_on(stub, folder):
    held = stub.listings.pop("ACME")
    stub.listings["ACME"] = held
    ingest(folder, stub, NIGHT)
    del stub.listings["ACME"]
    assert outcomes(ingest(folder, stub, NEXT)) == {"ACME": "ended"}
    stub.listings["ACME"] = held
    assert outcomes(ingest(folder, stub, THIRD)) == {"ACME": "fed"}
    assert_as_traded(folder, stub, "ACME", THIRD)


def test_a_history_that_just_stops_has_ended(stub, folder):
    ingest(folder, stub, NIGHT)
    listed = stub.listings["ACME"]
    listed.bars = listed.bars[listed.bars["session"] <= "2024-03-18"]
    assert outcomes(ingest(folder, stub, evening("2024-03-28"))) == {"ACME": "fed"}  # eight sessions: a halt
    assert outcomes(ingest(folder, stub, evening("2024-04-03"))) == {"ACME": "ended"}


def test_a_ticker_taken_by_another_company_is_refused(stub, tmp_path):
    folder = workspace(tmp_path / "w", "ACME", start="2023-01-01")
    old = listing(days(200), seed=2)
    stub.listings["ACME"].bars = old.bars[old.bars["session"] <= "2023-10-31"]
    ingest(folder, stub, evening("2023-10-31"))
    stub.listings["ACME"] = listing(days(20), seed=3, start=7.0)
    result = ingest(folder, stub, NIGHT)
    assert "recycled-ticker" in result.reads[0].reason
    assert result.stored.bars == 0


def test_a_ticker_that_never_was_is_told_every_night(stub, tmp_path):
    folder = workspace(tmp_path / "w", "ACME", "TYPO")
    for moment in (NIGHT, NIGHT + MINUTE, NEXT):
        result = ingest(folder, stub, moment)
        assert (outcomes(result)["TYPO"], codes(result)["TYPO"], result.exit_code) == ("unknown", "unknown-ticker", 3)
    assert stub.charts() == 5  # ACME's time zone and two nights, TYPO's time zone twice: not again the same night


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Reply(body=b"<!DOCTYPE html><html>Will be right back</html>"), "malformed"),
        (Reply(body=b'{"chart": {"result": [{"meta": {}}], "error": null}}'), "malformed"),
        (Reply(body=b'{"quotes": []}'), "malformed"),
        (Reply(body=b"[1, 2]"), "malformed"),
        (Reply(body=b"{"), "malformed"),
        (Reply(body=b""), "malformed"),
        (Reply(500, b"oops"), "unavailable"),
        (Reply(404, b"<html>no such page</html>"), "malformed"),
        (Reply(404, b'{"chart": 7}'), "malformed"),
    ],
)
def test_what_is_no_answer_marks_nothing_dead(stub, tmp_path, reply, code):
    folder = workspace(tmp_path / "w", "ACME", "GOOD")
    stub.listings["GOOD"] = listing(days(60), seed=1)
    ingest(folder, stub, NIGHT)
    before = versions(folder, "ACME")
    stub.twist = lambda ticker, _: reply if ticker == "ACME" else None
    result = ingest(folder, stub, NEXT)
    assert (outcomes(result), codes(result)["ACME"], result.exit_code) == ({"ACME": "failed", "GOOD": "fed"}, code, 3)
    pd.testing.assert_frame_equal(versions(folder, "ACME"), before)
    stub.twist = lambda ticker, _: None
    assert ingest(folder, stub, NEXT + MINUTE).exit_code == 0


def _without(key):
    def doctor(_, chart):
        quote = chart["indicators"]["quote"][0]
        return chart | {"indicators": {"quote": [{name: cells for name, cells in quote.items() if name != key}]}}

    return doctor


@pytest.mark.parametrize(
    "doctor",
    [
        _without("close"),
        lambda _, chart: chart | {"timestamp": "soon"},
        lambda _, chart: chart | {"timestamp": chart["timestamp"][:-1]},
        lambda _, chart: chart | {"meta": {}},
        lambda _, chart: chart | {"events": {"splits": {"1": {"date": 1}}}},
        lambda _, chart: json.dumps({"chart": {"result": [chart, None], "error": {"description": 5}}}),
    ],
)
def test_another_shape_is_no_price(stub, folder, doctor):
    stub.doctor = doctor
    result = ingest(folder, stub, NIGHT)
    assert (outcomes(result), result.stored.bars, result.exit_code) == ({"ACME": "failed"}, 0, 4)
    assert codes(result)["ACME"] in ("malformed", "no-bars")


def test_an_empty_frame_ends_nothing_until_it_lasts(stub, folder):
    ingest(folder, stub, NIGHT)
    listed = stub.listings["ACME"]
    kept, listed.bars = listed.bars, listed.bars.head(0)
    result = ingest(folder, stub, NEXT)
    assert (outcomes(result), codes(result)) == ({"ACME": "failed"}, {"ACME": "no-bars"})
    assert outcomes(ingest(folder, stub, evening("2024-04-03"))) == {"ACME": "ended"}
    listed.bars = kept
    assert bars(folder, "ACME")["session"].iloc[-1] == pd.Timestamp("2024-03-18")


def test_a_storm_of_429_ends_the_run_and_marks_nothing_dead(stub, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "FIRST_PAUSE", 0.01)
    names = [f"T{n:02d}" for n in range(24)]
    for number, name in enumerate(names):
        stub.listings[name] = listing(days(60), seed=number)
    folder = workspace(tmp_path / "w", *names)
    ingest(folder, stub, NIGHT)
    stub.visits.clear()
    stub.twist = lambda ticker, _: None if ticker in names[:6] else Reply(429, b"Too Many Requests")
    result = ingest(folder, stub, NEXT)
    assert stub.charts() < 24
    assert "429" in result.stopped
    assert result.exit_code == 3
    assert set(outcomes(result).values()) <= {"fed", "limited", "not-asked"}
    assert result.count("not-asked") > 10
    stub.twist = lambda ticker, _: None
    resumed = ingest(folder, stub, NEXT + MINUTE)
    assert (resumed.exit_code, resumed.count("current")) == (0, result.count("fed"))


def test_who_asks_to_be_left_alone_is(stub, folder):
    stub.twist = lambda ticker, _: Reply(429, b"", {"Retry-After": "3600"})
    first = ingest(folder, stub, NIGHT)
    assert (outcomes(first), stub.charts(), first.exit_code) == ({"ACME": "limited"}, 1, 4)
    stub.twist = lambda ticker, _: None
    early = ingest(folder, stub, NIGHT + 59 * MINUTE)
    assert (outcomes(early), stub.charts()) == ({"ACME": "not-asked"}, 1)
    assert "wait until 2024-03-18T23:00:00Z" in early.stopped
    assert outcomes(ingest(folder, stub, NIGHT + 60 * MINUTE)) == {"ACME": "fed"}


@pytest.mark.parametrize("refusal", [b'{"detail": "Invalid token."}', 401], ids=["in words", "by status"])
def test_a_refused_key_ends_the_run(tmp_path, refusal):
    names = [f"T{n:02d}" for n in range(24)]
    folder = workspace(tmp_path / "w", *names)
    with FeedServer() as vendor:
        for name in names:
            path = f"/{name.lower()}/prices?startDate=2024-01-01&format=json"
            vendor.add(path, **({"behaviour": status(refusal)} if refusal == 401 else {"body": refusal}))

        def connect(_, limiter, where):
            return TiingoSource(Web(limiter, allow_private=True), "key", vendor.url(""))

        result = ingest_prices(open_workspace(folder), lambda: NIGHT, connect)
        assert 1 <= len(vendor.visits()) <= 4  # one for each worker
    assert "key" in result.stopped
    assert (result.exit_code, result.count("not-asked") >= 20) == (4, True)


def test_a_crumb_that_is_refused_is_no_reason_to_stop(stub, folder, monkeypatch):
    monkeypatch.setattr(limits, "FIRST_PAUSE", 0.01)
    stub.crumb = Reply(429, b"Too Many Requests")
    assert outcomes(ingest(folder, stub, NIGHT)) == {"ACME": "fed"}


def test_each_ticker_keeps_the_hours_of_its_exchange(stub, tmp_path):
    stub.listings["VOD.L"] = listing(days(60, calendar="XLON"), calendar="XLON")
    stub.listings["BTC-USD"] = listing(days(90, calendar="24/7"), calendar="24/7")
    folder = workspace(tmp_path / "w", "ACME", "VOD.L", "BTC-USD")
    ingest(folder, stub, np.datetime64("2024-03-18T17:30:00", "us"))
    last = {ticker: bars(folder, ticker).iloc[-1] for ticker in ("ACME", "VOD.L", "BTC-USD")}
    stamps = {ticker: f"{row['session']:%m-%d} {row['available_at']:%m-%d %H:%M}" for ticker, row in last.items()}
    assert stamps == {"ACME": "03-15 03-15 20:00", "VOD.L": "03-18 03-18 16:30", "BTC-USD": "03-17 03-18 00:00"}
    for ticker in last:
        assert_as_traded(folder, stub, ticker, last[ticker]["session"].to_datetime64().astype("datetime64[us]"))


def test_a_run_that_was_cut_goes_on_where_it_stopped(stub, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.ingest_prices.BATCH", 4)
    names = [f"T{n:02d}" for n in range(12)]
    for number, name in enumerate(names):
        stub.listings[name] = listing(days(30), seed=number)
    folder = workspace(tmp_path / "w", *names)
    stub.twist = lambda ticker, _: Reply(429, b"", {"Retry-After": "600"}) if ticker == "T06" else None
    cut = ingest(folder, stub, NIGHT)
    assert cut.count("fed") in range(4, 8)
    stub.twist = lambda ticker, _: None
    asked = {name: stub.asked(name) for name in names}
    resumed = ingest(folder, stub, NIGHT + 10 * MINUTE)
    assert (resumed.exit_code, resumed.count("current")) == (0, cut.count("fed"))
    assert all(stub.asked(read.ticker) == asked[read.ticker] for read in cut.reads if read.outcome == "fed")


def test_bars_of_another_basis_are_left_alone(stub, folder):
    ingest(folder, stub, NIGHT)
    lake = Lake(folder / "lake")
    rows = lake.frame("bars").assign(ticker="FILE", basis="split", source="file")
    lake.merge("bars", rows)
    stub.listings["FILE"] = listing(days(60))
    workspace(folder, "ACME", "FILE")
    result = ingest(folder, stub, NEXT)
    assert outcomes(result) == {"ACME": "fed", "FILE": "failed"}
    assert stub.asked("FILE") == 0


def test_the_command_tells_each_failure_and_the_same_as_data(stub, tmp_path, tapewire, monkeypatch):
    today = np.datetime64("today")
    labels = days(30, str(today))
    stub.listings = {"ACME": listing(labels)}
    stub.today = today
    folder = workspace(tmp_path / "w", "ACME", "TYPO", start=str(labels[0]))
    connect = lambda _, limiter, where: YahooSource(limiter, where / ".yfinance", StubSession(limiter, stub.url))  # noqa: E731
    monkeypatch.setattr("pipelines.ingest_prices.open_source", connect)
    told = tapewire(folder, "ingest", "--prices")
    assert told.code == 3
    lines = told.out.splitlines()
    assert lines[1].split()[:3] == ["TYPO", "unknown", "unknown-ticker"]
    assert lines[-1].startswith("1 of 2 tickers are complete by yahoo; ")
    given = tapewire(folder, "ingest", "--prices", "--json").json
    assert [each["ticker"] for each in given["failed"]] == ["TYPO"]
    assert given["bars_added"] == 0
    assert (folder / ".yfinance").is_dir()


def test_news_and_prices_in_one_command(stub, tmp_path, tapewire, monkeypatch):
    labels = days(30, str(np.datetime64("today")))
    stub.listings, stub.today = {"ACME": listing(labels)}, labels[-1]
    folder = workspace(tmp_path / "w", "ACME", start=str(labels[0]))
    connect = lambda _, limiter, where: YahooSource(limiter, where / ".yfinance", StubSession(limiter, stub.url))  # noqa: E731
    monkeypatch.setattr("pipelines.ingest_prices.open_source", connect)
    with FeedServer() as server, (folder / "tapewire.toml").open("a") as toml:
        toml.write(feed("wire", server.add("/a", rss(item(1)))))
        toml.flush()
        both = tapewire(folder, "ingest", "--news", "--prices", "--json")
        assert (both.code, both.json["news"]["added"], both.json["prices"]["fed"]) == (0, 1, 1)
        server.add("/a", behaviour=status(500))
        assert tapewire(folder, "ingest", "--news", "--prices").code == 3


def test_mistakes_of_the_users(tmp_path, tapewire, monkeypatch):
    none = workspace(tmp_path / "a")
    assert (tapewire(none, "ingest", "--prices").code, "watchlist" in tapewire(none, "ingest", "--prices").err) == (
        2,
        True,
    )
    odd = workspace(tmp_path / "b", "AC ME")
    assert tapewire(odd, "ingest", "--prices").code == 2
    keyless = workspace(tmp_path / "c", "ACME", source='"tiingo"')
    assert "key_env" in tapewire(keyless, "ingest", "--prices").err
    monkeypatch.setenv("A_KEY", "not a key\r\nX: y")
    wrong = tapewire(workspace(tmp_path / "d", "ACME", source='"tiingo"', key_env='"A_KEY"'), "ingest", "--prices")
    assert (wrong.code, "not a key" in wrong.err) == (2, False)
    nowhere = workspace(tmp_path / "e", "ACME")
    assert tapewire(nowhere, "ingest", "--prices", "--set", 'tape.calendars={ACME="XXXX"}').code == 2
    with open_workspace(nowhere).lock("ingest"):
        assert tapewire(nowhere, "ingest", "--prices").code == 75


def test_the_configuration_does_not_load_a_vendor():
    script = "import sys, data.prices.tape; print(sorted({'yfinance', 'curl_cffi', 'httpx2'} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


def _killed_at_work(stub: YahooStub, tmp_path: Path, kills: int) -> int:
    """How many of the kills met a run at work, each completed to the lake of undisturbed runs.

    Two nights: a first load, then a split and a restatement; each run is killed, then run again.
    """
    names = [f"T{n}" for n in range(6)]
    for number, name in enumerate(names):
        stub.listings[name] = listing(days(40), seed=number)
        stub.listings[name].actions = [("2024-03-01", "dividend", 0.1)]
    nights = [str(moment) for moment in (NIGHT, NEXT)]

    def market(night: str) -> None:
        stub.today = np.datetime64(night, "D")
        rows = stub.listings["T1"].bars
        stub.listings["T1"].bars = rows.assign(
            high=rows["high"].where(rows["session"] != "2024-03-14", 500.0 + (night > nights[0]))
        )
        stub.listings["T2"].actions = [("2024-03-01", "dividend", 0.1), ("2024-03-19", "split", 1.5)]

    def run(folder: Path, moments: list[float | None]) -> int:
        at_work = 0
        for night, moment in zip(nights, moments, strict=True):
            market(night)
            if moment is not None:
                at_work += kill_after(moment, nightly, folder, stub.url, night)
            run_to_its_end(nightly, folder, stub.url, night)
        return at_work

    whole = workspace(tmp_path / "whole", *names)
    run(whole, [None, None])
    expected = row_hashes(Lake(whole / "lake"))
    market(nights[0])
    seconds = run_to_its_end(nightly, workspace(tmp_path / "timed", *names), stub.url, nights[0])
    chance, at_work = np.random.default_rng(0), 0
    for number in range(kills // 2):
        folder = workspace(tmp_path / str(number), *names)
        at_work += run(folder, chance.uniform(0, seconds, 2).tolist())
        assert row_hashes(Lake(folder / "lake")) == expected
    return at_work


def test_a_killed_ingest_is_completed_by_the_next(stub, tmp_path):
    assert _killed_at_work(stub, tmp_path, 4) >= 2


@pytest.mark.slow
def test_ingest_of_prices_killed_at_a_hundred_moments(stub, tmp_path):
    assert _killed_at_work(stub, tmp_path, 100) >= 50
