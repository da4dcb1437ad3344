import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

Tapewire = Callable[..., Any]

METRICS = {"rank_ic", "accuracy", "mcc", "auc", "brier", "pinball"}
INTERVAL = {"mean", "low", "high"}


@pytest.fixture(scope="module")
def ran(trained: Path, tapewire: Tapewire, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An ablation with two seeds."""
    folder = Path(shutil.copytree(trained, tmp_path_factory.mktemp("ablated") / "workspace"))
    done = tapewire(folder, "ablate", "--set", "seeds=[3, 1]", "--json")
    assert done.code == 0, done.err
    return done, folder


def test_the_contract_of_json(ran: Any, market: Any) -> None:
    result = ran[0].json
    assert set(result) == {"variants", "paired", "n_sessions", "n_rows", "seeds"}
    assert set(result["variants"]) == {"price", "text", "both"}
    assert "both-price" in result["paired"]
    for table in (result["variants"], result["paired"]):
        assert all(set(metrics) == METRICS for metrics in table.values())
        assert all(set(value) == INTERVAL for metrics in table.values() for value in metrics.values())
    targets = market.oracle["target_session"]
    tested = targets[(targets >= pd.Timestamp(market.valid_end)) & market.oracle["realised"].notna()]
    assert result["n_sessions"] == tested.nunique()
    assert result["n_rows"] == len(tested)
    assert result["seeds"] == [3, 1]


def test_intervals_surround_their_estimates(ran: Any) -> None:
    result = ran[0].json
    for metrics in (*result["variants"].values(), *result["paired"].values()):
        assert all(value["low"] <= value["mean"] <= value["high"] for value in metrics.values())
    assert all(
        0 <= metrics["accuracy"]["low"] <= metrics["accuracy"]["high"] <= 1 for metrics in result["variants"].values()
    )


def test_a_paired_difference_is_that_of_the_variants(ran: Any) -> None:
    result = ran[0].json
    for metric in METRICS:
        both, price = (result["variants"][name][metric]["mean"] for name in ("both", "price"))
        assert result["paired"]["both-price"][metric]["mean"] == pytest.approx(both - price, abs=1e-12)


def test_the_report_holds_the_same_and_each_seeds_own(ran: Any) -> None:
    done, folder = ran
    (path,) = (folder / "reports").glob("*.json")
    report = json.loads(path.read_text())
    assert {name: report[name] for name in done.json} == done.json
    assert report["config"]["price"]["lookback"] == 10
    own = [report["per_seed"]["price"][seed]["brier"]["mean"] for seed in ("3", "1")]
    assert own[0] != own[1]
    assert done.json["variants"]["price"]["brier"]["mean"] == pytest.approx(sum(own) / 2, abs=1e-12)


def test_the_same_seeds_give_the_same_numbers(workspace: Path, tapewire: Tapewire) -> None:
    first, second = (tapewire(workspace, "ablate", "--json").json for _ in range(2))
    assert first == second


def test_the_table_shows_every_variant_and_metric(workspace: Path, tapewire: Tapewire) -> None:
    shown = tapewire(workspace, "ablate").out
    assert [word for word in (*METRICS, "price", "text", "both", "both-price", "95%") if word not in shown] == []


def test_rank_ic_is_null_for_four_tickers(workspace: Path, market: Any, tapewire: Tapewire) -> None:
    few = sorted(market.prices["ticker"].unique())[:4]
    result = tapewire(workspace, "ablate", "--set", f"watchlist={few}", "--json").json
    nothing = dict.fromkeys(INTERVAL)
    assert all(metrics["rank_ic"] == nothing for metrics in (*result["variants"].values(), *result["paired"].values()))
    assert result["variants"]["both"]["accuracy"]["mean"] is not None


def test_a_ticker_with_too_few_sessions_is_skipped_and_named(workspace: Path, market: Any, tapewire: Tapewire) -> None:
    prices = market.prices[market.prices["ticker"] == market.prices["ticker"].iloc[0]].tail(9)
    prices.assign(ticker="SHRT").to_parquet(workspace / "short.parquet")
    assert tapewire(workspace, "import", "prices", "short.parquet", "--basis", "raw").code == 0
    for command in ("ablate", "train"):
        done = tapewire(workspace, command, "--json")
        assert done.code == 0, done.err
        assert "SHRT" in done.err
        assert done.json


@pytest.mark.parametrize("kind", ["price_only", "text_only"])
def test_a_fusion_that_reads_one_input_cannot_be_ablated(workspace: Path, tapewire: Tapewire, kind: str) -> None:
    refused = tapewire(workspace, "ablate", "--set", f"fusion.kind={kind}")
    assert (refused.code, refused.out) == (2, "")
    assert kind in refused.err
    assert not list((workspace / "reports").glob("*.json"))


@pytest.mark.parametrize(
    "sets",
    [["fusion.kind=concat"], ["fusion.kind=cross_attention", "price.kind=transformer", "price.heads=2"],
     ["split.train_start=2018-03-01"], ["target=overnight"], ["target=open_close"], ["train.accumulate=2"]],
    ids=" ".join,
)  # fmt: skip
def test_other_variants_run_the_same_way(workspace: Path, tapewire: Tapewire, sets: list[str]) -> None:
    options = [part for each in [*sets, "train.epochs=1"] for part in ("--set", each)]
    assert tapewire(workspace, "train", "--promote", *options).code == 0
    done = tapewire(workspace, "score", "--json")
    assert done.json["scored"] == 8


@pytest.mark.parametrize(
    ("sets", "named"),
    [
        (["split.train_end=2010-01-01"], "train_end"),
        (["price.lookback=250"], "lookback"),
        (["watchlist=['NOPE']"], "NOPE"),
    ],
)
def test_a_fold_without_samples_says_why(workspace: Path, tapewire: Tapewire, sets: list[str], named: str) -> None:
    refused = tapewire(workspace, "ablate", *(part for each in sets for part in ("--set", each)))
    assert (refused.code, refused.out) == (2, "")
    assert named in refused.err or "train on" in refused.err
    assert "Traceback" not in refused.err
