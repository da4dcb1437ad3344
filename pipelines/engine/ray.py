"""The engine of many processes and machines: each part is a Ray task. Needs the extra `ray`.

Tasks compute; they read and write nothing of the workspace, which the driver alone does. A worker that dies is
replaced and its part done again. It does not recover from the loss of the cluster itself, and does not send the code
to it: tapewire, in this version, is installed on every machine.
"""

import logging
import os
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from data.errors import ConfigError
from pipelines.engine.base import EngineError, Part, Result, Shared

# What a task asks for. Far less than it uses, which `_Room` sees to: a task finds room on any machine, however small,
# where one that asks for a whole CPU waits for ever if something else holds a part of the last one.
CPU_SHARE = 0.1
RETRIES = 3  # of a part whose worker died
AHEAD = 2  # results that may wait for an earlier one, as a multiple of the tasks that run at once
SECONDS_TO_ANSWER = 5.0


class RayEngine:
    """See `Engine`. Uses the cluster that this process is connected to."""

    name = "ray"

    def map(
        self, function: Callable[[Shared, Part], Result], shared: Shared, parts: Sequence[Part]
    ) -> Iterator[Result]:
        """As many parts at once as the cluster has threads for; results that come early wait for their turn.

        Raises EngineError where a part's workers die again and again.
        """
        if not len(parts):
            return
        room = _Room.of_cluster()
        # In a list, or Ray would give every task its own copy of what the reference stands for.
        kept = [ray.put(shared)]
        task = _run.options(num_cpus=CPU_SHARE, num_gpus=room.gpus, max_retries=RETRIES, scheduling_strategy="SPREAD")
        started = 0
        running: dict[Any, int] = {}
        done: dict[int, Any] = {}
        # Where the reader stops, the few tasks under way come to their end by themselves. Cancelling one can abort
        # this very process in Ray 2.60 ("Tried to complete task that was not pending").
        for turn in range(len(parts)):
            while True:
                while len(running) < room.tasks and started < min(len(parts), turn + AHEAD * room.tasks):
                    running[task.remote(function, kept, parts[started], _Torch.here())] = started
                    started += 1
                if turn in done:
                    break
                for ended in ray.wait(list(running), num_returns=1)[0]:
                    done[running.pop(ended)] = ended
            yield _result(done.pop(turn), turn, len(parts))


@contextmanager
def open_ray(address: str | None) -> Iterator[RayEngine]:
    """The engine on the cluster at `address`, at RAY_ADDRESS, or on one of this machine's own, stopped in the end.

    A process that is connected to a cluster already uses that one and stays connected. Raises ConfigError
    where no cluster answers.
    """
    if ray.is_initialized():
        yield RayEngine()
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _connect(address)
    try:
        yield RayEngine()
    finally:
        ray.shutdown()


def _connect(address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    _refuse_silence(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, RuntimeError, ValueError, SystemExit) as error:  # Ray itself exits where it gives up
        raise _no_cluster(address, error) from error


def _refuse_silence(address: str) -> None:
    """Ray tries for more than a minute to reach what is not there; ask the port first."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:  # "local" or "auto", for which Ray looks on this machine
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: BaseException) -> ConfigError:
    said = " ".join(str(error).split())[:300]
    return ConfigError(
        f"{address}: expected the address of a running Ray cluster, HOST:PORT as `ray start --head` prints it, with "
        f"the same Ray and Python as here, found none ({said}). Mend --address or RAY_ADDRESS, or leave both out: "
        "then Ray is started on this machine."
    )


@dataclass(frozen=True)
class _Room:
    """How many tasks run at once, and how many GPUs each is given."""

    tasks: int
    gpus: int

    @classmethod
    def of_cluster(cls) -> Self:
        """A task a GPU where there are any; else as many as have CPUs for all their threads, and at least one."""
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        if resources.get("CPU", 0) < CPU_SHARE:
            raise EngineError("expected a Ray cluster with CPUs for tasks, found none. Add a machine to it.")
        if gpus := int(resources.get("GPU", 0)):
            return cls(gpus, 1)
        return cls(max(1, int(resources["CPU"] // torch.get_num_threads())), 0)


@dataclass(frozen=True)
class _Torch:
    """The settings of torch on which the last bits of a result depend."""

    threads: int
    deterministic: bool

    @classmethod
    def here(cls) -> Self:
        return cls(torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())

    def set(self) -> None:
        torch.set_num_threads(self.threads)
        torch.use_deterministic_algorithms(self.deterministic)


@ray.remote
def _run(function: Callable[[Any, Any], Any], kept: list[Any], part: Any, settings: _Torch) -> Any:
    settings.set()
    # Arrays of the object store are read-only, all tasks of a machine reading the same memory. No function writes to
    # what is shared (one that did would crash), so there is nothing to warn of.
    warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
    return function(_fetched(kept[0]), part)


@lru_cache(maxsize=1)
def _fetched(reference: Any) -> Any:
    """What the parts share, once a process; that of the job before is let go."""
    return ray.get(reference)


def _result(reference: Any, turn: int, parts: int) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if error.cause is None or isinstance(error.cause, RayError):
            raise _lost(error.cause or error, turn, parts) from error
        raise error.cause from error  # which holds the worker's traceback, for whoever looks for a bug
    except RayError as error:
        raise _lost(error, turn, parts) from error


def _lost(error: RayError, turn: int, parts: int) -> EngineError:
    said = " ".join(str(error).split())[:300]
    return EngineError(
        f"part {turn + 1} of {parts}: expected a result from the Ray cluster, found none in {RETRIES + 1} attempts at "
        f"most ({said}). Usual causes are too little memory for so many tasks at once, and a machine without this "
        "version of tapewire. What was stored before is kept: mend it and run again."
    )
