"""Which text encoder reads the headlines, and how its token vectors become one vector."""

from typing import Literal

from pydantic import Field

from data.types import Config


class TextConfig(Config):
    """`[text]` of the configuration.

    `encoder` is a preset (`finbert`, `minilm`), else a local folder where that path exists, else a
    hub id. `revision` is a hub commit, tag or branch; None means the preset's pinned commit, or
    `main` for any other hub id. It is ignored for folders. `max_tokens` counts the special tokens;
    what is longer is cut.
    """

    encoder: str = Field(default="finbert", min_length=1)
    revision: str | None = None
    pooling: Literal["mean", "cls"] = "mean"
    max_tokens: int = Field(default=64, ge=4, le=512)
