import gzip
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from data.errors import InputError
from data.tabular import BATCH_ROWS, parse_mapping, read_batches, read_table, rebatch

ALIASES = {"date": ("session",), "close": ("last_price",)}


def read(path: Path, mapping: dict[str, str] | None = None, optional: tuple[str, ...] = ("ticker",)) -> pd.DataFrame:
    return read_table(path, ("date", "close"), optional, ALIASES, mapping or {})


def csv(folder: Path, text: str) -> Path:
    path = folder / "file.csv"
    path.write_text(text)
    return path


def test_csv_cells_stay_strings(tmp_path: Path) -> None:
    frame = read(csv(tmp_path, "date,close,ticker\n2015-12-30,007,NA\n,1e3,null\n"))
    assert list(frame) == ["date", "close", "ticker"]
    assert frame["close"].tolist() == ["007", "1e3"]
    assert frame["ticker"][0] == "NA"  # a real ticker, no missing value
    assert frame.isna().to_numpy().tolist() == [[False, False, False], [True, False, True]]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    pd.DataFrame({"date": pd.to_datetime(["2015-12-30"]), "close": [1.5]}).to_parquet(path)
    frame = read(path)
    assert frame["close"].dtype == "float64"
    assert pd.api.types.is_datetime64_any_dtype(frame["date"])


def test_columns_are_found_by_name_alias_case_and_spacing(tmp_path: Path) -> None:
    frame = read(csv(tmp_path, "other, Last Price ,SESSION\nx,1,2015-12-30\n"))
    assert frame.to_dict("records") == [{"date": "2015-12-30", "close": "1"}]


def test_a_mapped_column_wins_and_serves_once(tmp_path: Path) -> None:
    path = csv(tmp_path, "date,close,adjusted\n2015-12-30,1,2\n")
    assert read(path, {"close": "adjusted"})["close"].tolist() == ["2"]
    renamed = csv(tmp_path, "date,close,ticker\n2015-12-30,1,T\n")
    assert list(read(renamed, {"close": "ticker"})) == ["date", "close"]  # no column under two names


def test_quoted_newlines_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(b'\xef\xbb\xbfdate,close\r\n"2015-12-30","a\nb"\r\n')
    assert read(path)["close"].tolist() == ["a\nb"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty one"),
        (b" \n\t\n", "an empty one"),
        (b"<!DOCTYPE html><html><body>Log in</body></html>", "HTML"),
        (b"  <html lang=en>date,close\n1,2\n", "HTML"),
        (b"PAR1 but not really a Parquet file", "expected a readable CSV"),
        (b"date,close\n1,2,3\n", "expected a readable CSV"),
        (b"date,close\n\xff\xfe\x00,2\n", "expected a readable CSV"),
        (b"date,close\n", "only a header"),
        (b"date,open\n2015-12-30,1\n", "column close"),
        (b"a,b\n1,2\n", "columns date, close"),
        (b"date,close,close\n1,2,3\n", "close more than once"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as refusal:
        read(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)  # one paragraph


def test_a_truncated_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    pd.DataFrame({"date": ["2015-12-30"] * 100, "close": range(100)}).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="expected a readable CSV"):
        read(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found nothing"):
        read(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match="found a folder"):
        read(tmp_path)


def test_a_mapping_to_what_is_not_there_is_refused(tmp_path: Path) -> None:
    path = csv(tmp_path, "date,close\n2015-12-30,1\n")
    with pytest.raises(InputError, match="shut"):
        read(path, {"close": "shut"})
    with pytest.raises(InputError, match="closing: expected one of date, close, ticker"):
        read(path, {"closing": "close"})


def test_json_lines_and_packed_text_are_read_whatever_their_name(tmp_path: Path) -> None:
    lines = b'{"date": "2015-12-30", "close": 1.50}\n\n{"close": "2", "ticker": "NA", "date": null}\r\n'
    for content in (lines, gzip.compress(lines), b"\xef\xbb\xbf" + lines):
        path = tmp_path / "file.csv"
        path.write_bytes(content)
        frame = read(path)
        assert frame["close"].tolist() == ["1.5", "2"]
        assert frame.isna().to_numpy().tolist() == [[False, False, True], [True, False, False]]
    packed = tmp_path / "file.gz"
    packed.write_bytes(gzip.compress(b"date,close\n2015-12-30,1\n") + gzip.compress(b"2015-12-31,2\n"))
    assert read(packed)["close"].tolist() == ["1", "2"]


def test_a_large_file_comes_in_parts_and_only_the_columns_chosen(tmp_path: Path) -> None:
    rows = BATCH_ROWS + 10
    path = csv(tmp_path, "a,b,c\n" + "".join(f"{number},x,y\n" for number in range(rows)))
    tables = list(read_batches(path, lambda names: {"ours": names[0]}))
    assert [table.column_names for table in tables] == [["ours"]] * len(tables)
    assert len(tables) == 2
    assert pa.concat_tables(tables)["ours"].to_pylist() == [str(number) for number in range(rows)]


def test_rebatch_takes_nothing_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.tabular.BATCH_ROWS", 4)
    taken = []

    def tables() -> Iterator[pa.Table]:
        for number in range(5):
            taken.append(number)
            yield pa.table({"a" if number % 2 else "b": ["x", "y"]})

    seen = [(table.num_rows, len(taken)) for table in rebatch(tables())]
    assert seen == [(4, 2), (4, 4), (2, 5)]


def test_parse_mapping() -> None:
    assert parse_mapping("date=Date, close = Adj Close,") == {"date": "Date", "close": "Adj Close"}
    assert parse_mapping(None) == parse_mapping("") == {}
    for broken in ("date", "date=", "=Date", "date=Date,close"):
        with pytest.raises(InputError, match="OURS=THEIRS"):
            parse_mapping(broken)
