"""What an engine is: something that applies a function to the parts of a job. No engine knows what the job is."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from data.errors import TapewireError

Shared = TypeVar("Shared")
Part = TypeVar("Part")
Result = TypeVar("Result")


class Engine(Protocol):
    """Runs functions of (what all parts share, one part). `name` is what `--engine` calls it."""

    name: str

    def map(
        self, function: Callable[[Shared, Part], Result], shared: Shared, parts: Sequence[Part]
    ) -> Iterator[Result]:
        """`function(shared, part)` of each part, in the order of the parts; no parts, no results.

        The function belongs to a module, and changes neither the disk nor `shared`, whose arrays may be read-only.
        `shared` reaches each process once, so it may keep what is slow to make (`functools.cached_property`).
        An exception of the function's is raised here as it was, at its part's turn, and ends the others.
        """
        ...


class EngineError(TapewireError):
    """Worker processes that die again and again, or a cluster that went away in the middle of a job."""
