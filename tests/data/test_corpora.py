import gc
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data.errors import ConfigError, InputError
from data.lake import Lake
from data.news.corpora import DISAGREES, Corpus, Source, parse_source
from data.news.files import Terms
from data.news.presets import lay_out
from data.news.store import store_backfill
from pipelines.imports import ImportedHeadlines, import_headlines, no_tickers

NOW = np.datetime64("2026-02-01T12:00:00", "us")
LATER = np.datetime64("2026-03-01T12:00:00", "us")
# `datasets` 5.2 never closes a CSV file that it streams.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"),
]

TWEETS = Path(__file__).parents[3] / "shared" / "market" / "stocknet_tweets.parquet"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of `datasets` lands in the home of whoever runs the tests."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(autouse=True, scope="module")
def open_files() -> Iterator[None]:
    """What `datasets` left open goes while its warning is still expected."""
    yield
    gc.collect()


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.tabular.BATCH_ROWS", 20)
    monkeypatch.setattr("data.news.files.BATCH_ROWS", 20)
    monkeypatch.setattr("data.news.corpora._READ_ROWS", 10)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def load(lake: Lake, *sources: Path | str, **options: Any) -> ImportedHeadlines:
    mapping = options.pop("mapping", {})
    return import_headlines(lake, sources, mapping, "XNYS", **{"now": NOW, **options})


def items(count: int) -> list[dict[str, Any]]:
    """Headlines whose stamps have an offset, each other one under two tickers."""
    return [
        {
            "published_at": f"2015-12-{1 + number % 28:02d}T16:05:{number % 60:02d}-05:00",
            "title": f"Item {number}",
            "ticker": ticker,
            "url": f"https://news.example/{number}",
        }
        for number in range(count)
        for ticker in ("AAA", "NA")[: 1 + number % 2]
    ]


def singles(count: int) -> list[dict[str, Any]]:
    """Headlines under one ticker, with ids of their own."""
    return [{**row, "id": row["url"][-4:]} for row in items(count) if row["ticker"] == "AAA"]


