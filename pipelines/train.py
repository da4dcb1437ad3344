"""Fit one model on one fold with Accelerate. Selection looks at the validation fold only, never at the test."""

import copy
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.optim.swa_utils import AveragedModel

from data.errors import LakeError, ModelError
from data.features import FEATURES
from data.panel import Panel
from data.scaling import Scaler
from data.splits import Fold
from data.windows import Samples, Windows, in_order
from fusion.calibration import Calibration, Heard
from fusion.head import Distribution, Prediction, session_nll
from fusion.model import ForecastModel, build_model
from pipelines.config import TapewireConfig
from pipelines.dataset import eligible, samples, training_rows, training_texts
from pipelines.pretrain import pretrain

if TYPE_CHECKING:
    from accelerate import Accelerator

Embeddings = npt.NDArray[np.float16]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

EVALUATE_BATCH = 4096
SHOCK_CLIP = 5.0  # volatilities; one crash must not decide how much the market moves them all


@dataclass(frozen=True)
class Fitted:
    """A trained model on the CPU, in eval mode, with what it was fitted by.

    `settled_at` (UTC) is when the last label used for fitting, early stopping or calibration settled.
    """

    model: ForecastModel
    scaler: Scaler
    text_scaler: Scaler
    calibration: Calibration
    valid_loss: float
    epochs: int
    settled_at: np.datetime64


def fit(
    panel: Panel,
    embeddings: Embeddings,
    fold: Fold,
    config: TapewireConfig,
    seed: int,
    log_folder: Path | None = None,
) -> Fitted:
    """Train until the validation loss stops falling, keep the weights of its best epoch, and calibrate them.

    The same seed on the same machine gives the same weights. Raises LakeError where the training or
    validation fold has no usable sample, ModelError where training diverges.
    """
    from accelerate.utils import set_seed  # seconds to import, and who only forecasts needs none of it

    accelerator = _accelerator(config, log_folder)
    scaler = Scaler.fit(training_rows(panel, fold))
    text_scaler = Scaler.fit_common(embeddings[training_texts(panel, fold)])
    windows = make_windows(panel, embeddings, scaler, text_scaler, config, accelerator.device)
    labelled = eligible(panel, config.price.lookback) & ~np.isnan(panel.labels[config.target])
    train, valid = (samples(part, labelled) for part in (fold.train, fold.valid))
    _refuse_empty(train, valid, panel, config)
    set_seed(seed)
    model = build_model(config.price, config.fusion, len(FEATURES), embeddings.shape[1], config.news.window)
    pretrain(model, panel, fold, scaler, seed, accelerator.device)
    ratio = shock_ratio(_in_units(panel, config.target, train), train.session)
    best, loss, epochs = _loop(accelerator, model, windows, train, valid, ratio, config, seed)
    accelerator.end_training()
    # Without accelerate's wrapper, which would keep autocast: calibrated is what `score` will forecast, in fp32.
    model = accelerator.unwrap_model(model, keep_fp32_wrapper=False).eval()
    model.load_state_dict(best)
    heard = forecast(model, windows, valid)
    calibration = Calibration.fit(heard, _in_units(panel, config.target, valid), valid.session, ratio)
    last = max(fold.train[-1], fold.valid[-1])
    settled_at = panel.sessions.target_close[last]
    return Fitted(model.cpu(), scaler, text_scaler, calibration, loss, epochs, settled_at)


def is_first_process() -> bool:
    """Whether this is the process that writes: the only one, or the first of those of `accelerate launch`."""
    from accelerate import PartialState

    return bool(PartialState().is_main_process)


def make_windows(
    panel: Panel,
    embeddings: Embeddings,
    scaler: Scaler,
    text_scaler: Scaler,
    config: TapewireConfig,
    device: torch.device,
) -> Windows:
    """The panel on `device`, scaled and windowed as the config says."""
    lookback, news_window = config.price.lookback, config.news.window
    return Windows(panel, embeddings, scaler, text_scaler, config.target, lookback, news_window, device)


def shock_ratio(target: Floats, session: Ints) -> float:
    """Variance of targets within sessions over that of the shock a session's tickers share; see `session_nll`."""
    clipped = np.clip(target, -SHOCK_CLIP, SHOCK_CLIP)
    _, index, count = np.unique(session, return_inverse=True, return_counts=True)
    mean = np.bincount(index, clipped) / count
    within = float(np.mean((clipped - mean[index]) ** 2))
    shock = float(np.var(mean) - within * np.mean(1 / count))
    return within / max(shock, 1e-3)


@torch.inference_mode()
def forecast(model: ForecastModel, windows: Windows, rows: Samples) -> Heard:
    """The uncalibrated forecasts of many samples, in their order and in units of their volatility."""
    model.eval()
    news, silence = [], []
    for part in in_order(rows, EVALUATE_BATCH):
        batch = windows.gather(part)
        news.append(model(batch).in_units())
        silence.append(model(batch.without_news()).in_units())
    return Heard(Distribution.concatenate(news), Distribution.concatenate(silence))


