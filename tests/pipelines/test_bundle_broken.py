"""Nothing of a damaged or forged model is opened: each fault is one sentence."""

import io
import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from bundles import REFERENCE, edit, forge, nested, small_stored

from data.errors import ModelError
from pipelines.bundle import Bundle, files_of, load_bundle
from pipelines.bundle_files import FILES, MANIFEST, list_files, make_manifest
from pipelines.bundle_verify import read_stored, training_of
from pipelines.files import write_folder

FIRST_SCHEMA = Path(__file__).parents[1] / "fixtures" / "first_schema" / "runs"
WEIGHTS = "model.safetensors"
FLIPS = 1000

Tree = dict[str, Any]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stored = small_stored(note="naïve", reference={**REFERENCE, "tiny": 1e-07})
    folder = tmp_path_factory.mktemp("runs") / stored.model_id
    write_folder(folder, files_of(stored), folder.with_name(".draft-test"))
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy of a sound model to break."""
    return Path(shutil.copytree(sound, tmp_path / sound.name))


def refused(folder: Path) -> str:
    """The one paragraph that loading ends with."""
    with pytest.raises(ModelError) as caught:
        Bundle.from_pretrained(folder)
    assert "\n\n" not in str(caught.value)
    return str(caught.value)


def test_a_sound_model_opens(sound: Path) -> None:
    assert Bundle.from_pretrained(sound).model_id == sound.name
    assert load_bundle(sound.parent, sound.name).training["reference"]["tiny"] == 1e-07
    assert training_of(sound.parent, sound.name)["note"] == "naïve"


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_every_flipped_bit_is_refused(folder: Path, name: str) -> None:
    """A thousand of them, each anywhere in the folder; every file has its fifth."""
    path = folder / name
    content, draw = path.read_bytes(), np.random.default_rng(len(name))
    paths = list_files(folder)
    accepted = []
    for _ in range(FLIPS // (len(FILES) + 1)):
        at, bit = draw.integers(len(content)), draw.integers(8)
        flipped = bytearray(content)
        flipped[at] ^= 1 << int(bit)
        path.write_bytes(flipped)
        try:
            read_stored(paths, str(folder))
        except ModelError:
            continue
        accepted.append((at, bit))
    assert accepted == []
    path.write_bytes(content)
    read_stored(paths, str(folder))


@pytest.mark.parametrize("name", [MANIFEST, "config.json", "training.json"])
def test_the_case_of_no_letter_is_free(folder: Path, name: str) -> None:
    """The bit that turns 1e-07 into 1E-07, or an escape's digits into others of the same meaning."""
    content, paths = (folder / name).read_bytes(), list_files(folder)
    for at in range(0, len(content), max(1, len(content) // 400)):
        (folder / name).write_bytes(content[:at] + bytes([content[at] ^ 32]) + content[at + 1 :])
        with pytest.raises(ModelError):
            read_stored(paths, str(folder))


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS])
def test_a_flipped_bit_of_the_first_format_is_refused(tmp_path: Path, name: str) -> None:
    source = next(path for path in FIRST_SCHEMA.iterdir() if path.is_dir() and len(path.name) == 16)
    folder = Path(shutil.copytree(source, tmp_path / source.name))
    content, draw, paths = (folder / name).read_bytes(), np.random.default_rng(len(name)), list_files(folder)
    read_stored(paths, str(folder))
    for _ in range(100):
        flipped = bytearray(content)
        flipped[draw.integers(len(content))] ^= 1 << int(draw.integers(8))
        (folder / name).write_bytes(flipped)
        with pytest.raises(ModelError):
            read_stored(paths, str(folder))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text.replace("\n}", "\n }"), id="a blank more"),
        pytest.param(lambda text: json.dumps(json.loads(text)), id="on one line"),
        pytest.param(lambda text: text.replace('"format": 2', '"format": 2.0'), id="a float"),
        pytest.param(lambda text: text.replace('"format": 2', '"format": 1,\n "format": 2'), id="a key twice"),
        pytest.param(lambda text: text.replace('"format"', '"\\u0066ormat"'), id="an escape"),
        pytest.param(lambda text: text.rstrip(), id="no end of line"),
    ],
)
def test_a_manifest_that_means_the_same_is_refused(folder: Path, change: Callable[[str], str]) -> None:
    path = folder / MANIFEST
    path.write_text(change(path.read_text()))
    assert MANIFEST in refused(folder)


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
@pytest.mark.parametrize("share", [None, 0.0, 0.5])
def test_a_file_that_is_missing_empty_or_cut_is_refused(folder: Path, name: str, share: float | None) -> None:
    path = folder / name
    if share is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert name in refused(folder)


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "model.pt", "scaler.pkl", "modeling.py", ".hidden", "model-00001.safetensors", "MODEL"],
)
def test_a_file_that_is_no_part_of_a_model_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(pickle.dumps({"harmless": True}))
    assert repr(name) in refused(folder)


