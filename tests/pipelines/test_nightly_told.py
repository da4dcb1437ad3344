"""Whoever is to know is told of every run that went wrong, also before it knew its nights; and when time runs out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from simulated_nights import EXCHANGE, NIGHT_0, Desk, Tape, evening, session

from data.errors import ConfigError, EncoderError, LakeError, LockedError, ModelError, TapewireError
from pipelines.nightly import job, steps
from pipelines.nightly.ledger import night_of
from pipelines.nightly.outcome import Night
from pipelines.nightly.replay import replay
from pipelines.promotions import promote
from pipelines.scorecard.verify import verify

OPEN = EXCHANGE.target_open[NIGHT_0]
MINUTE = np.timedelta64(1, "m")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the runs of a test told: "started", then exit code and facts, then "closed"."""
    heard: list[Any] = []

    class Listener:
        def __init__(self, _: Any) -> None: ...

        def started(self) -> None:
            heard.append("started")

        def ended(self, exit_code: int, facts: dict[str, Any]) -> None:
            heard.append((exit_code, " ".join(facts.get("reasons", []))))

        def close(self) -> None:
            heard.append("closed")

    monkeypatch.setattr(job, "Notices", Listener)
    return heard


def test_no_feeds_a_broken_ledger_and_an_old_calendar_are_told(at_desk: Desk, told: list[Any]) -> None:
    at_desk.night(0)
    told.clear()
    (at_desk.folder / "nights" / str(session(0)) / "ledger.json").write_text("{")
    with pytest.raises(LakeError):
        at_desk.night(1)
    with pytest.raises(ConfigError):
        at_desk.night(0, np.datetime64("2090-01-01", "us"))
    at_desk.overrides = ["news.feeds=[]"]
    with pytest.raises(ConfigError):
        at_desk.night(1)
    assert [each for each in told if isinstance(each, str)] == ["started", "closed"] * 3
    codes, reasons = zip(*(each for each in told if isinstance(each, tuple)), strict=True)
    assert codes == (2, 2, 2)
    assert all(text in reason for text, reason in zip(["ledger.json", "calendars", "feeds"], reasons, strict=True))


def test_a_second_run_is_not_told(at_desk: Desk, told: list[Any]) -> None:
    with FileLock(at_desk.folder / ".nightly.lock"), pytest.raises(LockedError):
        at_desk.night(0)
    assert told == []


def test_a_job_that_holds_the_lake_too_long_is_no_success(
    at_desk: Desk, told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "PATIENCE", 0.0)
    with FileLock(at_desk.folder / ".ingest.lock"):
        with pytest.raises(TapewireError, match="Nothing was published") as raised:
            at_desk.night(0)
        with pytest.raises(TapewireError, match="Nothing was published") as by_name:
            replay(at_desk.workspace, session(-1), lambda: evening(0))
    assert (raised.value.exit_code, by_name.value.exit_code) == (4, 4)
    assert [each[0] for each in told if isinstance(each, tuple)] == [4]
    assert at_desk.night(0).exit_code == 0


