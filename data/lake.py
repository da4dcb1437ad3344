"""The store: Delta tables in one folder, appended to and never overwritten.

Nothing here knows what a bar or a headline means. `merge` inserts rows whose key is new, so writing
the same rows twice adds none, and each merge is one atomic Delta commit: a killed process leaves the
last commit readable. Past states are read by time (`as_of`), never by Delta version.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from data.asof import known
from data.errors import LakeError
from data.schemas import KEYS, SCHEMAS


class Lake:
    """The tables of `data.schemas` under one folder; a table not yet written reads as empty."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def read(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """Every row and version of `table`, in no particular order."""
        schema = SCHEMAS[table]
        names = columns or schema.names
        try:
            stored = DeltaTable(self._path(table)).to_pyarrow_table(columns=names)
        except TableNotFoundError:
            stored = schema.empty_table().select(names)
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(table, error) from error
        return stored.cast(pa.schema([schema.field(name) for name in names]))

    def frame(self, table: str, columns: list[str] | None = None) -> pd.DataFrame:
        """`read` as a DataFrame; instants are tz-aware UTC, dates are `datetime64`."""
        return to_frame(self.read(table, columns))

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

    def current_among(self, table: str, keys: "pd.Series[str]", values: list[str]) -> pd.DataFrame:
        """`current` of those rows alone whose first key column is one of `keys`, with the columns `values`.

        The table is streamed, so that storing a batch costs the memory of the batch whatever the lake holds.
        """
        names = list(dict.fromkeys([*_version_keys(table), *values]))
        try:
            stored = _rows_among(DeltaTable(self._path(table)), table, pa.array(keys.unique()), names)
        except TableNotFoundError:
            stored = SCHEMAS[table].empty_table().select(names)
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(table, error) from error
        return newest(to_frame(stored), table)

    def merge(self, table: str, rows: pd.DataFrame) -> int:
        """Insert the rows whose key (with its version, where the table has one) is not stored yet.

        Returns how many were inserted. The whole call is one commit, and none where nothing is new. Two
        processes may do it at once: what one looked up is only committed if no other has committed since.
        """
        if rows.empty:
            return 0
        schema = SCHEMAS[table]
        source = pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False)
        while True:
            target = DeltaTable.create(self._path(table), schema=schema, mode="ignore")
            new = _without_stored(target, table, source)
            if new.num_rows == 0:
                return 0
            try:
                write_deltalake(target, new, mode="append", commit_properties=CommitProperties(max_commit_retries=0))
            except CommitFailedError:
                if DeltaTable(self._path(table)).version() == target.version():
                    raise
            else:
                return int(new.num_rows)

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


def _without_stored(target: DeltaTable, table: str, source: pa.Table) -> pa.Table:
    """The rows of `source` whose key `target` lacks.

    A Delta MERGE says the same, but holds the whole target in memory: 1.3 GB for a million headlines.
    """
    keys = _version_keys(table)
    stored = _rows_among(target, table, source[keys[0]].unique(), keys)
    numbered = source.select(keys).append_column("row", pa.array(np.arange(source.num_rows)))  # joins take no lists
    new = numbered.join(stored, keys, join_type="left anti", use_threads=False)["row"]
    return source.take(new.sort())


def _rows_among(target: DeltaTable, table: str, firsts: pa.Array, names: list[str]) -> pa.Table:
    """The columns `names` of the rows whose first key column is one of `firsts`; the table is streamed."""
    schema = SCHEMAS[table]
    first = schema.field(KEYS[table][0])
    # Arrow cannot compare strings with the files' statistics, which deltalake 1.6 gives as string_view: the cast
    # keeps it from trying.
    kind = pa.large_string() if pa.types.is_string(first.type) else first.type
    wanted = pc.field(first.name).cast(kind).isin(firsts.cast(kind))
    dataset = target.to_pyarrow_dataset()
    stored = dataset.to_table(columns=names, filter=wanted, batch_readahead=2, fragment_readahead=2)
    return stored.cast(pa.schema([schema.field(name) for name in names]))


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


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Arrow to pandas with dates as `datetime64[s]` and strings as pandas strings."""
    dates = [field.name for field in table.schema if pa.types.is_date(field.type)]
    frame: pd.DataFrame = table.to_pandas(date_as_object=False)
    for name in dates:
        frame[name] = frame[name].astype("datetime64[s]")
    return frame
