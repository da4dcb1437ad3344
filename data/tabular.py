"""A user's CSV, Parquet or JSON lines file as a stream of tables. Untrusted input: checked, never guessed at.

What a file is, its first bytes say, not its name; text may be gzip'ed. Cells of CSV and JSON lines stay
strings; what reads them decides strictly what they mean. Refused with an InputError: a file that is
missing, empty, HTML, unreadable, or lacks a required column. A file is never held in memory whole,
except by `read_table`, which is for small ones.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any, cast

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from data.errors import InputError

BATCH_ROWS = 100_000
BATCH_BYTES = 128 << 20
LONGEST_ROW = 16 << 20  # of text; a longer one is no row of a table
MOST_COLUMNS = 1_000
SNIFF_BYTES = 1024
NULLS = ["", "NULL", "null"]  # "NA" is a ticker

# A list or object in place of a cell. No text is equal to it: readers of text drop control characters.
NESTED = "\x00nested"

Choose = Callable[[list[str]], Mapping[str, str]]

_BROKEN = (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, zlib.error)
_MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")


def read_table(
    path: Path,
    required: Sequence[str],
    optional: Sequence[str],
    aliases: Mapping[str, Sequence[str]],
    mapping: Mapping[str, str],
) -> pd.DataFrame:
    """The columns of `path` that we know, whole, under our names, in the order of `required` + `optional`.

    Optional columns that the file lacks are left out. See `choose_columns`.
    """
    tables = list(read_batches(path, lambda names: choose_columns(names, required, optional, aliases, mapping, path)))
    frame: pd.DataFrame = pa.concat_tables(tables, promote_options="default").to_pandas(date_as_object=False)
    return frame


def read_batches(path: Path, choose: Choose) -> Iterator[pa.Table]:
    """The rows of `path` in order, in tables of about `BATCH_ROWS`, never none, with the columns chosen.

    `choose` gets the file's column names and returns those wanted, ours -> theirs; tables have ours. It is
    called again where a JSON object brings a name not seen before; a table lacks columns not seen yet.
    """
    kind = _kind(path)
    read = {"csv": _read_csv, "parquet": _read_parquet, "json": _read_json}[kind]
    rows = 0
    try:
        for table in rebatch(read(path, choose)):
            rows += table.num_rows
            yield table
    except _BROKEN as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{path}: expected a readable CSV (UTF-8), Parquet or JSON lines file, found: {reason}"
        ) from error
    if not rows:
        raise InputError(f"{path}: expected rows, found only a header. Nothing was imported.")


def choose_columns(
    names: Sequence[str],
    required: Sequence[str],
    optional: Sequence[str],
    aliases: Mapping[str, Sequence[str]],
    mapping: Mapping[str, str],
    where: object,
) -> dict[str, str]:
    """Ours -> theirs, for the columns of `where` that we know.

    A column is found by the user's `mapping` (ours -> theirs), else by our name or one of `aliases`,
    whatever its case and spacing. Raises InputError where a required one is not there.
    """
    unknown = sorted(set(mapping) - set(required) - set(optional))
    if unknown:
        known = ", ".join([*required, *optional])
        raise InputError(f"--map names {', '.join(unknown)}: expected one of {known}.")
    found = _columns(names, [*required, *optional], aliases, mapping, where)
    missing = [name for name in required if name not in found]
    if missing:
        raise InputError(
            f"{where}: expected the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; found "
            f"{', '.join(names)[:1000]}. Name yours with --map {missing[0]}=YOURS."
        )
    return found


def parse_mapping(text: str | None) -> dict[str, str]:
    """`date=Date,close=Close` as a dict; ConfigError-like InputError where it is not of that form."""
    pairs = [pair.partition("=") for pair in (text or "").split(",") if pair.strip()]
    if any(not (ours.strip() and theirs.strip()) for ours, _, theirs in pairs):
        raise InputError(
            f"--map {text}: expected OURS=THEIRS pairs with commas between, such as date=Date,close=Close."
        )
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}


def rebatch(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of about `BATCH_ROWS`, or fewer where they would be large.

    No table is taken before the rows of the last one are given away. A column that one lacks is null there.
    """
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(part.num_rows for part in held) >= BATCH_ROWS or sum(part.nbytes for part in held) >= BATCH_BYTES:
            yield pa.concat_tables(held, promote_options="default")
            held = []
    if held:
        yield pa.concat_tables(held, promote_options="default")


