import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from bundles import small_model, small_stored
from huggingface_hub import ModelCard

from data.errors import ModelError
from encoders.price import PriceEncoderConfig
from encoders.text.config import EncoderConfig
from fusion.kinds import FusionConfig
from pipelines import bundle_parts
from pipelines.bundle import Bundle, files_of, load_bundle, save_bundle
from pipelines.bundle_files import FILES, MANIFEST
from pipelines.bundle_format1 import _digest
from pipelines.config import TapewireConfig
from pipelines.files import write_folder
from pipelines.promotions import Promotions, promote
from pipelines.score import Ask, score
from pipelines.workspace import open_workspace

FIRST_SCHEMA = Path(__file__).parents[1] / "fixtures" / "first_schema" / "runs"
KINDS, FUSIONS = (
    sorted(config.model_fields["kind"].default for config in get_args(get_args(union)[0]))
    for union in (PriceEncoderConfig, FusionConfig)
)
MADE_AT = np.datetime64("2024-01-01", "us")


def model_of(workspace: Path) -> Path:
    """The folder of the champion."""
    return workspace / "runs" / load_bundle(workspace / "runs").model_id


def forecasts(workspace: Path, bundle: Bundle) -> Any:
    """What the model forecasts, without what says when and by whom."""
    frame = score(open_workspace(workspace), bundle, Ask(store=False), lambda: MADE_AT).frame
    return frame[["ticker", "mean", "prob_up", "data_version"]].to_dict("records")


def saved(seed: int, runs: Path, **facts: Any) -> Path:
    fitted, config = small_model(seed)
    return save_bundle(fitted, config, "f1" * 16, {"tickers": ["AAPL"], **facts}, runs)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_a_model_is_a_folder_as_the_hub_knows_them(trained: Path) -> None:
    folder = model_of(trained)
    assert {path.name for path in folder.iterdir()} == {*FILES, MANIFEST}
    config, training = (json.loads((folder / name).read_text()) for name in ("config.json", "training.json"))
    assert {"config", "features", "scaler", "text_scaler", "calibration", "text_fingerprint"} <= set(config)
    assert config["config"]["price"]["lookback"] == 10
    assert {"settled_at", "valid_nll", "epochs", "rows", "last_session", "tickers", "reference"} <= set(training)
    assert {"bars", "headlines"} <= set(training["rows"])
    assert training["text_encoder"]["name"]
    manifest = json.loads((folder / MANIFEST).read_text())
    assert (manifest["model_id"], set(manifest["files"])) == (folder.name, set(FILES))


def test_the_card_is_read_by_the_hub_and_by_people(trained: Path) -> None:
    card = ModelCard.load(model_of(trained) / "README.md")
    assert card.data.library_name == "tapewire"
    text = " ".join(card.text.split())
    assert "not financial advice" in text
    band = load_bundle(trained / "runs").training["reference"]["band"]
    assert band is None or f"| {band['rank_ic']['low']:.4f} to {band['rank_ic']['high']:.4f} |" in text


def test_a_cards_measures_stand_with_their_error_bars() -> None:
    estimate = {"mean": 0.03125, "sd": 0.2, "low": -0.5, "high": 0.25, "days": 40}
    band = {"sessions": ["2020-01-02", "2020-03-02"], "nights": 40, "rows": 80, "rank_ic": estimate}
    card = ModelCard(files_of(small_stored(reference={"band": band}))["README.md"].decode())
    assert "| Rank IC | 0.0312 | -0.5000 to 0.2500 |" in card.text
    assert [(each.metric_name, each.metric_value) for each in card.data.eval_results] == [("Rank IC", 0.03125)]


def test_training_again_with_the_same_seed_changes_nothing(
    workspace: Path, trained: Path, tapewire: Callable[..., Any]
) -> None:
    before, stamped = model_of(trained), stamps(model_of(workspace))
    again = tapewire(workspace, "train", "--json").json
    assert set(again) == {"model", "path", "valid_nll", "epochs", "role"}
    assert (again["model"], again["role"]) == (before.name, "champion")
    assert stamps(model_of(workspace)) == stamped
    folders = [path.name for path in (workspace / "runs").iterdir() if path.is_dir()]
    assert sorted(folders) == sorted({before.name, "tensorboard"})
    shutil.rmtree(model_of(workspace))
    assert tapewire(workspace, "train", "--json").json == again
    assert contents(model_of(workspace)) == contents(before)


def test_another_seed_makes_a_challenger_and_promote_a_champion(workspace: Path, tapewire: Callable[..., Any]) -> None:
    first, runs = model_of(workspace).name, workspace / "runs"
    trained = tapewire(workspace, "train", "--set", "seeds=[1]")
    second = next(iter(Promotions.read(runs).challengers()))
    assert f"{second} is a challenger of {first}" in trained.out
    assert {load_bundle(runs, each).model_id for each in (first, second)} == {first, second}
    assert load_bundle(runs).model_id == first
    third = tapewire(workspace, "train", "--set", "seeds=[2]", "--promote", "--json").json
    assert third["role"] == "champion"
    assert load_bundle(runs).model_id == third["model"]


