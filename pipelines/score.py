"""Forecasts for every ticker for the session after a decision, kept in the lake under their inputs' hash.

What the lake holds of a decision, by the same model from the same inputs, is taken from there and not computed again.
"""

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtrit

from data.asof import known
from data.errors import ModelError
from data.scan import Span
from data.schemas import SCHEMAS
from data.types import QUANTILES, Forecast
from data.windows import Samples
from fusion.head import Distribution
from pipelines.bundle import Bundle
from pipelines.data_version import data_versions
from pipelines.decision import Decision, Moment, find_moment, gather_decision
from pipelines.engine.base import Engine
from pipelines.engine.local import LOCAL
from pipelines.instants import Now
from pipelines.predict import predict
from pipelines.promotions import Promotions
from pipelines.publish import LATEST, point_latest, publish
from pipelines.scorecard.drift import input_drift
from pipelines.scorecard.seal import first_free
from pipelines.train import EVALUATE_BATCH
from pipelines.workspace import Workspace

INTERVAL = (0.05, 0.95)

Standing = Literal["live", "late", "replay", "in-sample"]


@dataclass(frozen=True)
class Ask:
    """Which decision is asked for, and how.

    The one that follows `session` (None: the last the lake has bars of), from what the lake had recorded by
    `recorded_by` (UTC; None: all it holds). `in_sample` allows a decision that the model was fitted on. `store` False
    computes everything anew, and keeps and publishes nothing. `nightly`: the nightly's own run, which is late at
    worst. `champion` is the model whose forecasts `latest` may lead to; None: the present champion.
    """

    session: np.datetime64 | None = None
    recorded_by: np.datetime64 | None = None
    in_sample: bool = False
    publish: bool = True
    store: bool = True
    nightly: bool = False
    champion: str | None = None


@dataclass(frozen=True, eq=False)
class Scored:
    """What one decision gave: forecasts, and a reason for every ticker without one.

    `frame` has the forecasts as rows of the lake's table, by ticker; those that the lake held already are as they were
    stored then. `standing` is this run's. `path` is the Parquet file, None where nothing was to be published.
    `published`: these are the forecasts to act on, or were before newer ones; `unpublished` says why not, where they
    fall short. `drift` is that of the inputs against the model's reference, by input.
    """

    session: np.datetime64  # the target session
    decision_at: np.datetime64
    frame: pd.DataFrame
    abstained: dict[str, str]
    added: int
    path: Path | None
    standing: Standing
    members: int
    recorded_by: np.datetime64 | None
    published: bool = False
    unpublished: str = ""
    drift: dict[str, float] = field(default_factory=dict)

    @cached_property
    def forecasts(self) -> tuple[Forecast, ...]:
        """The rows of `frame` as records."""
        return _records(self.frame)

    @property
    def coverage(self) -> float:
        """Share of the universe that was scored; 0 where it is empty."""
        return len(self.frame) / self.members if self.members else 0.0

    @property
    def in_sample(self) -> bool:
        """Whether the model was fitted with labels that settled after this decision."""
        return self.standing == "in-sample"

    def as_dict(self) -> dict[str, object]:
        """The contract of `score --json`."""
        return {
            "session": str(self.session),
            "decision_at": f"{self.decision_at.astype('datetime64[s]')}+00:00",
            "scored": len(self.frame),
            "added": self.added,
            "abstained": self.abstained,
            "path": None if self.path is None else str(self.path),
            "standing": self.standing,
            "coverage": self.coverage,
            "published": self.published,
        }


def score(workspace: Workspace, bundle: Bundle, ask: Ask, clock: Now, engine: Engine = LOCAL) -> Scored:
    """Forecast the session after a decision; what was not known at it is not read.

    Scoring again with the same inputs and model adds nothing to the lake. What is added is stamped after whatever seal
    it would fall under. Raises ModelError where the model was fitted on what the decision could not know and
    `ask.in_sample` is not set, LakeError where there are no bars or a headline is not embedded.
    """
    begun = clock()
    moment = find_moment(workspace, bundle, ask.session)
    in_sample = not known([bundle.fitted.settled_at], moment.decision_at)[0]
    if in_sample and not ask.in_sample:
        raise _refusal(bundle, moment)
    decision = gather_decision(workspace, bundle, moment.session, ask.recorded_by)
    held, forecast = _held_and_new(workspace, decision, ask, engine)
    made_at = clock()
    if ask.store:
        made_at = first_free(workspace.lake, moment.exchange.target[moment.at], made_at)
    standing = _standing(moment, made_at, in_sample, ask)
    new, broken = _finite(_stamped(forecast, begun if ask.recorded_by is None else ask.recorded_by, made_at, standing))
    added = workspace.lake.merge("forecasts", new) if ask.store else 0
    frame = pd.concat([held, new]) if len(held) and len(new) else held if len(held) else new
    if ask.store and added < len(new):
        frame = _as_held(workspace, decision, frame)
    frame = frame.sort_values("ticker", ignore_index=True)
    scored = Scored(
        session=moment.exchange.target[moment.at],
        decision_at=moment.decision_at,
        frame=frame,
        abstained=decision.abstained | broken,
        added=added,
        path=None,
        standing=standing,
        members=decision.members,
        recorded_by=ask.recorded_by,
        drift=_drift(decision, frame),
    )
    return _publish(scored, workspace, bundle, ask) if ask.store and ask.publish else scored


