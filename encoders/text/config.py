"""Which text encoder reads the headlines, what of a headline it reads, and how token vectors become one vector.

`[text]` is a union by `kind`. A config only says; `encoders/text/load.py` finds the files and fingerprints them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationInfo, field_validator

from data.types import Config

if TYPE_CHECKING:
    from encoders.text.load import Source

# As FinGPT v3 was tuned and asked; the braces around the answers are part of it.
FINGPT_PROMPT = (
    "Instruction: What is the sentiment of this news? "
    "Please choose an answer from {negative/neutral/positive}\nInput: {text}\nAnswer: "
)


class Reader(Protocol):
    """What every kind of text encoder answers. `dimension` is the width of its vectors."""

    source: Source
    dimension: int

    def encode(self, texts: Sequence[str]) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]]:
        """Yield (positions [N] in `texts`, vectors [N, dimension]) until every text was given once, in any order."""
        ...


class TextKeys(Config):
    """Keys that every kind takes, so that a user may change `kind` and leave the others where they are.

    `encoder` is a preset, else a local folder where that path exists, else a hub id. `revision` is a
    hub commit, tag or branch; None means the preset's pinned commit, or `main`. It is ignored for
    folders. `input` says whether a headline's summary is read after its title, where it has one that
    says more. `max_tokens` counts the special tokens. Of a longer text at most `chunks` windows of that
    length are read, neighbours sharing `overlap` tokens; the rest is cut.
    """

    encoder: str = Field(min_length=1)
    revision: str | None = None
    input: Literal["title", "title+summary"] = "title"
    max_tokens: int = Field(default=64, ge=4, le=8192)
    chunks: int = Field(default=1, ge=1, le=1024)
    overlap: int = Field(default=0, ge=0)

    @field_validator("overlap")
    @classmethod
    def _leaves_something_new(cls, overlap: int, info: ValidationInfo) -> int:
        if 2 * overlap >= info.data.get("max_tokens", 2 * overlap + 1):
            raise ValueError(f"expected less than half of max_tokens ({info.data['max_tokens']})")
        return overlap


class EncoderConfig(TextKeys):
    """A Hugging Face encoder: every token sees the whole text.

    `pooling`: `mean` of the token vectors, the first one's (`cls`), their `max` by coordinate, or
    `sentiment`: the mean, and beside it the probabilities that the checkpoint's own classifier gives
    its labels (positive, negative, neutral where it calls them so).
    """

    kind: Literal["encoder"] = "encoder"
    encoder: str = Field(default="finbert", min_length=1)
    pooling: Literal["mean", "cls", "max", "sentiment"] = "mean"

    def build(self, source: Source) -> Reader:
        """The encoder that `resolve(self)` found, loaded. Raises EncoderError where the checkpoint is not usable."""
        from encoders.text.encode import TextEncoder

        return TextEncoder.load(source)


class CausalLMConfig(TextKeys):
    """A causal language model, which reads from left to right, with a LoRA `adapter` where one is named.

    `encoder` is the base model's folder or hub id, `adapter` likewise, at `adapter_revision` of the
    hub. `pooling` is the `last` token's vector or the `mean`, of the text by itself. `sentiment` adds
    the probabilities of the `labels` as the next words after the `prompt` (`beside`), or gives them
    alone (`only`). In the prompt `{text}` stands for the text. `bits` of a weight: 32, 16 (bfloat16),
    or 8 and 4 with the extra `quantised`.
    """

    kind: Literal["causal-lm"] = "causal-lm"
    pooling: Literal["last", "mean"] = "last"
    adapter: str | None = Field(default=None, min_length=1)
    adapter_revision: str | None = None
    sentiment: Literal["none", "beside", "only"] = "none"
    prompt: str = FINGPT_PROMPT
    labels: tuple[str, ...] = Field(default=("positive", "negative", "neutral"), min_length=2)
    bits: Literal[4, 8, 16, 32] = 16

    @field_validator("prompt")
    @classmethod
    def _holds_the_text(cls, prompt: str) -> str:
        if prompt.count("{text}") != 1:
            raise ValueError("expected {text} in it exactly once, where the text goes")
        return prompt

    @field_validator("labels")
    @classmethod
    def _are_distinct_words(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) < len(labels) or not all(label.strip() for label in labels):
            raise ValueError("expected different words")
        return labels

    def build(self, source: Source) -> Reader:
        """The model that `resolve(self)` found, loaded. Raises EncoderError where it, or its adapter, is not usable."""
        from encoders.text.causal import CausalEncoder

        return CausalEncoder.load(source)


TextConfig = Annotated[EncoderConfig | CausalLMConfig, Field(discriminator="kind")]
