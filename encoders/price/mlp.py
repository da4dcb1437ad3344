"""A plain feed-forward net over the flattened window: what a net does that is told nothing about time."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from encoders.encoded import Encoded
from encoders.price.base import PriceConfig, flagged, full_length


class MLPConfig(PriceConfig):
    """`layers` hidden layers of `width`."""

    kind: Literal["mlp"] = "mlp"

    def build(self, features: int) -> MLPEncoder:
        """An untrained encoder of F = `features`, drawn from torch's global generator."""
        return MLPEncoder(features, self)


class MLPEncoder(nn.Module):
    """price_BLF -> pooled_BD, for L up to the lookback; sessions before the window count as masked.

    A masked session enters as zeros with an observed-flag of 0. `sequence_BLD` is empty, [B, 0, D]: there are no steps.
    There is no attention to explain.
    """

    def __init__(self, features: int, config: MLPConfig) -> None:
        super().__init__()
        self.lookback = config.lookback
        inputs = [config.lookback * (features + 1)] + [config.width] * (config.layers - 1)
        hidden = [nn.Sequential(nn.Linear(i, config.width), nn.GELU(), nn.Dropout(config.dropout)) for i in inputs]
        self.net = nn.Sequential(*hidden, nn.LayerNorm(config.width))

    def forward(self, price_BLF: Tensor, mask_BL: Tensor, explain: bool = False) -> Encoded:  # noqa: ARG002
        """The last hidden layer, normed."""
        window_BLF = full_length(flagged(price_BLF, mask_BL), self.lookback)
        pooled_BD: Tensor = self.net(window_BLF.flatten(1))
        return Encoded(pooled_BD, pooled_BD[:, None][:, :0], mask_BL[:, :0])
