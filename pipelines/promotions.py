"""Which model is champion, which challenge it, and since when: `runs/promotions.json`, a list that only grows.

The champion at an instant is the one whose promotion was known then, so a past night finds its own. Whether a model
can be loaded is not checked here. A workspace of the first format has `runs/current` instead: a champion since ever.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from data.asof import known
from data.errors import LockedError, ModelError
from pipelines.workspace import replace_file

Role = Literal["champion", "challenger", "retired"]
By = Literal["train", "promote", "rollback", "challenge", "retire"]

FILE = "promotions.json"
CURRENT = "current"  # the first format's pointer
EVER = np.datetime64("1970-01-01T00:00:00", "us")
ID = re.compile(r"[0-9a-f]{16}")
WAIT = 30.0  # seconds; whoever holds the lock writes one small file


@dataclass(frozen=True)
class Promotion:
    """From `at` (UTC) on, `model_id` has `role`; `by` says how it came by it."""

    model_id: str
    role: Role
    at: np.datetime64
    by: By

    def as_dict(self) -> dict[str, str]:
        """As it stands in the file."""
        return {"model_id": self.model_id, "role": self.role, "at": f"{self.at}+00:00", "by": self.by}


@dataclass(frozen=True)
class Promotions:
    """All that was ever decided, oldest first. `at` None means by now: all of it."""

    runs: Path
    events: tuple[Promotion, ...]

    @classmethod
    def read(cls, runs: Path) -> "Promotions":
        """What `runs` holds, nothing where there is no file. Raises ModelError where the file is not one of ours."""
        path = runs / FILE
        if path.exists():
            return cls(runs, _parse(path, path.read_bytes()))
        pointer = runs / CURRENT
        if not pointer.exists():
            return cls(runs, ())
        model_id = pointer.read_text(errors="replace").strip()
        event = {"model_id": model_id, "role": "champion", "at": f"{EVER}+00:00", "by": "train"}
        return cls(runs, _parse(pointer, json.dumps([event]).encode()))

    def champion(self, at: np.datetime64 | None = None) -> str:
        """The champion at an instant (UTC). Raises ModelError where there was none yet."""
        champions = self._champions(at)
        if not champions:
            when = "" if at is None else f" on {at}"
            raise ModelError(
                f"{self.runs}: expected a trained model as champion{when}, found none. "
                "Make one with `tapewire train`, or choose one with `tapewire models promote ID`."
            )
        return champions[-1]

    @property
    def has_champion(self) -> bool:
        """Whether there is one by now."""
        return self.has_champion_at(None)

    def has_champion_at(self, at: np.datetime64 | None) -> bool:
        """Whether there was one at an instant (UTC)."""
        return bool(self._champions(at))

    def challengers(self, at: np.datetime64 | None = None) -> tuple[str, ...]:
        """Those that challenge the champion at an instant, the oldest challenge first."""
        roles = {event.model_id: event.role for event in self._known(at)}
        return tuple(model_id for model_id, role in roles.items() if role == "challenger")

    def role(self, model_id: str, at: np.datetime64 | None = None) -> Role | None:
        """A model's role; a champion that another followed is retired. None where nothing was decided of it."""
        champions = self._champions(at)
        if champions and champions[-1] == model_id:
            return "champion"
        roles = {event.model_id: event.role for event in self._known(at)}
        return "retired" if roles.get(model_id) == "champion" else roles.get(model_id)

    def since(self, model_id: str) -> np.datetime64 | None:
        """When the newest decision of a model was made (UTC); None where there is none."""
        return next((event.at for event in reversed(self.events) if event.model_id == model_id), None)

    def before(self) -> str:
        """The champion that a rollback returns to. Raises ModelError where there is none."""
        champions = self._champions(None)
        if len(champions) < 2:
            raise ModelError(
                f"{self.runs}: expected a champion before the present one, found none. "
                "Choose a model with `tapewire models promote ID`; `tapewire models list` names them."
            )
        return champions[-2]

    def _known(self, at: np.datetime64 | None) -> tuple[Promotion, ...]:
        if at is None:
            return self.events
        return tuple(event for event in self.events if known([event.at], at)[0])

    def _champions(self, at: np.datetime64 | None) -> list[str]:
        """Champions one after the other, as a stack: a rollback takes the last one off, a retired one is no more."""
        stack: list[str] = []
        for event in self._known(at):
            if event.by == "rollback":
                del stack[-1:]
            if event.role == "champion" and stack[-1:] != [event.model_id]:
                stack.append(event.model_id)
            if event.role == "retired":
                left = [model_id for model_id in stack if model_id != event.model_id]
                stack = [model_id for model_id, _ in groupby(left)]  # who stood before and after it followed nobody
        return stack


