"""The hook by which a price encoder learns from the training fold's bars before the forecast model is trained."""

import numpy as np
import torch
from torch import Tensor

from data.panel import Panel
from data.scaling import Scaler
from data.splits import Fold
from encoders.price.tokens import Pretrained
from fusion.model import ForecastModel


def pretrain(model: ForecastModel, panel: Panel, fold: Fold, scaler: Scaler, seed: int, device: torch.device) -> None:
    """Let a price encoder that is `Pretrained` learn, in place and on `device`; any other is left as it is."""
    encoder = model.price
    if isinstance(encoder, Pretrained):
        model.to(device)
        history_NSV, mask_NS = training_bars(panel, fold, scaler, encoder.columns)
        encoder.pretrain(history_NSV.to(device), mask_NS.to(device), seed)


def training_bars(panel: Panel, fold: Fold, scaler: Scaler, columns: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Scaled columns [N, S, V] of the training sessions, and the mask [N, S] of members' observed bars.

    These are the rows that the scaler was fitted on (`training_rows`), but for sessions before `train_start`.
    """
    part, chosen = slice(fold.train[0], fold.train[-1] + 1), list(columns)
    raw = panel.features[:, part][..., chosen]
    scaled = np.clip((raw - scaler.centre[chosen]) * scaler.scale[chosen], -scaler.limit, scaler.limit)
    return torch.from_numpy(scaled), torch.from_numpy((panel.mask & panel.member)[:, part])
