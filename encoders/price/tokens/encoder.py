"""A price language model as a price encoder: bar -> token -> embedding -> stack -> state, and back to returns.

Before the forecast model is trained, `pretrain` fits the quantiser and teaches the language model the training fold's
bars; from then on both stand still, so that paths can be drawn from the very model whose states the forecast reads.
What the forecast's training moves is the reader on top of it. Does not draw paths: see `sampling.py`.

Related: Kronos (Shi et al. 2025) reads candlesticks as tokens with a Transformer and averages its sampled paths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from encoders.encoded import Encoded
from encoders.price.base import PriceConfig, blank
from encoders.price.tokens.language import LanguageModel
from encoders.price.tokens.pretraining import teach
from encoders.price.tokens.quantiser import Quantiles, ResidualVQ
from encoders.price.tokens.sampling import PLAIN, Decoding, Paths, sample
from encoders.price.tokens.stacks import CausalStack, LSTMStack

# Where the bar stands among the features (data/features.py): its return into the close, the same into the open, its
# range, and where in the range it closed. A test holds these numbers to the names.
COLUMNS = (0, 1, 3, 4)
MOST_CELLS = 4096  # of a residual quantiser: each keeps its own spread of returns
TILES = 2  # pretraining reads sequences of so many lookbacks: paths go on beyond one


class TokensConfig(PriceConfig):
    """`stack` reads the tokens; `pretrain` is how often next-token training passes over the training bars.

    `bins` codes stand for the return, or for each stage of `rvq`; `shape_bins` for each other variable of the bar.
    With 1 of these the return alone is read. `heads` is the Transformer stack's, `stages` is `rvq`'s.
    """

    kind: Literal["tokens"] = "tokens"
    stack: Literal["lstm", "transformer"] = "lstm"
    heads: int = Field(default=4, ge=1)
    quantiser: Literal["quantiles", "rvq"] = "quantiles"
    bins: int = Field(default=16, ge=2, le=1024)
    shape_bins: int = Field(default=4, ge=1, le=1024)
    stages: int = Field(default=2, ge=1, le=8)
    pretrain: int = Field(default=20, ge=1)

    @model_validator(mode="after")
    def _heads_share_the_width_in_pairs(self) -> Self:
        if self.stack == "transformer" and self.width % (2 * self.heads):
            raise ValueError(
                f"width must be a multiple of twice the heads: width is {self.width}, heads is {self.heads}"
            )
        return self

    @model_validator(mode="after")
    def _few_enough_cells(self) -> Self:
        if self.quantiser == "rvq" and self.bins**self.stages > MOST_CELLS:
            raise ValueError(
                f"bins ** stages must be at most {MOST_CELLS}: bins is {self.bins}, stages is {self.stages}"
            )
        return self

    def build(self, features: int) -> TokensEncoder:
        """An untrained encoder of F = `features`, drawn from torch's global generator."""
        columns = COLUMNS if self.shape_bins > 1 else COLUMNS[:1]
        if features <= max(columns):
            raise ValueError(f"expected at least {max(columns) + 1} features, a bar's among them, received {features}")
        quantiser = (
            Quantiles(self.bins, self.shape_bins, len(columns))
            if self.quantiser == "quantiles"
            else ResidualVQ(self.bins, self.stages, len(columns))
        )
        stack = (
            LSTMStack(self.width, self.layers, self.dropout)
            if self.stack == "lstm"
            else CausalStack(self.width, self.layers, self.heads, self.dropout, self.lookback)
        )
        language = LanguageModel(quantiser.levels, self.width, stack, self.dropout)
        return TokensEncoder(features, columns, quantiser, language, self)


