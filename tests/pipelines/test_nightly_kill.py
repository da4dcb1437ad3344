"""Nights that are killed, started twice, or run out of disk end as if nothing had been."""

import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from feed_server import FeedServer
from killing import row_hashes
from simulated_nights import Forks, run_at, session, wire

from data.lake import Lake
from pipelines.nightly import ledger, page

TABLES = ("forecasts", "settlements", "seals")


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    made = Forks()
    yield made
    made.close()


@pytest.fixture(scope="module")
def server() -> Iterator[FeedServer]:
    with FeedServer() as opened:
        yield opened


@pytest.fixture(scope="module")
def calm(start: Path, tmp_path_factory: pytest.TempPathFactory, forks: Forks, server: FeedServer) -> dict[str, Any]:
    """What an undisturbed night leaves in the lake."""
    folder = tmp_path_factory.mktemp("calm") / "desk"
    shutil.copytree(start, folder)
    assert forks.run(run_at, folder, server.add("/wire.xml", wire(0)), 0) == 0
    return left(folder)


@pytest.fixture
def folder(start: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(start, tmp_path / "desk"))


def left(folder: Path) -> dict[str, Any]:
    """Rows by their hashes, files of the night, and what is published."""
    nights = folder / "nights" / str(session(0))
    hashes = row_hashes(Lake(folder / "lake"))
    return {
        **{table: hashes[table] for table in (*TABLES, "headlines", "bars")},
        "files": sorted(path.name for path in nights.iterdir()),
        "latest": os.readlink(folder / "reports" / "forecasts" / "latest"),
        "state": json.loads((nights / ledger.FILE).read_text())["state"],
    }


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dies_before(module: Any) -> None:
    """The next write is never begun: a step is done, and not in the ledger."""
    module.replace_file = die


def dies_after(module: Any) -> None:
    """The next write is the last."""
    write = module.replace_file

    def once(*args: Any) -> None:
        write(*args)
        die()

    module.replace_file = once


def dying(folder: Path, url: str, how: Any, module: str) -> None:
    run_at(folder, url, 0, lambda: how({"ledger": ledger, "page": page}[module]))


@pytest.mark.slow
def test_a_night_killed_before_and_after_every_write_ends_as_if_it_had_not(
    folder: Path, calm: dict[str, Any], forks: Forks, server: FeedServer
) -> None:
    url, kills = server.url("/wire.xml"), 0
    for _ in range(20):
        before = forks.run(dying, folder, url, dies_before, "ledger")
        after = forks.run(dying, folder, url, dies_after, "ledger")
        assert {before, after} <= {0, -signal.SIGKILL}
        kills += (before == -signal.SIGKILL) + (after == -signal.SIGKILL)
        if after == 0:
            break
    assert kills >= 2 * len(ledger.STEPS)
    assert left(folder) == calm


@pytest.mark.parametrize("module", ["ledger", pytest.param("page", marks=pytest.mark.slow)])
def test_a_night_killed_at_its_writes_ends_as_if_it_had_not(
    folder: Path, calm: dict[str, Any], forks: Forks, server: FeedServer, module: str
) -> None:
    url = server.url("/wire.xml")
    for how in (dies_after, dies_before, dies_after):
        assert forks.run(dying, folder, url, how, module) == -signal.SIGKILL
    assert forks.run(run_at, folder, url, 0) == 0
    assert left(folder) == calm


def holding(folder: Path, url: str) -> None:
    """A run that goes no further than its lock until a file says so."""

    def wait(*_: object) -> None:
        (folder / "asked").touch()
        while not (folder / "go").exists():
            time.sleep(0.01)

    from pipelines.nightly import steps

    ingest = steps.ingest_news
    steps.ingest_news = lambda *args: (wait(), ingest(*args))[1]
    run_at(folder, url, 0)


def test_a_second_start_beside_one_at_work_ends_by_itself(
    folder: Path, calm: dict[str, Any], forks: Forks, server: FeedServer
) -> None:
    other = Forks()
    try:
        other.send(holding, folder, server.url("/wire.xml"))
        until = time.monotonic() + 60
        while not (folder / "asked").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        assert forks.run(run_at, folder, server.url("/wire.xml"), 0) == 75
        (folder / "go").touch()
        assert other.receive() == 0
    finally:
        (folder / "go").touch()
        other.close()
    assert left(folder) == calm


def on_full_disk(folder: Path, url: str, limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    run_at(folder, url, 0)


@pytest.mark.parametrize(
    "limit", [pytest.param(500, marks=pytest.mark.slow), 3_000, 9_000, pytest.param(30_000, marks=pytest.mark.slow)]
)
def test_a_full_disk_ends_a_night_that_the_next_start_completes(
    folder: Path, calm: dict[str, Any], forks: Forks, server: FeedServer, limit: int
) -> None:
    url = server.url("/wire.xml")
    code = forks.run(on_full_disk, folder, url, limit)
    assert code in (4, 0)
    assert code == 4 or limit > 9_000
    assert forks.run(run_at, folder, url, 0) == 0
    assert left(folder) == calm
