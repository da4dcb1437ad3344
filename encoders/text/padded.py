"""Any transformers encoder over texts laid end to end, by way of padded batches of like length.

For architectures without a packed forward (`packed.py`): what goes in and comes out is the same, the
padding in between costs some. What the padding's vectors are is never read.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from encoders.text.attention import Layout

SLACK = 1.25  # how much longer than the shortest the longest sequence of a padded batch may be


class PaddedEncoder(nn.Module):
    """Token ids end to end to token vectors end to end, with sequences of ascending length."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.padding = getattr(model.config, "pad_token_id", None) or 0

    def forward(self, ids_N: Tensor, layout: Layout) -> Tensor:
        """Vectors [N, E] of the tokens `ids_N`, int64."""
        lengths = [run.length for run in layout.runs for _ in range(run.count)]
        parts, start = [], 0
        for group in _alike(lengths):
            stop = start + sum(group)
            parts.append(self._padded(ids_N[start:stop], torch.tensor(group, device=ids_N.device)))
            start = stop
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _padded(self, ids_N: Tensor, length_B: Tensor) -> Tensor:
        mask_BT = torch.arange(int(length_B.max()), device=ids_N.device) < length_B[:, None]
        ids_BT = ids_N.new_full(mask_BT.shape, self.padding)
        ids_BT[mask_BT] = ids_N
        # Without a mask attention takes its fastest path; sorted batches are often of one length.
        mask = None if bool(mask_BT.all()) else mask_BT.long()
        hidden_NE: Tensor = self.model(input_ids=ids_BT, attention_mask=mask).last_hidden_state[mask_BT]
        return hidden_NE


def _alike(lengths: list[int]) -> Iterator[list[int]]:
    """Ascending lengths in groups that differ little."""
    start = 0
    for stop in range(1, len(lengths) + 1):
        if stop == len(lengths) or lengths[stop] > max(SLACK * lengths[start], lengths[start] + 1):
            yield lengths[start:stop]
            start = stop
