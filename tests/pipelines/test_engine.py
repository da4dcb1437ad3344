"""The engine `local`, the choice of one, and how a job is cut into parts."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.embeddings import EmbeddingStore
from data.errors import ConfigError, EncoderError
from encoders.text.load import resolve
from pipelines import embed as embedding
from pipelines.engine import open_engine
from pipelines.engine.local import LOCAL
from pipelines.workspace import open_workspace

Tapewire = Callable[..., Any]


def test_parts_are_done_one_by_one_when_their_results_are_asked_for() -> None:
    done: list[int] = []

    def add(shared: int, part: int) -> int:
        done.append(part)
        return shared + part

    results = LOCAL.map(add, 10, [1, 2, 3])
    assert (next(results), done) == (11, [1])
    assert list(results) == [12, 13]


def test_local_is_the_default_and_has_no_address() -> None:
    with open_engine("local") as engine:
        assert engine is LOCAL
    with pytest.raises(ConfigError, match="--address here:1"), open_engine("local", "here:1"):
        pass


def test_another_name_is_refused(imported: Path, tapewire: Tapewire) -> None:
    for command in ("embed", "ablate"):
        done = tapewire(imported, command, "--engine", "spark")
        assert (done.code, done.out) == (2, "")
        assert "--engine spark: expected local or ray" in done.err


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "pipelines.engine.ray", raising=False)
    with pytest.raises(ConfigError, match="pip install 'tapewire\\[ray\\]'"), open_engine("ray"):
        pass


def test_a_worker_looks_for_the_encoder_on_its_own_machine_and_compares_it(trained: Path, tmp_path: Path) -> None:
    source = resolve(open_workspace(trained).config.text)
    elsewhere = replace(source, folder=tmp_path / "not-here")
    assert embedding._Encoder(elsewhere).reader.source == source
    with pytest.raises(EncoderError, match="expected the files of fingerprint 0123"):
        _ = embedding._Encoder(replace(elsewhere, fingerprint="0123")).reader


class Interrupted:
    """Gives up after some parts, as a killed process does; the store then has those that were stored."""

    name = "interrupted"

    def __init__(self, parts: int) -> None:
        self._parts = parts

    def map(self, function: Callable[[Any, Any], Any], shared: Any, parts: Any) -> Iterator[Any]:
        yield from LOCAL.map(function, shared, parts[: self._parts])
        raise KeyboardInterrupt


def test_a_run_that_was_cut_short_ends_with_the_very_vectors_of_one_that_was_not(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "CPU_PART", {"encoder": 40})
    workspace = open_workspace(trained)
    text = workspace.config.text
    some = embedding.read_texts(workspace.lake, "title")[::4]
    monkeypatch.setattr(embedding, "read_texts", lambda *_: some)
    whole = embedding.embed(workspace.lake, tmp_path / "whole", text)
    for parts in (2, 1):
        with pytest.raises(KeyboardInterrupt):
            embedding.embed(workspace.lake, tmp_path / "cut", text, engine=Interrupted(parts))
    rest = embedding.embed(workspace.lake, tmp_path / "cut", text)
    assert 0 < rest.embedded < whole.embedded
    one, other = (EmbeddingStore.open(tmp_path / name, whole.fingerprint, 384) for name in ("whole", "cut"))
    rows = np.arange(len(one))
    assert len(other) == len(one) == whole.embedded
    assert one.gather(rows).tobytes() == other.gather(rows).tobytes()