def json_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def csv(path: Path, rows: Sequence[Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def parquet(path: Path, rows: Sequence[Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_parquet(path, index=False)
    return path


WRITERS: dict[str, Callable[[Path, Sequence[Any]], Path]] = {
    "news.csv": csv,
    "news.jsonl": json_lines,
    "news.jsonl.gz": json_lines,
    "news.parquet": parquet,
}


def contents(lake: Lake) -> list[pd.DataFrame]:
    """What is stored, apart from when."""
    return [lake.current(table).drop(columns="recorded_at") for table in ("headlines", "links")]


def same(one: Lake, other: Lake) -> None:
    for ours, theirs in zip(contents(one), contents(other), strict=True):
        pd.testing.assert_frame_equal(ours, theirs)


# Shapes


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("streamed", [False, True], ids=["file", "stream"])
@pytest.mark.usefixtures("small_batches")
def test_every_format_and_way_gives_one_lake(tmp_path: Path, lake: Lake, name: str, streamed: bool) -> None:
    rows = items(20)
    path = WRITERS[name](tmp_path / "corpus" / name, rows)
    result = load(lake, f"hf:{path.parent}" if streamed else path)
    assert (result.read, result.added, result.links_added, result.skipped) == (30, 20, 30, {})
    stored = lake.current("headlines").set_index("title")
    assert str(stored.loc["Item 3", "available_at"]) == "2015-12-04 21:05:03+00:00"
    assert set(lake.current("links")["ticker"]) == {"AAA", "NA"}  # NA is a ticker, and no missing value
    plain = Lake(tmp_path / "plain")
    load(plain, csv(tmp_path / "plain.csv", rows))
    same(lake, plain)
    again = load(lake, f"hf:{path.parent}" if streamed else path, now=LATER)
    assert (again.read, again.added, again.links_added) == (30, 0, 0)
    assert not list((lake.folder / "_imports").glob("*"))


FNSPID = {
    "Unnamed: 0": 0, "Date": "2020-06-05 06:30:54 UTC", "Article_title": "A title", "Stock_symbol": "a",
    "Url": "https://x.example/1", "Publisher": "P", "Author": None, "Article": 'Body,\n"quoted"',
    "Lsa_summary": "l", "Luhn_summary": "l", "Textrank_summary": "t", "Lexrank_summary": "x",
}  # fmt: skip
BENZINGA = {"": 0, "headline": "A title", "url": "https://x.example/1", "publisher": "P", "stock": "A"}
GDELT = {
    "url": "https://x.example/1",
    "url_mobile": "",
    "title": "A title",
    "seendate": "20240115T123000Z",
} | dict.fromkeys(("socialimage", "domain", "language", "sourcecountry"), "P")
TWEET = {
    "ticker": "A",
    "id": 418157151946035200,
    "text": "A title",
    "file_date": "2014-01-01",
    "lang": "en",
    "is_retweet": False,
}
SHAPES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "fnspid": ("fnspid", FNSPID, "2020-06-05 06:30:54", "second"),
    "fnspid, a day": ("fnspid", {**FNSPID, "Date": "2020-06-05 00:00:00 UTC"}, "2020-06-08 20:00:00", "day"),
    "benzinga": ("benzinga", {**BENZINGA, "date": "2020-06-05 10:30:54-04:00"}, "2020-06-05 14:30:54", "second"),
    "benzinga, a day": ("benzinga", {**BENZINGA, "date": "2020-06-05 00:00:00"}, "2020-06-08 20:00:00", "day"),
    "benzinga, processed": (
        "benzinga",
        {"Unnamed: 0": 0.0, "title": "A title", "date": "2020-06-05 10:30:00-04:00", "stock": "A"},
        "2020-06-05 14:30:00",
        "second",
    ),
    "stocknet": ("stocknet", {**TWEET, "created_at": "2013-12-31 23:10:08+00:00"}, "2013-12-31 23:10:08", "second"),
    "gdelt articles": ("gdelt", GDELT, "2024-01-15 12:30:00", "second"),
    "gdelt list": (
        "gdelt",
        {"URL": "https://x.example/1", "MobileURL": "", "Date": "20240115123000", "Title": "A title"},
        "2024-01-15 12:30:00",
        "second",
    ),
    "gdelt list, separators": (
        "gdelt",
        {"URL": "https://x.example/1", "MobileURL": "", "Date": "2024-01-15 12:30:00", "Title": "A title"},
        "2024-01-15 12:30:00",
        "second",
    ),
}


@pytest.mark.parametrize(("name", "streamed"), [*((name, False) for name in SHAPES), ("fnspid", True)])
def test_a_known_corpus_needs_no_map(tmp_path: Path, lake: Lake, name: str, streamed: bool) -> None:
    preset, row, available, precision = SHAPES[name]
    path = csv(tmp_path / "corpus" / "raw.csv", [row])
    source = f"hf:{path.parent}" if streamed else str(path)
    result = load(lake, source)
    assert result.as_dict()["presets"] == {source: preset}
    assert result.notes() == [f"{source}: read as {preset}."]
    stored = lake.current("headlines").iloc[0]
    assert (stored["title"], stored["precision"]) == ("A title", precision)
    assert str(stored["available_at"]) == f"{available}+00:00"
    assert lake.current("links")["ticker"].tolist() == ([] if preset == "gdelt" else ["A"])


def test_mixed_benzinga_stamps_are_instants_and_days(tmp_path: Path, lake: Lake) -> None:
    dates = ["2020-06-05 10:30:54-04:00", "2020-05-22 00:00:00", "2020-01-07 09:00:00-05:00"]
    rows = [{**BENZINGA, "headline": date, "date": date} for date in dates]
    assert load(lake, csv(tmp_path / "raw_analyst_ratings.csv", rows)).added == 3
    stored = lake.current("headlines").set_index("title")
    assert stored["precision"].reindex(dates).tolist() == ["second", "day", "second"]
    assert str(stored.loc[dates[1], "available_at"]) == "2020-05-26 20:00:00+00:00"  # over Memorial Day


def test_twitters_objects_take_the_ticker_from_their_folder(tmp_path: Path, lake: Lake) -> None:
    tweet = {
        "created_at": "Wed Jan 01 03:59:03 +0000 2014",
        "text": "$AAPL up",
        "id": 1,
        "id_str": "1",
        "user": {"a": 1},
    }
    json_lines(tmp_path / "AAPL" / "2014-01-01", [tweet])
    result = load(lake, tmp_path / "AAPL" / "2014-01-01", preset="stocknet")
    assert (result.added, result.links_added) == (1, 1)
    assert str(lake.current("headlines")["published_at"][0]) == "2014-01-01 03:59:03+00:00"
    assert lake.current("links")["ticker"].tolist() == ["AAPL"]


@pytest.mark.skipif(not TWEETS.is_file(), reason="../shared/market, optional test data, is not there")
def test_the_columns_of_real_tweets_are_known() -> None:
    import pyarrow.parquet

    assert lay_out(pyarrow.parquet.read_schema(TWEETS).names, {}, None, "tweets").preset == "stocknet"


def test_a_map_wins_over_a_preset() -> None:
    names = list(FNSPID)
    layout = lay_out(names, {"summary": "Lsa_summary", "title": "Author"}, None, "x.csv")
    assert layout.preset == "fnspid"
    assert {"summary": "Lsa_summary", "title": "Author", "ticker": "Stock_symbol"}.items() <= layout.columns.items()
    swapped = lay_out(names, {"summary": "Article_title", "title": "Author"}, None, "x.csv")
    assert list(swapped.columns.values()).count("Article_title") == 1


def test_one_column_more_or_less_is_no_known_corpus_unless_named() -> None:
    names = ["headline", "url", "publisher", "date", "stock", "mood"]
    assert lay_out(names, {}, None, "x.csv").preset is None
    assert lay_out(names, {}, "benzinga", "x.csv").columns["source"] == "publisher"


def test_an_unknown_or_unfitting_preset_is_refused() -> None:
    with pytest.raises(ConfigError, match="--preset reddit: expected one of fnspid, benzinga, stocknet, gdelt"):
        lay_out(["date", "title"], {}, "reddit", "x.csv")
    with pytest.raises(ConfigError, match="Article_title; found date, title"):
        lay_out(["date", "title"], {}, "fnspid", "x.csv")


def test_a_gdelt_stamp_is_rewritten_only_where_it_is_one(tmp_path: Path, lake: Lake) -> None:
    good = [{**GDELT, "title": f"Item {number}"} for number in range(150)]
    odd = {**GDELT, "title": "odd", "seendate": "2024011512300"}
    assert load(lake, json_lines(tmp_path / "a.jsonl", [*good, odd])).skipped == {"unreadable stamp": 1}


# Untrusted input


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"[1, 2]", "expected a JSON object"),
        (b'"text"', "expected a JSON object"),
        (b"{'title': 1}", "expected a JSON object"),
        (b'{"title": "cut', "expected a JSON object"),
        (b'{"title": "\x00"}', "expected a JSON object"),
        (b'{"title": "\xe4"}', "(?i)utf-8"),
        ('{"title": "x"}'.encode("utf-16"), "(?i)utf-8"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "expected a JSON object"),
        (b'{"number": ' + b"9" * 5000 + b"}", "expected a JSON object"),
        (b'{"title": "' + b"x" * (17 << 20) + b'"}', "more than 16 MiB"),
    ],
    ids=["array", "string", "no json", "cut", "nul", "latin-1", "utf-16", "deep", "long number", "long line"],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["file", "stream"])