class TokensEncoder(nn.Module):
    """price_BLF -> pooled_BD. `explain` gives its pooling, and the Transformer stack's maps [B, layers, heads, L, L],
    causal.

    The reader joins the language model's state after each session with that session's features, and pools over the
    observed sessions by learned weights, beside a direct look at the decision's own.
    """

    pretrained: Tensor

    def __init__(
        self,
        features: int,
        columns: tuple[int, ...],
        quantiser: Quantiles | ResidualVQ,
        language: LanguageModel,
        config: TokensConfig,
    ) -> None:
        super().__init__()
        self.columns = columns
        self.quantiser = quantiser
        self.language = language
        self.passes, self.tile = config.pretrain, TILES * config.lookback
        self.read = nn.Linear(config.width + features, config.width)
        self.score = nn.Linear(config.width, 1, bias=False)
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("pretrained", torch.tensor(False))

    def forward(self, price_BLF: Tensor, mask_BL: Tensor, explain: bool = False) -> Encoded:
        """A masked session is a token of its own and is not pooled; `sequence_BLD` is what is pooled."""
        blank_BLF = blank(price_BLF, mask_BL)
        codes_BLG = self._codes(blank_BLF)
        states_BLD, _ = self.language(codes_BLG, mask_BL)
        steps_BLD = functional.gelu(self.read(torch.cat([states_BLD, blank_BLF.to(states_BLD.dtype)], dim=-1)))
        counted_BL = mask_BL | ~mask_BL.any(-1, keepdim=True)
        score_BL = self.score(steps_BLD)[..., 0].float().masked_fill(~counted_BL, -torch.inf)
        weight_BL = score_BL.softmax(-1)
        pooled_BD = (weight_BL[..., None] * steps_BLD).sum(1)
        code_BD = self.dropout(self.norm(pooled_BD + steps_BLD[:, -1]))
        if not explain:
            return Encoded(code_BD, steps_BLD, mask_BL)
        return Encoded(code_BD, steps_BLD, mask_BL, self.language.maps(codes_BLG, mask_BL), _with_last(weight_BL))

    def pretrain(self, history_NSV: Tensor, mask_NS: Tensor, seed: int) -> None:
        """Fit the quantiser and teach the language model the `columns` of N tickers over S sessions; then hold both.

        Only what `mask_NS` marks is read. The same seed gives the same weights; torch's global generator is left
        where it was. Raises ValueError where nothing is marked.
        """
        if not mask_NS.any():
            raise ValueError(f"expected observed sessions to learn from, received none among {tuple(mask_NS.shape)}")
        history_NSV = history_NSV.masked_fill(~mask_NS[..., None], 0)
        self.quantiser.fit(history_NSV[mask_NS], torch.Generator().manual_seed(seed))
        codes_NSG = self.quantiser.encode(history_NSV).to(torch.int16)
        teach(self.language, codes_NSG, mask_NS, self.tile, self.passes, seed)
        self.hold()

    def hold(self) -> None:
        """The language model stands still from now on."""
        self.language.requires_grad_(False)
        self.pretrained.fill_(True)

    def train(self, mode: bool = True) -> Self:
        """As of any module, but a language model that stands still keeps its dropout off."""
        super().train(mode)
        if self.pretrained:
            self.language.eval()
        return self

    @torch.inference_mode()
    def paths(
        self,
        price_BLF: Tensor,
        mask_BL: Tensor,
        horizon: int,
        paths: int,
        generators: Sequence[torch.Generator],
        decoding: Decoding = PLAIN,
    ) -> Paths:
        """`paths` futures of `horizon` bars for each window, in scaled units; one CPU generator a sample.

        Raises ValueError before `pretrain`: a language that was never learnt says nothing.
        """
        if not self.pretrained:
            raise ValueError("expected a pretrained language model to draw paths from, received an untrained one")
        self.eval()
        codes_BLG = self._codes(blank(price_BLF, mask_BL))
        return sample(self.language, self.quantiser, codes_BLG, mask_BL, horizon, paths, generators, decoding)

    def log_prob(self, price_BLF: Tensor, mask_BL: Tensor) -> Tensor:
        """[M, G]: log-probability in nats of every code of each observed bar that follows an observed one."""
        return self.language.next_log_prob(self._codes(blank(price_BLF, mask_BL)), mask_BL)

    def _codes(self, blank_BLF: Tensor) -> Tensor:
        return self.quantiser.encode(blank_BLF[..., list(self.columns)])


def _with_last(weight_BL: Tensor) -> Tensor:
    """The mixture's weights, and as much again for the direct look at the decision's own session; they sum to 1."""
    last_L = functional.one_hot(torch.tensor(weight_BL.shape[1] - 1), weight_BL.shape[1]).to(weight_BL)
    return (weight_BL + last_L) / 2
