"""A trained model as a folder that anyone can check: saved whole, and verified before anything of it is opened.

`bundle_files.py` and `bundle_verify.py` judge its bytes, `bundle_parts.py` what they say; `docs/models.md` is about
both. Which model is champion is `promotions.py`'s business. Nothing here is pickled.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from data.errors import LockedError, ModelError
from pipelines.bundle_files import (
    CARD,
    CONFIG,
    MANIFEST,
    TRAINING,
    WEIGHTS,
    Contents,
    Paths,
    canonical,
    list_files,
    make_manifest,
)
from pipelines.bundle_hub import fetch_files
from pipelines.bundle_parts import build, store
from pipelines.bundle_stored import Stored
from pipelines.bundle_verify import HUGGING_FACE, find_folder, read_stored
from pipelines.config import TapewireConfig
from pipelines.files import write_folder
from pipelines.model_card import model_card
from pipelines.promotions import Promotions
from pipelines.train import Fitted

DRAFT = ".draft-"
WAIT = 60.0  # seconds; whoever holds the lock writes a few files


@dataclass(frozen=True)
class Bundle:
    """A loaded model. `model_id` is the hash of its weights and of all that its forecasts depend on.

    `training` is what is known of it: `settled_at`, metrics, what it was trained on, and its `reference` (see
    `pipelines/scorecard/reference.py`) but in the first format. Feeds, vendors and the night are not in `config`.
    """

    model_id: str
    fitted: Fitted
    config: TapewireConfig
    fingerprint: str | None  # of the text encoder; None where the model reads no text
    training: dict[str, Any]
    stored: Stored = field(repr=False)

    def check_clock(self, config: TapewireConfig) -> None:
        """Raises ModelError where the model decides at other times than a workspace of these settings.

        There it would forecast before its own decision, or after.
        """
        own, here = ((each.calendar, each.decision) for each in (self.config, config))
        if own != here:
            raise ModelError(
                f"{self.model_id}: expected a model of calendar {here[0]} and decision {here[1]}, as tapewire.toml "
                f"says, found one of {own[0]} and {own[1]}. Train one with these settings, promote another "
                "(`tapewire models promote ID`), or set `calendar` and `decision` back."
            )

    def save_pretrained(self, folder: Path) -> None:
        """Write the model into `folder`, whole or not at all; nothing changes where it is there already.

        Raises ModelError where `folder` holds anything else.
        """
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            if load_folder(folder).model_id != self.model_id:
                raise ModelError(f"{folder}: expected no folder or this model, found another one. Name a new folder.")
            return
        write_folder(folder, files_of(self.stored), folder.with_name(f"{DRAFT}{folder.name}"))

    @classmethod
    def from_pretrained(cls, name: str | Path, revision: str | None = None) -> "Bundle":
        """The model in a folder, where that path exists, else the hub's OWNER/NAME at a commit, tag or branch.

        Raises ModelError where there is none, or where any file is not what its manifest says.
        """
        if Path(name).exists():
            return load_folder(Path(name))
        return _open(fetch_files(str(name), revision), f"{name} at {revision or 'main'}")


def save_bundle(
    fitted: Fitted, config: TapewireConfig, fingerprint: str | None, facts: dict[str, Any], runs: Path
) -> Path:
    """Write the model as `runs/<model_id>` and return that folder. `facts` join what is known of the model.

    The same weights and settings make the same id, and a sound model of that id is left as it is: what past nights
    were judged by does not change. A broken one is replaced. What a killed save left is removed. LockedError where
    another save goes on for long.
    """
    stored = store(fitted, config, fingerprint, facts)
    folder = runs / stored.model_id
    runs.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(runs / ".save.lock", timeout=WAIT):
            for left in runs.glob(f"{DRAFT}*"):
                shutil.rmtree(left)
            if not _is_sound(folder):
                if folder.exists():
                    folder.rename(runs / f"{DRAFT}broken")
                write_folder(folder, files_of(stored), runs / f"{DRAFT}{stored.model_id}")
                shutil.rmtree(runs / f"{DRAFT}broken", ignore_errors=True)
    except Timeout:
        raise LockedError(f"{runs}: another process is saving a model. Try again.") from None
    return folder


def load_bundle(runs: Path, model_id: str | None = None) -> Bundle:
    """The model `model_id` under `runs`, by default the champion.

    Raises ModelError where there is none, or where any file is not what its manifest says.
    """
    folder = find_folder(runs, model_id or Promotions.read(runs).champion())
    bundle = load_folder(folder)
    if bundle.model_id != folder.name:
        raise ModelError(f"{folder}: expected the model of this name, found {bundle.model_id}. Restore it.")
    return bundle


def load_folder(folder: Path) -> Bundle:
    """The model in `folder`, of this format or the first. Raises ModelError where any of it is not as it was saved."""
    return _open(list_files(folder), str(folder))


def files_of(stored: Stored) -> Contents:
    """Every file of a model's folder, the manifest last."""
    contents = {
        CARD: model_card(stored).encode(),
        CONFIG: canonical({**HUGGING_FACE, **stored.core}),
        WEIGHTS: stored.weights,
        TRAINING: canonical(stored.training),
    }
    return {**contents, MANIFEST: make_manifest(stored.model_id, contents)}


def _open(paths: Paths, where: str) -> Bundle:
    stored = read_stored(paths, where)
    fitted, config = build(stored, where)
    return Bundle(stored.model_id, fitted, config, stored.core["text_fingerprint"], stored.training, stored)


def _is_sound(folder: Path) -> bool:
    """Whether a folder holds the model of its name, as it was saved."""
    if not folder.exists():
        return False
    try:
        return load_folder(folder).model_id == folder.name
    except ModelError:
        return False
