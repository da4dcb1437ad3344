"""A year of nights in which everything goes wrong ends as one in which less does, and every night can be had again."""

import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from feed_server import FeedServer
from killing import row_hashes
from night_world import MONTH, YEAR, Plan, Wires, World

from data.lake import Lake
from pipelines.scorecard.card import scorecard
from pipelines.scorecard.verify import verify
from pipelines.workspace import open_workspace

STEPS = ("ingest", "embed", "score", "settle", "report")
FULL = 28  # a full disk, as night_runs says it
# What a report says of the last start alone, and how many there were: a night that is too thin is tried anew by each.
LAST_START = ("attempts", "degraded", "ingested", "embedded")


def run(plan: Plan, folder: Path) -> dict[str, Any]:
    """Both runs and all replays, in a process that has imported everything and done nothing else."""
    import night_runs

    world, answer = World(plan), folder / "answer.json"
    with FeedServer() as server:
        wires = Wires(world, server, folder / "night")
        wires.open()
        places = night_runs.Places(folder, tuple(wires.urls))
        driver = multiprocessing.get_context("spawn").Process(target=night_runs.drive, args=(world, places, answer))
        with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
            driver.start()
        driver.join()
    assert driver.exitcode == 0
    told: dict[str, Any] = json.loads(answer.read_text())
    return told


