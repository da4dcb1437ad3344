"""Who may write to a workspace, and how its files are replaced."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from data.errors import ConfigError, LockedError
from pipelines.config import parse_config
from pipelines.workspace import Workspace, replace_file


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, parse_config({}, (), "the tests"))


@contextmanager
def somebody_else() -> Iterator[None]:
    """Root may open every file; nobody may not."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_job_is_done_by_one_at_a_time(workspace: Workspace) -> None:
    with workspace.lock("nightly"):
        with pytest.raises(LockedError), workspace.lock("nightly"):
            pass
        with workspace.lock("ingest"):
            pass
    with workspace.lock("nightly"):
        pass


def test_what_goes_wrong_under_the_lock_is_raised_as_it_is_and_frees_it(workspace: Workspace) -> None:
    for error in (PermissionError("of the job"), ValueError("of the job")):
        with pytest.raises(type(error), match="of the job"), workspace.lock("nightly"):
            raise error
    with workspace.lock("nightly"):
        pass


def test_a_lock_of_another_user_is_one_paragraph(workspace: Workspace) -> None:
    with workspace.lock("nightly"):
        pass
    (workspace.folder / ".nightly.lock").chmod(0)
    with somebody_else(), pytest.raises(ConfigError, match="chown") as raised, workspace.lock("nightly"):
        pass
    assert str(workspace.folder / ".nightly.lock") in str(raised.value)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "file"
    replace_file(path, b"first")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("no room")))
    with pytest.raises(OSError, match="no room"):
        replace_file(path, b"second")
    assert [(each.name, each.read_bytes()) for each in path.parent.iterdir()] == [("file", b"first")]
