"""The steps of a night, each from what the lake and the models are to a JSON-ready result. Each may be done again.

What a step cannot do for one feed, one ticker or one challenger is part of its result; what stops the night is raised.
"""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from data.asof import known
from data.calendar import Sessions
from data.errors import LockedError, ModelError, TapewireError, WaitedError
from data.packing import naive_utc
from pipelines.bundle import Bundle, load_bundle
from pipelines.disk import disk_full
from pipelines.engine.base import Engine
from pipelines.ingest import FED, ingest_news
from pipelines.ingest_prices import Connect, ingest_prices
from pipelines.instants import Now
from pipelines.nightly.ledger import Kept, Result, instant, stamp
from pipelines.nightly.log import note
from pipelines.nightly.members import as_of_night
from pipelines.score import Ask, Scored, score
from pipelines.workspace import Workspace

log = logging.getLogger(__name__)

Done = TypeVar("Done")

PATIENCE = 600.0  # seconds that a night waits while another process ingests
EXPECTED = ("not in the universe", "delisted", "too short")  # reasons with which a ticker may abstain on a good night
REASONS = (*EXPECTED, "stale", "quarantined", "not finite")
NAMED = 20  # tickers or feeds that are named; the rest is counted
SHOWN = 5  # forecasts at either end


@dataclass(frozen=True)
class Run:
    """What every step works with. `exchange` are all sessions of the workspace's calendar."""

    workspace: Workspace
    clock: Now
    connect: Connect | None
    engine: Engine
    exchange: Sessions
    loaded: dict[str, Bundle] = field(default_factory=dict)

    def bundle(self, model_id: str) -> Bundle:
        """A model, verified and loaded once a run. Raises ModelError."""
        if model_id not in self.loaded:
            self.loaded[model_id] = load_bundle(self.workspace.runs, model_id)
        return self.loaded[model_id]


def patiently(job: Callable[[], Done]) -> Done:
    """`job` as soon as no other process ingests. Raises WaitedError where that takes too long."""
    patient = Retrying(
        retry=retry_if_exception_type(LockedError), wait=wait_fixed(1), stop=stop_after_delay(PATIENCE), reraise=True
    )
    try:
        return patient(job)
    except LockedError as error:
        raise WaitedError(
            f"Nothing was published: {error} The night waited {PATIENCE / 60:.0f} minutes for it; the next start tries "
            "again. Where that job hangs, `fuser .ingest.lock` finds it."
        ) from error


def ingest(run: Run) -> Result:
    """Get what `[nightly].ingest` names; what fails is told and stops nothing."""
    jobs = {"news": _news, "prices": _prices}
    return {name: _unless_broken(name, jobs[name], run) for name in run.workspace.config.nightly.ingest}


def _unless_broken(name: str, job: Callable[[Run], Result], run: Run) -> Result:
    """A vendor's answer may break what nobody thought of: the night goes on with what is known."""
    try:
        result = patiently(lambda: job(run))
    except TapewireError:
        raise
    except Exception as error:
        if disk_full(error):
            raise
        log.exception("%s could not be ingested", name)
        return {"asked": 0, "failed": 0, "named": [], "broken": f"{type(error).__name__}: {error}"[:300]}
    note(f"ingested {name}", **result)
    return result


def _news(run: Run) -> Result:
    read = ingest_news(run.workspace, run.clock)
    failed = [(each.feed.label, each.reason or each.outcome) for each in read.feeds if each.outcome not in FED]
    added = {"headlines": read.stored.headlines, "links": read.stored.links}
    return {"asked": len(read.feeds), "failed": len(failed), "named": failed[:NAMED], "added": added, "broken": ""}


def _prices(run: Run) -> Result:
    read = ingest_prices(run.workspace, run.clock, run.connect)
    bad = [each for each in read.reads if each.bad and each.outcome != "ended"]
    ended = [each.ticker for each in read.reads if each.bad and each.outcome == "ended"]
    return {
        "asked": len(read.reads),
        "failed": len(bad),
        "named": [(each.ticker, each.reason or each.outcome) for each in bad[:NAMED]],
        "ended": ended,
        "added": {"bars": read.stored.bars, "actions": read.stored.actions},
        "quarantined": dict(read.quarantined),
        "broken": "",
    }


def embed(run: Run, nights: list[Kept]) -> Result:
    """Embed what the nights' models will read. Where no model reads text there is nothing to do.

    `nights` are in order. What cannot be embedded stops the run only where the newest one's champion needs it.
    """
    told: Result = {}
    for model_id in dict.fromkeys(name for kept in nights for name in (kept.champion, *kept.challengers)):
        try:
            bundle = run.bundle(model_id)
            if bundle.fingerprint is not None and bundle.fingerprint not in told:
                told[bundle.fingerprint] = _embed_for(run, bundle)
        except Exception as error:  # told where it is scored; a champion that cannot be loaded stops the night there
            if disk_full(error) or (model_id == nights[-1].champion and not isinstance(error, ModelError)):
                raise
            note("not embedded", model=model_id, reason=f"{type(error).__name__}: {error}")
    return {"encoders": told}


def _embed_for(run: Run, bundle: Bundle) -> Result:
    from pipelines.embed import embed as job  # heavy, and a model of prices needs none of it

    done = job(run.workspace.lake, run.workspace.embeddings, bundle.config.text, engine=run.engine)
    return {"texts": done.texts, "embedded": done.embedded}


