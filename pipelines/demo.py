"""`tapewire demo`: the whole chain on a simulated market, measured against what is attainable there."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from data.simulate import World, simulate, world, write
from encoders.text.load import resolve
from pipelines.ablate import Ablation
from pipelines.ablation import ablate_workspace
from pipelines.bundle import load_bundle
from pipelines.config import TapewireConfig, parse_config, to_toml
from pipelines.dataset import load_panel
from pipelines.embed import embed
from pipelines.fitting import keep
from pipelines.imports import import_headlines, import_prices
from pipelines.instants import utc_now
from pipelines.metrics import rank_ic
from pipelines.score import Ask, score
from pipelines.template import FILE
from pipelines.workspace import Workspace, replace_file

Say = Callable[[str], None]

# Chosen by trials on worlds 1000 and 1001 whose test folds were in view: those two worlds are no evidence.
SETTINGS = (
    "text.encoder=minilm",
    "price.lookback=10",
    "price.width=32",
    "fusion.dropout=0.3",
    "train.epochs=8",
    "train.learning_rate=0.002",
    "train.patience=3",
    "seeds=[0]",
)


@dataclass(frozen=True)
class Demo:
    """One world's ablation beside the rank IC that its true conditional means reach on the same rows."""

    ablation: Ablation
    oracle: dict[str, float]
    folder: Path
    verdict: str

    def as_dict(self) -> dict[str, object]:
        """The contract of `demo --json`."""
        return {**self.ablation.as_dict(), "oracle": self.oracle}


def run_demo(folder: Path, seed: int, placebo: bool, say: Say) -> Demo:
    """Simulate, import, embed, ablate, train and score in a folder of the world's own. May be run again."""
    name = "placebo" if placebo else "default"
    home = folder / f"{name}-{seed}"
    say(f"Simulating the {name} market of seed {seed} in {home}")
    market = simulate(world("placebo" if placebo else "default", seed))
    write(market, home / "sources")
    workspace = Workspace(home, _config(market))
    replace_file(home / FILE, to_toml(workspace.config).encode())
    _import(workspace, say)
    say("Embedding headlines")
    embedded = embed(workspace.lake, workspace.embeddings, workspace.config.text)
    say(f"{embedded.texts} texts, {embedded.embedded} embedded now")
    ablation, _notes, _path = ablate_workspace(workspace, say)
    oracle = oracle_rank_ic(ablation, market.oracle)
    # The ablation's `both` of the first seed is what `tapewire train` would fit again.
    config = workspace.config
    keep(ablation.fitted, load_panel(workspace, config), config, resolve(config.text), workspace)
    scored = score(workspace, load_bundle(workspace.runs), Ask(), utc_now)
    say(f"{len(scored.forecasts)} tickers scored for {scored.session}: {scored.path}")
    return Demo(ablation, oracle, home, _verdict(ablation, placebo))


def _config(market: World) -> TapewireConfig:
    dates = {"train_end": market.train_end, "valid_end": market.valid_end, "test_end": market.test_end}
    return parse_config({"split": dates}, SETTINGS, "the demo's settings")


def _import(workspace: Workspace, say: Say) -> None:
    sources, calendar = workspace.folder / "sources", workspace.config.calendar
    prices = import_prices(workspace.lake, [sources / "prices.parquet"], {}, calendar, basis="raw")
    news = import_headlines(workspace.lake, [sources / "headlines.parquet"], {}, calendar)
    say(f"Imported {prices.added} bars, {prices.actions_added} dividends and splits, {news.added} headlines")


def oracle_rank_ic(ablation: Ablation, oracle: pd.DataFrame) -> dict[str, float]:
    """The rank IC of the true conditional means, by what each variant may read, on the ablation's own rows."""
    rows = pd.DataFrame({"ticker": ablation.ticker, "session": ablation.session.astype("datetime64[s]")})
    truth = oracle.assign(session=oracle["session"].astype("datetime64[s]"))
    joined = rows.merge(truth, on=["ticker", "session"], how="left", validate="one_to_one")
    means = {name: joined[f"mean_{name}"].to_numpy(dtype="float64") for name in ablation.variants}
    return {name: float(rank_ic(mean, ablation.realised, ablation.days)[0]) for name, mean in means.items()}


def _verdict(ablation: Ablation, placebo: bool) -> str:
    """The paired difference in one sentence, as the interval allows it."""
    gain = ablation.paired["both-price"]["rank_ic"]
    if gain.mean is None or gain.low is None or gain.high is None:
        return "Too few tickers a day for a rank IC."
    said = "No evidence that text adds to price"
    if gain.low > 0 or gain.high < 0:
        said = "Text adds to price" if gain.low > 0 else "Text takes away from price"
    fact = " (in this market it cannot)" if placebo else ""
    interval = f"{gain.mean:+.4f}, 95% interval {gain.low:+.4f} to {gain.high:+.4f}"
    return f"{said}{fact}: both - price in rank IC is {interval}."
