import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Tapewire = Callable[..., Any]
CONTRACT = {"variants", "paired", "oracle", "n_sessions", "n_rows", "seeds"}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's chain on a market of a size for tests."""
    from data.simulate import MarketConfig
    from pipelines import demo

    def world(name: str, seed: int = 0) -> MarketConfig:
        strength = {} if name == "default" else {"text_strength": 0.0, "interaction_strength": 0.0}
        return MarketConfig(seed=seed, tickers=8, sessions=110, event_rate=0.1, **strength)

    settings = ("price.lookback=5", "price.width=8", "train.epochs=1", "seeds=[0]")
    monkeypatch.setattr(demo, "world", world)
    monkeypatch.setattr(demo, "SETTINGS", (*demo.SETTINGS, *settings))


@pytest.mark.usefixtures("tiny")
def test_the_demo_needs_no_workspace_and_may_be_run_again(tmp_path: Path, tapewire: Tapewire) -> None:
    done = tapewire(tmp_path, "demo", "worlds", "--seed", "4", "--json")
    assert done.code == 0, done.err
    result = done.json
    assert set(result) == CONTRACT
    assert set(result["oracle"]) == set(result["variants"]) == {"price", "text", "both"}
    assert all(-1 <= share <= 1 for share in result["oracle"].values())
    (world,) = (tmp_path / "worlds").iterdir()
    assert {"tapewire.toml", "lake", "runs", "reports"} <= {path.name for path in world.iterdir()}
    again = tapewire(tmp_path, "demo", "worlds", "--seed", "4")
    assert again.code == 0, again.err
    assert "share of oracle" in again.out
    assert "Results: " in again.out
    assert "0 embedded now" in again.err
    scored = tapewire(world, "score", "--json")  # what it leaves is a workspace like any other
    assert scored.json["added"] == 0


@pytest.mark.usefixtures("tiny")
def test_each_world_has_its_own_folder_and_no_oracle_in_the_lake(tmp_path: Path, tapewire: Tapewire) -> None:
    for options in (["--seed", "4"], ["--seed", "4", "--placebo"]):
        assert tapewire(tmp_path, "demo", "worlds", *options).code == 0
    worlds = list((tmp_path / "worlds").iterdir())
    assert len(worlds) == 2
    for world in worlds:
        assert not list((world / "lake").rglob("*oracle*"))


@pytest.mark.slow
def test_the_whole_demo_finds_what_is_there(tmp_path: Path) -> None:
    result = _whole_demo(tmp_path)
    found = {name: metrics["rank_ic"]["mean"] for name, metrics in result["variants"].items()}
    assert found["both"] > max(found["price"], found["text"])
    assert result["paired"]["both-price"]["rank_ic"]["low"] > 0
    assert result["paired"]["both-text"]["rank_ic"]["low"] > 0
    assert found["both"] >= 0.85 * result["oracle"]["both"]


@pytest.mark.slow
def test_where_text_says_nothing_it_is_found_to_add_nothing(tmp_path: Path) -> None:
    """A 95% interval misses the truth in one world of 20, so one world proves little: of three, one may miss."""
    worlds = [_whole_demo(tmp_path, "--placebo", "--seed", str(seed)) for seed in range(3)]
    gains = [world["paired"]["both-price"]["rank_ic"] for world in worlds]
    assert sum(not gain["low"] <= 0 <= gain["high"] for gain in gains) <= 1
    assert abs(sum(gain["mean"] for gain in gains)) / len(gains) < 0.005


def _whole_demo(folder: Path, *options: str) -> Any:
    program = Path(sys.executable).with_name("tapewire")
    done = subprocess.run([program, "demo", folder, "--json", *options], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert set(result) == CONTRACT
    return result
