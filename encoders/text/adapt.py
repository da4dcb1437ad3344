"""Fine-tune a text encoder on labelled texts, so that its vector tells good news from bad.

The checkpoint's classifier learns the labels by cross-entropy. The pooled vector, which is what a
forecast reads, learns them beside it by a supervised contrastive term: texts of one label come to lie
together, those of different labels apart.

It does not read files, judge labels or choose folds (`pipelines/adapt.py` does), and runs as one process.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from pydantic import Field
from torch import Tensor
from torch.nn import functional
from transformers import get_cosine_schedule_with_warmup

from data.errors import EncoderError
from data.types import Config
from encoders.text.classifier import Classifier, pad_lists

Ids = npt.NDArray[np.int64]

LEARNING_RATES = {"full": 1e-4, "lora": 1e-3}
SORTED_BATCHES = 16  # so many are cut from texts that were sorted by length together


class AdaptConfig(Config):
    """How an encoder is adapted.

    `method` `full` trains every weight but the word vectors; `lora` the classifier, and matrices of `rank`
    beside every linear layer, which are merged into the weights in the end. `learning_rate` is the peak,
    None the method's own. `contrast` weighs the contrastive term against the cross-entropy, and
    `temperature` is its tau.
    """

    method: Literal["full", "lora"] = "full"
    epochs: int = Field(default=2, ge=1)
    batch_size: int = Field(default=32, ge=2)
    learning_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_share: float = Field(default=0.1, ge=0, lt=1)
    clip_norm: float = Field(default=1.0, gt=0)
    contrast: float = Field(default=0.2, ge=0)
    temperature: float = Field(default=0.2, gt=0)
    rank: int = Field(default=16, ge=1)
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Labelled:
    """N texts as token ids, special ones included, and the number of each one's label."""

    tokens: list[list[int]]
    label_N: Ids

    def take(self, rows: Ids) -> "Labelled":
        """These rows, in this order."""
        return Labelled([self.tokens[row] for row in rows], self.label_N[rows])


def fit(
    model: Classifier,
    train: Labelled,
    config: AdaptConfig,
    valid: Labelled | None = None,
    epochs: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> int:
    """Train in place; returns how many epochs the weights that are kept have seen.

    With `valid`, training ends after `config.epochs`, or after an epoch that did not lower the
    cross-entropy there, and the best epoch's weights are kept. Without, all of `epochs` are run. The
    learning rate falls towards the end of `config.epochs` in both cases. The same seed on the same
    machine with as many threads gives the same weights. `advance` is called after each epoch.
    Raises EncoderError where the loss is no longer finite.
    """
    accelerator = _accelerator()
    set_seed(config.seed)
    optimizer, schedule = _optimizer(model, config, len(train.tokens))
    ready, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
    order = np.random.default_rng(config.seed)
    best: dict[str, Tensor] = {}
    best_loss, best_epoch = np.inf, 0
    for epoch in range(1, (epochs or config.epochs) + 1):
        _train_once(accelerator, ready, optimizer, schedule, train, config, order)
        advance()
        if valid is not None:
            loss = cross_entropy(model, valid)
            if not loss < best_loss:  # no number is not less either
                break
            best_loss, best = loss, _trained(model)
        best_epoch = epoch
    model.load_state_dict(best, strict=False)
    if not all(bool(torch.isfinite(weight).all()) for weight in model.parameters()):
        raise _diverged(schedule)
    model.eval()
    return best_epoch


def cross_entropy(model: Classifier, texts: Labelled) -> float:
    """Mean over the texts, in nats."""
    log_NC, _ = model.read(texts.tokens)
    return float(-log_NC[np.arange(len(texts.label_N)), texts.label_N].mean())


def class_contrast(pooled_BE: Tensor, label_B: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive loss over cosines (Khosla et al. 2020, equation 2): the mean over B.

    A text that is alone with its label in the batch has nothing to lie close to and is left out; the
    loss of a batch of such texts is 0.
    """
    unit_BE = functional.normalize(pooled_BE, dim=-1)
    itself_BB = torch.eye(len(label_B), dtype=torch.bool, device=label_B.device)
    log_BB = (unit_BE @ unit_BE.T / temperature).masked_fill(itself_BB, -torch.inf).log_softmax(-1)
    same_BB = (label_B[:, None] == label_B) & ~itself_BB
    count_B = same_BB.sum(-1)
    loss_B = -log_BB.masked_fill(~same_BB, 0).sum(-1) / count_B.clamp(min=1)
    return loss_B.sum() / (count_B > 0).sum().clamp(min=1)


def training_batches(length_N: Ids, size: int, order: np.random.Generator) -> Iterator[Ids]:
    """One epoch: every text once, in random batches of `size` texts of like length; some may be smaller."""
    shuffled = order.permutation(len(length_N))
    batches: list[Ids] = []
    for start in range(0, len(shuffled), size * SORTED_BATCHES):
        part = shuffled[start : start + size * SORTED_BATCHES]
        part = part[np.argsort(length_N[part], kind="stable")]
        batches += [part[at : at + size] for at in range(0, len(part), size)]
    for at in order.permutation(len(batches)):
        yield batches[at]


def _train_once(
    accelerator: Accelerator,
    model: Any,
    optimizer: Any,
    schedule: Any,
    train: Labelled,
    config: AdaptConfig,
    order: np.random.Generator,
) -> None:
    """One epoch."""
    model.train()
    total = torch.zeros((), device=accelerator.device)
    for rows in training_batches(np.array([len(ids) for ids in train.tokens]), config.batch_size, order):
        part = train.take(rows)
        label_B = torch.from_numpy(part.label_N).to(accelerator.device)
        logits_BC, pooled_BE = model(*pad_lists(part.tokens, accelerator.device))
        loss = functional.cross_entropy(logits_BC, label_B)
        if config.contrast:
            loss = loss + config.contrast * class_contrast(pooled_BE, label_B, config.temperature)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        total += loss.detach()
    if not torch.isfinite(total):
        raise _diverged(schedule)


def _diverged(schedule: Any) -> EncoderError:
    return EncoderError(
        "adapt-text: expected a loss that falls, found one that is not finite any more: the learning rate is too "
        f"high. Nothing was saved. Set --learning-rate below {schedule.get_last_lr()[0]:g}."
    )


def _optimizer(model: Classifier, config: AdaptConfig, texts: int) -> tuple[Any, Any]:
    """AdamW over what is trained, and a learning rate that rises, then falls as a cosine over all epochs."""
    rate = config.learning_rate or LEARNING_RATES[config.method]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=config.weight_decay, fused=True)
    steps = config.epochs * -(-texts // config.batch_size)
    return optimizer, get_cosine_schedule_with_warmup(optimizer, int(steps * config.warmup_share), steps)


def _trained(model: Classifier) -> dict[str, Tensor]:
    """A copy of the weights that training moves."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


def _accelerator() -> Accelerator:
    """bf16 where a GPU is there; deterministic kernels everywhere."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    return Accelerator(mixed_precision="bf16" if torch.cuda.is_available() else "no")
