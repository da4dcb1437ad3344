"""The records every layer speaks of: a component's config, a batch of samples, a forecast.

Shape letters: B batch, L lookback, F features, K headlines, E embedding, D model width, Q quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from torch import Tensor

QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


class Config(BaseModel):
    """Base of every component's config: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class NewsBatch:
    """Up to K pieces of news a sample, newest session first. Where `mask_BK` is False the rest is padding.

    `age_BK` counts sessions back from the decision's own: 0 is news first known at this decision.
    `copies_BK` counts the items that had carried it by this decision, itself included: at least 1.
    """

    embedding_BKE: Tensor
    mask_BK: Tensor
    age_BK: Tensor
    copies_BK: Tensor

    def none(self) -> NewsBatch:
        """As many samples with no headline at all: K is 0."""
        return NewsBatch(self.embedding_BKE[:, :0], self.mask_BK[:, :0], self.age_BK[:, :0], self.copies_BK[:, :0])


@dataclass(frozen=True)
class Batch:
    """Samples as a model reads them; every tensor is on the model's device.

    `price_BLF` is scaled, finite, and zero wherever `mask_BL` (True = an observed session) is False;
    the last of L is the decision's own session. `news` is the ticker's own headlines. `market` is those
    that name no ticker, once per distinct session of the batch; sample b's are its row `market_row_B[b]`.
    `target_B` is the log return of the
    target session in units of `unit_B`, the ticker's volatility known at the decision; NaN where it
    has not happened yet. `session_B` numbers the sessions: rows of one session share the market's shock.
    """

    price_BLF: Tensor
    mask_BL: Tensor
    news: NewsBatch
    market: NewsBatch
    market_row_B: Tensor
    target_B: Tensor
    unit_B: Tensor
    session_B: Tensor

    def without_news(self) -> Batch:
        """The same samples as if nothing had been published."""
        return replace(self, news=self.news.none(), market=self.market.none())


@dataclass(frozen=True)
class Forecast:
    """One ticker's forecast for one session. Instants are UTC; returns are natural logarithms.

    `price` is the last close, on the share basis of the target session, times exp(median return).
    """

    ticker: str
    target_session: date
    decision_at: datetime
    made_at: datetime
    cutoff_at: datetime
    mean: float
    quantiles: tuple[float, ...]
    prob_up: float
    price: float
    price_low: float
    price_high: float
    model_id: str
    data_version: str
