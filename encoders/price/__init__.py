"""Price windows to vectors. A new kind is one file with a config and a module, and one member of this union."""

from typing import Annotated

from pydantic import Field

from encoders.price.autoformer import AutoformerConfig
from encoders.price.base import PriceEncoder
from encoders.price.gru import GRUConfig
from encoders.price.informer import InformerConfig
from encoders.price.itransformer import ITransformerConfig
from encoders.price.linear import DLinearConfig
from encoders.price.lstm import LSTMConfig
from encoders.price.mlp import MLPConfig
from encoders.price.patchtst import PatchTSTConfig
from encoders.price.tcn import TCNConfig
from encoders.price.tokens import TokensConfig
from encoders.price.transformer import TransformerConfig

PriceEncoderConfig = Annotated[
    LSTMConfig
    | GRUConfig
    | TransformerConfig
    | TCNConfig
    | DLinearConfig
    | MLPConfig
    | TokensConfig
    | AutoformerConfig
    | InformerConfig
    | ITransformerConfig
    | PatchTSTConfig,
    Field(discriminator="kind"),
]

__all__ = [
    "AutoformerConfig",
    "DLinearConfig",
    "GRUConfig",
    "ITransformerConfig",
    "InformerConfig",
    "LSTMConfig",
    "MLPConfig",
    "PatchTSTConfig",
    "PriceEncoder",
    "PriceEncoderConfig",
    "TCNConfig",
    "TokensConfig",
    "TransformerConfig",
]
