"""What every encoder hands to a fusion: one vector a sample, and the steps it was pooled from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Encoded:
    """A batch after its encoder. L counts sessions for prices and headlines for news; it may be 0 for news.

    `pooled_BD` is always finite and is what a fusion reads first. Where `mask_BL` is False, the row of
    `sequence_BLD` is padding or an unobserved session and must not be read. `attention` holds the weights behind
    `pooled_BD` where the encoder has any and was asked for them; its shape is the encoder's own.
    """

    pooled_BD: Tensor
    sequence_BLD: Tensor
    mask_BL: Tensor
    attention: Tensor | None = None