def test_a_line_that_is_no_object_refuses_the_file(
    tmp_path: Path, lake: Lake, line: bytes, said: str, streamed: bool
) -> None:
    path = json_lines(tmp_path / "corpus" / "a.jsonl", items(3))
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(InputError, match=said) as refusal:
        load(lake, f"hf:{path.parent}" if streamed else path)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 1000
    assert not lake.folder.exists()


@pytest.mark.parametrize("name", ["title", "ticker", "url", "summary"])
def test_a_list_or_object_in_place_of_a_value_is_quarantined(tmp_path: Path, lake: Lake, name: str) -> None:
    rows = [*items(3), *({**items(1)[0], name: value} for value in ([], {"a": 1}, ["AAA"]))]
    result = load(lake, json_lines(tmp_path / "a.jsonl", rows))
    assert result.skipped == {"list or object in place of a value": 3}
    assert lake.count("headlines") == 3


@pytest.mark.parametrize("value", [["AAA"], {"a": "AAA"}, b"\xff\xfe"], ids=["list", "object", "bytes"])
def test_parquet_cells_that_are_no_text_are_quarantined(tmp_path: Path, lake: Lake, value: Any) -> None:
    rows = [{**row, "ticker": value if number == 1 else None} for number, row in enumerate(singles(3))]
    result = load(lake, parquet(tmp_path / "a.parquet", rows))
    assert (result.added, result.skipped) == (2, {"list or object in place of a value": 1})


