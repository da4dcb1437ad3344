"""A user's CSV or Parquet file as a frame of named columns. Untrusted input: checked, never guessed at.

CSV cells stay strings; what reads them decides strictly what they mean. Refused with an InputError:
a file that is missing, empty, HTML, unreadable, or lacks a required column.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from data.errors import InputError

SNIFF_BYTES = 1024


def read_table(
    path: Path,
    required: Sequence[str],
    optional: Sequence[str],
    aliases: Mapping[str, Sequence[str]],
    mapping: Mapping[str, str],
) -> pd.DataFrame:
    """The columns of `path` that we know, under our names, in the order of `required` + `optional`.

    A column is found by the user's `mapping` (ours -> theirs), else by our name or one of `aliases`,
    whatever its case and spacing. Optional columns that the file lacks are left out.
    """
    unknown = sorted(set(mapping) - set(required) - set(optional))
    if unknown:
        names = ", ".join([*required, *optional])
        raise InputError(f"--map names {', '.join(unknown)}: expected one of {names}.")
    table = _read(path)
    found = _columns(table.column_names, [*required, *optional], aliases, mapping, path)
    missing = [name for name in required if name not in found]
    if missing:
        raise InputError(
            f"{path}: expected the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; found "
            f"{', '.join(map(str, table.column_names))}. Name yours with --map {missing[0]}=YOURS."
        )
    if table.num_rows == 0:
        raise InputError(f"{path}: expected rows, found only a header. Nothing was imported.")
    frame: pd.DataFrame = table.select(list(found.values())).rename_columns(list(found)).to_pandas(date_as_object=False)
    return frame


def parse_mapping(text: str | None) -> dict[str, str]:
    """`date=Date,close=Close` as a dict; ConfigError-like InputError where it is not of that form."""
    pairs = [pair.partition("=") for pair in (text or "").split(",") if pair.strip()]
    if any(not (ours.strip() and theirs.strip()) for ours, _, theirs in pairs):
        raise InputError(
            f"--map {text}: expected OURS=THEIRS pairs with commas between, such as date=Date,close=Close."
        )
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise InputError(f"{path}: expected a CSV or Parquet file, found {'a folder' if path.is_dir() else 'nothing'}.")
    with path.open("rb") as file:
        head = file.read(SNIFF_BYTES)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not text:
        raise InputError(f"{path}: expected a CSV or Parquet file, found an empty one.")
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        raise InputError(
            f"{path}: expected CSV or Parquet, found an HTML or XML page; was a login or error page saved?"
        )
    try:
        return pyarrow.parquet.read_table(path) if head.startswith(b"PAR1") else _read_csv(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"{path}: expected a readable CSV (UTF-8) or Parquet file, found: {reason}") from error


def _read_csv(path: Path) -> pa.Table:
    with path.open("rb") as file:
        header = pyarrow.csv.open_csv(file).schema.names
    strings = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=True, null_values=["", "NULL", "null"]
    )
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    return pyarrow.csv.read_csv(path, convert_options=strings, parse_options=parse)


def _columns(
    names: Sequence[str],
    wanted: Sequence[str],
    aliases: Mapping[str, Sequence[str]],
    mapping: Mapping[str, str],
    path: Path,
) -> dict[str, str]:
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if list(names).count(name) > 1})
        raise InputError(f"{path}: expected each column once, found {', '.join(twice)} more than once.")
    by_form = {_form(name): name for name in reversed(names)}
    found = {}
    for ours in wanted:
        if ours in mapping:
            if mapping[ours] not in names:
                raise InputError(
                    f"{path}: --map {ours}={mapping[ours]}: expected that column; found {', '.join(names)}."
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
