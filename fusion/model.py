"""The assembled model: price encoder, news encoder, fusion, head. Does not train, load or save itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from data.types import Batch
from encoders.absent import Absent
from encoders.encoded import Encoded
from encoders.news import NewsChannels
from encoders.price import PriceEncoder, PriceEncoderConfig
from fusion.base import Fusion
from fusion.head import Prediction, StudentTHead
from fusion.kinds import FusionConfig

Part = TypeVar("Part", bound=nn.Module)


class ForecastModel(nn.Module):
    """Batch -> Prediction. An input that the fusion does not read has `Absent` for its encoder."""

    def __init__(self, price: PriceEncoder, news: NewsChannels | Absent, fusion: Fusion, head: StudentTHead) -> None:
        super().__init__()
        self.price = price
        self.news = news
        self.fusion = fusion
        self.head = head

    def forward(self, batch: Batch) -> Prediction:
        """In units of each sample's volatility. Neither `target_B` nor `unit_B` is read."""
        price = self.price(batch.price_BLF, batch.mask_BL)
        news = self.news(batch.news, batch.market, batch.market_row_B)
        prediction: Prediction = self.head(self.fusion(price, news))
        return prediction

    def explain(self, batch: Batch) -> Encoded:
        """The prices as encoded, with the attention over sessions and the pooling's weights where there are any."""
        return self.price(batch.price_BLF, batch.mask_BL, explain=True)


def build_model(
    price: PriceEncoderConfig, fusion: FusionConfig, features: int, embedding: int, ages: int
) -> ForecastModel:
    """An untrained model for F = `features`, E = `embedding` and news of 0 .. `ages` - 1 sessions back.

    Every part draws its parameters from its own seed, and the four seeds come from torch's global generator. So under
    one seed all variants that have a part start with the same part, and leave the generator in the same state: their
    paired difference is free of the noise of initialisation.
    """
    width = price.width
    seeds = torch.randint(2**62, (4,)).tolist()

    def news() -> NewsChannels | Absent:
        return NewsChannels(embedding, width, ages, fusion.dropout) if fusion.reads_text else Absent(width)

    return ForecastModel(
        price=_drawn(seeds[0], lambda: price.build(features) if fusion.reads_price else Absent(width)),
        news=_drawn(seeds[1], news),
        fusion=_drawn(seeds[2], lambda: fusion.build(width)),
        head=_drawn(seeds[3], lambda: StudentTHead(width)),
    )


def _drawn(seed: int, build: Callable[[], Part]) -> Part:
    """What `build` gives with the CPU generator at `seed`; the generator is then put back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()