def test_a_folder_and_a_link_in_it_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "more").mkdir()
    assert "'more', no plain file" in refused(folder)
    (folder / "more").rmdir()
    (folder / WEIGHTS).rename(tmp_path / "elsewhere")
    (folder / WEIGHTS).symlink_to(tmp_path / "elsewhere")
    assert f"'{WEIGHTS}', a link" in refused(folder)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/b", "model.bin", ".", ""])
def test_a_manifest_names_no_paths(folder: Path, name: str) -> None:
    contents = {each: (folder / each).read_bytes() for each in FILES}
    contents[name] = contents.pop(WEIGHTS)
    (folder / MANIFEST).write_bytes(make_manifest(folder.name, contents))
    assert "expected the files README.md, config.json, model.safetensors, training.json, found" in refused(folder)


def test_an_absurd_size_is_refused_unread(folder: Path) -> None:
    with (folder / MANIFEST).open("r+b") as file:
        file.truncate(2**40)  # sparse: a terabyte that takes no place
    assert "bytes, found 1099511627776" in refused(folder)


def test_a_model_under_another_name_is_refused(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound, tmp_path / ("0" * 16))
    with pytest.raises(ModelError, match=f"found {sound.name}"):
        load_bundle(tmp_path, "0" * 16)


@pytest.mark.parametrize("name", ["../other", "/etc", "x" * 16, "0" * 16, "a" * 15])
def test_an_id_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="found none"):
        load_bundle(tmp_path, name)


def weights_of(content: bytes) -> dict[str, torch.Tensor]:
    return dict(safetensors.torch.load(content))


