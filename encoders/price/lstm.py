"""An LSTM over the window: Hochreiter and Schmidhuber (1997), with the forget gate of Gers et al. (2000)."""

from __future__ import annotations

from typing import Literal

from torch import nn

from encoders.price.recurrent import RecurrentConfig, RecurrentEncoder


class LSTMConfig(RecurrentConfig):
    """See `RecurrentConfig`: by default the code is the state after the decision's session, plus a look at it."""

    kind: Literal["lstm"] = "lstm"

    def build(self, features: int) -> RecurrentEncoder:
        """An untrained encoder of F = `features`, drawn from torch's global generator."""
        return RecurrentEncoder("lstm", self.recurrence(nn.LSTM, features), features, self)
