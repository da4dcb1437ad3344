"""The command `tapewire`. The commands are in `cli_records.py`, `cli_models.py` and `cli_nightly.py`.

Imports at the top stay light, so that `--help` is instant: what a command needs it imports itself.
"""

import os
import sys

import typer

from data.errors import TapewireError
from pipelines.cli_models import models
from pipelines.cli_nightly import nights
from pipelines.cli_records import records
from pipelines.disk import disk_full, full_disk

app = typer.Typer(
    name="tapewire",
    help="News and prices to a calibrated next-session forecast. Research software: not financial advice.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(records)
app.add_typer(models)
app.add_typer(nights)

# What torch and its OpenMP read when they are loaded; a user's own settings win. Figures in docs/performance.md.
RUNTIME = {
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait starve whoever shares the cores,
    "GOMP_SPINCOUNT": "10000",  # but a few microseconds of it spare most sleeps
    "THP_MEM_ALLOC_ENABLE": "1",  # huge pages: a batch's tensors cost 15 times fewer page faults
}


def main() -> None:
    """Run the command line; a user's mistake, or a full disk, is one paragraph on stderr.

    Exit code 2 for a mistake, 75 where another process is at it, 4 for a full disk.
    """
    for name, value in RUNTIME.items():
        os.environ.setdefault(name, value)
    try:
        app(standalone_mode=True)
    except Exception as error:
        told = full_disk(error) if disk_full(error) else error
        if not isinstance(told, TapewireError):
            raise
        sys.stderr.write(f"tapewire: {told}\n")
        sys.exit(told.exit_code)
