from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data.errors import InputError
from data.intake import Quarantine
from data.lake import Lake
from data.prices.files import Basis, PriceTerms, read_prices
from data.prices.store import Stored, refuse_other_basis, store_prices
from data.prices.years import Years
from data.spool import open_spool

NOW = np.datetime64("2016-02-01T12:00:00", "us")
RECORDED = np.datetime64("2016-02-01T12:00:00", "us")
LATER = np.datetime64("2016-03-01T12:00:00", "us")
HEADER = "ticker,date,open,high,low,close,volume"


def row(ticker: str = "A", date: str = "2015-12-30", close: float = 10.0, **more: Any) -> dict[str, Any]:
    prices = {"open": close, "high": close + 1, "low": close - 1, "close": close, "volume": 100}
    return {"ticker": ticker, "date": date, **prices, **more}


def file(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path = folder / "prices.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@dataclass(frozen=True)
class Part:
    """What one file gives."""

    bars: pd.DataFrame
    actions: pd.DataFrame
    read: int
    quarantine: Quarantine


def read(path: Path, basis: Basis = "split", ticker: str | None = None, **mapping: str) -> Part:
    terms = PriceTerms(mapping, "XNYS", basis, ticker, NOW)
    with open_spool(path.parent) as spool:
        years = Years(spool)
        file = read_prices(path, terms, years)
        [repeats], actions = years.settle(terms.exchange, basis, ["dividend" in file.columns])
        bars = pd.concat(years.bars(terms.exchange, basis), ignore_index=True)
    file.quarantine.add("duplicate row", repeats)
    none = pd.DataFrame({"ticker": [], "ex_date": [], "kind": [], "value": []})
    return Part(bars, actions[0] if actions else none, file.read, file.quarantine)


def store(lake: Lake, part: Part, recorded_at: np.datetime64 = RECORDED) -> Stored:
    return store_prices(lake, part.bars, part.actions, recorded_at)


def many(days: int = 200, **more: Any) -> list[dict[str, Any]]:
    """As many sessions of one ticker, the last of them 2015-12-31."""
    holidays = ["2015-01-01", "2015-01-19", "2015-02-16", "2015-04-03", "2015-05-25", "2015-07-03", "2015-09-07"]
    closed = {*holidays, "2015-11-26", "2015-12-25"}
    dates = [day for day in pd.bdate_range("2015-01-01", "2015-12-31").strftime("%Y-%m-%d") if day not in closed]
    return [row(date=day, **more) for day in dates[-days:]]


def test_a_bar_is_known_at_its_close(tmp_path: Path) -> None:
    part = read(file(tmp_path, [row(date="2015-12-30"), row(date="2015-11-27"), row(date="2015-07-14")]))
    assert part.read == 3
    assert part.quarantine.skipped == {}
    closes = part.bars.set_index("session")["available_at"].astype(str).to_dict()
    assert {str(day.date()): at for day, at in closes.items()} == {
        "2015-07-14": "2015-07-14 20:00:00",
        "2015-11-27": "2015-11-27 18:00:00",  # a half day
        "2015-12-30": "2015-12-30 21:00:00",
    }


def test_stored_rows_carry_their_stamps(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    assert store(lake, read(file(tmp_path, [row(), row("b ")]), "raw")) == Stored(bars=2, actions=0)
    rows = lake.current("bars")
    assert rows["ticker"].tolist() == ["A", "B"]
    assert (rows["available_at"] == pd.Timestamp("2015-12-30 21:00", tz="UTC")).all()
    assert (rows["recorded_at"] == pd.Timestamp(RECORDED, tz="UTC")).all()
    assert rows[["basis", "origin", "version"]].drop_duplicates().to_numpy().tolist() == [["raw", "backfill", 1]]


@pytest.mark.parametrize("date", ["2015-12-30T00:00:00-05:00", "2015-12-30 00:00:00", "2015-12-30T05:00:00Z"])
def test_midnight_stamps_name_the_exchange_day(tmp_path: Path, date: str) -> None:
    bars = read(file(tmp_path, [row(date=date)])).bars
    assert bars["session"].tolist() == [pd.Timestamp("2015-12-30")]


@pytest.mark.parametrize("zone", [None, "America/New_York", "UTC"])
def test_parquet_dates_are_read(tmp_path: Path, zone: str | None) -> None:
    frame = pd.DataFrame([row()])
    frame["date"] = pd.to_datetime(frame["date"]).dt.tz_localize(zone)
    frame.to_parquet(tmp_path / "prices.parquet")
    assert read(tmp_path / "prices.parquet").bars["session"].tolist() == [pd.Timestamp("2015-12-30")]


def test_columns_by_alias_and_by_mapping(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("Symbol,Session,Open,High,Low,Close,Shares Traded\nBRK.B,2015-12-30,10,11,9,10,5\n")
    with pytest.raises(InputError, match="column volume"):
        read(path)
    assert read(path, volume="Shares Traded").bars["volume"].tolist() == [5.0]


def test_a_file_of_one_ticker_needs_its_name(tmp_path: Path) -> None:
    bare = {name: value for name, value in row().items() if name != "ticker"}
    path = file(tmp_path, [bare])
    assert read(path, ticker="spy").bars["ticker"].tolist() == ["SPY"]
    with pytest.raises(InputError, match="--ticker NAME"):
        read(path)
    with pytest.raises(InputError, match="leave it out"):
        read(file(tmp_path, [row()]), ticker="SPY")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"close": "n/a"}, "missing-price"),
        ({"open": ""}, "missing-price"),
        ({"volume": "inf"}, "infinite-volume"),
        ({"low": 0}, "zero-price"),
        ({"volume": -1}, "negative-volume"),
        ({"dividend": 10.01}, "dividend above the close"),
        ({"high": 8.5}, "high-below-low"),
        ({"ticker": ""}, "no ticker"),
        ({"ticker": "<b>"}, "odd ticker"),
        ({"date": "2015-12-26"}, "weekend-bar"),
        ({"date": "2016-02-01"}, "future-bar"),
        ({"date": "2016-02-02"}, "stamp in the future"),
        ({"date": "1962-01-02"}, "stamp before 1985"),
        ({"date": "30.12.2015"}, "unreadable stamp"),
        ({"close": 10.0}, "duplicate row"),
    ],
)
def test_a_bad_row_is_quarantined_and_counted(tmp_path: Path, bad: dict[str, Any], reason: str) -> None:
    good = many(150)
    part = read(file(tmp_path, [*good, {**good[-1], **bad}]))
    assert part.quarantine.skipped == {reason: 1}
    assert part.read == 151
    assert len(part.bars) == 150


