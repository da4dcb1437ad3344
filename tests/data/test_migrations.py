import os
import shutil
import signal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError
from deltalake.table import TableAlterer
from first_schema import FIXTURE, LIVE, REPLAYED, add_forecasts, copy_of_fixture, new_forecasts
from killing import dies, kill_after, run_to_its_end

import data.lake
from data import migrations
from data.errors import LakeError
from data.lake import Lake, Span
from data.migrations import missing, upgrade
from data.schemas import KEYS, SCHEMAS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_of_fixture(tmp_path / "old")


def stored(lake: Lake, table: str = "forecasts") -> DeltaTable:
    return DeltaTable(str(lake.folder / table))


def rows_of(lake: Lake) -> list[dict[str, object]]:
    return sorted(lake.read("forecasts").to_pylist(), key=lambda row: (row["target_session"], row["ticker"]))


def test_the_fixture_is_of_the_first_schema() -> None:
    assert "standing" not in [field.name for field in stored(Lake(FIXTURE / "lake")).schema().fields]
    assert not (FIXTURE / "lake" / "settlements").exists()


def test_rows_of_the_first_schema_read_as_if_they_had_a_standing(folder: Path) -> None:
    lake = Lake(folder / "lake")
    assert lake.read("forecasts").schema == SCHEMAS["forecasts"]
    by_target = lake.frame("forecasts").groupby("target_session")["standing"].unique()
    assert {str(target.date()): list(found) for target, found in by_target.items()} == {
        LIVE: ["live"],
        REPLAYED: ["replay"],
    }
    coded = lake.coded("forecasts", ["standing", "ticker"], within=Span("target_session", np.datetime64(REPLAYED)))
    assert coded["standing"].tolist() == ["replay"] * 8
    assert lake.current("forecasts")["standing"].value_counts().to_dict() == {"live": 8, "replay": 8}
    among = lake.current_among("forecasts", pd.Series([np.datetime64(LIVE, "D")]), ["standing"])
    assert among["standing"].tolist() == ["live"] * 8
    assert lake.read("settlements").num_rows == lake.read("seals").num_rows == 0
    assert stored(lake).version() == 2  # nothing is written for a reader


def test_the_first_write_brings_the_table_to_the_present_schema(folder: Path) -> None:
    lake = Lake(folder / "lake")
    before = rows_of(lake)
    assert [lake.merge("forecasts", new_forecasts()) for _ in range(2)] == [8, 0]
    after = rows_of(lake)
    assert after[:16] == before
    assert [row["standing"] for row in after[16:]] == ["late"] * 8
    assert stored(lake).version() == 4  # the columns, the rows
    assert [field.name for field in stored(lake).schema().fields] == SCHEMAS["forecasts"].names


def test_what_is_stored_is_not_stored_again_in_the_present_schema(folder: Path) -> None:
    lake = Lake(folder / "lake")
    assert lake.merge("forecasts", lake.frame("forecasts").assign(standing="late")) == 0
    assert lake.frame("forecasts")["standing"].isin(["live", "replay"]).all()


def test_a_second_upgrade_finds_nothing_to_do(folder: Path) -> None:
    path = str(folder / "lake" / "forecasts")
    assert [upgrade(DeltaTable(path), "forecasts").version() for _ in range(3)] == [3, 3, 3]


def test_of_two_that_upgrade_at_once_one_commits_and_both_go_on(folder: Path) -> None:
    path = str(folder / "lake" / "forecasts")
    first, second = DeltaTable(path), DeltaTable(path)
    assert upgrade(first, "forecasts").version() == upgrade(second, "forecasts").version() == 3
    assert Lake(folder / "lake").merge("forecasts", new_forecasts()) == 8


def test_an_upgrade_that_cannot_be_committed_is_no_endless_loop(folder: Path) -> None:
    class Refusing:
        def __init__(self, target: DeltaTable) -> None:
            self.alter, self._target = self, target

        def add_columns(self, _fields: object) -> None:
            raise CommitFailedError("no room")

        def __getattr__(self, name: str) -> object:
            return getattr(self._target, name)

    target = Refusing(DeltaTable(str(folder / "lake" / "forecasts")))
    with pytest.raises(CommitFailedError):
        upgrade(target, "forecasts")  # type: ignore[arg-type]


