"""Windows in units of themselves, for kinds that read them so. Does not scale data: that is `data/scaling.py`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SMALLEST_VARIANCE = 1e-5  # as the authors of PatchTST; a constant feature becomes zeros


class InstanceNorm(nn.Module):
    """Each feature of each window to mean 0 and variance 1 over its observed sessions (Kim et al. 2022, RevIN).

    There the mean and the deviation are put back into the forecast of the same series. Here the forecast is of
    something else, so they are told to the code instead, through a map that is learned.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.told = nn.Linear(2 * features, width)

    def forward(self, blank_BLF: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
        """[B, L, F], zeros at masked sessions, to the same normalised and what to add to the code [B, D]."""
        observed_BL1 = mask_BL[..., None]
        count_B11 = observed_BL1.sum(1, keepdim=True).clamp(min=1)
        mean_B1F = blank_BLF.sum(1, keepdim=True) / count_B11
        centred_BLF = (blank_BLF - mean_B1F).masked_fill(~observed_BL1, 0)
        scale_B1F = (centred_BLF.square().sum(1, keepdim=True) / count_B11 + SMALLEST_VARIANCE).sqrt()
        told_BD: Tensor = self.told(torch.cat([mean_B1F, scale_B1F.log()], dim=-1).squeeze(1))
        return centred_BLF / scale_B1F, told_BD
