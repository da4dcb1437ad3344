"""A stored model's folder, verified byte by byte, in this format or the first. Opens no weights; no torch."""

from pathlib import Path
from typing import Any

from data.errors import ModelError
from pipelines.bundle_files import (
    CONFIG,
    MANIFEST,
    TRAINING,
    WEIGHTS,
    Paths,
    list_files,
    parse_canonical,
    parse_json,
    read_contents,
    read_file,
)
from pipelines.bundle_format1 import read_first_format
from pipelines.bundle_stored import Stored
from pipelines.bundle_training import check_training
from pipelines.promotions import ID

HUGGING_FACE = {"architectures": ["ForecastModel"], "library_name": "tapewire", "model_type": "tapewire"}


def training_of(runs: Path, model_id: str) -> dict[str, Any]:
    """What is known of a model (`Bundle.training`), without opening its weights. ModelError as for `load_bundle`."""
    return read_stored(list_files(find_folder(runs, model_id)), str(runs / model_id)).training


def find_folder(runs: Path, model_id: str) -> Path:
    """`runs/<model_id>`. Raises ModelError where there is none."""
    if not ID.fullmatch(model_id) or not (runs / model_id).is_dir():
        raise ModelError(
            f"{runs}: expected model {model_id}, found none. `tapewire models list` names those there are."
        )
    return runs / model_id


def read_stored(paths: Paths, where: str) -> Stored:
    """A verified model that is not opened yet.

    Raises ModelError where any byte is not as it was saved, or where what is known of its training is no such thing.
    """
    manifest = parse_json(read_file(paths, MANIFEST, where), f"{where}/{MANIFEST}")
    first = manifest.get("format") == 1
    model_id, stored = read_first_format(paths, where) if first else _read_files(paths, where)
    if stored.model_id != model_id:
        raise ModelError(f"{where}: expected a model whose hash is {model_id}, found {stored.model_id}. Restore it.")
    check_training(stored.training, where)
    return stored


def _read_files(paths: Paths, where: str) -> tuple[str, Stored]:
    model_id, contents = read_contents(paths, where)
    config, training = (parse_canonical(contents[name], f"{where}/{name}") for name in (CONFIG, TRAINING))
    core = {key: value for key, value in config.items() if key not in HUGGING_FACE}
    return model_id, Stored(core, training, contents[WEIGHTS])
