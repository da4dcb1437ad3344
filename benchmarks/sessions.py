"""A million stamps to the first decision each may inform, against pandas' merge_asof onto the same decisions."""

import statistics
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from data.calendar import sessions

STAMPS, ROUNDS = 1_000_000, 5


def main() -> None:
    exchange = sessions("XNYS", "nightly")
    start = np.datetime64("2005-01-01", "us")
    spread = np.random.default_rng(0).integers(0, 20 * 365 * 86_400, STAMPS)
    stamps = start + spread.astype("timedelta64[s]")
    decisions = pd.DataFrame({"at": exchange.decision_at, "session": np.arange(len(exchange))})

    def peer() -> pd.DataFrame:
        ordered = pd.DataFrame({"at": stamps}).sort_values("at")
        return pd.merge_asof(ordered, decisions, on="at", direction="forward")

    ratios = []
    for _ in range(ROUNDS):
        ours = seconds(lambda: exchange.first_informed(stamps))
        ratios.append(seconds(peer) / ours)
        print(f"ours {ours:.3f} s, ratio {ratios[-1]:.2f}")
    print(f"sessions: {statistics.median(ratios):.2f}x pandas.merge_asof on {STAMPS} stamps, median of {ROUNDS}")


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
