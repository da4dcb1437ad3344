"""Autoformer (Wu et al. 2021): auto-correlation in place of attention, and a moving average split off twice a layer.

The stack is the paper's encoder (equation 3), with the trends that it throws away summed up as in its decoder
(equation 4): the decision's seasonal part and its trends together are the code. There is no cross-attention and, as
in the paper, no position is told: auto-correlation reads the order from the series itself.

Delays are chosen by each head of each sample, in training as in use, as equations 6 and 7 say. The authors' code
takes one choice for all heads, and in training one for the whole batch; a row must not depend on its company.
"""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from encoders.encoded import Encoded
from encoders.price.base import AttentionConfig, blank


class AutoformerConfig(AttentionConfig):
    """`factor` is c of the paper: c ln L delays are chosen. `moving_average` is the trend's window, in sessions."""

    kind: Literal["autoformer"] = "autoformer"
    factor: int = Field(default=3, ge=1, le=1000)
    moving_average: int = Field(default=25, ge=3, le=1001)

    @field_validator("moving_average")
    @classmethod
    def _has_a_middle(cls, span: int) -> int:
        if span % 2 == 0:
            raise ValueError("must be odd, so that a session stands in the middle of its average")
        return span

    def build(self, features: int) -> AutoformerEncoder:
        """An untrained encoder of F = `features`, drawn from torch's global generator."""
        return AutoformerEncoder(features, self)


class AutoformerEncoder(nn.Module):
    """price_BLF -> pooled_BD. Any L. `sequence_BLD` is what the last auto-correlation read.

    A series with holes has no auto-correlation, so a masked session repeats the last one observed before it, or the
    first of all. `explain` adds attention [B, layers, heads, L, L]: the row of session i has the weight of a delay at
    session i - delay, counted round the window as it is computed; what falls on a masked session counts for the one
    that it repeats. What the moving averages mix is not in the maps.
    """

    def __init__(self, features: int, config: AutoformerConfig) -> None:
        super().__init__()
        self.token = nn.Linear(features, config.width)
        self.blocks = nn.ModuleList(AutoformerBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, price_BLF: Tensor, mask_BL: Tensor, explain: bool = False) -> Encoded:
        """Only what the decision's session needs leaves the last layer."""
        source_BL = repeated(mask_BL)
        at_BLF = source_BL[..., None].expand(-1, -1, price_BLF.shape[-1])
        tokens_BLD: Tensor = self.token(blank(price_BLF, mask_BL).gather(1, at_BLF))
        maps: list[Tensor] = []
        trend_BD = tokens_BLD.new_zeros(len(tokens_BLD), tokens_BLD.shape[-1])
        *blocks, last = cast("list[AutoformerBlock]", list(self.blocks))
        for block in blocks:
            if explain:
                maps.append(circle(block.delays(tokens_BLD), source_BL))
            tokens_BLD, further_BD = block(tokens_BLD)
            trend_BD = trend_BD + further_BD
        if explain:
            maps.append(circle(last.delays(tokens_BLD), source_BL))
        season_BD, further_BD = last.latest(tokens_BLD)
        pooled_BD = self.norm(season_BD + trend_BD + further_BD)
        return Encoded(self.dropout(pooled_BD), tokens_BLD, mask_BL, torch.stack(maps, dim=1) if explain else None)


