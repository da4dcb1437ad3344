import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from killing import kill_after, row_hashes, run_to_its_end

from data.calendar import sessions
from data.lake import Lake
from pipelines.imports import import_prices

TABLES = ("bars", "actions", "headlines", "links", "forecasts")
Tapewire = Callable[..., Any]

BARS = """Date,Open,High,Low,Close,Adj Close,Volume,Symbol
2015-12-28,10,11,9,10.5,10.5,1000,AAA
2015-12-29,10.5,12,10,11,11,1100,AAA
2015-12-30,11,12,10,11.5,11.5,1200,AAA
2015-12-28,20,21,19,20.5,20.5,2000,BBB
2015-12-29,20.5,22,20,21,21,2100,BBB
"""
NEWS = """id,created_at,text,stock
1,2015-12-29T16:05:00-05:00,AAA and BBB to merge,AAA
1,2015-12-29T16:05:00-05:00,AAA and BBB to merge,BBB
2,2015-12-30,AAA opens a plant,AAA
3,2015-12-30T12:00:00Z,Stocks rise,
"""


@pytest.fixture
def fund(tmp_path: Path, tapewire: Tapewire) -> Path:
    """A new workspace with an empty lake."""
    assert tapewire(tmp_path, "init", "fund").code == 0
    return tmp_path / "fund"


