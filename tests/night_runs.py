"""The simulated year run twice: undisturbed in one process, and with every night in a process that may be killed.

`drive` is for a process of its own that has imported everything and run nothing: Delta's and torch's threads do not
survive a fork, so each piece of work is done by a child, and the process itself only starts, kills and waits.
"""

import json
import multiprocessing
import resource
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

# What each child would import by itself.
import accelerate  # noqa: F401
import numpy as np
import tomli_w
import transformers.models.bert.modeling_bert
import transformers.models.bert.tokenization_bert  # noqa: F401
from night_world import Vendor, World, settings
from sentiments import tiny_encoder

import encoders.text.encode  # noqa: F401
from data.errors import TapewireError
from data.prices import limiter
from pipelines.disk import disk_full
from pipelines.embed import embed
from pipelines.fitting import train
from pipelines.imports import import_headlines
from pipelines.ingest_prices import ingest_prices
from pipelines.nightly.job import nightly
from pipelines.nightly.replay import replay
from pipelines.promotions import Promotions, challenge, promote, rollback
from pipelines.workspace import Workspace, open_workspace

LOCKED = 75
STEPS = ("ingest", "embed", "score", "settle", "report")
PUBLISHED, DEGRADED, NOTHING = 0, 3, 4
ENDS = (PUBLISHED, DEGRADED, NOTHING)
FULL = 28  # a child's own code: ENOSPC

_context = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Places:
    """Folders of one world: the workspace that both runs start from, and theirs. `night` says which night it is."""

    folder: Path
    urls: tuple[str, ...]

    @property
    def night(self) -> Path:
        return self.folder / "night"

    @property
    def start(self) -> Path:
        return self.folder / "start"

    @property
    def calm(self) -> Path:
        return self.folder / "calm"

    @property
    def rough(self) -> Path:
        return self.folder / "rough"


@dataclass
class Told:
    """What happened, for the test to judge."""

    calm: list[int] = field(default_factory=list)  # exit codes of the undisturbed nights
    rough: list[int] = field(default_factory=list)
    disturbed: list[int] = field(default_factory=list)  # nights whose last start was not their first
    kills: int = 0  # that met a run at work
    steps: Counter[str] = field(default_factory=Counter)  # which step of the ledger was not done then
    second_start: int = -1
    full: list[int] = field(default_factory=list)
    replays: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def drive(world: World, places: Places, answer: Path) -> None:
    """Everything, one after the other; what happened stands in `answer` as JSON."""
    told = Told()
    for name, part in (("start", _begin), ("nights", _nights), ("replays", _replays)):
        since = time.monotonic()
        part(world, places, told)
        told.seconds[name] = round(time.monotonic() - since, 1)
    answer.write_text(json.dumps(vars(told)))


def _begin(world: World, places: Places, _told: Told) -> None:
    _finish(_start(build, world, places))
    for folder in (places.calm, places.rough):
        shutil.copytree(places.start, folder)


