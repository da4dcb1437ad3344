"""A chain of hashes over the nights: whether a forecast or a settlement was added, changed or removed later.

Each night's seal hashes the forecasts and settlements it found, what the night recorded of itself, and the seal
before. Every row belongs to exactly one seal: a settlement to its night's; a forecast to the first whose night decides
no earlier session and which was sealed no earlier than the row says it was recorded. So a replay that is written next
week joins next week's seal, while a row that claims to have been there last week breaks last week's.

Rows are hashed by their values in a fixed order, not as files: compaction, row order and library versions change no
hash. What this does not prove: whoever can rewrite the whole lake can rewrite the chain from some night on. Note the
newest hash elsewhere and hand it to `verify`.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from data.asof import first_decision
from data.calendar import sessions
from data.errors import LakeError
from data.lake import Lake
from data.packing import naive_utc
from data.scan import Span
from data.schemas import KEYS, SCHEMAS
from pipelines.dataset import session_of
from pipelines.workspace import Workspace

Ints = npt.NDArray[np.int64]

MICROSECOND = np.timedelta64(1, "us")

# What a seal covers. A column that a table gains later is not among them, or the seals before it would break.
SEALED = {
    "forecasts": (
        *("ticker", "target_session", "model_id", "data_version", "target", "decision_at", "made_at", "cutoff_at"),
        *("mean", "quantiles", "prob_up", "price", "price_low", "price_high"),
        *("available_at", "recorded_at", "origin", "standing"),
    ),
    "settlements": (
        *("target_session", "ticker", "model_id", "data_version", "target", "night", "outcome", "realised"),
        *("available_at", "recorded_at", "origin"),
    ),
}


@dataclass(frozen=True)
class Seal:
    """One night of the chain; `sha256` covers all the others. `sealed_at` is UTC."""

    night: np.datetime64
    target_session: np.datetime64
    forecasts: int
    forecasts_sha256: str
    settlements: int
    settlements_sha256: str
    record: str
    previous: str
    sealed_at: np.datetime64
    sha256: str

    def digest(self) -> str:
        """What `sha256` should be."""
        said = {name: value for name, value in vars(self).items() if name != "sha256"}
        stamps = {name: str(said[name]) for name in ("night", "target_session", "sealed_at")}
        return hashlib.sha256(json.dumps(said | stamps, sort_keys=True).encode()).hexdigest()

    @property
    def intact(self) -> bool:
        """Whether it says what it said when it was made."""
        return self.digest() == self.sha256

    def as_dict(self) -> dict[str, object]:
        """JSON-ready, without the record."""
        stamps = {name: str(getattr(self, name)) for name in ("night", "target_session", "sealed_at")}
        return {name: value for name, value in (vars(self) | stamps).items() if name != "record"}


def seal(workspace: Workspace, night: np.datetime64, record: dict[str, Any], now: np.datetime64) -> Seal:
    """Seal `night` (a session) with what the lake holds by `now` (UTC); the seal it has, where it has one.

    `record` is what the night says of itself: JSON-ready and finite. Raises LakeError where a later night is sealed
    already: a chain has no room in the middle.
    """
    exchange = sessions(workspace.config.calendar, workspace.config.decision)
    at = session_of(exchange, night)
    chain = read_seals(workspace.lake)
    stored = seal_for(chain, exchange.labels[at])
    if stored is not None:
        return stored
    before = chain[-1:]
    stamps = [now.astype("datetime64[us]"), *(seal.sealed_at for seal in before)]
    sealed_at: np.datetime64 = np.max(stamps)  # they ascend: see `seal_of`
    draft = Seal(
        night=exchange.labels[at],
        target_session=exchange.target[at],
        forecasts=0,
        forecasts_sha256="",
        settlements=0,
        settlements_sha256="",
        record=json.dumps(record, sort_keys=True, allow_nan=False),
        previous=before[0].sha256 if before else "",
        sealed_at=sealed_at,
        sha256="",
    )
    sealed = _filled(draft, *_of_tonight(workspace.lake, [*before, draft]))
    workspace.lake.merge("seals", _frame(sealed))
    return sealed


def seal_for(chain: list[Seal], night: np.datetime64) -> Seal | None:
    """The seal that a night (a session's label) has; None where it may get one.

    Raises LakeError where a later night is sealed and this one is not.
    """
    for stored in chain:
        if stored.night == night:
            return stored
    if chain and night < chain[-1].night:
        raise LakeError(
            f"{night}: expected a night after the last sealed one, found that {chain[-1].night} is sealed. A night "
            "that was passed over stays without a seal; score it with `tapewire score --as-of` as a replay."
        )
    return None


def first_free(lake: Lake, target_session: np.datetime64, now: np.datetime64) -> np.datetime64:
    """The first instant from `now` (UTC) on at which a forecast for `target_session` may be recorded.

    It is `now`, unless it would fall under a seal that is there: of a clock that was fast, or taken meanwhile.
    """
    seals = lake.frame("seals", ["target_session", "recorded_at"])
    if not (seals["target_session"].to_numpy(dtype="datetime64[D]") >= target_session).any():
        return now
    free: np.datetime64 = np.max([now.astype("datetime64[us]"), naive_utc(seals["recorded_at"]).max() + MICROSECOND])
    return free


def read_seals(lake: Lake) -> list[Seal]:
    """All seals by night, as they are stored; nothing is checked."""
    rows = lake.frame("seals").sort_values(["night", "sha256"], ignore_index=True)
    nights, targets = (rows[name].to_numpy(dtype="datetime64[D]") for name in ("night", "target_session"))
    sealed_at = naive_utc(rows["recorded_at"])
    texts = ("forecasts_sha256", "settlements_sha256", "record", "previous", "sha256")
    return [
        Seal(
            night=nights[at],
            target_session=targets[at],
            forecasts=int(row["forecasts"]),
            settlements=int(row["settlements"]),
            sealed_at=sealed_at[at],
            **{name: str(row[name]) for name in texts},
        )
        for at, row in enumerate(rows.to_dict("records"))
    ]


def seal_of(chain: list[Seal], target_session: Any, recorded_at: Any) -> Ints:
    """The position in `chain` of each forecast's seal, [rows]; len(chain) where none has it yet."""
    targets = np.array([seal.target_session for seal in chain], dtype="datetime64[D]")
    stamps = np.array([seal.sealed_at for seal in chain], dtype="datetime64[us]")
    # Seals ascend in both, so the first that is late enough in both is the later of the two firsts.
    by_session = np.searchsorted(targets, np.asarray(target_session, dtype="datetime64[D]"), side="left")
    return np.maximum(by_session, first_decision(recorded_at, stamps)).astype(np.int64)


def vouched(chain: list[Seal], target_session: Any, recorded_at: Any) -> npt.NDArray[np.bool_]:
    """Which forecasts, [rows], the seal of their own night has; or may have, where the night is after the last sealed.

    Any other was recorded after that seal, or its night has none: nothing but a clock says that it was made in time.
    """
    session = np.asarray(target_session, dtype="datetime64[D]")
    targets = np.array([seal.target_session for seal in chain], dtype="datetime64[D]")
    own = np.append(targets, np.datetime64("NaT"))[seal_of(chain, session, recorded_at)] == session
    to_come = np.searchsorted(targets, session) == len(chain)
    found: npt.NDArray[np.bool_] = own | to_come
    return found


def digest(rows: pa.Table, table: str) -> str:
    """sha256 of rows of `table` by their values, sorted by key: numbers as little-endian bytes, texts as UTF-8."""
    schema = pa.schema([SCHEMAS[table].field(name) for name in SEALED[table]])
    rows = rows.select(schema.names).cast(schema)
    rows = rows.take(pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in KEYS[table]]))
    hashed = hashlib.sha256(json.dumps([table, rows.num_rows, schema.names]).encode())
    for name in schema.names:
        for part in _packed(rows[name].combine_chunks()):
            hashed.update(part)
    return hashed.hexdigest()


