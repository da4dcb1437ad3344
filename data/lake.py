"""The store: Delta tables in one folder, appended to and never overwritten.

Nothing here knows what a bar or a headline means. `merge` inserts rows whose key is new and `revise` those that
differ from what is stored, so writing the same rows twice adds none, and each call is one atomic Delta commit: a
killed process leaves the last commit readable. Past states are read by time (`as_of`), never by Delta version.

What a batch is compared with is found by the least and the greatest of its keys: the statistics of files and of row
groups say where those lie. Rows that are written in an order that keeps neighbours together are found fast.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from pyarrow import fs

from data.asof import known
from data.errors import LakeError
from data.schemas import KEYS, SCHEMAS

ROW_GROUP = 1 << 16  # rows: 250 tickers by the sessions of a year; what one lookup reads at least

Batches = Callable[[], Iterable[pd.DataFrame]]


class Lake:
    """The tables of `data.schemas` under one folder; a table not yet written reads as empty."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def read(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """Every row and version of `table`, in no particular order."""
        schema = SCHEMAS[table]
        names = columns or schema.names
        try:
            stored = _files(DeltaTable(self._path(table))).to_table(columns=names)
        except TableNotFoundError:
            stored = schema.empty_table().select(names)
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(table, error) from error
        return stored.cast(pa.schema([schema.field(name) for name in names]))

    def frame(self, table: str, columns: list[str] | None = None) -> pd.DataFrame:
        """`read` as a DataFrame; instants are tz-aware UTC, dates are `datetime64`."""
        return to_frame(self.read(table, columns))

    def coded(self, table: str, columns: list[str], firsts: Sequence[str] = ()) -> pd.DataFrame:
        """`frame` for millions of rows: strings as categories, and no column held twice.

        With `firsts` only the rows whose first key column is one of these.
        """
        strings = {name for name in columns if pa.types.is_string(SCHEMAS[table].field(name).type)}
        try:
            target = DeltaTable(self._path(table))
            if firsts:
                keys = pa.table({KEYS[table][0]: pa.array(firsts, pa.string())})
                rows = _rows_among(target, table, keys, columns)
            else:
                options = ds.ParquetReadOptions(dictionary_columns=strings)
                rows = _files(target, parquet_read_options=options).to_table(columns=columns)
        except TableNotFoundError:
            rows = SCHEMAS[table].empty_table().select(columns)
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(table, error) from error
        for name in strings:
            coded = rows[name] if pa.types.is_dictionary(rows[name].type) else rows[name].dictionary_encode()
            rows = rows.set_column(columns.index(name), name, coded)
        return to_frame(rows.unify_dictionaries(), split_blocks=True, self_destruct=True)

    def distinct(self, table: str, column: str, firsts: Sequence[str]) -> pd.DataFrame:
        """What `column` holds for each of `firsts`, which are values of the first key column; once each, all versions.

        The table is streamed.
        """
        first = KEYS[table][0]
        keys = pa.table({first: pa.array(firsts, pa.string())})
        try:
            found = _scan(DeltaTable(self._path(table)), keys, [first, column]).to_batches()
            parts = [pa.Table.from_batches([batch]).group_by([first, column]).aggregate([]) for batch in found]
        except TableNotFoundError:
            parts = []
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(table, error) from error
        parts.append(SCHEMAS[table].empty_table().select([first, column]))
        return to_frame(pa.concat_tables(parts).group_by([first, column]).aggregate([]))

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
        names = list(dict.fromkeys([*_version_keys(table), *values, *(["available_at"] if as_of is not None else [])]))
        wanted = pa.table({KEYS[table][0]: pa.array(keys.unique(), SCHEMAS[table].field(KEYS[table][0]).type)})
        try:
            stored = _rows_among(DeltaTable(self._path(table)), table, wanted, names)
        except TableNotFoundError:
            stored = SCHEMAS[table].empty_table().select(names)
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(table, error) from error
        rows = to_frame(stored)
        return newest(rows if as_of is None else rows[known(rows["available_at"], as_of)], table)

    def merge(self, table: str, rows: pd.DataFrame) -> int:
        """Insert the rows whose key (with its version, where the table has one) is not stored yet.

        Returns how many were inserted. The whole call is one commit, and none where nothing is new. Two
        processes may do it at once: what one looked up is only committed if no other has committed since.
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
        names = [*_version_keys(table), *values]

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
            target = DeltaTable.create(self._path(table), schema=schema, mode="ignore")
            counted = _Counted(rows for rows in changed(target) if rows.num_rows)
            first = list(islice(counted, 1))
            if not first:
                return 0
            batches = (batch for rows in chain(first, _ahead(counted)) for batch in rows.to_batches())
            try:
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

    def _unreadable(self, table: str, error: Exception) -> LakeError:
        return LakeError(f"{self._path(table)}: expected a readable Delta table, found: {error}")


def _version_keys(table: str) -> list[str]:
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
    keys = _version_keys(table)
    stored = _rows_among(target, table, source.select(KEYS[table]), keys)
    numbered = source.select(keys).append_column("row", pa.array(np.arange(source.num_rows)))  # joins take no lists
    new = numbered.join(stored, keys, join_type="left anti", use_threads=False)["row"]
    return source.take(new.sort())


def _rows_among(target: DeltaTable, table: str, keys: pa.Table, names: list[str]) -> pa.Table:
    """The columns `names` of the rows that share the first key column with one of `keys`, and lie between their ends.

    `keys` has some of the table's key columns, the first among them; the table is streamed.
    """
    schema = pa.schema([SCHEMAS[table].field(name) for name in names])
    return _scan(target, keys, names).to_table().cast(schema) if keys.num_rows else schema.empty_table()


def _scan(target: DeltaTable, keys: pa.Table, names: list[str]) -> ds.Scanner:
    wanted = pc.field(keys.column_names[0]).isin(keys[0].unique())
    bounds = []
    for name in keys.column_names:
        low, high = pc.min(keys[name]), pc.max(keys[name])
        wanted &= (pc.field(name) >= low) & (pc.field(name) <= high)
        bounds += [(name, ">=", str(low)), (name, "<=", str(high))]
    files = _unguarded(_files(target, file_pruning_predicate=bounds))
    return files.scanner(columns=names, filter=wanted, batch_readahead=2, fragment_readahead=2)


def _files(target: DeltaTable, **options: Any) -> ds.FileSystemDataset:
    """The table's Parquet files, opened by Arrow itself.

    deltalake offers them through Python, and Arrow's threads, which may still hold some when a process ends, then
    abort it: exit code 134 after the work is done.
    """
    storage, root = fs.FileSystem.from_uri(target.table_uri)
    return target.to_pyarrow_dataset(filesystem=fs.SubTreeFileSystem(root, storage), **options)


def _unguarded(dataset: ds.FileSystemDataset) -> ds.FileSystemDataset:
    """The same files without what Delta says of them: deltalake 1.6 gives the ends of strings as string_view, with
    which Arrow cannot compare. The files say the same of their own row groups, and that it understands.
    """
    files = [dataset.format.make_fragment(part.path, filesystem=dataset.filesystem) for part in dataset.get_fragments()]
    return ds.FileSystemDataset(files, dataset.schema, dataset.format, dataset.filesystem)


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
