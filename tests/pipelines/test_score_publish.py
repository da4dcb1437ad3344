"""What is published: whole, once, safe to open, and `latest` only where it may be acted on; killed at any moment."""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest

from data.calendar import sessions
from data.errors import ConfigError
from data.lake import Lake
from pipelines import publish as publishing
from pipelines.bundle import load_bundle
from pipelines.promotions import Promotions, challenge, promote
from pipelines.publish import LATEST, MANIFEST, point_latest, publish
from pipelines.score import Ask, Scored, score
from pipelines.workspace import Workspace, open_workspace

EXCHANGE = sessions("XNYS")
FACTS = {"members": 3}
REASONS = {
    "AAA": "=1+1",
    "BBB": "@SUM(A1)",
    "CCC": "-2",
    "DDD": "\tx",
    "EEE": "\rx",
    "FFF": 'stale, "quoted"\nline',
    "GGG": "+1",
    "HHH": "stale: no bar; yahoo: failed;=1+1",
}


@pytest.fixture
def opened(workspace: Path) -> Workspace:
    return open_workspace(workspace)


@pytest.fixture
def made(opened: Workspace) -> Scored:
    return score(opened, load_bundle(opened.runs), Ask(publish=False), lambda: np.datetime64("2024-01-01", "us"))


def at(opened: Workspace, back: int, ask: Ask | None = None, hours: int = -1) -> Scored:
    """Scored so many sessions before the last, some hours after the target's open."""
    last = int(EXCHANGE.index([opened.lake.greatest("bars", "session")])[0]) - back
    now = EXCHANGE.target_open[last] + np.timedelta64(hours, "h")
    given = ask or Ask()
    asked = Ask(EXCHANGE.labels[last], given.recorded_by, nightly=given.nightly, champion=given.champion)
    return score(opened, load_bundle(opened.runs), asked, lambda: now)


