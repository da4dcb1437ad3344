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
from data.news.dates import read_stamps
from data.news.files import Terms, read_headlines, stored_batches
from data.news.store import Stored, store_backfill
from data.spool import open_spool
from pipelines.imports import no_tickers

NOW = np.datetime64("2016-02-01T12:00:00", "us")
RECORDED, LATER = NOW, np.datetime64("2016-03-01T12:00:00", "us")
NO_LAG = np.timedelta64(0, "s")


def item(at: str = "2015-12-30T16:05:07Z", title: str = "A beats", **more: Any) -> dict[str, Any]:
    return {"published_at": at, "title": title, "ticker": "A", **more}


def file(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path = folder / "headlines.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@dataclass(frozen=True)
class Part:
    """What one file came to: its rows in one frame, as they would be stored."""

    rows: pd.DataFrame
    read: int
    quarantine: Quarantine


def read(path: Path, zone: str | None = None, lag: np.timedelta64 = NO_LAG, **mapping: str) -> Part:
    with open_spool(path.parent) as spool:
        part = read_headlines(path, Terms("XNYS", NOW, lag, mapping, zone), spool)
        return Part(pd.concat(stored_batches([part]), ignore_index=True), part.read, part.quarantine)


def store(lake: Lake, part: Part, recorded_at: np.datetime64 = RECORDED) -> Stored:
    return store_backfill(lake, part.rows, recorded_at, no_tickers)


def available(part: Part) -> list[str]:
    return part.rows["available_at"].astype(str).tolist()


def stamps(values: Sequence[str | None], zone: str | None = None) -> list[tuple[str, bool, str]]:
    """(at, day, problem) of each."""
    read = read_stamps(pd.Series(values), zone, NOW)
    return list(zip(map(str, read["at"]), read["day"].tolist(), read["problem"], strict=True))


def days(values: Sequence[str | None] | pd.Series, zone: str | None = None) -> list[tuple[str, str]]:
    """(date, at) of stamps that say no more than a day, and without a problem."""
    read = read_stamps(pd.Series(values), zone, NOW)
    assert read.columns.tolist() == ["at", "date", "day", "problem"]
    assert read["day"].all()
    assert (read["problem"] == "").all()
    return [(f"{date:%Y-%m-%d}", str(at)) for date, at in zip(read["date"], read["at"], strict=True)]


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2015-12-30T16:05:07Z", "2015-12-30 16:05:07"),
        ("2015-12-30 16:05:07 UTC", "2015-12-30 16:05:07"),
        ("2015-12-30T16:05:07GMT", "2015-12-30 16:05:07"),
        ("2015-12-30T16:05-05:00", "2015-12-30 21:05:00"),
        ("2015-12-30T16:05:00+0530", "2015-12-30 10:35:00"),
        ("2015-12-30T23:59:59.123456789-01:00", "2015-12-31 00:59:59.123456"),
        ("2015-12-30T16:05:00 EST", "2015-12-30 21:05:00"),
        ("Wed, 30 Dec 2015 16:05:00 EST", "2015-12-30 21:05:00"),
    ],
)
def test_stamps_with_a_zone(text: str, utc: str) -> None:
    assert stamps([text]) == [(utc, False, "")]
    assert stamps([text], "Asia/Tokyo") == [(utc, False, "")]  # their own zone wins


@pytest.mark.parametrize(
    "text",
    [
        "2015-12-30T16:05:00 IST",
        "2015-12-30T16:05:00Z and more",
        "12/30/2015",
        "20151230",
        "1451491500",
        "2015-13-30",
        "2015-12-30T25:00:00Z",
        "now",
        "",
        None,
    ],
)
def test_anything_else_is_unknown_and_never_guessed(text: str | None) -> None:
    assert stamps([text, "2015-12-30T16:05:07Z"], "UTC")[0] == ("NaT", False, "unreadable stamp")
    assert read_stamps(pd.Series([text, "2015-12-30"]), "UTC", NOW)["date"].isna().tolist() == [True, False]