def published(folder: Path) -> dict[str, str]:
    """Every file of the published forecasts by its hash, and what `latest` points to."""
    root = folder / "reports" / "forecasts"
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    found = {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return found | {"latest": os.readlink(root / "latest")}


def reports(folder: Path, world: World) -> list[dict[str, Any]]:
    """What each night says of itself, but for where its files are."""
    paths = [folder / "nights" / str(world.session(night)) / "report.json" for night in range(world.plan.nights)]
    return [json.loads(path.read_text().replace(str(folder), "")) for path in paths]


def without(names: Sequence[str], report: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name not in names}


def card(folder: Path, world: World) -> dict[str, Any]:
    """The scorecard, with its measures although the nights may be few."""
    later = world.now(world.plan.nights - 1)
    with patch("pipelines.scorecard.card.FEWEST_NIGHTS", 5):
        found = scorecard(open_workspace(folder), lambda: later).as_dict()
    assert all(model["live"]["measures"]["pinball"]["mean"] > 0 for model in found["models"])
    return found


def judge(plan: Plan, folder: Path, told: dict[str, Any]) -> None:
    """All that is said of the two runs, and of the replays."""
    world = World(plan)
    calm, rough = folder / "calm", folder / "rough"
    assert told["kills"] >= plan.kills
    assert told["second_start"] == 75
    assert 28 in told["full"]
    for night, one, other in zip(world.starts, told["calm"], told["rough"], strict=True):
        assert other in ((one, 0) if night in told["disturbed"] else (one,))  # 0: nothing was left to be done
    for night, one, other in zip(range(plan.nights), reports(calm, world), reports(rough, world), strict=True):
        left_out = LAST_START if night in told["disturbed"] else ()
        assert without(left_out, other) == without(left_out, one)
    tables = {name: row_hashes(Lake(place / "lake")) for name, place in (("calm", calm), ("rough", rough))}
    for table, rows in tables["calm"].items():
        assert tables["rough"][table] == rows, table
    assert published(rough) == published(calm)
    assert card(rough, world) == card(calm, world)
    heads = [verify(open_workspace(place)) for place in (calm, rough)]
    assert [head.exit_code for head in heads] == [0, 0]
    assert heads[0].as_dict() == heads[1].as_dict()
    complete(world, Lake(rough / "lake"), rough)
    befell(world, Lake(rough / "lake"))
    assert [replay["differing"] for replay in told["replays"]] == [[]] * plan.nights
    assert {(replay["added"], replay["grew"]) for replay in told["replays"]} == {(0, 0)}
    assert sum(replay["compared"] for replay in told["replays"]) == Lake(rough / "lake").count("forecasts")


def complete(world: World, lake: Lake, folder: Path) -> None:
    """Every night, model and ticker has one forecast or is told why not."""
    rows = lake.frame("forecasts", ["target_session", "ticker", "model_id"])
    assert not rows.duplicated().any()
    made = rows.groupby(["target_session", "model_id"]).size().to_dict()
    assert len(made) == 2 * world.plan.nights
    for night in range(world.plan.nights):
        session = world.session(night)
        ledger = json.loads((folder / "nights" / str(session) / "ledger.json").read_text())
        assert ledger["state"] == "complete"
        scored, target = ledger["steps"]["score"]["result"], pd.Timestamp(world.target(night))
        assert scored["failed"] == {}
        for model_id, record in {ledger["champion"]: scored["champion"], **scored["challengers"]}.items():
            assert made[target, model_id] == record["scored"]
            assert record["scored"] + sum(record["abstained"].values()) == len(world.tickers)


def befell(world: World, lake: Lake) -> None:
    """What the plan says has come to pass: a world in which nothing went wrong would prove nothing."""
    plan, days = world.plan, world.days.labels
    bars = lake.frame("bars", ["ticker", "session", "version", "recorded_at"])
    restated = bars[bars["version"] > 1]
    assert set(zip(restated["ticker"], restated["session"].to_numpy("datetime64[D]"), strict=True)) == {
        (world.tickers[who], days[plan.history + night - back]) for night, (who, back) in plan.restated.items()
    }
    last = list(bars.groupby("ticker")["session"].max().to_numpy("datetime64[D]"))
    gone = {who: days[plan.history + night - 1] for who, (night, _) in plan.delisted.items()}
    assert last == [gone.get(who, days[-1]) for who in range(plan.tickers)]
    states = lake.current("tickers").set_index("ticker")["outcome"]
    assert set(states[states == "ended"].index) == {world.tickers[who] for who in plan.delisted}
    asked = lake.frame("tickers", ["outcome", "recorded_at"])
    for outcome, nights in (("limited", plan.storms), ("failed", [plan.dark])):
        told_at = set(asked.loc[asked["outcome"] == outcome, "recorded_at"].dt.tz_localize(None))
        assert {pd.Timestamp(world.now(night)) for night in nights} <= told_at, outcome
    recorded_at = bars[bars["version"] == 1].set_index(["ticker", "session"])["recorded_at"].dt.tz_localize(None)
    for night, who in plan.late.items():
        session = days[plan.history + night].astype("datetime64[s]")
        assert recorded_at[world.tickers[who], session] == world.now(night + 1)
    splits = lake.current("actions")
    assert len(splits[splits["kind"] == "split"]) == len(plan.split)
    assert {"fed", "failed", "limited"} <= set(lake.frame("feeds")["outcome"])
    headlines = lake.frame("headlines", ["version", "origin"])
    assert (headlines.loc[headlines["origin"] == "live", "version"].max(), len(headlines) > plan.nights) == (2, True)
    champions = [json.loads(record)["champion"] for record in lake.frame("seals").sort_values("night")["record"]]
    first, other = champions[0], champions[plan.promoted]
    expected = [other if plan.promoted <= night < plan.rolled_back else first for night in range(plan.nights)]
    assert first != other
    assert champions == expected
    late = lake.frame("forecasts", ["target_session", "standing"])
    assert set(late["standing"]) == {"live", "late"}
    assert world.session(plan.missed + 1) in set(
        late.loc[late["standing"] == "late", "target_session"].to_numpy("datetime64[D]")
    )


def test_twenty_nights_end_the_same_whatever_befalls_them(tmp_path):
    judge(MONTH, tmp_path, run(MONTH, tmp_path))


@pytest.mark.slow
def test_a_year_of_nights_ends_the_same_whatever_befalls_them(tmp_path):
    told = run(YEAR, tmp_path)
    judge(YEAR, tmp_path, told)
    assert set(told["steps"]) >= set(STEPS), "each step was killed at work"
    assert told["full"].count(FULL) == len(YEAR.full)


def test_the_year_has_every_kind_of_night():
    world = World(YEAR)
    nights = world.days.between(world.session(0), world.session(YEAR.nights - 1))
    hours = [int(str(at)[11:13]) for at in nights.decision_at]
    assert set(hours) == {2, 3}
    assert np.count_nonzero(np.diff(hours)) == 2, "to winter time and back"
    closes = {str(label): str(close)[11:16] for label, close in zip(nights.labels, nights.closes, strict=True)}
    assert (closes["2023-11-22"], closes["2023-11-24"]) == ("21:00", "18:00")  # half a day
    assert "2023-11-23" not in closes  # Thanksgiving
    assert "2024-02-29" in closes
    assert len(nights) == 250
