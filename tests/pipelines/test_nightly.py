"""Nights on a simulated market with a real feed server: full, degraded, caught up, waiting, tried again, refused."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feed_server import status
from simulated_nights import PRICES, Desk, Tape, evening, noon_after, session

from data.errors import ConfigError, ModelError, WaitedError
from data.lake import Lake
from pipelines.fitting import train
from pipelines.ingest_prices import ingest_prices
from pipelines.nightly import page
from pipelines.nightly.ledger import STEPS, Ledger, night_of
from pipelines.nightly.steps import SHOWN
from pipelines.promotions import promote, retire
from pipelines.scorecard.verify import verify
from pipelines.workspace import open_workspace, replace_file


def files(at_desk: Desk, night: int) -> Path:
    return at_desk.folder / "nights" / str(session(night))


def report(at_desk: Desk, night: int) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads((files(at_desk, night) / "report.json").read_text(), parse_constant=refuse)


def latest(at_desk: Desk) -> str:
    return os.readlink(at_desk.folder / "reports" / "forecasts" / "latest")


def counts(at_desk: Desk) -> dict[str, int]:
    lake = Lake(at_desk.folder / "lake")
    return {table: lake.count(table) for table in ("forecasts", "settlements", "seals")}


def test_a_full_night_and_the_one_after_it(at_desk: Desk) -> None:
    at_desk.overrides = []
    first = at_desk.night(0)
    assert (first.exit_code, [str(night.session) for night in first.nights]) == (0, ["2018-11-01"])
    assert counts(at_desk) == {"forecasts": 16, "settlements": 0, "seals": 1}
    rows = at_desk.forecasts()
    assert set(rows["standing"]) == {"live"}
    assert set(rows["model_id"]) == {at_desk.champion, at_desk.challenger}
    assert latest(at_desk) == f"2018-11-02/{at_desk.champion}"

    again = at_desk.night(0)
    assert (again.exit_code, again.nights, str(again.next_session)) == (0, (), "2018-11-02")
    assert again.next_at == evening(1, 0)

    second = at_desk.night(1)
    assert second.exit_code == 0
    assert counts(at_desk) == {"forecasts": 32, "settlements": 16, "seals": 2}
    assert report(at_desk, 1)["settled"]["settled"] == 16
    assert verify(at_desk.workspace).exit_code == 0
    assert second.nights[0].seal == verify(at_desk.workspace).head


def test_what_a_night_leaves_on_disk(at_desk: Desk) -> None:
    at_desk.overrides = []
    at_desk.night(0)
    folder = files(at_desk, 0)
    assert sorted(path.name for path in folder.iterdir()) == [
        "ledger.json", "log.jsonl", "manifest.json", "report.json", "report.md"
    ]  # fmt: skip
    ledger = json.loads((folder / "ledger.json").read_text())
    assert (ledger["state"], [ledger["steps"][name]["state"] for name in STEPS]) == ("complete", ["done"] * 5)
    told = report(at_desk, 0)
    forecasts = told["forecasts"]
    assert (forecasts["scored"], forecasts["members"], forecasts["coverage"], forecasts["abstained"]) == (8, 8, 1, {})
    means = [row["mean"] for row in [*forecasts["top"], *reversed(forecasts["bottom"])]]
    assert means == sorted(means, reverse=True)
    assert len(means) == min(8, 2 * SHOWN)
    assert told["ingested"]["news"]["added"]["headlines"] == 4
    assert told["ingested"]["prices"]["added"]["bars"] == 8
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["rows"]["forecasts"] == 16
    assert manifest["seal"] == told["seal"]["sha256"]
    assert manifest["recorded_by"] == told["recorded_by"]
    assert {"torch", "numpy", "deltalake"} <= set(manifest["packages"])
    page = (folder / "report.md").read_text()
    assert told["seal"]["sha256"] in page
    assert all(f"| {row['ticker']} |" in page for row in forecasts["top"])
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines][:1] == ["started"]
    assert lines[-1]["event"] == "ended"
    assert {line["at"] for line in lines} == {f"{evening(0)}+00:00"}


def test_the_night_is_that_of_the_ledger(at_desk: Desk) -> None:
    at_desk.night(0)
    kept = night_of(at_desk.workspace, session(0))
    assert kept is not None
    assert (kept.champion, kept.challengers) == (at_desk.champion, (at_desk.challenger,))
    assert (kept.recorded_by, kept.made_at) == (evening(0), evening(0))
    assert night_of(at_desk.workspace, session(1)) is None


def test_missed_nights_are_caught_up_late(at_desk: Desk) -> None:
    at_desk.night(0)
    caught_up = at_desk.night(3)
    assert caught_up.exit_code == 0
    assert [str(night.session) for night in caught_up.nights] == ["2018-11-02", "2018-11-05", "2018-11-06"]
    standing = at_desk.forecasts().groupby("target_session")["standing"].agg(set)
    assert list(standing) == [{"live"}, {"late"}, {"late"}, {"live"}]
    assert latest(at_desk).startswith("2018-11-07/")
    assert verify(at_desk.workspace).exit_code == 0


def test_no_more_nights_are_caught_up_than_asked(at_desk: Desk) -> None:
    at_desk.overrides = [PRICES, "nightly.catch_up=2"]
    at_desk.night(0)
    assert [str(night.session) for night in at_desk.night(4).nights] == ["2018-11-06", "2018-11-07"]
    assert at_desk.night(4).nights == ()


def test_at_first_only_the_newest_night_is_done(at_desk: Desk) -> None:
    assert [str(night.session) for night in at_desk.night(2).nights] == ["2018-11-05"]


def test_what_fails_beside_the_champion_degrades_the_night(at_desk: Desk) -> None:
    ticker = sorted(at_desk.workspace.config.watchlist)[-1]
    at_desk.overrides = ["nightly.coverage=0.8"]
    weights = at_desk.folder / "runs" / at_desk.challenger / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    at_desk.server.add("/wire.xml", behaviour=status(500))
    add, at_desk.server.add = at_desk.server.add, lambda *_: ""  # type: ignore[method-assign, assignment]
    done = at_desk.night(0, failing=(ticker,))
    at_desk.server.add = add  # type: ignore[method-assign]
    assert (done.exit_code, done.nights[0].published) == (3, True)
    news, prices, abstained, challenger = done.nights[0].degraded
    assert "1 of 1 feeds" in news
    assert ticker in prices
    assert "line is dead" in prices
    assert f"{ticker} (stale" in abstained
    assert at_desk.challenger in challenger
    assert set(at_desk.forecasts()["model_id"]) == {at_desk.champion}
    assert latest(at_desk) == f"2018-11-02/{at_desk.champion}"
    assert done.nights[0].degraded == tuple(report(at_desk, 0)["degraded"])


def test_a_vendor_that_breaks_what_nobody_thought_of_is_no_crash(
    at_desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("in somebody else's code")

    at_desk.overrides = []
    monkeypatch.setattr("pipelines.nightly.steps.ingest_news", broken)
    done = at_desk.night(0)
    assert done.exit_code == 3
    assert done.nights[0].degraded == ("news could not be ingested: ZeroDivisionError: in somebody else's code",)
    assert "traceback" in (files(at_desk, 0) / "log.jsonl").read_text()


def test_without_the_bars_of_the_session_the_night_waits(at_desk: Desk) -> None:
    everybody = tuple(at_desk.workspace.config.watchlist)
    waits = at_desk.night(0, behind=everybody)
    assert (waits.exit_code, waits.nights[0].state) == (4, "open")
    assert "2018-11-01" in waits.nights[0].reason
    assert counts(at_desk)["forecasts"] == 0
    done = at_desk.night(0, evening(0, 40))
    assert (done.exit_code, done.nights[0].state) == (0, "complete")
    kept = night_of(at_desk.workspace, session(0))
    assert kept is not None
    assert kept.recorded_by == evening(0, 40)


def test_an_older_session_without_any_bar_is_passed_over(at_desk: Desk) -> None:
    """A vendor that skipped a day: the next night is done all the same, and says so once."""
    at_desk.night(0)
    done = at_desk.night(2, skipped=session(1))
    assert [(str(night.session), night.state) for night in done.nights] == [
        ("2018-11-02", "open"), ("2018-11-05", "complete")
    ]  # fmt: skip
    assert (done.exit_code, done.nights[1].published) == (3, True)
    assert at_desk.night(2).nights == ()


def test_an_older_night_that_breaks_does_not_hold_up_the_newest(at_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(run: Any, ledger: Ledger, *rest: Any) -> Any:
        if ledger.session == session(1):
            raise ZeroDivisionError("a fault of ours")
        return write(run, ledger, *rest)

    at_desk.night(0)
    write = page.write
    monkeypatch.setattr(page, "write", broken)
    done = at_desk.night(2)
    assert [(str(night.session), night.state) for night in done.nights] == [
        ("2018-11-02", "open"), ("2018-11-05", "complete")
    ]  # fmt: skip
    assert (done.exit_code, done.nights[1].published) == (3, True)
    assert done.nights[0].reason == "ZeroDivisionError: a fault of ours"
    assert at_desk.night(3).exit_code == 0


def test_an_encoder_that_cannot_be_had_is_asked_for_again(at_desk: Desk) -> None:
    encoder = Path(at_desk.workspace.config.text.encoder)
    gone = encoder.rename(encoder.with_name("gone"))
    try:
        with pytest.raises(WaitedError, match="next start") as raised:
            at_desk.night(0)
    finally:
        gone.rename(encoder)
    assert raised.value.exit_code == 4
    assert at_desk.night(0).exit_code == 0


def test_too_few_scored_is_tried_again_until_the_open(at_desk: Desk) -> None:
    behind = tuple(sorted(at_desk.workspace.config.watchlist)[:4])
    short = at_desk.night(0, behind=behind)
    assert (short.exit_code, short.nights[0].state) == (4, "open")
    assert "4 of 8" in short.nights[0].reason
    assert len(at_desk.forecasts()) == 8
    assert not (at_desk.folder / "reports" / "forecasts" / "latest").exists()
    done = at_desk.night(0, evening(0, 40))
    assert (done.exit_code, done.nights[0].published) == (0, True)
    rows = at_desk.forecasts()
    newest = rows.sort_values("made_at").drop_duplicates(["ticker", "model_id"], keep="last")
    assert len(newest) == 16
    assert set(rows["standing"]) == {"live"}
    assert Ledger.open(at_desk.workspace, session(0)).attempts == 2


def test_a_lower_limit_publishes_what_fell_short_before(at_desk: Desk) -> None:
    behind = tuple(sorted(at_desk.workspace.config.watchlist)[:4])
    at_desk.night(0, behind=behind)
    at_desk.overrides = [PRICES, "nightly.coverage=0.5"]
    done = at_desk.night(0, evening(0, 40), behind=behind)
    assert (done.nights[0].state, done.nights[0].published) == ("complete", True)
    assert latest(at_desk).startswith("2018-11-02/")


def test_too_few_scored_is_completed_as_it_is_after_the_open(at_desk: Desk) -> None:
    behind = tuple(sorted(at_desk.workspace.config.watchlist)[:4])
    at_desk.night(0, behind=behind)
    before = at_desk.forecasts()
    done = at_desk.night(0, noon_after(0))
    assert (done.exit_code, done.nights[0].state, done.nights[0].published) == (4, "complete", False)
    assert len(at_desk.forecasts()) == len(before)
    assert at_desk.night(0, noon_after(0)).nights == ()
    assert at_desk.night(1).exit_code == 0


def test_a_night_broken_off_before_the_open_is_not_called_live_after_it(
    at_desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("pipelines.nightly.job.score_night", stop)
        with pytest.raises(KeyboardInterrupt):
            at_desk.night(0)
    assert at_desk.night(0, noon_after(0)).exit_code == 0
    assert set(at_desk.forecasts()["standing"]) == {"late"}


def test_an_altered_champion_is_refused_and_the_night_stays_open(at_desk: Desk) -> None:
    weights = at_desk.folder / "runs" / at_desk.champion / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ModelError, match=at_desk.champion):
        at_desk.night(0)
    assert counts(at_desk)["forecasts"] == 0
    replace_file(weights, content)
    done = at_desk.night(0)
    assert (done.exit_code, done.nights[0].published) == (0, True)


def test_another_champion_goes_on_where_one_was_refused(at_desk: Desk) -> None:
    weights = at_desk.folder / "runs" / at_desk.champion / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelError, match=at_desk.champion):
        at_desk.night(0)
    other = at_desk.challenger
    promote(at_desk.folder / "runs", other, evening(0, 20))
    assert night_of(at_desk.workspace, session(0)) is None  # by hand, too, the champion of now is taken
    done = at_desk.night(0, evening(0, 30))
    assert (done.exit_code, done.nights[0].published) == (0, True)
    assert latest(at_desk) == f"2018-11-02/{other}"


def test_an_in_sample_champion_is_refused(at_desk: Desk) -> None:
    later = evening(8)
    ingest_prices(at_desk.workspace, lambda: later, lambda *_: Tape(later))
    split = 'split={train_end="2018-10-01", valid_end="2018-11-09", test_end="2018-11-12"}'
    train(open_workspace(at_desk.folder, [split]), promote=True, clock=lambda: evening(-1))
    with pytest.raises(ModelError, match="labels had all settled"):
        at_desk.night(0)
    assert not Ledger.open(at_desk.workspace, session(0)).complete
    assert counts(at_desk)["forecasts"] == 0


def test_without_a_champion_nothing_is_published(at_desk: Desk) -> None:
    (at_desk.folder / "runs" / "promotions.json").unlink()
    none = at_desk.night(0)
    assert (none.exit_code, none.nights[0].state) == (4, "open")
    assert "tapewire train" in none.nights[0].reason


def test_a_missed_night_has_the_champion_of_its_decision(at_desk: Desk) -> None:
    first, second = at_desk.champion, at_desk.challenger
    at_desk.night(0)
    promote(at_desk.folder / "runs", second, evening(1, 60))
    at_desk.night(2)
    kept = [night_of(at_desk.workspace, session(night)) for night in (1, 2)]
    assert [each.champion for each in kept if each] == [first, second]


def test_a_retired_challenger_is_scored_no_more(at_desk: Desk) -> None:
    retire(at_desk.folder / "runs", at_desk.challenger, evening(-1, 30))
    at_desk.night(0)
    assert set(at_desk.forecasts()["model_id"]) == {at_desk.champion}


@pytest.mark.parametrize(("name", "missing"), [("news", "news.feeds=[]"), ("prices", "watchlist=[]")])
def test_nothing_to_ask_for_is_refused_before_anything_is_begun(at_desk: Desk, name: str, missing: str) -> None:
    at_desk.overrides = [missing]
    with pytest.raises(ConfigError, match=rf'Or leave "{name}" out of nightly\.ingest'):
        at_desk.night(0)
    assert not (at_desk.folder / "nights").exists()


def test_nothing_is_ingested_where_others_do_it(at_desk: Desk) -> None:
    at_desk.overrides = ["nightly.ingest=[]", "news.feeds=[]"]
    assert at_desk.night(0).exit_code == 4  # nobody did
    at_desk.overrides = ["nightly.ingest=['prices']", "news.feeds=[]"]
    assert at_desk.night(0).exit_code == 0
    assert at_desk.server.visits() == []


def test_a_broken_ledger_is_named(at_desk: Desk, tapewire: Any) -> None:
    at_desk.night(0)
    (files(at_desk, 0) / "ledger.json").write_text("{")
    ran = tapewire(at_desk.folder, "nightly", "--set", "nightly.ingest=[]")
    assert (ran.code, ran.out) == (2, "")
    assert "2018-11-01/ledger.json" in ran.err


def test_of_hidden_files_only_our_drafts_are_swept(at_desk: Desk) -> None:
    folder = files(at_desk, 0)
    for name in (".ipynb_checkpoints", ".folder.1"):
        (folder / name).mkdir(parents=True)
    for name in (".ledger.json.4711", ".keep", ".notes.txt"):
        (folder / name).touch()
    assert at_desk.night(0).exit_code == 0
    hidden = sorted(path.name for path in folder.glob(".*"))
    assert hidden == [".folder.1", ".ipynb_checkpoints", ".keep", ".notes.txt"]


def test_a_torn_line_of_the_log_is_cut(at_desk: Desk) -> None:
    everybody = tuple(at_desk.workspace.config.watchlist)
    at_desk.night(0, behind=everybody)
    log = files(at_desk, 0) / "log.jsonl"
    whole = log.read_text()
    log.write_text(whole + '{"at": "2018')
    at_desk.night(0)
    text = log.read_text()
    assert text.startswith(whole)
    assert all(math.isfinite(len(json.loads(line))) for line in text.splitlines())


def test_stamps_are_those_of_the_clock(at_desk: Desk) -> None:
    at_desk.night(0)
    rows = at_desk.forecasts()
    for name in ("made_at", "recorded_at", "cutoff_at"):
        assert set(rows[name].dt.tz_localize(None).to_numpy(dtype="datetime64[us]")) == {np.datetime64(evening(0))}
