"""The price language model: bars as tokens, an LSTM or a causal Transformer over them, paths drawn from it."""

from encoders.price.tokens.encoder import TokensConfig, TokensEncoder
from encoders.price.tokens.pretraining import Pretrained
from encoders.price.tokens.sampling import PLAIN, Decoding, Paths

__all__ = ["PLAIN", "Decoding", "Paths", "Pretrained", "TokensConfig", "TokensEncoder"]
