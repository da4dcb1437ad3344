"""A bar to a few small integers and back: the tokeniser of the price language.

`Quantiles` cuts each variable of the bar into bins of equal training frequency, a code each. `ResidualVQ` quantises
the whole bar at once and then, stage by stage, what is left of it: the residual vector quantiser of Zeghidour et al.
(2021, SoundStream, section III-C) on codewords as in van den Oord et al. (2017), without their learnt encoder: the
codewords are k-means centres of the standardised bars themselves.

Both are fitted on training rows only and live in buffers, so a model's weights carry them. Unfitted they cut a
standard normal. Neither knows time: what may be read is settled by whoever calls `fit`.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn

POINTS = 64  # of a bin's own quantiles: the return is drawn from within its bin as training's were spread there
MOST_ROWS = 50_000  # that k-means looks at
ROUNDS = 25  # of k-means


class Quantiser(Protocol):
    """Bars [..., V] to codes [..., G], the first G of one bar's token. V counts a bar's variables, the return first."""

    levels: tuple[int, ...]

    def fit(self, bars_MV: Tensor, generator: torch.Generator) -> None:
        """Learn from training rows, in place. `generator` decides where there is anything to draw."""
        ...

    def encode(self, bars: Tensor) -> Tensor:
        """[..., V] to int64 [..., G], each below its of `levels`."""
        ...

    def decode(self, codes: Tensor, place: Tensor) -> Tensor:
        """The return [...] of codes [..., G] at `place` [...] of its bin: 0 its low end, 1 its high, 0.5 its median."""
        ...


class Quantiles(nn.Module):
    """One codebook a variable: `bins` for the return, `shape_bins` for each other one. G = V."""

    edges_K: Tensor
    shape_edges_SK: Tensor
    within_KP: Tensor

    def __init__(self, bins: int, shape_bins: int, variables: int) -> None:
        super().__init__()
        self.levels = (bins, *[shape_bins] * (variables - 1))
        self.register_buffer("edges_K", _normal_edges(bins))
        self.register_buffer("shape_edges_SK", _normal_edges(shape_bins).repeat(variables - 1, 1))
        inner_P = (torch.arange(POINTS, dtype=torch.float64) + 0.5) / POINTS
        levels_KP = (torch.arange(bins)[:, None] + inner_P) / bins
        self.register_buffer("within_KP", torch.special.ndtri(levels_KP).float())

    def fit(self, bars_MV: Tensor, generator: torch.Generator) -> None:  # noqa: ARG002
        """Edges at the rows' own quantiles. A variable that hardly varies fills fewer bins; the others stay empty."""
        first_M = bars_MV[:, 0].contiguous().sort().values
        self.edges_K.copy_(_edges(first_M, self.levels[0]))
        for edges_K, column_M in zip(self.shape_edges_SK, bars_MV[:, 1:].unbind(-1), strict=True):
            edges_K.copy_(_edges(column_M.contiguous().sort().values, self.levels[1]))
        cuts = torch.searchsorted(first_M, self.edges_K.to(first_M.device)).tolist()
        bounds = zip([0, *cuts], [*cuts, len(first_M)], strict=True)
        self.within_KP.copy_(torch.stack([_inside(first_M, low, high) for low, high in bounds]))

    def encode(self, bars: Tensor) -> Tensor:
        """A value equal to an edge lies above it, so equal values never part."""
        edges = [self.edges_K, *self.shape_edges_SK]
        columns = bars.float().unbind(-1)
        codes = [torch.bucketize(x.contiguous(), e, right=True) for x, e in zip(columns, edges, strict=True)]
        return torch.stack(codes, dim=-1)

    def decode(self, codes: Tensor, place: Tensor) -> Tensor:
        """Drawn with a uniform `place`, returns are spread within a bin as in training."""
        return _between(self.within_KP, codes[..., 0], place)


