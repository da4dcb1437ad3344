"""5,000 tickers x 20 years of bars: imported, increased by a night, made a panel; each against a named peer.

`python benchmarks/tape.py FOLDER` makes the bars once and keeps them there. The peers: `write_deltalake` of the bars as
they lie in memory, `DeltaTable.merge` of the night's 5,000 rows by their key, `DeltaTable.to_pyarrow_table` of the
columns that the panel reads. What is timed runs in a process of its own, whose peak (with the libraries, and with what
had to be read first) is given too. `--tickers 500 --years 5` is a quick look.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from deltalake import DeltaTable, write_deltalake
from paired import seconds

from data.calendar import Sessions, sessions
from data.lake import Lake
from data.prices.files import PRICES
from data.prices.store import store_prices
from data.schemas import KEYS
from pipelines.config import parse_config
from pipelines.dataset import BAR_COLUMNS, load_panel
from pipelines.imports import import_prices
from pipelines.workspace import Workspace

LAST = np.datetime64("2024-12-31")
OVERLAP = 10  # sessions that a night's run fetches again
FEW = 100  # tickers that it stores at a time
VALUES = [*PRICES, "volume", "dividend", "split"]
PAIRS = [("import", "write"), ("increment", "merge"), ("increment in parts", "merge"), ("panel", "columns")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("tapewire-bench"))
    parser.add_argument("--tickers", type=int, default=5_000)
    parser.add_argument("--years", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", nargs="*", default=[ours for ours, _ in PAIRS])
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        taken = STEPS[options.only](options.folder)
        print(taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, flush=True)
        os._exit(0)  # the peer's readers outlive the interpreter, which then may abort
    folder = options.folder / f"{options.tickers}x{options.years}"
    make(folder, options.tickers, options.years)
    for ours, peer in PAIRS:
        if ours in options.steps:
            compare(folder, ours, peer, options.rounds)


def compare(folder: Path, ours: str, peer: str, rounds: int) -> None:
    ratios = []
    for turn in range(rounds):
        (our_time, our_peak), (peer_time, peer_peak) = (apart(folder, step) for step in (ours, peer))
        ratios.append(our_time / peer_time)
        print(f"round {turn + 1}: {ours} {our_time:.2f} s, peak {our_peak:.0f} MiB; ", end="")
        print(f"{peer} {peer_time:.2f} s, peak {peer_peak:.0f} MiB; ratio {ratios[-1]:.2f}", flush=True)
    print(f"{ours}: {statistics.median(ratios):.2f}x the time of {peer}, median of {rounds}", flush=True)


def apart(folder: Path, step: str) -> tuple[float, float]:
    """Seconds and peak MiB of one step in a process of its own."""
    command = [sys.executable, __file__, str(folder), "--only", step]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(said[0]), float(said[1])


def make(folder: Path, tickers: int, years: int) -> None:
    """As-traded bars with their dividends and splits, ticker by ticker, where they are not there yet."""
    path = folder / "prices.parquet"
    if path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    exchange = sessions("XNYS").between(LAST - np.timedelta64(365 * years + years // 4, "D"), LAST)
    days = pa.array(exchange.labels.astype(np.int64).astype(np.int32), pa.int32()).cast(pa.date32())
    schema = pa.schema([("ticker", pa.string()), ("date", pa.date32()), *((name, pa.float64()) for name in VALUES)])
    part, rng = path.with_suffix(".part"), np.random.default_rng(0)
    with pyarrow.parquet.ParquetWriter(part, schema) as writer:
        for first in range(0, tickers, 20):
            names = [f"T{number:04d}" for number in range(first, min(first + 20, tickers))]
            values = bars(len(names), len(days), rng)
            columns = [np.repeat(names, len(days)), pa.concat_arrays([days] * len(names)), *map(np.ravel, values)]
            writer.write_table(pa.table(columns, schema=schema))
    part.rename(path)


def bars(tickers: int, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """`VALUES`, [tickers, count]: random walks; a dividend a quarter, and a split in some 2,500 sessions."""
    shape = (tickers, count)
    level = np.exp(rng.normal(0, 0.018, shape).cumsum(axis=1) + rng.uniform(2.5, 6, (tickers, 1)))
    split = np.where(rng.random(shape) < 1 / 2500, 2.0, 0.0)
    close = level / np.cumprod(np.where(split > 0, split, 1), axis=1)
    opening = close * np.exp(rng.normal(0, 0.006, shape))
    reach = np.exp(np.abs(rng.normal(0, 0.006, (2, *shape))))
    high, low = np.maximum(opening, close) * reach[0], np.minimum(opening, close) / reach[1]
    dividend = np.where((np.arange(count) % 63 == rng.integers(0, 63, (tickers, 1))), close * 0.005, 0.0)
    return [
        *(values.round(4) for values in (opening, high, low, close)),
        rng.lognormal(14, 1, shape).round(),
        dividend.round(4),
        split,
    ]


def take_in(folder: Path) -> float:
    shutil.rmtree(folder / "lake", ignore_errors=True)
    lake, path = Lake(folder / "lake"), folder / "prices.parquet"
    return seconds(lambda: import_prices(lake, [path], {}, "XNYS", "raw"))


def write(folder: Path) -> float:
    shutil.rmtree(folder / "bare", ignore_errors=True)
    table = Lake(folder / "lake").read("bars")
    return seconds(lambda: write_deltalake(folder / "bare", table))


def night(table: DeltaTable) -> tuple[pd.DataFrame, np.datetime64, Sessions]:
    """The last sessions stored with one more, as a vendor gives them; the new session."""
    newest = DeltaTable.to_pyarrow_table(table, columns=["session"])["session"].to_numpy().max()
    exchange = sessions("XNYS")
    at = int(exchange.index([newest])[0])
    dataset = table.to_pyarrow_dataset()
    since = pa.scalar(exchange.labels[at - OVERLAP + 1].item())
    rows = dataset.to_table(filter=pa.compute.field("session") >= since).to_pandas(date_as_object=False)
    rows["session"] = rows["session"].astype("datetime64[s]")
    new = rows[rows["session"] == newest].assign(session=exchange.labels[at + 1].astype("datetime64[s]"))
    new["available_at"] = pd.Timestamp(exchange.closes[at + 1], tz="UTC")
    return pd.concat([rows, new], ignore_index=True), exchange.labels[at + 1], exchange


def increment(folder: Path, tickers: int = 1 << 30) -> float:
    lake = Lake(folder / "lake")
    rows, _, exchange = night(DeltaTable(folder / "lake" / "bars"))
    rows["available_at"] = exchange.closes[exchange.index(rows["session"])]
    rows = rows.drop(columns=["version", "recorded_at", "origin"])
    none = pd.DataFrame({"ticker": [], "ex_date": [], "kind": [], "value": []})
    names = rows["ticker"].unique()
    parts = [rows[rows["ticker"].isin(names[at : at + tickers])] for at in range(0, len(names), tickers)]
    now = np.datetime64("2026-01-01", "us")

    def run() -> None:
        stored = sum(store_prices(lake, part, none, now).bars for part in parts)
        if stored != len(names):
            raise ValueError(f"expected {len(names)} new bars, stored {stored}")

    return seconds(run)


def merge(folder: Path) -> float:
    table = DeltaTable(folder / "bare")
    rows, session, _ = night(table)
    new = pa.Table.from_pandas(rows[rows["session"] == session.astype("datetime64[s]")], preserve_index=False)
    source = new.cast(pa.schema(table.schema()))
    same = " and ".join(f"t.{name} = s.{name}" for name in (*KEYS["bars"], "version"))

    def run() -> None:
        merging = table.merge(source, predicate=same, source_alias="s", target_alias="t")
        merging.when_not_matched_insert_all().execute()

    return seconds(run)


def panel(folder: Path) -> float:
    config = parse_config({}, (), "the defaults")
    return seconds(lambda: load_panel(Workspace(folder, config), config))


def columns(folder: Path) -> float:
    return seconds(lambda: DeltaTable(folder / "lake" / "bars").to_pyarrow_table(columns=BAR_COLUMNS))


STEPS: dict[str, Callable[[Path], float]] = {
    "import": take_in,
    "write": write,
    "increment": increment,
    "increment in parts": lambda folder: increment(folder, FEW),
    "merge": merge,
    "panel": panel,
    "columns": columns,
}

if __name__ == "__main__":
    main()