def _loop(
    accelerator: "Accelerator",
    model: ForecastModel,
    windows: Windows,
    train: Samples,
    valid: Samples,
    ratio: float,
    config: TapewireConfig,
    seed: int,
) -> tuple[dict[str, torch.Tensor], float, int]:
    """Best weights, their validation loss, and how many epochs were run.

    What is evaluated and kept is the moving average of the weights, which is less noisy than the last step's.
    """
    from transformers import get_cosine_schedule_with_warmup

    settings = config.train
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    updates = settings.epochs * -(-len(train) // (settings.batch_size * settings.accumulate))
    schedule = get_cosine_schedule_with_warmup(optimizer, int(updates * settings.warmup_share), updates)
    average = AveragedModel(model, avg_fn=_averager(settings.average)).to(accelerator.device)
    model, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
    order = np.random.default_rng(seed)
    best: dict[str, torch.Tensor] = {}
    best_loss, best_epoch, epoch = np.inf, 0, 0
    while epoch < settings.epochs and epoch - best_epoch < settings.patience:
        epoch += 1
        model.train()
        for rows in _batches(train, settings.batch_size, order, accelerator):
            with accelerator.accumulate(model):
                accelerator.backward(_loss(model, windows, rows, ratio))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), settings.clip_norm)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                average.update_parameters(accelerator.unwrap_model(model))
        loss = _agreed(_evaluate(cast("ForecastModel", average.module), windows, valid, ratio))
        accelerator.log({"valid_nll": loss, "learning_rate": schedule.get_last_lr()[0]}, step=epoch)
        if loss < best_loss:
            best_loss, best_epoch = loss, epoch
            best = copy.deepcopy(average.module.state_dict())
    return best, best_loss, epoch


def _averager(decay: float) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor | int], torch.Tensor]:
    """Exponential moving average of the weights; short at first, so that it soon forgets the untrained ones."""

    def average(mean: torch.Tensor, new: torch.Tensor, seen: torch.Tensor | int) -> torch.Tensor:
        return torch.lerp(new, mean, min(decay, (1 + float(seen)) / (10 + float(seen))))

    return average


@torch.inference_mode()
def _evaluate(model: ForecastModel, windows: Windows, rows: Samples, ratio: float) -> float:
    """Mean loss over labelled samples, which are in order of session."""
    model.eval()
    total = 0.0
    for part in in_order(rows, EVALUATE_BATCH):
        total += float(_loss(model, windows, part, ratio)) * len(part)
    return total / len(rows)


def _agreed(loss: float) -> float:
    """The first process's loss in all of them: machines that round differently must not stop at different epochs."""
    from accelerate.utils import broadcast_object_list

    (agreed,) = broadcast_object_list([loss])
    return float(agreed)


def _loss(model: ForecastModel, windows: Windows, rows: Samples, ratio: float) -> torch.Tensor:
    """A scalar. Raises ModelError where a forecast is no number, and names the first such sample."""
    batch = windows.gather(rows)
    prediction: Prediction = model(batch)
    finite = torch.isfinite(prediction.location_B) & torch.isfinite(prediction.scale_B)
    if not finite.all():
        at = int((~finite).nonzero()[0])
        found = f"{prediction.location_B.detach()[at]:g} ({int((~finite).sum())} such in a batch of {len(rows)})"
        raise ModelError(
            f"{windows.name(rows, at)}: expected a finite forecast in training, found {found}: it has diverged. No "
            "model was kept. Lower train.learning_rate or train.clip_norm."
        )
    return session_nll(prediction, batch.target_B, batch.session_B, ratio)


def _batches(train: Samples, size: int, order: np.random.Generator, accelerator: "Accelerator") -> Iterator[Samples]:
    """One epoch: sessions in random order and tickers shuffled within each, cut into batches.

    Rows of a session stay together, so that a batch can tell its shock. Each process takes its own
    share of every batch; a batch with fewer rows than processes is computed by all of them.
    """
    number, processes = accelerator.process_index, accelerator.num_processes
    drawn = order.random(int(train.session.max()) + 1)[train.session]
    shuffled = np.lexsort((order.random(len(train)), drawn))
    for start in range(0, len(train), size):
        rows = shuffled[start : start + size]
        yield train.take(rows[number::processes] if len(rows) >= processes else rows)


def _in_units(panel: Panel, target: str, rows: Samples) -> Floats:
    where = (rows.ticker, rows.session)
    in_units: Floats = panel.labels[target][where] / panel.unit[where]
    return in_units


def _accelerator(config: TapewireConfig, log_folder: Path | None) -> "Accelerator":
    """bf16 where a GPU is there and nothing else was asked for; deterministic kernels everywhere."""
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    precision = config.train.precision
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() else "no"
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # or several processes on CPUs would not know of each other
        mixed_precision=precision,
        gradient_accumulation_steps=config.train.accumulate,
        log_with="tensorboard" if log_folder else None,
        project_dir=log_folder,
        # Of several processes each has a share of the batch, not a batch of its own: the schedule counts batches. A
        # share without headlines leaves their encoder out.
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
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
                f"needs that many bars before its first sample; the longest history is {longest} bars. Import more "
                "prices, shorten price.lookback, or mend the dates in [split]."
            )
