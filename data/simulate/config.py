"""Which market to simulate: its size, its seed and how strong each part of the signal is. Draws nothing."""

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from data.types import Config

WorldName = Literal["default", "placebo", "realistic"]

# (price, text, interaction) in units of a ticker's trailing volatility; see tests for the rank IC they give.
STRENGTHS: dict[WorldName, tuple[float, float, float]] = {
    "default": (0.100, 0.340, 0.36),
    "placebo": (0.100, 0.0, 0.0),
    "realistic": (0.055, 0.11, 0.09),
}


class MarketConfig(Config):
    """A simulated market. The same config gives the same frames, bit for bit.

    Strengths are the expected move, in units of a ticker's trailing volatility, for a price state, an
    event or their product of size one. Events are timed for the nightly decision.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    tickers: Annotated[int, Field(ge=8, le=60)] = 48
    sessions: Annotated[int, Field(ge=60)] = 1600
    calendar: str = "XNYS"
    first_session: date = date(2018, 1, 2)
    event_rate: Annotated[float, Field(gt=0, lt=1)] = 0.19
    price_strength: float = STRENGTHS["default"][0]
    text_strength: float = STRENGTHS["default"][1]
    interaction_strength: float = STRENGTHS["default"][2]
    clock: Literal["nightly"] = "nightly"


def world(name: WorldName, seed: int = 0) -> MarketConfig:
    """A named world: `default`, `placebo` (news is written but moves nothing) or `realistic` (all weak)."""
    price, text, interaction = STRENGTHS[name]
    return MarketConfig(seed=seed, price_strength=price, text_strength=text, interaction_strength=interaction)
