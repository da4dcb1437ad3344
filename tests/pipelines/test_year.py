"""A year of nights in which everything goes wrong ends as one in which less does, and every night can be had again."""

import hashlib
import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from feed_server import FeedServer
from killing import row_hashes
from night_world import MONTH, YEAR, Plan, Wires, World

from data.lake import Lake
from pipelines.scorecard.card import scorecard
from pipelines.scorecard.verify import verify
from pipelines.workspace import open_workspace

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
    """What each night says of itself, but for where its files are, what its last start met and added, and how often it
    was begun: a night that is too thin to be published is tried anew by every start.
    """
    told = []
    for night in range(world.plan.nights):
        path = folder / "nights" / str(world.session(night)) / "report.json"
        report = json.loads(path.read_text().replace(str(folder), ""))
        told.append({name: value for name, value in report.items() if name not in LAST_START})
    return told


def card(folder: Path, world: World) -> dict[str, Any]:
    later = world.now(world.plan.nights - 1)
    return scorecard(open_workspace(folder), lambda: later).as_dict()


def judge(plan: Plan, folder: Path, told: dict[str, Any]) -> None:
    """All that is said of the two runs, and of the replays."""
    world = World(plan)
    calm, rough = folder / "calm", folder / "rough"
    assert told["kills"] >= plan.kills
    assert told["second_start"] == 75
    assert 28 in told["full"]
    for one, other in zip(told["calm"], told["rough"], strict=True):
        assert other in (one, 0)  # 0: a run that was killed had left nothing to do
    assert reports(rough, world) == reports(calm, world)
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
    made = rows.groupby(["target_session", "model_id"])["ticker"].nunique()
    assert len(made) == 2 * world.plan.nights
    for night in range(world.plan.nights):
        session = world.session(night)
        ledger = json.loads((folder / "nights" / str(session) / "ledger.json").read_text())
        assert ledger["state"] == "complete"
        scored = ledger["steps"]["score"]["result"]
        assert sum(scored["champion"]["abstained"].values()) + scored["champion"]["scored"] == len(world.tickers)


def befell(world: World, lake: Lake) -> None:
    """What the plan says has come to pass: a world in which nothing went wrong would prove nothing."""
    plan, days = world.plan, world.days.labels
    bars = lake.frame("bars", ["ticker", "session", "version"])
    restated = bars[bars["version"] > 1]
    assert set(zip(restated["ticker"], restated["session"].to_numpy("datetime64[D]"), strict=True)) == {
        (world.tickers[who], days[plan.history + night - back]) for night, (who, back) in plan.restated.items()
    }
    last = list(bars.groupby("ticker")["session"].max().to_numpy("datetime64[D]"))
    gone = {who: days[plan.history + night - 1] for who, (night, _) in plan.delisted.items()}
    assert last == [gone.get(who, days[-1]) for who in range(plan.tickers)]
    states = lake.current("tickers").set_index("ticker")["outcome"]
    assert set(states[states == "ended"].index) == {world.tickers[who] for who in plan.delisted}
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
    judge(YEAR, tmp_path, run(YEAR, tmp_path))
