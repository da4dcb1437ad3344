"""`tapewire scorecard`: how each model did live, when to look at it, and which challenger has earned its place.

Live forecasts alone are measured against the backtest; late ones and replays stand apart, in-sample ones on no card.
Reads the lake, the promotions and the bundles' own facts; writes nothing.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.asof import known
from data.calendar import sessions
from data.errors import ModelError
from pipelines.bundle_verify import training_of
from pipelines.instants import Now, utc_now
from pipelines.metrics import Interval
from pipelines.promotions import Promotions
from pipelines.scorecard import alarms
from pipelines.scorecard.alarms import Alarm
from pipelines.scorecard.drift import ROWS, expected, threshold
from pipelines.scorecard.evidence import Evidence, compare
from pipelines.scorecard.live import Settlements, read_settlements
from pipelines.scorecard.measures import (
    FEWEST_NIGHTS,
    Daily,
    between_quantiles,
    by_day,
    estimates,
    expected_between,
    resampled,
)
from pipelines.scorecard.page import markdown
from pipelines.scorecard.seal import Seal, read_seals
from pipelines.workspace import Workspace

Record = dict[str, Any]


@dataclass(frozen=True)
class ModelCard:
    """One model's live record. `parts` are JSON-ready, as `Scorecard.as_dict` gives them; see docs/scorecard.md."""

    model_id: str
    role: str
    parts: Record

    def as_dict(self) -> Record:
        """JSON-ready."""
        return {"model_id": self.model_id, "role": self.role, **self.parts}


@dataclass(frozen=True)
class Scorecard:
    """Every model that ever forecast, the alarms, and the evidence for each challenger.

    `through` is the last sealed night and `head` the hash of its seal; None and "" before the first.
    """

    through: str | None
    head: str
    nights: int
    models: tuple[ModelCard, ...]
    alarms: tuple[Alarm, ...]
    evidence: tuple[Evidence, ...]

    @property
    def proposed(self) -> tuple[str, ...]:
        """The challengers that have beaten the champion on the evidence. A person promotes."""
        return tuple(found.challenger for found in self.evidence if found.proposed)

    def as_dict(self) -> Record:
        """The contract of `scorecard --json`."""
        return {
            "through": self.through,
            "head": self.head,
            "nights": self.nights,
            "models": [model.as_dict() for model in self.models],
            "alarms": [alarm.as_dict() for alarm in self.alarms],
            "evidence": [found.as_dict() for found in self.evidence],
            "proposed": list(self.proposed),
        }

    def markdown(self) -> str:
        """The same for a person."""
        return markdown(self.as_dict())


def scorecard(workspace: Workspace, clock: Now = utc_now) -> Scorecard:
    """The card as the lake stands; `clock` tells how many nights are due. Empty before anything was scored."""
    chain = read_seals(workspace.lake)
    records = [json.loads(seal.record) for seal in chain]
    settled = read_settlements(workspace.lake, chain)
    facts = {model_id: _training(workspace, model_id) for model_id in settled.models()}
    settled = settled.proven(_settled_at(facts))
    promotions = Promotions.read(workspace.runs)
    models, found = [], [*_stale(workspace, chain, clock())]
    for model_id, (training, note) in facts.items():
        role = promotions.role(model_id) or "retired"
        drifts = [record.get("models", {}).get(model_id, {}).get("drift") or {} for record in records]
        live = settled.of(model_id, "live")
        daily = by_day(live.judged.outcomes())
        reference = training.get("reference")
        parts = {
            **_live(live, daily, reference),
            **_apart(settled, model_id),
            **_inputs(drifts[-1] if drifts else {}, reference),
            "note": note,
        }
        models.append(ModelCard(model_id, role, parts))
        if role != "retired":
            found += alarms.below_band(model_id, _on_time(live, daily), (reference or {}).get("band"))
            found += alarms.drift(model_id, drifts, reference)
    for record in records[-1:]:
        found += _coverage(record, promotions, workspace.config.nightly.coverage)
    ranked = sorted(models, key=lambda model: (("champion", "challenger", "retired").index(model.role), model.model_id))
    return Scorecard(
        through=str(chain[-1].night) if chain else None,
        head=chain[-1].sha256 if chain else "",
        nights=len(chain),
        models=tuple(ranked),
        alarms=tuple(found),
        evidence=tuple(_evidence(settled, ranked)),
    )


def _training(workspace: Workspace, model_id: str) -> tuple[Record, str]:
    """What the bundle says of its training; nothing, and why, where it cannot be read or holds no band."""
    try:
        training = training_of(workspace.runs, model_id)
    except ModelError as error:
        return {}, f"No backtest to hold it against: {error}"
    if not training.get("reference"):
        return training, "No backtest to hold it against: the model was trained before references were kept."
    if not training["reference"]["band"]:
        return training, "No backtest to hold it against: its test fold had no settled rows."
    return training, ""


def _settled_at(facts: dict[str, tuple[Record, str]]) -> dict[str, np.datetime64]:
    """When the last label of each model settled, UTC; without those of which that is not known."""
    known_of = {model_id: training for model_id, (training, _) in facts.items() if "settled_at" in training}
    return {model_id: np.datetime64(training["settled_at"], "us") for model_id, training in known_of.items()}