@pytest.mark.parametrize("basis", ["raw", "split", "total"])
@pytest.mark.parametrize("value", ["", "n/a", "inf"])
def test_a_row_without_its_adjusted_close_is_quarantined(tmp_path: Path, basis: Basis, value: str) -> None:
    good = many(10, adj_close=10.0)
    part = read(file(tmp_path, [*good[:4], {**good[4], "adj_close": value}, *good[5:]]), basis)
    assert part.quarantine.skipped == {"unreadable adjusted close": 1}
    assert len(part.bars) == 9
    assert pd.Timestamp(good[4]["date"]) not in set(part.bars["session"])
    assert part.actions.empty


def test_a_blank_dividend_or_split_is_none(tmp_path: Path) -> None:
    part = read(file(tmp_path, [row(dividend="", split=""), row("B", dividend=0.5, split=2.0)]), "raw")
    assert part.quarantine.skipped == {}
    assert len(part.bars) == 2
    assert part.actions["ticker"].tolist() == ["B", "B"]


REFUSED: list[tuple[str, str]] = [
    ("", "empty"),
    ("<html><body>Too many requests</body></html>", "HTML"),
    ("\x00\x01\x02", "expected"),
    (f"{HEADER}\n", "only a header"),
    ("ticker,date,open,high,low,close\nA,2015-12-30,10,11,9,10\n", "column volume"),
    (f"{HEADER}\nA,2015-12-30,10,11,9,10,1\nA,2015-12-30,10,11,9,10.5,1\n", "rows of 2015 disagree.*A on 2015-12-30"),
    (f"{HEADER}\nA,2015-12-30,10,11,9,10,1\nA,12/31/2015,10,11,9,10,1\n", "1 of 2.*12/31/2015"),
    (f"{HEADER}\nA,2015-12-26,10,11,9,10,1\n", "found none .weekend-bar: 1"),
]


