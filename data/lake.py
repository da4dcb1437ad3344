"""The store: Delta tables in one folder, appended to and never overwritten.

Nothing here knows what a bar or a headline means. `merge` inserts rows whose key is new and `revise` those that
differ from what is stored, so writing the same rows twice adds none, and each call is one atomic Delta commit: a
killed process leaves the last commit readable. Past states are read by time (`as_of`), never by Delta version.

What a batch is compared with is found by the least and the greatest of its keys: the statistics of files and of row
groups say where those lie. Rows that are written in an order that keeps neighbours together are found fast.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from data import scan
from data.asof import known
from data.errors import LakeError
from data.migrations import upgrade
from data.scan import Span
from data.schemas import KEYS, SCHEMAS

ROW_GROUP = 1 << 16  # rows: 250 tickers by the sessions of a year; what one lookup reads at least
CHECKPOINT = "20"  # commits: what opening a table reads one by one at most; Delta's 100 cost twice the time a merge

_ODD = re.compile(r"[\[\]|^\\\x00-\x1f\x7f]|%[0-9a-fA-F]{2}")  # in a path: deltalake takes it for an address

Batches = Callable[[], Iterable[pd.DataFrame]]


class Lake:
    """The tables of `data.schemas` under one folder; a table not yet written reads as empty.

    Raises LakeError for a folder that Delta Lake would not find again under its name.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        if odd := _ODD.search(str(self.folder.absolute())):
            raise LakeError(
                f"{self.folder.absolute()}: expected a folder that Delta Lake can write, found {odd[0]!r} in its path: "
                "none may have one of []|^\\ in it, a % before two hexadecimal digits, or a control character. "
                "Rename or move the folder."
            )

    def read(self, table: str, columns: list[str] | None = None, within: Span | None = None) -> pa.Table:
        """Every row and version of `table`, or those `within` alone, in no particular order."""
        names = columns or SCHEMAS[table].names
        stored = self._opened(table, names, lambda target: scan.read(target, table, names, within))
        return stored.cast(pa.schema([SCHEMAS[table].field(name) for name in names]))

    def frame(self, table: str, columns: list[str] | None = None, within: Span | None = None) -> pd.DataFrame:
        """`read` as a DataFrame; instants are tz-aware UTC, dates are `datetime64`."""
        return to_frame(self.read(table, columns, within))

    def coded(
        self, table: str, columns: list[str], firsts: Sequence[str] = (), within: Span | None = None
    ) -> pd.DataFrame:
        """`frame` for millions of rows: strings as categories, and no column held twice.

        With `firsts` only the rows whose first key column is one of these.
        """
        strings = [name for name in columns if pa.types.is_string(SCHEMAS[table].field(name).type)]

        def found(target: DeltaTable) -> pa.Table:
            if not firsts:
                return scan.read(target, table, columns, within, strings)
            return scan.scan(target, table, columns, [within] if within else [], _firsts(table, firsts)).to_table()

        rows = self._opened(table, columns, found)
        for name in strings:
            coded = rows[name] if pa.types.is_dictionary(rows[name].type) else rows[name].dictionary_encode()
            rows = rows.set_column(columns.index(name), name, coded)
        return to_frame(rows.unify_dictionaries(), split_blocks=True, self_destruct=True)

    def distinct(self, table: str, column: str, firsts: Sequence[str]) -> pd.DataFrame:
        """What `column` holds for each of `firsts`, which are values of the first key column; once each, all versions.

        The table is streamed.
        """
        names = [KEYS[table][0], column]

        def found(target: DeltaTable) -> pa.Table:
            batches = scan.scan(target, table, names, among=_firsts(table, firsts)).to_batches()
            parts = [pa.Table.from_batches([batch]).group_by(names).aggregate([]) for batch in batches]
            return pa.concat_tables([*parts, SCHEMAS[table].empty_table().select(names)])

        return to_frame(self._opened(table, names, found).group_by(names).aggregate([]))

    def greatest(self, table: str, column: str) -> np.datetime64:
        """The last date in a date column, NaT where there is none; no row is read."""
        ends = self._opened(table, [column], lambda target: scan.ends(target, table, column))[column]
        return np.datetime64(pc.max(ends).as_py(), "D")

    def current(self, table: str, as_of: Any = None, recorded_by: Any = None) -> pd.DataFrame:
        """The newest version of each key among the rows known at `as_of` and recorded by `recorded_by`.

        Either may be None: no limit. Sorted by key.
        """
        rows = self.frame(table)
        if as_of is not None:
            rows = rows[known(rows["available_at"], as_of)]
        if recorded_by is not None:
            rows = rows[known(rows["recorded_at"], recorded_by)]
        return newest(rows, table)

    def current_among(self, table: str, keys: "pd.Series[str]", values: list[str], as_of: Any = None) -> pd.DataFrame:
        """`current` of those rows alone whose first key column is one of `keys`, with the columns `values`.

        The table is streamed, so that storing a batch costs the memory of the batch whatever the lake holds.
        """
        names = list(dict.fromkeys([*version_keys(table), *values, *(["available_at"] if as_of is not None else [])]))
        wanted = _firsts(table, keys.unique())
        stored = self._opened(table, names, lambda target: _rows_among(target, table, wanted, names))
        rows = to_frame(stored)
        return newest(rows if as_of is None else rows[known(rows["available_at"], as_of)], table)

    def merge(self, table: str, rows: pd.DataFrame) -> int:
        """Insert the rows whose key (with its version, where the table has one) is not stored yet.

        Returns how many were inserted. The whole call is one commit, and none where nothing is new. Two
        processes may do it at once: what one looked up is only committed if no other has committed since.
        Raises OSError where the disk is full.
        """
        if rows.empty:
            return 0
        source = _as_table(rows, table)
        return self._append(table, lambda target: iter([_without_stored(target, table, source)]))

    def revise(
        self,
        table: str,
        batches: Batches,
        values: list[str],
        stamp: Callable[[pd.DataFrame], pd.DataFrame],
        tolerance: float = 0.0,
    ) -> int:
        """Insert the rows of `batches` that are new or differ from the newest stored in `values` (see `revisions`).

        Returns how many. `batches` share no key and lack the version; `stamp` completes those to be stored, and gives
        them the order in which they are written. All of it is one commit, and none where nothing is new; no more than
        a batch is held. If another process commits meanwhile, `batches` is called again.
        """
        names = [*version_keys(table), *values]

        if all(rows.empty for rows in batches()):
            return 0

        def changed(target: DeltaTable) -> Iterator[pa.Table]:
            for rows in batches():
                if not rows.empty:
                    keys = _as_table(rows, table, KEYS[table])
                    stored = newest(to_frame(_rows_among(target, table, keys, names)), table)
                    yield _as_table(stamp(revisions(stored, rows, table, values, tolerance)), table)

        return self._append(table, changed)

    def _append(self, table: str, changed: Callable[[DeltaTable], Iterator[pa.Table]]) -> int:
        """Write the rows that `changed` gives for the table's present state; how many. Again, if that state is past."""
        schema = SCHEMAS[table]
        while True:
            with system_errors():
                target = upgrade(self._made(table), table)
            counted = _Counted(rows for rows in changed(target) if rows.num_rows)
            first = list(islice(counted, 1))
            if not first:
                return 0
            batches = (batch for rows in chain(first, _ahead(counted)) for batch in rows.to_batches())
            try:
                with system_errors():
                    write_deltalake(
                        target,
                        pa.RecordBatchReader.from_batches(schema, batches),
                        mode="append",
                        writer_properties=WriterProperties(max_row_group_size=ROW_GROUP, compression="SNAPPY"),
                        commit_properties=CommitProperties(max_commit_retries=0),
                    )
            except CommitFailedError:
                if DeltaTable(self._path(table)).version() == target.version():
                    raise
            else:
                return counted.rows

    def count(self, table: str) -> int:
        """Rows of `table`, all versions."""
        try:
            return int(DeltaTable(self._path(table)).count())
        except TableNotFoundError:
            return 0

    def _path(self, table: str) -> str:
        return str(self.folder / table)

    def _made(self, table: str) -> DeltaTable:
        try:
            return DeltaTable(self._path(table))
        except TableNotFoundError:
            return DeltaTable.create(
                self._path(table), SCHEMAS[table], mode="ignore", configuration={"delta.checkpointInterval": CHECKPOINT}
            )

    def _opened(self, table: str, names: list[str], found: Callable[[DeltaTable], pa.Table]) -> pa.Table:
        """What `found` reads of the table; no rows where it is not written yet."""
        try:
            with readable(self._path(table)):
                return found(DeltaTable(self._path(table)))
        except TableNotFoundError:
            return SCHEMAS[table].empty_table().select(names)