def test_cells_of_other_kinds_are_read_as_they_are_written(tmp_path: Path, lake: Lake) -> None:
    row = items(1)[0]
    odd = [
        {**row, "id": 418157151946035200, "title": 7},
        {**row, "title": "a\u0000b\u202e\ufeff c \u2028\t d\ud800"},
        {**row, "title": "x" * 3000, "summary": " "},
        {**row, "title": "<b>kept</b>", "summary": "s\u0007um"},
    ]
    assert load(lake, json_lines(tmp_path / "a.jsonl", odd)).added == 4
    stored = lake.current("headlines")
    assert sorted(stored["title"]) == sorted(["7", "ab c d?", "x" * 1000, "<b>kept</b>"])
    assert sorted(stored["summary"].dropna()) == ["sum"]


def test_json_columns_may_come_late(tmp_path: Path, lake: Lake, small_batches: None) -> None:
    early = [{name: row[name] for name in ("published_at", "title")} for row in singles(25)]
    path = json_lines(tmp_path / "corpus" / "a.jsonl", [*early, *items(20)])
    for name, source in (("file", path), ("stream", f"hf:{path.parent}")):
        other = Lake(tmp_path / name)
        load(other, source)
        assert other.count("links") == 30


def test_a_column_that_comes_late_does_not_change_what_a_corpus_was_known_as(
    tmp_path: Path, lake: Lake, small_batches: None
) -> None:
    rows = [{**GDELT, "title": f"Item {number}"} for number in range(30)]
    path = json_lines(tmp_path / "corpus" / "a.jsonl", [*rows, {**rows[0], "title": "Item 30", "mood": "good"}])
    for name, source in (("file", path), ("stream", f"hf:{path.parent}")):
        result = load(Lake(tmp_path / name), source)
        assert (result.added, result.presets, result.skipped) == (31, {str(source): "gdelt"}, {})


def test_a_late_line_of_a_stream_that_is_no_object_is_quarantined(
    tmp_path: Path, lake: Lake, small_batches: None
) -> None:
    path = json_lines(tmp_path / "corpus" / "a.jsonl", [*singles(30), ["no object"], *singles(32)[30:]])
    assert load(lake, f"hf:{path.parent}").skipped == {"unreadable stamp": 1}
    assert lake.count("headlines") == 32
    blank = json_lines(tmp_path / "blank" / "a.jsonl", [])
    blank.write_text("\n\n")
    with pytest.raises(InputError, match="found none"):
        load(lake, f"hf:{blank.parent}")


def test_more_names_than_a_table_has_are_refused(tmp_path: Path, lake: Lake) -> None:
    rows = [{**items(1)[0], f"key {number}": 1} for number in range(1100)]
    with pytest.raises(InputError, match="1000 different names"):
        load(lake, json_lines(tmp_path / "a.jsonl", rows))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(b""), "empty"),
        (gzip.compress(b"<html>"), "HTML"),
        (gzip.compress(b"date,title\n" + b"2015-12-30,x\n" * 9999)[:-9], "readable"),
        (b"\x1f\x8b and no more", "readable"),
        (b"[{}]", "one JSON array"),
        ("date,title\n".encode("utf-16"), "UTF-16"),
    ],
    ids=["empty", "html", "cut", "no gzip", "array", "utf-16"],
)
def test_a_file_that_cannot_be_trusted_is_refused(tmp_path: Path, lake: Lake, content: bytes, said: str) -> None:
    path = tmp_path / "corpus.data"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as refusal:
        load(lake, path)
    assert "\n" not in str(refusal.value)
    assert not lake.folder.exists()