@pytest.mark.parametrize(("content", "message"), REFUSED)
def test_a_file_that_cannot_be_trusted_leaves_the_lake_as_it_was(tmp_path: Path, content: str, message: str) -> None:
    lake = Lake(tmp_path / "lake")
    store(lake, read(file(tmp_path, [row("Z")])))
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        store(lake, read(path))
    assert lake.count("bars") == 1


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found nothing"):
        read(tmp_path / "nowhere.csv")


def test_one_stamp_in_a_hundred_may_be_unreadable_and_no_more(tmp_path: Path) -> None:
    good = many(198)
    part = read(file(tmp_path, [*good, row(date="soon"), row(date="later")]))
    assert part.quarantine.skipped == {"unreadable stamp": 2}
    with pytest.raises(InputError, match="3 of 201"):
        read(file(tmp_path, [*good, row(date="soon"), row(date="later"), row(date="")]))


@pytest.mark.parametrize("basis", ["raw", "split", "total"])
@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("open", 10.1, 10.2),
        ("volume", 100.0, 101.0),
        ("dividend", 0.5, 0.0),
        ("split", 2.0, 3.0),
        ("adj_close", 9.0, 9.5),
        ("announced_at", "2015-12-10T13:30:05Z", "2015-12-10T13:30:06Z"),
    ],
)
def test_rows_that_disagree_in_any_column_are_refused(
    tmp_path: Path, basis: Basis, name: str, first: Any, second: Any
) -> None:
    path = file(tmp_path, [row("B", **{name: first}), row(**{name: first}), row(**{name: second})])
    with pytest.raises(InputError, match=rf"2 rows of 2015 disagree, such as A on 2015-12-30: {name} ") as refusal:
        read(path, basis)
    for value in (first, second):
        assert str(value).replace("T", " ").removesuffix("Z") in str(refusal.value)


def test_rows_that_agree_in_every_column_are_one(tmp_path: Path) -> None:
    whole = row(dividend=0.5, split=2.0, adj_close=9.5, announced_at="2015-12-10T13:30:05Z")
    part = read(file(tmp_path, [whole, whole]), "raw")
    assert part.quarantine.skipped == {"duplicate row": 1}
    assert (len(part.bars), len(part.actions)) == (1, 2)


def test_an_adjusted_close_gives_the_dividends_of_a_split_adjusted_file(tmp_path: Path) -> None:
    dates = ["2015-12-28", "2015-12-29", "2015-12-30", "2015-12-31"]
    closes, cash = [50.0, 51.0, 52.0, 53.0], 0.75
    factor = 1 - cash / closes[1]  # CRSP: paid on the 30th, off the close before
    adjusted = [closes[0] * factor, closes[1] * factor, closes[2], closes[3]]
    rows = [row(date=d, close=c, adj_close=round(a, 6)) for d, c, a in zip(dates, closes, adjusted, strict=True)]
    actions = read(file(tmp_path, [*rows, row("B", date=dates[0], close=5.0, adj_close=5.0)])).actions
    assert actions[["ticker", "kind"]].to_numpy().tolist() == [["A", "dividend"]]
    assert actions["ex_date"].tolist() == [pd.Timestamp("2015-12-30")]
    assert actions["value"].item() == pytest.approx(cash, abs=1e-4)
    assert actions["available_at"].tolist() == [pd.Timestamp("2015-12-30 14:30")]  # the open of the ex-date


def test_rounding_of_an_adjusted_close_is_no_dividend(tmp_path: Path) -> None:
    closes = np.random.default_rng(1).uniform(20, 40, 150).round(2)
    rows = [{**bar, **row(date=bar["date"], close=close)} for bar, close in zip(many(150), closes, strict=True)]
    rows = [{**bar, "adj_close": round(bar["close"] * 0.8765, 4)} for bar in rows]
    assert read(file(tmp_path, rows)).actions.empty