@contextmanager
def readable(path: str) -> Iterator[None]:
    """What is wrong with a table's files is a LakeError."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise LakeError(f"{path}: expected a readable Delta table, found: {error}") from error


@contextmanager
def system_errors() -> Iterator[None]:
    """What the system refuses, such as a full disk, is an OSError with its number; deltalake has it as its own."""
    try:
        yield
    except (DeltaError, OSError) as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None or isinstance(error, CommitFailedError):
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def version_keys(table: str) -> list[str]:
    """What no two rows share: the key, with the version where the table has one."""
    return [*KEYS[table], *(["version"] if "version" in SCHEMAS[table].names else [])]


class _Counted:
    """Tables on their way, and how many rows have passed."""

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        self._tables = iter(tables)
        self.rows = 0

    def __iter__(self) -> Iterator[pa.Table]:
        return self

    def __next__(self) -> pa.Table:
        table = next(self._tables)
        self.rows += table.num_rows
        return table


def _ahead(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same tables, each made in another thread while the last one is written: deltalake cannot be called by what
    it takes its rows from.
    """
    with ThreadPoolExecutor(1) as other:
        coming = other.submit(next, tables, None)
        while (table := coming.result()) is not None:
            coming = other.submit(next, tables, None)
            yield table


def _as_table(rows: pd.DataFrame, table: str, names: Sequence[str] | None = None) -> pa.Table:
    schema = SCHEMAS[table] if names is None else pa.schema([SCHEMAS[table].field(name) for name in names])
    return pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False)