def test_a_stamp_without_a_zone_is_a_problem_unless_one_is_named() -> None:
    assert stamps(["2015-12-30T16:05:07"]) == [("NaT", False, "stamp without a zone")]
    assert stamps(["2015-12-30T16:05:07"], "America/New_York") == [("2015-12-30 21:05:07", False, "")]
    assert stamps(["2015-07-30T16:05:07"], "America/New_York") == [("2015-07-30 20:05:07", False, "")]


def test_clock_changes_are_read_as_the_later_instant() -> None:
    twice = stamps(["2015-11-01T01:30:00"], "America/New_York")
    assert twice == [("2015-11-01 06:30:00", False, "")]
    never = stamps(["2015-03-08T02:30:00"], "America/New_York")
    assert never == [("2015-03-08 07:30:00", False, "")]


def test_midnight_and_a_date_alone_name_a_day() -> None:
    texts = ["2015-12-30", "2015-12-30T00:00:00Z", "2015-12-30T00:00:00-05:00", "2015-12-30T00:00+09:00"]
    instants = ["NaT", "2015-12-30 00:00:00", "2015-12-30 05:00:00", "2015-12-29 15:00:00"]
    for zone in (None, "America/New_York"):
        assert days(texts, zone) == [("2015-12-30", at) for at in instants]


def test_a_midnight_without_a_zone_of_its_own_is_a_day_and_no_instant() -> None:
    for zone in (None, "America/New_York", "Asia/Tokyo"):
        assert days(["2015-12-30T00:00:00", "2015-12-30 00:00"], zone) == [("2015-12-30", "NaT")] * 2


def test_midnights_of_a_parquet_file_name_days_too() -> None:
    bare = pd.Series([np.datetime64("2015-12-30", "us")])
    assert days(bare) == days(bare, "Asia/Tokyo") == [("2015-12-30", "NaT")]
    assert days(bare.dt.tz_localize("Asia/Tokyo")) == [("2015-12-30", "2015-12-29 15:00:00")]


def test_the_date_of_a_stamp_is_that_of_its_own_zone() -> None:
    late = ["2015-12-30T22:30:00-05:00", "2015-12-30T00:30:00+09:00"]
    assert stamps(late) == [("2015-12-31 03:30:00", False, ""), ("2015-12-29 15:30:00", False, "")]
    assert read_stamps(pd.Series(late), None, NOW)["date"].eq(pd.Timestamp("2015-12-30")).all()


def test_stamps_of_the_future_and_of_long_ago_are_problems() -> None:
    got = stamps(["2016-02-01T12:00:01Z", "1989-12-31T23:00:00Z", "2016-02-01T12:00:00Z"])
    assert [problem for _, _, problem in got] == ["stamp in the future", "stamp before 1990", ""]
    assert got[0][0] == got[1][0] == "NaT"
    days_too = read_stamps(pd.Series(["2016-02-02", "1989-12-31", "2016-02-01"]), None, NOW)
    assert days_too["problem"].tolist() == ["stamp in the future", "stamp before 1990", ""]
    assert days_too["date"].isna().tolist() == [True, True, False]


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(InputError, match="--tz Mars/Base"):
        stamps(["2015-12-30T16:05:07"], "Mars/Base")


def test_a_headline_is_available_when_published_plus_the_lag(tmp_path: Path) -> None:
    path = file(tmp_path, [item()])
    assert available(read(path)) == ["2015-12-30 16:05:07"]
    assert available(read(path, lag=np.timedelta64(90, "s"))) == ["2015-12-30 16:06:37"]


@pytest.mark.parametrize(
    ("day", "close"),
    [
        ("2015-12-29", "2015-12-30 21:00:00"),
        ("2015-12-24", "2015-12-28 21:00:00"),
        ("2015-11-26", "2015-11-27 18:00:00"),
    ],
)
def test_a_day_is_known_at_the_close_of_the_first_session_after_it(tmp_path: Path, day: str, close: str) -> None:
    part = read(file(tmp_path, [item(day)]), lag=np.timedelta64(0, "s"))
    assert available(part) == [close]
    assert part.rows["precision"].tolist() == ["day"]


def test_the_files_own_precision_counts(tmp_path: Path) -> None:
    rows = [item("2015-12-29T15:00:00Z", precision="day"), item("2015-12-29T15:00:01Z", precision="second")]
    assert available(read(file(tmp_path, rows))) == ["2015-12-30 21:00:00", "2015-12-29 15:00:01"]


