"""A workspace's linker: finds tickers in titles, explains itself, and goes over what the lake holds already."""

from functools import partial

import numpy as np

from data.linking import AliasTable, Linker
from data.news.store import FindTickers, store_links
from pipelines.instants import utc_now
from pipelines.workspace import Workspace


def workspace_linker(workspace: Workspace) -> Linker:
    """The linker over the workspace's alias files, later ones winning. Raises InputError where one cannot be read.

    Where there are any, names that no registered name yields (Google, Exxon) are known beside them.
    """
    tables = [AliasTable.read(workspace.folder / name) for name in workspace.config.news.aliases]
    return Linker(AliasTable.merge(AliasTable.known(), *tables) if tables else AliasTable.merge())


def find_tickers(workspace: Workspace) -> FindTickers:
    """What stores ask for the tickers of headlines that nobody has labelled."""
    return partial(workspace_linker(workspace).link_all, least=workspace.config.news.confidence)


def relink(workspace: Workspace, recorded_at: np.datetime64) -> int:
    """Look again at every headline that no feed or file labelled, with today's alias files; the links added.

    A new link is as old as its headline; one that exists is left as it is.
    """
    return store_links(workspace.lake, recorded_at, find_tickers(workspace))


def explain(workspace: Workspace, headline: str, at: np.datetime64 | None) -> list[dict[str, object]]:
    """Every candidate in `headline` at `at` (None: now), linked or not, with the reason."""
    moment = utc_now() if at is None else at
    candidates = workspace_linker(workspace).explain(headline, moment, workspace.config.news.confidence)
    return [
        {
            "ticker": link.ticker,
            "linked": link.accepted,
            "confidence": link.confidence,
            "rule": link.rule,
            "text": headline[link.start : link.end],
            "hindsight": link.hindsight,
            "why": link.why,
        }
        for link in candidates
    ]