def test_a_bundle_loads_without_its_workspace_and_forecasts_the_same(workspace: Path, tmp_path: Path) -> None:
    expected = forecasts(workspace, load_bundle(workspace / "runs"))
    moved = tmp_path / "elsewhere"
    (workspace / "runs").rename(moved)
    assert forecasts(workspace, load_bundle(moved)) == expected
    load_bundle(moved).save_pretrained(tmp_path / "handed-on")
    assert forecasts(workspace, Bundle.from_pretrained(tmp_path / "handed-on")) == expected


def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path) -> None:
    fitted, config = small_model(1)
    bundle = load_bundle(tmp_path, saved(1, tmp_path, note="x").name)
    loaded = bundle.fitted
    assert {name: tensor.numpy().tobytes() for name, tensor in loaded.model.state_dict().items()} == {
        name: tensor.numpy().tobytes() for name, tensor in fitted.model.state_dict().items()
    }
    for mine, theirs in ((loaded.scaler, fitted.scaler), (loaded.text_scaler, fitted.text_scaler)):
        assert (mine.centre.tobytes(), mine.scale.tobytes(), mine.limit) == (
            theirs.centre.tobytes(),
            theirs.scale.tobytes(),
            theirs.limit,
        )
    assert (loaded.calibration, loaded.settled_at, loaded.epochs) == (fitted.calibration, fitted.settled_at, 3)
    assert (bundle.config, bundle.fingerprint, bundle.training["note"]) == (config, "f1" * 16, "x")
    assert not loaded.model.training


@pytest.mark.parametrize(
    "settings",
    [
        *([f"price.kind={kind}"] for kind in KINDS),
        *([f"fusion.kind={kind}"] for kind in FUSIONS),
        ["price.kind=tokens", "price.stack=transformer"],
        ["price.kind=tokens", "price.quantiser=rvq", "price.bins=64"],
    ],
    ids=" ".join,
)
def test_every_kind_loads_and_makes_no_more_than_its_weights_and_its_positions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: list[str]
) -> None:
    fitted, config = small_model(0, "price.lookback=64", "price.width=16", *settings)
    fingerprint = "f1" * 16 if config.fusion.reads_text else None
    folder = save_bundle(fitted, config, fingerprint, {}, tmp_path)
    monkeypatch.setattr(bundle_parts, "MOST", config.price.lookback * config.price.width)
    assert Bundle.from_pretrained(folder).config == config


def test_handing_on_makes_the_same_files(tmp_path: Path) -> None:
    folder = saved(0, tmp_path / "runs")
    Bundle.from_pretrained(folder).save_pretrained(tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(folder)
    stamped = stamps(tmp_path / "copy")
    Bundle.from_pretrained(folder).save_pretrained(tmp_path / "copy")
    assert stamps(tmp_path / "copy") == stamped


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    bundle = Bundle.from_pretrained(saved(0, tmp_path / "runs"))
    with pytest.raises(ModelError, match="another one"):
        bundle.save_pretrained(saved(1, tmp_path / "runs"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ModelError, match=r"thesis\.txt"):
        bundle.save_pretrained(tmp_path / "mine")
    assert contents(tmp_path / "mine") == {"thesis.txt": b"years of work"}
    with pytest.raises(ModelError, match="expected a model's folder"):
        bundle.save_pretrained(tmp_path / "mine" / "thesis.txt")


def test_addresses_and_contacts_stay_at_home(tmp_path: Path) -> None:
    tables = {
        "news": {"feeds": [{"name": "mine", "url": "https://secret.example/rss"}], "fetch": {"contact": "me@secret"}},
        "tape": {"source": "tiingo", "key_env": "SECRET_KEY"},
        "nightly": {"webhook": "https://secret.example/hook"},
    }
    fitted, config = small_model()
    private = TapewireConfig.model_validate({**config.model_dump(), **tables})
    folder = save_bundle(fitted, private, "f1" * 16, {}, tmp_path)
    assert folder == save_bundle(fitted, config, "f1" * 16, {}, tmp_path)
    assert not [name for name, content in contents(folder).items() if b"secret" in content.lower()]


def test_a_model_of_the_first_format_opens_and_keeps_its_id(tmp_path: Path) -> None:
    bundle = load_bundle(FIRST_SCHEMA)
    assert bundle.model_id == (FIRST_SCHEMA / "current").read_text().strip()
    assert "reference" not in bundle.training
    bundle.save_pretrained(tmp_path / "new")
    again = Bundle.from_pretrained(tmp_path / "new")
    assert (again.model_id, again.config, again.training) == (bundle.model_id, bundle.config, bundle.training)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {*FILES, MANIFEST}


def test_a_model_of_the_first_format_that_is_trained_again_has_an_id_of_its_own(tmp_path: Path) -> None:
    """The present id also stands for when its last label settled."""
    old = load_bundle(FIRST_SCHEMA)
    first, second = (save_bundle(old.fitted, old.config, old.fingerprint, {}, tmp_path) for _ in range(2))
    assert first == second
    assert first.name != old.model_id
    assert load_bundle(tmp_path, first.name).fitted.settled_at == old.fitted.settled_at


def test_a_model_saved_before_text_had_kinds_still_loads(tmp_path: Path) -> None:
    source = FIRST_SCHEMA / load_bundle(FIRST_SCHEMA).model_id
    manifest = json.loads((source / MANIFEST).read_text())
    for key in ("kind", "input", "chunks", "overlap"):
        del manifest["config"]["text"][key]
    core = {key: value for key, value in manifest.items() if key not in ("model_id", "training", "sha256")}
    manifest["model_id"] = _digest(core)
    folder = Path(shutil.copytree(source, tmp_path / manifest["model_id"]))
    (folder / MANIFEST).write_text(json.dumps(manifest | {"sha256": _digest(manifest)}, indent=1))
    bundle = load_bundle(tmp_path, folder.name)
    assert bundle.config.text == EncoderConfig(encoder="minilm")
    bundle.save_pretrained(tmp_path / "new")
    assert Bundle.from_pretrained(tmp_path / "new").model_id == folder.name


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"lookback": 10', '"lookback": 11'),
        ('"format": 1', '"format": 2'),
        ('"settled_at": "20', '"settled_at": "19'),
        ('"limit": 6.0', '"limit": 6.00'),
    ],
)
def test_an_edited_manifest_of_the_first_format_is_refused(tmp_path: Path, old: str, new: str) -> None:
    folder = Path(shutil.copytree(FIRST_SCHEMA / load_bundle(FIRST_SCHEMA).model_id, tmp_path / "model"))
    text = (folder / MANIFEST).read_text()
    assert old in text
    (folder / MANIFEST).write_text(text.replace(old, new, 1))
    with pytest.raises(ModelError, match=r"manifest\.json: expected"):
        Bundle.from_pretrained(folder)


