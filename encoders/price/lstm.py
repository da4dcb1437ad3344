"""An LSTM over the window. The state after the decision's session, plus a direct look at that session, is the code."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from encoders.encoded import Encoded
from encoders.price.base import PriceConfig


class LSTMConfig(PriceConfig):
    """`width` is the size of the state, `layers` the number of stacked LSTMs."""

    kind: Literal["lstm"] = "lstm"

    def build(self, features: int) -> LSTMEncoder:
        """An untrained encoder of F = `features`, drawn from torch's global generator."""
        return LSTMEncoder(features, self.width, self.layers, self.dropout)


class LSTMEncoder(nn.Module):
    """price_BLF -> pooled_BD. Any L; has no attention to explain."""

    def __init__(self, features: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0  # torch warns of dropout that has no layer to stand between
        self.lstm = nn.LSTM(features + 1, width, layers, batch_first=True, dropout=between)
        self.skip = nn.Linear(features, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self._open_forget_gates()

    def forward(self, price_BLF: Tensor, mask_BL: Tensor, explain: bool = False) -> Encoded:  # noqa: ARG002
        """A masked session enters as zeros with an observed-flag of 0; the state still steps over it."""
        observed_BLF = price_BLF.masked_fill(~mask_BL[..., None], 0)
        flag_BL1 = mask_BL[..., None].to(observed_BLF.dtype)
        # Rounding adds up over L steps, and oneDNN has no bfloat16 LSTM for every CPU: autocast stays out.
        with torch.autocast(price_BLF.device.type, enabled=False):
            state_BLD, _ = self.lstm(torch.cat([observed_BLF, flag_BL1], dim=-1).float())
        # The decision's own session says most about the next; the skip spares it the way through the gates.
        pooled_BD = self.norm(state_BLD[:, -1] + self.skip(observed_BLF[:, -1]))
        return Encoded(self.dropout(pooled_BD), state_BLD, mask_BL)

    def _open_forget_gates(self) -> None:
        """Bias 1, as Jozefowicz et al. (2015) advise: an untrained state then remembers more than a session."""
        width = self.lstm.hidden_size
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("bias_ih"):
                nn.init.ones_(parameter.data[width : 2 * width])
