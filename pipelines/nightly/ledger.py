"""What is done of one night: `nights/<session>/ledger.json`, replaced whole after every step.

A step that is in it is not done again; one that is not is done again from its start, so each must be idempotent. What
decides a night's forecasts (which rows are read, which models, when they were made) is written before the first of
them and used by whoever goes on with the night. A night that has to be scored anew gets a further attempt, and its
last one counts: it stands at the top level, those before it under `earlier`. Does no step itself, and
never looks at the clock.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import LakeError
from pipelines.workspace import Workspace, replace_file

FILE = "ledger.json"
FORMAT = 1
NIGHT = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", re.ASCII)
STEPS = ("ingest", "embed", "score", "settle", "report")

Result = dict[str, Any]  # JSON-ready


@dataclass(frozen=True)
class Members:
    """Who belonged: the watchlist, and the file in the night's folder that `universe` was copied to, with its hash."""

    watchlist: tuple[str, ...]
    universe: str
    sha256: str


@dataclass(frozen=True)
class Kept:
    """What a night's forecasts were made from: rows recorded up to `recorded_by`, these models, and for whom, UTC.

    `made_at` is NaT where nothing was scored yet.
    """

    session: np.datetime64
    champion: str
    challengers: tuple[str, ...]
    recorded_by: np.datetime64
    made_at: np.datetime64
    members: Members


class Ledger:
    """One night's record. Every change is on disk when the call returns."""

    def __init__(self, path: Path, record: Result) -> None:
        self._path, self._record = path, record

    @classmethod
    def open(cls, workspace: Workspace, session: np.datetime64) -> "Ledger":
        """The night's ledger; an empty one, not yet on disk, where there is none. Raises LakeError for a broken one."""
        path = folder_of(workspace, session) / FILE
        new = {"format": FORMAT, "session": str(session), "state": "open", "earlier": []} | _attempt(None)
        return cls(path, _read(path) if path.exists() else new)

    @property
    def folder(self) -> Path:
        """Where the night's files are."""
        return self._path.parent

    @property
    def session(self) -> np.datetime64:
        """The session whose decision this night follows."""
        return np.datetime64(self._record["session"], "D")

    @property
    def complete(self) -> bool:
        """Whether nothing of it is left to do."""
        return bool(self._record["state"] == "complete")

    @property
    def asked(self) -> bool:
        """Whether it was only asked for by name: no run has come to it."""
        return bool(self._record["state"] == "asked")

    def ask(self) -> None:
        """It is asked for by name, where no run has come to it."""
        if not self.begun:
            self._record["state"] = "asked"

    def take(self) -> None:
        """A run has come to it."""
        if self.asked:
            self._record["state"] = "open"
            self._write()

    @property
    def begun(self) -> bool:
        """Whether there is an attempt to go on with."""
        return self._record["begun_at"] is not None

    @property
    def waits_for(self) -> str:
        """What the attempt broke off for, or nothing."""
        return str(self._record["waits_for"])

    @property
    def attempts(self) -> int:
        """How many attempts there were, this one included."""
        return len(self._record["earlier"]) + self.begun

    def begin(self, now: np.datetime64) -> None:
        """Start a further attempt; one that never got as far as reading the lake gives way to it."""
        if self.fixed:
            self._record["earlier"].append({name: self._record[name] for name in _attempt(None)})
        self._record |= _attempt(now)
        self._write()

    def step(self, name: str, clock: Callable[[], np.datetime64], job: Callable[[], Result]) -> Result:
        """The result of a step: what it was, where it is done, else of `job`."""
        done = self.result(name)
        if done is not None:
            return done
        started = stamp(clock())
        result = job()
        times = {"started": started, "finished": stamp(clock())}
        self._record["steps"][name] = {"state": "done", **times, "result": result}
        self._write()
        return result

    def result(self, name: str) -> Result | None:
        """What a step of the attempt gave; None where it is not done."""
        step = self._record["steps"][name]
        return dict(step["result"]) if step["state"] == "done" else None

    def wait(self, reason: str) -> None:
        """Break the attempt off; the next start begins anew."""
        self._record["waits_for"] = reason
        self._write()

    def fix(self, recorded_by: np.datetime64, champion: str, challengers: tuple[str, ...], members: Members) -> None:
        """Write down which rows and models the attempt reads, and for whom; from here on they are what they are."""
        models = {"champion": champion, "challengers": list(challengers)}
        belong = {"watchlist": list(members.watchlist), "universe": members.universe}
        self._record |= {"recorded_by": stamp(recorded_by), **models, **belong, "universe_sha256": members.sha256}
        self._write()

    def make(self, now: np.datetime64) -> None:
        """Write down that the attempt's forecasts are made now; whoever goes on with it makes them then too."""
        self._record["made_at"] = stamp(now)
        self._write()

    @property
    def fixed(self) -> bool:
        """Whether it is decided what the attempt reads."""
        return self._record["recorded_by"] is not None

    @property
    def kept(self) -> Kept:
        """What the attempt reads, once that is `fixed`."""
        record = self._record
        made_at = np.datetime64("NaT", "us") if record["made_at"] is None else instant(record["made_at"])
        members = Members(tuple(record["watchlist"]), record["universe"], record["universe_sha256"])
        return Kept(
            session=self.session,
            champion=record["champion"],
            challengers=tuple(record["challengers"]),
            recorded_by=instant(record["recorded_by"]),
            made_at=made_at,
            members=members,
        )

    def finish(self) -> None:
        """Nothing is left to do."""
        self._record["state"] = "complete"
        self._write()

    def _write(self) -> None:
        replace_file(self._path, json.dumps(self._record, indent=1, allow_nan=False).encode())


