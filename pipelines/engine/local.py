"""The engine without machinery: each part in turn, in this process, when its result is asked for."""

from collections.abc import Callable, Iterator, Sequence

from pipelines.engine.base import Part, Result, Shared


class LocalEngine:
    """See `Engine`."""

    name = "local"

    def map(
        self, function: Callable[[Shared, Part], Result], shared: Shared, parts: Sequence[Part]
    ) -> Iterator[Result]:
        """One part after another; nothing is computed ahead."""
        return (function(shared, part) for part in parts)


LOCAL = LocalEngine()