class OpenedError(Exception):
    """The target session has opened since a night said when its forecasts were made."""


def score_night(run: Run, kept: Kept) -> Result:
    """The champion's forecasts, stored and published, and then each challenger's, stored.

    Raises ModelError where the champion is unfit, and OpenedError, before anything is stored, where the forecasts
    would be called live and would not be.
    """
    champion = _record(_score(run, kept, kept.champion))
    note("scored", model=kept.champion, role="champion", scored=champion["scored"], members=champion["members"])
    challengers: dict[str, Result] = {}
    failed: dict[str, str] = {}
    for model_id in kept.challengers:
        try:
            challengers[model_id] = _record(_score(run, kept, model_id))
            note("scored", model=model_id, role="challenger", scored=challengers[model_id]["scored"])
        except Exception as error:
            if disk_full(error) or isinstance(error, OpenedError):
                raise
            log.exception("challenger %s could not be scored", model_id)
            failed[model_id] = str(error) if isinstance(error, TapewireError) else f"{type(error).__name__}: {error}"
    return {"champion": champion, "challengers": challengers, "failed": failed}


def _score(run: Run, kept: Kept, model_id: str) -> Scored:
    bundle, workspace = run.bundle(model_id), as_of_night(run.workspace, kept)
    bundle.check_clock(workspace.config)
    opens = run.exchange.target_open[run.exchange.index([kept.session])[0]]

    def made_at() -> np.datetime64:
        """What the ledger says, as long as it is true: the last look is right before the forecasts are stored."""
        then, now = known([kept.made_at, run.clock()], opens)
        if then and not now:
            raise OpenedError(f"{kept.session}: {opens}Z has passed")
        return kept.made_at

    publish = model_id == kept.champion
    ask = Ask(kept.session, kept.recorded_by, publish=publish, nightly=True, champion=kept.champion)
    return score(workspace, bundle, ask, made_at, run.engine)


def _record(scored: Scored) -> Result:
    unexpected = sorted(ticker for ticker, reason in scored.abstained.items() if not reason.startswith(EXPECTED))
    return {
        "standing": scored.standing,
        "scored": len(scored.frame),
        "members": scored.members,
        "coverage": scored.coverage,
        "published": scored.published,
        "unpublished": scored.unpublished,
        "path": None if scored.path is None else str(scored.path),
        "abstained": dict(sorted(Counter(_kind(reason) for reason in scored.abstained.values()).items())),
        "unexpected": len(unexpected),
        "named": [(ticker, scored.abstained[ticker]) for ticker in unexpected[:NAMED]],
        "drift": scored.drift,
        "newest": stamp(naive_utc(scored.frame["recorded_at"]).max()) if len(scored.frame) else None,
        **_ends(scored.frame),
    }


def _kind(reason: str) -> str:
    return next((kind for kind in REASONS if reason.startswith(kind)), "other")


def _ends(frame: pd.DataFrame) -> dict[str, Any]:
    """The forecasts with the highest and the lowest mean."""
    ordered = frame.sort_values(["mean", "ticker"], ascending=[False, True])
    names = ["ticker", "mean", "prob_up", "price", "price_low", "price_high"]
    top, bottom = ordered.head(SHOWN), ordered.tail(min(SHOWN, max(0, len(ordered) - SHOWN))).iloc[::-1]
    return {"top": top[names].to_dict("records"), "bottom": bottom[names].to_dict("records")}


def settle_night(run: Run, kept: Kept, scored: Result) -> Result:
    """Settle what was forecast for the sessions that are over, and seal the night."""
    from pipelines.scorecard.seal import seal
    from pipelines.scorecard.settle import settle

    at = _sealed_at(kept, scored)
    settled = settle(run.workspace, kept.session, kept.recorded_by, at)
    sealed = seal(run.workspace, kept.session, _sealed_record(run.exchange, kept, scored), at)
    note("settled", settled=settled.settled, missing=settled.missing, delisted=settled.delisted)
    note("sealed", sha256=sealed.sha256)
    return {"settled": settled.as_dict(), "seal": sealed.as_dict()}


def _sealed_at(kept: Kept, scored: Result) -> np.datetime64:
    """The moment of the night's newest forecast, not of the clock: a run that was killed in between seals the same.

    Most are of `made_at`; `tapewire score` by hand, while the night stood still, may have stored some after it.
    """
    records = (scored["champion"], *scored["challengers"].values())
    newest = [instant(record["newest"]) for record in records if record.get("newest")]
    at: np.datetime64 = np.max([kept.made_at, *newest])
    return at


def _sealed_record(exchange: Sessions, kept: Kept, scored: Result) -> Result:
    """What the night says of itself for ever: nothing that another run of it would say otherwise."""
    names = ("standing", "scored", "members", "coverage", "published", "abstained", "drift")
    models = {kept.champion: ("champion", scored["champion"])}
    models |= {model_id: ("challenger", record) for model_id, record in scored["challengers"].items()}
    return {
        "calendar": exchange.calendar,
        "decision": exchange.clock,
        "champion": kept.champion,
        "challengers": list(kept.challengers),
        "recorded_by": str(kept.recorded_by),
        "made_at": str(kept.made_at),
        "models": {
            model_id: {"role": role, **{name: record[name] for name in names}}
            for model_id, (role, record) in models.items()
        },
    }
