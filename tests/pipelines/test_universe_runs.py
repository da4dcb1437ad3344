"""A universe by date in a workspace: who is trained on, tested and scored, and what a reader is told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.dataset import eligible, load_panel
from pipelines.workspace import Workspace, open_workspace

Tapewire = Callable[..., Any]


def members(workspace: Path, rows: list[tuple[str, str, str]]) -> str:
    """A --set for a universe of these rows."""
    lines = ["ticker,from,to", *(",".join(row) for row in rows)]
    (workspace / "members.csv").write_text("\n".join(lines) + "\n")
    return "universe=members.csv"


@pytest.fixture
def rows(market: Any) -> list[tuple[str, str, str]]:
    """All tickers from the first day; the first leaves a while before the end, the second joins in the test fold."""
    days = np.sort(market.prices["date"].unique())
    leaves, joins = (str(pd.Timestamp(days[at]).date()) for at in (-30, -20))
    tickers = sorted(market.prices["ticker"].unique())
    return [
        (tickers[0], "2000-01-01", leaves),
        (tickers[1], joins, ""),
        *((name, "2000-01-01", "") for name in tickers[2:]),
    ]


def load(workspace: Path, *sets: str) -> tuple[Workspace, Any]:
    opened = open_workspace(workspace, sets)
    return opened, load_panel(opened, opened.config)


def test_only_members_are_samples_and_make_the_market(fresh: Path, rows: list[tuple[str, str, str]]) -> None:
    _, whole = load(fresh)
    _, panel = load(fresh, members(fresh, rows))
    assert panel.tickers == whole.tickers
    usable = eligible(panel, 10)
    assert not usable[0, -30:].any()
    assert usable[0, :-30].any()
    assert not usable[1, :-20].any()
    assert usable[1, -20:].any()
    np.testing.assert_array_equal(usable[2:], eligible(whole, 10)[2:])
    np.testing.assert_array_equal(panel.features[..., :-2], whole.features[..., :-2])
    assert not np.array_equal(panel.features[2:, :, -2:], whole.features[2:, :, -2:])


def test_who_joins_or_leaves_later_changes_nothing_before(fresh: Path, rows: list[tuple[str, str, str]]) -> None:
    _, before = load(fresh, members(fresh, rows))
    changed = [rows[0], (rows[1][0], str(before.sessions.labels[-5]), ""), *rows[2:]]  # joins 15 sessions later
    _, after = load(fresh, members(fresh, changed))
    for name in ("features", "mask", "member"):
        np.testing.assert_array_equal(getattr(before, name)[:, :-20], getattr(after, name)[:, :-20])


def test_a_reader_is_told_who_was_delisted_and_scores_abstain(
    workspace: Path, rows: list[tuple[str, str, str]], tapewire: Tapewire
) -> None:
    done = tapewire(workspace, "ablate", "--json", "--set", members(workspace, rows))
    assert done.code == 0, done.err
    assert "survivorship" in done.err
    scored = tapewire(workspace, "score", "--json", "--set", "universe=members.csv").json
    assert scored["abstained"].keys() == {rows[0][0]}
    assert "not in the universe" in scored["abstained"][rows[0][0]]


def test_a_missing_file_is_named(workspace: Path, tapewire: Tapewire) -> None:
    refused = tapewire(workspace, "train", "--set", "universe=nowhere.csv")
    assert (refused.code, refused.out) == (2, "")
    assert "nowhere.csv" in refused.err