def _live(live: Settlements, daily: Daily, reference: Record | None) -> Record:
    """The live part of a card; `daily` are the measures of its nights."""
    outcome = live.rows.loc[live.rows["counted"], "outcome"].value_counts()
    return {
        "live": {
            **_measured(daily),
            "missing": int(outcome.get("missing", 0)),
            "delisted": int(outcome.get("delisted", 0)),
            "waiting": int(outcome.get("", 0)),
            "superseded": int((~live.rows["counted"]).sum()),
            "by_night": _by_night(daily),
            "calibration": _calibration(live.judged) if len(daily) >= FEWEST_NIGHTS else None,
            "error_drift": _error_drift(daily),
        },
        "band": (reference or {}).get("band"),
    }


def _apart(settled: Settlements, model_id: str) -> Record:
    """What is on no live card: late forecasts and replays with measures of their own, in-sample ones counted.

    So are `unproven` ones: replays of a model of which nobody knows any more what it was fitted on, and what says
    live and is not under the seal of its own night.
    """
    parts: Record = {}
    for standing in ("late", "replay"):
        parts[standing] = _measured(by_day(settled.of(model_id, standing).judged.outcomes()))
    left_out = {name: len(settled.of(model_id, name).rows) for name in ("in-sample", "unproven")}
    return {**parts, "in_sample": left_out["in-sample"], "unproven": left_out["unproven"]}


def _measured(daily: Daily) -> Record:
    """Nights, rows and the measures; no measures, and why, where there are too few nights."""
    found: Record = {"nights": len(daily), "rows": int(daily.rows.sum()), "measures": None, "why": ""}
    if len(daily) < FEWEST_NIGHTS:
        return found | {"why": f"{len(daily)} nights settled; measures are shown from {FEWEST_NIGHTS} on"}
    values = estimates(daily)
    return found | {"measures": {name: value.as_dict() if value else None for name, value in values.items()}}


def _by_night(daily: Daily) -> Record:
    correlation = [float(value) if np.isfinite(value) else None for value in daily.values["rank_ic"]]
    return {
        "target_session": [str(day) for day in daily.day],
        "rows": daily.rows.tolist(),
        "rank_ic": correlation,
        "hit_rate": daily.values["hit_rate"].tolist(),
    }


def _calibration(judged: Settlements) -> Record:
    """Shares of outcomes between the quantiles, beside those of a calibrated forecast."""
    return {
        "found": between_quantiles(judged.outcomes()).tolist(),
        "expected": expected_between().round(6).tolist(),
    }


def _error_drift(daily: Daily) -> Record | None:
    """Mean pinball loss of the newest nights less that of those before, with its interval; None with too few."""
    before, recent = daily.values["pinball"][:-FEWEST_NIGHTS], daily.values["pinball"][-FEWEST_NIGHTS:]
    if len(before) < FEWEST_NIGHTS:
        return None
    drawn = [resampled(len(part), seed).means(part) for seed, part in enumerate((recent, before))]
    return {"nights": len(recent), "before": float(before.mean()), **Interval.of(drawn[0] - drawn[1]).as_dict()}


def _inputs(newest: Record, reference: Record | None) -> Record:
    """The newest night's PSI of each input, what it would be without drift, and what is unusual."""
    if not newest or reference is None:
        return {"drift": None}
    rows = int(newest[ROWS])
    inputs = {
        name: {"psi": newest[name], "expected": expected(kept, rows), "threshold": threshold(kept, rows)}
        for name, kept in reference["inputs"].items()
        if name in newest
    }
    return {"drift": {"rows": rows, "inputs": inputs}}


def _on_time(live: Settlements, daily: Daily) -> Daily:
    """The measures of what was settled in its own night, so that no night that was read changes later."""
    judged = live.judged
    late, session = ~judged.rows["on_time"], judged.rows["target_session"]
    of_late = session.isin(session[late])
    anew = by_day(judged.take(of_late & ~late).outcomes())
    return daily.replaced(session[late].to_numpy(dtype="datetime64[D]"), anew)


def _coverage(record: Record, promotions: Promotions, least: float) -> Iterator[Alarm]:
    """Of a night's `record`, for each model that was to forecast and has a role still; one that failed scored 0."""
    told = record.get("models", {})
    members = max((said["members"] for said in told.values()), default=0)
    failed = {"scored": 0, "members": members}
    for model_id in sorted({*told, *record.get("challengers", ())}):
        if promotions.role(model_id) in ("champion", "challenger"):
            said = told.get(model_id, failed)
            yield from alarms.coverage(model_id, said["scored"], said["members"], least)


def _stale(workspace: Workspace, chain: list[Seal], now: np.datetime64) -> list[Alarm]:
    """Decisions since the last sealed night; nothing before the first, as there was no promise yet."""
    if not chain:
        return []
    exchange = sessions(workspace.config.calendar, workspace.config.decision)
    decided = int(known(exchange.decision_at, now).sum()) - 1
    return alarms.stale(decided - int(exchange.last_by(chain[-1].night)), str(chain[-1].night))


def _evidence(settled: Settlements, models: list[ModelCard]) -> Iterator[Evidence]:
    """For each challenger, on the live forecasts that it shares with the champion."""
    champion = next((model.model_id for model in models if model.role == "champion"), None)
    challengers = [model.model_id for model in models if model.role == "challenger"]
    if champion is None:
        return
    frames, over = {}, settled.rows["night"].max()
    columns = ["target_session", "ticker", "target", "realised", "on_time"]
    for model_id in (champion, *challengers):
        live = settled.of(model_id, "live")
        counted = live.take(live.rows["counted"] & (live.rows["target_session"] <= over))
        frames[model_id] = counted.rows[columns].assign(quantiles=list(counted.quantiles))
    for challenger in challengers:
        yield compare(frames[champion], frames[challenger], (champion, challenger))
