import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.errors import ModelError
from encoders.text.config import EncoderConfig
from pipelines.bundle import load_bundle
from pipelines.score import score
from pipelines.workspace import open_workspace

MADE_AT = np.datetime64("2024-01-01", "us")


def model_of(workspace: Path) -> Path:
    """The folder of the current model."""
    return workspace / "runs" / load_bundle(workspace / "runs").model_id


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) >= 1, f"{old} is not in {path}"
    path.write_text(text.replace(old, new, 1))


def test_the_manifest_holds_all_that_a_forecast_depends_on(trained: Path) -> None:
    folder = model_of(trained)
    manifest = json.loads((folder / "manifest.json").read_text())
    wanted = {"model_id", "config", "features", "scaler", "text_scaler", "calibration", "text_fingerprint", "files"}
    assert wanted <= set(manifest)
    assert manifest["model_id"] == folder.name
    assert set(manifest["files"]) == {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert manifest["config"]["price"]["lookback"] == 10
    assert not list(folder.parent.glob(".draft*"))


def test_training_again_with_the_same_seed_makes_the_same_model(
    workspace: Path, trained: Path, tapewire: Callable[..., Any]
) -> None:
    before = model_of(trained)
    again = tapewire(workspace, "train", "--json").json
    assert set(again) == {"model", "path", "valid_nll", "epochs"}
    assert again["model"] == before.name
    after = model_of(workspace)
    assert (after / "model.safetensors").read_bytes() == (before / "model.safetensors").read_bytes()
    known = open_workspace(workspace)
    scores = [score(known, load_bundle(each.parent), None, MADE_AT).forecasts for each in (before, after)]
    assert scores[0] == scores[1]


def test_another_seed_makes_another_model_and_both_stay(workspace: Path, tapewire: Callable[..., Any]) -> None:
    first = model_of(workspace).name
    second = tapewire(workspace, "train", "--set", "seeds=[1]", "--json").json["model"]
    assert first != second
    assert {load_bundle(workspace / "runs", each).model_id for each in (first, second)} == {first, second}
    assert load_bundle(workspace / "runs").model_id == second


def test_a_bundle_loads_without_its_workspace_and_forecasts_the_same(workspace: Path, tmp_path: Path) -> None:
    known = open_workspace(workspace)
    expected = score(known, load_bundle(known.runs), None, MADE_AT).forecasts
    moved = tmp_path / "elsewhere"
    (workspace / "runs").rename(moved)
    assert score(known, load_bundle(moved), None, MADE_AT).forecasts == expected


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_a_flipped_bit_of_the_weights_is_refused(workspace: Path, share: float) -> None:
    path = model_of(workspace) / "model.safetensors"
    flip(path, int(share * (path.stat().st_size - 1)))
    with pytest.raises(ModelError, match=r"model\.safetensors: expected sha256"):
        load_bundle(workspace / "runs")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.5, 0.8])
def test_a_flipped_bit_of_what_the_manifest_says_of_forecasts_is_refused(workspace: Path, share: float) -> None:
    path = model_of(workspace) / "manifest.json"
    end = path.read_bytes().index(b'"training"')  # what is known of the model, and no forecast depends on
    flip(path, int(share * end))
    with pytest.raises(ModelError):
        load_bundle(workspace / "runs")


@pytest.mark.parametrize(
    ("old", "new"),
    [('"lookback": 10', '"lookback": 11'), ('"format": 1', '"format": 2'), ('"limit": 6.0', '"limit": 7')],
)
def test_an_edited_manifest_is_refused(workspace: Path, old: str, new: str) -> None:
    replaced(model_of(workspace) / "manifest.json", old, new)
    with pytest.raises(ModelError, match="altered"):
        load_bundle(workspace / "runs")


def test_an_edited_or_broken_date_of_the_last_label_is_refused(workspace: Path) -> None:
    """It decides whether a forecast is called in-sample."""
    path = model_of(workspace) / "manifest.json"
    for old, new in (('"settled_at": "20', '"settled_at": "19'), ('"settled_at": "19', '"settled_at": "x')):
        replaced(path, old, new)
        with pytest.raises(ModelError):
            load_bundle(workspace / "runs")


def test_a_model_saved_before_text_had_kinds_still_loads(workspace: Path) -> None:
    path = model_of(workspace) / "manifest.json"
    manifest = json.loads(path.read_text())
    for key in ("kind", "input", "chunks", "overlap"):
        del manifest["config"]["text"][key]
    del manifest["sha256"]
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]
    path.write_text(json.dumps(manifest | {"sha256": digest}))
    assert load_bundle(workspace / "runs").config == load_bundle(workspace / "runs", path.parent.name).config
    assert load_bundle(workspace / "runs").config.text == EncoderConfig(encoder="minilm")


@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json"])
def test_a_missing_or_truncated_file_is_refused(workspace: Path, name: str) -> None:
    path = model_of(workspace) / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match=path.parent.name):
        load_bundle(workspace / "runs", path.parent.name)
    path.unlink()
    with pytest.raises(ModelError, match=path.parent.name):
        load_bundle(workspace / "runs", path.parent.name)


@pytest.mark.parametrize("manifest", ["", "{}", "[]", "null", '{"model_id": 1}', "<html>"])
def test_what_is_no_manifest_is_refused(workspace: Path, manifest: str) -> None:
    (model_of(workspace) / "manifest.json").write_text(manifest)
    with pytest.raises(ModelError):
        load_bundle(workspace / "runs")


def test_no_model_says_how_to_make_one(imported: Path, tapewire: Callable[..., Any]) -> None:
    refused = tapewire(imported, "score")
    assert refused.code == 2
    assert "tapewire train" in refused.err


def test_an_unknown_model_is_named(trained: Path, tapewire: Callable[..., Any]) -> None:
    refused = tapewire(trained, "score", "--model", "0123456789abcdef")
    assert refused.code == 2
    assert "0123456789abcdef" in refused.err
