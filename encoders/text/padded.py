"""Any transformers encoder over texts laid end to end, by way of padded batches of like length.

For architectures without a packed forward (`packed.py`): what goes in and comes out is the same, the
padding in between costs some. What the padding's vectors are is never read. How sequences are padded
and grouped stands here for the classifier (`classifier.py`) too.
"""

from collections.abc import Callable, Iterator, Sequence
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
        near = groups(lengths, lambda first, last: lengths[last] <= max(SLACK * lengths[first], lengths[first] + 1))
        for group in near:
            stop = start + sum(lengths[group])
            parts.append(self._padded(ids_N[start:stop], torch.tensor(lengths[group], device=ids_N.device)))
            start = stop
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _padded(self, ids_N: Tensor, length_B: Tensor) -> Tensor:
        ids_BT, mask_BT = pad(ids_N, length_B, self.padding)
        out = self.model(input_ids=ids_BT, attention_mask=needed(mask_BT))
        hidden_NE: Tensor = out.last_hidden_state[mask_BT]
        return hidden_NE


def pad(ids_N: Tensor, length_B: Tensor, padding: int = 0) -> tuple[Tensor, Tensor]:
    """Ids laid end to end as [B, T], `padding` where there is none, and True where there is one."""
    mask_BT = torch.arange(int(length_B.max()), device=ids_N.device) < length_B[:, None]
    ids_BT = ids_N.new_full(mask_BT.shape, padding)
    ids_BT[mask_BT] = ids_N
    return ids_BT, mask_BT


def needed(mask_BT: Tensor) -> Tensor | None:
    """The mask as a model takes it, or None where nothing is padded: attention then takes its fastest path."""
    return None if bool(mask_BT.all()) else mask_BT.long()


def groups(lengths: Sequence[int], together: Callable[[int, int], bool]) -> Iterator[slice]:
    """Ascending lengths cut into neighbours: that at `last` joins those from `first` on if `together(first, last)`."""
    first = 0
    for last in range(1, len(lengths) + 1):
        if last == len(lengths) or not together(first, last):
            yield slice(first, last)
            first = last