def tree(folder: Path) -> dict[str, bytes | str]:
    """Every file and symlink under a folder but locks."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or (path.is_file() and path.name != ".lock")
    }


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# The files


def test_the_manifest_tells_the_sum_of_every_file(made: Scored, tmp_path: Path) -> None:
    path = publish(tmp_path / "2018-12-01" / "model", made.frame, made.abstained, FACTS)
    manifest = json.loads((path.parent / MANIFEST).read_text())
    assert manifest["members"] == 3
    assert set(manifest["files"]) == {"forecasts.parquet", "forecasts.csv", "abstained.csv"}
    for name, said in manifest["files"].items():
        content = (path.parent / name).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (said["sha256"], said["bytes"])


def test_numbers_are_plain_and_come_back_as_they_were(made: Scored, tmp_path: Path) -> None:
    path = publish(tmp_path / "2018-12-01" / "model", made.frame, {}, FACTS)
    found = rows(path.with_name("forecasts.csv"))
    assert [row["ticker"] for row in found] == made.frame["ticker"].tolist()
    for name in ("mean", "prob_up", "price", "price_low", "price_high"):
        assert [float(row[name]) for row in found] == made.frame[name].tolist()
    levels = ("q05", "q10", "q25", "q50", "q75", "q90", "q95")
    assert [[float(row[name]) for name in levels] for row in found] == [list(each) for each in made.frame["quantiles"]]
    assert any(row["mean"].startswith("-") for row in found), "a negative number stays one"
    assert {row["target_session"] for row in found} == {str(made.session)}
    assert found[0]["made_at"] == "2024-01-01T00:00:00Z"


def test_no_text_is_run_as_a_formula(made: Scored, tmp_path: Path) -> None:
    path = publish(tmp_path / "2018-12-01" / "model", made.frame, REASONS, FACTS)
    found = {row["ticker"]: row["reason"] for row in rows(path.with_name("abstained.csv"))}
    expected = {"FFF": 'stale, "quoted", line', "DDD": "x", "EEE": "x", "HHH": "stale: no bar, yahoo: failed, =1+1"}
    assert found == {name: expected.get(name, f"'{reason}") for name, reason in REASONS.items()}


def test_a_universe_of_none_is_published_as_such(made: Scored, tmp_path: Path) -> None:
    path = publish(tmp_path / "2018-12-01" / "model", made.frame.iloc[:0], REASONS, FACTS)
    assert pd.read_parquet(path).empty
    assert rows(path.with_name("forecasts.csv")) == []


# Once, whole


def test_the_same_is_published_once(made: Scored, tmp_path: Path) -> None:
    folder = tmp_path / "2018-12-01" / "model"
    publish(folder, made.frame, REASONS, FACTS)
    before = {path: path.stat().st_ino for path in folder.iterdir()}
    publish(folder, made.frame, REASONS, FACTS)
    assert {path: path.stat().st_ino for path in folder.iterdir()} == before


def test_other_forecasts_lie_beside_those_that_were_published(made: Scored, tmp_path: Path) -> None:
    folder = tmp_path / "2018-12-01" / "model"
    first = publish(folder, made.frame, REASONS, FACTS)
    before = tree(folder)
    second, third = (publish(folder, made.frame.iloc[:size], REASONS, FACTS) for size in (2, 1))
    assert [path.parent.name for path in (first, second, third)] == ["model", "model.2", "model.3"]
    assert tree(folder) == before
    assert [publish(folder, made.frame.iloc[:size], REASONS, FACTS) for size in (8, 2, 1)] == [first, second, third]
    assert len(list(folder.parent.iterdir())) == 3
    (folder / "forecasts.csv").write_text("mended by hand")
    assert publish(folder, made.frame, REASONS, FACTS).parent.name == "model.4"
    assert (folder / "forecasts.csv").read_text() == "mended by hand"


class Killed(BaseException):
    """What no code of ours catches, as none can catch SIGKILL."""


@contextmanager
def stopped_at(step: int, error: type[BaseException]) -> Iterator[list[str]]:
    """The calls that change the disk or wait for it, counted; the one numbered `step` does not happen."""
    calls: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            calls.append(name)
            if len(calls) == step:
                raise error(28, "No space left on device") if error is OSError else error()
            return real(*args, **options)

        return call

    names = {Path: ("rename", "replace", "symlink_to", "unlink", "mkdir"), os: ("fsync",), shutil: ("rmtree",)}
    with pytest.MonkeyPatch.context() as patched:
        for owner, which in names.items():
            for name in which:
                patched.setattr(owner, name, counted(name, getattr(owner, name)))
        yield calls


def work(home: Path, made: Scored) -> None:
    """This session was published and is pointed at; now other forecasts of it are."""
    path = publish(home / "2018-12-03" / "model", made.frame, REASONS, FACTS)
    point_latest(home / LATEST, path.parent)


def start(home: Path, made: Scored) -> None:
    for day in ("2018-11-30", "2018-12-03"):
        publish(home / day / "model", made.frame.iloc[:2], {}, FACTS)
    point_latest(home / LATEST, home / "2018-12-03" / "model")


@pytest.mark.parametrize("error", [Killed, OSError])
def test_cut_anywhere_and_done_again_it_ends_as_if_undisturbed(
    made: Scored, tmp_path: Path, error: type[BaseException]
) -> None:
    start(tmp_path / "calm", made)
    with stopped_at(0, error) as calls:
        work(tmp_path / "calm", made)
    expected, steps = tree(tmp_path / "calm"), len(calls)
    assert steps >= 12
    for step in range(1, steps + 1):
        home = tmp_path / f"cut-{step}"
        start(home, made)
        before = tree(home)
        with stopped_at(step, error) as calls, pytest.raises(error):
            work(home, made)
        assert (home / LATEST / MANIFEST).exists(), calls[-1]
        left = tree(home)
        assert set(before) <= set(left), "what was published stays"
        seen = {name: content for name, content in left.items() if "/." not in f"/{name}"}
        for name, content in seen.items():  # a reader sees the old or the new
            assert content in (before.get(name), expected.get(name)), (calls[-1], name)
        work(home, made)
        assert tree(home) == expected, calls[-1]


def test_a_latest_that_is_no_link_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / LATEST).mkdir()
    (tmp_path / LATEST / "forecasts.csv").touch()
    with pytest.raises(ConfigError, match="found a folder or file"):
        point_latest(tmp_path / LATEST, tmp_path / "2018-12-03" / "model")
    assert [path.name for path in (tmp_path / LATEST).iterdir()] == ["forecasts.csv"]


def test_latest_never_goes_back(made: Scored, tmp_path: Path) -> None:
    folders = {day: tmp_path / day / "model" for day in ("2018-11-30", "2018-12-03")}
    for folder in folders.values():
        publish(folder, made.frame, {}, FACTS)
    point_latest(tmp_path / LATEST, folders["2018-12-03"])
    point_latest(tmp_path / LATEST, folders["2018-11-30"])
    assert (tmp_path / LATEST).resolve() == folders["2018-12-03"].resolve()
    shutil.rmtree(folders["2018-12-03"])
    point_latest(tmp_path / LATEST, folders["2018-11-30"])
    assert (tmp_path / LATEST / MANIFEST).exists(), "what is gone is nobody's newest"


# What may be acted on


@pytest.mark.parametrize(
    ("hours", "nightly", "standing", "origin", "published"),
    [(-1, False, "live", "live", True), (1, True, "late", "backfill", True), (1, False, "replay", "backfill", False)],
)
def test_standing_decides(
    opened: Workspace, hours: int, nightly: bool, standing: str, origin: str, published: bool
) -> None:
    scored = at(opened, 3, Ask(nightly=nightly), hours)
    assert (scored.standing, scored.published, scored.unpublished) == (standing, published, "")
    stored = opened.lake.frame("forecasts")
    assert set(zip(stored["standing"], stored["origin"], strict=True)) == {(standing, origin)}
    assert set(pd.read_parquet(scored.path)["standing"]) == {standing}
    assert (opened.reports / "forecasts" / LATEST).exists() == published


def test_made_exactly_at_the_open_is_live(opened: Workspace) -> None:
    assert at(opened, 3, hours=0).standing == "live"


def test_a_replay_leaves_what_was_published_alone(opened: Workspace) -> None:
    live = at(opened, 3)
    before = tree(opened.reports)
    replay = at(opened, 3, hours=500)
    assert (replay.standing, replay.added, replay.published) == ("replay", 0, False)
    pd.testing.assert_frame_equal(replay.frame, live.frame)
    after = tree(opened.reports)
    assert {name: after[name] for name in before} == before


def test_too_few_are_not_published_and_the_figures_are_told(
    opened: Workspace, market: Any, tapewire: Callable[..., Any]
) -> None:
    first = at(opened, 3)
    watchlist = (*sorted(market.prices["ticker"].unique())[:3], "NOPE")
    watched = Workspace(opened.folder, opened.config.model_copy(update={"watchlist": watchlist}))
    second = at(watched, 2)
    assert (second.coverage, second.published) == (0.75, False)
    for figure in ("3 of 4", "75.0%", "95.0%"):
        assert figure in second.unpublished
    assert (opened.reports / "forecasts" / LATEST).resolve() == first.path.parent.resolve()
    assert second.path.exists(), "the forecasts themselves are there"
    nightly = watched.config.nightly.model_copy(update={"coverage": 0.75})
    lower = Workspace(opened.folder, watched.config.model_copy(update={"nightly": nightly}))
    assert at(lower, 2).published


def test_only_the_champion_is_published(opened: Workspace) -> None:
    champion = Promotions.read(opened.runs).champion()
    now = np.datetime64("2030-01-01", "us")
    other = "0123456789abcdef"
    promote(opened.runs, other, now)
    challenge(opened.runs, champion, now)
    bundle = load_bundle(opened.runs, champion)
    last = int(EXCHANGE.index([opened.lake.greatest("bars", "session")])[0])
    early = EXCHANGE.target_open[last] - np.timedelta64(1, "h")
    scored = score(opened, bundle, Ask(), lambda: early)
    assert (scored.standing, scored.published, scored.added) == ("live", False, 8)
    assert not (opened.reports / "forecasts" / LATEST).exists()
    assert score(opened, bundle, Ask(champion=champion), lambda: early).published, "the champion of that night"


# Nothing twice


def test_what_the_lake_holds_is_not_computed_again(opened: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    first = at(opened, 3)

    def never(*_: Any) -> None:
        raise AssertionError("the model was run")

    monkeypatch.setattr("pipelines.score.predict", never)
    monkeypatch.setattr("pipelines.decision.stored_embeddings", never)
    second = at(opened, 3, hours=-2)
    assert (first.added, second.added) == (8, 0)
    assert second.forecasts == first.forecasts
    assert (second.drift, second.published) == (first.drift, True)


def test_of_two_that_score_at_once_both_publish_what_the_lake_holds(opened: Workspace) -> None:
    bundle, others = load_bundle(opened.runs), []
    last = int(EXCHANGE.index([opened.lake.greatest("bars", "session")])[0])
    early = EXCHANGE.target_open[last] - np.timedelta64(2, "h")

    def clock() -> np.datetime64:
        """The other one stores after we have looked and computed."""
        if not others:
            others.append(None)
        elif others == [None]:
            others[:] = [score(opened, bundle, Ask(), lambda: early)]
        return early + np.timedelta64(1, "h")

    ours = score(opened, bundle, Ask(), clock)
    assert (others[0].added, ours.added) == (8, 0)
    assert ours.forecasts == others[0].forecasts
    assert {each.made_at.replace(tzinfo=None) for each in ours.forecasts} == {early.item()}
    assert ours.path == others[0].path


def test_one_row_that_is_missing_comes_back_bit_for_bit(opened: Workspace, market: Any) -> None:
    """Its batch is computed as a whole, since its last bits depend on it; the other batches are not."""
    with patch("pipelines.score.EVALUATE_BATCH", 3), patch("pipelines.predict.EVALUATE_BATCH", 3):
        whole = at(opened, 3)
        lost = sorted(market.prices["ticker"].unique())[4:8:3]
        stored = opened.lake.read("forecasts")
        shutil.rmtree(opened.folder / "lake" / "forecasts")
        rest = stored.to_pandas()
        opened.lake.merge("forecasts", rest[~rest["ticker"].isin(lost)])
        with patch("pipelines.score.predict", wraps=real_predict()) as run:
            again = at(opened, 3)
    assert [len(call.args[3]) for call in run.call_args_list] == [5]
    assert again.added == 2
    pd.testing.assert_frame_equal(again.frame, whole.frame, check_exact=True)


def real_predict() -> Callable[..., Any]:
    from pipelines.predict import predict

    return predict


def test_without_storing_all_is_computed_and_nothing_kept(opened: Workspace) -> None:
    kept = at(opened, 3)
    before = tree(opened.folder)
    early = kept.frame["made_at"].iloc[0].tz_localize(None).to_datetime64()
    with patch("pipelines.score.predict", wraps=real_predict()) as run:
        bare = score(opened, load_bundle(opened.runs), Ask(kept.session - 1, store=False), lambda: early)
    assert run.call_count == 1
    assert (bare.added, bare.path, bare.published) == (0, None, False)
    pd.testing.assert_frame_equal(bare.frame, kept.frame, check_exact=True, check_dtype=False)
    assert tree(opened.folder) == before


def test_a_forecast_says_how_far_the_lake_was_read(opened: Workspace) -> None:
    limit = np.datetime64("2029-05-06T07:08:09", "us")
    asked = at(opened, 3, Ask(recorded_by=limit))
    plain = at(opened, 2)
    assert set(asked.frame["cutoff_at"]) == {pd.Timestamp(limit, tz="UTC")}
    assert (plain.frame["cutoff_at"] == plain.frame["made_at"]).all()
    assert (asked.recorded_by, plain.recorded_by) == (limit, None)
    assert asked.frame["data_version"].tolist() == at(opened, 3).frame["data_version"].tolist()


def test_the_pointer_is_a_lock_away_from_others(made: Scored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    from data.errors import LockedError

    home = tmp_path / "forecasts"
    publish(home / "2018-12-03" / "model", made.frame, {}, FACTS)
    monkeypatch.setattr(publishing, "WAIT", 0.01)
    with FileLock(home / ".lock"), pytest.raises(LockedError):
        point_latest(home / LATEST, home / "2018-12-03" / "model")


def test_the_lake_is_unharmed_by_scoring(opened: Workspace) -> None:
    tables = ("bars", "actions", "headlines", "links")
    counts = {table: Lake(opened.folder / "lake").count(table) for table in tables}
    at(opened, 3)
    assert {table: Lake(opened.folder / "lake").count(table) for table in tables} == counts
