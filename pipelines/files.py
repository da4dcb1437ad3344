"""Folders that are there whole or not at all, and survive a power cut. Knows nothing of what they hold."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path


def write_folder(folder: Path, contents: Mapping[str, bytes], draft: Path) -> None:
    """Make `folder`, which must not be there, whole or not at all: as `draft` beside it, synced, then renamed.

    A draft that was left over is replaced. An OSError, as of a full disk, leaves neither.
    """
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        for name, content in contents.items():
            with (draft / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        sync_folder(draft)
        draft.rename(folder)
        sync_folder(folder.parent)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make what was created, renamed or removed in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
