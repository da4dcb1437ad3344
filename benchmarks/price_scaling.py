"""How a training step of each price encoder grows: exponents fitted to its CPU time against batch and lookback.

    OMP_NUM_THREADS=1 python benchmarks/price_scaling.py [KIND ...]

A step is forward, backward and AdamW at 10 features, width 64 and 2 layers (1 where a kind has no more). The exponent
is the slope of log time over log size, by least squares, so that 1 is linear and 2 quadratic. Fixed costs of a step
press it down, caches that overflow push it up. Time is `process_time` of one thread, the median of several steps.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import get_args

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from encoders.price import PriceEncoderConfig
from encoders.price.tokens import Pretrained

FEATURES, WIDTH, LAYERS = 10, 64, 2
BATCHES, LOOKBACKS = (32, 64, 128, 256, 512, 1024), (20, 40, 80, 160, 320, 480)
LOOKBACK, BATCH = 60, 64  # of what the other one is varied at
SECONDS = 1.0  # of a size at most, three steps at least
TEXTBOOK = {  # in lookback; all are linear in batch
    "lstm": "1",
    "gru": "1",
    "tcn": "~1 (L log L)",  # its depth grows until it sees the whole window
    "mlp": "1",
    "dlinear": "1",
    "transformer": "<= 2",
    "informer": "~1 (L log L)",
    "autoformer": "~1 (L log L)",
    "patchtst": "<= 2 of patches",
    "itransformer": "1",
    "tokens": "1 (its LSTM stack)",
}
UNION: TypeAdapter[PriceEncoderConfig] = TypeAdapter(PriceEncoderConfig)


def main(chosen: list[str]) -> None:
    torch.set_num_threads(1)
    kinds = [member.model_fields["kind"].default for member in get_args(get_args(PriceEncoderConfig)[0])]
    print(f"{'kind':14}{'batch':>7}{'lookback':>10}  {'textbook':16} ms a step at batch {BATCH}, lookback {LOOKBACKS}")
    for kind in chosen or kinds:
        by_batch = [step_seconds(kind, batch, LOOKBACK) for batch in BATCHES]
        by_lookback = [step_seconds(kind, BATCH, lookback) for lookback in LOOKBACKS]
        times = " ".join(f"{1000 * each:.1f}" for each in by_lookback)
        row = f"{kind:14}{exponent(BATCHES, by_batch):7.2f}{exponent(LOOKBACKS, by_lookback):10.2f}"
        print(f"{row}  {TEXTBOOK.get(kind, '?'):16} {times}", flush=True)


def exponent(sizes: tuple[int, ...], seconds: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def step_seconds(kind: str, batch: int, lookback: int) -> float:
    """Median CPU seconds of a training step, after one that is not counted."""
    torch.manual_seed(0)
    encoder = configured(kind, lookback).build(FEATURES)
    if isinstance(encoder, Pretrained):
        encoder.hold()
    encoder.train()
    optimizer = torch.optim.AdamW(encoder.parameters(), fused=True)
    price_BLF, mask_BL = torch.randn(batch, lookback, FEATURES), torch.rand(batch, lookback) < 0.95
    taken: list[float] = []
    while len(taken) < 4 or (sum(taken) < SECONDS and len(taken) < 20):
        start = time.process_time()
        optimizer.zero_grad()
        encoder(price_BLF, mask_BL).pooled_BD.square().mean().backward()
        optimizer.step()
        taken.append(time.process_time() - start)
    return statistics.median(taken[1:])


def configured(kind: str, lookback: int) -> PriceEncoderConfig:
    keys = {"kind": kind, "lookback": lookback, "width": WIDTH}
    try:
        return UNION.validate_python({**keys, "layers": LAYERS})
    except ValidationError:  # a kind of one layer
        return UNION.validate_python(keys)


if __name__ == "__main__":
    main(sys.argv[1:])