def reweighted(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        weights = weights_of(content)
        change(weights)
        return safetensors.torch.save(weights)

    return changed


def pickled(content: bytes) -> bytes:
    buffer = io.BytesIO()
    torch.save(weights_of(content), buffer)
    return buffer.getvalue()


HEAD = "head.project.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(reweighted(lambda w: w.update({HEAD: w[HEAD][:, :-1].clone()})), HEAD, id="shape"),
        pytest.param(reweighted(lambda w: w.update({HEAD: w[HEAD].double()})), "torch.float64", id="dtype"),
        pytest.param(reweighted(lambda w: w.update({HEAD: w[HEAD].half()})), "torch.float16", id="half"),
        pytest.param(reweighted(lambda w: w.pop(HEAD)), f"{HEAD} as torch.float32 [2, 4], found nothing", id="missing"),
        pytest.param(reweighted(lambda w: w.update(extra=torch.zeros(2))), "extra as nothing", id="extra"),
        pytest.param(reweighted(lambda w: w[HEAD].fill_(torch.nan)), f"NaN or infinity in {HEAD}", id="nan"),
        pytest.param(reweighted(lambda w: w[HEAD][0].fill_(torch.inf)), f"NaN or infinity in {HEAD}", id="inf"),
        pytest.param(reweighted(lambda w: w.clear()), "size of its weights", id="no tensors"),
        pytest.param(reweighted(lambda w: w.update({HEAD: w[HEAD].to(torch.float8_e4m3fn)})), "Float8", id="float8"),
        pytest.param(lambda content: pickle.dumps(content), "a pickle, which is never opened", id="pickle"),
        pytest.param(pickled, "a pickle, which is never opened", id="torch.save"),
        pytest.param(lambda content: content[: len(content) // 2], "as safetensors", id="half of it"),
        pytest.param(lambda content: b"", "as safetensors", id="empty"),
        pytest.param(lambda content: b"\xff" * 8 + content[8:], "as safetensors", id="absurd header"),
        pytest.param(lambda content: content + b"\x00", "as safetensors", id="trailing byte"),
    ],
)
def test_forged_weights_are_refused(folder: Path, change: Callable[[bytes], bytes], said: str) -> None:
    forge(folder, WEIGHTS, change)
    assert said in refused(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda tree: tree["scaler"]["centre"].pop(), "expected 24 columns", id="scaler too short"),
        pytest.param(lambda tree: tree["scaler"]["scale"].__setitem__(0, 0.0), "not positive", id="scale of 0"),
        pytest.param(lambda tree: tree["scaler"]["scale"].__setitem__(0, 1e300), "not finite", id="scale beyond float"),
        pytest.param(lambda tree: tree["text_scaler"].update(centre=[], scale=[]), "a scaler", id="no text scaler"),
        pytest.param(lambda tree: tree["text_scaler"].update(limit=-1), "not positive", id="negative limit"),
        pytest.param(lambda tree: tree["scaler"].update(limit="5"), "'5' for a number", id="limit as words"),
        pytest.param(lambda tree: tree["scaler"].update(limit=10**400), "too large", id="limit beyond float"),
        pytest.param(lambda tree: tree["scaler"]["centre"].__setitem__(0, 10**400), "too large", id="centre beyond"),
        pytest.param(lambda tree: tree["calibration"].update(df=10**400), "too large", id="calibration beyond float"),
        pytest.param(lambda tree: tree["calibration"].update(text=True), "True for a number", id="true for a number"),
        pytest.param(lambda tree: tree["text_scaler"]["centre"].append(0), "a scaler", id="text scaler too long"),
        pytest.param(lambda tree: tree["text_scaler"]["centre"].__setitem__(0, "x"), "finite", id="words"),
        pytest.param(lambda tree: tree["calibration"].update(scale=0), "a calibration", id="calibration of width 0"),
        pytest.param(lambda tree: tree["calibration"].update(text=2), "a calibration", id="too much text"),
        pytest.param(lambda tree: tree["calibration"].pop("df"), "df", id="half a calibration"),
        pytest.param(lambda tree: tree["features"].pop(), "features", id="a feature less"),
        pytest.param(lambda tree: tree["features"].reverse(), "features", id="features in another order"),
        pytest.param(lambda tree: tree.pop("scaler"), "scaler", id="no scaler"),
        pytest.param(lambda tree: tree.update(auto_map={"AutoModel": "evil.py"}), "auto_map", id="code"),
        pytest.param(lambda tree: tree.update(text_fingerprint=7), "text_fingerprint", id="fingerprint"),
        pytest.param(lambda tree: tree.update(text_fingerprint=None), "32 hexadecimal digits", id="no fingerprint"),
        pytest.param(lambda tree: tree.update(text_fingerprint="../../x"), "32 hexadecimal digits", id="a path"),
        pytest.param(lambda tree: tree["config"].update(fusion={"kind": "price_only"}), "no text", id="reads no text"),
        pytest.param(lambda tree: tree.update(config=nested(600)), "nested at most 32 deep", id="nested 600 deep"),
        pytest.param(lambda tree: tree.update(config=nested(31)), "nested at most", id="nested 33 deep"),
        pytest.param(lambda tree: tree.update(config=nested(30)), "a: not a key", id="nested 32 deep"),
        pytest.param(lambda tree: tree.update(config=[]), "finite model", id="settings as a list"),
        pytest.param(lambda tree: tree["config"].update(unknown=1), "unknown", id="unknown setting"),
        pytest.param(lambda tree: tree["config"]["price"].update(width=8), "not of these settings", id="another width"),
        pytest.param(lambda tree: tree["config"]["price"].update(layers=2), "not of these settings", id="more layers"),
        pytest.param(lambda tree: tree["config"]["price"].update(layers=10**9), "size of its weights", id="layers"),
        pytest.param(lambda tree: tree["config"]["price"].update(width=10**9), "size of its weights", id="width"),
        pytest.param(lambda tree: tree["config"]["price"].update(lookback=10**9), "10000", id="lookback"),
        pytest.param(
            lambda tree: tree["config"].update(price={"kind": "tcn", "width": 4, "kernel": 10**12}),
            "settings that make a model, found: a tensor of [4, ",
            id="terabytes",
        ),
        pytest.param(
            lambda tree: tree["config"].update(price={"kind": "tcn", "width": 4, "kernel": 10**30}),
            "settings that make a model",
            id="beyond numbers",
        ),
    ],
)
def test_forged_settings_are_refused(folder: Path, change: Callable[[Tree], object], said: str) -> None:
    edit(folder, "config.json", change)
    assert said in refused(folder)


