import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from data.errors import LakeError
from data.lake import Lake, Span, newest, revisions
from data.schemas import KEYS, SCHEMAS

DAYS = pd.to_datetime(["2015-12-28", "2015-12-29", "2015-12-30"])


def utc(stamp: str) -> pd.Timestamp:
    return pd.Timestamp(stamp, tz="UTC")


def bars(ticker: str = "A", close: float = 10.0, version: int = 1, available: str | None = None) -> pd.DataFrame:
    """Three bars, each known at 21:00 of its day unless `available` is given; recorded an hour later."""
    known_at = (
        pd.DatetimeIndex([utc(available)] * 3) if available else (DAYS + pd.Timedelta(hours=21)).tz_localize("UTC")
    )
    prices = dict.fromkeys(("open", "high", "low", "close"), close)
    stamps = {"available_at": known_at, "recorded_at": known_at + pd.Timedelta(hours=1), "origin": "backfill"}
    return pd.DataFrame(
        {"ticker": ticker, "session": DAYS, "version": version, **prices, "volume": 1.0, "basis": "raw", "source": "t"}
        | stamps
    )


def test_every_table_reads_as_empty_before_it_is_written(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    for table, schema in SCHEMAS.items():
        assert lake.read(table).schema == schema
        assert lake.count(table) == len(lake.frame(table)) == len(lake.current(table)) == 0
        assert len(lake.current(table, as_of=np.datetime64("2016-01-01", "us"))) == 0
    assert not (tmp_path / "lake").exists()  # reading makes nothing


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    assert lake.merge("bars", bars()) == 3
    assert lake.read("bars").schema == SCHEMAS["bars"]
    back = lake.frame("bars").sort_values("session", ignore_index=True)
    pd.testing.assert_frame_equal(back, bars(), check_dtype=False)
    assert str(back["available_at"].dtype) == "datetime64[us, UTC]"
    assert lake.frame("bars", ["close", "ticker"]).columns.tolist() == ["close", "ticker"]


def test_a_list_column_comes_back(tmp_path: Path) -> None:
    at = utc("2015-12-30 21:00")
    row = dict.fromkeys(("decision_at", "made_at", "cutoff_at", "available_at", "recorded_at"), at)
    row |= dict.fromkeys(("mean", "prob_up", "price", "price_low", "price_high"), 0.5)
    row |= dict.fromkeys(("ticker", "model_id", "data_version", "target", "origin", "standing"), "x")
    row |= {"target_session": DAYS[2], "quantiles": [0.1, 0.5, 0.9]}
    lake = Lake(tmp_path)
    assert [lake.merge("forecasts", pd.DataFrame([row])) for _ in range(2)] == [1, 0]
    assert lake.current("forecasts")["quantiles"][0].tolist() == [0.1, 0.5, 0.9]


def test_merging_the_same_rows_again_adds_none(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    assert lake.merge("bars", bars()) == 3
    assert lake.merge("bars", bars(close=11.0)) == 0  # the key decides; a change needs a new version
    assert lake.merge("bars", pd.concat([bars(), bars("B")])) == 3
    assert lake.merge("bars", bars()[:0]) == 0
    assert lake.count("bars") == 6
    assert (lake.frame("bars")["close"] == 10.0).all()


def test_a_new_version_stands_beside_the_old(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.merge("bars", bars())
    assert lake.merge("bars", bars(close=11.0, version=2, available="2016-01-05 12:00")) == 3
    assert lake.count("bars") == 6
    assert lake.current("bars")["close"].tolist() == [11.0] * 3


def test_as_of_reads_by_what_was_available_and_by_what_was_recorded(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.merge("bars", bars())
    lake.merge("bars", bars(close=11.0, version=2, available="2016-01-05 12:00"))
    at = np.datetime64("2015-12-29T21:00:00", "us")
    assert lake.current("bars", as_of=at)["close"].tolist() == [10.0, 10.0]
    assert len(lake.current("bars", as_of=at - np.timedelta64(1, "us"))) == 1
    assert len(lake.current("bars", as_of=at, recorded_by=at)) == 1  # the second was recorded an hour later
    restated = np.datetime64("2016-01-05T12:00", "us")
    assert lake.current("bars", as_of=restated)["close"].tolist() == [11.0] * 3
    assert lake.current("bars", as_of=restated, recorded_by=restated)["close"].tolist() == [10.0] * 3
    assert lake.current("bars", recorded_by=restated)["version"].tolist() == [1] * 3


def test_current_is_sorted_by_key(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.merge("bars", pd.concat([bars("B"), bars("A")[::-1]]))
    rows = lake.current("bars")
    assert rows[list(KEYS["bars"])].apply(tuple, axis=1).is_monotonic_increasing


def test_revisions_number_what_changed_and_leave_out_what_did_not() -> None:
    stored = newest(pd.concat([bars(), bars(close=11.0, version=2)[:1]]), "bars")
    incoming = pd.concat([bars()[:2], bars("B")[:1]], ignore_index=True).drop(columns="version")
    changed = revisions(stored, incoming, "bars", ["close", "volume"])
    assert changed[["ticker", "version", "close"]].to_numpy().tolist() == [["A", 3, 10.0], ["B", 1, 10.0]]
    missing = bars().assign(volume=np.nan)
    assert revisions(missing, missing, "bars", ["close", "volume"]).empty
    assert len(revisions(missing, bars(), "bars", ["close", "volume"])) == 3


def test_a_broken_table_is_named(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.merge("bars", bars())
    for part in (tmp_path / "bars").rglob("*.parquet"):
        part.unlink()
    with pytest.raises(LakeError, match="bars"):
        lake.read("bars")


WRITER = """
import sys, numpy as np
sys.path.insert(0, sys.argv[2])
from test_lake import bars
from data.lake import Lake
lake = Lake(sys.argv[1])
for number in range(10_000):
    lake.merge("bars", bars(f"T{number}"))
    print(number, flush=True)
"""


def test_a_killed_writer_leaves_its_last_commit_readable(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as child:
        assert child.stdout is not None
        said = [int(child.stdout.readline()) for _ in range(4)]
        child.send_signal(signal.SIGKILL)
        said += [int(line) for line in child.stdout]
    assert child.returncode == -signal.SIGKILL
    lake = Lake(tmp_path)
    rows = lake.frame("bars")
    whole = rows.groupby("ticker").size()
    assert (whole == 3).all()  # a commit is there as a whole or not at all
    assert {f"T{number}" for number in said} <= set(whole.index)
    assert len(whole) <= len(said) + 1
    assert lake.merge("bars", bars("after")) == 3
    assert lake.merge("bars", bars("T0")) == 0


def test_only_declared_columns_are_stored(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.merge("bars", bars().assign(oracle=1.0))
    assert lake.read("bars").column_names == SCHEMAS["bars"].names
    with pytest.raises((KeyError, pa.ArrowException)):
        lake.merge("bars", bars("B").drop(columns="available_at"))
    assert lake.count("bars") == 3


# --- revise ----------------------------------------------------------------------------------------------------


def revise(lake: Lake, *batches: pd.DataFrame) -> int:
    return lake.revise("bars", lambda: [rows.drop(columns="version") for rows in batches], ["close"], lambda rows: rows)


def test_revise_adds_what_is_new_or_differs_in_one_commit(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    assert revise(lake, bars(), bars("B")) == 6
    assert revise(lake, bars(), bars("B")) == 0
    changed = pd.concat([bars("B")[:1], bars("B", close=11.0)[1:2]])
    assert revise(lake, bars("C"), changed) == 4
    assert DeltaTable(tmp_path / "bars").version() == 2  # one for the table itself
    newest_of_b = lake.current("bars").query("ticker == 'B'")
    assert newest_of_b[["version", "close"]].to_numpy().tolist() == [[1, 10.0], [2, 11.0], [1, 10.0]]
    assert lake.count("bars") == 10


def test_revise_makes_no_table_for_nothing(tmp_path: Path) -> None:
    assert revise(Lake(tmp_path / "lake")) == revise(Lake(tmp_path / "lake"), bars()[:0]) == 0
    assert not (tmp_path / "lake").exists()


def test_revise_begins_again_where_another_committed_meanwhile(tmp_path: Path) -> None:
    lake, other = Lake(tmp_path), Lake(tmp_path)
    calls = []

    def batches() -> list[pd.DataFrame]:
        calls.append(len(calls))
        if len(calls) == 2:  # the first only asks whether there is anything
            other.merge("bars", bars("B", close=11.0))
        return [rows.drop(columns="version") for rows in (bars(), bars("B"))]

    lake.merge("bars", bars("Z"))
    assert lake.revise("bars", batches, ["close"], lambda rows: rows) == 6
    versions = lake.frame("bars").groupby(["ticker", "version"]).size()
    assert versions.to_dict() == {("A", 1): 3, ("B", 1): 3, ("B", 2): 3, ("Z", 1): 3}


def test_a_lookup_finds_its_rows_whatever_their_order_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.lake.ROW_GROUP", 4)
    lake = Lake(tmp_path)
    names = [f"T{number:02d}" for number in np.random.default_rng(0).permutation(30)]
    for part in (names[:20], names[20:]):
        lake.merge("bars", pd.concat([bars(name) for name in part]).sample(frac=1, random_state=0))
    for wanted in (["T05"], ["T29", "T00", "T13"], ["none"]):
        found = lake.current_among("bars", pd.Series(wanted), ["close"])
        assert sorted(set(found["ticker"])) == sorted(set(wanted) & set(names))
        assert len(found) == 3 * len(set(wanted) & set(names))
    assert revise(lake, pd.concat([bars(name)[1:2] for name in names])) == 0


def test_coded_is_frame_with_categories(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    columns = ["ticker", "session", "close", "available_at"]
    assert lake.coded("bars", columns).columns.tolist() == columns
    lake.merge("bars", pd.concat([bars("B"), bars("A")]))
    lake.merge("bars", bars("C"))
    coded = lake.coded("bars", columns)
    assert isinstance(coded["ticker"].dtype, pd.CategoricalDtype)
    plain = coded.astype({"ticker": "str"}).sort_values(["ticker", "session"], ignore_index=True)
    expected = lake.frame("bars", columns).sort_values(["ticker", "session"], ignore_index=True)
    pd.testing.assert_frame_equal(plain, expected)
    assert sorted(lake.coded("bars", columns, ["C", "A", "Z"])["ticker"].unique()) == ["A", "C"]


def test_distinct_tells_each_pair_once(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    assert lake.distinct("bars", "basis", ["A"]).empty
    lake.merge("bars", pd.concat([bars(), bars("B").assign(basis="split")]))
    found = lake.distinct("bars", "basis", ["A", "B", "C"]).sort_values("ticker")
    assert found.to_numpy().tolist() == [["A", "raw"], ["B", "split"]]


# --- bounded reads ---------------------------------------------------------------------------------------------


def lake_of_days(folder: Path) -> Lake:
    """Three days of three tickers in files of a day, and a restated bar."""
    lake = Lake(folder)
    for day in DAYS:
        rows = pd.concat([bars(name) for name in "ABC"])
        lake.merge("bars", rows[rows["session"] == day])
    lake.merge("bars", bars("B", close=11.0, version=2, available="2016-01-05 12:00:00.000123")[1:2])
    return lake


@pytest.mark.parametrize(("first", "last"), [(0, None), (1, None), (None, 1), (1, 1), (2, 0), (None, None)])
def test_a_span_is_all_rows_between_its_ends_and_no_other(tmp_path: Path, first: int | None, last: int | None) -> None:
    lake = lake_of_days(tmp_path)
    ends = [None if at is None else DAYS[at].to_datetime64().astype("datetime64[D]") for at in (first, last)]
    span, columns, keys = (
        Span("session", *ends),
        ["ticker", "session", "version", "close"],
        ["ticker", "session", "version"],
    )
    every = lake.frame("bars", columns)
    wanted = every[(every["session"] >= DAYS[first or 0]) & (every["session"] <= DAYS[2 if last is None else last])]
    wanted = wanted.sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(lake.frame("bars", columns, span).sort_values(keys, ignore_index=True), wanted)
    coded = lake.coded("bars", columns, within=span).astype({"ticker": "str"})
    pd.testing.assert_frame_equal(coded.sort_values(keys, ignore_index=True), wanted)
    few = lake.coded("bars", columns, ["A", "B", "Z"], span).astype({"ticker": "str"})
    of_few = wanted[wanted["ticker"].isin(["A", "B"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(few.sort_values(keys, ignore_index=True), of_few)


def test_a_span_of_instants_is_exact_to_the_microsecond(tmp_path: Path) -> None:
    lake, at = lake_of_days(tmp_path), np.datetime64("2016-01-05T12:00:00.000123", "us")
    tick = np.timedelta64(1, "us")
    for span, count in (
        (Span("available_at", at), 1),
        (Span("available_at", at + tick), 0),
        (Span("available_at", last=at - tick), 9),
        (Span("available_at", at, at), 1),
    ):
        assert len(lake.frame("bars", ["close"], span)) == count


def test_a_span_opens_only_files_that_may_hold_its_rows(tmp_path: Path) -> None:
    lake = lake_of_days(tmp_path)
    first = DAYS[0].to_datetime64().astype("datetime64[D]")
    table = DeltaTable(str(tmp_path / "bars"))
    for path in table.file_uris(file_pruning_predicate=[("session", "!=", str(first))]):
        Path(path).unlink()
    assert len(lake.frame("bars", within=Span("session", first, first))) == 3
    with pytest.raises(LakeError):
        lake.frame("bars")


def test_an_empty_key_is_found_again(tmp_path: Path) -> None:
    """Delta takes the empty string for no value, and would rule every file out."""
    lake = Lake(tmp_path)
    rows = pd.concat([bars(""), bars("A")])
    assert [lake.merge("bars", rows) for _ in range(2)] == [6, 0]
    assert len(lake.frame("bars", within=Span("ticker", "", "A"))) == 6
    assert len(lake.frame("bars", within=Span("ticker", "", ""))) == 3


def test_rows_without_a_value_are_in_no_span(tmp_path: Path) -> None:
    lake, at = Lake(tmp_path), utc("2016-01-05")
    row: dict[str, Any] = dict.fromkeys(("url", "outcome", "reason", "etag", "last_modified", "origin"), "x")
    row |= {"version": 1, "available_at": at, "recorded_at": at}
    names = ["a", "b"]
    lake.merge("feeds", pd.DataFrame([row | {"name": name, "retry_at": at} for name in names[:1]]))
    lake.merge("feeds", pd.DataFrame([row | {"name": name, "retry_at": pd.NaT} for name in names[1:]]))
    assert lake.frame("feeds", ["name"], Span("retry_at"))["name"].tolist() == ["a"]
    assert lake.frame("feeds", ["name"], Span("retry_at", np.datetime64("2016-01-06", "us"))).empty


def test_the_greatest_date_is_told_without_reading_a_row(tmp_path: Path) -> None:
    assert np.isnat(Lake(tmp_path / "none").greatest("bars", "session"))
    lake = lake_of_days(tmp_path)
    for path in (tmp_path / "bars").glob("*.parquet"):
        path.write_bytes(b"")
    assert lake.greatest("bars", "session") == np.datetime64("2015-12-30")


def test_the_greatest_date_is_read_where_nothing_is_said_of_a_file(tmp_path: Path) -> None:
    rows = pa.Table.from_pandas(bars(), schema=SCHEMAS["bars"], preserve_index=False)
    silent = {"delta.dataSkippingNumIndexedCols": "0"}
    write_deltalake(str(tmp_path / "bars"), rows, configuration=silent)
    assert Lake(tmp_path).greatest("bars", "session") == np.datetime64("2015-12-30")


@pytest.mark.parametrize("name", ["my fund, 50% größer", "läke {1}`", "my#lake?x", "100%", 'it\'s "mine" <&>~'])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    lake = Lake(tmp_path / name)
    assert [lake.merge("bars", bars()) for _ in range(2)] == [3, 0]
    assert len(lake.frame("bars", within=Span("session", np.datetime64("2015-12-29")))) == 2
    assert lake.greatest("bars", "session") == np.datetime64("2015-12-30")


@pytest.mark.parametrize("name", ["lake [1]", "a|b", "a^b", "my%20lake", "a\\b", "a\tb"])
def test_a_folder_that_delta_lake_cannot_have_is_refused_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(LakeError, match="Rename or move the folder"):
        Lake(tmp_path / name / "lake")


# --- what a process leaves -------------------------------------------------------------------------------------


def test_a_process_that_has_read_many_files_ends_well(tmp_path: Path) -> None:
    """Opened through Python, as deltalake does by itself, one in six such processes aborted at its end."""
    rows = pd.concat([bars()] * 2_000)
    table = pa.Table.from_pandas(rows, schema=SCHEMAS["bars"], preserve_index=False)
    for _ in range(30):
        write_deltalake(tmp_path / "bars", table, mode="append")
    code = f"from data.lake import Lake; Lake({str(tmp_path)!r}).read('bars', ['close'])"
    for _ in range(3):
        readers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
        assert [reader.wait() for reader in readers] == [0, 0]


FULL = """
import errno, resource, signal, sys
sys.path.insert(0, sys.argv[2])
from test_lake import bars
from data.lake import Lake
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    Lake(sys.argv[1]).merge("bars", bars("B"))
except OSError as error:
    sys.exit(error.errno)
"""


@pytest.mark.parametrize("limit", [100, 3_800])  # the rows, the commit do not fit
def test_a_full_disk_is_an_error_of_the_system_and_takes_no_row(tmp_path: Path, limit: int) -> None:
    lake = Lake(tmp_path)
    lake.merge("bars", bars())
    command = [sys.executable, "-c", FULL, str(tmp_path), str(Path(__file__).parent), str(limit)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == errno.EFBIG
    assert lake.count("bars") == len(lake.frame("bars")) == 3
    assert lake.merge("bars", bars("B")) == 3