def _attempt(begun_at: np.datetime64 | None) -> Result:
    """An attempt in which nothing is done."""
    nothing: Result = {"waits_for": "", "recorded_by": None, "made_at": None, "champion": None, "challengers": []}
    nobody: Result = {"watchlist": [], "universe": "", "universe_sha256": ""}
    return {
        "begun_at": None if begun_at is None else stamp(begun_at),
        **nothing,
        **nobody,
        "steps": {name: {"state": "open"} for name in STEPS},
    }


def folder_of(workspace: Workspace, session: np.datetime64) -> Path:
    """The folder of one night's files."""
    return workspace.folder / "nights" / str(session)


def night_of(workspace: Workspace, session: np.datetime64) -> Kept | None:
    """What the night after `session` was scored from; None where none was, or its last attempt broke off."""
    ledger = Ledger.open(workspace, session)
    return ledger.kept if ledger.fixed and not ledger.waits_for else None


def begun_nights(workspace: Workspace) -> Iterator[Ledger]:
    """Every night that has a ledger, the newest first. Folders of other names, a copy's say, are none."""
    found = {path.parent.name for path in (workspace.folder / "nights").glob(f"*/{FILE}")}
    for name in sorted(filter(NIGHT.fullmatch, found), reverse=True):
        yield Ledger.open(workspace, np.datetime64(name, "D"))


def sweep(folder: Path) -> None:
    """Remove what killed writers left in a night's folder: drafts of `replace_file`. For who holds the lock."""
    for draft in folder.glob(".*.*"):
        if draft.suffix[1:].isdecimal() and draft.is_file():
            draft.unlink(missing_ok=True)


def stamp(at: np.datetime64) -> str:
    """ISO 8601 with its offset."""
    return f"{at.astype('datetime64[us]')}+00:00"


def instant(text: str) -> np.datetime64:
    """The reverse of `stamp`."""
    return np.datetime64(text.removesuffix("+00:00"), "us")


def _read(path: Path) -> Result:
    try:
        record: Result = json.loads(path.read_bytes())
        if record["format"] != FORMAT or record["session"] != path.parent.name:
            raise ValueError(f"format {record['format']} of {record['session']}")
        _ = [record[name] for name in ("state", "earlier", *_attempt(None))]
        _ = [step["result"] for step in (record["steps"][name] for name in STEPS) if step["state"] == "done"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise LakeError(
            f"{path}: expected the ledger of a night, found: {error!r}. Restore it from a backup, or move its folder "
            "away: the night is then done anew, and its forecasts, which the lake holds already, are not added twice."
        ) from error
    return record
