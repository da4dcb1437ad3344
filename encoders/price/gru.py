"""A GRU over the window: Cho et al. (2014), with the reset gate behind the recurrent product, as cuDNN has it."""

from __future__ import annotations

from typing import Literal

from torch import nn

from encoders.price.recurrent import RecurrentConfig, RecurrentEncoder


class GRUConfig(RecurrentConfig):
    """See `RecurrentConfig`: the LSTM's keys, three gates in place of four and no cell beside the state."""

    kind: Literal["gru"] = "gru"

    def build(self, features: int) -> RecurrentEncoder:
        """An untrained encoder of F = `features`, drawn from torch's global generator."""
        return RecurrentEncoder("gru", self.recurrence(nn.GRU, features), features, self)
