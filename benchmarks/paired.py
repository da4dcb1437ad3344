"""Two ways to do one thing, timed in turn in one process: ratios hold where absolute times do not."""

import statistics
import time
from collections.abc import Callable


def compare(name: str, ours: Callable[[], object], peer: Callable[[], object], rounds: int) -> None:
    """Print the peer's time over ours, round by round, and the median. One uncounted round warms both up."""
    ratios = []
    for turn in range(rounds + 1):
        fast, slow = seconds(ours), seconds(peer)
        if turn:
            ratios.append(slow / fast)
            print(f"round {turn}: ours {fast:.3f} s, peer {slow:.3f} s, ratio {ratios[-1]:.2f}")
    print(f"{name}: {statistics.median(ratios):.2f}x, median of {rounds}")


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
