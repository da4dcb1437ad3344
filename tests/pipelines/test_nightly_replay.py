"""A past night again: to the bit, after restatements and promotions; what differs is named; what never was is done."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from deltalake import write_deltalake
from simulated_nights import PRICES, Desk, Tape, desk, evening, noon_after, session

from data.errors import ConfigError, LakeError
from data.lake import Lake
from pipelines.bundle import load_bundle
from pipelines.fitting import train
from pipelines.ingest_prices import ingest_prices
from pipelines.nightly.replay import replay
from pipelines.promotions import promote
from pipelines.score import Ask, score
from pipelines.scorecard.verify import verify


@pytest.fixture(scope="module")
def past(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Three nights done, the last after a restatement of bars that the first had read; tests leave it as it is."""
    with desk(start, tmp_path_factory.mktemp("replayed") / "desk") as opened:
        opened.overrides = [PRICES]
        for night, restated in ((0, 1.0), (2, 1.0), (3, 1.03)):
            opened.night(night, restated=restated)
        yield opened


@pytest.fixture
def at_desk(past: Desk, tmp_path: Path) -> Desk:
    shutil.copytree(past.folder, tmp_path / "desk", symlinks=True)
    return Desk(tmp_path / "desk", past.server, past.overrides)


def test_every_night_is_what_it_was_after_a_restatement(past: Desk) -> None:
    lake = Lake(past.folder / "lake")
    assert (lake.frame("bars", ["version"])["version"] > 1).any()
    before = lake.count("forecasts")
    for night in range(4):
        again = replay(past.workspace, session(night), lambda: evening(9))
        assert (again.exit_code, again.compared, again.added, again.differing) == (0, 16, 0, ())
    assert lake.count("forecasts") == before


def test_what_was_scored_earlier_that_evening_is_made_again_in_its_own_batch(
    past: Desk, start: Path, tmp_path: Path
) -> None:
    """News of one ticker comes between two scorings: the others' inputs stay, what shares their batch does not."""
    folder = tmp_path / "desk"
    shutil.copytree(start, folder, symlinks=True)
    opened = Desk(folder, past.server, [PRICES, "fusion.kind=cross_attention", "price.width=32"])
    train(opened.workspace, promote=True, clock=lambda: evening(-1))
    early = evening(0, 1)
    ingest_prices(opened.workspace, lambda: early, lambda *_: Tape(early))
    ask = Ask(session(0), recorded_by=early, publish=False)
    first = score(opened.workspace, load_bundle(folder / "runs"), ask, lambda: early).frame
    _publish_eight(opened.workspace.lake, str(first["ticker"].iloc[2]), evening(0, -60), evening(0, 5))
    opened.night(0)
    alone = score(
        opened.workspace, load_bundle(folder / "runs"), Ask(session(0), evening(0), store=False), lambda: evening(0)
    )
    again = replay(opened.workspace, session(0), lambda: evening(9))
    held = opened.workspace.lake.frame("forecasts")
    assert (held["model_id"] == opened.champion).sum() == len(first) + 1
    assert (again.exit_code, again.differing) == (0, ())
    before, anew = (frame.set_index(["ticker", "data_version"])["mean"] for frame in (first, alone.frame))
    shared = before.index.intersection(anew.index)
    assert len(shared) == len(first) - 1
    assert (before[shared] != anew[shared]).any(), "a batch changes no bit: this test says nothing"


def _publish_eight(lake: Lake, ticker: str, at: np.datetime64, recorded_at: np.datetime64) -> None:
    """Eight headlines of one ticker, known since `at` and recorded at `recorded_at`."""
    words = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")
    rows = pd.DataFrame({"id": words, "title": [f"{ticker}: {word} plant, {word} profit" for word in words]})
    known_at = pd.Timestamp(at, tz="UTC").as_unit("us")
    stamps = {"available_at": known_at, "recorded_at": pd.Timestamp(recorded_at, tz="UTC").as_unit("us")}
    said = {"summary": "", "source": "s", "url": "u", "published_raw": "", "precision": "second"}
    seen = {"published_at": known_at, "first_seen_at": known_at}
    lake.merge("headlines", rows.assign(version=np.int32(1), **said, **seen, **stamps, origin="live"))
    link = {"ticker": ticker, "rule": "tag", "confidence": 1.0, "hindsight": False}
    lake.merge("links", rows[["id"]].assign(**link, **stamps, origin="live"))


