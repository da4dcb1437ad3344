"""Who belonged to the universe in a night, kept with it: a replay scores those, whatever was added or left out since.

The watchlist is in the ledger, the universe's file as a copy in the night's folder with its hash in the ledger. Without
either the members are the tickers with bars, which the lake tells for any moment.
"""

import hashlib
from pathlib import Path

from data.errors import LakeError
from data.universe import Universe
from pipelines.nightly.ledger import Kept, Ledger, Members, folder_of
from pipelines.workspace import Workspace, replace_file

NAME = "universe"


def keep_members(workspace: Workspace, ledger: Ledger) -> Members:
    """Who belongs now, its file copied to the night's folder. Raises InputError where that cannot be read."""
    config = workspace.config
    if not config.universe:
        return Members(config.watchlist, "", "")
    path = workspace.folder / config.universe
    Universe.read(path)  # a broken one is refused here, and not kept
    content = path.read_bytes()
    copy = ledger.folder / f"{NAME}{''.join(Path(config.universe).suffixes)}"
    replace_file(copy, content)
    return Members(config.watchlist, copy.name, hashlib.sha256(content).hexdigest())


def as_of_night(workspace: Workspace, kept: Kept) -> Workspace:
    """The workspace with the members of a night. Raises LakeError where the copy of its universe is not what it was."""
    members = kept.members
    if not members.universe:
        return _with(workspace, members.watchlist, "")
    path = folder_of(workspace, kept.session) / members.universe
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "no such file"
    if found != members.sha256:
        raise LakeError(
            f"{path}: expected the universe that the night was scored for, of sha256 {members.sha256}, found {found}. "
            "Restore it from a backup."
        )
    return _with(workspace, members.watchlist, str(path.relative_to(workspace.folder)))


def _with(workspace: Workspace, watchlist: tuple[str, ...], universe: str) -> Workspace:
    update = {"watchlist": watchlist, "universe": universe}
    return Workspace(workspace.folder, workspace.config.model_copy(update=update))
