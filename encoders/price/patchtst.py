"""PatchTST (Nie et al. 2023): each feature is a series of its own, and a token is a patch of it, not a session.

All features share the weights and none sees another before the end, where one linear map reads the last patch of
each. Patches end with the window: the last always ends at the decision's session, the first may reach before the
window. Blocks are those of `encoders/price/transformer.py` (LayerNorm where the authors have BatchNorm, which lets
rows see their company), and only the last patch is computed in the last layer. No pre-training.
"""

from __future__ import annotations

from typing import Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from encoders.encoded import Encoded
from encoders.price.attention import readable
from encoders.price.base import AttentionConfig, blank
from encoders.price.instance import InstanceNorm
from encoders.price.positions import Learned
from encoders.price.transformer import Block, TransformerConfig


class PatchTSTConfig(AttentionConfig):
    """Patches of `patch_length` sessions start every `stride`; with `instance_norm`, windows are normalised first.

    That is off by default: features are scaled already, and their level in a window says something about tomorrow.
    """

    kind: Literal["patchtst"] = "patchtst"
    patch_length: int = Field(default=16, ge=1, le=1000)
    stride: int = Field(default=8, ge=1, le=1000)
    instance_norm: bool = False

    @model_validator(mode="after")
    def _patches_leave_no_gaps(self) -> Self:
        if self.stride > self.patch_length:
            raise ValueError(
                f"stride must be at most patch_length, or sessions go unread: stride is {self.stride}, "
                f"patch_length is {self.patch_length}"
            )
        return self

    def build(self, features: int) -> PatchTSTEncoder:
        """An untrained encoder of F = `features`, drawn from torch's global generator."""
        return PatchTSTEncoder(features, self)


class PatchTSTEncoder(nn.Module):
    """price_BLF -> pooled_BD, for L up to the lookback. `sequence_BLD` has a row for each feature, not for a session.

    `explain` adds attention [B, layers, heads, L, L]: the mean over features of the maps between patches. A session's
    row is the mean of its patches' rows, and a patch's weight is shared alike by its observed sessions.
    """

    def __init__(self, features: int, config: PatchTSTConfig) -> None:
        super().__init__()
        inner = TransformerConfig(width=config.width, heads=config.heads, dropout=config.dropout)
        self.length, self.stride = config.patch_length, config.stride
        self.instance = InstanceNorm(features, config.width) if config.instance_norm else None
        self.values = nn.Linear(self.length, config.width)
        self.observed = nn.Linear(self.length, config.width, bias=False)
        self.place = Learned(1 + self._steps(config.lookback), config.width)
        self.blocks = nn.ModuleList(Block(inner) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.join = nn.Linear(features * config.width, config.width)

    def forward(self, price_BLF: Tensor, mask_BL: Tensor, explain: bool = False) -> Encoded:
        """A masked session is a zero in its patch and is told; a patch without an observed session is no key."""
        batch, _, features = price_BLF.shape
        price_BLF, told_BD = self._normalised(blank(price_BLF, mask_BL), mask_BL)
        seen_BNP = self._patches(mask_BL[..., None]).squeeze(1)
        tokens_BFND = self.values(self._patches(price_BLF)) + self.observed(seen_BNP.to(price_BLF.dtype))[:, None]
        tokens_CND = self.place(tokens_BFND.flatten(0, 1))  # C = B x F: channels, each a sequence of its own
        keys_CN = readable(seen_BNP.any(-1)).repeat_interleave(features, 0)
        maps: list[Tensor] = []
        *blocks, last = cast("list[Block]", list(self.blocks))
        for block in blocks:
            if explain:
                maps.append(block.maps(tokens_CND, keys_CN[:, None, None]))
            tokens_CND = block(tokens_CND, keys_CN[:, None, None])
        if explain:
            maps.append(last.maps(tokens_CND, keys_CN[:, None, None]))
        code_CD, _ = last.latest(tokens_CND, keys_CN)
        code_BFD = self.norm(code_CD).unflatten(0, (batch, features))
        pooled_BD = self.join(self.dropout(code_BFD).flatten(1)) + told_BD
        attention = torch.stack([self._by_session(each, mask_BL) for each in maps], dim=1) if explain else None
        return Encoded(pooled_BD, code_BFD, mask_BL.any(-1, keepdim=True).expand(-1, features), attention)

    def _normalised(self, blank_BLF: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor | int]:
        return (blank_BLF, 0) if self.instance is None else self.instance(blank_BLF, mask_BL)

    def _steps(self, length: int) -> int:
        """How many strides fit, the last one perhaps in part, between the first patch and the last."""
        return -(-max(length - self.length, 0) // self.stride)

    def _patches(self, series_BLF: Tensor) -> Tensor:
        """[B, F, N, P]: N patches of P sessions, the last at the window's end, zeros before its beginning."""
        length = series_BLF.shape[1]
        before = self.length + self._steps(length) * self.stride - length
        return functional.pad(series_BLF.transpose(1, 2), (before, 0)).unfold(-1, self.length, self.stride)

    def _by_session(self, map_CHNN: Tensor, mask_BL: Tensor) -> Tensor:
        """Maps between patches of each channel to one [B, heads, L, L] between sessions; its rows sum to 1."""
        map_BHNN = map_CHNN.reshape(len(mask_BL), -1, *map_CHNN.shape[1:]).mean(1)
        place_1L1 = torch.arange(1.0, mask_BL.shape[1] + 1, device=mask_BL.device)[None, :, None]
        holds_NL = self._patches(place_1L1)[0, 0, :, :, None].eq(place_1L1[0, :, 0]).any(1).to(map_BHNN.dtype)
        row_LN = (holds_NL / holds_NL.sum(0)).T
        share_BNL = holds_NL * readable(mask_BL)[:, None]
        share_BNL = share_BNL / share_BNL.sum(-1, keepdim=True).clamp(min=1)
        sessions_BHLL: Tensor = row_LN @ map_BHNN @ share_BNL[:, None]
        return sessions_BHLL