def test_a_row_longer_than_two_blocks_is_refused(tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.tabular.LONGEST_ROW", 1 << 12)
    path = tmp_path / "a.csv"
    path.write_text("date,title\n" + "2015-12-30,x\n" * 1000 + f'2015-12-30,"{"x" * (1 << 14)}"\n')
    with pytest.raises(InputError, match="readable CSV"):
        load(lake, path)


def test_quoted_newlines_nul_and_long_fields_of_csv_are_read(tmp_path: Path, lake: Lake) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'date,title,url\n2015-12-30,"two\nlines, \x00""said""",{"u" * 100_000}\n')
    assert load(lake, path).added == 1
    assert lake.current("headlines")["title"].tolist() == ['two lines, "said"']


# Files are checked whole


@pytest.mark.usefixtures("small_batches")
def test_files_are_checked_whole_whatever_their_batches(tmp_path: Path, lake: Lake) -> None:
    rows = singles(100)
    bad = [{**row, "published_at": "soon"} for row in rows[:2]]
    with pytest.raises(InputError, match=r"2 of 102 .2%.*row 101 holds 'soon'"):
        load(lake, csv(tmp_path / "a.csv", [*rows, *bad]))
    assert not lake.folder.exists()
    assert load(lake, csv(tmp_path / "b.csv", [*rows, *bad[:1]])).skipped == {"unreadable stamp": 1}


@pytest.mark.usefixtures("small_batches")
def test_disagreement_between_far_rows_and_between_files_is_refused(tmp_path: Path, lake: Lake) -> None:
    rows = singles(40)
    other = {**rows[0], "title": "Another"}
    with pytest.raises(InputError, match=r"one.csv: expected rows of one item to agree; 1 items.*'Item 0'.*'Another'"):
        load(lake, csv(tmp_path / "one.csv", [*rows, other]))
    first, second = csv(tmp_path / "first.csv", rows), csv(tmp_path / "second.csv", [other])
    with pytest.raises(InputError, match=r"first.csv, .*second.csv: expected.*one after the other"):
        load(lake, first, second)
    assert not lake.folder.exists()
    assert load(lake, first).added == 40
    assert load(lake, second, now=LATER).added == 1  # an edit, known since then
    assert lake.frame("headlines")["version"].max() == 2


@pytest.mark.usefixtures("small_batches")
def test_repeats_are_counted_across_batches(tmp_path: Path, lake: Lake) -> None:
    rows = items(40)
    result = load(lake, csv(tmp_path / "a.csv", [*rows, *rows[:5]]))
    assert (result.read, result.added, result.skipped) == (65, 40, {"duplicate row": 5})


@pytest.mark.usefixtures("small_batches")
def test_many_small_files_make_few_commits(tmp_path: Path, lake: Lake) -> None:
    files = [csv(tmp_path / f"{number}.csv", [row]) for number, row in enumerate(singles(20))]
    assert load(lake, *files).added == 20
    assert len(list((lake.folder / "headlines" / "_delta_log").glob("*.json"))) <= 3


def test_no_file_is_left_behind_and_none_is_made_by_a_refusal(tmp_path: Path, lake: Lake) -> None:
    good, bad = csv(tmp_path / "a.csv", items(3)), csv(tmp_path / "b.csv", [{"date": "soon", "title": "x"}])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError):
        load(lake, good, bad)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_refused_stream_keeps_the_files_of_the_same_command_out(tmp_path: Path, lake: Lake) -> None:
    csv(tmp_path / "corpus" / "b.csv", [{"date": "soon", "title": "x"}])
    with pytest.raises(InputError, match=r"hf:.*'soon'"):
        load(lake, csv(tmp_path / "a.csv", items(3)), f"hf:{tmp_path / 'corpus'}")
    assert not lake.folder.exists()