class AutoformerBlock(nn.Module):
    """Auto-correlation, then a feed-forward net of twice the width; beside both a residual, behind both a split.

    Queries and keys have no bias: it would raise all delays' correlations alike. Values have none: it would add to
    the output's own.
    """

    def __init__(self, config: AutoformerConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.factor, self.span = config.heads, config.factor, config.moving_average
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.trends = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(2))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """The seasonal part [B, L, D], and what the decision's session adds to the trend [B, D]."""
        mixed_BLD = tokens_BLD + self.dropout(self.out(self._correlate(tokens_BLD)))
        return self._deepen(*split(mixed_BLD, self.span))

    def latest(self, tokens_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """The same of the decision's session alone, [B, D] twice, from the two averages' reach before it."""
        reach = self.span // 2
        tail_BLD = self._correlate(tokens_BLD)[:, -2 * reach - 1 :]
        mixed_BLD = tokens_BLD[:, -2 * reach - 1 :] + self.dropout(self.out(tail_BLD))
        season_BLD, trend_BLD = split(mixed_BLD, self.span)
        deeper_BLD, trend_BD = self._deepen(season_BLD[:, -reach - 1 :], trend_BLD)
        return deeper_BLD[:, -1], trend_BD

    def delays(self, tokens_BLD: Tensor) -> Tensor:
        """The weight of each delay, [B, heads, L]: 0 where it is not chosen, each row summing to 1."""
        query, key, _ = self._spectra(tokens_BLD)
        return chosen(correlation(query, key, tokens_BLD.shape[1]), self.factor)

    def _spectra(self, tokens_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The Fourier transforms over time of queries, keys and values, complex [B, L // 2 + 1, heads, D / heads].

        They are linear in the tokens, so that the tokens' own is taken once and the weights meet that. There is no
        FFT of bfloat16: autocast stays out.
        """
        with torch.autocast(tokens_BLD.device.type, enabled=False):
            spectrum = torch.view_as_real(torch.fft.rfft(tokens_BLD.float(), dim=1))
            parts = self.qkv(spectrum.transpose(-1, -2)).unflatten(-1, (3, self.heads, -1))
        query, key, value = torch.view_as_complex(parts.movedim(2, -1).contiguous()).unbind(2)
        return query, key, value

    def _correlate(self, tokens_BLD: Tensor) -> Tensor:
        length = tokens_BLD.shape[1]
        query, key, value = self._spectra(tokens_BLD)
        return aggregate(chosen(correlation(query, key, length), self.factor), value, length).flatten(2)

    def _deepen(self, season_BLD: Tensor, trend_BLD: Tensor) -> tuple[Tensor, Tensor]:
        deep_BLD, further_BLD = split(season_BLD + self.dropout(self.mlp(season_BLD)), self.span)
        first, second = self.trends
        return deep_BLD, first(trend_BLD[:, -1]) + second(further_BLD[:, -1])


def repeated(mask_BL: Tensor) -> Tensor:
    """Which session each one repeats, int64 [B, L]: itself if observed, else the last before it, else the first."""
    place_L = torch.arange(mask_BL.shape[1], device=mask_BL.device)
    last_BL = torch.where(mask_BL, place_L, -1).cummax(1).values
    return torch.where(last_BL < 0, mask_BL.int().argmax(1, keepdim=True), last_BL)


def split(series_BLD: Tensor, span: int) -> tuple[Tensor, Tensor]:
    """Season and trend, equation 1: the trend is the moving average over `span`, both ends repeated outwards."""
    reach = span // 2
    first, last = series_BLD[:, :1].expand(-1, reach, -1), series_BLD[:, -1:].expand(-1, reach, -1)
    padded_BLD = torch.cat([first, series_BLD, last], dim=1)
    picture_BDL1 = padded_BLD[:, :, None].permute(0, 3, 1, 2)  # channels last, as it lies in memory
    trend_BLD = functional.avg_pool2d(picture_BDL1, (span, 1), stride=1).permute(0, 2, 3, 1).squeeze(2)
    return series_BLD - trend_BLD, trend_BLD


def correlation(query: Tensor, key: Tensor, length: int) -> Tensor:
    """R(delay) = sum over t of q[t] k[t - delay] round the window, the mean over a head's channels: [B, heads, L].

    Equation 8. `query` and `key` are the transforms of such q and k, complex [B, L // 2 + 1, heads, D / heads].
    Channels are summed before the way back, so that one inverse a head is enough.
    """
    correlation_BHL: Tensor = torch.fft.irfft((query * key.conj()).mean(-1), n=length, dim=1).transpose(1, 2)
    return correlation_BHL


def chosen(correlation_BHL: Tensor, factor: int) -> Tensor:
    """Softmax over the c ln L delays that correlate most, 0 for the others: equation 6 without its last line."""
    length = correlation_BHL.shape[-1]
    top = correlation_BHL.topk(min(length, max(1, int(factor * math.log(length)))), dim=-1)
    return torch.zeros_like(correlation_BHL).scatter(-1, top.indices, top.values.softmax(-1))


def aggregate(weight_BHL: Tensor, value: Tensor, length: int) -> Tensor:
    """out[t] = sum over delays of w(delay) v[t - delay] round the window: [B, L, heads, D / heads], equation 6.

    `value` is the transform of v. A circular convolution: it costs the same however many delays there are. The authors
    roll the other way, t + delay, which is the same with queries and keys exchanged.
    """
    weight = torch.fft.rfft(weight_BHL.transpose(1, 2), dim=1)[..., None]
    rolled_BLHd: Tensor = torch.fft.irfft(weight * value, n=length, dim=1)
    return rolled_BLHd


def circle(weight_BHL: Tensor, source_BL: Tensor) -> Tensor:
    """[B, heads, L, L]: at row t and column s the weight of the delay t - s, moved to the session that s repeats."""
    place_L = torch.arange(weight_BHL.shape[-1], device=weight_BHL.device)
    around_BHLL = weight_BHL[..., (place_L[:, None] - place_L) % len(place_L)]
    at_BHLL = source_BL[:, None, None].expand_as(around_BHLL)
    return torch.zeros_like(around_BHLL).scatter_add(-1, at_BHLL, around_BHLL)
