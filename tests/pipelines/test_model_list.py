import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from bundles import REFERENCE, edit, forge, nested, small_model

from pipelines.bundle import save_bundle
from pipelines.promotions import Promotions

Tapewire = Callable[..., Any]

BAND = {"sessions": ["2020-01-02", "2020-03-02"], "nights": 40, "rows": 80}


@pytest.fixture
def folder(tmp_path: Path, tapewire: Tapewire) -> Path:
    """A workspace with three models, none of them in any role."""
    tapewire(tmp_path, "init", "home")
    return tmp_path / "home"


@pytest.fixture
def models(folder: Path) -> list[str]:
    made = []
    for seed in range(3):
        fitted, config = small_model(seed)
        estimate = {"mean": 0.01 * seed, "sd": 0.1, "low": -0.1, "high": 0.1, "days": 40}
        facts = {
            "tickers": ["AAPL"],
            "sessions": ["2019-01-02"] * 3,
            "reference": {**REFERENCE, "band": {**BAND, "rank_ic": estimate}},
        }
        made.append(save_bundle(fitted, config, "f1" * 16, facts, folder / "runs").name)
    return made


def test_an_empty_workspace_says_how_to_begin(folder: Path, tapewire: Tapewire) -> None:
    assert "tapewire train" in tapewire(folder, "models", "list").out
    assert tapewire(folder, "models", "list", "--json").json == {"champion": None, "challengers": [], "models": []}


def test_promote_challenge_rollback_and_retire(folder: Path, models: list[str], tapewire: Tapewire) -> None:
    first, second, third = models
    assert tapewire(folder, "models", "promote", first, "--json").json["champion"] == first
    assert tapewire(folder, "models", "challenge", third, "--json").json["challengers"] == [third]
    assert tapewire(folder, "models", "promote", second, "--json").json["champion"] == second
    listed = tapewire(folder, "models", "list", "--json").json
    roles = {each["model"]: each["role"] for each in listed["models"]}
    assert roles == {first: "retired", second: "champion", third: "challenger"}
    assert [each["model"] for each in listed["models"]] == [second, third, first]
    assert tapewire(folder, "models", "rollback", "--json").json["champion"] == first
    assert tapewire(folder, "models", "retire", third, "--json").json["challengers"] == []
    assert Promotions.read(folder / "runs").champion() == first


def test_the_list_says_what_is_known_of_each(folder: Path, models: list[str], tapewire: Tapewire) -> None:
    tapewire(folder, "models", "promote", models[2])
    entry = tapewire(folder, "models", "list", "--json").json["models"][0]
    assert {"model", "role", "since", "price", "fusion", "tickers", "settled_at", "valid_nll", "fault"} <= set(entry)
    assert (entry["settled_at"], entry["rank_ic"]["mean"]) == ("2020-01-03T21:00:00.000000+00:00", 0.02)
    line = next(line for line in tapewire(folder, "models", "list").out.splitlines() if line.startswith(models[2]))
    assert all(part in line for part in ("champion", "lstm+finbert", "2020-01-03T21:00", "+0.0200 [-0.1000, +0.1000]"))


def test_a_broken_model_is_listed_with_its_fault(folder: Path, models: list[str], tapewire: Tapewire) -> None:
    tapewire(folder, "models", "promote", models[0])
    (folder / "runs" / models[0] / "model.safetensors").write_bytes(b"")
    listed = {each["model"]: each for each in tapewire(folder, "models", "list", "--json").json["models"]}
    assert "model.safetensors" in listed[models[0]]["fault"]
    assert listed[models[0]]["role"] == "champion"
    assert listed[models[1]]["fault"] == ""
    assert f"{models[0]} cannot be used" in tapewire(folder, "models", "list").out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda at: edit(at, "training.json", lambda tree: tree.update(tickers=5)), "tickers", id="facts"),
        pytest.param(
            lambda at: edit(at, "config.json", lambda tree: tree["scaler"].update(limit=10**400)), "large", id="number"
        ),
        pytest.param(
            lambda at: edit(at, "config.json", lambda tree: tree.update(config=nested(600))), "nested", id="depth"
        ),
        pytest.param(
            lambda at: forge(
                at, "model.safetensors", lambda _: safetensors.torch.save({"x": torch.ones(2).to(torch.float8_e4m3fn)})
            ),
            "Float8",
            id="float8",
        ),
    ],
)
def test_a_forged_model_is_listed_with_its_fault(
    folder: Path, models: list[str], tapewire: Tapewire, change: Callable[[Path], None], said: str
) -> None:
    first = folder / "runs" / models[0]
    change(first)
    forged = json.loads((first / "manifest.json").read_text())["model_id"]
    first.rename(first.with_name(forged))
    ran = tapewire(folder, "models", "list", "--json")
    assert ran.code == 0, ran.err
    listed = {each["model"]: each["fault"] for each in ran.json["models"]}
    assert said in listed[forged]
    assert listed[models[1]] == listed[models[2]] == ""


