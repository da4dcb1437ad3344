"""The commands `tapewire models ...`: which models there are, and which of them is champion. Parses and prints."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.options import Json, Sets, open_here, print_result

if TYPE_CHECKING:
    from pipelines.model_list import Models

promotions = typer.Typer(help="List models, choose the champion and its challengers.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="A model's id, as `tapewire models list` prints it.")]


@promotions.command("list")
def list_command(sets: Sets = None, json: Json = False) -> None:
    """Every model, its role, what it was trained on and how it did; a broken one with what is wrong."""
    from pipelines.model_list import list_models

    _show(list_models(open_here(sets).runs), json)


@promotions.command()
def promote(model: Id, sets: Sets = None, json: Json = False) -> None:
    """Make a model the champion: what it forecasts is published."""
    from pipelines.instants import utc_now
    from pipelines.model_list import promote as job

    _show(job(open_here(sets), model, utc_now()), json)


@promotions.command()
def rollback(sets: Sets = None, json: Json = False) -> None:
    """Make the champion before this one champion again."""
    from pipelines.instants import utc_now
    from pipelines.model_list import roll_back

    _show(roll_back(open_here(sets), utc_now()), json)


@promotions.command()
def challenge(model: Id, sets: Sets = None, json: Json = False) -> None:
    """Let a model challenge the champion: scored every night beside it, never published."""
    from pipelines.instants import utc_now
    from pipelines.model_list import challenge as job

    _show(job(open_here(sets), model, utc_now()), json)


@promotions.command()
def retire(model: Id, sets: Sets = None, json: Json = False) -> None:
    """Take a challenger out of the nightly job; its folder and its forecasts stay."""
    from pipelines.instants import utc_now
    from pipelines.model_list import retire as job

    _show(job(open_here(sets), model, utc_now()), json)


@promotions.command()
def compare(first: Id, second: Id, sets: Sets = None, json: Json = False) -> None:
    """Two models side by side: on the test folds they never learned from, and live."""
    from pipelines.model_list import compare as job

    result = job(open_here(sets), first, second)
    print_result(result.as_dict(), json, result.table)


def _show(models: "Models", json: bool) -> None:
    print_result(models.as_dict(), json, models.table)