def _kind(path: Path) -> str:
    """What the first bytes say the file is. InputError where it is nothing that can be read."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise InputError(f"{path}: expected a CSV, Parquet or JSON lines file, found {found}.")
    try:
        with path.open("rb") as file:
            if file.read(4) == b"PAR1":
                return "parquet"
        with _open(path) as text:
            head = text.read(SNIFF_BYTES)
    except _BROKEN as error:
        raise InputError(f"{path}: expected a readable file, found: {error}") from error
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        raise InputError(f"{path}: expected a CSV or Parquet file, found an empty one.")
    if start.startswith(_MARKUP):
        raise InputError(
            f"{path}: expected CSV, Parquet or JSON lines, found an HTML or XML page; was a login or error page saved?",
            code="html-not-csv",
        )
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path}: expected UTF-8 text, found UTF-16. Convert it: iconv -f UTF-16 -t UTF-8.")
    if start.startswith((b"[", b"par1")):
        found = "one JSON array" if start.startswith(b"[") else "gzip'ed Parquet"
        raise InputError(f"{path}: expected CSV, Parquet or JSON lines (one object a line), found {found}. Convert it.")
    return "json" if start.startswith(b"{") else "csv"


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast("IO[bytes]", gzip.open(path)) if packed else path.open("rb")


def _read_parquet(path: Path, choose: Choose) -> Iterator[pa.Table]:
    with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
        found = choose(file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=BATCH_ROWS // 4, columns=list(found.values()), use_threads=False):
            table = pa.Table.from_batches([batch]).select(list(found.values()))
            yield table.rename_columns(list(found)).replace_schema_metadata(None)


def _read_csv(path: Path, choose: Choose) -> Iterator[pa.Table]:
    read = pyarrow.csv.ReadOptions(block_size=LONGEST_ROW, use_threads=False)
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    with _open(path) as file, pyarrow.csv.open_csv(file, read_options=read, parse_options=parse) as header:
        names = header.schema.names
    found = choose(names)
    theirs = list(found.values())
    strings = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(theirs, pa.string()),
        include_columns=theirs,
        strings_can_be_null=True,
        null_values=NULLS,
    )
    with (
        _open(path) as file,
        pyarrow.csv.open_csv(file, read_options=read, parse_options=parse, convert_options=strings) as rows,
    ):
        for batch in rows:
            for start in range(0, batch.num_rows, BATCH_ROWS):
                part = batch.slice(start, BATCH_ROWS)
                yield pa.Table.from_batches([part]).rename_columns(list(found))


def _read_json(path: Path, choose: Choose) -> Iterator[pa.Table]:
    objects = JsonTables(path, choose)
    rows: list[dict[str, Any]] = []
    held = 0
    with closing(_open(path)) as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_ROW + 1), b""), 1):
            if line.isspace():
                continue
            rows.append(json_object(line, f"{path}: line {number}"))
            held += len(line)
            if len(rows) >= BATCH_ROWS or held >= BATCH_BYTES // 4:
                yield objects.table(rows)
                rows, held = [], 0
    if rows:
        yield objects.table(rows)


class JsonTables:
    """Objects of one source to tables of the columns that `choose` picks; see `read_batches`."""

    def __init__(self, where: object, choose: Choose) -> None:
        self._where, self._choose = where, choose
        self._names: dict[str, None] = {}
        self._found: Mapping[str, str] = {}

    def table(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """One row an object, all cells strings; a list or object as a cell is `NESTED`."""
        before = len(self._names)
        for row in rows:
            self._names.update(dict.fromkeys(row))
        if len(self._names) > MOST_COLUMNS:
            raise InputError(f"{self._where}: expected objects of one kind, found over {MOST_COLUMNS} different names.")
        if len(self._names) > before:
            self._found = self._choose(list(self._names))
        return pa.table({ours: _strings([row.get(theirs) for row in rows]) for ours, theirs in self._found.items()})


def json_object(line: bytes | str, where: str) -> dict[str, Any]:
    """The object of one line. An InputError shows the line's start, so that it can be found."""
    try:
        if len(line) > LONGEST_ROW:
            raise ValueError(f"more than {LONGEST_ROW >> 20} MiB")
        text = line if isinstance(line, str) else line.removeprefix(b"\xef\xbb\xbf").decode()
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: expected a JSON object in UTF-8, found {line[:60]!r}: {error}.") from error
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected a JSON object, found {line[:60]!r}.")
    return value


def _strings(values: list[Any]) -> pa.Array:
    cells = [value if value is None or type(value) is str else _cell(value) for value in values]
    try:
        return pa.array(cells, pa.string())
    except UnicodeEncodeError:  # a lone surrogate, which JSON can spell
        return pa.array([cell and cell.encode(errors="replace").decode() for cell in cells], pa.string())


def _cell(value: Any) -> str:
    return NESTED if isinstance(value, list | dict) else json.dumps(value)


def _columns(
    names: Sequence[str],
    wanted: Sequence[str],
    aliases: Mapping[str, Sequence[str]],
    mapping: Mapping[str, str],
    where: object,
) -> dict[str, str]:
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if list(names).count(name) > 1})
        raise InputError(f"{where}: expected each column once, found {', '.join(twice)} more than once.")
    by_form = {_form(name): name for name in reversed(names)}
    found = {}
    for ours in wanted:
        if ours in mapping:
            if mapping[ours] not in names:
                raise InputError(
                    f"{where}: --map {ours}={mapping[ours]}: expected that column; found {', '.join(names)}."
                )
            found[ours] = mapping[ours]
            continue
        forms = [_form(alias) for alias in (ours, *aliases.get(ours, ()))]
        match = next((by_form[form] for form in forms if form in by_form), None)
        if match is not None and match not in mapping.values():
            found[ours] = match
    return found


def _form(name: str) -> str:
    return name.strip().lower().replace(" ", "_")
