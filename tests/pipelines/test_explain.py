"""Which days a forecast hangs on: what is planted is found, and what is explained is what `score` forecasts."""

import json
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from pydantic import TypeAdapter

from data.errors import LakeError, ModelError
from data.lake import Lake
from data.scaling import Scaler
from data.types import Batch, NewsBatch
from encoders.price import PriceEncoderConfig
from fusion.calibration import Calibration
from fusion.head import nll
from fusion.kinds import FusionConfig
from fusion.model import build_model
from pipelines.bundle import load_bundle
from pipelines.decision import gather_decision
from pipelines.explain import SHOWN, attention_of, explain, explained_table, influences, median
from pipelines.train import Fitted
from pipelines.workspace import open_workspace

Tapewire = Callable[..., Any]

B, L, F, E, BACK = 256, 8, 3, 4, 3


def batch(seed: int, rows: int = B) -> Batch:
    """A world in which the first feature of three sessions back is all that matters."""
    draw = torch.Generator().manual_seed(seed)
    price_BLF = torch.randn(rows, L, F, generator=draw)
    news = NewsBatch(
        torch.randn(rows, 2, E, generator=draw),
        torch.rand(rows, 2, generator=draw) < 0.5,
        torch.zeros(rows, 2, dtype=torch.int64),
        torch.ones(rows, 2, dtype=torch.int64),
    )
    noise_B = 0.3 * torch.randn(rows, generator=draw)
    return Batch(
        price_BLF=price_BLF,
        mask_BL=torch.ones(rows, L, dtype=torch.bool),
        news=news,
        market=news.none(),
        market_row_B=torch.arange(rows),
        target_B=price_BLF[:, -1 - BACK, 0] + noise_B,
        unit_B=torch.full((rows,), 0.02),
        session_B=torch.arange(rows),
    )


