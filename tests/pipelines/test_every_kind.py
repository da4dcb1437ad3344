"""Every kind of price encoder through `ablate` on a simulated market: it must learn what is there to be learnt."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from data.simulate import World, simulate, world, write
from encoders.price import PriceEncoderConfig
from pipelines.config import parse_config, to_toml

KINDS = sorted(config.model_fields["kind"].default for config in get_args(get_args(PriceEncoderConfig)[0]))
SETTINGS = ["price.lookback=16", "price.width=32", "train.epochs=8", "seeds=[0]"]


@pytest.fixture(scope="module")
def market() -> World:
    return simulate(world("default", 5).model_copy(update={"tickers": 24, "sessions": 1_000}))


@pytest.fixture(scope="module")
def prices(market: World, tapewire: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace without headlines: only the price encoder is at work."""
    folder = tmp_path_factory.mktemp("kinds")
    write(market, folder)
    dates = {"train_end": market.train_end, "valid_end": market.valid_end, "test_end": market.test_end}
    (folder / "tapewire.toml").write_text(to_toml(parse_config({"split": dates}, SETTINGS, "the test's settings")))
    assert tapewire(folder, "import", "prices", folder / "prices.parquet", "--basis", "raw").code == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_beats_the_line_of_no_skill(kind: str, prices: Path, tapewire: Callable[..., Any]) -> None:
    done = tapewire(prices, "ablate", "--set", f"price.kind={kind}", "--json")
    assert done.code == 0, done.err
    found = done.json["variants"]["price"]["rank_ic"]
    print(f"{kind}: rank IC {found['mean']:.4f} [{found['low']:.4f}, {found['high']:.4f}]")
    assert found["low"] > 0