def _without_stored(target: DeltaTable, table: str, source: pa.Table) -> pa.Table:
    """The rows of `source` whose key `target` lacks.

    A Delta MERGE says the same, but holds the whole target in memory: 1.3 GB for a million headlines.
    """
    keys = version_keys(table)
    stored = _rows_among(target, table, source.select(KEYS[table]), keys)
    numbered = source.select(keys).append_column("row", pa.array(np.arange(source.num_rows)))  # joins take no lists
    new = numbered.join(stored, keys, join_type="left anti", use_threads=False)["row"]
    return source.take(new.sort())


def _rows_among(target: DeltaTable, table: str, keys: pa.Table, names: list[str]) -> pa.Table:
    """The columns `names` of the rows that share the first key column with one of `keys`, and lie between their ends.

    `keys` has some of the table's key columns, the first among them; the table is streamed.
    """
    schema = pa.schema([SCHEMAS[table].field(name) for name in names])
    return (
        scan.scan(target, table, names, among=keys).to_table().cast(schema) if keys.num_rows else schema.empty_table()
    )


def _firsts(table: str, firsts: Any) -> pa.Table:
    """Values of the first key column, as a table of it."""
    first = SCHEMAS[table].field(KEYS[table][0])
    return pa.table({first.name: pa.array(firsts, first.type)})


def newest(rows: pd.DataFrame, table: str) -> pd.DataFrame:
    """The highest version of each key in `rows`, sorted by key."""
    keys = list(KEYS[table])
    if "version" not in SCHEMAS[table].names:
        return rows.sort_values(keys, ignore_index=True)
    ordered = rows.sort_values([*keys, "version"], ignore_index=True)
    return ordered.drop_duplicates(keys, keep="last", ignore_index=True)


def revisions(
    current: pd.DataFrame, incoming: pd.DataFrame, table: str, values: list[str], tolerance: float = 0.0
) -> pd.DataFrame:
    """The rows of `incoming` that are new or differ from `current` in `values`, with their `version`.

    `current` holds one row a key (see `newest`), and so does `incoming`. A missing value equals a
    missing value, and with a `tolerance` numbers are equal that differ by at most that share of the stored one.
    The column `version` is 1 for a new key, else one more than the stored one.
    """
    keys = list(KEYS[table])
    if current.empty:
        return incoming.assign(version=np.int32(1))
    stored = current[[*keys, "version", *values]]
    joined = incoming.drop(columns="version", errors="ignore").merge(
        stored, on=keys, how="left", suffixes=("", "_stored"), validate="one_to_one"
    )
    same = joined["version"].notna()
    for name in values:
        new, old = joined[name], joined[f"{name}_stored"]
        equal = (new - old).abs() <= tolerance * old.abs() if tolerance else new == old
        same &= equal.fillna(False) | (new.isna() & old.isna())
    joined["version"] = joined["version"].fillna(0).astype(np.int32) + 1
    return joined.loc[~same, [*incoming.columns.drop("version", errors="ignore"), "version"]]


def to_frame(table: pa.Table, **how: bool) -> pd.DataFrame:
    """Arrow to pandas with dates as `datetime64[s]` and strings as pandas strings; `how` are `to_pandas`' options."""
    dates = [field.name for field in table.schema if pa.types.is_date(field.type)]
    frame: pd.DataFrame = table.to_pandas(date_as_object=False, **how)
    for name in dates:
        frame[name] = frame[name].astype("datetime64[s]")
    return frame
