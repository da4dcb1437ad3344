"""What the commands share: options that several take, and how a result is printed. Imports nothing heavy."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipelines.workspace import Workspace

Json = Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of tapewire.toml.")]
Map = Annotated[str | None, typer.Option("--map", metavar="OURS=THEIRS,...", help="Names of your columns.")]
Files = Annotated[list[Path], typer.Argument(help="CSV or Parquet files.")]
AsOf = Annotated[str | None, typer.Option("--as-of", metavar="WHEN", help="Instant with offset, or a session's date.")]
Decision = Annotated[
    str | None, typer.Option("--as-of", metavar="DATE", help="The decision after this session; the newest by default.")
]
Model = Annotated[str | None, typer.Option(help="A model's id under runs/; the champion by default.")]
EngineName = Annotated[str, typer.Option("--engine", help="Where the work is done: local | ray.")]
Address = Annotated[
    str | None, typer.Option("--address", metavar="HOST:PORT", help="A running Ray cluster; a local one by default.")
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="The newest so many only.")]


def open_here(sets: list[str] | None) -> "Workspace":
    """The workspace in the current folder, its configuration overridden by `--set`."""
    from pipelines.workspace import open_workspace

    return open_workspace(Path(), sets or ())


def say(message: str) -> None:
    """Progress and remarks: stderr, so that stdout stays the result's."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def print_result(result: dict[str, object], as_json: bool, text: Callable[[], str]) -> None:
    """One object as JSON, or its text."""
    import json

    sys.stdout.write((json.dumps(result, allow_nan=False) if as_json else text()) + "\n")


def print_lines(records: Any, as_json: bool, columns: tuple[str, ...]) -> None:
    """One line a record: JSON, or some columns under a head."""
    import json

    from pipelines.table import record_line

    for number, record in enumerate(records):
        if number == 0 and not as_json:
            sys.stdout.write("  ".join(columns) + "\n")
        line = json.dumps(record, ensure_ascii=False, allow_nan=False) if as_json else record_line(record, columns)
        sys.stdout.write(line + "\n")
