"""Fit one model on one fold with Accelerate. Selection looks at the validation fold only, never at the test."""

import copy
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers import get_cosine_schedule_with_warmup

from data.errors import LakeError
from data.features import FEATURES
from data.panel import Panel
from data.scaling import Scaler
from data.splits import Fold
from data.windows import Samples, Windows
from fusion.head import nll
from fusion.model import ForecastModel, build_model
from pipelines.config import TapewireConfig
from pipelines.dataset import eligible, samples, training_rows

EVALUATE_BATCH = 4096


@dataclass(frozen=True)
class Fitted:
    """A trained model on the CPU, in eval mode, with what it was fitted by.

    `settled_at` (UTC) is when the last label used for fitting or early stopping settled.
    """

    model: ForecastModel
    scaler: Scaler
    embedding: int
    valid_loss: float
    epochs: int
    settled_at: np.datetime64


def fit(
    panel: Panel,
    embeddings: npt.NDArray[np.float16],
    fold: Fold,
    config: TapewireConfig,
    seed: int,
    log_folder: Path | None = None,
) -> Fitted:
    """Train until the validation loss stops falling, and keep the weights of its best epoch.

    The same seed on the same machine gives the same weights. Raises LakeError where the training or
    validation fold has no usable sample.
    """
    accelerator = _accelerator(config, log_folder)
    scaler = Scaler.fit(training_rows(panel, fold))
    windows = Windows(
        panel, embeddings, scaler, config.target, config.price.lookback, config.news.window, accelerator.device
    )
    labelled = eligible(panel, config.price.lookback) & ~np.isnan(panel.labels[config.target])
    train, valid = (samples(panel, part, labelled) for part in (fold.train, fold.valid))
    _refuse_empty(train, valid, panel, config)
    set_seed(seed)
    model = build_model(config.price, config.fusion, len(FEATURES), embeddings.shape[1], config.news.window)
    best, loss, epochs = _loop(accelerator, model, windows, train, valid, config, seed)
    accelerator.end_training()
    model = accelerator.unwrap_model(model).cpu().eval()
    model.load_state_dict(best)
    last = max(fold.train[-1], fold.valid[-1])
    return Fitted(model, scaler, embeddings.shape[1], loss, epochs, panel.sessions.target_close[last])


def _loop(
    accelerator: Accelerator,
    model: ForecastModel,
    windows: Windows,
    train: Samples,
    valid: Samples,
    config: TapewireConfig,
    seed: int,
) -> tuple[dict[str, torch.Tensor], float, int]:
    """Best weights, their validation loss, and how many epochs were run."""
    settings = config.train
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=True
    )
    updates = settings.epochs * -(-len(train) // (settings.batch_size * settings.accumulate))
    schedule = get_cosine_schedule_with_warmup(optimizer, int(updates * settings.warmup_share), updates)
    model, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
    order = np.random.default_rng(seed)
    best: dict[str, torch.Tensor] = {}
    best_loss, best_epoch, epoch = np.inf, 0, 0
    while epoch < settings.epochs and epoch - best_epoch < settings.patience:
        epoch += 1
        model.train()
        for rows in _batches(train, settings.batch_size, order, accelerator):
            with accelerator.accumulate(model):
                batch = windows.gather(rows)
                accelerator.backward(nll(model(batch), batch.target_B))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), settings.clip_norm)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
        loss = evaluate(model, windows, valid)
        accelerator.log({"valid_nll": loss, "learning_rate": schedule.get_last_lr()[0]}, step=epoch)
        if loss < best_loss:
            best_loss, best_epoch = loss, epoch
            best = copy.deepcopy(accelerator.unwrap_model(model).state_dict())
    return best, best_loss, epoch


@torch.inference_mode()
def evaluate(model: ForecastModel, windows: Windows, rows: Samples) -> float:
    """Mean negative log likelihood over labelled samples."""
    model.eval()
    total = 0.0
    for start in range(0, len(rows), EVALUATE_BATCH):
        batch = windows.gather(rows.take(np.arange(start, min(start + EVALUATE_BATCH, len(rows)))))
        total += float(nll(model(batch), batch.target_B)) * len(batch.target_B)
    return total / len(rows)


def _batches(train: Samples, size: int, order: np.random.Generator, accelerator: Accelerator) -> Iterator[Samples]:
    """One shuffled epoch; each process takes its own share of every batch."""
    shuffled = order.permutation(len(train))
    for start in range(0, len(train), size):
        share = shuffled[start : start + size][accelerator.process_index :: accelerator.num_processes]
        yield train.take(share)


def _accelerator(config: TapewireConfig, log_folder: Path | None) -> Accelerator:
    """bf16 where a GPU is there and nothing else was asked for; deterministic kernels everywhere."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    precision = config.train.precision
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() else "no"
    accelerator = Accelerator(
        mixed_precision=precision,
        gradient_accumulation_steps=config.train.accumulate,
        log_with="tensorboard" if log_folder else None,
        project_dir=log_folder,
    )
    if log_folder:
        accelerator.init_trackers("tensorboard")
    return accelerator


def _refuse_empty(train: Samples, valid: Samples, panel: Panel, config: TapewireConfig) -> None:
    for name, part in (("training", train), ("validation", valid)):
        if len(part) == 0:
            longest = int(panel.history[:, -1].max())
            raise LakeError(
                f"expected samples in the {name} fold, found none: with lookback {config.price.lookback} a ticker "
                f"needs that many bars before its first sample; the longest history is {longest} bars. Import more prices, "
                "shorten price.lookback, or mend the dates in [split]."
            )
