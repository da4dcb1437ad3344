"""Pretraining inside `fit`, and the paths a user draws from a trained model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data.adjust import UNIT_DECAY, average
from data.errors import ConfigError, LakeError, ModelError
from data.panel import Panel
from data.scaling import Scaler
from data.splits import Fold, make_folds
from encoders.price import LSTMConfig
from encoders.price.tokens import Decoding, TokensConfig
from fusion.price_only import PriceOnlyConfig
from pipelines.bundle import Bundle, load_bundle
from pipelines.dataset import load_panel, training_rows
from pipelines.fitting import train
from pipelines.paths import Ask, draw_paths, outlook_table, parse_decoding, returns_of
from pipelines.pretrain import training_bars
from pipelines.train import fit
from pipelines.workspace import Workspace, open_workspace

TOKENS = TokensConfig(lookback=10, width=16, bins=8, shape_bins=2, pretrain=20)


def reading(workspace: Workspace, price: Any, **keys: Any) -> Workspace:
    """The same workspace, whose models read prices alone, with `price`."""
    config = workspace.config
    short = config.train.model_copy(update={"epochs": 1})
    changed = {"price": price, "fusion": PriceOnlyConfig(), "train": short, **keys}
    return replace(workspace, config=config.model_copy(update=changed))


@pytest.fixture(scope="module")
def workspace(imported: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The lake of `imported`, and runs and reports of its own."""
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "lake").symlink_to(imported / "lake")
    return reading(Workspace(folder, open_workspace(imported).config), TOKENS)


@pytest.fixture(scope="module")
def bundle(workspace: Workspace) -> Bundle:
    train(workspace)
    return load_bundle(workspace.runs)


@pytest.fixture(scope="module")
def panel(workspace: Workspace) -> Panel:
    return load_panel(workspace, workspace.config)


def newest(panel: Panel, workspace: Workspace) -> Fold:
    return make_folds(workspace.config.split, panel.sessions)[-1]


def test_pretraining_reads_the_rows_the_scaler_was_fitted_on(panel: Panel, workspace: Workspace) -> None:
    fold = newest(panel, workspace)
    rows = training_rows(panel, fold)
    scaler, columns = Scaler.fit(rows), (0, 1, 3, 4)
    bars, mask = training_bars(panel, fold, scaler, columns)
    expected = ((rows - scaler.centre) * scaler.scale).clip(-scaler.limit, scaler.limit)[:, columns]
    np.testing.assert_allclose(bars[mask].numpy(), expected, rtol=1e-6)
    later = replace(fold, train=fold.train[30:])
    assert training_bars(panel, later, scaler, columns)[0].shape[1] == len(fold.train) - 30


def test_what_comes_after_the_training_fold_changes_nothing_of_the_language(panel: Panel, workspace: Workspace) -> None:
    """Validation and test sessions are replaced by noise: quantiser and language model stay the same, bit for bit."""
    fold, noise = newest(panel, workspace), np.random.default_rng(0)
    features = panel.features.copy()
    after = features[:, fold.train[-1] + 1 :]
    after[:] = np.where(panel.mask[:, fold.train[-1] + 1 :, None], noise.standard_t(3, after.shape), 0)
    texts = np.zeros((len(panel.news.texts), 1), dtype=np.float16)
    fitted = [fit(each, texts, fold, workspace.config, 0) for each in (panel, replace(panel, features=features))]
    first, second = (each.model.price.state_dict() for each in fitted)
    fixed = [name for name in first if name.startswith(("quantiser.", "language."))]
    assert [name for name in fixed if not first[name].equal(second[name])] == []
    assert len(fixed) > 10
    assert fitted[0].valid_loss != fitted[1].valid_loss, "the change was none"


def test_the_bundle_carries_the_language(bundle: Bundle, workspace: Workspace) -> None:
    again = load_bundle(workspace.runs, bundle.model_id)
    first, second = (each.fitted.model.price.state_dict() for each in (bundle, again))
    assert bool(first["pretrained"])
    assert all(first[name].equal(second[name]) for name in first)


@pytest.fixture(scope="module")
def ticker(panel: Panel) -> str:
    return panel.tickers[int(np.flatnonzero(panel.observed.all(1))[0])]


def test_paths_are_a_distribution(bundle: Bundle, workspace: Workspace, panel: Panel, ticker: str) -> None:
    outlook = draw_paths(workspace, bundle, ticker, None, Ask(paths=300, horizon=4))
    assert outlook.returns_NH.shape == (300, 4)
    assert outlook.quantiles.shape == (4, 7)
    assert (np.diff(outlook.quantiles, axis=1) > 0).all()
    assert ((outlook.prob_up > 0.1) & (outlook.prob_up < 0.9)).all()
    spread = outlook.quantiles[:, 5] - outlook.quantiles[:, 1]
    assert (np.diff(spread) > 0).all(), "further ahead is less certain"
    unit = panel.unit[panel.tickers.index(ticker), -1]
    assert 1 < spread[0] / unit < 5  # a normal's 80% interval is 2.6 volatilities wide
    assert len(outlook.sessions) == 4
    assert (np.diff(outlook.sessions) > np.timedelta64(0, "D")).all()
    assert outlook.sessions[0] > panel.sessions.labels[-1]