class ResidualVQ(nn.Module):
    """`stages` codebooks of `bins` codewords; stage g quantises what stages 0 .. g - 1 left. G = stages.

    Each of the C = bins ** stages cells has its own spread of returns: the cells of a residual quantiser differ far
    too much in width for one spread around all codewords.
    """

    codebook_GKV: Tensor
    within_CP: Tensor

    def __init__(self, bins: int, stages: int, variables: int) -> None:
        super().__init__()
        self.levels = (bins,) * stages
        shrinking_G11 = (bins ** (-1 / variables)) ** torch.arange(stages)[:, None, None]
        self.register_buffer("codebook_GKV", torch.randn(stages, bins, variables) * shrinking_G11)
        self.register_buffer("within_CP", self._centres()[:, None].repeat(1, POINTS))

    def fit(self, bars_MV: Tensor, generator: torch.Generator) -> None:
        """K-means stage by stage, then the returns' spread within each cell; an empty cell has its centre."""
        rows_MV = bars_MV.float().cpu()
        if len(rows_MV) > MOST_ROWS:
            rows_MV = rows_MV[torch.randperm(len(rows_MV), generator=generator)[:MOST_ROWS]]
        left_MV = rows_MV
        for codewords_KV in self.codebook_GKV:
            centres_KV = kmeans(left_MV, len(codewords_KV), generator)
            codewords_KV.copy_(centres_KV)
            left_MV = left_MV - centres_KV[_nearest(left_MV, centres_KV)]
        self.within_CP.copy_(self._centres()[:, None].expand_as(self.within_CP))
        sorted_M, order_M = rows_MV[:, 0].sort()
        cell_M, within_M = self._cells(self.encode(rows_MV.to(self.codebook_GKV.device)).cpu())[order_M].sort(
            stable=True
        )
        bounds = torch.searchsorted(cell_M, torch.arange(len(self.within_CP) + 1)).tolist()
        for inside_P, (low, high) in zip(self.within_CP, pairwise(bounds), strict=True):
            if high > low:
                inside_P.copy_(_inside(sorted_M[within_M], low, high))

    def encode(self, bars: Tensor) -> Tensor:
        """The nearest codeword at each stage."""
        left_MV, codes = bars.float().reshape(-1, bars.shape[-1]), []
        for codewords_KV in self.codebook_GKV:
            codes.append(_nearest(left_MV, codewords_KV))
            left_MV = left_MV - codewords_KV[codes[-1]]
        return torch.stack(codes, dim=-1).reshape(*bars.shape[:-1], len(codes))

    def decode(self, codes: Tensor, place: Tensor) -> Tensor:
        """Drawn with a uniform `place`, returns are spread within a cell as in training."""
        return _between(self.within_CP, self._cells(codes), place)

    def _cells(self, codes: Tensor) -> Tensor:
        """[..., G] to one number [...] below C, the first stage's code counting most."""
        cell = codes[..., 0]
        for code in codes[..., 1:].unbind(-1):
            cell = cell * self.levels[0] + code
        return cell

    def _centres(self) -> Tensor:
        """[C]: each cell's return by its codewords."""
        centre_C = self.codebook_GKV[0, :, 0]
        for codewords_KV in self.codebook_GKV[1:]:
            centre_C = (centre_C[:, None] + codewords_KV[:, 0]).flatten()
        return centre_C


def kmeans(rows_MV: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` centres [K, V] by Lloyd's algorithm from k-means++ seeds (Arthur and Vassilvitskii 2007).

    A centre that loses its last row stays where it is, so fewer distinct rows than centres are no error.
    """
    centres_KV = rows_MV[torch.randint(len(rows_MV), (1,), generator=generator)]
    away_M = torch.full((len(rows_MV),), math.inf)
    while len(centres_KV) < count:
        away_M = torch.minimum(away_M, (rows_MV - centres_KV[-1]).square().sum(-1))
        weight_M = away_M if away_M.any() else torch.ones_like(away_M)
        chosen = torch.multinomial(weight_M, 1, generator=generator)
        centres_KV = torch.cat([centres_KV, rows_MV[chosen]])
    for _ in range(ROUNDS):
        code_M = _nearest(rows_MV, centres_KV)
        size_K1 = torch.bincount(code_M, minlength=count)[:, None]
        total_KV = torch.zeros_like(centres_KV).index_add_(0, code_M, rows_MV)
        centres_KV = torch.where(size_K1 > 0, total_KV / size_K1.clamp(min=1), centres_KV)
    return centres_KV


def _nearest(rows_MV: Tensor, centres_KV: Tensor) -> Tensor:
    # |x - c|^2 without |x|^2, which is the same for every centre. Never under autocast: codes must not depend on it.
    with torch.autocast(rows_MV.device.type, enabled=False):
        score_MK: Tensor = rows_MV.float() @ centres_KV.float().T - centres_KV.square().sum(-1) / 2
        return score_MK.argmax(-1)


def _normal_edges(bins: int) -> Tensor:
    edges_K: Tensor = torch.special.ndtri(torch.arange(1, bins, dtype=torch.float64) / bins)
    return edges_K.float()


def _edges(sorted_M: Tensor, bins: int) -> Tensor:
    """[bins - 1] values of the rows themselves, an equal share of the rows between any two."""
    at_K = torch.arange(1, bins, device=sorted_M.device) * len(sorted_M) // bins
    return sorted_M[at_K]


def _inside(sorted_M: Tensor, low: int, high: int) -> Tensor:
    """[POINTS] quantiles of rows low .. high - 1, at the middles of equal shares; of an empty bin, its edge."""
    share_P = (torch.arange(POINTS, device=sorted_M.device) + 0.5) / POINTS
    at_P = low + (share_P * (high - low)).long()
    return sorted_M[at_P.clamp(max=len(sorted_M) - 1)]


def _between(table_KP: Tensor, code: Tensor, place: Tensor) -> Tensor:
    """The table's row of each code at each place, linear between its points and flat outside them."""
    at = (place * POINTS - 0.5).clamp(0, POINTS - 1)
    low = at.floor()
    below, above = (table_KP[code, part.long()] for part in (low, (low + 1).clamp(max=POINTS - 1)))
    return torch.lerp(below, above, (at - low).to(below.dtype))
