"""Whatever was lost, broken off or stamped by a wrong clock: nothing is added under a seal that is there."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_nights import Desk, Tape, desk, evening, noon_after, session

from data.errors import LakeError
from data.lake import Lake
from data.packing import naive_utc
from pipelines.bundle import load_bundle
from pipelines.ingest_prices import ingest_prices
from pipelines.nightly.ledger import night_of
from pipelines.nightly.replay import replay
from pipelines.score import Ask, score
from pipelines.scorecard.seal import read_seals, vouched
from pipelines.scorecard.settle import settle
from pipelines.scorecard.verify import verify


def intact(at_desk: Desk) -> None:
    assert verify(at_desk.workspace).lines()[0].startswith("Intact")


def done(nights: Any) -> list[str]:
    return [str(night.session) for night in nights.nights]


def stop(*_: Any) -> None:
    raise KeyboardInterrupt


def of_session(at_desk: Desk, night: int) -> Any:
    rows = at_desk.forecasts()
    return rows[rows["target_session"].to_numpy(dtype="datetime64[D]") == session(night + 1)]


def test_a_night_that_was_passed_over_never_comes_due_again(at_desk: Desk, start: Path, tmp_path: Path) -> None:
    """Its bars come late and the ledger of the night after it is lost: that one is sealed, so it is too late."""
    at_desk.night(0)
    with desk(start, tmp_path / "other") as other:
        other.overrides = at_desk.overrides
        other.night(1)
        bars = Lake(other.folder / "lake").frame("bars")
    at_desk.night(2, skipped=session(1))
    at_desk.workspace.lake.merge("bars", bars[bars["session"].to_numpy(dtype="datetime64[D]") == session(1)])
    shutil.rmtree(at_desk.folder / "nights" / str(session(2)))
    assert done(at_desk.night(2, evening(2, 40))) == [str(session(2))]
    assert done(at_desk.night(3)) == [str(session(3))]
    intact(at_desk)
    assert len(of_session(at_desk, 1)) == 0


def test_a_night_before_a_sealed_one_is_refused_before_it_is_settled(at_desk: Desk) -> None:
    at_desk.night(0)
    score(at_desk.workspace, load_bundle(at_desk.workspace.runs), Ask(session(-2)), lambda: evening(0, 30))
    with pytest.raises(LakeError, match="is sealed"):
        settle(at_desk.workspace, session(-1), evening(0, 40), evening(0, 40))
    assert at_desk.workspace.lake.count("settlements") == 0


def test_a_sealed_night_that_is_done_anew_settles_nothing(at_desk: Desk) -> None:
    behind = (min(at_desk.workspace.config.watchlist),)
    at_desk.overrides.append("nightly.coverage=0.5")
    at_desk.night(0)
    seal = at_desk.night(1, behind=behind).nights[0].seal
    before = at_desk.workspace.lake.count("settlements")
    shutil.rmtree(at_desk.folder / "nights")
    again = at_desk.night(1, evening(1, 40))
    assert (done(again), again.nights[0].seal) == ([str(session(1))], seal)
    assert at_desk.workspace.lake.count("settlements") == before
    intact(at_desk)
    at_desk.night(2)
    intact(at_desk)
    assert at_desk.workspace.lake.count("settlements") > before + 16  # what it left open is the next night's


def test_an_interrupted_night_by_name_begins_anew_after_a_seal(at_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    at_desk.night(1)
    with monkeypatch.context() as broken:
        broken.setattr("pipelines.nightly.job.score_night", stop)
        with pytest.raises(KeyboardInterrupt):
            replay(at_desk.workspace, session(0), lambda: noon_after(1))
    assert done(at_desk.night(2)) == [str(session(2))]
    made = replay(at_desk.workspace, session(0), lambda: evening(2, 60))
    assert made.added == 16
    intact(at_desk)
    assert replay(at_desk.workspace, session(0), lambda: evening(2, 90)).compared == 16


def test_what_a_corrected_clock_adds_is_stamped_after_the_seals(at_desk: Desk) -> None:
    at_desk.night(0)
    at_desk.night(1, evening(1, 600))  # ten hours fast
    champion = load_bundle(at_desk.workspace.runs)
    made = score(at_desk.workspace, champion, Ask(session(-2)), lambda: evening(1, 30))
    assert (made.standing, made.added) == ("replay", 8)
    assert replay(at_desk.workspace, session(-3), lambda: evening(1, 40)).added == 16
    stamps = of_session(at_desk, -2)["recorded_at"].dt.tz_localize(None).to_numpy(dtype="datetime64[us]")
    assert set(stamps) == {evening(1, 600) + np.timedelta64(1, "us")}
    intact(at_desk)
    at_desk.night(2)
    intact(at_desk)


def test_what_falls_under_no_seal_keeps_the_moment_it_was_made(at_desk: Desk) -> None:
    score(at_desk.workspace, load_bundle(at_desk.workspace.runs), Ask(session(-1)), lambda: evening(-1, 30))
    assert set(at_desk.forecasts()["made_at"].dt.tz_localize(None).to_numpy("datetime64[us]")) == {evening(-1, 30)}


def test_added_counts_what_the_lake_did_not_hold(at_desk: Desk) -> None:
    at_desk.night(0)
    at_desk.night(1)
    shutil.rmtree(at_desk.folder / "nights")
    again = replay(at_desk.workspace, session(0), lambda: evening(1, 60))
    assert (again.done, again.added, len(at_desk.forecasts())) == (True, 0, 32)
    intact(at_desk)


def test_what_was_scored_by_hand_while_the_night_stood_still_is_under_its_seal(
    at_desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("pipelines.nightly.job.score_night", stop)
        with pytest.raises(KeyboardInterrupt):
            at_desk.night(0)
    workspace, later = at_desk.workspace, evening(0, 60)
    kept = night_of(workspace, session(0))
    assert kept is not None
    assert score(workspace, load_bundle(workspace.runs), Ask(session(0), kept.recorded_by), lambda: later).added == 8
    assert at_desk.night(0, evening(0, 90)).exit_code == 0
    rows, chain = of_session(at_desk, 0), read_seals(workspace.lake)
    assert set(naive_utc(rows["recorded_at"])) == {kept.made_at, later}  # the challenger's and the champion's
    assert set(rows["standing"]) == {"live"}
    assert vouched(chain, rows["target_session"].to_numpy(), naive_utc(rows["recorded_at"])).all()
    assert chain[0].forecasts == 16
    intact(at_desk)
    at_desk.night(1)
    intact(at_desk)


def test_a_night_by_name_makes_no_older_night_due(at_desk: Desk) -> None:
    replay(at_desk.workspace, session(-4), lambda: noon_after(-1))
    assert done(at_desk.night(1)) == [str(session(1))]


def test_a_night_by_name_that_a_run_came_to_is_due_like_any_other(at_desk: Desk) -> None:
    everybody = tuple(at_desk.workspace.config.watchlist)
    ingest_prices(at_desk.workspace, lambda: evening(0), lambda *_: Tape(evening(0)))
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr("pipelines.nightly.job.score_night", stop)
        with pytest.raises(KeyboardInterrupt):
            replay(at_desk.workspace, session(0), lambda: noon_after(0))
        with pytest.raises(KeyboardInterrupt):
            at_desk.night(0, noon_after(0) + np.timedelta64(20, "m"))
    assert done(at_desk.night(1, behind=everybody)) == [str(session(0)), str(session(1))]


def test_a_folder_that_is_no_night_is_left_alone(at_desk: Desk) -> None:
    at_desk.night(0)
    folder = at_desk.folder / "nights" / str(session(0))
    os.rename(folder, f"{folder}.broken")
    assert done(at_desk.night(0)) == [str(session(0))]
    intact(at_desk)
