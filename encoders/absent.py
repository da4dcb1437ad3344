"""The encoder of an input that is ablated: it reads nothing, so the rest of the model stays as it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from data.types import NewsBatch
from encoders.encoded import Encoded


class Absent(nn.Module):
    """Stands where an encoder of width D would, without parameters, and answers zeros.

    It takes whatever that encoder takes and reads only its batch size and device, never a value, so an ablated
    input cannot reach the forecast.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, first: Tensor | NewsBatch, /, *_rest: object, **_options: object) -> Encoded:
        """Zeros [B, D] and an empty sequence [B, 0, D]."""
        like = first if isinstance(first, Tensor) else first.mask_BK
        batch = like.shape[0]
        return Encoded(
            pooled_BD=torch.zeros(batch, self.width, device=like.device),
            sequence_BLD=torch.zeros(batch, 0, self.width, device=like.device),
            mask_BL=torch.zeros(batch, 0, dtype=torch.bool, device=like.device),
        )