def add_until(folder: Path, name: str, after: bool) -> None:
    """A writer that kills itself before or after the commit of the columns, or that of the rows."""
    owner: Any = TableAlterer if name == "add_columns" else data.lake
    real = getattr(owner, name)

    def die(*args: Any, **options: Any) -> None:
        if after:
            real(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    with patch.object(owner, name, die):
        add_forecasts(folder)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", ["add_columns", "write_deltalake"])
def test_a_writer_killed_before_in_and_after_the_upgrade_is_completed_by_the_next(
    folder: Path, name: str, after: bool
) -> None:
    lake = Lake(folder / "lake")
    before = rows_of(lake)
    dies(add_until, folder, name, after)
    upgraded = "standing" in [field.name for field in stored(lake).schema().fields]
    assert upgraded == (after or name == "write_deltalake")
    assert rows_of(lake)[:16] == before
    assert len(rows_of(lake)) == (24 if after and name == "write_deltalake" else 16)
    add_forecasts(folder)
    assert rows_of(lake)[:16] == before
    assert len(rows_of(lake)) == 24


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_is_completed_by_the_next(tmp_path: Path) -> None:
    for name in ("first", "timed"):  # the first also starts the server that forks
        seconds = run_to_its_end(add_forecasts, copy_of_fixture(tmp_path / name))
    expected, at_work = rows_of(Lake(tmp_path / "timed" / "lake")), 0
    for number, moment in enumerate(np.linspace(0, 1, 40) * seconds):
        killed = copy_of_fixture(tmp_path / str(number))
        at_work += kill_after(moment, add_forecasts, killed)
        assert rows_of(Lake(killed / "lake")) in (expected[:16], expected)
        run_to_its_end(add_forecasts, killed)
        assert rows_of(Lake(killed / "lake")) == expected
    assert at_work >= 20


def later(folder: Path, **columns: pa.DataType) -> Lake:
    """The lake after a later version has written a column, or one of another type."""
    lake = Lake(folder / "lake")
    rows = lake.read("forecasts", [name for name in SCHEMAS["forecasts"].names if name not in columns])
    for name, kind in columns.items():
        rows = rows.append_column(name, pa.nulls(rows.num_rows, kind))
    shutil.rmtree(lake.folder / "forecasts")
    write_deltalake(str(lake.folder / "forecasts"), rows)
    return lake


@pytest.mark.parametrize("columns", [{"skew": pa.float64()}, {"mean": pa.float32()}, {"standing": pa.int32()}])
def test_a_table_of_a_later_version_is_refused_and_left_alone(folder: Path, columns: dict[str, pa.DataType]) -> None:
    lake = later(folder, **columns)
    files = sorted(path.name for path in (lake.folder / "forecasts").rglob("*"))
    jobs = [
        lambda: lake.read("forecasts", ["ticker"]),
        lambda: lake.coded("forecasts", ["ticker"]),
        lambda: lake.greatest("forecasts", "target_session"),
        lambda: lake.merge("forecasts", new_forecasts()),
    ]
    for job in jobs:
        with pytest.raises(LakeError, match=rf"forecasts.*{next(iter(columns))}.*Upgrade Tapewire"):
            job()
    assert sorted(path.name for path in (lake.folder / "forecasts").rglob("*")) == files


def test_a_table_that_hides_rows_from_this_version_is_refused(folder: Path) -> None:
    lake = Lake(folder / "lake")
    properties = {"delta.enableDeletionVectors": "true"}
    shutil.rmtree(lake.folder / "forecasts")
    DeltaTable.create(str(lake.folder / "forecasts"), SCHEMAS["forecasts"], configuration=properties)
    with pytest.raises(LakeError, match=r"reader version 1, found 3.*Upgrade Tapewire"):
        lake.read("forecasts")


def test_a_table_without_what_every_version_has_is_refused() -> None:
    schema = SCHEMAS["bars"]
    assert missing("bars", schema, "there") == []
    with pytest.raises(LakeError, match=r"there: .*none named close"):
        missing("bars", schema.remove(schema.get_field_index("close")), "there")


def test_what_was_added_is_in_the_schemas_and_in_no_key() -> None:
    for table, columns in migrations.ADDED.items():
        for name in columns:
            assert SCHEMAS[table].field(name).nullable
            assert name not in KEYS[table]
