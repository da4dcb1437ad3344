"""`tapewire import headlines` of each shape of corpus: seconds, peak memory, and the ratio to a bare write.

The peer is `write_deltalake` of the same headlines and links as finished Arrow tables, in the same run: no
parsing, checking, dating, hashing or merging. Each import is its own process. `--rows N` for fewer than a million.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from deltalake import write_deltalake

from data.lake import Lake

SHAPES = ("csv", "jsonl", "jsonl.gz", "parquet", "fnspid.csv", "hf csv", "hf parquet", "hf jsonl")
# Not getrusage: its peak counts what the parent held when it forked.
PEAK = """
import re, sys
from pathlib import Path
from pipelines.cli import main
sys.argv = ["tapewire", *sys.argv[1:]]
try:
    main()
finally:
    print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""


def headlines(rows: int, seed: int = 0) -> pd.DataFrame:
    """Made-up headlines: about 90 characters, one to three tickers an item, stamps over ten years."""
    rng = np.random.default_rng(seed)
    words = np.array([f"{a}{b}" for a in "bcdfgklmnprst" for b in ("alo", "erin", "ick", "onta", "ume", "ashes")])
    titles = [" ".join(words[row]) for row in rng.integers(0, len(words), (rows, 14))]
    stamps = np.datetime64("2010-01-01", "s") + rng.integers(0, 10 * 365 * 86_400, rows).astype("timedelta64[s]")
    frame = pd.DataFrame(
        {
            "published_at": np.char.add(np.datetime_as_string(stamps), "Z"),
            "title": titles,
            "ticker": np.array([f"T{number}" for number in range(5000)])[rng.integers(0, 5000, rows)],
            "url": [f"https://news.example/{number}" for number in range(rows)],
            "source": np.array(["Wire", "Desk", "Daily"])[rng.integers(0, 3, rows)],
        }
    )
    again = rng.random(rows) < 0.1  # the item before, under another ticker
    again[0] = False
    before = np.flatnonzero(again) - 1
    shared = ["published_at", "title", "url", "source"]
    frame.loc[again, shared] = frame.loc[before, shared].to_numpy()
    return frame


def write(frame: pd.DataFrame, shape: str, folder: Path) -> str:
    """The frame as a file or dataset of that shape; what to hand to the command."""
    folder.mkdir()
    path = folder / f"headlines.{shape.split()[-1]}"
    if shape.endswith("fnspid.csv"):
        named = {"published_at": "Date", "title": "Article_title", "ticker": "Stock_symbol", "url": "Url"}
        texts = frame.rename(columns={**named, "source": "Publisher"}).assign(
            Author="", Article='A "long"\nbody. ' * 40
        )
        texts["Date"] = texts["Date"].str.replace("T", " ").str.replace("Z", " UTC")
        texts.to_csv(path)
    elif shape.endswith("csv"):
        frame.to_csv(path, index=False)
    elif shape.endswith("parquet"):
        frame.to_parquet(path, index=False)
    else:
        with gzip.open(path, "wt") if shape.endswith("gz") else path.open("w") as file:
            file.writelines(json.dumps(record) + "\n" for record in frame.to_dict("records"))
    return f"hf:{folder}" if shape.startswith("hf") else str(path)


def bare_seconds(lake: Lake, folder: Path) -> float:
    """Time to write what the import stored, as it lies in memory."""
    tables: dict[str, pa.Table] = {name: lake.read(name) for name in ("headlines", "links")}
    start = time.perf_counter()
    for name, table in tables.items():
        write_deltalake(str(folder / name), table)
    return time.perf_counter() - start


def measure(frame: pd.DataFrame, shape: str, folder: Path) -> None:
    source = write(frame, shape, folder / "corpus")
    tapewire = Path(sys.executable).with_name("tapewire")
    subprocess.run([tapewire, "init", folder / "fund"], check=True, capture_output=True)
    for turn in ("new", "again"):
        start = time.perf_counter()
        command = [sys.executable, "-c", PEAK, "import", "headlines", source, "--json"]
        done = subprocess.run(command, cwd=folder / "fund", check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        result, peak = json.loads(done.stdout), int(done.stderr.split()[-1]) / 1024
        said = f"{shape:>12} {turn:>5}: {seconds:6.1f} s, peak {peak:5.0f} MiB, {result['added']} added"
        if turn == "new":
            bare = bare_seconds(Lake(folder / "fund" / "lake"), folder / "bare")
            said += f", {result['links_added']} links, bare write {bare:.1f} s, ratio {seconds / bare:.1f}"
        print(said, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shapes", nargs="*", default=SHAPES, choices=SHAPES)
    options = parser.parse_args()
    frame = headlines(options.rows)
    for shape in options.shapes:
        with tempfile.TemporaryDirectory() as folder:
            measure(frame, shape, Path(folder))


if __name__ == "__main__":
    main()
