"""The command `tapewire`. The commands are in `cli_records.py` and `cli_models.py`, the jobs elsewhere.

Imports at the top stay light, so that `--help` is instant: what a command needs it imports itself.
"""

import os
import sys

import typer

from data.errors import TapewireError
from pipelines.cli_models import models
from pipelines.cli_records import records

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

# What torch and its OpenMP read when they are loaded; a user's own settings win. Figures in docs/performance.md.
RUNTIME = {
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait starve whoever shares the cores,
    "GOMP_SPINCOUNT": "10000",  # but a few microseconds of it spare most sleeps
    "THP_MEM_ALLOC_ENABLE": "1",  # huge pages: a batch's tensors cost 15 times fewer page faults
}


def main() -> None:
    """Run the command line; a user's mistake is one paragraph on stderr and exit code 2."""
    for name, value in RUNTIME.items():
        os.environ.setdefault(name, value)
    try:
        app(standalone_mode=True)
    except TapewireError as error:
        sys.stderr.write(f"tapewire: {error}\n")
        sys.exit(error.exit_code)
