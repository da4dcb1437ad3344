"""What one price encoder costs: time a training step and memory, each configuration in a process of its own.

A step is what training does with a batch: forward, loss, backward, clip, AdamW, in single precision everywhere (on a
GPU fits may use another). Gathering windows, the moving average of the weights and the validation between epochs are
not in it. Imports little, so that a child is up soon.
"""

import resource
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.errors import ConfigError
from data.features import FEATURES
from data.types import Batch, NewsBatch
from encoders.price import PriceEncoderConfig
from encoders.price.tokens import Pretrained
from fusion.head import StudentTHead, session_nll
from fusion.model import build_model
from fusion.price_only import PriceOnlyConfig

BATCH = 128  # samples a step; the largest windows have to fit into a laptop's memory
SESSIONS = 8  # among which the rows of a batch are spread
LONGEST, FEWEST, MOST = 6.0, 2, 7  # seconds to spend on timed steps, and how many at least and at most
STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # Linux alone has them


@dataclass(frozen=True)
class Cost:
    """One configuration on this machine.

    `seconds` a training sample are by `read_clock`, and by the fastest step: what else a machine does can only slow
    one. `bytes` is how far the process's resident memory (on a GPU: what torch allocated) rose above what it held
    before the model was made, at its peak: weights, gradients, AdamW's moments and what a batch of BATCH leaves for
    the backward pass.
    """

    parameters: int
    seconds: float
    bytes: int


def measure_apart(price: PriceEncoderConfig) -> dict[str, Any]:
    """`Cost` of a configuration, JSON-ready, from a fresh process: what was measured before leaves no trace.

    Raises ConfigError where that process dies, as it does for want of memory.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return asdict(pool.submit(measure_cost, price).result())
        except (RuntimeError, MemoryError):  # a broken pool is one, too; torch's own refusals are RuntimeErrors
            raise ConfigError(
                f"{price.kind} at lookback {price.lookback}, width {price.width}, {price.layers} layers: expected a "
                "training step, but its process died, most likely for want of memory. Leave such sizes out with "
                "--lookbacks or --widths."
            ) from None


def measure_cost(price: PriceEncoderConfig) -> Cost:
    """Train on random windows for some steps. Meaningful in a fresh process only: peak memory never falls."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    _warm_up(device)
    before = _peak(device)
    torch.manual_seed(0)
    model = build_model(price, PriceOnlyConfig(), len(FEATURES), 1, 1).to(device)
    if isinstance(model.price, Pretrained):
        model.price.hold()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batch = _random_batch(price.lookback, device)

    def step() -> None:
        session_nll(model(batch), batch.target_B, batch.session_B, 1.0).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step()  # the first one also allocates
    seconds: list[float] = []
    while len(seconds) < FEWEST or (len(seconds) < MOST and sum(seconds) < LONGEST):
        begun = read_clock(device)
        step()
        seconds.append(read_clock(device) - begun)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(parameters, min(seconds) / BATCH, max(_peak(device) - before, 0))


def read_clock(device: torch.device) -> float:
    """Seconds since whenever: processor time of all threads, or on a GPU the wall's, once it has done all it was given.

    A GPU works on while the processor waits or goes ahead, so that processor time says nothing of it.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def growth(sizes: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Exponents of seconds ~ size^k: fitted over all sizes by least squares of logarithms, and between the last two.

    What does not grow with the size flattens the first; the second is nearer to what larger sizes will cost.
    NaN where there are fewer than two sizes.
    """
    if len(sizes) < 2:
        return float("nan"), float("nan")
    size, spent = np.log(sizes), np.log(seconds)
    centred = size - size.mean()
    return float(centred @ spent / (centred @ centred)), float((spent[-1] - spent[-2]) / (size[-1] - size[-2]))


def _peak(device: torch.device) -> int:
    """The most bytes held so far.

    On Linux not `ru_maxrss`, which a child process begins with its parent's.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    if STATUS.exists():
        (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS


def _warm_up(device: torch.device) -> None:
    """Load all that a first step loads, by a head alone, and forget what that held for a moment."""
    head = StudentTHead(4).to(device)
    optimizer = torch.optim.AdamW(head.parameters(), fused=True)
    session_B = torch.zeros(2, dtype=torch.int64, device=device)
    session_nll(head(torch.ones(2, 4, device=device)), torch.zeros(2, device=device), session_B, 1.0).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    with suppress(OSError):
        FORGET.write_text("5")


def _random_batch(lookback: int, device: torch.device) -> Batch:
    def silence(rows: int) -> NewsBatch:
        mask_BK = torch.zeros(rows, 0, dtype=torch.bool, device=device)
        return NewsBatch(torch.zeros(rows, 0, 1, device=device), mask_BK, mask_BK.long(), mask_BK.long())

    session_B: Tensor = torch.arange(BATCH, device=device) % SESSIONS
    return Batch(
        price_BLF=torch.randn(BATCH, lookback, len(FEATURES), device=device),
        mask_BL=torch.ones(BATCH, lookback, dtype=torch.bool, device=device),
        news=silence(BATCH),
        market=silence(SESSIONS),
        market_row_B=session_B,
        target_B=torch.randn(BATCH, device=device),
        unit_B=torch.ones(BATCH, device=device),
        session_B=session_B,
    )