class Killed(BaseException):
    """As SIGKILL: nothing in the code under test catches it."""


@pytest.mark.parametrize("step", range(8))
def test_a_save_killed_at_any_step_is_done_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Five files, the draft, its renaming and the folder above are each synced or done in turn."""
    champion = saved(0, tmp_path)
    promote(tmp_path, champion.name, MADE_AT)
    steps = iter(range(100))

    def counted(work: Callable[..., Any]) -> Callable[..., Any]:
        def step_of_it(*args: Any) -> Any:
            if next(steps) == step:
                raise Killed
            return work(*args)

        return step_of_it

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", counted(os.fsync))
        patched.setattr(Path, "rename", counted(Path.rename))
        with pytest.raises(Killed):
            saved(1, tmp_path)
    assert load_bundle(tmp_path).model_id == champion.name
    again = saved(1, tmp_path)
    assert load_bundle(tmp_path, again.name).model_id == again.name
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {champion.name, again.name}


def test_a_full_disk_leaves_neither_a_draft_nor_a_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    champion = saved(0, tmp_path)
    before = contents(champion)

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        for seed in (0, 1):
            if seed:
                with pytest.raises(OSError, match="No space left"):
                    saved(seed, tmp_path)
            else:
                saved(seed, tmp_path)  # there already: nothing is written
    assert contents(champion) == before
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {champion.name}


def test_a_broken_model_is_replaced_and_a_sound_one_is_not_touched(tmp_path: Path) -> None:
    folder = saved(0, tmp_path)
    stamped = stamps(folder)
    assert saved(0, tmp_path, rows={"bars": 7}) == folder
    assert stamps(folder) == stamped
    (folder / "model.safetensors").write_bytes(b"")
    saved(0, tmp_path)
    assert load_bundle(tmp_path, folder.name).model_id == folder.name
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [folder.name]


def test_loading_leaves_torchs_generator_to_whoever_seeds_it(tmp_path: Path) -> None:
    folder = saved(0, tmp_path)
    Bundle.from_pretrained(folder)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Bundle.from_pretrained(folder)
    assert torch.equal(torch.rand(3), expected)


def test_a_draft_is_no_model(tmp_path: Path) -> None:
    stored = small_stored()
    write_folder(tmp_path / stored.model_id, files_of(stored), tmp_path / ".draft-x")
    with pytest.raises(ModelError, match="champion"):
        load_bundle(tmp_path)


def test_no_model_says_how_to_make_one(imported: Path, tapewire: Callable[..., Any]) -> None:
    refused = tapewire(imported, "score")
    assert refused.code == 2
    assert "tapewire train" in refused.err


def test_an_unknown_model_is_named(trained: Path, tapewire: Callable[..., Any]) -> None:
    refused = tapewire(trained, "score", "--model", "0123456789abcdef")
    assert refused.code == 2
    assert "0123456789abcdef" in refused.err
