"""The nightly run, read from top to bottom: ingest, fix what is read, embed, score, settle, seal, report, tidy up.

It waits for the calendar and not for the wall clock: due is every session whose decision has come, and its bars must be
there. It may be started as often as one likes, killed at any moment and started again: what is done is not done again,
what is half done is done as if nothing had been. A night that cannot be done does not hold up a later one.

Where too little of the universe could be scored nothing is published, and every start tries the night again with what
has arrived, until its target session opens; then it is completed as it is.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np

from data.asof import known
from data.calendar import Labels, Sessions, sessions
from data.errors import ConfigError, EncoderError, LakeError, LockedError, ModelError, TapewireError, WaitedError
from data.maintenance import maintain
from data.scan import Span
from pipelines.disk import disk_full, full_disk
from pipelines.engine.base import Engine
from pipelines.engine.local import LOCAL
from pipelines.ingest import workspace_feeds
from pipelines.ingest_prices import Connect, watchlist
from pipelines.instants import Now, utc_now
from pipelines.nightly import page
from pipelines.nightly.due import next_due, nights_due
from pipelines.nightly.ledger import Kept, Ledger, Result, begun_nights, sweep
from pipelines.nightly.log import night_log, note
from pipelines.nightly.members import keep_members
from pipelines.nightly.notify import Notices
from pipelines.nightly.outcome import Night, Nights, ingest_shortfalls, shortfalls
from pipelines.nightly.steps import OpenedError, Run, embed, ingest, patiently, score_night, settle_night
from pipelines.promotions import Promotions
from pipelines.scorecard.seal import first_free
from pipelines.workspace import Workspace

log = logging.getLogger(__name__)

FAULT = 1  # exit code of an error that nobody foresaw


def nightly(
    workspace: Workspace,
    clock: Now = utc_now,
    connect: Connect | None = None,
    say: Callable[[str], None] = lambda _text: None,
    engine: Engine = LOCAL,
) -> Nights:
    """Do every night that is due, and tell whom the configuration names.

    Raises LockedError at once where another run is at work, WaitedError where another job ingests for too long,
    or the text encoder cannot be had, ConfigError for what cannot be done at all, ModelError where the champion is
    refused, DiskFullError where there is no room; the night then stays open. All but the first is told, once the lock
    is held.
    """
    with workspace.lock("nightly"), ExitStack() as open_log:
        return _told(workspace, clock, connect, engine, say, open_log)


def do_one(workspace: Workspace, session: np.datetime64, clock: Now, engine: Engine) -> Kept:
    """Score one past night that was never scored, from what is known by now; what it was scored from.

    It is neither settled nor sealed here: the nights that follow do that. Raises LakeError where its session has no
    bars: nobody could be scored; ModelError where its champion is refused, EncoderError where its text encoder cannot
    be had, LockedError where a run is at work, WaitedError where another job ingests for too long.
    """
    with workspace.lock("nightly"):
        run = Run(workspace, clock, None, engine, sessions(workspace.config.calendar, workspace.config.decision))
        if session not in _with_bars(run, session, session):
            raise LakeError(
                f"{session}: expected bars of the session, found none. Get them with `tapewire ingest --prices`."
            )
        ledger = Ledger.open(workspace, session)
        ledger.ask()
        _fix(run, [ledger], ledger)
        ledger.step("embed", clock, lambda: embed(run, [ledger.kept]))
        _scored(run, ledger)
        return ledger.kept


def _check(workspace: Workspace) -> None:
    """What would fail every night fails before anything is begun."""
    needs = {"news": workspace_feeds, "prices": watchlist}
    for name in workspace.config.nightly.ingest:
        try:
            needs[name](workspace)
        except ConfigError as error:
            raise ConfigError(f'{error} Or leave "{name}" out of nightly.ingest.') from None


def _told(
    workspace: Workspace,
    clock: Now,
    connect: Connect | None,
    engine: Engine,
    say: Callable[[str], None],
    open_log: ExitStack,
) -> Nights:
    """The nights that are due, and whoever is to know of it told. The log is open once it is known which they are."""
    notices = Notices(workspace.config.nightly)
    notices.started()
    night: dict[str, object] = {}
    try:
        _check(workspace)
        exchange = sessions(workspace.config.calendar, workspace.config.decision)
        now = clock()
        ledgers = _due(workspace, exchange, now)
        if not ledgers:
            result = Nights((), *next_due(exchange, now))
        else:
            night = {"night": str(ledgers[-1].session)}
            open_log.enter_context(night_log(ledgers[-1].folder, clock))
            note("started", nights=[str(ledger.session) for ledger in ledgers])
            result = _do(Run(workspace, clock, connect, engine, exchange), ledgers, say)
    except Exception as error:
        told = _told_as(error)
        text = str(told) or type(told).__name__
        if night:  # else there is no log
            log.error("broken off: %s", text, exc_info=not isinstance(told, TapewireError))
        notices.ended(getattr(told, "exit_code", FAULT), {**night, "reasons": [text]})
        if told is error:
            raise
        raise told from error
    else:
        note("ended", exit_code=result.exit_code)
        notices.ended(result.exit_code, _facts(result))
        return result
    finally:
        notices.close()


def _told_as(error: Exception) -> Exception:
    """In a night's words a full disk, a job in the way, and an encoder that cannot be had; other errors as they are."""
    if disk_full(error):
        return full_disk(error)
    if isinstance(error, EncoderError):  # a hub that is down comes back
        return WaitedError(f"Nothing was published: {error} The next start tries again.")
    if isinstance(error, LockedError):  # one night is at work here, so that it is another job
        return WaitedError(f"Nothing was published: {error} The next start tries again.")
    return error