# Streams


def test_sources() -> None:
    assert parse_source("hf:OWNER/NAME") == Source("OWNER/NAME")
    assert parse_source("hf:o/n:c@r#s") == Source("o/n", None, "c", "r", "s")
    assert parse_source("hf:o/n/Stock_news/*.csv@refs/convert#train") == Source(
        "o/n", "Stock_news/*.csv", None, "refs/convert", "train"
    )


def test_a_folder_may_be_called_anything(tmp_path: Path) -> None:
    odd = tmp_path / "a:b@c#d"
    odd.mkdir()
    assert parse_source(f"hf:{odd}") == Source(str(odd))
    assert parse_source(f"hf:{tmp_path}#test") == Source(str(tmp_path), split="test")


@pytest.mark.parametrize("text", ["hf:", "hf:name", "hf:/nowhere/at/all", "hf:../x", "hf:a//b", "hf:#train", "hf:~/x"])
def test_what_is_no_dataset_is_refused(lake: Lake, text: str) -> None:
    with pytest.raises(InputError, match=f"^{text}: expected"):
        load(lake, text)


def test_a_split_is_chosen_where_there_are_several(tmp_path: Path, lake: Lake) -> None:
    csv(tmp_path / "corpus" / "test.csv", items(2))
    csv(tmp_path / "corpus" / "validation.csv", items(4)[3:])
    folder = f"hf:{tmp_path / 'corpus'}"
    with pytest.raises(InputError, match=r"expected #SPLIT.*(validation.*test|test.*validation)"):
        load(lake, folder)
    assert load(lake, f"{folder}#test").added == 2
    with pytest.raises(InputError, match="expected #SPLIT"):
        load(lake, f"{folder}#dev")


@pytest.mark.parametrize("named", ["{outside}", "../outside/a.csv", "https://127.0.0.1:9/a.csv"])
def test_a_repository_that_points_elsewhere_is_refused(tmp_path: Path, lake: Lake, named: str) -> None:
    outside = csv(tmp_path / "outside" / "a.csv", items(2))
    home = tmp_path / "corpus"
    csv(home / "a.csv", items(1))
    named = named.format(outside=outside)
    (home / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files: '{named}'\n---\n")
    with pytest.raises(InputError):
        load(lake, f"hf:{home}")
    assert not lake.folder.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pkl", b"cos\nsystem\n."),
        ("a.txt", b"a line\n"),
        ("corpus.py", b"import os\n"),
        ("a.csv", b""),
        ("a.csv", b"a\n"),
    ],
)
def test_other_files_and_code_are_refused(tmp_path: Path, lake: Lake, name: str, content: bytes) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / name).write_bytes(content)
    with pytest.raises(InputError, match=r"^hf:"):
        load(lake, f"hf:{tmp_path / 'corpus'}")
    assert not lake.folder.exists()


@pytest.mark.usefixtures("small_batches")
def test_a_stream_is_refused_by_its_first_batch_and_quarantined_after(tmp_path: Path, lake: Lake) -> None:
    rows = singles(40)
    bad = [{**row, "published_at": "soon"} for row in rows[:2]]
    csv(tmp_path / "first" / "a.csv", [*bad, *rows])
    with pytest.raises(InputError, match="2 of 20"):
        load(lake, f"hf:{tmp_path / 'first'}")
    assert not lake.folder.exists()
    csv(tmp_path / "late" / "a.csv", [*rows, *bad])
    result = load(lake, f"hf:{tmp_path / 'late'}")
    assert (result.added, result.skipped) == (40, {"unreadable stamp": 2})


