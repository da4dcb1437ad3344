"""What the recurrent kinds share: the walk over the window, and how its states become one code.

Does not know which recurrence it walks with: `lstm.py` and `gru.py` bring their own.
"""

from __future__ import annotations

from typing import Literal, Self, cast

import torch
from pydantic import model_validator
from torch import Tensor, nn

from encoders.encoded import Encoded
from encoders.price.attention import readable
from encoders.price.base import PriceConfig, flagged


class RecurrentConfig(PriceConfig):
    """`width` is the size of the state, `layers` the number of stacked recurrences.

    `bidirectional` reads the window from both ends, each direction with half of the width. `pooling` says what the
    code is made from: the state after the last step ("last") or a learned mixture of all of them ("attention").
    """

    bidirectional: bool = False
    pooling: Literal["last", "attention"] = "last"

    @model_validator(mode="after")
    def _directions_share_the_width(self) -> Self:
        if self.bidirectional and self.width % 2:
            raise ValueError(f"width must be even where bidirectional is true: width is {self.width}")
        return self

    def recurrence(self, cell: type[nn.LSTM] | type[nn.GRU], features: int) -> nn.LSTM | nn.GRU:
        """An untrained recurrence over F + 1 inputs, the last of them telling whether the session was observed."""
        return cell(
            features + 1,
            self.width // 2 if self.bidirectional else self.width,
            self.layers,
            batch_first=True,
            dropout=self.dropout if self.layers > 1 else 0.0,  # torch warns of dropout with no layer to stand between
            bidirectional=self.bidirectional,
        )


class RecurrentEncoder(nn.Module):
    """price_BLF -> pooled_BD, for any L. `sequence_BLD` holds the last layer's states.

    A masked session enters as zeros with an observed-flag of 0; the state still steps over it. With attention
    pooling, `explain` gives its weights as a map [B, 1, 1, L, L] whose rows are all alike: every row of the window is
    pooled by one question. Without, there is nothing to explain.
    """

    def __init__(self, name: str, recurrence: nn.LSTM | nn.GRU, features: int, config: RecurrentConfig) -> None:
        """`name` is what the recurrence's parameters are called in a saved model."""
        super().__init__()
        self.name = name
        self.add_module(name, recurrence)
        self.skip = nn.Linear(features, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.pool = StatePooling(config.width) if config.pooling == "attention" else None
        remember(recurrence)

    def forward(self, price_BLF: Tensor, mask_BL: Tensor, explain: bool = False) -> Encoded:
        """At any L; where nothing was observed, the states of L steps over nothing are pooled."""
        step_BLF = flagged(price_BLF, mask_BL)
        # Rounding adds up over L steps, and oneDNN has no bfloat16 LSTM for every CPU: autocast stays out.
        with torch.autocast(price_BLF.device.type, enabled=False):
            state_BLD, final_BD = self._walk(step_BLF.float())
        weight_BL = None if self.pool is None else self.pool(state_BLD, mask_BL)
        code_BD = final_BD if weight_BL is None else (weight_BL[:, None] @ state_BLD).squeeze(1)
        # The decision's own session says most about the next; the skip spares it the way through the gates.
        pooled_BD = self.norm(code_BD + self.skip(step_BLF[:, -1, :-1]))
        maps = None if weight_BL is None or not explain else rows_alike(weight_BL)
        return Encoded(self.dropout(pooled_BD), state_BLD, mask_BL, maps)

    def _walk(self, step_BLF: Tensor) -> tuple[Tensor, Tensor]:
        """States [B, L, D] and the last one of each direction side by side [B, D]."""
        recurrence = cast("nn.LSTM | nn.GRU", self.get_submodule(self.name))
        state_BLD, final = recurrence(step_BLF)
        hidden_SBD = final[0] if isinstance(final, tuple) else final  # S layers x directions, the last layer's last
        return state_BLD, hidden_SBD[-1 - recurrence.bidirectional :].transpose(0, 1).flatten(1)


class StatePooling(nn.Module):
    """Learned weights of the states: u = tanh(W h + b), softmax of u's product with one learned vector.

    Yang et al. 2016 (Hierarchical Attention Networks for Document Classification), equations 5 and 6.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.key = nn.Linear(width, width)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, state_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """[B, L]: 0 at masked sessions, each row summing to 1; where nothing was observed, all steps are weighed."""
        score_BL: Tensor = self.score(torch.tanh(self.key(state_BLD))).squeeze(-1).float()
        return score_BL.masked_fill(~readable(mask_BL), -torch.inf).softmax(-1)


def rows_alike(weight_BL: Tensor) -> Tensor:
    """[B, L] weights as an attention map [B, 1, 1, L, L], every row the same; a view."""
    batch, length = weight_BL.shape
    return weight_BL[:, None, None, None].expand(batch, 1, 1, length, length)


def remember(recurrence: nn.LSTM | nn.GRU) -> None:
    """Bias 1 on the gate that keeps the state, so that an untrained one remembers more than a session.

    Jozefowicz et al. (2015) advise it for an LSTM's forget gate. A GRU's update gate, which keeps the state as it
    opens, stands in the same place: second of the gates.
    """
    width = recurrence.hidden_size
    for name, parameter in recurrence.named_parameters():
        if name.startswith("bias_ih"):
            nn.init.ones_(parameter.data[width : 2 * width])