def _packed(column: pa.Array) -> Iterator[bytes]:
    """A column's values as bytes that say the same whatever library wrote them. A missing value is its own value."""
    kind = column.type
    yield np.asarray(column.is_null().to_numpy(zero_copy_only=False), dtype="u1").tobytes()
    if pa.types.is_list(kind):
        yield pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype("<i8").tobytes()
        yield from _packed(pc.list_flatten(column))
    elif pa.types.is_string(kind):
        texts = [value.encode() for value in pc.fill_null(column, "").to_pylist()]
        yield np.array([len(text) for text in texts], dtype="<i8").tobytes()
        yield b"".join(texts)
    elif pa.types.is_floating(kind):
        values = pc.fill_null(column, 0.0).to_numpy(zero_copy_only=False).astype("<f8")
        yield np.where(np.isnan(values), np.nan, values).astype("<f8").tobytes()  # one NaN of the many there are
    else:
        whole = column.cast(pa.int32()) if pa.types.is_date32(kind) else column
        yield pc.fill_null(whole.cast(pa.int64()), 0).to_numpy(zero_copy_only=False).astype("<i8").tobytes()


def _of_tonight(lake: Lake, chain: list[Seal]) -> tuple[pa.Table, pa.Table]:
    """The forecasts and settlements of the chain's last seal; `chain` is it, and the one before where there is one.

    What no earlier seal can have: rows for this session, and rows recorded since the last seal.
    """
    last = chain[-1]
    if len(chain) == 1:
        spans = [Span("target_session", last=last.target_session)]
    else:
        spans = [
            Span("target_session", chain[0].target_session + 1, last.target_session),
            Span("recorded_at", chain[0].sealed_at, last.sealed_at),
        ]
    parts = [lake.read("forecasts", within=span) for span in spans]
    if len(parts) == 2:  # what the second has of the first's sessions is there already
        parts[1] = parts[1].filter(pc.less_equal(parts[1]["target_session"], chain[0].target_session.item()))
    rows = pa.concat_tables(parts)
    return _under(rows, chain, len(chain) - 1), lake.read("settlements", within=Span("night", last.night, last.night))


def _under(rows: pa.Table, chain: list[Seal], position: int) -> pa.Table:
    return rows.filter(pa.array(places(rows, chain) == position))


def places(rows: pa.Table, chain: list[Seal]) -> Ints:
    """`seal_of` for rows that have both columns."""
    recorded_at = naive_utc(rows["recorded_at"].to_pandas())
    return seal_of(chain, rows["target_session"].to_numpy(), recorded_at)


def _filled(draft: Seal, forecasts: pa.Table, settlements: pa.Table) -> Seal:
    hashes = {"forecasts_sha256": digest(forecasts, "forecasts")}
    hashes["settlements_sha256"] = digest(settlements, "settlements")
    filled = Seal(**(vars(draft) | hashes | {"forecasts": len(forecasts), "settlements": len(settlements)}))
    return Seal(**(vars(filled) | {"sha256": filled.digest()}))


def _frame(sealed: Seal) -> pd.DataFrame:
    stamp = pd.Timestamp(sealed.sealed_at, tz="UTC")
    dates = {name: np.datetime64(getattr(sealed, name), "s") for name in ("night", "target_session")}
    row = vars(sealed) | dates | {"available_at": stamp, "recorded_at": stamp, "origin": "live"}
    return pd.DataFrame([row])