def fitted(kind: str, fusion: str = "price_only", steps: int = 120) -> Fitted:
    torch.manual_seed(0)
    price = TypeAdapter(PriceEncoderConfig).validate_python({"kind": kind, "lookback": L, "width": 16, "dropout": 0})
    model = build_model(price, TypeAdapter(FusionConfig).validate_python({"kind": fusion}), F, E, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(steps):
        optimizer.zero_grad()
        one = batch(step)
        nll(model(one), one.target_B).backward()
        optimizer.step()
    scaler = Scaler(np.zeros(F, np.float32), np.ones(F, np.float32))
    calibration = Calibration(text=0.4, scale=1.0, df=5.0)
    return Fitted(model.eval(), scaler, scaler, calibration, 0.0, 1, np.datetime64("2020-01-01", "us"))


@pytest.mark.parametrize(("kind", "fusion"), [("lstm", "gated"), ("transformer", "price_only")])
def test_the_session_that_matters_is_found(kind: str, fusion: str) -> None:
    found = np.abs(influences(fitted(kind, fusion), batch(999))).mean(axis=0)
    assert found.shape == (L,)
    assert found.argmax() == L - 1 - BACK
    others = np.delete(found, L - 1 - BACK)
    assert found.max() > 3 * others.max()


def test_influence_is_the_change_of_the_calibrated_median() -> None:
    """By hand: the forecast with news and without, weighed by the calibration, before and after."""
    model, one = fitted("lstm", "gated", steps=3), batch(5, rows=4)
    found = influences(model, one)
    price_BLF = one.price_BLF.clone()
    price_BLF[:, 2] = 0

    def by_hand(samples: Batch) -> np.ndarray:
        with torch.inference_mode():
            news, silence = model.model(samples), model.model(samples.without_news())
        return (0.6 * silence.location_B + 0.4 * news.location_B).double().numpy()

    expected = by_hand(one) - by_hand(replace(one, price_BLF=price_BLF))
    np.testing.assert_allclose(found[:, 2], expected, atol=1e-6)
    np.testing.assert_allclose(median(model, one), by_hand(one), atol=1e-6)


def test_a_session_that_was_not_observed_has_no_influence_and_no_attention() -> None:
    model, one = fitted("transformer", steps=3), batch(5, rows=4)
    one.mask_BL[1, 3] = False
    one.price_BLF[1, 3] = 0
    attention = attention_of(model, one)
    assert attention is not None
    assert attention.shape == (4, L)
    np.testing.assert_allclose(attention.sum(axis=1), 1, atol=1e-6)
    assert (attention >= 0).all()
    assert influences(model, one)[1, 3] == attention[1, 3] == 0


def test_an_encoder_that_attends_to_nothing_has_no_attention() -> None:
    assert attention_of(fitted("lstm", steps=1), batch(5, rows=4)) is None


@pytest.fixture(scope="module", params=["lstm", "transformer"])
def home(request: Any, imported: Path, tapewire: Tapewire, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a price-only model of each kind."""
    folder = Path(shutil.copytree(imported, tmp_path_factory.mktemp("explained") / request.param))
    tables = tomllib.loads((folder / "tapewire.toml").read_text())
    tables["price"] = {"kind": request.param, "lookback": 10, "width": 8}
    tables["fusion"] = {"kind": "price_only"}
    (folder / "tapewire.toml").write_text(tomli_w.dumps(tables))
    done = tapewire(folder, "train")
    assert done.code == 0, done.err
    return folder


def explained(folder: Path, ticker: str | None, session: str | None = None, sets: tuple[str, ...] = ()) -> Any:
    workspace = open_workspace(folder, sets)
    return explain(
        workspace, load_bundle(workspace.runs), ticker, None if session is None else np.datetime64(session, "D")
    )


def ticker_of(folder: Path) -> str:
    return str(sorted(Lake(folder / "lake").frame("bars", ["ticker"])["ticker"].unique())[0])


def test_what_is_explained_is_what_score_forecasts(home: Path, tapewire: Tapewire, tmp_path: Path) -> None:
    """To the last bit, where both read this ticker alone: how many samples a batch has may move that bit."""
    folder = Path(shutil.copytree(home, tmp_path / "scored"))
    ticker = ticker_of(folder)
    alone = f"watchlist=['{ticker}']"
    told = explained(folder, ticker, "2018-12-03", (alone,))
    scored = tapewire(folder, "score", "--as-of", "2018-12-03", "--set", alone, "--json").json
    assert (told.session, told.decision_at) == (scored["session"], scored["decision_at"])
    forecast = Lake(folder / "lake").current("forecasts").set_index("ticker").loc[ticker]
    assert told.model_id == forecast["model_id"]
    workspace = open_workspace(folder)
    panel = gather_decision(workspace, load_bundle(workspace.runs), np.datetime64("2018-12-03", "D")).panel
    unit = panel.unit[panel.tickers.index(ticker), -1]  # a median is in units of volatility, a forecast in log return
    assert told.median * unit == forecast["mean"]
    for other in (explained(folder, ticker, "2018-12-04", (alone,)), explained(folder, ticker, "2018-12-03")):
        assert other.median * unit != forecast["mean"]  # of another day, or ranked among other tickers
    rows = Lake(folder / "lake").current("bars")
    closes = rows[(rows["ticker"] == ticker) & (rows["session"] <= "2018-12-03")].sort_values("session")["close"]
    days = told.days
    assert [day.back for day in days] == list(range(9, -1, -1))
    assert days[-1].session == "2018-12-03"
    assert days[-1].log_return == pytest.approx(np.log(closes.iloc[-1] / closes.iloc[-2]), abs=0.02)  # dividends


def test_json_and_table(home: Path) -> None:
    told = explained(home, ticker_of(home))
    record = json.loads(json.dumps(told.as_dict(), allow_nan=False))
    assert set(record) == {"tickers", "session", "decision_at", "model_id", "kind", "median", "days"}
    assert set(record["days"][0]) == {"back", "session", "observed", "log_return", "influence", "attention"}
    shown = explained_table(told)
    attends = told.kind == "transformer"
    assert ("attends to nothing" in shown) != attends
    assert ("not what caused" in shown) == attends
    first = max(told.days, key=lambda day: abs(day.influence))
    assert shown.splitlines()[2].startswith(first.session)
    assert len(shown.splitlines()) == 4 + min(SHOWN, len(told.days))


def test_without_a_ticker_it_is_the_mean_of_all(home: Path) -> None:
    every = explained(home, None)
    assert (len(every.tickers), every.median) == (8, None)
    alone = [explained(home, ticker) for ticker in every.tickers]
    for at, day in enumerate(every.days):
        assert day.influence == pytest.approx(np.mean([abs(one.days[at].influence) for one in alone]), abs=1e-6)
        assert day.log_return is None
    if every.days[0].attention is not None:
        assert sum(day.attention for day in every.days) == pytest.approx(1)
    assert "the mean of 8 tickers" in explained_table(every)


def test_nothing_after_the_decision_is_read(home: Path) -> None:
    """Without the bars that came later the answer is the same, to the last bit."""
    from deltalake import DeltaTable

    before = explained(home, ticker_of(home), "2018-11-01")
    later = Path(shutil.copytree(home, home.parent / "cut"))
    DeltaTable(str(later / "lake" / "bars")).delete("session > '2018-11-01'")
    assert explained(later, ticker_of(home), "2018-11-01") == before
    shutil.rmtree(later)


@pytest.mark.parametrize(
    ("ticker", "session", "sets", "named"),
    [
        ("NOPE", None, (), "NOPE"),
        ("NOPE", None, ("watchlist=['NOPE','GONE']",), "bars"),
        (None, "2018-12-25", (), "closed"),
        (None, "2018-01-03", (), "scored"),
    ],
)
def test_what_cannot_be_explained_says_why(
    home: Path, ticker: str | None, session: str | None, sets: tuple[str, ...], named: str
) -> None:
    with pytest.raises(LakeError, match=named):
        explained(home, ticker, session, sets)


def test_a_workspace_without_a_model(imported: Path) -> None:
    with pytest.raises(ModelError, match="train"):
        explained(imported, None)


def test_the_command_line(home: Path, tapewire: Tapewire) -> None:
    ticker = ticker_of(home)
    done = tapewire(home, "explain", ticker.lower(), "--as-of", "2018-12-03", "--json")
    assert done.code == 0, done.err
    assert done.json["tickers"] == [ticker]
    assert len(done.json["days"]) == 10
    assert tapewire(home, "explain").code == 0
    refused = tapewire(home, "explain", "NOPE")
    assert (refused.code, refused.out) == (2, "")
    assert "NOPE" in refused.err