def test_the_models_are_those_of_the_night(at_desk: Desk) -> None:
    champion = at_desk.champion
    promote(at_desk.folder / "runs", at_desk.challenger, evening(5))
    again = replay(at_desk.workspace, session(0), lambda: evening(9))
    assert (again.exit_code, again.models[0]) == (0, champion)


def test_a_changed_forecast_is_named(at_desk: Desk) -> None:
    lake = Lake(at_desk.folder / "lake")
    rows = lake.read("forecasts")
    mean = rows["mean"].to_numpy().copy()
    where = int(np.flatnonzero(rows["target_session"].to_numpy().astype("datetime64[D]") == session(1))[0])
    mean[where] = np.nextafter(mean[where], 1.0)
    changed = rows.set_column(rows.column_names.index("mean"), "mean", [mean])
    write_deltalake(str(lake.folder / "forecasts"), changed, mode="overwrite")
    again = replay(at_desk.workspace, session(0), lambda: evening(9))
    ticker = rows["ticker"][where].as_py()
    assert (again.exit_code, len(again.differing)) == (3, 1)
    assert again.differing[0].startswith(f"{ticker} (")
    assert again.differing[0].endswith("another mean")
    assert ticker in again.text()


def test_a_forecast_that_was_removed_is_named(at_desk: Desk) -> None:
    lake = Lake(at_desk.folder / "lake")
    rows = lake.read("forecasts")
    first = int(np.flatnonzero(rows["target_session"].to_numpy().astype("datetime64[D]") == session(1))[0])
    write_deltalake(str(lake.folder / "forecasts"), rows.take(np.delete(np.arange(len(rows)), first)), mode="overwrite")
    again = replay(at_desk.workspace, session(0), lambda: evening(9))
    ticker, model_id = rows["ticker"][first].as_py(), rows["model_id"][first].as_py()
    assert (again.exit_code, again.differing) == (3, (f"{ticker} ({model_id}): not stored",))


def test_a_forecast_that_was_added_is_named(at_desk: Desk) -> None:
    lake = Lake(at_desk.folder / "lake")
    rows = lake.frame("forecasts")
    of_night = rows[rows["target_session"].to_numpy(dtype="datetime64[D]") == session(1)]
    lake.merge("forecasts", of_night.head(1).assign(data_version="0" * 24))
    again = replay(at_desk.workspace, session(0), lambda: evening(9))
    assert [text.partition(": ")[2] for text in again.differing] == ["stored, and not made again"]


def test_a_night_that_never_was_is_done_late(at_desk: Desk) -> None:
    before = at_desk.forecasts()
    made = replay(at_desk.workspace, session(-1), lambda: noon_after(4))
    assert (made.exit_code, made.added) == (0, 16)
    rows = at_desk.forecasts()
    new = rows[rows["target_session"].to_numpy(dtype="datetime64[D]") == session(0)]
    assert (len(new), set(new["standing"]), len(rows) - len(before)) == (16, {"late"}, 16)
    again = replay(at_desk.workspace, session(-1), lambda: noon_after(4))
    assert (again.compared, again.added, again.differing) == (16, 0, ())
    done = at_desk.night(5)
    assert [str(night.session) for night in done.nights] == ["2018-11-07", "2018-11-08"]
    assert verify(at_desk.workspace).exit_code == 0


def test_a_night_that_may_still_be_in_time_is_refused(at_desk: Desk) -> None:
    """Its forecasts would say live, without its own ingest."""
    before = len(at_desk.forecasts())
    with pytest.raises(ConfigError, match="tapewire nightly"):
        replay(at_desk.workspace, session(4), lambda: evening(4))
    with pytest.raises(LakeError, match="found none"):
        replay(at_desk.workspace, session(4), lambda: noon_after(4))
    assert len(at_desk.forecasts()) == before
    assert at_desk.night(4).exit_code == 0


def test_a_night_that_has_not_come_is_refused(past: Desk) -> None:
    with pytest.raises(ConfigError, match="is over"):
        replay(past.workspace, session(6), lambda: evening(2))
    with pytest.raises(LakeError, match="closed"):
        replay(past.workspace, np.datetime64("2018-11-22"), lambda: evening(2))