def _due(workspace: Workspace, exchange: Sessions, now: np.datetime64) -> list[Ledger]:
    """The ledgers of the nights to be done, oldest first."""
    sealed = workspace.lake.greatest("seals", "night")
    due = nights_due(exchange, now, begun_nights(workspace), workspace.config.nightly.catch_up, sealed)
    return [Ledger.open(workspace, exchange.labels[at]) for at in due]


def _facts(result: Nights) -> dict[str, object]:
    if not result.nights:
        return {}
    reasons = [text for night in result.nights for text in (night.reason, *night.degraded) if text]
    return {"night": str(result.nights[-1].session), "reasons": [*reasons, *result.remarks]}


def _do(run: Run, ledgers: list[Ledger], say: Callable[[str], None]) -> Nights:
    newest = ledgers[-1]
    for ledger in ledgers:
        sweep(ledger.folder)
        ledger.take()
    if not _goes_on(run, newest):
        newest.begin(run.clock())
    newest.step("ingest", run.clock, lambda: ingest(run))
    ready, nights = _ready(run, ledgers)
    for night in nights:
        say(night.line())
    if ready:
        _fix(run, ready, newest)
        ready[-1].step("embed", run.clock, lambda: embed(run, [ledger.kept for ledger in ready]))
        for ledger in ready:
            nights.append(_night(run, ledger) if ledger is newest else _older_night(run, ledger))
            say(nights[-1].line())
    remarks = _tidy(run)
    nights.sort(key=lambda night: str(night.session))
    return Nights(tuple(nights), *next_due(run.exchange, run.clock()), remarks)


def _goes_on(run: Run, ledger: Ledger) -> bool:
    """Whether the night's last attempt is to be gone on with, rather than begun anew.

    Not one that broke off for want of bars or of a sound champion; not one whose coverage was too low while its target
    session has not opened; not one that was to be in time and would now be late: its forecasts would say live and
    not have been; and not one since whose making a night was sealed that its forecasts would fall under.
    """
    if not ledger.begun or ledger.waits_for:
        return False
    if not ledger.fixed:
        return True
    opens = run.exchange.target_open[_at(run, ledger)]
    in_time, still = known([ledger.kept.recorded_by, run.clock()], opens)
    scored = ledger.result("score")
    if scored is None:
        return bool(still or not in_time) and not _overtaken(run, ledger)
    return bool(scored["champion"]["published"] or not still)


def _overtaken(run: Run, ledger: Ledger) -> bool:
    made_at = ledger.kept.made_at
    return not np.isnat(made_at) and _free(run, ledger, made_at) != made_at


def _free(run: Run, ledger: Ledger, now: np.datetime64) -> np.datetime64:
    return first_free(run.workspace.lake, run.exchange.target[_at(run, ledger)], now)


def _ready(run: Run, ledgers: list[Ledger]) -> tuple[list[Ledger], list[Night]]:
    """The nights that can be done, and those that cannot yet: no bar of their session, or no champion.

    A session without any bar is passed over once a newer one has some.
    """
    there = _with_bars(run, ledgers[0].session, ledgers[-1].session)
    ready, waiting = [], []
    for ledger in ledgers:
        if ledger.fixed and _goes_on(run, ledger):
            ready.append(ledger)  # its bars were there before
        elif ledger.session not in there:
            reason = f"No ticker has a bar of {ledger.session}: its prices are not in yet. The next start tries again."
            waiting.append(_waits(run, ledger, reason))
        elif problem := _no_champion(run):
            waiting.append(_waits(run, ledger, problem))
        else:
            ready.append(ledger)
    return ready, waiting


def _with_bars(run: Run, first: np.datetime64, last: np.datetime64) -> Labels:
    """The sessions from `first` to `last` of which the lake has a bar."""
    bars = run.workspace.lake.read("bars", ["session"], Span("session", first, last))
    return np.unique(bars["session"].to_numpy().astype("datetime64[D]"))


def _waits(run: Run, ledger: Ledger, reason: str) -> Night:
    if ledger.begun:
        ledger.wait(reason)
    note("waits", night=str(ledger.session), reason=reason)
    return _open(run, ledger, reason)


