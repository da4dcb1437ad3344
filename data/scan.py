"""The rows of a Delta table through Arrow: which files may hold those that are wanted, and how they are opened.

What is read is bounded twice: Delta's log knows the ends of each file's columns, the files those of their row groups.
"""

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from operator import and_
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable
from pyarrow import fs

from data.migrations import outdated, projection
from data.schemas import SCHEMAS

_LOCAL = "file://"
_COARSE = timedelta(milliseconds=1)  # what Delta's log says of an instant is cut off there


@dataclass(frozen=True)
class Span:
    """Rows whose `column` lies from `first` to `last`, both included; None is no end.

    Of a date the ends are `datetime64[D]`, of an instant UTC `datetime64[us]`. A row without a value is outside.
    """

    column: str
    first: Any = None
    last: Any = None

    def condition(self, table: str) -> pc.Expression:
        """What is asked of each row."""
        column, kind = pc.field(self.column), SCHEMAS[table].field(self.column).type
        condition = column.is_valid()
        if self.first is not None:
            condition &= column >= pa.scalar(_value(self.first), kind)
        if self.last is not None:
            condition &= column <= pa.scalar(_value(self.last), kind)
        return condition

    def bounds(self) -> list[tuple[str, str, str]]:
        """What is asked of Delta's log for each file: a little more than of each row.

        Nothing for the empty string, which Delta takes for no value at all, and then offers no file.
        """
        ends = [(">=", self.first, -_COARSE), ("<=", self.last, _COARSE)]
        return [(self.column, sign, _literal(end, slack)) for sign, end, slack in ends if not _open(end)]


def scan(
    target: DeltaTable, table: str, names: Sequence[str], spans: Iterable[Span] = (), among: pa.Table | None = None
) -> ds.Scanner:
    """The columns `names` of the rows within all `spans`, a few row groups at a time.

    With `among`, some of the table's key columns, the first among them: only the rows that share the first with one of
    its rows, and lie between the ends of each.
    """
    spans = [*spans, *(_span(among, name) for name in (among.column_names if among else []))]
    dataset = files(target, table, _within(target, spans))
    conditions = [span.condition(table) for span in spans]
    if among is not None:
        conditions.append(pc.field(among.column_names[0]).isin(among[0].unique()))
    wanted = reduce(and_, conditions) if conditions else None
    return dataset.scanner(columns=projection(table, names), filter=wanted, batch_readahead=2, fragment_readahead=2)


def read(
    target: DeltaTable, table: str, names: Sequence[str], within: Span | None = None, coded: Sequence[str] = ()
) -> pa.Table:
    """The columns `names` of all rows, or of those `within`; the strings `coded` as dictionaries."""
    dataset = files(target, table, _within(target, [within] if within else []), coded)
    wanted = within.condition(table) if within else None
    return dataset.to_table(columns=projection(table, names), filter=wanted)


def ends(target: DeltaTable, table: str, column: str) -> pa.Table:
    """The last value of a date column in each file, by what Delta's log says; every value where it says nothing."""
    outdated(target, table)
    stored = pa.table(target.get_add_actions(flatten=True))
    name = f"max.{column}"
    if name in stored.column_names and stored[name].null_count == 0:
        return pa.table({column: stored[name]})
    return read(target, table, [column])


def files(target: DeltaTable, table: str, paths: Iterable[str], coded: Sequence[str] = ()) -> ds.FileSystemDataset:
    """Some files of the table, opened by Arrow itself; the strings `coded` as dictionaries.

    deltalake offers them through Python, and Arrow's threads, which may still hold some when a process ends, then
    abort it: exit code 134 after the work is done. Nor is what Delta says of them given to Arrow: deltalake 1.6 has
    the ends of strings as string_view, with which Arrow cannot compare, and takes most of a second for 1,000 files.
    """
    outdated(target, table)
    fields = {field.name: field for field in SCHEMAS[table]}
    fields |= {name: fields[name].with_type(pa.dictionary(pa.int32(), pa.string())) for name in coded}
    layout = ds.ParquetFileFormat(read_options=ds.ParquetReadOptions(dictionary_columns=set(coded)))
    folder = _folder(target.table_uri)
    parts = [layout.make_fragment(posixpath.basename(path), filesystem=folder) for path in paths]
    return ds.FileSystemDataset(parts, pa.schema(list(fields.values())), layout, folder)


def _folder(uri: str) -> fs.SubTreeFileSystem:
    """Where a table lies. Of a local folder its name, not its address, whose every odd character Arrow would judge."""
    if uri.startswith(_LOCAL):
        return fs.SubTreeFileSystem(unquote(uri.removeprefix(_LOCAL)), fs.LocalFileSystem())
    storage, root = fs.FileSystem.from_uri(uri)
    return fs.SubTreeFileSystem(root, storage)


def _within(target: DeltaTable, spans: Iterable[Span]) -> list[str]:
    """The files that may hold rows within `spans`."""
    bounds = [bound for span in spans for bound in span.bounds()]
    return target.file_uris(file_pruning_predicate=bounds or None)


def _span(keys: pa.Table, name: str) -> Span:
    return Span(name, pc.min(keys[name]).as_py(), pc.max(keys[name]).as_py())


def _open(end: Any) -> bool:
    return end is None or (isinstance(end, str) and not end)


def _value(end: Any) -> Any:
    """As Python says it: a naive instant is UTC."""
    return end.item() if isinstance(end, np.datetime64) else end


def _literal(end: Any, slack: timedelta) -> str:
    value = _value(end)
    return f"{(value + slack).isoformat()}Z" if isinstance(value, datetime) else str(value)
