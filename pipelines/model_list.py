"""`tapewire models`: what is under `runs/`, what each is, and which of them the nightly job uses. Trains nothing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import ModelError
from pipelines import promotions
from pipelines.bundle import Bundle, load_bundle
from pipelines.bundle_training import band_of
from pipelines.promotions import EVER, ID, Promotions, Role
from pipelines.scorecard.card import scorecard
from pipelines.table import aligned
from pipelines.workspace import Workspace

MEASURES = ("rank_ic", "hit_rate", "coverage_80", "coverage_90", "pinball", "nll")


@dataclass(frozen=True)
class Listed:
    """One model. `fault` says why it cannot be used, "" where it can; what it would tell is then not known."""

    model_id: str
    role: Role | None
    since: np.datetime64 | None  # of its newest role, UTC
    facts: dict[str, Any]
    fault: str

    def as_dict(self) -> dict[str, Any]:
        """One entry of `models list --json`."""
        since = None if self.since is None else f"{self.since}+00:00"
        return {"model": self.model_id, "role": self.role, "since": since, **self.facts, "fault": self.fault}


@dataclass(frozen=True)
class Models:
    """All that are there or were ever given a role; the champion first, then challengers."""

    models: tuple[Listed, ...]

    def as_dict(self) -> dict[str, Any]:
        """The contract of `models list --json`, and of the commands that change a role."""
        return {
            "champion": next((each.model_id for each in self.models if each.role == "champion"), None),
            "challengers": [each.model_id for each in self.models if each.role == "challenger"],
            "models": [each.as_dict() for each in self.models],
        }

    def table(self) -> str:
        """One line a model, and a line for each that cannot be used."""
        if not self.models:
            return "No models yet. Make one with `tapewire train`."
        head = ["model", "role", "since", "reads", "tickers", "trained until", "settled", "valid nll", "rank IC (test)"]
        faults = [f"{each.model_id} cannot be used. {each.fault}" for each in self.models if each.fault]
        return "\n".join([aligned([head, *(_cells(each) for each in self.models)]), *faults])


@dataclass(frozen=True)
class Compared:
    """Two models side by side: the measures of each on its own test fold, and on its live nights if there are any."""

    first: str
    second: str
    reference: dict[str, dict[str, Any] | None]  # by model
    live: dict[str, dict[str, Any] | None]

    def as_dict(self) -> dict[str, Any]:
        """The contract of `models compare --json`."""
        return {"models": [self.first, self.second], "reference": self.reference, "live": self.live}

    def table(self) -> str:
        """A line a measure, each with its 95% interval."""
        names = self.first, self.second
        rows = [["", *names]]
        for title, measured in (("test fold", self.reference), ("live", self.live)):
            rows.append([title, *(_span(measured[name]) for name in names)])
            known = [measure for measure in MEASURES if any((measured[name] or {}).get(measure) for name in names)]
            rows += [[measure, *(_estimate(measured[name], measure) for name in names)] for measure in known]
        return f"{aligned(rows)}\nTwo test folds may be of different sessions: then their measures are not a match."


def list_models(runs: Path) -> Models:
    """Every model under `runs`, each opened to see whether it can be. Empty where there is none."""
    roles = Promotions.read(runs)
    listed = [_listed(runs, model_id, roles) for model_id in sorted(_known(runs, roles))]
    order = {"champion": 0, "challenger": 1, None: 2, "retired": 3}
    return Models(tuple(sorted(listed, key=lambda each: order[each.role])))


def promote(workspace: Workspace, model_id: str, now: np.datetime64) -> Models:
    """Make a model the champion, if it can be used. Raises ModelError where it cannot."""
    _check_usable(workspace, model_id)
    promotions.promote(workspace.runs, model_id, now)
    return list_models(workspace.runs)


def roll_back(workspace: Workspace, now: np.datetime64) -> Models:
    """Make the champion before this one champion again, if it can be used. Raises ModelError where it cannot."""
    _check_usable(workspace, Promotions.read(workspace.runs).before())
    promotions.rollback(workspace.runs, now)
    return list_models(workspace.runs)


def challenge(workspace: Workspace, model_id: str, now: np.datetime64) -> Models:
    """Let a model challenge the champion, if it can be used. Raises ModelError where it cannot."""
    _check_usable(workspace, model_id)
    promotions.challenge(workspace.runs, model_id, now)
    return list_models(workspace.runs)


def retire(workspace: Workspace, model_id: str, now: np.datetime64) -> Models:
    """Take a model out of the nightly job, usable or not. Raises ModelError for the champion and an unknown model."""
    if model_id not in _known(workspace.runs, Promotions.read(workspace.runs)):
        load_bundle(workspace.runs, model_id)  # says that there is none
    promotions.retire(workspace.runs, model_id, now)
    return list_models(workspace.runs)


def compare(workspace: Workspace, first: str, second: str) -> Compared:
    """What is known of two models. Raises ModelError where one of them cannot be used."""
    bundles = [load_bundle(workspace.runs, model_id) for model_id in (first, second)]
    reference = {each.model_id: band_of(each.training) for each in bundles}
    return Compared(first, second, reference, _live(workspace, (first, second)))


def _check_usable(workspace: Workspace, model_id: str) -> None:
    """Raises ModelError where a model does not load, or where every night of this workspace would refuse it."""
    load_bundle(workspace.runs, model_id).check_clock(workspace.config)


def _known(runs: Path, roles: Promotions) -> set[str]:
    """The models that are there, broken ones too, and those that were ever given a role."""
    there = {path.name for path in runs.glob("*") if ID.fullmatch(path.name) and path.is_dir()}
    return there | {each.model_id for each in roles.events}


def _live(workspace: Workspace, models: tuple[str, ...]) -> dict[str, dict[str, Any] | None]:
    """Nights, rows and measures of each model's settled live forecasts; None where it has none."""
    cards = {card.model_id: card.parts["live"] for card in scorecard(workspace).models}
    found: dict[str, dict[str, Any] | None] = dict.fromkeys(models)
    for model_id in set(models) & set(cards):
        live = cards[model_id]
        if live["nights"]:
            nights = live["by_night"]["target_session"]
            said = {"sessions": [nights[0], nights[-1]], "nights": live["nights"], "rows": live["rows"]}
            found[model_id] = said | (live["measures"] or {})
    return found