def test_tensors_that_are_small_each_and_huge_together_are_not_made(folder: Path) -> None:
    """A few kilobytes with as many tensors as layers and one as wide as they are, of a model of 126 MB."""
    weights = {"wide": torch.zeros(256), **{str(n): torch.zeros(1) for n in range(60)}}
    forge(folder, WEIGHTS, lambda _: safetensors.torch.save(weights))
    edit(folder, "config.json", lambda tree: tree["config"]["price"].update(layers=60, width=256))
    assert "more than its weights explain" in refused(folder)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda tree: tree.update(settled_at="x"), id="no date"),
        pytest.param(lambda tree: tree.update(settled_at="NaT"), id="never"),
        pytest.param(lambda tree: tree.pop("settled_at"), id="no settled_at"),
        pytest.param(lambda tree: tree.update(epochs="x"), id="no number"),
    ],
)
def test_forged_facts_are_refused(folder: Path, change: Callable[[Tree], object]) -> None:
    """`settled_at` decides whether a forecast is called in-sample."""
    edit(folder, "training.json", change)
    assert "finite model" in refused(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda tree: tree.update(settled_at=0), "settled_at", id="settled_at as a number"),
        pytest.param(lambda tree: tree.update(settled_at="2017"), "settled_at", id="a year"),
        pytest.param(lambda tree: tree.update(settled_at="2017-02-31T00:00:00"), "training", id="no such day"),
        pytest.param(lambda tree: tree.update(tickers=5), "tickers", id="tickers as a number"),
        pytest.param(lambda tree: tree.update(tickers=None), "tickers", id="no tickers"),
        pytest.param(lambda tree: tree.update(sessions={"a": 1}), "sessions", id="sessions as a dict"),
        pytest.param(lambda tree: tree.update(sessions=["2019-01-02"]), "sessions", id="one session"),
        pytest.param(lambda tree: tree.update(rows=[1]), "rows", id="rows as a list"),
        pytest.param(lambda tree: tree.update(reference=[1]), "reference", id="reference as a list"),
        pytest.param(lambda tree: tree.update(reference={"band": 3}), "reference", id="half a reference"),
        pytest.param(lambda tree: tree["reference"].pop("band"), "reference.band", id="no band"),
        pytest.param(lambda tree: tree["reference"].update(news_window=10**30), "news_window", id="beyond numpy"),
        pytest.param(lambda tree: tree["reference"].update(more=nested(600)), "nested", id="nested 600 deep"),
        pytest.param(lambda tree: tree["reference"].update(band=3), "reference.band", id="band as a number"),
        pytest.param(
            lambda tree: tree["reference"]["inputs"].update(x={"edges": ["x"], "counts": [1, 2], "usual": 0.1}),
            "reference.inputs.x.edges",
            id="edges as words",
        ),
        pytest.param(
            lambda tree: tree["reference"]["inputs"].update(x={"edges": [0.0], "counts": [1], "usual": 0.1}),
            "reference.inputs.x",
            id="a count too few",
        ),
    ],
)
def test_forged_facts_are_named(folder: Path, change: Callable[[Tree], object], said: str) -> None:
    """What reads them later takes their shape for granted."""
    edit(folder, "training.json", change)
    assert said in refused(folder)


def test_when_the_last_label_settled_is_under_the_id(folder: Path) -> None:
    """Nobody makes a model look as if it were fitted on less by writing another date beside it."""
    edit(folder, "training.json", lambda tree: tree.update(settled_at="2017-01-01T00:00:00.000000"))
    with pytest.raises(ModelError, match=f"expected the model of this name, found (?!{folder.name})"):
        load_bundle(folder.parent, folder.name)


def test_what_is_told_of_the_lake_and_of_the_test_fold_is_not_under_the_id() -> None:
    ids = {small_stored(reference={**REFERENCE, "news_window": days}).model_id for days in (4, 5)}
    assert len(ids) == 1
    assert len({small_stored(rows={"bars": rows}, last_session=str(rows)).model_id for rows in (4, 5)}) == 1


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1E0"])
def test_a_number_that_is_none_or_written_otherwise_is_refused(folder: Path, number: bytes) -> None:
    forge(folder, "training.json", lambda content: re.sub(rb'("valid_nll": )[0-9.]+', rb"\g<1>" + number, content))
    assert "training.json: expected JSON as Tapewire writes it, of finite numbers" in refused(folder)


def test_an_id_that_is_not_the_models_is_refused(folder: Path) -> None:
    contents = {each: (folder / each).read_bytes() for each in FILES}
    (folder / MANIFEST).write_bytes(make_manifest("0" * 16, contents))
    assert f"hash is {'0' * 16}, found {folder.name}" in refused(folder)


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"format": 2}', "<html>", "[" * 100_000, '{"format": 3}'])
def test_what_is_no_manifest_is_refused(folder: Path, content: str) -> None:
    (folder / MANIFEST).write_text(content)
    assert MANIFEST in refused(folder)
