"""iTransformer (Liu et al. 2024): a token is a whole feature's window, and attention runs between features.

Section 3.1, equation 1: each feature's L sessions are embedded by one linear map, blocks mix the tokens, and here one
more linear map reads them all. Blocks are those of `encoders/price/transformer.py` (pre-norm; equation 2's
normalisation over each token is their LayerNorm). Order in time lives in the embedding's weights, one row of them a
session counted back from the decision.

No attention over sessions exists here, so none is returned: a map between features is no answer to which days
mattered, and the embedding's weights, which are the same for every window and may be negative, are no distribution.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.encoded import Encoded
from encoders.price.base import AttentionConfig, blank
from encoders.price.instance import InstanceNorm
from encoders.price.transformer import Block, TransformerConfig


class ITransformerConfig(AttentionConfig):
    """With `instance_norm`, each feature's window is normalised before it is embedded, as the authors do.

    That is off by default: features are scaled already, and their level in a window says something about tomorrow.
    """

    kind: Literal["itransformer"] = "itransformer"
    instance_norm: bool = False

    def build(self, features: int) -> ITransformerEncoder:
        """An untrained encoder of F = `features`, drawn from torch's global generator."""
        return ITransformerEncoder(features, self)


class ITransformerEncoder(nn.Module):
    """price_BLF -> pooled_BD, for L up to the lookback. `sequence_BLD` has a row for each feature, not for a session.

    Has no attention over sessions to explain; see the module's docstring.
    """

    def __init__(self, features: int, config: ITransformerConfig) -> None:
        super().__init__()
        inner = TransformerConfig(width=config.width, heads=config.heads, dropout=config.dropout)
        self.instance = InstanceNorm(features, config.width) if config.instance_norm else None
        self.values = nn.Linear(config.lookback, config.width)
        self.observed = nn.Linear(config.lookback, config.width, bias=False)
        self.feature_FD = nn.Parameter(torch.randn(features, config.width) * 0.02)
        self.blocks = nn.ModuleList(Block(inner) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.join = nn.Linear(features * config.width, config.width)

    def forward(self, price_BLF: Tensor, mask_BL: Tensor, explain: bool = False) -> Encoded:  # noqa: ARG002
        """A masked session is a zero in every token, and which sessions are masked is told to all of them."""
        price_BLF, told_BD = self._normalised(blank(price_BLF, mask_BL), mask_BL)
        tokens_BFD = self._embed(self.values, price_BLF.transpose(1, 2)) + self.feature_FD
        tokens_BFD = tokens_BFD + self._embed(self.observed, mask_BL.to(price_BLF.dtype))[:, None]
        all_111F = torch.ones(1, 1, 1, price_BLF.shape[2], dtype=torch.bool, device=price_BLF.device)
        for block in self.blocks:
            tokens_BFD = block(tokens_BFD, all_111F)
        tokens_BFD = self.norm(tokens_BFD)
        pooled_BD = self.join(self.dropout(tokens_BFD).flatten(1)) + told_BD
        return Encoded(pooled_BD, tokens_BFD, mask_BL.any(-1, keepdim=True).expand(-1, price_BLF.shape[2]))

    def _normalised(self, blank_BLF: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor | int]:
        return (blank_BLF, 0) if self.instance is None else self.instance(blank_BLF, mask_BL)

    def _embed(self, embedding: nn.Linear, series: Tensor) -> Tensor:
        """The embedding of [..., L]; a window shorter than the lookback has zeros for what lies before it."""
        length, longest = series.shape[-1], embedding.in_features
        if length > longest:
            raise ValueError(f"expected windows of at most {longest} sessions (lookback), received {length}")
        return functional.linear(series, embedding.weight[:, longest - length :], embedding.bias)