def _listed(runs: Path, model_id: str, roles: Promotions) -> Listed:
    role, since = roles.role(model_id), roles.since(model_id)
    try:
        return Listed(model_id, role, since, _facts(load_bundle(runs, model_id)), "")
    except ModelError as error:
        return Listed(model_id, role, since, {}, str(error))


def _facts(bundle: Bundle) -> dict[str, Any]:
    config, training = bundle.config, bundle.training
    band = band_of(training) or {}
    return {
        "price": config.price.kind if config.fusion.reads_price else None,
        "fusion": config.fusion.kind,
        "text": config.text.encoder if bundle.fingerprint else None,
        "target": config.target,
        "tickers": len(training.get("tickers", ())),
        "sessions": training.get("sessions"),
        "rows": training.get("rows"),
        "seed": training.get("seed"),
        "settled_at": f"{bundle.fitted.settled_at}+00:00",
        "valid_nll": bundle.fitted.valid_loss,
        "rank_ic": band.get("rank_ic"),
    }


def _cells(listed: Listed) -> list[str]:
    facts = listed.facts
    since = "-" if listed.since is None else "ever" if listed.since == EVER else str(listed.since)[:16]
    named = [listed.model_id, listed.role or "-", since]
    if not facts:
        return [*named, *["-"] * 6]
    reads = "+".join(part for part in (facts["price"], facts["text"]) if part)
    until = (facts["sessions"] or ["-"])[-1]
    known = [reads, str(facts["tickers"]), until, facts["settled_at"][:16], f"{facts['valid_nll']:.4f}"]
    return [*named, *known, _estimate({"rank_ic": facts["rank_ic"]}, "rank_ic")]


def _span(measured: dict[str, Any] | None) -> str:
    if not measured:
        return "none"
    first, last = measured["sessions"]
    return f"{measured['nights']} sessions, {first} to {last}"


def _estimate(measured: dict[str, Any] | None, measure: str) -> str:
    found = (measured or {}).get(measure)
    return f"{found['mean']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]" if found else "-"
