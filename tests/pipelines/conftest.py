"""What the tests of the nightly job share: a workspace on the eve of the first night, made once a process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace, with a champion and a challenger; tests leave it as it is."""
    from simulated_nights import build

    return build(tmp_path_factory.mktemp("nights") / "start")


@pytest.fixture
def at_desk(start: Path, tmp_path: Path) -> Iterator[Any]:
    """A copy to change. Its nights ingest prices alone, as most do without the wire, which takes a while."""
    from simulated_nights import PRICES, desk

    with desk(start, tmp_path / "desk") as opened:
        opened.overrides = [PRICES]
        yield opened
