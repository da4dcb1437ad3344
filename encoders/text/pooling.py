"""Token vectors to one vector a text. The texts lie end to end, so there is no padding to leave out.

Each pooling is a module without trained weights of its own: move it to the device of the model. It
knows neither tokens nor windows of long texts.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from data.errors import EncoderError


class Pool(nn.Module):
    """`pool(hidden_NE, offset_B1) -> vectors_BD`, fp32; D is E but for `SentimentPool`.

    `hidden_NE` holds the token vectors of B texts end to end; text b's are its rows `offset_B1[b]` to
    `offset_B1[b + 1]`, at least one. `offset_B1` is int64, [B + 1], from 0 to N.
    """


class MeanPool(Pool):
    """The mean of a text's token vectors."""

    def forward(self, hidden_NE: Tensor, offset_B1: Tensor) -> Tensor:
        """[N, E] to [B, E]."""
        count_B = offset_B1.diff()
        text_N = torch.repeat_interleave(count_B, output_size=len(hidden_NE))
        sum_BE = hidden_NE.new_zeros(len(count_B), hidden_NE.shape[1], dtype=torch.float32)
        return sum_BE.index_add_(0, text_N, hidden_NE.float()) / count_B[:, None]


class ClsPool(Pool):
    """The vector of a text's first token."""

    def forward(self, hidden_NE: Tensor, offset_B1: Tensor) -> Tensor:
        """[N, E] to [B, E]."""
        return hidden_NE[offset_B1[:-1]].float()


class LastPool(Pool):
    """The vector of a text's last token: the only one that has seen all of it in a causal model."""

    def forward(self, hidden_NE: Tensor, offset_B1: Tensor) -> Tensor:
        """[N, E] to [B, E]."""
        return hidden_NE[offset_B1[1:] - 1].float()


class MaxPool(Pool):
    """The largest of a text's token vectors, coordinate by coordinate."""

    def forward(self, hidden_NE: Tensor, offset_B1: Tensor) -> Tensor:
        """[N, E] to [B, E]."""
        return torch.segment_reduce(hidden_NE.float(), "max", offsets=offset_B1, unsafe=True)


class SentimentPool(Pool):
    """The mean, and beside it what the checkpoint's own classifier says: D is E plus its labels.

    The classifier reads the first token's vector, through the pooler where it has one, as it was
    trained (FinBERT: Araci 2019, arXiv:1908.10063). The probabilities sum to 1.
    """

    def __init__(self, classifier: nn.Module, order: Sequence[int]) -> None:
        """`classifier` maps the first token's vectors [B, E] to scores [B, C]; `order` gives the columns' order."""
        super().__init__()
        self.mean = MeanPool()
        self.classifier = classifier
        self.order = list(order)

    def forward(self, hidden_NE: Tensor, offset_B1: Tensor) -> Tensor:
        """[N, E] to [B, E + C]."""
        score_BC = self.classifier(hidden_NE[offset_B1[:-1]].float())[:, self.order]
        return torch.cat([self.mean(hidden_NE, offset_B1), score_BC.float().softmax(-1)], dim=1)


class FirstTokenClassifier(nn.Module):
    """The part of a `...ForSequenceClassification` that stands above its encoder.

    Its forward is the library's own, over an encoder that hands on a given vector instead of reading tokens: heads
    differ from one architecture to the next (pooler, activations, where they lie). It takes the encoder out of
    `model`; keep `model.base_model` first. A head that reads other tokens too is not answered rightly.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        setattr(model, model.base_model_prefix, _Given(getattr(model.base_model, "pooler", None)))
        self.model = model

    def forward(self, first_BE: Tensor) -> Tensor:
        """Vectors of first tokens [B, E] to scores [B, C]."""
        scores_BC: Tensor = self.model(inputs_embeds=first_BE[:, None]).logits
        return scores_BC


class _Given(nn.Module):
    def __init__(self, pooler: nn.Module | None) -> None:
        super().__init__()
        self.pooler = pooler

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> BaseModelOutputWithPooling:
        pooled_BE = self.pooler(inputs_embeds) if self.pooler is not None else None
        return BaseModelOutputWithPooling(last_hidden_state=inputs_embeds, pooler_output=pooled_BE)


POOLS: dict[str, type[Pool]] = {"mean": MeanPool, "cls": ClsPool, "max": MaxPool, "last": LastPool}


def finite(
    texts: Sequence[str], positions: npt.NDArray[np.int64], vectors_BD: npt.NDArray[np.float16]
) -> npt.NDArray[np.float16]:
    """The vectors of the texts at `positions`, as they are. EncoderError names the text of one that is not."""
    bad_B = ~np.isfinite(vectors_BD).all(axis=1)
    if bad_B.any():
        text = texts[int(positions[np.flatnonzero(bad_B)[0]])]
        raise EncoderError(
            f"the text encoder gave a vector that is not finite in fp16 for the text {text[:200]!r}. Its batch was not "
            "stored; the weights are damaged or overflow in half precision: choose another text.encoder."
        )
    return vectors_BD
