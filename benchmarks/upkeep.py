"""A year of nights in the store: look-ups before and after its upkeep, against Delta's own compaction.

`python benchmarks/upkeep.py FOLDER` writes a first year of bars in one commit and a second night by night, then times
reads of the table as it lies, after `maintain`, and after `DeltaTable.optimize.compact`. CPU seconds, medians.
"""

import argparse
import resource
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable, WriterProperties, write_deltalake

from data.lake import CHECKPOINT, ROW_GROUP, Lake, Span
from data.maintenance import maintain
from data.schemas import SCHEMAS

FEW = 100  # tickers that a look-up asks for
LATEST = 60  # sessions that a score reads
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("tapewire-bench"))
    parser.add_argument("--tickers", type=int, default=5_000)
    parser.add_argument("--nights", type=int, default=250)
    options = parser.parse_args()
    folder = options.folder / "upkeep"
    shutil.rmtree(folder, ignore_errors=True)
    make(folder / "as written", options.tickers, options.nights)
    for name in ("maintained", "compacted"):
        shutil.copytree(folder / "as written", folder / name)
    before = peak()
    took = cpu(lambda: maintain(Lake(folder / "maintained"), np.datetime64("now", "us")))
    print(f"maintain: {took:.2f} CPU s, peak {before} to {peak()} MiB")
    print(f"optimize.compact: {cpu(DeltaTable(str(folder / 'compacted' / 'bars')).optimize.compact):.2f} CPU s")
    written = times(Lake(folder / "as written"))
    for name in ("maintained", "compacted"):
        for read, taken in times(Lake(folder / name)).items():
            print(f"{read}: {taken:.3f} CPU s {name}, {written[read] / taken:.1f}x as fast as written")


def times(lake: Lake) -> dict[str, float]:
    """Median CPU seconds of what a night reads."""
    tickers = pd.Series([f"T{number:05d}" for number in range(FEW)])
    since = Span("session", lake.greatest("bars", "session") - np.timedelta64(LATEST * 7 // 5, "D"))
    columns = ["ticker", "session", "version", "close", "available_at"]
    reads: dict[str, Callable[[], object]] = {
        "table opened": lambda: DeltaTable(str(lake.folder / "bars")),
        f"{FEW} tickers looked up": lambda: lake.current_among("bars", tickers, ["close"]),
        f"{LATEST} sessions of all tickers read": lambda: lake.coded("bars", columns, within=since),
        "everything read": lambda: lake.coded("bars", columns),
    }
    return {name: statistics.median(cpu(read) for _ in range(ROUNDS)) for name, read in reads.items()}


def make(folder: Path, tickers: int, nights: int) -> None:
    path, layout = str(folder / "bars"), WriterProperties(max_row_group_size=ROW_GROUP, compression="SNAPPY")
    DeltaTable.create(path, SCHEMAS["bars"], configuration={"delta.checkpointInterval": CHECKPOINT})
    for rows in commits(tickers, nights):
        write_deltalake(path, rows, mode="append", writer_properties=layout)


def commits(tickers: int, nights: int) -> Iterator[pa.Table]:
    """Bars by ticker and session: of as many days as there are nights, then of each night."""
    names = np.array([f"T{number:05d}" for number in range(tickers)])
    days = pd.bdate_range("2015-01-01", periods=2 * nights).to_numpy().astype("datetime64[s]")
    rng = np.random.default_rng(0)
    close = 100 * np.exp(rng.normal(0, 0.02, (tickers, 2 * nights)).cumsum(axis=1))
    for first, end in [(0, nights), *((night, night + 1) for night in range(nights, 2 * nights))]:
        yield bars(names, days[first:end], close[:, first:end].round(4), rng)


def bars(names: np.ndarray, days: np.ndarray, close: np.ndarray, rng: np.random.Generator) -> pa.Table:
    at = pd.DatetimeIndex(np.tile(days, len(names))).tz_localize("UTC")
    price = close.ravel()
    frame = pd.DataFrame({"ticker": np.repeat(names, len(days)), "session": np.tile(days, len(names)), "version": 1})
    frame = frame.assign(open=price, high=price * 1.01, low=price * 0.99, close=price, basis="raw", source="yahoo")
    stamps = {"available_at": at + pd.Timedelta(21, "h"), "recorded_at": at + pd.Timedelta(26, "h"), "origin": "live"}
    frame = frame.assign(volume=rng.lognormal(14, 1, len(price)).round(), **stamps)
    return pa.Table.from_pandas(frame[SCHEMAS["bars"].names], schema=SCHEMAS["bars"], preserve_index=False)


def cpu(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    main()
