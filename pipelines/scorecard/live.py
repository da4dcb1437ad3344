"""The forecasts beside what became of them, as the card counts them: one row a ticker, session and model."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.compute as pc

from data.asof import first_decision
from data.errors import LakeError
from data.lake import Lake, to_frame
from data.packing import naive_utc
from data.schemas import KEYS
from data.types import QUANTILES
from pipelines.scorecard.measures import Outcomes
from pipelines.scorecard.seal import Seal, vouched

KEY = list(KEYS["forecasts"])
ONE = ["target_session", "ticker", "model_id"]


@dataclass(frozen=True)
class Settlements:
    """Every forecast with its settlement, where it has one: `rows`, and the quantiles [M, Q] beside them.

    Of the forecasts of one ticker, session and model that share a standing, the last one made counts (`counted`):
    of live ones it is the one that stood when the session opened. `on_time` are those settled in their own night.
    """

    rows: pd.DataFrame
    quantiles: npt.NDArray[np.float64]

    def proven(self, settled_at: Mapping[str, np.datetime64]) -> "Settlements":
        """The same with replays called in-sample that a model was fitted on, and "unproven" where nobody knows.

        `settled_at` tells of each model when its last label settled (UTC). The first schema did not ask.
        """
        standing = self.rows["standing"].astype(object)
        for model_id in self.models():
            replay = ((self.rows["model_id"] == model_id) & (standing == "replay")).to_numpy(dtype=bool)
            if model_id not in settled_at:
                standing[replay] = "unproven"
                continue
            decision_at = naive_utc(self.rows.loc[replay, "decision_at"])
            decisions = np.unique(decision_at)
            fitted_on = decisions[: int(first_decision(settled_at[model_id], decisions))]
            standing[replay] = np.where(np.isin(decision_at, fitted_on), "in-sample", "replay")
        return Settlements(self.rows.assign(standing=standing), self.quantiles)

    def of(self, model_id: str, standing: str) -> "Settlements":
        """One model's forecasts of one standing, superseded ones included."""
        return self.take((self.rows["model_id"] == model_id) & (self.rows["standing"] == standing))

    def take(self, which: "pd.Series[bool]") -> "Settlements":
        """The rows of a mask."""
        mask = which.to_numpy(dtype=bool)
        return Settlements(self.rows[mask].reset_index(drop=True), self.quantiles[mask])

    @property
    def judged(self) -> "Settlements":
        """Those that count and whose return is known."""
        return self.take(self.rows["counted"] & self.rows["realised"].notna())

    def outcomes(self) -> Outcomes:
        """As `measures` reads them; only where every return is known."""
        values = {name: self.rows[name].to_numpy(dtype=np.float64) for name in ("mean", "prob_up", "realised")}
        day = self.rows["target_session"].to_numpy(dtype="datetime64[D]")
        return Outcomes(day=day, quantiles=self.quantiles, **values)

    def models(self) -> Iterator[str]:
        """Every model that made one."""
        yield from sorted(self.rows["model_id"].unique())


def read_settlements(lake: Lake, chain: list[Seal]) -> Settlements:
    """All of them, by session, ticker and model. Raises LakeError where a forecast lacks a quantile.

    A live forecast that the seal of its own night does not have is "unproven". What was settled twice counts as it was
    settled first: a settlement is never changed, so the other is a forgery, which `verify` names.
    """
    stamps = ["decision_at", "made_at", "recorded_at"]
    names = [*KEY, "target", "standing", *stamps, "mean", "prob_up", "quantiles"]
    stored = lake.read("forecasts", names)
    if not pc.all(pc.equal(pc.list_value_length(stored["quantiles"]), len(QUANTILES))).as_py() and len(stored):
        raise LakeError(
            f"{lake.folder / 'forecasts'}: expected {len(QUANTILES)} quantiles in each forecast, found other numbers. "
            "See which night was altered with `tapewire verify`."
        )
    quantiles = pc.list_flatten(stored["quantiles"]).to_numpy().reshape(-1, len(QUANTILES))
    rows = to_frame(stored.drop_columns(["quantiles"])).assign(place=np.arange(len(stored)))
    in_time = vouched(chain, rows["target_session"], naive_utc(rows.pop("recorded_at")))
    rows["standing"] = rows["standing"].astype(object).mask((rows["standing"] == "live") & ~in_time, "unproven")
    settled = lake.frame("settlements", [*KEY, "night", "outcome", "realised"])
    settled = settled.sort_values("night", kind="stable").drop_duplicates(KEY)
    rows = rows.merge(settled, on=KEY, how="left").sort_values([*ONE, "made_at", "data_version"], ignore_index=True)
    place = rows.pop("place").to_numpy()
    return Settlements(
        rows.assign(
            counted=~rows.duplicated([*ONE, "standing"], keep="last"),
            on_time=rows["night"] == rows["target_session"],
            outcome=rows["outcome"].fillna(""),
        ),
        quantiles[place],
    )