def test_what_is_printed_published_and_drawn_is_the_same(bundle: Bundle, workspace: Workspace, ticker: str) -> None:
    outlook = draw_paths(workspace, bundle, ticker, None, Ask(paths=40, horizon=3))
    rows = pd.read_parquet(outlook.path)
    assert list(rows.columns) == ["ticker", "path", "session", "log_return", "cumulated"]
    assert (rows["ticker"] == ticker).all()
    np.testing.assert_array_equal(rows["log_return"].to_numpy().reshape(40, 3), outlook.returns_NH)
    np.testing.assert_allclose(rows.groupby("path")["log_return"].cumsum(), rows["cumulated"])
    said = outlook.as_dict()
    assert set(said) == {"ticker", "decision_at", "model", "paths", "levels", "days", "path"}
    assert [day["session"] for day in said["days"]] == [str(day) for day in outlook.sessions]  # type: ignore[attr-defined]
    shown = outlook_table(outlook)
    assert all(str(day) in shown for day in outlook.sessions)
    assert "P(up)" in shown


def test_one_seed_one_set_of_paths(bundle: Bundle, workspace: Workspace, panel: Panel, ticker: str) -> None:
    draw = [draw_paths(workspace, bundle, ticker, None, Ask(paths=20, seed=seed)).returns_NH for seed in (1, 1, 2)]
    assert np.array_equal(draw[0], draw[1])
    assert not np.array_equal(draw[0], draw[2])
    greedy = draw_paths(workspace, bundle, ticker, None, Ask(paths=20, decoding=Decoding(greedy=True)))
    assert greedy.returns_NH.shape == (1, 5)
    narrow = draw_paths(workspace, bundle, ticker, None, Ask(paths=200, decoding=Decoding(top_p=0.3)))
    plain = draw_paths(workspace, bundle, ticker, None, Ask(paths=200))
    assert np.ptp(narrow.quantiles[0]) < np.ptp(plain.quantiles[0])


def test_paths_as_of_a_past_decision_read_no_later_bar(
    bundle: Bundle, workspace: Workspace, panel: Panel, ticker: str
) -> None:
    session = panel.sessions.labels[-30]
    past = draw_paths(workspace, bundle, ticker, session, Ask(paths=10))
    assert past.sessions[0] == panel.sessions.target[-30]
    assert not past.in_sample
    cut = load_panel(workspace, workspace.config, session)
    assert cut.sessions.labels[-1] == session
    assert not np.array_equal(past.returns_NH, draw_paths(workspace, bundle, ticker, None, Ask(paths=10)).returns_NH)
    early = draw_paths(workspace, bundle, ticker, panel.sessions.labels[60], Ask(paths=10))
    assert early.in_sample


@pytest.mark.parametrize(
    ("name", "ask", "error", "message"),
    [
        ("NOPE", Ask(), LakeError, "NOPE"),
        (None, Ask(horizon=5000), ConfigError, "--horizon 5000"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    bundle: Bundle, workspace: Workspace, ticker: str, name: str | None, ask: Ask, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        draw_paths(workspace, bundle, name or ticker, None, ask)


def test_a_ticker_without_enough_bars_is_refused(
    bundle: Bundle, workspace: Workspace, panel: Panel, ticker: str
) -> None:
    with pytest.raises(LakeError, match=rf"{ticker}: expected a bar for .* at least 10 of them .* found a bar and 3"):
        draw_paths(workspace, bundle, ticker, panel.sessions.labels[2], Ask())


def test_another_kind_of_model_has_no_paths(workspace: Workspace, ticker: str, tmp_path: Path) -> None:
    (tmp_path / "lake").symlink_to((workspace.folder / "lake").resolve())
    other = reading(Workspace(tmp_path, workspace.config), LSTMConfig(lookback=10, width=8))
    train(other)
    with pytest.raises(ModelError, match=r"found one that reads lstm\. Train one with .*price\.kind=tokens"):
        draw_paths(other, load_bundle(other.runs), ticker, None, Ask())


def test_options_that_make_no_sense_are_named() -> None:
    with pytest.raises(ConfigError, match="top_p: expected a share"):
        parse_decoding(1.0, None, 1.5, greedy=False)
    assert parse_decoding(0.5, 3, 0.9, greedy=True) == Decoding(0.5, 3, 0.9, greedy=True)


@pytest.mark.parametrize("bars", [1, 21, 60, 500])
def test_moves_become_the_returns_they_were_made_of(bars: int) -> None:
    rng = np.random.default_rng(bars)
    returns = 0.02 * rng.standard_t(4, (1, 1000))
    unit = np.sqrt(average(returns**2, UNIT_DECAY))
    moves = returns / unit
    found = returns_of(moves[:, bars:], float(unit[0, bars - 1]), bars)
    np.testing.assert_allclose(found, returns[:, bars:], rtol=1e-9)


def test_a_move_beyond_what_a_volatility_allows_stays_finite() -> None:
    moves = np.array([[4.5, 0.0, -4.5]])
    returns = returns_of(moves, 0.01, 500)
    assert np.isfinite(returns).all()
    assert (np.sign(returns) == np.sign(moves)).all()
