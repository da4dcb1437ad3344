import errno
import os
import resource
import shutil
import signal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from deltalake import DeltaTable
from first_schema import LIVE, copy_of_fixture
from killing import dies, kill_after, row_hashes, run_to_its_end

from data import maintenance
from data.errors import LakeError
from data.lake import Lake, Span
from data.maintenance import FEW, RETENTION, Maintained, maintain
from data.schemas import KEYS, SCHEMAS

NOW = np.datetime64("2026-06-01T12:00:00", "us")
NIGHTS = FEW + 4
DAYS = pd.bdate_range("2015-12-21", periods=NIGHTS + 5)  # across the end of a year
TICKERS = [f"T{number:02d}" for number in range(12)]

NOTHING = Maintained({}, {})


def bars(tickers: list[str], days: pd.DatetimeIndex, version: int = 1, close: float = 10.0) -> pd.DataFrame:
    grid = pd.MultiIndex.from_product([tickers, days], names=["ticker", "session"]).to_frame(index=False)
    at = grid["session"].dt.tz_localize("UTC") + pd.Timedelta("21h00m00.000123s")
    prices = dict.fromkeys(("open", "high", "low", "close"), close)
    stamps = {"available_at": at, "recorded_at": at + pd.Timedelta(hours=1), "origin": "live"}
    return grid.assign(version=version, **prices, volume=1.0, basis="raw", source="t", **stamps)


