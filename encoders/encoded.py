"""What every encoder hands to a fusion: one vector a sample, and the steps it was pooled from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Encoded:
    """A batch after its encoder. L counts the steps that were pooled: sessions, headlines, or what the encoder says.

    `pooled_BD` is always finite and is what a fusion reads first. L may be 0: no headline, or an encoder without
    steps. Where `mask_BL` is False, the row of `sequence_BLD` is padding or an unobserved session and must not be read.
    `attention` holds the weights behind `pooled_BD` where the encoder has any and was asked for them: a price
    encoder's are [B, layers, heads, L, L] over the window's sessions, each row summing to 1 over the observed ones;
    headlines' are [B, K]. `pooling_BL`, for one that pools its sessions by learned weights, is how much of the code
    each gave, summing to 1; it too only where it was asked for.
    """

    pooled_BD: Tensor
    sequence_BLD: Tensor
    mask_BL: Tensor
    attention: Tensor | None = None
    pooling_BL: Tensor | None = None
