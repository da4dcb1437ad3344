"""`tapewire score` on a night of many tickers: start-up, scoring, memory, and what more tickers or an older lake cost.

    python benchmarks/score.py FOLDER [--tickers 1000 10000] [--years 2]

Random walks of N tickers over some years, a headline about every tenth ticker a session for the last month, vectors
that are random too (they cost what real ones cost), and a model of the default shape that was never trained. Each
lake is made once and kept in FOLDER (50,000 tickers: 3 GB, some minutes). A night is scored by the command itself, in
processes of its own: first all is computed, then nothing, and then by hand, stage by stage.

The peer, in the same run: the same sessions of the same bars read with pyarrow alone, and the two forward passes of
the same model over tensors that lie ready. What stands above it is what scoring adds: the rule about time, features,
hashes, the merge, the files.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from deltalake import DeltaTable

from data.calendar import Sessions, sessions
from data.embeddings import EmbeddingStore
from data.lake import Lake
from data.prices.store import store_batches
from data.text import normalise_all, text_keys

if TYPE_CHECKING:
    from data.types import Batch

LAST = np.datetime64("2024-06-28")
NAMES = ("AT", "A price", "A plan", "A plant", "A deal", "A claim", "A chief", "A rival")
DIMENSION = 768
FINGERPRINT = "be" * 16  # of no encoder: the vectors are random
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000", "THP_MEM_ALLOC_ENABLE": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("tapewire-bench"))
    parser.add_argument("--tickers", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--years", type=int, default=2)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(STEPS[options.only](options.folder)), flush=True)
        os._exit(0)
    started = apart(options.folder, "start")
    print(f"start-up: {told(started)}", flush=True)
    for tickers in options.tickers:
        folder = options.folder / f"score-{tickers}x{options.years}"
        if not (folder / "made").exists():
            make(folder, tickers, options.years)
        show(folder, tickers)


def show(folder: Path, tickers: int) -> None:
    for left in (folder / "lake" / "forecasts", folder / "reports"):
        shutil.rmtree(left, ignore_errors=True)
    first, again = command(folder), command(folder)
    shutil.rmtree(folder / "lake" / "forecasts")
    stages, peer = apart(folder, "stages"), apart(folder, "peer")
    print(f"{tickers} tickers: `tapewire score` {told(first)}; again, nothing to compute, {told(again)}")
    print(f"  after start: {told(stages)}, of it {stages['parts']}")
    print(
        f"  peer: {told(peer)}, of it {peer['parts']}; ratio {stages['cpu'] / peer['cpu']:.2f} in CPU time", flush=True
    )


def told(taken: dict[str, float]) -> str:
    return f"{taken['wall']:.1f} s ({taken['cpu']:.1f} CPU s), peak {taken['peak']:.0f} MiB"


def command(folder: Path) -> dict[str, float]:
    """The command as a process, from its start to its end."""
    ran = [str(Path(sys.executable).with_name("tapewire")), "score", "--json"]
    return _waited(ran, folder)


def apart(folder: Path, step: str) -> dict[str, float]:
    """A step of this file in a process of its own; what it says of itself, else of the whole process."""
    process = subprocess.run(
        [sys.executable, __file__, str(folder), "--only", step],
        check=True,
        stdout=-1,
        env={**ENVIRONMENT, **os.environ},
    )
    said: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return said


def _waited(ran: list[str], folder: Path) -> dict[str, float]:
    begun = time.perf_counter()
    process = subprocess.Popen(ran, cwd=folder, stdout=subprocess.PIPE)
    out = process.stdout.read() if process.stdout else b""
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(ran)} ended with {status}")
    said = json.loads(out)
    print(f"  scored {said['scored']}, added {said['added']}, published {said['published']}", flush=True)
    return _taken(time.perf_counter() - begun, used)


def _taken(wall: float, used: resource.struct_rusage) -> dict[str, float]:
    return {"wall": wall, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss / 1024}


class Watch:
    """Wall and CPU seconds since it was made, and of each stage."""

    def __init__(self) -> None:
        self.parts: dict[str, str] = {}
        self.begun = self.last = (time.perf_counter(), time.process_time())

    def lap(self, name: str) -> None:
        now = (time.perf_counter(), time.process_time())
        self.parts[name] = f"{now[0] - self.last[0]:.2f}s/{now[1] - self.last[1]:.2f}"
        self.last = now

    def taken(self) -> dict[str, object]:
        wall, cpu = (now - then for now, then in zip(self.last, self.begun, strict=True))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"wall": wall, "cpu": cpu, "peak": peak, "parts": self.parts}


# The steps; what they import they time


def start(_: Path) -> dict[str, object]:
    """Everything a night needs imported, and the first batch of a model forecast."""
    begun = time.perf_counter()
    import torch

    import pipelines.score  # noqa: F401
    from fusion.model import build_model
    from pipelines.config import parse_config

    config = parse_config({}, (), "the defaults")
    model = build_model(config.price, config.fusion, 24, DIMENSION, config.news.window).eval()
    with torch.inference_mode():
        model(ready(64, config.price.lookback))
    used = resource.getrusage(resource.RUSAGE_SELF)
    return _taken(time.perf_counter() - begun, used)


def stages(folder: Path) -> dict[str, object]:
    """What `score` does, by its parts; then a publication."""
    import pipelines.score as job
    from pipelines import dataset, decision
    from pipelines.bundle import load_bundle
    from pipelines.instants import utc_now
    from pipelines.workspace import open_workspace

    workspace = open_workspace(folder)
    bundle = load_bundle(workspace.runs)
    watch = Watch()

    def timed(module: object, name: str) -> None:
        inner = getattr(module, name)

        def call(*args: object, **options: object) -> object:
            watch.lap("rest" if name not in watch.parts else "more")
            result = inner(*args, **options)
            watch.lap(name)
            return result

        setattr(module, name, call)

    for module, name in (
        (dataset, "_parts"),
        (dataset, "build_unchecked"),
        (decision, "abstentions"),
        (job, "data_versions"),
        (job, "predict"),
        (job, "publish"),
    ):
        timed(module, name)
    inner = Lake.merge

    def merge(lake: Lake, table: str, rows: pd.DataFrame) -> int:
        watch.lap("rows")
        added = inner(lake, table, rows)
        watch.lap("merge")
        return added

    Lake.merge = merge  # type: ignore[method-assign]
    job.score(workspace, bundle, job.Ask(), utc_now)
    watch.lap("end")
    return watch.taken()


def peer(folder: Path) -> dict[str, object]:
    """The same bars through pyarrow, and the same model over tensors that lie ready."""
    import pyarrow.compute as pc
    import torch

    from pipelines.bundle import load_bundle
    from pipelines.dataset import BAR_COLUMNS, reach
    from pipelines.train import EVALUATE_BATCH

    model, config = (bundle := load_bundle(folder / "runs")).fitted.model, bundle.config
    exchange = sessions("XNYS")
    first = exchange.labels[int(exchange.index([LAST])[0]) - reach(config.price.lookback) + 1]
    table = DeltaTable(folder / "lake" / "bars")
    tickers = table.to_pyarrow_dataset().count_rows(filter=pc.field("session") == LAST.item())
    sizes = [min(EVALUATE_BATCH, tickers - done) for done in range(0, tickers, EVALUATE_BATCH)]
    batches = {size: ready(size, config.price.lookback) for size in set(sizes)}
    watch = Watch()
    table.to_pyarrow_dataset().to_table(columns=BAR_COLUMNS, filter=pc.field("session") >= first.item())
    watch.lap("read")
    with torch.inference_mode():
        for size in sizes:
            model(batches[size])
            model(batches[size].without_news())
    watch.lap("forward")
    return watch.taken()


def ready(size: int, lookback: int) -> "Batch":
    """A batch of noise."""
    import torch

    from data.types import Batch, NewsBatch

    def news(count: int) -> NewsBatch:
        shape = (size, count)
        return NewsBatch(
            torch.randn(*shape, DIMENSION),
            torch.ones(shape, dtype=torch.bool),
            torch.zeros(shape, dtype=torch.int64),
            torch.ones(shape, dtype=torch.int64),
        )

    every, one = torch.zeros(size, dtype=torch.int64), torch.ones(size)
    mask = torch.ones(size, lookback, dtype=torch.bool)
    return Batch(torch.randn(size, lookback, 24), mask, news(3), news(1), every, one, one, every)


STEPS = {"start": start, "stages": stages, "peer": peer}

# The lake


def make(folder: Path, tickers: int, years: int) -> None:
    """Bars, headlines with links and vectors, and a model."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    exchange = sessions("XNYS").between(LAST - np.timedelta64(round(365.25 * years), "D"), LAST)
    names = [f"T{number:05d}" for number in range(tickers)]
    lake, rng = Lake(folder / "lake"), np.random.default_rng(0)
    now = exchange.closes[-1] + np.timedelta64(1, "h")

    def walks() -> Iterator[pd.DataFrame]:
        seeded = np.random.default_rng(1)
        for first in range(0, tickers, 500):
            yield _bars(names[first : first + 500], exchange, seeded)

    store_batches(lake, walks, [], now)
    _news(lake, names, exchange, rng, folder)
    _model(folder)
    (folder / "made").touch()


