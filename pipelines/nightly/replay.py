"""`tapewire nightly --as-of`: a past night again, from what was known and recorded then, with the models of then.

What comes out must be what is stored, to the bit, whatever has been restated, promoted or compacted since. Nothing is
added to the lake. A night that was never scored is done now instead, and late.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.asof import known
from data.calendar import sessions
from data.errors import ConfigError
from data.packing import naive_utc
from data.scan import Span
from pipelines.bundle import load_bundle
from pipelines.dataset import session_of
from pipelines.engine.base import Engine
from pipelines.engine.local import LOCAL
from pipelines.instants import Now, utc_now
from pipelines.nightly.job import do_one
from pipelines.nightly.ledger import Kept, Ledger
from pipelines.nightly.members import as_of_night
from pipelines.score import Ask, score
from pipelines.scorecard.seal import MICROSECOND
from pipelines.workspace import Workspace

# All but the stamps of the making.
COMPARED = ("target", "decision_at", "mean", "quantiles", "prob_up", "price", "price_low", "price_high")
KEY = ["model_id", "ticker", "data_version"]
NAMED = 10

SAME, DIFFERENT = 0, 3


@dataclass(frozen=True)
class Replayed:
    """How many forecasts were made again and are stored to the bit, and which tickers differ, with why.

    A night that had never been scored is `done` now instead, and there is nothing to compare with: `added` counts the
    forecasts that the lake did not hold. Of any other it is 0.
    """

    session: np.datetime64
    models: tuple[str, ...]
    compared: int
    added: int
    differing: tuple[str, ...]
    done: bool = False

    @property
    def exit_code(self) -> int:
        """0 all the same, 3 something differs."""
        return DIFFERENT if self.differing else SAME

    def as_dict(self) -> dict[str, object]:
        """The contract of `nightly --as-of --json`."""
        lists = {"models": list(self.models), "differing": list(self.differing)}
        return {**vars(self), "session": str(self.session), **lists, "exit_code": self.exit_code}

    def text(self) -> str:
        """For a person."""
        if self.done:
            return f"{self.session} had no record of having been done: {self.added} forecasts were added now."
        if not self.differing:
            return f"{self.session}: {self.compared} forecasts made again, all as they are stored, to the bit."
        shown = "\n".join(f"  {text}" for text in self.differing[:NAMED])
        return (
            f"{self.session}: {len(self.differing)} of {self.compared} forecasts differ from what is stored:\n{shown}"
        )


def replay(workspace: Workspace, session: np.datetime64, clock: Now = utc_now, engine: Engine = LOCAL) -> Replayed:
    """Score the night after `session` again and compare; do it, where it was never scored.

    Raises ModelError where a model of that night is gone or was altered, LakeError for a day without a session or
    without bars, ConfigError where the night was not scored and may still be done in time, else what `do_one` does.
    """
    exchange = sessions(workspace.config.calendar, workspace.config.decision)
    at = session_of(exchange, session)
    ledger = Ledger.open(workspace, exchange.labels[at])
    scored = ledger.result("score")
    if scored is None:
        if not known([exchange.target_open[at]], clock())[0]:
            raise ConfigError(
                f"--as-of {session}: expected a night that was scored or is over, found one whose target session opens "
                f"at {exchange.target_open[at].astype('datetime64[m]')}Z. `tapewire nightly` does it."
            )
        return _done(workspace, ledger.session, clock, engine)
    models = tuple(name for name in (ledger.kept.champion, *ledger.kept.challengers) if name not in scored["failed"])
    stored = _stored(workspace, exchange.target[at], models)
    parts = [_again(workspace, ledger.kept, model_id, stored, engine) for model_id in models]
    again = pd.concat(parts, ignore_index=True)
    return Replayed(ledger.session, models, len(again), 0, tuple(_differing(again, stored, ledger.kept.made_at)))


def _done(workspace: Workspace, session: np.datetime64, clock: Now, engine: Engine) -> Replayed:
    """The night done now, and how many forecasts its attempt has added, whoever began it."""
    kept = do_one(workspace, session, clock, engine)
    failed = (Ledger.open(workspace, session).result("score") or {})["failed"]
    models = tuple(name for name in (kept.champion, *kept.challengers) if name not in failed)
    exchange = sessions(workspace.config.calendar, workspace.config.decision)
    stored = _stored(workspace, exchange.target[session_of(exchange, session)], models)
    return Replayed(session, models, 0, int(_made(stored["recorded_at"], kept.made_at).sum()), (), done=True)


def _stored(workspace: Workspace, target: np.datetime64, models: tuple[str, ...]) -> pd.DataFrame:
    rows = workspace.lake.frame("forecasts", within=Span("target_session", target, target))
    return rows[rows["model_id"].isin(models)]


def _made(stamps: "pd.Series[Any]", at: np.datetime64) -> npt.NDArray[np.bool_]:
    """Which stamps are exactly that instant."""
    return known(stamps, at) & ~known(stamps, at - MICROSECOND)


def _again(workspace: Workspace, kept: Kept, model_id: str, stored: pd.DataFrame, engine: Engine) -> pd.DataFrame:
    """The night's forecasts by one model, each made in the batch in which it was made first.

    What the night found in the lake already was made from what an earlier moment had recorded; its inputs were the
    same, but the last bits of a forecast depend on what shares its batch.
    """
    frame = _score(workspace, kept, kept.recorded_by, model_id, engine)
    cutoffs = stored.set_index(KEY)["cutoff_at"].reindex(frame.index).dropna()
    held = cutoffs[~_made(cutoffs, kept.recorded_by)]
    moments = naive_utc(held)
    for moment in np.unique(moments):
        batch = _score(workspace, kept, moment, model_id, engine)
        same = held.index[moments == moment].intersection(batch.index)
        frame = pd.concat([frame.drop(same), batch.loc[same]])
    return frame.reset_index(drop=True)


def _score(workspace: Workspace, kept: Kept, recorded_by: np.datetime64, model_id: str, engine: Engine) -> pd.DataFrame:
    ask = Ask(kept.session, recorded_by, publish=False, store=False, nightly=True)
    bundle = load_bundle(workspace.runs, model_id)
    return score(as_of_night(workspace, kept), bundle, ask, lambda: kept.made_at, engine).frame.set_index(
        KEY, drop=False
    )


def _differing(again: pd.DataFrame, stored: pd.DataFrame, made_at: np.datetime64) -> Iterator[str]:
    """Tickers and what is different: one that is not stored, one that was not made again, one with other values."""
    both = again.merge(stored, on=KEY, how="outer", suffixes=("", "_stored"), indicator="side").sort_values(KEY)
    there = (both["side"] == "both").to_numpy()
    named = pd.MultiIndex.from_frame(both[["ticker", "model_id"]])
    held = named.isin(pd.MultiIndex.from_frame(stored[["ticker", "model_id"]]))
    values = np.where(there, "", np.where(held, "other inputs than were stored", "not stored")).astype(object)
    for name in reversed(COMPARED):
        differs = _bits(both[name][there]) != _bits(both[f"{name}_stored"][there])
        values[np.flatnonzero(there)[differs.any(axis=tuple(range(1, differs.ndim)))]] = f"another {name}"
    of_night = _made(both["made_at_stored"], made_at)
    only_stored = (both["side"] == "right_only").to_numpy()
    values[only_stored] = np.where(of_night[only_stored], "stored, and not made again", "")
    for ticker, model_id, value in zip(both["ticker"], both["model_id"], values, strict=True):
        if value:
            yield f"{ticker} ({model_id}): {value}"


def _bits(column: "pd.Series[Any]") -> npt.NDArray[Any]:
    """Values to be compared exactly: of numbers their bytes, [rows] or [rows, numbers]."""
    if isinstance(column.dtype, np.dtype) and column.dtype == np.float64:
        return column.to_numpy().view(np.int64)
    if column.name in ("quantiles", "quantiles_stored"):
        return np.array(column.tolist(), dtype=np.float64).view(np.int64)
    return column.to_numpy(dtype=object)