@pytest.mark.usefixtures("small_batches")
def test_a_contradiction_in_a_stream_is_quarantined_near_and_far(tmp_path: Path, lake: Lake) -> None:
    rows = singles(50)
    near, far = {**rows[0], "title": "Near"}, {**rows[1], "published_at": "2015-01-01T12:00:00Z"}
    json_lines(tmp_path / "corpus" / "a.jsonl", [rows[0], near, *rows[1:], far])
    result = load(lake, f"hf:{tmp_path / 'corpus'}")
    assert (result.added, result.skipped) == (50, {DISAGREES: 2})
    assert lake.frame("headlines")["version"].max() == 1
    json_lines(tmp_path / "corpus" / "a.jsonl", [near])
    assert load(lake, f"hf:{tmp_path / 'corpus'}", now=LATER).added == 1  # another import: an edit


class KilledError(BaseException):
    pass


def killed_at(stop: int, after: bool) -> Callable[..., Any]:
    """`store_backfill` that ends the process at a call, before or after its commit."""
    calls = iter(range(1_000))

    def store(*args: Any) -> Any:
        call = next(calls)
        if call == stop and not after:
            raise KilledError
        stored = store_backfill(*args)
        if call == stop:
            raise KilledError
        return stored

    return store


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize(
    ("name", "after"), [("news.csv", False), ("news.csv", True), ("news.jsonl", True), ("news.parquet", True)]
)
def test_a_killed_stream_goes_on_where_it_was(
    tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch, name: str, after: bool
) -> None:
    rows = items(50)
    for part in range(3):
        WRITERS[name](tmp_path / "corpus" / f"{part}{Path(name).suffix}", rows[part * 25 : part * 25 + 25])
    source = f"hf:{tmp_path / 'corpus'}"
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.imports.store_backfill", killed_at(2, after))
        with pytest.raises(KilledError):
            load(lake, source)
    assert len(list((lake.folder / "_imports").iterdir())) == 1
    result = load(lake, source, now=LATER)
    assert result.resumed == {source: 40}
    assert result.notes()[-1] == f"{source}: went on after row 40."
    assert result.read == 35
    undisturbed = Lake(tmp_path / "undisturbed")
    load(undisturbed, source)
    same(lake, undisturbed)
    assert not list((lake.folder / "_imports").iterdir())


