"""Attention within each of many sequences that lie end to end: block-diagonal, without the blocks between.

Sequences of one length are a dense batch, so where they are sorted a few calls without a mask cover
all. On a GPU in half precision one call of a variable-length kernel does (Dao 2023, arXiv:2307.08691).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Bias = Callable[[int], Tensor]  # of a length T, what to add to the scores: [1, H, T, T]


@dataclass(frozen=True)
class Run:
    """`count` sequences of `length` tokens side by side, from sequence `sequence` and token `token` on."""

    sequence: int
    token: int
    count: int
    length: int


@dataclass(frozen=True)
class Layout:
    """How S sequences of N tokens lie end to end. `offset` [S + 1], int64, is on the device of the tokens."""

    offset: Tensor
    runs: tuple[Run, ...]
    longest: int

    @classmethod
    def of(cls, lengths: npt.NDArray[np.int64], device: torch.device) -> Self:
        """The layout of sequences of these lengths [S], S at least 1; sorted lengths make few runs."""
        offset = np.concatenate([[0], np.cumsum(lengths)])
        first = np.flatnonzero(np.diff(lengths, prepend=-1))
        counts = np.diff(first, append=len(lengths))
        runs = zip(first.tolist(), offset[first].tolist(), counts.tolist(), lengths[first].tolist(), strict=True)
        on_device = torch.from_numpy(offset).to(device, non_blocking=True)
        return cls(on_device, tuple(Run(*run) for run in runs), int(lengths.max()))


def attend(query_MHC: Tensor, key_NHC: Tensor, value_NHC: Tensor, layout: Layout, bias: Bias | None = None) -> Tensor:
    """[M, H, C]: each query's mean of its own sequence's values, weighted by the softmax of query times key.

    The queries are those of all tokens (M = N), or the first one's of each sequence (M = S).
    """
    first_only = len(query_MHC) < len(key_NHC)
    if VARLEN is not None and bias is None and query_MHC.is_cuda and query_MHC.dtype in HALF:
        return _ragged(query_MHC, key_NHC, value_NHC, layout, first_only)
    parts = []
    for run in layout.runs:
        tokens = slice(run.token, run.token + run.count * run.length)
        asked = slice(run.sequence, run.sequence + run.count) if first_only else tokens
        mixed_RHTC = nn.functional.scaled_dot_product_attention(
            _dense(query_MHC[asked], run),
            _dense(key_NHC[tokens], run),
            _dense(value_NHC[tokens], run),
            bias(run.length)[:, :, : 1 if first_only else run.length] if bias else None,
        )
        parts.append(mixed_RHTC.transpose(1, 2).flatten(0, 1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _dense(vectors_NHC: Tensor, run: Run) -> Tensor:
    """The vectors of a run's sequences, [R, H, T, C]."""
    return vectors_NHC.view(run.count, -1, *vectors_NHC.shape[1:]).transpose(1, 2)


def _ragged(query_MHC: Tensor, key_NHC: Tensor, value_NHC: Tensor, layout: Layout, first_only: bool) -> Tensor:
    key_offset = layout.offset.to(torch.int32)
    query_offset = torch.arange(len(key_offset), dtype=torch.int32, device=key_offset.device)
    mixed_MHC: Tensor = VARLEN(
        query_MHC,
        key_NHC,
        value_NHC,
        query_offset if first_only else key_offset,
        key_offset,
        1 if first_only else layout.longest,
        layout.longest,
    )
    return mixed_MHC


def _varlen() -> Any:
    """The variable-length kernel; None before torch 2.10."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn


VARLEN = _varlen()
HALF = (torch.bfloat16, torch.float16)
