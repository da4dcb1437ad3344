"""A user's workspace: `tapewire.toml` and beside it `lake/`, `embeddings/`, `text/`, `runs/` and `reports/`."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from data.errors import ConfigError, LockedError
from data.lake import Lake
from pipelines.config import TapewireConfig, load_config
from pipelines.files import sync_folder
from pipelines.template import FILE


@dataclass(frozen=True)
class Workspace:
    """A folder and its configuration, overrides applied."""

    folder: Path
    config: TapewireConfig

    @property
    def lake(self) -> Lake:
        """The Delta tables."""
        return Lake(self.folder / "lake")

    @property
    def embeddings(self) -> Path:
        """The stores of embeddings, one per encoder."""
        return self.folder / "embeddings"

    @property
    def runs(self) -> Path:
        """Trained models, and which of them is champion since when."""
        return self.folder / "runs"

    @contextmanager
    def lock(self, job: str) -> Iterator[None]:
        """Held while `job` writes; LockedError at once where another process holds it. A killed holder frees it.

        Raises ConfigError where this user may not open the lock's file.
        """
        path = self.folder / f".{job}.lock"
        lock = FileLock(path, blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise LockedError(f"{self.folder}: another `tapewire {job}` is at work here. Wait for it to end.") from None
        except PermissionError as error:
            raise ConfigError(
                f"{path}: expected a file that this user may write, found: {error.strerror}. Another user has run "
                f"`tapewire {job}` here: give the whole folder to one of them (chown -R)."
            ) from None
        try:
            yield
        finally:
            lock.release()

    @property
    def reports(self) -> Path:
        """Ablations and forecast files."""
        return self.folder / "reports"


def open_workspace(folder: Path, overrides: Sequence[str] = ()) -> Workspace:
    """The workspace in `folder`. Raises ConfigError where there is none or its file is wrong."""
    return Workspace(folder, load_config(folder / FILE, overrides))


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part; on disk on return."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)  # of a full disk; once replaced it is not there
