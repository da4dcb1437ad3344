"""Attention maps to what they say about days. Does not attend itself: each encoder makes its own maps."""

from __future__ import annotations

import torch
from torch import Tensor


def readable(mask_BL: Tensor) -> Tensor:
    """[B, L], True where a session may be attended to: the observed ones; all where none is, to keep softmax defined.

    The tokens of a window without any observed session come from zeros, so reading them tells nothing.
    """
    return mask_BL | ~mask_BL.any(-1, keepdim=True)


def causal(readable_BL: Tensor) -> Tensor:
    """[B, 1, L, L], True where a query (third axis) may read a key: readable and not later than the query itself.

    A query before the first readable session has no such key and reads them all: it is masked itself, and no other
    query reads it.
    """
    past_LL = torch.ones(readable_BL.shape[1], readable_BL.shape[1], device=readable_BL.device).tril().bool()
    allowed_BLL = readable_BL[:, None] & past_LL
    return (allowed_BLL | (readable_BL[:, None] & ~allowed_BLL.any(-1, keepdim=True)))[:, None]


def importance(attention: Tensor | None, mask_BL: Tensor, pooling_BL: Tensor | None = None) -> Tensor:
    """How much each session of a window weighs in its code: [B, L], at least 0, each row summing to 1.

    `attention` is [B, layers, heads, L, L], each row summing to 1 over its keys. This is attention rollout (Abnar and
    Zuidema 2020, section 3, equation 1): heads are averaged, the residual beside each attention counts as half a look
    at oneself, layers are multiplied, and the row of the decision's session, the last of L, is read; or the rows as
    `pooling_BL` weighs them, where the code is a mixture of several. Without attention that mixture is the answer.
    Unobserved sessions get 0; where nothing was observed at all, all sessions share alike what the maps say.

    Raises ValueError where the shapes do not belong together, or neither was given.
    """
    batch, length = mask_BL.shape
    if attention is None:
        if pooling_BL is None:
            raise ValueError("expected attention, or the weights of a pooling, received neither")
        return pooling_BL.float()
    if attention.ndim != 5 or attention.shape[0] != batch or attention.shape[3:] != (length, length):
        raise ValueError(
            f"expected attention [{batch}, layers, heads, {length}, {length}] for a mask of {list(mask_BL.shape)}, "
            f"received {list(attention.shape)}"
        )
    if pooling_BL is None:
        weight_BL = torch.zeros(batch, length, dtype=torch.float32, device=attention.device)
        weight_BL[:, -1] = 1  # all of the code starts at the decision's own session
    else:
        weight_BL = pooling_BL.float()
    for layer_BLL in reversed(attention.float().mean(2).unbind(1)):
        weight_BL = (weight_BL + (weight_BL[:, None] @ layer_BLL).squeeze(1)) / 2
    weight_BL = weight_BL.masked_fill(~readable(mask_BL), 0)
    return weight_BL / weight_BL.sum(-1, keepdim=True)