def _refusal(bundle: Bundle, moment: Moment) -> ModelError:
    settled_at, decision_at = (at.astype("datetime64[s]") for at in (bundle.fitted.settled_at, moment.decision_at))
    return ModelError(
        f"{bundle.model_id}: expected a model whose labels had all settled by the decision of {decision_at}Z; its last "
        f"one, of its fit, early stopping or calibration, settled at {settled_at}Z, so its forecasts would prove "
        "nothing. Score a later session, take a model trained on earlier dates (--model), or give --in-sample to get "
        "them marked as such."
    )


def _standing(moment: Moment, made_at: np.datetime64, in_sample: bool, ask: Ask) -> Standing:
    """Live is what was made before the target session opened."""
    if in_sample:
        return "in-sample"
    if known([made_at], moment.exchange.target_open[moment.at])[0]:
        return "live"
    return "late" if ask.nightly else "replay"


def _held_and_new(
    workspace: Workspace, decision: Decision, ask: Ask, engine: Engine
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The decision's forecasts that the lake holds, whole, and the others, which lack their stamps.

    The last bits of a forecast may depend on what shares its batch, so a batch is computed as a whole or not at all.
    """
    config, rows = decision.config, decision.rows
    versions = np.array(data_versions(decision.panel, rows, config.price.lookback, config.news.window), dtype=object)
    keys = pd.Index(np.array(decision.panel.tickers, dtype=object)[rows.ticker] + "\t" + versions)
    held = _held(workspace, decision) if ask.store else SCHEMAS["forecasts"].empty_table().to_pandas()
    stored = pd.Index(held["ticker"].astype(object) + "\t" + held["data_version"].astype(object))
    missing = ~keys.isin(stored)
    batch = np.arange(len(rows)) // EVALUATE_BATCH
    computed = np.flatnonzero(np.isin(batch, batch[missing]))
    part = rows.take(computed)
    if len(part):
        forecast = predict(decision.bundle.fitted, decision.panel, decision.embeddings, part, config, engine)
    else:
        forecast = Distribution.concatenate([])
    new = _rows(decision, part, forecast, versions[computed])[missing[computed]]
    return held[stored.isin(keys)], new


def _held(workspace: Workspace, decision: Decision) -> pd.DataFrame:
    """What the lake holds for the decision's target session by its model."""
    target = decision.exchange.target[decision.at]
    rows = workspace.lake.frame("forecasts", within=Span("target_session", target, target))
    return rows[(rows["model_id"] == decision.bundle.model_id).to_numpy(dtype=bool)]


def _as_held(workspace: Workspace, decision: Decision, frame: pd.DataFrame) -> pd.DataFrame:
    """The same forecasts as the lake holds them: another process was faster with some, and its rows are what counts."""
    held = _held(workspace, decision)
    ours, stored = (pd.MultiIndex.from_frame(rows[["ticker", "data_version"]]) for rows in (frame, held))
    return held[stored.isin(ours)]


def _rows(decision: Decision, rows: Samples, forecast: Distribution, versions: npt.NDArray[np.object_]) -> pd.DataFrame:
    """Rows of the lake's table, without what only the present knows."""
    panel, where = decision.panel, (rows.ticker, rows.session)
    last_close = panel.close[where] / panel.share_ratio[where]
    low, high = (last_close * np.exp(forecast.quantiles([level])[:, 0]) for level in INTERVAL)
    return pd.DataFrame(
        {
            "ticker": np.array(panel.tickers, dtype=object)[rows.ticker],
            "target_session": decision.exchange.target[decision.at].astype("datetime64[s]"),
            "model_id": decision.bundle.model_id,
            "data_version": versions,
            "target": decision.config.target,
            "decision_at": _utc(decision.exchange.decision_at[decision.at]),
            "mean": forecast.mean,
            "quantiles": pd.Series(list(forecast.quantiles(QUANTILES)), dtype=object),
            "prob_up": forecast.prob_up,
            "price": last_close * np.exp(forecast.mean),
            "price_low": low,
            "price_high": high,
        }
    )


def _stamped(rows: pd.DataFrame, cutoff_at: np.datetime64, made_at: np.datetime64, standing: Standing) -> pd.DataFrame:
    """The rows whole: known and recorded when they were made."""
    made, origin = _utc(made_at), "live" if standing == "live" else "backfill"
    stamps = {"made_at": made, "cutoff_at": _utc(cutoff_at), "available_at": made, "recorded_at": made}
    whole: pd.DataFrame = rows.assign(**stamps, origin=origin, standing=standing)[SCHEMAS["forecasts"].names]
    return whole


def _finite(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """The rows whose every number is one, and a reason for each of the others."""
    numbers = rows[["mean", "prob_up", "price", "price_low", "price_high"]].to_numpy(dtype=np.float64)
    sound = np.isfinite(numbers).all(axis=1)
    broken = {
        str(ticker): f"not finite: the model's forecast is {mean}, a price of {price}"
        for ticker, mean, price in rows.loc[~sound, ["ticker", "mean", "price"]].itertuples(index=False)
    }
    return rows[sound], broken


def _drift(decision: Decision, frame: pd.DataFrame) -> dict[str, float]:
    """Of the inputs of the forecasts and of the forecasts themselves, as they are in the lake."""
    reference = decision.bundle.training.get("reference")
    there = np.isin(np.array(decision.panel.tickers)[decision.rows.ticker], frame["ticker"].to_numpy(dtype=str))
    rows, df = decision.rows.take(there), decision.bundle.fitted.calibration.df
    mean = frame["mean"].to_numpy(dtype=np.float64)
    high = np.array([quantiles[-1] for quantiles in frame["quantiles"]], dtype=np.float64)
    scale = (high - mean) / stdtrit(df, QUANTILES[-1])
    return input_drift(decision.panel, rows, reference, Distribution(mean, scale, np.full(len(mean), df)))


def _publish(scored: Scored, workspace: Workspace, bundle: Bundle, ask: Ask) -> Scored:
    """The forecasts as files, and `latest` where they are the champion's, in time or nearly so, and enough."""
    acted_on = scored.standing in ("live", "late")
    home = workspace.reports / "forecasts"
    name = bundle.model_id if acted_on else f"{bundle.model_id}-{scored.standing}"
    folder = home / str(scored.session) / name
    path = publish(folder, scored.frame, scored.abstained, _facts(scored, bundle))
    least = workspace.config.nightly.coverage
    if not acted_on or not _is_champion(workspace, bundle, ask):
        return replace(scored, path=path)
    if not len(scored.frame) or scored.coverage < least:
        unpublished = (
            f"{len(scored.frame)} of {scored.members} tickers were scored ({scored.coverage:.1%}), fewer than the "
            f"{least:.1%} of nightly.coverage: {home / LATEST} stays as it was."
        )
        return replace(scored, path=path, unpublished=unpublished)
    point_latest(home / LATEST, path.parent)
    return replace(scored, path=path, published=True)


def _is_champion(workspace: Workspace, bundle: Bundle, ask: Ask) -> bool:
    if ask.champion is not None:
        return ask.champion == bundle.model_id
    return Promotions.read(workspace.runs).role(bundle.model_id) == "champion"


def _facts(scored: Scored, bundle: Bundle) -> dict[str, Any]:
    """What the manifest says of the forecasts; the same for the same rows, whoever publishes them when."""
    frame = scored.frame
    return {
        "target_session": str(scored.session),
        "decision_at": f"{scored.decision_at.astype('datetime64[s]')}Z",
        "model_id": bundle.model_id,
        "target": bundle.config.target,
        "standing": sorted(frame["standing"].unique()),
        "made_at": [str(each) for each in sorted(frame["made_at"].unique())],
        "cutoff_at": [str(each) for each in sorted(frame["cutoff_at"].unique())],
        "members": scored.members,
        "scored": len(frame),
        "coverage": scored.coverage,
        "abstained": len(scored.abstained),
    }


def _records(frame: pd.DataFrame) -> tuple[Forecast, ...]:
    names = [item.name for item in fields(Forecast)]
    plain = {name: frame[name].tolist() for name in names}
    for name in ("decision_at", "made_at", "cutoff_at"):
        plain[name] = list(frame[name].dt.to_pydatetime())
    plain["target_session"] = frame["target_session"].to_numpy(dtype="datetime64[D]").tolist()
    plain["quantiles"] = [tuple(map(float, quantiles)) for quantiles in frame["quantiles"]]
    return tuple(Forecast(*row) for row in zip(*plain.values(), strict=True))


def _utc(at: np.datetime64) -> pd.Timestamp:
    return pd.Timestamp(at, tz="UTC").as_unit("us")
