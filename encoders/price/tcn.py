"""A temporal convolutional network over the window: Bai, Kolter and Koltun (2018), section 3.

Causal convolutions whose dilation doubles from block to block until the decision's session sees the whole window. Only
that session's output is the code, and it reads every second output of the block before, which reads every second of
the one before that: only those are computed, so that a stack costs two blocks' time however many blocks it has.
"""

from __future__ import annotations

from typing import Literal, cast

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from encoders.encoded import Encoded
from encoders.price.base import PriceConfig, flagged


class TCNConfig(PriceConfig):
    """`kernel` sessions are read by each convolution; `weight_norm` is Salimans and Kingma's (2016), as in the paper.

    `layers` counts stacks of blocks. Each stack's dilations start at 1 and go on until its receptive field,
    1 + 2 (kernel - 1) (2^blocks - 1) sessions, covers the lookback.
    """

    kind: Literal["tcn"] = "tcn"
    kernel: int = Field(default=3, ge=2)
    weight_norm: bool = True

    def build(self, features: int) -> TCNEncoder:
        """An untrained encoder of F = `features`, drawn from torch's global generator."""
        return TCNEncoder(features, self)

    @property
    def blocks(self) -> int:
        """How many blocks a stack needs for its receptive field to cover the lookback."""
        blocks = 1
        while 1 + 2 * (self.kernel - 1) * (2**blocks - 1) < self.lookback:
            blocks += 1
        return blocks


class TemporalBlock(nn.Module):
    """Two causal convolutions, each with a ReLU and dropout, beside a residual: the paper's figure 1b."""

    def __init__(self, channels: int, config: TCNConfig) -> None:
        """`channels` go in, `width` come out; where they differ, a convolution of one session leads the residual."""
        super().__init__()
        self.first = _convolution(channels, config)
        self.second = _convolution(config.width, config)
        self.residual = nn.Identity() if channels == config.width else nn.Conv1d(channels, config.width, 1)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, series_BCL: Tensor, dilation: int) -> Tensor:
        """[B, C, L] -> [B, D, L]; an output reads no later session. Before the first there are zeros."""
        hidden_BDL = self.dropout(_convolve(self.first, series_BCL, dilation).relu())
        hidden_BDL = self.dropout(_convolve(self.second, hidden_BDL, dilation).relu())
        output_BDL: Tensor = (self.residual(series_BCL) + hidden_BDL).relu()
        return output_BDL


class TCNEncoder(nn.Module):
    """price_BLF -> pooled_BD, for any L; of a window longer than the receptive field the oldest sessions are not seen.

    A masked session enters as zeros with an observed-flag of 0. `sequence_BLD` is what the last stack's first block
    made of each session. There is no attention to explain.
    """

    def __init__(self, features: int, config: TCNConfig) -> None:
        super().__init__()
        self.depth = config.blocks
        blocks = config.layers * self.depth
        self.blocks = nn.ModuleList(TemporalBlock(config.width if i else features + 1, config) for i in range(blocks))

    def forward(self, price_BLF: Tensor, mask_BL: Tensor, explain: bool = False) -> Encoded:  # noqa: ARG002
        """The last session's output of the last block."""
        blocks = cast("list[TemporalBlock]", list(self.blocks))
        series_BCL = flagged(price_BLF, mask_BL).transpose(1, 2)
        for index, block in enumerate(blocks[: -self.depth]):
            series_BCL = block(series_BCL, 2 ** (index % self.depth))
        first, *rest = blocks[-self.depth :]
        every_BDL = first(series_BCL, 1)
        thinned_BDL = every_BDL
        for block in rest:
            thinned_BDL = block(
                _every_second(thinned_BDL), 1
            )  # half as many sessions: dilation 1 there is twice as far
        return Encoded(thinned_BDL[..., -1], every_BDL.transpose(1, 2), mask_BL)


def _convolution(channels: int, config: TCNConfig) -> nn.Module:
    layer = nn.Conv1d(channels, config.width, config.kernel)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return weight_norm(layer) if config.weight_norm else layer


def _convolve(layer: nn.Module, series_BCL: Tensor, dilation: int) -> Tensor:
    """The causal convolution: as many zeros before the first session as the kernel reaches back."""
    convolution = cast(nn.Conv1d, layer)
    padded_BCL = functional.pad(series_BCL, ((convolution.kernel_size[0] - 1) * dilation, 0))
    return functional.conv1d(padded_BCL, convolution.weight, convolution.bias, dilation=dilation)


def _every_second(series_BDL: Tensor) -> Tensor:
    """Those that the last session reads over a dilation of two: the last, the third last and so on."""
    return series_BDL[..., (series_BDL.shape[-1] - 1) % 2 :: 2]
