"""What is known of a model's training, as its readers take it for granted: the card, drift, alarms, `models list`.

Judges the shape alone, and that numbers are finite; other facts may stand beside. Opens no file; no torch.
"""

from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data.errors import ModelError

Count = Annotated[int, Field(ge=0, le=2**53)]  # numpy and floats hold it exactly


class _Known(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="allow", allow_inf_nan=False)


class _Histogram(_Known):
    edges: list[float] = Field(min_length=1)
    counts: list[Count]
    usual: float = Field(ge=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.counts) != len(self.edges) + 1 or sorted(self.edges) != self.edges:
            raise ValueError("expected ascending edges, and one count more")
        return self


class _Estimate(_Known):
    mean: float
    sd: float = Field(ge=0)
    low: float
    high: float
    days: Count


class _Band(_Known):
    sessions: list[str] = Field(min_length=2, max_length=2)
    nights: Count
    rows: Count
    rank_ic: _Estimate | None = None
    hit_rate: _Estimate | None = None
    coverage_50: _Estimate | None = None
    coverage_80: _Estimate | None = None
    coverage_90: _Estimate | None = None
    pinball: _Estimate | None = None
    nll: _Estimate | None = None


class _Reference(_Known):
    news_window: Annotated[Count, Field(ge=1)]
    inputs: dict[str, _Histogram]
    band: _Band | None  # None where the test fold had no settled rows; never left out


class _Training(_Known):
    settled_at: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?$")
    epochs: Count
    valid_nll: float
    seed: int | None = None
    tickers: list[str] = []
    sessions: list[str] | None = Field(default=None, min_length=3, max_length=3)
    last_session: str | None = None
    rows: dict[str, Count] | None = None
    reference: _Reference | None = None

    @model_validator(mode="after")
    def _settled(self) -> Self:
        np.datetime64(self.settled_at, "us")  # ValueError for the 31st of a month that has none
        return self


def band_of(training: dict[str, Any]) -> dict[str, Any] | None:
    """The backtest's band: what was measured on the test fold. None where nothing was, and in the first format."""
    band: dict[str, Any] | None = (training.get("reference") or {}).get("band")
    return band


def check_training(training: dict[str, Any], where: str) -> None:
    """Raises ModelError, which names the first fault, where `training` is not of this shape."""
    try:
        _Training.model_validate(training)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        at = ".".join(str(part) for part in fault["loc"]) or "it"
        raise ModelError(
            f"{where}: expected what is known of a whole and finite model's training, found otherwise: {at}: "
            f"{fault['msg']}; found {fault['input']!r:.80}. Train again."
        ) from error