def test_a_day_by_the_files_own_word_is_that_of_the_stamps_own_zone(tmp_path: Path) -> None:
    part = read(file(tmp_path, [item("2015-12-29T22:30:00-05:00", precision="day")]))  # the 30th in UTC
    assert part.rows["published_at"].tolist() == [pd.Timestamp("2015-12-29")]
    assert available(part) == ["2015-12-30 21:00:00"]


def test_a_precise_midnight_is_never_read_early(tmp_path: Path) -> None:
    part = read(file(tmp_path, [item("2015-12-30T00:00:00-05:00", precision="second")]))
    assert available(part) == ["2015-12-30 05:00:00"]
    assert part.rows["precision"].tolist() == ["second"]


def test_a_midnight_without_a_zone_is_a_day_whatever_the_files_precision_says(tmp_path: Path) -> None:
    part = read(file(tmp_path, [item("2015-12-29T00:00:00", precision="second")]), "America/New_York")
    assert available(part) == ["2015-12-30 21:00:00"]
    assert part.rows["precision"].tolist() == ["day"]


def test_a_midnight_is_a_day_where_the_file_says_nothing_of_precision(tmp_path: Path) -> None:
    rows = [item("2015-12-29T00:00:00-05:00", precision=None), item("2015-12-29T00:00:00Z", "B", precision=None)]
    assert available(read(file(tmp_path, rows))) == ["2015-12-30 21:00:00"] * 2


def test_a_date_alone_is_a_day_whatever_the_files_precision_says(tmp_path: Path) -> None:
    part = read(file(tmp_path, [item("2015-12-29", precision="second")]))
    assert available(part) == ["2015-12-30 21:00:00"]


def test_zone_less_stamps_are_refused_without_a_zone_and_localised_with_one(tmp_path: Path) -> None:
    path = file(tmp_path, [item("2015-12-30 16:05:07")])
    with pytest.raises(InputError, match="--tz ZONE"):
        read(path)
    assert available(read(path, "America/New_York")) == ["2015-12-30 21:05:07"]


def test_columns_by_alias_and_by_mapping(tmp_path: Path) -> None:
    path = tmp_path / "tweets.csv"
    path.write_text("Created_At,Text,Stock,Words\n2015-12-30T16:05:07Z, a   b ,brk.b,x\n")
    rows = read(path, title="Words").rows
    assert rows[["title", "ticker"]].to_numpy().tolist() == [["x", "BRK.B"]]
    assert read(path).rows["title"].tolist() == ["a b"]


def test_parquet_stamps_are_read(tmp_path: Path) -> None:
    frame = pd.DataFrame([item()])
    frame["published_at"] = pd.to_datetime(frame["published_at"]).dt.tz_convert("Asia/Tokyo")
    frame.to_parquet(tmp_path / "zoned.parquet")
    assert available(read(tmp_path / "zoned.parquet")) == ["2015-12-30 16:05:07"]
    frame["published_at"] = frame["published_at"].dt.tz_localize(None)
    frame.to_parquet(tmp_path / "bare.parquet")
    assert available(read(tmp_path / "bare.parquet", "Asia/Tokyo")) == ["2015-12-30 16:05:07"]
    with pytest.raises(InputError, match="--tz ZONE"):
        read(tmp_path / "bare.parquet")