def promote(runs: Path, model_id: str, now: np.datetime64) -> Promotions:
    """Make a model the champion from `now` (UTC) on; nothing changes where it is already. The whole list."""
    with _changing(runs) as before:
        if before.role(model_id) == "champion":
            return before
        return _append(before, Promotion(model_id, "champion", now, "promote"))


def enter(runs: Path, model_id: str, now: np.datetime64, champion: bool) -> Promotions:
    """Give a trained model its role: champion where `champion` or where there is none yet, else challenger.

    One that challenges or is champion stays what it is.
    """
    with _changing(runs) as before:
        role = before.role(model_id)
        if role == "champion" or (role == "challenger" and not champion):
            return before
        first = champion or not before.has_champion
        return _append(before, Promotion(model_id, "champion" if first else "challenger", now, "train"))


def rollback(runs: Path, now: np.datetime64) -> Promotions:
    """Make the champion before the present one champion again. Raises ModelError where there is none."""
    with _changing(runs) as before:
        return _append(before, Promotion(before.before(), "champion", now, "rollback"))


def challenge(runs: Path, model_id: str, now: np.datetime64) -> Promotions:
    """Let a model challenge the champion: scored every night, never published. Raises ModelError for the champion."""
    with _changing(runs) as before:
        return _lower(before, Promotion(model_id, "challenger", now, "challenge"))


def retire(runs: Path, model_id: str, now: np.datetime64) -> Promotions:
    """Take a model out of the nightly job; its folder and forecasts stay. Raises ModelError for the champion."""
    with _changing(runs) as before:
        return _lower(before, Promotion(model_id, "retired", now, "retire"))


def _lower(before: Promotions, event: Promotion) -> Promotions:
    if before.role(event.model_id) == "champion":
        raise ModelError(
            f"{event.model_id}: expected a model that is not the champion, found the champion. "
            "Promote another first, or go back with `tapewire models rollback`."
        )
    said = [each.role for each in before.events if each.model_id == event.model_id]
    return before if said[-1:] == [event.role] else _append(before, event)


@contextmanager
def _changing(runs: Path) -> Iterator[Promotions]:
    """The list as it stands, which nobody else changes meanwhile."""
    runs.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(runs / ".promotions.lock", timeout=WAIT):
            for left in runs.glob(f".{FILE}.*"):  # of a killed change
                left.unlink()
            yield Promotions.read(runs)
            if (runs / FILE).exists():
                (runs / CURRENT).unlink(missing_ok=True)  # it is the first line of the list by now
    except Timeout:
        raise LockedError(f"{runs}: another process is changing {FILE}. Try again.") from None


def _append(before: Promotions, event: Promotion) -> Promotions:
    if not ID.fullmatch(event.model_id):
        raise ModelError(
            f"{event.model_id}: expected a model's id, 16 hexadecimal digits. `tapewire models list` names them."
        )
    after = Promotions(before.runs, (*before.events, event))
    lines = ",\n".join(f" {json.dumps(each.as_dict())}" for each in after.events)
    replace_file(before.runs / FILE, f"[\n{lines}\n]\n".encode())
    return after


def _parse(path: Path, content: bytes) -> tuple[Promotion, ...]:
    try:
        return tuple(_promotion(event) for event in json.loads(content))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{path}: expected what Tapewire wrote of promotions, found: {error!r}. "
            "Restore it, or remove it and choose the champion with `tapewire models promote ID`."
        ) from error


def _promotion(event: dict[str, str]) -> Promotion:
    model_id, role, at, by = (str(event[key]) for key in ("model_id", "role", "at", "by"))
    instant = pd.Timestamp(at)
    if not ID.fullmatch(model_id) or role not in get_args(Role) or by not in get_args(By) or instant.tzinfo is None:
        raise ValueError(event)
    utc = np.datetime64(instant.tz_convert("UTC").tz_localize(None), "us")
    return Promotion(model_id, cast(Role, role), utc, cast(By, by))