def written(folder: Path, text: str | bytes, name: str = "file.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def counts(folder: Path) -> dict[str, int]:
    return {table: Lake(folder / "lake").count(table) for table in TABLES}


def contents(folder: Path) -> dict[str, int]:
    """Every file of the lake with its size: a table's log would show a write of no rows too."""
    files = (folder / "lake").rglob("*")
    return {str(path.relative_to(folder)): path.stat().st_size for path in files if path.is_file()}


def listed(tapewire: Tapewire, folder: Path, *args: str) -> list[Any]:
    ran = tapewire(folder, *args, "--json")
    assert ran.code == 0, ran.err
    return ran.lines


# What is stored, and the contract of --json


def test_prices_of_a_vendors_csv(fund: Path, tapewire: Tapewire) -> None:
    path = written(fund, BARS)
    ran = tapewire(fund, "import", "prices", path, "--json")
    assert ran.json == {"read": 5, "added": 5, "links_added": 0, "actions_added": 0, "skipped": {}}
    assert tapewire(fund, "import", "prices", path, "--json").json["added"] == 0
    assert counts(fund)["bars"] == 5
    bars = listed(tapewire, fund, "bars", "aaa")
    assert [bar["session"] for bar in bars] == ["2015-12-28", "2015-12-29", "2015-12-30"]
    assert bars[0]["available_at"] == "2015-12-28T21:00:00+00:00"
    assert (bars[0]["close"], bars[0]["volume"], bars[0]["basis"]) == (10.5, 1000.0, "split")


def test_headlines_of_several_tickers_are_one_with_several_links(fund: Path, tapewire: Tapewire) -> None:
    path = written(fund, NEWS)
    ran = tapewire(fund, "import", "headlines", path, "--json")
    assert set(ran.json) >= {"read", "added", "links_added", "skipped"}
    assert (ran.json["read"], ran.json["added"], ran.json["links_added"], ran.json["skipped"]) == (4, 3, 3, {})
    again = tapewire(fund, "import", "headlines", path, "--json").json
    assert (again["added"], again["links_added"]) == (0, 0)
    rows = listed(tapewire, fund, "headlines")
    assert {row["title"]: row["tickers"] for row in rows} == {
        "AAA and BBB to merge": ["AAA", "BBB"],
        "Stocks rise": [],
        "AAA opens a plant": ["AAA"],
    }
    # A date alone is known at the close of the first session after it.
    known = {row["title"]: row["available_at"] for row in rows}
    assert known["AAA and BBB to merge"] == "2015-12-29T21:05:00+00:00"
    assert known["AAA opens a plant"] == "2015-12-31T21:00:00+00:00"


def test_parquet_and_csv_of_one_market_make_one_lake(
    imported: Path, sources: Path, market: Any, fund: Path, tapewire: Tapewire
) -> None:
    market.prices.to_csv(fund / "prices.csv", index=False)
    market.headlines.to_csv(fund / "headlines.csv", index=False)
    read = [
        tapewire(fund, "import", kind, fund / f"{kind}.csv", "--json", *options).json
        for kind, options in (("prices", ["--basis", "raw"]), ("headlines", []))
    ]
    assert [each["read"] for each in read] == [len(market.prices), len(market.headlines)]
    assert counts(fund) == counts(imported)
    for table in ("bars", "actions", "links"):
        frames = [Lake(folder / "lake").current(table).drop(columns="recorded_at") for folder in (fund, imported)]
        pd.testing.assert_frame_equal(*frames)


def test_columns_can_be_mapped_and_the_ticker_given(fund: Path, tapewire: Tapewire) -> None:
    rows = BARS.splitlines()
    text = "\n".join(["Date,o,h,l,last,x,vol,y", *rows[1:4]])
    mapping = "date=Date,open=o,high=h,low=l,close=last,volume=vol"
    ran = tapewire(fund, "import", "prices", written(fund, text), "--map", mapping, "--ticker", "aaa", "--json")
    assert ran.json["added"] == 3
    assert listed(tapewire, fund, "bars", "AAA")[0]["close"] == 10.5


def test_an_adjusted_close_gives_the_dividends(fund: Path, tapewire: Tapewire) -> None:
    text = (
        "date,open,high,low,close,adj_close,volume,ticker\n"
        "2015-12-28,100,101,99,100,99,10,AAA\n"
        "2015-12-29,99,100,98,99,99,10,AAA\n"
    )
    ran = tapewire(fund, "import", "prices", written(fund, text), "--json").json
    assert ran["actions_added"] == 1
    dividend = Lake(fund / "lake").current("actions").iloc[0]
    assert (dividend["kind"], str(dividend["ex_date"].date())) == ("dividend", "2015-12-29")
    assert dividend["value"] == pytest.approx(1.0)


def test_bad_rows_are_quarantined_and_counted(fund: Path, tapewire: Tapewire) -> None:
    sessions = pd.bdate_range("2015-01-05", periods=400).strftime("%Y-%m-%d")
    rows = [f"{day},10,11,9,10,100,AAA" for day in sessions]
    rows[7] = rows[7].replace(",10,100,", ",,100,")
    rows[9] = "soon,10,11,9,10,100,AAA"
    rows[11] = rows[11].replace(",11,9,", ",9,11,")
    rows[13] = rows[13].replace("10,11,9,10", "10,11,-9,10")
    text = "date,open,high,low,close,volume,ticker\n" + "\n".join([*rows, rows[20]])
    ran = tapewire(fund, "import", "prices", written(fund, text), "--json")
    assert ran.code == 0
    result = ran.json
    assert result["read"] == 401
    assert result["added"] == 401 - sum(result["skipped"].values())
    holidays = result["skipped"].pop("holiday-bar")
    assert holidays == 14
    assert result["skipped"] == {
        "missing-price": 1,
        "unreadable stamp": 1,
        "high-below-low": 1,
        "negative-price": 1,
        "duplicate row": 1,
    }
    told = tapewire(fund, "import", "prices", fund / "file.csv")
    assert "401 rows read, 0 new" in told.out
    assert "unreadable stamp" in told.out


def yearly(ticker: str, first: str, closes: Sequence[float], adjusted: Sequence[float]) -> list[str]:
    days = [day.date() for day in pd.bdate_range(first, periods=len(closes)) if (day.month, day.day) != (1, 1)]
    pairs = zip(days, closes, adjusted, strict=False)
    return [f"{day},{close},{close + 1},{close - 1},{close},{part},10,{ticker}" for day, close, part in pairs]


def test_many_files_in_any_order_over_years_make_one_lake(
    fund: Path, tmp_path: Path, tapewire: Tapewire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut by ticker, by year or not at all, shuffled, with rows that several files share: the same bars and actions."""
    closes = np.random.default_rng(0).uniform(50, 60, 300).round(2)
    factor = np.where(np.arange(300) < 105, 0.99, 1.0)  # a dividend across the turn of the year
    lines = [line for name in ("AAA", "BBB", "CCC") for line in yearly(name, "2014-08-08", closes, closes * factor)]
    head = "date,open,high,low,close,adj_close,volume,ticker"
    rng = np.random.default_rng(1)

    def stored(name: str, *parts: list[str]) -> list[pd.DataFrame]:
        assert tapewire(tmp_path, "init", name).code == 0
        folder = tmp_path / name
        files = [
            written(folder, "\n".join([head, *rng.permutation(part)]), f"{at}.csv") for at, part in enumerate(parts)
        ]
        ran = tapewire(folder, "import", "prices", *files, "--json")
        assert ran.code == 0, ran.err
        again = tapewire(folder, "import", "prices", *files, "--json").json
        assert (again["added"], again["actions_added"]) == (0, 0)
        lake = Lake(folder / "lake")
        return [lake.current(table).drop(columns="recorded_at") for table in ("bars", "actions")]

    whole = stored("whole", lines)
    assert len(whole[0]) == len([line for line in lines if int(line[:4]) in (2014, 2015)]) - 3 * holidays(lines)
    assert whole[1]["kind"].tolist() == ["dividend"] * 3
    monkeypatch.setattr("data.prices.years.HELD", 50)
    for name, parts in {
        "pieces": [lines],
        "tickers": [[line for line in lines if line.endswith(ticker)] for ticker in ("CCC", "AAA", "BBB")],
        "overlapping": [lines, lines[:200], lines[400:]],
    }.items():
        for frame, expected in zip(stored(name, *parts), whole, strict=True):
            pd.testing.assert_frame_equal(frame, expected)


def holidays(lines: list[str]) -> int:
    days = pd.DatetimeIndex(sorted({line[:10] for line in lines}))
    return int((sessions("XNYS").index(days) < 0).sum())


def test_a_killed_import_run_again_is_as_if_undisturbed(fund: Path, sources: Path) -> None:
    job = (fund / "lake", sources / "prices.parquet")
    seconds = run_to_its_end(import_in, fund / "whole", job[1])
    for moment in np.random.default_rng(0).uniform(0.3, 1, 6) * seconds:
        kill_after(moment, import_in, *job)
    run_to_its_end(import_in, *job)
    found, expected = (row_hashes(Lake(at)) for at in (job[0], fund / "whole"))
    assert found == expected
    assert sorted(path.name for path in fund.iterdir() if path.suffix != ".toml") == ["lake", "whole"]


def import_in(folder: Path, path: Path) -> None:
    """In a process of its own."""
    import_prices(Lake(folder), [path], {}, "XNYS", "raw", now=np.datetime64("2026-01-01", "us"))


def test_bad_headlines_are_quarantined_and_counted(fund: Path, tapewire: Tapewire) -> None:
    rows = [f"2015-06-{1 + at % 28:02d}T12:00:{at % 60:02d}Z,Item {at},AAA" for at in range(200)]
    rows[3] = "yesterday,Item,AAA"
    rows[5] = "2015-06-05T12:00:00Z,  ,AAA"
    rows[8] = "1985-06-05T12:00:00Z,Old,AAA"
    rows[9] = "2099-06-05T12:00:00Z,Not yet,AAA"
    path = written(fund, "published_at,title,ticker\n" + "\n".join(rows))
    result = tapewire(fund, "import", "headlines", path, "--json").json
    assert result["skipped"] == {
        "unreadable stamp": 1,
        "empty title": 1,
        "stamp before 1990": 1,
        "stamp in the future": 1,
    }
    assert (result["read"], result["added"]) == (200, 196)


def test_zone_and_lag_move_when_a_headline_was_known(fund: Path, tapewire: Tapewire) -> None:
    path = written(fund, "date,title,ticker\n2015-07-01 09:30:00,Item,AAA\n")
    ran = tapewire(fund, "import", "headlines", path, "--tz", "America/New_York", "--lag", "15min", "--json")
    assert ran.json["added"] == 1
    row = listed(tapewire, fund, "headlines")[0]
    assert row["published_at"] == "2015-07-01T13:30:00+00:00"
    assert row["available_at"] == "2015-07-01T13:45:00+00:00"


def test_a_restated_bar_is_a_new_version_known_only_now(fund: Path, tapewire: Tapewire) -> None:
    tapewire(fund, "import", "prices", written(fund, BARS))
    changed = tapewire(fund, "import", "prices", written(fund, BARS.replace("9,10.5,10.5", "9,10.6,10.6")), "--json")
    assert changed.json["added"] == 1
    assert [bar["close"] for bar in listed(tapewire, fund, "bars", "AAA")] == [10.6, 11.0, 11.5]
    then = listed(tapewire, fund, "bars", "AAA", "--as-of", "2015-12-30")
    assert [bar["close"] for bar in then] == [10.5, 11.0, 11.5]


# What is refused


def garbage() -> bytes:
    return b"PAR1" + np.random.default_rng(0).bytes(500)


WITHOUT_CLOSE = BARS.replace(",Close,", ",Last,").replace("Adj Last", "Adj")
TWICE = BARS + "2015-12-28,10,11,9,10.9,10.9,1000,AAA\n"
UNREADABLE = "date,open,high,low,close,volume,ticker\n" + "\n".join(
    [f"{day.date()},10,11,9,10,100,AAA" for day in pd.bdate_range("2015-03-02", periods=60)] + ["then,1,1,1,1,1,A"]
)
BAD_PRICES: dict[str, tuple[str | bytes, list[str], list[str]]] = {
    "empty": ("", [], ["empty"]),
    "blank": ("\n  \n", [], ["empty"]),
    "html": ("<!DOCTYPE html><html><body>Sign in</body></html>", [], ["HTML"]),
    "html after a mark": (b"\xef\xbb\xbf\n <html>", [], ["HTML"]),
    "broken parquet": (garbage(), [], ["Parquet"]),
    "broken bytes": (b"date,open\n\xff\xfe\x00,1\n", [], []),
    "ragged": ("date,open\n1,2,3\n", [], []),
    "header only": (BARS.splitlines()[0] + "\n", [], ["header"]),
    "missing column": (WITHOUT_CLOSE, [], ["close", "Last", "--map"]),
    "column twice": (BARS.replace("Open", "Close"), [], ["Close"]),
    "rows that disagree": (TWICE, [], ["AAA", "2015-12-28", "10.5", "10.9"]),
    "unparseable stamps": (UNREADABLE, [], ["then", "61"]),
    "nothing usable": (
        BARS.replace("2015-12-28", "2015-12-25").replace("-29,", "-26,").replace("-30,", "-27,"),
        [],
        ["holiday-bar", "weekend-bar"],
    ),
    "unknown basis": (BARS, ["--basis", "adjusted"], ["--basis", "adjusted", "raw", "split", "total"]),
    "unknown key of the map": (BARS, ["--map", "price=Close"], ["--map", "price"]),
    "absent column of the map": (BARS, ["--map", "close=Last"], ["close=Last", "Close"]),
    "malformed map": (BARS, ["--map", "close"], ["--map", "close"]),
    "needless ticker": (BARS, ["--ticker", "AAA"], ["--ticker"]),
    "no ticker": (BARS.replace("Symbol", "Name"), [], ["ticker", "--ticker"]),
    "odd ticker": (BARS.replace("Symbol", "Name"), ["--ticker", "A B;C"], ["odd ticker"]),
    "unknown set": (BARS, ["--set", "calender=XNYS"], ["calender"]),
    "unknown calendar": (BARS, ["--set", "calendar=MARS"], ["MARS"]),
}
BAD_NEWS: dict[str, tuple[str | bytes, list[str], list[str]]] = {
    "empty": ("", [], ["empty"]),
    "html": ("<html></html>", [], ["HTML"]),
    "missing column": (NEWS.replace("text", "words"), [], ["title", "words"]),
    "rows that disagree": (NEWS.replace("to merge,BBB", "to part,BBB"), [], ["merge", "part"]),
    "no zone": (NEWS.replace("-05:00", ""), [], ["--tz", "2015-12-29T16:05:00"]),
    "unparseable stamps": (NEWS.replace("2015-12-30,", "Dec 30,"), [], ["Dec 30"]),
    "unknown zone": (NEWS.replace("-05:00", ""), ["--tz", "Mars/Olympus"], ["--tz", "Mars/Olympus"]),
    "unknown zone that is not needed": (NEWS, ["--tz", "Mars/Olympus"], ["--tz", "Mars/Olympus"]),
    "unknown lag": (NEWS, ["--lag", "soon"], ["--lag", "soon"]),
    "negative lag": (NEWS, ["--lag", "-15min"], ["--lag", "-15min"]),
    "malformed map": (NEWS, ["--map", "title"], ["--map"]),
    "unknown key of the map": (NEWS, ["--map", "headline=text"], ["--map", "headline"]),
}
CASES = [("prices", *case) for case in BAD_PRICES.items()] + [("headlines", *case) for case in BAD_NEWS.items()]


def refused(ran: Any, named: list[str]) -> None:
    """One clear paragraph on stderr, nothing on stdout, code 2."""
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("tapewire: ")
    assert ran.err.count("\n") == 1
    assert [word for word in named if word not in ran.err] == [], ran.err


@pytest.mark.parametrize(("kind", "name", "case"), CASES, ids=[f"{kind}, {name}" for kind, name, _ in CASES])
def test_bad_input_is_refused_and_the_lake_left_as_it_was(
    fresh: Path, tapewire: Tapewire, kind: str, name: str, case: tuple[str | bytes, list[str], list[str]]
) -> None:
    text, options, named = case
    before, rows = contents(fresh), counts(fresh)
    refused(tapewire(fresh, "import", kind, written(fresh, text), *options), named)
    assert contents(fresh) == before
    assert counts(fresh) == rows


def test_what_is_no_file_is_refused(fresh: Path, tapewire: Tapewire) -> None:
    before = contents(fresh)
    for path in (fresh / "nowhere.csv", fresh):
        for kind in ("prices", "headlines"):
            refused(tapewire(fresh, "import", kind, path), [str(path)])
    assert contents(fresh) == before


def test_one_bad_file_keeps_all_of_them_out(fund: Path, tapewire: Tapewire) -> None:
    good, bad = written(fund, BARS, "good.csv"), written(fund, TWICE, "bad.csv")
    refused(tapewire(fund, "import", "prices", good, bad), ["bad.csv"])
    assert counts(fund)["bars"] == 0
    good, bad = written(fund, NEWS, "good.csv"), written(fund, "", "bad.csv")
    refused(tapewire(fund, "import", "headlines", good, bad), ["bad.csv"])
    assert counts(fund)["headlines"] == 0


def test_two_files_that_disagree_keep_each_other_out(fund: Path, tapewire: Tapewire) -> None:
    first = written(fund, BARS, "first.csv")
    second = written(fund, BARS.replace("9,10.5,10.5", "9,10.9,10.9"), "second.csv")
    refused(tapewire(fund, "import", "prices", first, second), ["AAA", "2015-12-28"])
    assert counts(fund)["bars"] == 0


def test_another_basis_of_a_stored_ticker_is_refused(fund: Path, tapewire: Tapewire) -> None:
    path = written(fund, BARS)
    tapewire(fund, "import", "prices", path)
    before = contents(fund)
    refused(tapewire(fund, "import", "prices", path, "--basis", "raw"), ["--basis", "raw", "AAA", "split"])
    other = written(fund, BARS.replace("AAA", "CCC"), "other.csv")
    refused(tapewire(fund, "import", "prices", other, path, "--basis", "raw"), ["BBB"])
    assert contents(fund) == before


def test_an_unknown_ticker_has_no_bars(imported: Path, tapewire: Tapewire) -> None:
    refused(tapewire(imported, "bars", "NOPE"), ["NOPE"])
    refused(tapewire(imported, "bars", "NOPE", "--json"), ["NOPE"])


def test_listing_takes_an_instant_a_session_and_a_limit(imported: Path, market: Any, tapewire: Tapewire) -> None:
    published = market.headlines.drop_duplicates("id")["published_at"]
    middle = published.sort_values().iloc[len(published) // 2]
    rows = listed(tapewire, imported, "headlines")
    assert len(rows) == len(published)
    stamps = [pd.Timestamp(row["available_at"]) for row in rows]
    assert stamps == sorted(stamps)
    assert all(stamp.tzinfo is not None for stamp in stamps)
    then = listed(tapewire, imported, "headlines", "--as-of", middle.isoformat())
    assert len(then) == (published <= middle).sum()
    assert listed(tapewire, imported, "headlines", "--limit", "3") == rows[-3:]
    decided = listed(tapewire, imported, "headlines", "--as-of", "2018-06-01")  # a Friday: Sunday, 22:00 in New York
    assert len(decided) == (published <= pd.Timestamp("2018-06-04T02:00:00Z")).sum()


def test_listing_for_a_reader_is_a_head_and_a_line_a_record(imported: Path, market: Any, tapewire: Tapewire) -> None:
    ran = tapewire(imported, "headlines", "--limit", "5")
    head, *lines = ran.out.splitlines()
    assert head.split() == ["available_at", "tickers", "title"]
    assert len(lines) == 5
    title = market.headlines.sort_values("published_at")["title"].iloc[-1]
    assert title in ran.out
    ticker = market.prices["ticker"].iloc[0]
    bars = tapewire(imported, "bars", ticker).out.splitlines()[1:]
    assert len(bars) == (market.prices["ticker"] == ticker).sum()


def test_titles_come_out_as_they_went_in(fund: Path, tapewire: Tapewire) -> None:
    title = 'Börse: „Müller" sagt, 5% – 日本'
    frame = pd.DataFrame({"published_at": ["2015-06-05T12:00:00Z"], "title": [title], "ticker": ["BRK.B"]})
    frame.to_parquet(fund / "file.parquet")
    assert tapewire(fund, "import", "headlines", fund / "file.parquet").code == 0
    row = listed(tapewire, fund, "headlines")[0]
    assert (row["title"], row["tickers"]) == (title, ["BRK.B"])
    assert json.dumps(row)
