"""The engine `ray`: the same results as in one process, and what becomes of workers that die.

One file, because a Ray of two CPUs is started for all of it.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import engine_parts
import numpy as np
import pandas as pd
import pytest
import torch
from killing import row_hashes
from simulated_nights import desk

from data.errors import ConfigError, InputError
from data.lake import Lake
from pipelines import embed as embedding
from pipelines.bundle import load_bundle
from pipelines.engine import open_engine
from pipelines.engine.base import Engine, EngineError
from pipelines.engine.local import LOCAL
from pipelines.score import Ask, score
from pipelines.workspace import open_workspace

ray = pytest.importorskip("ray", reason="the ray extra is absent")

Tapewire = Callable[..., Any]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A Ray of two CPUs; its address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # where workers look for engine_parts
        patch.delenv("RAY_ADDRESS", raising=False)
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


@pytest.fixture
def engine(cluster: str) -> Iterator[Engine]:
    with open_engine("ray") as opened:
        yield opened
    assert ray.is_initialized(), "a Ray that was there before is not ours to stop"


def test_results_come_in_the_order_of_more_parts_than_cpus(engine: Engine) -> None:
    results = list(engine.map(engine_parts.late_first, None, range(12)))
    assert [part for part, _ in results] == list(range(12))
    assert os.getpid() not in {process for _, process in results}
    assert list(engine.map(engine_parts.late_first, None, [])) == []


def test_what_is_shared_reaches_a_worker_once(engine: Engine, tmp_path: Path) -> None:
    shared = engine_parts.Arrived(tmp_path / "arrivals", np.ones(1_000_000))
    assert list(engine.map(engine_parts.total, shared, range(20))) == [1_000_000.0 + part for part in range(20)]
    arrivals = shared.log.read_text().split()
    assert len(arrivals) == len(set(arrivals)) <= 3


def test_a_task_has_the_drivers_threads(engine: Engine) -> None:
    before = torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            assert set(engine.map(engine_parts.threads, None, range(4))) == {number}
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "error", [ConfigError("a wrong key"), InputError("a wrong bar", code="gap"), KeyError("a bug of ours")], ids=repr
)
def test_a_failure_is_raised_once_as_it_was(engine: Engine, error: Exception) -> None:
    results = engine.map(engine_parts.fail, [error], range(50))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(type(error)) as raised:
        next(results)
    assert type(raised.value) is type(error)
    assert str(raised.value) == str(error)
    assert vars(raised.value).get("code") == vars(error).get("code")
    assert list(results) == []


def test_workers_may_die(engine: Engine, tmp_path: Path) -> None:
    assert list(engine.map(engine_parts.die_once, tmp_path, range(8))) == [part * part for part in range(8)]
    assert len(list(tmp_path.iterdir())) == 2


def test_workers_that_always_die_are_an_error(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.engine.ray.RETRIES", 1)
    with pytest.raises(EngineError, match=r"part 1 of 1: expected a result .* in 2 attempts"):
        list(engine.map(engine_parts.die, None, [0]))


@pytest.mark.slow
def test_a_machine_whose_cpus_are_taken_does_not_hang(engine: Engine) -> None:
    holder = ray.remote(num_cpus=1.9)(engine_parts.Holder).remote()
    ray.get(holder.here.remote())
    assert [part for part, _ in engine.map(engine_parts.late_first, None, range(6))] == list(range(6))
    ray.kill(holder)


# The jobs: bit for bit what one process gives.


def test_forecasts_agree(engine: Engine, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("predict", "score"):
        monkeypatch.setattr(f"pipelines.{module}.EVALUATE_BATCH", 3)
    workspace = open_workspace(trained)
    bundle = load_bundle(workspace.runs)

    def forecasts(session: str, one: Engine) -> pd.DataFrame:
        ask = Ask(np.datetime64(session), store=False)
        return score(workspace, bundle, ask, lambda: np.datetime64("2019-06-03T12:00", "us"), one).frame

    for session in ("2018-12-03", "2018-12-04"):
        ours, theirs = (forecasts(session, one) for one in (LOCAL, engine))
        assert len(ours) == 8
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


def test_stores_of_embeddings_agree_though_a_worker_is_killed(
    engine: Engine, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "CPU_PART", {"encoder": 24})
    workspace = open_workspace(trained)
    some = embedding.read_texts(workspace.lake, "title")[:200]
    monkeypatch.setattr(embedding, "read_texts", lambda *_: some)
    killed: list[int] = []

    def kill_one(done: int, _: int) -> None:
        if done and not killed and (at_work := workers_at_work()):
            os.kill(at_work[0], signal.SIGKILL)
            killed.append(at_work[0])

    parts = (workspace.lake, tmp_path / "ours"), (workspace.lake, tmp_path / "theirs")
    ours = embedding.embed(*parts[0], workspace.config.text)
    theirs = embedding.embed(*parts[1], workspace.config.text, kill_one, engine)
    assert ours == theirs
    assert ours.embedded == 200
    assert killed
    assert files(tmp_path / "ours") == files(tmp_path / "theirs")


def workers_at_work() -> list[int]:
    """Processes below this one that are in the middle of a part: Ray writes the task into their title."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            if (folder / "cmdline").read_bytes().startswith(b"ray::_run") and os.getpid() in parents(folder):
                found.append(int(folder.name))
    return found


