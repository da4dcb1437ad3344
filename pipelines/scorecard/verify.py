"""Whether the lake still holds what every night sealed: `tapewire verify`. Reads, and changes nothing.

Each night is counted and hashed again from the tables. What it proves and what not: see `seal.py`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from data.asof import Instants, known
from data.calendar import Labels, Sessions, sessions
from data.errors import ConfigError
from data.lake import Lake
from data.packing import naive_utc
from data.scan import Span
from data.schemas import KEYS, SCHEMAS
from pipelines.config import TapewireConfig
from pipelines.scorecard.seal import Ints, Seal, digest, places, read_seals, vouched
from pipelines.workspace import Workspace

BLOCK = 50  # nights read at a time
SHORTEST_HEAD = 12  # characters of a hash that are told apart


@dataclass(frozen=True)
class Finding:
    """What is not as it was sealed. `night` is NaT where it is about no single night."""

    night: np.datetime64
    what: str

    def as_dict(self) -> dict[str, str | None]:
        """JSON-ready."""
        return {"night": None if np.isnat(self.night) else str(self.night), "what": self.what}


@dataclass(frozen=True)
class Verified:
    """What was recomputed, and the findings by night, the first first.

    `unsealed` rows await the next night's seal. `unproven` forecasts say live and are not under the seal of their own
    night: no card counts them.
    """

    nights: int
    forecasts: int
    settlements: int
    unsealed: int
    unproven: int
    head: str
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """0 intact, 3 with a finding."""
        return 3 if self.findings else 0

    def as_dict(self) -> dict[str, object]:
        """The contract of `verify --json`."""
        return {
            "intact": not self.findings,
            "nights": self.nights,
            "forecasts": self.forecasts,
            "settlements": self.settlements,
            "unsealed": self.unsealed,
            "unproven": self.unproven,
            "head": self.head,
            "findings": [finding.as_dict() for finding in self.findings],
        }

    def lines(self) -> list[str]:
        """For a person: the verdict, then the findings."""
        under = f"{self.nights} nights, {self.forecasts} forecasts and {self.settlements} settlements"
        if not self.findings:
            waiting = f" {self.unsealed} later rows await the next seal." if self.unsealed else ""
            unproven = f" {self.unproven} say live and no card counts them: unproven." if self.unproven else ""
            return [f"Intact: {under} are as they were sealed.{waiting}{unproven}", f"Head: {self.head or 'none yet'}"]
        where = [f"  {finding.night}: {finding.what}".replace("NaT", "chain") for finding in self.findings]
        return [f"Not intact: of {under}, this differs from what was sealed:", *where]


def verify(workspace: Workspace, head: str | None = None) -> Verified:
    """Recompute every seal from the lake. With `head`, a hash noted earlier, the chain must still hold it.

    `head` may be cut to its first SHORTEST_HEAD characters; ConfigError where it is shorter.
    """
    if head is not None and len(head) < SHORTEST_HEAD:
        raise ConfigError(f"--head {head}: expected at least {SHORTEST_HEAD} characters of a seal's sha256.")
    lake = workspace.lake
    chain = read_seals(lake)
    dates = lake.read("forecasts", ["target_session", "recorded_at", "standing"])
    place = places(dates, chain)
    live = dates.filter(pc.equal(dates["standing"], "live"))
    session, recorded_at = live["target_session"].to_numpy(), naive_utc(live["recorded_at"].to_pandas())
    findings = [*_chain_findings(chain), *_head_findings(chain, head)]
    findings += _late_findings(chain, workspace.config, session, recorded_at)
    findings += _forecast_findings(lake, chain, dates["target_session"].to_numpy(), place)
    findings += [*_settlement_findings(lake, chain), *_doubt_findings(lake)]
    nights = lake.frame("settlements", ["night"])["night"]
    later = nights > pd.Timestamp(chain[-1].night) if chain else nights.notna()
    ordered = sorted(findings, key=lambda finding: (np.isnat(finding.night), finding.night))
    return Verified(
        nights=len(chain),
        forecasts=int((place < len(chain)).sum()),
        settlements=int((~later).sum()),
        unsealed=int((place == len(chain)).sum() + later.sum()),
        unproven=int((~vouched(chain, session, recorded_at)).sum()),
        head=chain[-1].sha256 if chain else "",
        findings=tuple(ordered),
    )


def _chain_findings(chain: list[Seal]) -> Iterator[Finding]:
    for seal in chain:
        if not seal.intact:
            yield Finding(seal.night, "the seal itself was changed: its hash is not that of what it says")
    if chain and chain[0].previous:
        yield Finding(chain[0].night, "the chain does not begin here: a seal before it was removed")
    for before, after in pairwise(chain):
        if before.night == after.night:
            yield Finding(after.night, "the night has two seals: one was added")
        elif after.previous != before.sha256:
            between = f"a seal after {before.night} was removed, or that one was replaced"
            yield Finding(after.night, f"the chain is broken: {between}")


def _head_findings(chain: list[Seal], head: str | None) -> Iterator[Finding]:
    if head is not None and not any(seal.sha256.startswith(head.lower()) for seal in chain):
        what = f"no seal has the noted hash {head}: seals were removed or written anew"
        yield Finding(np.datetime64("NaT", "D"), what)


def _late_findings(
    chain: list[Seal], config: TapewireConfig, session: Labels, recorded_at: Instants
) -> Iterator[Finding]:
    """Live forecasts, of which these are target and stamp, that were recorded after their session had opened."""
    sealed = np.array([seal.target_session for seal in chain], dtype="datetime64[D]")
    exchanges = [*(_exchange(seal, config) for seal in chain), sessions(config.calendar, config.decision)]
    order = np.argsort(session, kind="stable")
    targets, starts = np.unique(session[order], return_index=True)
    of_target = np.split(order, starts[1:])  # of no target there is one empty part
    for target, number, rows in zip(targets, np.searchsorted(sealed, targets), of_target, strict=False):
        exchange = exchanges[number]
        at = int(exchange.index([target])[0])
        if at < 0:  # of another calendar
            continue
        late = int((~known(recorded_at[rows], exchange.opens[at])).sum())
        if late:
            what = f"{late} forecasts say live and were recorded after the session had opened"
            yield Finding(exchange.labels[at - 1], what)


def _exchange(seal: Seal, config: TapewireConfig) -> Sessions:
    """The sessions by which the night decided; those of `config` where its record does not say."""
    said = json.loads(seal.record) if seal.intact else {}
    return sessions(said.get("calendar", config.calendar), said.get("decision", config.decision))


def _forecast_findings(lake: Lake, chain: list[Seal], target_session: object, place: Ints) -> Iterator[Finding]:
    """The nights whose forecasts are not those that were sealed. `place` is the seal of each stored row."""
    session = np.asarray(target_session, dtype="datetime64[D]")
    for first in range(0, len(chain), BLOCK):
        block = range(first, min(first + BLOCK, len(chain)))
        wanted = session[(place >= block.start) & (place < block.stop)]
        span = Span("target_session", wanted.min(), wanted.max()) if len(wanted) else None
        rows = lake.read("forecasts", within=span) if span else SCHEMAS["forecasts"].empty_table()
        of_row = places(rows, chain)
        for position in block:
            found = rows.filter(pa.array(of_row == position))
            seal = chain[position]
            yield from _compared(seal.night, found, "forecasts", seal.forecasts, seal.forecasts_sha256)


def _settlement_findings(lake: Lake, chain: list[Seal]) -> Iterator[Finding]:
    if not chain:
        return
    rows = lake.read("settlements", within=Span("night", last=chain[-1].night))
    night = rows["night"].to_numpy().astype("datetime64[D]")
    for seal in chain:
        found = rows.filter(pa.array(night == seal.night))
        yield from _compared(seal.night, found, "settlements", seal.settlements, seal.settlements_sha256)
    sealed = np.array([seal.night for seal in chain])
    for stray in np.unique(night[~np.isin(night, sealed)]):
        yield Finding(stray, f"{int((night == stray).sum())} settlements of a night that has no seal: they were added")


def _doubt_findings(lake: Lake) -> Iterator[Finding]:
    """Settlements that no night's seal would miss: of no night, or of what another settlement is there for."""
    key = list(KEYS["settlements"])
    rows = lake.read("settlements", [*key, "night"])
    if nameless := rows["night"].null_count:
        yield Finding(np.datetime64("NaT", "D"), f"{nameless} settlements name no night: they were added")
    counted = rows.group_by(key).aggregate([("night", "count"), ("night", "max")])
    twice = counted.filter(pc.greater(counted["night_count"], 1))
    for night, number in zip(*np.unique(twice["night_max"].to_numpy(), return_counts=True), strict=True):
        yield Finding(night, f"{number} settlements are of forecasts that were settled before: one of each was added")


def _compared(night: np.datetime64, rows: pa.Table, table: str, count: int, sha256: str) -> Iterator[Finding]:
    """One finding where the rows are not those that were sealed: how many are too many or too few, or that as many
    are there with other values.
    """
    if len(rows) == count and digest(rows, table) == sha256:
        return
    twice = len(rows) - rows.group_by(list(KEYS[table])).aggregate([]).num_rows
    if len(rows) > count:
        what = f"{len(rows) - count} {table} were added"
    elif len(rows) < count:
        what = f"{count - len(rows)} {table} were removed"
    else:
        what = f"{table} were changed, or as many added as removed"
    doubled = f", {twice} have a key that another has" if twice else ""
    yield Finding(night, f"{what} ({count} were sealed, {len(rows)} are there{doubled})")