def _open(run: Run, ledger: Ledger, reason: str) -> Night:
    target = run.exchange.target[_at(run, ledger)]
    degraded = ingest_shortfalls(ledger.result("ingest") or {})
    return Night(ledger.session, target, "open", False, 0, 0, degraded, reason)


def _no_champion(run: Run) -> str:
    try:
        Promotions.read(run.workspace.runs).champion(run.clock())
    except ModelError as error:
        return str(error)
    return ""


def _fix(run: Run, ledgers: Sequence[Ledger], newest: Ledger) -> None:
    """Decide for each night which rows and which models it reads, while nobody can add rows."""

    def fix() -> None:
        with run.workspace.lock("ingest"):
            for ledger in ledgers:
                if not _goes_on(run, ledger):
                    ledger.begin(run.clock())
                if not ledger.fixed:
                    recorded_by = run.clock()
                    members = keep_members(run.workspace, ledger)
                    ledger.fix(recorded_by, *_models(run, ledger, recorded_by), members)

    patiently(fix)
    for ledger in ledgers:
        if ledger is not newest:
            ledger.step("ingest", run.clock, lambda: {"with": str(newest.session)})
        if ledger is not ledgers[-1]:
            ledger.step("embed", run.clock, lambda: {"with": str(ledgers[-1].session)})


def _models(run: Run, ledger: Ledger, recorded_by: np.datetime64) -> tuple[str, tuple[str, ...]]:
    """Champion and challengers of a night: those of the moment where it is in time, else those of its decision.

    A night that comes late and had no champion then gets the present one.
    """
    at = _at(run, ledger)
    promotions = Promotions.read(run.workspace.runs)
    when = recorded_by
    if not known([recorded_by], run.exchange.target_open[at])[0]:
        when = run.exchange.decision_at[at]
        try:
            promotions.champion(when)
        except ModelError:
            when = recorded_by
    return promotions.champion(when), promotions.challengers(when)


def _older_night(run: Run, ledger: Ledger) -> Night:
    """`_night`, passed over where it breaks, whatever the reason: it must not hold up the newest one."""
    try:
        return _night(run, ledger)
    except Exception as error:
        if disk_full(error):
            raise
        foreseen = isinstance(error, TapewireError)
        reason = str(error) if foreseen else f"{type(error).__name__}: {error}"
        log.error("%s is passed over: %s", ledger.session, reason, exc_info=not foreseen)
        return _open(run, ledger, reason)


def _night(run: Run, ledger: Ledger) -> Night:
    """Score, settle, seal and report one night."""
    scored, kept = _scored(run, ledger), ledger.kept
    opens = run.exchange.target_open[_at(run, ledger)]
    if not scored["champion"]["published"] and known([run.clock()], opens)[0]:
        reason = f"{scored['champion']['unpublished']} Every start tries again until {opens.astype('datetime64[m]')}Z."
        note("too few scored", night=str(ledger.session), reason=reason)
        return _open(run, ledger, reason)
    settled = ledger.step("settle", run.clock, lambda: settle_night(run, kept, scored))
    degraded = shortfalls(ledger.result("ingest") or {}, scored)
    ledger.step("report", run.clock, lambda: page.write(run, ledger, kept, degraded))
    if not ledger.complete:
        ledger.finish()
    return Night(
        session=ledger.session,
        target_session=run.exchange.target[_at(run, ledger)],
        state="complete",
        published=scored["champion"]["published"],
        scored=scored["champion"]["scored"],
        members=scored["champion"]["members"],
        degraded=degraded,
        report=ledger.folder / page.MARKDOWN,
        seal=settled["seal"]["sha256"],
    )


def _scored(run: Run, ledger: Ledger) -> Result:
    """The night's forecasts, stamped with one moment. Where the session opens meanwhile the rest is made after it."""

    def job() -> Result:
        try:
            return score_night(run, ledger.kept)
        except OpenedError as error:
            note("opened meanwhile", night=str(ledger.session), reason=str(error))
            ledger.make(_free(run, ledger, run.clock()))
            return score_night(run, ledger.kept)

    try:
        if ledger.result("score") is None and np.isnat(ledger.kept.made_at):
            ledger.make(_free(run, ledger, run.clock()))
        return ledger.step("score", run.clock, job)
    except ModelError as error:
        ledger.wait(str(error))  # the next start chooses its champion anew
        raise


def _tidy(run: Run) -> tuple[str, ...]:
    """Upkeep of the lake. Nothing of it can spoil a night that is done: what fails is told and done another time."""
    try:
        done = maintain(run.workspace.lake, run.clock())
    except Exception as error:
        log.exception("the lake could not be tidied up")
        text = str(full_disk(error)) if disk_full(error) else f"{type(error).__name__}: {error}"
        return (f"The lake was not tidied up: {text}",)
    if done.merged or done.deleted:
        note("tidied up", merged=done.merged, deleted=done.deleted)
    return ()


def _at(run: Run, ledger: Ledger) -> int:
    return int(run.exchange.index([ledger.session])[0])
