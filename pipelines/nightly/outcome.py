"""How nights ended: what `tapewire nightly` says, and its exit code. Reads results, does nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from data.invisible import INVISIBLE
from pipelines.nightly.ledger import Result, stamp

FULL, DEGRADED, NOTHING = 0, 3, 4


@dataclass(frozen=True)
class Night:
    """One night. `reason` says why it is still open; `degraded` is what was less than it should be.

    `report` is the page, None while the night is open.
    """

    session: np.datetime64
    target_session: np.datetime64
    state: Literal["complete", "open"]
    published: bool
    scored: int
    members: int
    degraded: tuple[str, ...]
    reason: str = ""
    report: Path | None = None
    seal: str = ""

    @property
    def exit_code(self) -> int:
        """0 full, 3 degraded, 4 nothing published."""
        if not self.published:
            return NOTHING
        return DEGRADED if self.degraded or self.state == "open" else FULL

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        text = {"session": str(self.session), "target_session": str(self.target_session)}
        report = None if self.report is None else str(self.report)
        return {**vars(self), **text, "degraded": list(self.degraded), "report": report, "exit_code": self.exit_code}

    def line(self) -> str:
        """For a person; what feeds and vendors said shows and does nothing else."""
        degraded = [f"  {plain(text)}" for text in self.degraded]
        if self.state == "open":
            return "\n".join([f"{self.session}: not done. {plain(self.reason)}", *degraded])
        published = "published" if self.published else "NOT published"
        head = f"{self.session}: {self.scored} of {self.members} tickers scored for {self.target_session}, {published}."
        return "\n".join([head, *degraded, f"  Report: {self.report}"])


@dataclass(frozen=True)
class Nights:
    """The nights of one run, oldest first, and when the next is due (UTC): the session after whose decision it runs."""

    nights: tuple[Night, ...]
    next_session: np.datetime64
    next_at: np.datetime64
    remarks: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """That of the newest night; 3 where it is full and an older one, or the upkeep, was not. 0 if none was due."""
        if not self.nights:
            return FULL
        newest = self.nights[-1].exit_code
        less = self.remarks or any(night.exit_code for night in self.nights)
        return DEGRADED if newest == FULL and less else newest

    def as_dict(self) -> dict[str, object]:
        """The contract of `nightly --json`."""
        coming = {"session": str(self.next_session), "at": stamp(self.next_at)}
        nights = [night.as_dict() for night in self.nights]
        return {"exit_code": self.exit_code, "nights": nights, "remarks": list(self.remarks), "next": coming}

    def text(self) -> str:
        """For a person."""
        at = f"{self.next_at.astype('datetime64[m]')}Z"
        if not self.nights:
            return f"Nothing is due. The next night follows session {self.next_session}, at {at}."
        return "\n".join([*(night.line() for night in self.nights), *self.remarks])


def plain(text: str) -> str:
    """Text from outside on one line, without characters that show nothing: a terminal would obey some."""
    return INVISIBLE.sub("", " ".join(text.split()))


def shortfalls(ingested: Result, scored: Result) -> tuple[str, ...]:
    """What was less than it should be in a night, one sentence each; nothing for a full one."""
    champion = scored["champion"]
    found = list(ingest_shortfalls(ingested))
    if champion["unexpected"]:
        found.append(f"abstained for no good reason: {champion['unexpected']}: {_named(champion)}.")
    if champion["unpublished"]:
        found.append(champion["unpublished"])
    found += [f"challenger {model_id} was not scored: {why}" for model_id, why in scored["failed"].items()]
    return tuple(found)


def ingest_shortfalls(ingested: Result) -> tuple[str, ...]:
    """The same of the step that ingests, which only the newest night of a run has."""
    return tuple(
        text for name in ("news", "prices") if name in ingested for text in _not_ingested(name, ingested[name])
    )


def _not_ingested(name: str, read: Result) -> list[str]:
    if read["broken"]:
        return [f"{name} could not be ingested: {read['broken']}"]
    if not read["failed"]:
        return []
    what = "feeds" if name == "news" else "tickers"
    return [f"{name}: {read['failed']} of {read['asked']} {what} failed: {_named(read)}."]


def _named(record: Result, most: int = 5) -> str:
    names: Sequence[tuple[str, str]] = record["named"]
    more = ", ..." if len(names) > most else ""
    return ", ".join(f"{name} ({why})" for name, why in names[:most]) + more