@pytest.mark.parametrize("error", [RuntimeError("torch could not"), EncoderError("no such folder")])
def test_a_challenger_that_breaks_while_it_is_loaded_degrades(
    at_desk: Desk, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    load, challenger = steps.load_bundle, at_desk.challenger

    def broken(runs: Path, model_id: str) -> Any:
        if model_id == challenger:
            raise error
        return load(runs, model_id)

    monkeypatch.setattr(steps, "load_bundle", broken)
    done = at_desk.night(0)
    assert (done.exit_code, done.nights[0].published) == (3, True)
    assert str(error) in done.nights[0].degraded[0]


@pytest.mark.parametrize("name", ["load_bundle", "score"])
def test_a_full_disk_at_a_challenger_ends_the_night(at_desk: Desk, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    job, challenger = getattr(steps, name), at_desk.challenger

    def full(first: Any, second: Any, *rest: Any) -> Any:
        if challenger in (second, getattr(second, "model_id", None)):
            raise OSError(28, "No space left on device")
        return job(first, second, *rest)

    monkeypatch.setattr(steps, name, full)
    with pytest.raises(TapewireError) as raised:
        at_desk.night(0)
    assert raised.value.exit_code == 4
    monkeypatch.undo()
    assert at_desk.night(0).exit_code == 0


def test_a_champion_of_another_clock_is_refused(at_desk: Desk) -> None:
    at_desk.overrides.append("decision=close")
    with pytest.raises(ModelError, match="decision close") as raised:
        at_desk.night(0, EXCHANGE.closes[NIGHT_0] + 25 * MINUTE)
    assert raised.value.exit_code == 2
    assert len(at_desk.forecasts()) == 0


def of_another_clock(monkeypatch: pytest.MonkeyPatch, of: str, **settings: str) -> None:
    """One model says that it was trained with other settings."""
    load = steps.load_bundle

    def other(runs: Path, model_id: str) -> Any:
        bundle = load(runs, model_id)
        if model_id == of:
            object.__setattr__(bundle, "config", bundle.config.model_copy(update=settings))
        return bundle

    monkeypatch.setattr(steps, "load_bundle", other)


def test_a_challenger_of_another_clock_is_left_out(at_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    of_another_clock(monkeypatch, at_desk.challenger, decision="pre-open")
    done = at_desk.night(0)
    assert (done.exit_code, done.nights[0].published) == (3, True)
    assert "pre-open" in done.nights[0].degraded[0]
    assert set(at_desk.forecasts()["model_id"]) == {at_desk.champion}


class Slow:
    """A clock that stands before the open, and is past it once `model` has been predicted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
        self.now = OPEN - MINUTE
        predict = "pipelines.score._held_and_new"
        from pipelines import score

        held_and_new = score._held_and_new

        def slow(workspace: Any, decision: Any, *rest: Any) -> Any:
            if decision.bundle.model_id == model:
                self.now = OPEN + 15 * MINUTE
            return held_and_new(workspace, decision, *rest)

        monkeypatch.setattr(predict, slow)

    def run(self, at_desk: Desk) -> Any:
        return job.nightly(at_desk.workspace, lambda: self.now, lambda *_: Tape(self.now))


def standings(at_desk: Desk) -> dict[str, set[str]]:
    rows = at_desk.forecasts()
    late = rows["recorded_at"].dt.tz_localize(None).to_numpy(dtype="datetime64[us]") > OPEN
    assert np.array_equal(late, rows["standing"] == "late")
    return {str(name): set(of["standing"]) for name, of in rows.groupby("model_id")}


def test_scored_past_the_open_is_late(at_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    done = Slow(monkeypatch, at_desk.champion).run(at_desk)
    assert [night.state for night in done.nights] == ["complete"]
    assert standings(at_desk) == {at_desk.champion: {"late"}, at_desk.challenger: {"late"}}
    assert verify(at_desk.workspace).exit_code == 0
    assert replay(at_desk.workspace, session(0), lambda: evening(2)).exit_code == 0
    kept = night_of(at_desk.workspace, session(0))
    assert kept is not None
    assert kept.made_at == OPEN + 15 * MINUTE


def test_what_was_stored_before_the_open_stays_live(at_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    Slow(monkeypatch, at_desk.challenger).run(at_desk)
    assert standings(at_desk) == {at_desk.champion: {"live"}, at_desk.challenger: {"late"}}
    assert verify(at_desk.workspace).exit_code == 0


def test_a_killed_night_that_goes_on_past_the_open_is_late(at_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(job, "score_night", stop)
        with pytest.raises(KeyboardInterrupt):
            at_desk.night(0)
    Slow(monkeypatch, at_desk.champion).run(at_desk)
    assert standings(at_desk) == {at_desk.champion: {"late"}, at_desk.challenger: {"late"}}


def test_feeds_words_do_nothing_to_a_terminal() -> None:
    bad = ("wire (\x1b]0;x\x07 a\nb \u202ec)",)
    for state in ("open", "complete"):
        night = Night(session(0), session(1), state, False, 0, 0, bad, "\x1b[31mred")  # type: ignore[arg-type]
        shown = night.line()
        assert "wire (]0;x a b c)" in shown
        assert not any(character in shown for character in "\x1b\x07\u202e")
    assert json.dumps(night.as_dict(), default=str)


def test_a_promotion_is_what_a_refused_clock_asks_for(at_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    of_another_clock(monkeypatch, at_desk.champion, calendar="XLON")
    with pytest.raises(ModelError, match="XLON"):
        at_desk.night(0)
    promote(at_desk.folder / "runs", at_desk.challenger, evening(0, 20))
    assert at_desk.night(0, evening(0, 30)).nights[0].published