def headlines(number: int) -> pd.DataFrame:
    at = pd.Timestamp("2015-12-01", tz="UTC") + pd.Timedelta(number, "D")
    row: dict[str, Any] = dict.fromkeys(("summary", "source", "url", "published_raw"), "x")
    row |= {"precision": "second", "origin": "live", "version": 1, "title": f"News of day {number}"}
    row |= dict.fromkeys(("available_at", "recorded_at", "published_at", "first_seen_at"), at)
    ids = [f"{(number * 7919) % 997:03d}", f"{(number * 104729) % 991 + 1000:04d}"]
    return pd.DataFrame([row | {"id": name} for name in ids])


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with a commit a night in bars, in no order, and in headlines; one bar restated. Tests copy it."""
    lake = Lake(tmp_path_factory.mktemp("nights"))
    for number in range(NIGHTS):
        lake.merge("bars", bars(TICKERS, DAYS[number : number + 1]).sample(frac=1, random_state=number))
        lake.merge("headlines", headlines(number))
    lake.merge("bars", bars(TICKERS[:1], DAYS[:1], version=2, close=11.0))
    return lake.folder


@pytest.fixture
def lake(nights: Path, tmp_path: Path) -> Lake:
    return Lake(shutil.copytree(nights, tmp_path / "lake"))


def files(lake: Lake, table: str) -> list[str]:
    return DeltaTable(str(lake.folder / table)).file_uris()


def test_many_small_files_become_one_with_the_same_rows(lake: Lake) -> None:
    before = row_hashes(lake)
    assert maintain(lake, NOW) == Maintained({"bars": NIGHTS + 1, "headlines": NIGHTS}, {})
    assert row_hashes(lake) == before
    assert [len(files(lake, table)) for table in ("bars", "headlines")] == [1, 1]
    assert maintain(lake, NOW) == NOTHING
    assert lake.merge("bars", bars(TICKERS, DAYS[:NIGHTS])) == 0
    assert lake.merge("bars", bars(TICKERS, DAYS[-1:])) == len(TICKERS)
    assert lake.current("bars")["close"][0] == 11.0


def test_a_few_small_files_and_large_ones_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(tmp_path)
    for number in range(FEW):
        lake.merge("bars", bars(TICKERS, DAYS[number : number + 1]))
    assert maintain(lake, NOW) == NOTHING
    lake.merge("bars", bars(TICKERS, DAYS[-1:]))
    monkeypatch.setattr(maintenance, "SMALL", 1000)
    assert maintain(lake, NOW) == NOTHING
    monkeypatch.undo()
    assert maintain(lake, NOW).merged == {"bars": FEW + 1}


def test_no_more_is_taken_at_once_than_fits(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    before = row_hashes(lake)
    size = max(os.path.getsize(path) for path in files(lake, "bars"))
    monkeypatch.setattr(maintenance, "AT_ONCE", 3 * size)
    maintain(lake, NOW)
    assert row_hashes(lake) == before
    assert len(files(lake, "bars")) <= FEW
    assert DeltaTable(str(lake.folder / "bars")).version() > NIGHTS + 3  # more than one commit made it so


def test_bars_lie_by_year_ticker_and_session_and_headlines_by_instant(lake: Lake) -> None:
    maintain(lake, NOW)
    rows = lake.frame("bars")
    order = rows.assign(year=rows["session"].dt.year)[["year", "ticker", "session", "version"]]
    assert order.apply(tuple, axis=1).is_monotonic_increasing
    assert rows["session"].dt.year.nunique() == 2
    assert lake.frame("headlines")["available_at"].is_monotonic_increasing


def test_what_is_looked_up_is_found_by_the_statistics_of_the_new_file(lake: Lake) -> None:
    wanted, session = pd.Series(TICKERS[3:5]), DAYS[7].to_datetime64().astype("datetime64[D]")
    at = lake.frame("headlines")["available_at"].max().tz_localize(None).to_datetime64()

    def found() -> list[pd.DataFrame]:
        return [
            lake.current_among("bars", wanted, ["close", "available_at"]),
            lake.frame("bars", within=Span("session", session, session)).sort_values("ticker", ignore_index=True),
            lake.frame("headlines", ["id"], Span("available_at", at)).sort_values("id", ignore_index=True),
            pd.DataFrame({"last": [lake.greatest("bars", "session")]}),
        ]

    before = found()
    maintain(lake, NOW)
    for old, new in zip(before, found(), strict=True):
        assert len(old) > 0
        pd.testing.assert_frame_equal(old, new)
    instant = SCHEMAS["bars"].field("available_at").name
    last = lake.frame("bars")[instant].max().tz_localize(None).to_datetime64()
    assert len(lake.frame("bars", [instant], Span(instant, last))) == len(TICKERS)  # microseconds past Delta's own


def test_a_table_of_the_first_schema_is_merged_into_the_present_one(tmp_path: Path) -> None:
    lake = Lake(copy_of_fixture(tmp_path / "old") / "lake")
    rows = lake.frame("forecasts")
    one = rows[rows["target_session"] == pd.Timestamp(LIVE)]
    assert maintain(lake, NOW) == NOTHING
    assert "standing" not in DeltaTable(str(lake.folder / "forecasts")).schema().to_json()
    for number in range(FEW):
        lake.merge("forecasts", one.assign(model_id=f"m{number}"))
    before = row_hashes(lake)
    assert maintain(lake, NOW).merged == {"forecasts": FEW + 2}
    assert row_hashes(lake) == before
    keys = lake.frame("forecasts", list(KEYS["forecasts"]))
    assert keys.apply(tuple, axis=1).is_monotonic_increasing


# --- others at work --------------------------------------------------------------------------------------------


def in_the_midst(monkeypatch: pytest.MonkeyPatch, act: Any, times: int = 1) -> None:
    """`act` is done between reading the old files and committing the new one, the first `times`."""
    write, left = maintenance.pq.write_table, [*range(times)]

    def between(*args: Any, **options: Any) -> None:
        if left:
            left.pop()
            act()
        write(*args, **options)

    monkeypatch.setattr(maintenance.pq, "write_table", between)


def test_rows_that_another_process_adds_meanwhile_are_kept(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_midst(monkeypatch, lambda: lake.merge("bars", bars(TICKERS, DAYS[-1:])))
    count = lake.count("bars")
    assert maintain(lake, NOW).merged["bars"] == NIGHTS + 2
    assert lake.count("bars") == count + len(TICKERS)


def test_two_at_once_do_it_once(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    before = row_hashes(lake)
    in_the_midst(monkeypatch, lambda: maintain(lake, NOW))
    assert maintain(lake, NOW) == NOTHING
    assert row_hashes(lake) == before
    assert len(list((lake.folder / "bars").glob("*.parquet"))) == NIGHTS + 2  # what the second wrote is gone


def test_where_others_never_rest_the_table_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(tmp_path / "lake")
    for number in range(FEW + 1):
        lake.merge("bars", bars(TICKERS, DAYS[number : number + 1]))
    numbers = iter(range(100))
    in_the_midst(monkeypatch, lambda: lake.merge("bars", bars([f"N{next(numbers)}"], DAYS[:1])), times=100)
    assert maintain(lake, NOW) == NOTHING
    assert lake.count("bars") == (FEW + 1) * len(TICKERS) + next(numbers)


def maintain_now(folder: Path) -> None:
    maintain(Lake(folder / "lake"), NOW)


def maintain_until(folder: Path, name: str, after: bool) -> None:
    """Kills itself before or after it calls what is called `name` for the first time."""
    owner: Any = maintenance.pq if name == "write_table" else DeltaTable
    real = getattr(owner, name)

    def die(*args: Any, **options: Any) -> None:
        if after:
            real(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    with patch.object(owner, name, die):
        maintain_now(folder)


STEPS = ["write_table", "create_write_transaction", "create_checkpoint", "cleanup_metadata"]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", STEPS)
def test_killed_between_two_steps_it_leaves_every_row_once(lake: Lake, tmp_path: Path, name: str, after: bool) -> None:
    expected = row_hashes(lake)
    dies(maintain_until, tmp_path, name, after)
    assert row_hashes(lake) == expected
    assert len(files(lake, "bars")) == (1 if STEPS.index(name) + after > 1 else NIGHTS + 1)
    maintain(lake, NOW)
    assert row_hashes(lake) == expected
    assert len(files(lake, "bars")) == 1


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_every_row_once(nights: Path, tmp_path: Path) -> None:
    for name in ("first", "timed"):  # the first also starts the server that forks
        expected = row_hashes(Lake(shutil.copytree(nights, tmp_path / name / "lake")))
        seconds = run_to_its_end(maintain_now, tmp_path / name)
    at_work = 0
    for number, moment in enumerate(np.linspace(0, 1, 40) * seconds):
        killed = Lake(shutil.copytree(nights, tmp_path / str(number) / "lake"))
        at_work += kill_after(moment, maintain_now, tmp_path / str(number))
        assert row_hashes(killed) == expected
        run_to_its_end(maintain_now, tmp_path / str(number))
        assert row_hashes(killed) == expected
        assert len(files(killed, "bars")) == 1
    assert at_work >= 20


def maintain_on_a_full_disk(folder: Path, limit: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with pytest.raises(OSError, match=os.strerror(errno.EFBIG)) as raised:
        maintain(Lake(folder / "lake"), NOW)
    assert raised.value.errno == errno.EFBIG


@pytest.mark.parametrize("limit", [100, 4_000, 6_500])  # the new file, the commit, the checkpoint do not fit
def test_a_full_disk_takes_no_row(lake: Lake, tmp_path: Path, limit: int) -> None:
    before = row_hashes(lake)
    run_to_its_end(maintain_on_a_full_disk, tmp_path, limit)
    assert row_hashes(lake) == before
    maintain(lake, NOW)
    assert row_hashes(lake) == before
    assert len(files(lake, "bars")) == 1


# --- what is deleted ---------------------------------------------------------------------------------------------


def age(lake: Lake, days: float) -> None:
    """As if all files had been written so long ago."""
    for path in (lake.folder / "bars").glob("*.parquet"):
        os.utime(path, (path.stat().st_mtime - days * 86400,) * 2)


def test_replaced_files_are_deleted_after_a_while_and_rows_stay(lake: Lake, nights: Path, tmp_path: Path) -> None:
    before = row_hashes(lake)
    age(lake, 30)
    present = np.datetime64("now", "us")
    reader = DeltaTable(str(lake.folder / "bars"))
    assert maintain(lake, present).deleted == {}  # replaced just now: who reads them may go on
    assert reader.to_pyarrow_table().num_rows == lake.count("bars")
    again = Lake(shutil.copytree(nights, tmp_path / "again"))
    age(again, 30)
    long_ago = present - np.timedelta64(RETENTION) - np.timedelta64(1, "h")
    assert maintain(again, long_ago).deleted == {"bars": NIGHTS + 1}
    assert maintain(again, present) == NOTHING
    assert row_hashes(again) == before
    assert len(list((again.folder / "bars").glob("*.parquet"))) == 1


def test_what_a_killed_writer_left_is_deleted_once_it_is_old(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    lake.merge("bars", bars(TICKERS, DAYS))
    (lake.folder / "bars" / "part-00000-left.snappy.parquet").write_bytes(b"half")
    assert maintain(lake, NOW) == NOTHING
    age(lake, 8)
    assert maintain(lake, NOW).deleted == {"bars": 1}
    assert len(lake.frame("bars")) == len(TICKERS) * len(DAYS)


def test_an_empty_lake_needs_nothing(tmp_path: Path) -> None:
    assert maintain(Lake(tmp_path / "none"), NOW) == NOTHING
    assert not (tmp_path / "none").exists()


def test_a_broken_table_is_named(lake: Lake) -> None:
    Path(files(lake, "bars")[0]).unlink()
    with pytest.raises(LakeError, match="bars"):
        maintain(lake, NOW)


def test_opening_a_table_reads_no_more_commits_than_the_last_few(lake: Lake) -> None:
    log = lake.folder / "bars" / "_delta_log"
    maintain(lake, NOW)
    assert f'"version":{DeltaTable(str(lake.folder / "bars")).version()}' in (log / "_last_checkpoint").read_text()
    for path in log.glob("*.json"):
        os.utime(path, (path.stat().st_mtime - 40 * 86400,) * 2)
    before = len(list(log.glob("*.json")))
    for number in range(FEW + 1):
        lake.merge("bars", bars([f"N{number}"], DAYS[:1]))
    maintain(lake, NOW)
    assert len(list(log.glob("*.json"))) < before
    assert lake.count("bars") == NIGHTS * len(TICKERS) + 1 + FEW + 1
