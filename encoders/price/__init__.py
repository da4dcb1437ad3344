"""Price windows to vectors. A new kind is one file with a config and a module, and one member of this union."""

from typing import Annotated

from pydantic import Field

from encoders.price.base import PriceEncoder
from encoders.price.lstm import LSTMConfig
from encoders.price.transformer import TransformerConfig

PriceEncoderConfig = Annotated[LSTMConfig | TransformerConfig, Field(discriminator="kind")]

__all__ = ["LSTMConfig", "PriceEncoder", "PriceEncoderConfig", "TransformerConfig"]