def parents(folder: Path) -> list[int]:
    """Of a process in /proc, up to the first."""
    found = []
    while (parent := int((folder / "stat").read_text().rpartition(")")[2].split()[1])) > 0:
        found.append(parent)
        folder = folder.with_name(str(parent))
    return found


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_ablations_agree(engine: Engine, trained: Path, tmp_path: Path, tapewire: Tapewire) -> None:
    folders = [Path(shutil.copytree(trained, tmp_path / name)) for name in ("local", "ray")]
    for folder in folders:
        done = tapewire(folder, "ablate", "--engine", folder.name, "--set", "seeds=[3, 1]", "--set", "train.epochs=1")
        assert done.code == 0, done.err
    ours, theirs = ((folder / "reports" / "ablation.json").read_bytes() for folder in folders)
    assert ours == theirs


def test_nights_agree(engine: Engine, start: Path, tmp_path: Path) -> None:
    left = []
    for one in (LOCAL, engine):
        with desk(start, tmp_path / one.name) as at_desk:
            at_desk.engine = one
            assert [at_desk.night(night).exit_code for night in (0, 1)] == [0, 0]
            hashes = row_hashes(Lake(at_desk.folder / "lake"))
            tables = {name: hashes[name] for name in ("forecasts", "settlements", "seals")}
            left.append((tables, files(at_desk.folder / "embeddings")))
    assert left[0] == left[1]
    assert [len(rows) for rows in left[0][0].values()] == [32, 16, 2]


# Clusters: one that runs already, one of the job's own, none.


def run_apart(environment: dict[str, str], code: str) -> list[str]:
    """What `code` prints in a process of its own, which must end well and have nothing to complain of."""
    code = f"import ray\nfrom engine_parts import late_first\nfrom pipelines.engine import open_engine\n{code}"
    variables = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    variables |= {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONWARNINGS": "error", **environment}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=150)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.slow
def test_a_running_cluster_is_used_and_left_running(cluster: str) -> None:
    code = """
with open_engine("ray") as engine:
    print(len(list(engine.map(late_first, None, range(3)))), ray.get_runtime_context().gcs_address)
"""
    assert run_apart({"RAY_ADDRESS": cluster}, code) == [f"3 {cluster}"]
    assert ray.cluster_resources()["CPU"] == 2


def test_a_ray_of_the_jobs_own_with_one_cpu_does_not_hang_and_ends_with_the_job() -> None:
    code = """
init, ray.init = ray.init, lambda **options: init(num_cpus=1, **options)
with open_engine("ray") as engine:
    print(len(list(engine.map(late_first, None, range(5)))), ray.cluster_resources()["CPU"])
print(ray.is_initialized())
"""
    assert run_apart({}, code) == ["5 1.0", "False"]


@pytest.mark.parametrize("by", ["--address", "RAY_ADDRESS"])
def test_an_address_where_nobody_answers_is_one_paragraph(
    by: str, imported: Path, tapewire: Tapewire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        if by == "RAY_ADDRESS":
            monkeypatch.setenv(by, address)
        done = tapewire(imported, "ablate", "--engine", "ray", *([by, address] if by == "--address" else []))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"tapewire: {address}: expected the address of a running Ray cluster")
    assert done.err.count("\n") == 1


def test_what_listens_there_and_is_no_ray_is_one_paragraph(
    imported: Path, tapewire: Tapewire, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_up(**_: object) -> None:
        raise SystemExit(15)  # as Ray does in the end

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", give_up)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        done = tapewire(imported, "embed", "--engine", "ray", "--address", address)
    assert (done.code, done.out) == (2, "")
    assert "expected the address of a running Ray cluster" in done.err