def test_which_actions_each_basis_leaves_to_be_applied(tmp_path: Path) -> None:
    rows = [row(date="2015-12-29"), row(date="2015-12-30", split=2.0, dividend=0.5), row(date="2015-12-31", split=1.0)]
    path = file(tmp_path, [{**bar, "adj_close": bar["close"]} for bar in rows])
    kinds = {basis: sorted(read(path, basis).actions["kind"]) for basis in ("raw", "split", "total")}
    assert kinds == {"raw": ["dividend", "split"], "split": ["dividend"], "total": []}
    split = read(path, "raw").actions.set_index("kind").loc["split"]
    assert split["value"] == 2.0
    assert split["ex_date"] == pd.Timestamp("2015-12-30")


@pytest.mark.parametrize(
    ("announced", "known_at"),
    [
        ("2015-12-10T13:30:05Z", "2015-12-10 13:30:05"),
        ("2015-12-10 08:30:05", "2015-12-10 13:30:05"),  # the exchange's own zone
        ("2015-12-10", "2015-12-30 14:30:00"),  # a day does not say when
        ("", "2015-12-30 14:30:00"),
        ("2016-01-15T13:30:05Z", "2015-12-30 14:30:00"),  # after the ex-date: a late file's stamp
    ],
)
def test_an_action_is_known_when_announced_else_at_the_open_of_its_ex_date(
    tmp_path: Path, announced: str, known_at: str
) -> None:
    actions = read(file(tmp_path, [row(split=2.0, announced_at=announced)]), "raw").actions
    assert actions["available_at"].astype(str).tolist() == [known_at]


def test_importing_the_same_file_again_adds_nothing(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    part = read(file(tmp_path, [*many(20), row("B", dividend=0.5)]), "raw")
    assert store(lake, part) == Stored(bars=21, actions=1)
    before = lake.frame("bars").sort_values(["ticker", "session"], ignore_index=True)
    assert store(lake, part, LATER) == Stored(bars=0, actions=0)
    pd.testing.assert_frame_equal(lake.frame("bars").sort_values(["ticker", "session"], ignore_index=True), before)


def test_a_restated_bar_is_a_new_version_known_since_it_was_recorded(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    store(lake, read(file(tmp_path, [row(date="2015-12-29"), row(date="2015-12-30", dividend=0.5)]), "raw"))
    restated = file(tmp_path, [row(date="2015-12-29"), row(date="2015-12-30", close=10.5, dividend=0.6)])
    assert store(lake, read(restated, "raw"), LATER) == Stored(bars=1, actions=1)
    for table, value in (("bars", "close"), ("actions", "value")):
        rows = lake.frame(table).query("version == 2")
        assert rows[value].item() in (10.5, 0.6)
        assert rows["available_at"].item() == rows["recorded_at"].item() == pd.Timestamp(LATER, tz="UTC")
    assert lake.count("bars") == 3
    first = lake.frame("bars").query("version == 1")
    assert first["available_at"].max() == pd.Timestamp("2015-12-30 21:00", tz="UTC")


def test_one_ticker_cannot_mix_two_bases(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    store(lake, read(file(tmp_path, [row(date="2015-12-29")]), "split"))
    mixed = read(file(tmp_path, [row(), row("B")]), "raw")
    with pytest.raises(InputError, match=r"--basis raw.*A .split.*Nothing was imported"):
        refuse_other_basis(lake, mixed.bars)
    assert lake.count("bars") == 1
    another = read(file(tmp_path, [row("B")]), "raw")
    refuse_other_basis(lake, another.bars)  # another ticker may have another
    assert store(lake, another).bars == 1
    refuse_other_basis(lake, read(file(tmp_path, [row(close=11.0)]), "split").bars)
    with pytest.raises(InputError, match=r"--basis total.*A, B .split"):
        refuse_other_basis(lake, read(file(tmp_path, [row("C"), row("B"), row("A")]), "total").bars)


def test_an_empty_lake_takes_any_basis(tmp_path: Path) -> None:
    for basis in ("raw", "split", "total"):
        refuse_other_basis(Lake(tmp_path / "lake"), read(file(tmp_path, [row()]), basis).bars)
    assert not (tmp_path / "lake").exists()