def test_an_item_of_several_tickers_is_one_headline_with_several_links(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    rows = [item(ticker=ticker) for ticker in ("A", "B", "b")] + [item(title="Market up", ticker="")]
    part = read(file(tmp_path, rows))
    assert part.read == 4
    assert part.quarantine.skipped == {"duplicate row": 1}
    assert store(lake, part) == Stored(headlines=2, links=2)
    assert sorted(lake.current("links")["ticker"]) == ["A", "B"]
    assert len(set(lake.current("links")["id"])) == 1


def test_ids_of_one_source_are_another_sources_other_items(tmp_path: Path) -> None:
    rows = [item(title=source, source=source, id="1") for source in ("x", "y")]
    assert read(file(tmp_path, rows)).rows["id"].nunique() == 2
    same = [item(title="t", source="x", url=url) for url in ("http://a", "http://b")]
    assert read(file(tmp_path, same)).rows["id"].nunique() == 2


def test_importing_the_same_file_again_adds_nothing(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    part = read(file(tmp_path, [item(), item("2015-12-29", "B misses", ticker="B"), item(title="C", ticker="")]))
    assert store(lake, part) == Stored(headlines=3, links=2)
    before = lake.current("headlines")
    assert store(lake, part, LATER) == Stored(headlines=0, links=0)
    pd.testing.assert_frame_equal(lake.current("headlines"), before)


def test_an_edited_headline_is_a_new_version_known_since_it_was_recorded(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    store(lake, read(file(tmp_path, [item(id="1"), item(id="2", title="B")])))
    edited = read(file(tmp_path, [item(id="1", title="A misses"), item(id="2", title="B")]))
    assert store(lake, edited, LATER) == Stored(headlines=1, links=0)
    assert lake.count("headlines") == 3
    second = lake.frame("headlines").query("version == 2").iloc[0]
    assert second["title"] == "A misses"
    assert second["available_at"] == second["recorded_at"] == pd.Timestamp(LATER, tz="UTC")
    assert second["published_at"] == pd.Timestamp("2015-12-30 16:05:07", tz="UTC")
    first = lake.current("headlines", recorded_by=RECORDED)
    assert sorted(first["title"]) == ["A beats", "B"]
    assert (first["available_at"] == first["published_at"]).all()


def test_stored_headlines_keep_what_the_file_said(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    store(lake, read(file(tmp_path, [item("2015-12-29", source="wire", url="http://x")])))
    row = lake.current("headlines").iloc[0]
    assert row[["published_raw", "precision", "source", "url", "origin"]].tolist() == [
        "2015-12-29", "day", "wire", "http://x", "backfill",
    ]  # fmt: skip
    assert pd.isna(row["first_seen_at"])


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"title": "  "}, "empty title"),
        ({"ticker": "<b>"}, "odd ticker"),
        ({"published_at": "yesterday"}, "unreadable stamp"),
        ({"published_at": "2015-12-30T16:05:07"}, "stamp without a zone"),
        ({"published_at": "2017-01-01T00:00:01Z"}, "stamp in the future"),
        ({"published_at": "1980-01-01T00:00:01Z"}, "stamp before 1990"),
        ({}, "duplicate row"),
    ],
)
def test_a_bad_row_is_quarantined_and_counted(tmp_path: Path, bad: dict[str, Any], reason: str) -> None:
    good = [item(title=f"headline {number}") for number in range(120)]
    part = read(file(tmp_path, [*good, {**good[0], **bad}]))
    assert part.quarantine.skipped == {reason: 1}
    assert (part.read, len(part.rows)) == (121, 120)


def test_more_than_one_unreadable_stamp_in_a_hundred_is_refused(tmp_path: Path) -> None:
    good = [item(title=f"headline {number}") for number in range(98)]
    with pytest.raises(InputError, match=r"2 of 100 .2%.*'soon'"):
        read(file(tmp_path, [*good, item("soon"), item("2015-12-30T16:05:07")]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("<!doctype html><title>404</title>", "HTML"),
        ("\x00\x01\x02", "expected"),
        ("published_at,title\n", "only a header"),
        ("published_at,ticker\n2015-12-30T16:05:07Z,A\n", "column title"),
        ("published_at,title\n2015-12-30T16:05:07Z,\n", "found none .empty title: 1"),
        (
            "id,published_at,title\n1,2015-12-30T16:05:07Z,up\n1,2015-12-30T16:05:07Z,down\n",
            "rows of one item to agree",
        ),
        ("id,published_at,title\n1,2015-12-30T16:05:07Z,up\n1,2015-12-30T16:05:08Z,up\n", "rows of one item to agree"),
    ],
)
def test_a_file_that_cannot_be_trusted_leaves_the_lake_as_it_was(tmp_path: Path, content: str, message: str) -> None:
    lake = Lake(tmp_path / "lake")
    store(lake, read(file(tmp_path, [item()])))
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        store(lake, read(path))
    assert (lake.count("headlines"), lake.count("links")) == (1, 1)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found nothing"):
        read(tmp_path / "nowhere.csv")
