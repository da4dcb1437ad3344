"""Upkeep of the lake's tables: many small files become one, and files that no table holds any more are deleted.

A night adds a few small files to each table, and every look-up opens them all. Here the small ones are written again
as one, its rows in an order that keeps together what is looked up together; large ones are left as they are, so that
the cost follows what was added and not what is stored. The rows stay the same: past states are read by time.

Each step is one Delta commit. A kill leaves at most a file that no table holds; it is deleted once it is older than
`RETENTION`. What another process commits meanwhile stands: the step is then taken anew.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.transaction import AddAction, CommitProperties, RemoveAction

from data import scan
from data.lake import ROW_GROUP, Lake, readable, system_errors, version_keys
from data.migrations import projection, upgrade
from data.schemas import KEYS, SCHEMAS

FEW = 16  # small files that are left alone
SMALL = 16 << 20  # bytes: a file of that size is written no more
AT_ONCE = 32 << 20  # bytes of small files that become one; in memory some ten times as much
PATIENCE = 5  # commits of others in the midst of it before a table is left as it is
RETENTION = timedelta(days=7)  # how long a reader may go on with files that were replaced

# Delta would let two such commits pass that replace the same files: every row twice.
_ONCE = CommitProperties(max_commit_retries=0)
_MILLISECOND = timedelta(milliseconds=1)

_YEAR_OF = {"bars": "session", "actions": "ex_date"}
_INSTANT_OF = {"headlines": "available_at", "links": "available_at"}


@dataclass(frozen=True)
class Maintained:
    """Small files that became one or a few, and unused files that were deleted, by table; tables of none are absent."""

    merged: dict[str, int]
    deleted: dict[str, int]


def maintain(lake: Lake, now: np.datetime64) -> Maintained:
    """Merge the small files of each table that has more than a few, and delete what was replaced long ago.

    Raises OSError where the disk is full; the rows are there still. `now`, UTC, is when files count as replaced.
    """
    merged, deleted = {}, {}
    for table in SCHEMAS:
        with suppress(TableNotFoundError), system_errors():
            folder = lake.folder / table
            merged[table] = _merge_small(folder, table, now)
            deleted[table] = _delete_unused(DeltaTable(str(folder)))
    return Maintained(*({table: count for table, count in counts.items() if count} for counts in (merged, deleted)))


def _merge_small(folder: Path, table: str, now: np.datetime64) -> int:
    """How many files are no more."""
    merged = lost = 0
    target = DeltaTable(str(folder))
    while lost < PATIENCE and len(small := _small_files(target)) > FEW:
        sizes = accumulate(size for _, size in small)
        part = [path for path, _ in small[: max(2, sum(size <= AT_ONCE for size in sizes))]]
        if _merge(upgrade(target, table), folder, table, part, now):
            merged += len(part)
        else:
            lost += 1
        target = DeltaTable(str(folder))
    if merged:
        target.create_checkpoint()  # opening the table then reads none of the commits before
        target.cleanup_metadata()  # those of 30 days ago are deleted
    return merged


def _small_files(target: DeltaTable) -> list[tuple[str, int]]:
    """Path and bytes of each, the oldest first."""
    files = pa.table(target.get_add_actions(flatten=True)).select(["modification_time", "path", "size_bytes"])
    rows = files.sort_by([("modification_time", "ascending"), ("path", "ascending")]).to_pylist()
    return [(row["path"], row["size_bytes"]) for row in rows if row["size_bytes"] < SMALL]


def _merge(target: DeltaTable, folder: Path, table: str, part: Sequence[str], now: np.datetime64) -> bool:
    """Replace the files `part` by one of the same rows, in one commit; False where another was made meanwhile."""
    schema = SCHEMAS[table]
    with readable(str(folder)):
        rows = scan.files(target, table, part).to_table(columns=projection(table, schema.names)).cast(schema)
    new = folder / f"part-00000-{uuid4()}-c000.snappy.parquet"
    at = int(now.astype("datetime64[ms]").astype(np.int64))
    removed = [RemoveAction(path, data_change=False, deletion_timestamp=at) for path in part]
    try:
        pq.write_table(_in_order(rows, table), new, compression="snappy", row_group_size=ROW_GROUP)
        added = AddAction(new.name, new.stat().st_size, {}, at, data_change=False, stats=_statistics(rows, table))
        target.create_write_transaction([*removed, added], "append", target.schema(), commit_properties=_ONCE)
    except Exception as error:
        if _holds(folder, new.name):
            return True
        new.unlink(missing_ok=True)
        if not isinstance(error, CommitFailedError):
            raise
        return False
    return True


def _holds(folder: Path, name: str) -> bool:
    """Whether that file is one of the table's: a commit may stand although what followed it failed."""
    return any(path.endswith(name) for path in DeltaTable(str(folder)).file_uris())


def _in_order(rows: pa.Table, table: str) -> pa.Table:
    """By key and version; before them bars and actions by year, headlines and their links by instant.

    A look-up wants a few tickers of one year, a decision the latest headlines.
    """
    keys = rows.select(version_keys(table))
    if table in _YEAR_OF:
        keys = keys.add_column(0, "first", pc.year(rows[_YEAR_OF[table]]))
    if table in _INSTANT_OF:
        keys = keys.add_column(0, "first", rows[_INSTANT_OF[table]])
    order = pc.sort_indices(keys, [(name, "ascending") for name in keys.column_names])
    return rows.combine_chunks().take(order)


def _statistics(rows: pa.Table, table: str) -> str:
    """What Delta's log says of a file of these rows: how many, and the ends of what they are looked up by."""
    names = [field.name for field in SCHEMAS[table] if pa.types.is_temporal(field.type) or field.name in KEYS[table]]
    ends = {name: pc.min_max(rows[name]).as_py() for name in names}
    least = {name: _text(end["min"], timedelta(0)) for name, end in ends.items() if end["min"] is not None}
    greatest = {name: _text(end["max"], _MILLISECOND) for name, end in ends.items() if end["max"] is not None}
    nulls = {name: rows[name].null_count for name in names}
    return json.dumps({"numRecords": len(rows), "minValues": least, "maxValues": greatest, "nullCount": nulls})


def _text(end: str | date, slack: timedelta) -> str:
    """Instants to the millisecond, as Delta has them; the last of them not too early."""
    if isinstance(end, datetime):
        return (end + slack).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return end if isinstance(end, str) else end.isoformat()


def _delete_unused(target: DeltaTable) -> int:
    """Files that the table did not hold for as long as `RETENTION`; how many were deleted."""
    hours = int(RETENTION.total_seconds()) // 3600
    if not target.vacuum(hours, dry_run=True, enforce_retention_duration=False, full=True):
        return 0
    return len(target.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=True))