def _nights(world: World, places: Places, told: Told) -> None:
    """Both runs, night by night side by side, since the feeds know of one night at a time."""
    ours, theirs = _context.Pipe()
    calm = _start(play, world, places.calm, theirs)
    theirs.close()
    early = world.starts[: -max(2, len(world.starts) // 10)]  # the last ones are for kills that met no run
    due = Counter(np.random.default_rng([world.plan.seed, 99]).choice(early, world.plan.kills).tolist())
    seconds = [1.0]
    for night in world.starts:
        places.night.write_text(str(night))
        ours.send(night)
        _rough_night(world, places, night, due, seconds, told)
        told.calm.append(ours.recv())
    ours.send(None)
    _finish(calm)


def _rough_night(world: World, places: Places, night: int, due: Counter[int], seconds: list[float], told: Told) -> None:
    """One night of the disturbed run. `due` are the kills by night, `seconds` what undisturbed nights took so far."""
    plan, job = world.plan, (run_night, world, places.rough, night)
    decide(world, places.rough, night)
    if night == plan.doubled:
        told.second_start = _twice(world, places, night)
    if night in plan.full:
        told.full.append(_finish(_start(run_on_full_disk, plan.full[night], *job[1:]), (*ENDS, FULL)))
    if due[night] or night == plan.doubled or night in plan.full:
        told.disturbed.append(night)
    moments = np.random.default_rng([plan.seed, 98, night]).uniform(0, median(seconds[-5:]), due[night])
    for moment in moments:
        if _killed(job, moment):
            told.kills += 1
            told.steps[_standing(places.rough, world.session(night))] += 1
        else:
            due[night + 1 + (night + 1 == plan.missed)] += 1  # it had ended: the kill is another night's
    since = time.monotonic()
    told.rough.append(_finish(_start(*job), ENDS))
    if not due[night]:
        seconds.append(time.monotonic() - since)


def _replays(world: World, places: Places, told: Told) -> None:
    """Every night again, by two processes: nothing is written."""
    parts = [(range(first, world.plan.nights, 2), places.folder / f"replays-{first}.json") for first in range(2)]
    for child in [_start(replay_all, world, places.rough, *part) for part in parts]:
        _finish(child)
    told.replays = [replayed for _, found in parts for replayed in json.loads(found.read_text())]


def _killed(job: tuple[Any, ...], seconds: float) -> bool:
    """Whether it was still at work when it was killed, so long after its start."""
    child = _start(*job)
    child.join(seconds)
    at_work = child.exitcode is None
    child.kill()
    child.join()
    return at_work and child.exitcode < 0


def _twice(world: World, places: Places, night: int) -> int:
    """The exit code of a start while another is at work, which is held up at its first question to the vendor."""
    asked, go = _context.Event(), _context.Event()
    first = _start(run_night, world, places.rough, night, _Gate(asked, go))
    assert asked.wait(60)
    second = _start(run_night, world, places.rough, night)
    second.join(60)
    code = second.exitcode  # while the first is held: None where it waits for that
    go.set()
    _finish(first, (PUBLISHED, DEGRADED))
    assert code is not None
    return int(code)


@dataclass(frozen=True)
class _Gate:
    asked: Any
    go: Any

    def __call__(self, _ticker: str) -> None:
        self.asked.set()
        self.go.wait()


def _start(job: Callable[..., None], *args: Any) -> Any:
    child = _context.Process(target=job, args=args)
    child.start()
    return child


def _finish(child: Any, codes: tuple[int, ...] = (0,)) -> int:
    child.join()
    assert child.exitcode in codes, child.exitcode
    return int(child.exitcode)


def _standing(folder: Path, session: np.datetime64) -> str:
    """The first step that the night's ledger does not have."""
    path = folder / "nights" / str(session) / "ledger.json"
    steps = json.loads(path.read_text())["steps"] if path.exists() else {}
    return next((name for name in STEPS if steps.get(name, {}).get("state") != "done"), "upkeep")


def build(world: World, places: Places) -> None:
    """The workspace on the eve of night 0: the history's prices and headlines, a champion and a challenger."""
    places.night.write_text("-1")
    encoder = tiny_encoder(places.folder / "encoder")
    places.start.mkdir()
    tables = settings(world, list(places.urls), encoder)
    (places.start / "tapewire.toml").write_text(tomli_w.dumps(tables))
    world.past_headlines().to_parquet(places.folder / "headlines.parquet", index=False)
    workspace, now = open_workspace(places.start), world.now(-1)
    ingest_prices(workspace, lambda: now, lambda *_: Vendor(world, -1))
    import_headlines(workspace.lake, [places.folder / "headlines.parquet"], {}, "XNYS", now=now)
    embed(workspace.lake, workspace.embeddings, workspace.config.text)
    train(workspace, clock=lambda: now)
    train(open_workspace(places.start, ["seeds=[1]"]), clock=lambda: now)


def play(world: World, folder: Path, driver: Any) -> None:
    """Each night that is asked for, all in this process and undisturbed; its exit code is the answer."""
    while (night := driver.recv()) is not None:
        decide(world, folder, night)
        driver.send(_nightly(world, folder, night))


def run_night(world: World, folder: Path, night: int, before: Callable[[str], None] = lambda _ticker: None) -> None:
    """As `tapewire nightly` would: exits with its code."""
    try:
        code = _nightly(world, folder, night, before)
    except TapewireError as error:
        code = error.exit_code
    sys.exit(code)


def run_on_full_disk(limit: int, world: World, folder: Path, night: int) -> None:
    """`run_night` where no file may grow beyond so many bytes; `FULL` where one would have."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        code = _nightly(world, folder, night)
    except Exception as error:
        if not disk_full(error):
            raise
        code = FULL
    sys.exit(code)


def _nightly(world: World, folder: Path, night: int, before: Callable[[str], None] = lambda _ticker: None) -> int:
    now = world.now(night)
    with patch.object(limiter, "FIRST_PAUSE", 0.01):
        return nightly(
            open_workspace(folder), lambda: now, lambda *_: Vendor(world, night, before), lambda _text: None
        ).exit_code


def decide(world: World, folder: Path, night: int) -> None:
    """What a person does before some nights: promotes the challenger, later goes back. Both are always scored."""
    runs, at = folder / "runs", world.now(night) - np.timedelta64(1, "h")
    if night == world.plan.promoted:
        champion, (challenger,) = Promotions.read(runs).champion(), Promotions.read(runs).challengers()
        promote(runs, challenger, at)
        challenge(runs, champion, at)
    if night == world.plan.rolled_back:
        champion = Promotions.read(runs).champion()
        rollback(runs, at)
        challenge(runs, champion, at)


def replay_all(world: World, folder: Path, nights: range, found: Path) -> None:
    """Those nights again, long after; what each replay says."""
    workspace, now = open_workspace(folder), world.now(world.plan.nights - 1) + np.timedelta64(30, "D")
    told = []
    for night in nights:
        before = _forecasts(workspace)
        replayed = replay(workspace, world.session(night), lambda: now)
        told.append(
            {
                "compared": replayed.compared,
                "differing": list(replayed.differing),
                "added": replayed.added,
                "grew": _forecasts(workspace) - before,
            }
        )
    found.write_text(json.dumps(told))


def _forecasts(workspace: Workspace) -> int:
    return workspace.lake.count("forecasts")
