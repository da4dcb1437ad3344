import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.features import FEATURES
from data.panel import Panel
from data.splits import Fold, make_folds
from data.windows import Samples
from pipelines.config import TapewireConfig
from pipelines.dataset import load_panel
from pipelines.predict import predict
from pipelines.scorecard import drift
from pipelines.scorecard.drift import HEADLINES, MEAN, ROWS, SCALE, input_drift, threshold
from pipelines.scorecard.measures import MEASURES
from pipelines.scorecard.reference import reference
from pipelines.train import Fitted, fit
from pipelines.workspace import open_workspace

Made = tuple[Fitted, Panel, Any, TapewireConfig, Fold]


@pytest.fixture(scope="module")
def made(imported: Path) -> Made:
    """A model of prices, and what it was fitted on."""
    workspace = open_workspace(imported, ["fusion.kind=price_only", "train.epochs=1"])
    panel = load_panel(workspace, workspace.config)
    nothing = np.zeros((len(panel.news.texts), 1), dtype=np.float16)
    fold = make_folds(workspace.config.split, panel.sessions)[-1]
    return fit(panel, nothing, fold, workspace.config, 0), panel, nothing, workspace.config, fold


@pytest.fixture(scope="module")
def known(made: Made) -> dict[str, Any]:
    return reference(*made)


def test_it_is_json_finite_and_the_same_again(made: Made, known: dict[str, Any]) -> None:
    text = json.dumps(known, allow_nan=False, sort_keys=True)
    assert text == json.dumps(reference(*made), allow_nan=False, sort_keys=True)
    assert json.loads(text) == known


def test_every_input_has_a_histogram_or_is_named_as_shared(known: dict[str, Any]) -> None:
    assert set(known["inputs"]) | set(known["shared"]) == {*FEATURES, HEADLINES, MEAN, SCALE}
    assert {"weekday_sin", "weekday_cos", "market_return"} <= set(known["shared"])
    for name, kept in known["inputs"].items():
        assert len(kept["counts"]) == len(kept["edges"]) + 1, name
        assert (np.diff(kept["edges"]) > 0).all()
        assert kept["usual"] >= 0
    shares = np.array(known["inputs"]["return"]["counts"])
    np.testing.assert_allclose(shares / shares.sum(), 0.1, atol=0.005)


def test_histograms_are_of_training_rows_alone(made: Made, known: dict[str, Any]) -> None:
    fitted, panel, nothing, config, fold = made
    features = panel.features.copy()
    features[:, fold.train[-1] + 1 :] += 1
    later = reference(fitted, replace(panel, features=features), nothing, config, fold)
    assert {name: later["inputs"][name] for name in FEATURES if name in later["inputs"]} == {
        name: known["inputs"][name] for name in FEATURES if name in known["inputs"]
    }


def test_the_band_is_the_model_on_its_test_fold(made: Made, known: dict[str, Any]) -> None:
    fitted, panel, nothing, config, fold = made
    band = known["band"]
    assert set(MEASURES) <= set(band)
    settled = ~np.isnan(panel.labels[config.target])[:, fold.test]
    assert (band["nights"], band["rows"]) == (settled.any(axis=0).sum(), settled.sum())
    rows = Samples(np.arange(8), np.full(8, fold.test[0]))
    forecast = predict(fitted, panel, nothing, rows, config)
    assert band["hit_rate"]["low"] <= band["hit_rate"]["mean"] <= band["hit_rate"]["high"]
    assert 0.5 < band["coverage_80"]["mean"] < 1
    assert known["inputs"][SCALE]["edges"][0] > 0
    assert forecast.scale.min() > 0
    for name in MEASURES:
        assert {"mean", "sd", "low", "high", "days"} == set(band[name])


def test_without_settled_test_rows_there_is_no_band(made: Made) -> None:
    fitted, panel, nothing, config, fold = made
    unknown = panel.labels[config.target].copy()
    unknown[:, fold.test] = np.nan
    found = reference(fitted, replace(panel, labels={config.target: unknown}), nothing, config, fold)
    assert found["band"] is None
    assert {MEAN, SCALE} <= set(found["inputs"])
    json.dumps(found, allow_nan=False)


def test_cells_beyond_the_caps_are_left_out_evenly(
    made: Made, known: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.scorecard.reference.MOST_SESSIONS", 20)
    monkeypatch.setattr("pipelines.scorecard.reference.MOST_ROWS", 100)
    found = reference(*made)
    assert found["band"]["rows"] <= 100
    assert found["band"]["nights"] == 12
    assert sum(found["inputs"]["return"]["counts"]) <= 20 * 8
    assert found["band"]["sessions"] == known["band"]["sessions"]


def test_a_night_as_ever_has_no_unusual_input(made: Made, known: dict[str, Any]) -> None:
    fitted, panel, nothing, config, fold = made
    rows = Samples(np.arange(8), np.full(8, fold.test[3]))
    forecast = predict(fitted, panel, nothing, rows, config)
    found = input_drift(panel, rows, known, forecast)
    assert found[ROWS] == 8
    assert set(found) == {ROWS, *known["inputs"]}
    assert set(input_drift(panel, rows, known)) == {ROWS, *known["inputs"]} - {MEAN, SCALE}
    assert drift.unusual(found, known) == {}


def test_an_input_that_moved_is_found_and_no_other(made: Made, known: dict[str, Any]) -> None:
    _, panel, _, _, fold = made
    features = panel.features.copy()
    features[..., FEATURES.index("volume_z")] += 20
    sessions = np.repeat(fold.test[:6], 8)
    rows = Samples(np.tile(np.arange(8), 6), sessions)
    found = input_drift(replace(panel, features=features), rows, known)
    assert found[ROWS] == 48
    before = drift.unusual(input_drift(panel, rows, known), known)
    assert set(drift.unusual(found, known)) - set(before) == {"volume_z"}
    assert found["volume_z"] > threshold(known["inputs"]["volume_z"], 48)


def test_headlines_that_stopped_are_a_drift(made: Made, known: dict[str, Any]) -> None:
    _, panel, _, _, fold = made
    rows = Samples(np.tile(np.arange(8), 6), np.repeat(fold.test[:6], 8))
    silent = replace(panel.news, own=replace(panel.news.own, start=np.zeros_like(panel.news.own.start)))
    before = input_drift(panel, rows, known)[HEADLINES]
    assert input_drift(replace(panel, news=silent), rows, known)[HEADLINES] > before


def test_no_reference_and_no_rows(made: Made, known: dict[str, Any]) -> None:
    panel = made[1]
    none = Samples(np.empty(0, np.int64), np.empty(0, np.int64))
    assert input_drift(panel, none, None) == {}
    assert input_drift(panel, none, known) == {ROWS: 0.0}