@pytest.mark.usefixtures("small_batches")
def test_a_killed_import_of_files_is_completed_by_its_re_run(
    tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = csv(tmp_path / "a.csv", singles(60))
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.imports.store_backfill", killed_at(1, after=True))
        with pytest.raises(KilledError):
            load(lake, path)
    assert lake.count("headlines") == 40
    assert load(lake, path, now=LATER).added == 20
    undisturbed = Lake(tmp_path / "undisturbed")
    load(undisturbed, path)
    same(lake, undisturbed)


@pytest.mark.usefixtures("small_batches")
def test_other_files_or_terms_start_anew(tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    path = csv(tmp_path / "corpus" / "a.csv", singles(60))
    source = f"hf:{path.parent}"
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.imports.store_backfill", killed_at(2, after=False))
        with pytest.raises(KilledError):
            load(lake, source)
    assert load(lake, source, lag="5min").resumed == {}
    os.utime(path, (1, 1))
    result = load(lake, source)
    assert (result.read, result.resumed) == (60, {})


def test_a_broken_mark_starts_anew(tmp_path: Path, lake: Lake) -> None:
    csv(tmp_path / "corpus" / "a.csv", items(10))
    source = f"hf:{tmp_path / 'corpus'}"
    corpus = Corpus(source, Terms("XNYS", NOW, np.timedelta64(0, "us"), {}))
    mark = lake.folder / "_imports" / f"{corpus.fingerprint}.json"
    mark.parent.mkdir(parents=True)
    for content in ("", "[]", '{"since": "x"}', '{"since": "2026-01-01", "position": 1, "read": 2}'):
        mark.write_text(content)
        assert load(lake, source).read == 15


IMPORTER = """
import sys
import data.news.corpora, data.news.files, data.tabular
data.tabular.BATCH_ROWS = data.news.files.BATCH_ROWS = 20
data.news.corpora._READ_ROWS = 20
from data.lake import Lake
from pipelines.imports import import_headlines
import_headlines(Lake(sys.argv[1]), [sys.argv[2]], {}, "XNYS")
"""


def committed(lake: Lake) -> Iterator[int]:
    while True:
        yield len(list((lake.folder / "headlines" / "_delta_log").glob("*.json")))
        time.sleep(0.02)


def test_a_stream_killed_by_the_system_is_completed(
    tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    csv(tmp_path / "corpus" / "a.csv", singles(200))
    source = f"hf:{tmp_path / 'corpus'}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "home")}
    with subprocess.Popen([sys.executable, "-c", IMPORTER, str(lake.folder), source], env=environment) as child:
        next(count for count in committed(lake) if count > 2 or child.poll() is not None)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert 0 < lake.count("headlines") < 200
    with monkeypatch.context() as patch:
        for constant in ("data.tabular.BATCH_ROWS", "data.news.files.BATCH_ROWS", "data.news.corpora._READ_ROWS"):
            patch.setattr(constant, 20)
        assert load(lake, source).resumed[source] > 0
    undisturbed = Lake(tmp_path / "undisturbed")
    load(undisturbed, source)
    same(lake, undisturbed)


def test_the_command_takes_files_datasets_and_presets(tmp_path: Path, tapewire: Callable[..., Any]) -> None:
    assert tapewire(tmp_path, "init", "fund").code == 0
    fund = tmp_path / "fund"
    csv(tmp_path / "corpus" / "raw.csv", [FNSPID])
    tweets = json_lines(fund / "tweets.jsonl", [{**TWEET, "created_at": "2013-12-31T23:10:08Z"}])
    source = f"hf:{tmp_path / 'corpus'}"
    ran = tapewire(fund, "import", "headlines", "tweets.jsonl", source, "--json")
    assert ran.json == {
        "read": 2, "added": 2, "links_added": 2, "actions_added": 0, "skipped": {},
        "presets": {"tweets.jsonl": "stocknet", source: "fnspid"}, "resumed": {},
    }  # fmt: skip
    again = tapewire(fund, "import", "headlines", tweets, "--preset", "stocknet")
    assert again.out.splitlines() == [f"{tweets}: read as stocknet.", "1 rows read, 0 new; 0 new links to tickers."]
    for odd in (["--preset", "reddit", tweets], ["hf:nowhere"], [source, "--preset", "gdelt"]):
        refused = tapewire(fund, "import", "headlines", *odd)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)


def test_current_among_is_current_of_those_keys(tmp_path: Path, lake: Lake) -> None:
    assert lake.current_among("headlines", pd.Series(["x"]), ["title"]).empty
    rows = singles(9)
    load(lake, csv(tmp_path / "a.csv", rows))
    load(lake, csv(tmp_path / "b.csv", [{**row, "title": "Edited"} for row in rows[:3]]), now=LATER)
    whole = lake.current("headlines")
    some = whole["id"][::2]
    got = lake.current_among("headlines", pd.concat([some, some, pd.Series(["x"])]), ["title"])
    wanted = whole[whole["id"].isin(some)][["id", "version", "title"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(got, wanted)
    assert lake.current_among("links", some, []).columns.tolist() == ["id", "ticker"]


MERGER = """
import sys
import pandas as pd
from data.lake import Lake
frame = pd.read_parquet(sys.argv[2])
lake = Lake(sys.argv[1])
print(sum(lake.merge("links", frame[start : start + 10]) for start in range(0, len(frame), 10)))
"""


def test_processes_that_store_the_same_rows_at_once_store_them_once(tmp_path: Path, lake: Lake) -> None:
    load(lake, csv(tmp_path / "a.csv", singles(100)))
    links = lake.frame("links")
    links.assign(ticker="NEW").to_parquet(tmp_path / "links.parquet")
    command = [sys.executable, "-c", MERGER, str(lake.folder), str(tmp_path / "links.parquet")]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [writer.communicate()[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert sum(map(int, said)) == 100
    assert lake.count("links") == 200
    assert not lake.frame("links").duplicated(["id", "ticker"]).any()


def test_nothing_is_linked_where_nobody_looks() -> None:
    found = no_tickers(["a"], np.array([NOW]))
    assert (found.columns.tolist(), len(found)) == (["row", "ticker", "rule", "confidence", "hindsight"], 0)