def _bars(names: list[str], exchange: Sessions, rng: np.random.Generator) -> pd.DataFrame:
    shape = (len(names), len(exchange))
    close = np.exp(rng.normal(0, 0.018, shape).cumsum(axis=1) + rng.uniform(2.5, 6, (len(names), 1)))
    opening = close * np.exp(rng.normal(0, 0.006, shape))
    reach = np.exp(np.abs(rng.normal(0, 0.006, (2, *shape))))
    values = {
        "open": opening,
        "high": np.maximum(opening, close) * reach[0],
        "low": np.minimum(opening, close) / reach[1],
        "close": close,
        "volume": rng.lognormal(14, 1, shape).round(),
    }
    return pd.DataFrame(
        {
            "ticker": np.repeat(names, len(exchange)),
            "session": np.tile(exchange.labels.astype("datetime64[s]"), len(names)),
            **{name: value.round(4).ravel() for name, value in values.items()},
            "basis": "raw",
            "source": "walk",
            "available_at": np.tile(exchange.closes, len(names)),
        }
    )


def _news(lake: Lake, names: list[str], exchange: Sessions, rng: np.random.Generator, folder: Path) -> None:
    """A headline about every tenth ticker a session, over the last 25 sessions."""
    per, days = max(len(names) // 10, 1), 25
    count = per * days
    about = np.concatenate([rng.choice(len(names), per, replace=False) for _ in range(days)])
    stamp = pd.DatetimeIndex(np.repeat(exchange.closes[-days:], per), tz="UTC")
    titles = [
        f"{names[ticker]} says item {number} is worth {number % 97} million" for number, ticker in enumerate(about)
    ]
    stamps = {"available_at": stamp, "recorded_at": stamp, "origin": "backfill"}
    ids = [f"item-{number:08d}" for number in range(count)]
    lake.merge(
        "headlines",
        pd.DataFrame({"id": ids, "version": np.int32(1), "title": titles, "summary": None}).assign(
            source="walk",
            url=None,
            published_at=stamp,
            published_raw=None,
            precision="second",
            first_seen_at=pd.NaT,
            **stamps,
        ),
    )
    linked = {"id": ids, "ticker": [names[ticker] for ticker in about], "rule": "dataset", "confidence": 1.0}
    lake.merge("links", pd.DataFrame(linked).assign(hindsight=False, **stamps))
    store = EmbeddingStore.open(folder / "embeddings", FINGERPRINT, DIMENSION)
    for first in range(0, count, 65_536):
        keys = text_keys(normalise_all(titles[first : first + 65_536]))
        store.append(keys, rng.standard_normal((len(keys), DIMENSION), dtype=np.float32).astype(np.float16))
    store.settle()


def _model(folder: Path) -> None:
    """Of the default shape, with weights as they are drawn."""
    import torch

    from data.features import FEATURES
    from data.scaling import Scaler
    from fusion.calibration import Calibration
    from fusion.model import build_model
    from pipelines.bundle import save_bundle
    from pipelines.config import parse_config, to_toml
    from pipelines.promotions import promote
    from pipelines.train import Fitted

    torch.manual_seed(0)
    config = parse_config({}, (), "the defaults")
    (folder / "tapewire.toml").write_text(to_toml(config))
    width = len(FEATURES)
    model = build_model(config.price, config.fusion, width, DIMENSION, config.news.window).eval()
    plain, text = (Scaler(np.zeros(n, np.float32), np.ones(n, np.float32)) for n in (width, DIMENSION))
    settled_at = LAST.astype("datetime64[us]") - np.timedelta64(99, "D")
    fitted = Fitted(model, plain, text, Calibration(0.5, 1.0, 5.0), 1.0, 1, settled_at)
    saved = save_bundle(fitted, config, FINGERPRINT, {}, folder / "runs")
    promote(folder / "runs", saved.name, settled_at)


if __name__ == "__main__":
    main()
