"""What tests give to an engine to do. A worker imports this module anew, so it imports little itself."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def late_first(_: None, part: int) -> tuple[int, int]:
    """The first parts take longest."""
    time.sleep(max(0.0, 0.4 - part / 10))
    return part, os.getpid()


def threads(_: None, __: int) -> int:
    import torch

    return int(torch.get_num_threads())


def fail(errors: list[Exception], part: int) -> int:
    if part == 3:
        raise errors[0]
    return part


def die_once(marks: Path, part: int) -> int:
    mark = marks / str(part)
    if part % 4 == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return part * part


def die(_: None, __: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Arrived:
    """Notes on disk each time that it is unpacked."""

    log: Path
    values: Any

    def __reduce__(self) -> Any:
        return arrive, (self.log, self.values)


def arrive(log: Path, values: Any) -> Arrived:
    with log.open("a") as file:
        file.write(f"{os.getpid()}\n")
    return Arrived(log, values)


def total(shared: Arrived, part: int) -> float:
    import torch

    return float(torch.from_numpy(shared.values).sum()) + part


class Holder:
    """An actor, which keeps its CPUs for as long as it lives."""

    def here(self) -> None:
        """Answer, so that one knows it has them."""