@pytest.mark.parametrize("command", ["promote", "challenge"])
def test_a_model_that_cannot_be_used_gets_no_role(
    folder: Path, models: list[str], tapewire: Tapewire, command: str
) -> None:
    (folder / "runs" / models[0] / "config.json").unlink()
    for name in (models[0], "0" * 16, "../../etc"):
        assert tapewire(folder, "models", command, name).code == 2
    assert Promotions.read(folder / "runs").events == ()


@pytest.mark.parametrize("command", ["promote", "challenge"])
def test_a_model_of_another_clock_gets_no_role(folder: Path, tapewire: Tapewire, command: str) -> None:
    """Every night would refuse it."""
    fitted, config = small_model(0, "decision=close")
    other = save_bundle(fitted, config, "f1" * 16, {}, folder / "runs").name
    refused = tapewire(folder, "models", command, other)
    assert refused.code == 2
    assert "expected a model of calendar XNYS and decision nightly" in " ".join(refused.err.split())
    assert Promotions.read(folder / "runs").events == ()
    assert tapewire(folder, "models", command, other, "--set", "decision=close").code == 0


def test_a_rollback_to_a_model_of_another_clock_is_refused(folder: Path, models: list[str], tapewire: Tapewire) -> None:
    for name in models[:2]:
        tapewire(folder, "models", "promote", name)
    assert tapewire(folder, "models", "rollback", "--set", "decision=close").code == 2
    assert Promotions.read(folder / "runs").champion() == models[1]


def test_a_rollback_to_a_model_that_is_gone_is_refused(folder: Path, models: list[str], tapewire: Tapewire) -> None:
    for name in models[:2]:
        tapewire(folder, "models", "promote", name)
    (folder / "runs" / models[0] / "config.json").unlink()
    assert tapewire(folder, "models", "rollback").code == 2
    assert Promotions.read(folder / "runs").champion() == models[1]


def test_retire_takes_a_broken_model_but_no_stranger(folder: Path, models: list[str], tapewire: Tapewire) -> None:
    tapewire(folder, "models", "promote", models[0])
    tapewire(folder, "models", "challenge", models[1])
    (folder / "runs" / models[1] / "config.json").unlink()
    assert tapewire(folder, "models", "retire", models[1]).code == 0
    assert Promotions.read(folder / "runs").challengers() == ()
    assert tapewire(folder, "models", "retire", "0" * 16).code == 2
    assert tapewire(folder, "models", "retire", models[0]).code == 2


def test_two_models_side_by_side(folder: Path, models: list[str], tapewire: Tapewire) -> None:
    compared = tapewire(folder, "models", "compare", models[0], models[2], "--json").json
    assert compared["models"] == [models[0], models[2]]
    assert compared["reference"][models[2]]["rank_ic"]["mean"] == 0.02
    assert compared["live"] == {models[0]: None, models[2]: None}
    text = tapewire(folder, "models", "compare", models[0], models[2]).out
    assert "rank_ic +0.0000 [-0.1000, +0.1000] +0.0200 [-0.1000, +0.1000]" in " ".join(text.split())
    assert tapewire(folder, "models", "compare", models[0], "0" * 16).code == 2
