import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from settled_nights import CHALLENGER, CHAMPION, HOUR, Nights

from data.errors import LakeError, ModelError
from pipelines.nightly.page import _card
from pipelines.promotions import challenge, promote
from pipelines.scorecard import card
from pipelines.scorecard.card import scorecard
from pipelines.scorecard.measures import FEWEST_NIGHTS
from pipelines.scorecard.seal import seal

COUNTS = [50] * 10
BAND = {
    "rank_ic": {"mean": 0.0, "sd": 0.45, "low": -0.1, "high": 0.1, "days": 60},
    "coverage_80": {"mean": 0.8, "sd": 0.15, "low": 0.76, "high": 0.84, "days": 60},
}
REFERENCE = {"inputs": {"return": {"counts": COUNTS, "edges": list(range(9)), "usual": 0.1}}, "band": BAND}
LAST = 50
SETTLED_AT = "2023-12-29T21:00:00.000000"


def no_bundle(runs: Path, model_id: str) -> Any:
    raise ModelError(f"{runs}: expected model {model_id}, found none.")


@pytest.fixture
def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nights:
    """Fifty nights of a champion that knows nothing, and of a challenger that knows a little."""
    made = Nights(tmp_path / "world", tickers=tuple(f"T{ticker:02d}" for ticker in range(12)))
    promote(made.workspace.runs, CHAMPION, made.decided(0) - HOUR)
    challenge(made.workspace.runs, CHALLENGER, made.decided(0) - HOUR)
    frames = [made.drawn(night) for night in range(LAST)]
    frames += [made.drawn(night, CHALLENGER, skill=0.3) for night in range(LAST)]
    made.fill(frames)
    monkeypatch.setattr(card, "training_of", lambda runs, model_id: {"reference": REFERENCE, "settled_at": SETTLED_AT})
    return made


def read(nights: Nights, night: int = LAST) -> dict[str, Any]:
    found = scorecard(nights.workspace, lambda: nights.decided(night))
    text = json.dumps(found.as_dict(), allow_nan=False)
    assert found.markdown().startswith("# Scorecard")
    return dict(json.loads(text))


def test_each_model_has_its_live_measures_and_the_better_challenger_is_proposed(nights: Nights) -> None:
    found = read(nights)
    champion, challenger = found["models"]
    assert (champion["model_id"], champion["role"]) == (CHAMPION, "champion")
    assert (challenger["model_id"], challenger["role"]) == (CHALLENGER, "challenger")
    for model in (champion, challenger):
        live = model["live"]
        assert (live["nights"], live["rows"], live["waiting"], live["missing"]) == (LAST, LAST * 12, 0, 0)
        assert len(live["by_night"]["rank_ic"]) == LAST
        assert live["measures"]["rank_ic"]["days"] == LAST
        assert sum(live["calibration"]["found"]) == pytest.approx(1)
        assert live["error_drift"]["nights"] == FEWEST_NIGHTS
    assert challenger["live"]["measures"]["rank_ic"]["low"] > champion["live"]["measures"]["rank_ic"]["high"]
    [evidence] = found["evidence"]
    assert evidence["e_value"] > 20
    assert found["proposed"] == [CHALLENGER]
    page = scorecard(nights.workspace, lambda: nights.decided(LAST)).markdown()
    assert "is proposed" in page
    assert "rank IC" in page


def test_late_replayed_and_in_sample_forecasts_move_no_live_number(nights: Nights) -> None:
    before = read(nights)
    frames = []
    for number, standing in enumerate(("late", "replay", "in-sample")):
        frames += [
            nights.drawn(night, standing=standing, data_version=f"other{number}", made_at=nights.decided(LAST), skill=2)
            for night in range(30)
        ]
    nights.fill(frames)
    after = read(nights)
    assert [model["live"] for model in after["models"]] == [model["live"] for model in before["models"]]
    assert after["evidence"] == before["evidence"]
    champion = after["models"][0]
    assert champion["late"]["measures"]["rank_ic"]["mean"] > 0.9
    assert champion["replay"]["rows"] == 30 * 12
    assert champion["in_sample"] == 30 * 12
    page = scorecard(nights.workspace, lambda: nights.decided(LAST)).markdown()
    assert "Late, not live: 30 nights" in page
    assert "In-sample: 360 rows" in page


def test_replays_of_what_a_model_was_fitted_on_are_in_sample_and_of_an_unknown_model_left_out(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first schema called every forecast that was not live a replay."""
    made_at = nights.decided(LAST)
    nights.fill([nights.drawn(night, standing="replay", data_version="r", made_at=made_at) for night in range(30)])
    settled_at = nights.exchange.decision_at[nights.first + 7]  # the eighth decision knows the last label
    monkeypatch.setattr(card, "training_of", lambda runs, model_id: {"settled_at": str(settled_at)})
    champion = read(nights)["models"][0]
    assert (champion["in_sample"], champion["replay"]["rows"], champion["unproven"]) == (7 * 12, 23 * 12, 0)
    monkeypatch.setattr(card, "training_of", no_bundle)
    champion = read(nights)["models"][0]
    assert (champion["in_sample"], champion["replay"]["rows"], champion["unproven"]) == (0, 0, 30 * 12)
    assert "Unproven: 360 rows, on no scorecard" in scorecard(nights.workspace, lambda: made_at).markdown()


def test_of_several_live_forecasts_the_last_before_the_open_counts(nights: Nights) -> None:
    before = read(nights)["models"][0]["live"]
    earlier = [
        nights.drawn(night, data_version="first", made_at=nights.decided(night) - HOUR / 60, skill=2)
        for night in range(LAST)
    ]
    nights.fill(earlier)
    after = read(nights)["models"][0]["live"]
    assert after.pop("superseded") == LAST * 12
    assert before.pop("superseded") == 0
    assert after == before
    nights.fill([nights.drawn(0, data_version="last", made_at=nights.decided(0) + HOUR, skill=2)])
    newest = read(nights)["models"][0]["live"]
    assert newest["by_night"]["rank_ic"][0] > 0.9
    assert newest["by_night"]["rank_ic"][1:] == before["by_night"]["rank_ic"][1:]


def test_with_too_few_nights_it_says_so_instead_of_numbers(tmp_path: Path) -> None:
    nights = Nights(tmp_path / "world")
    promote(nights.workspace.runs, CHAMPION, nights.decided(0))
    nights.fill([nights.drawn(night) for night in range(FEWEST_NIGHTS - 1)])
    live = read(nights)["models"][0]["live"]
    assert live["measures"] is live["calibration"] is live["error_drift"] is None
    assert live["why"] == f"{FEWEST_NIGHTS - 1} nights settled; measures are shown from {FEWEST_NIGHTS} on"
    assert "19 nights settled" in scorecard(nights.workspace, lambda: nights.decided(20)).markdown()


def test_with_too_few_tickers_for_a_rank_ic_it_says_so(tmp_path: Path) -> None:
    nights = Nights(tmp_path / "world", tickers=("A", "B", "C"))
    promote(nights.workspace.runs, CHAMPION, nights.decided(0))
    nights.fill([nights.drawn(night) for night in range(FEWEST_NIGHTS + 2)])
    found = read(nights)
    (model,) = found["models"]
    assert (model["live"]["measures"]["rank_ic"], model["live"]["why"]) == (None, "")
    (line,) = _card(found | {"models": [model["live"] | {"role": "champion", "model_id": CHAMPION}]})
    assert line.endswith(f"{FEWEST_NIGHTS + 2} nights, too few tickers for a rank IC")


def test_before_anything_was_scored_it_is_empty(tmp_path: Path) -> None:
    nights = Nights(tmp_path / "world")
    found = read(nights)
    assert (found["through"], found["head"], found["models"], found["alarms"]) == (None, "", [], [])
    assert "No night is sealed yet" in scorecard(nights.workspace).markdown()


def test_a_model_without_a_backtest_says_so(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "training_of", no_bundle)
    assert "found none" in read(nights)["models"][0]["note"]
    for training, said in (({}, "before references"), ({"reference": {**REFERENCE, "band": None}}, "no settled rows")):
        monkeypatch.setattr(card, "training_of", lambda runs, model_id, training=training: training)
        model = read(nights)["models"][0]
        assert said in model["note"]
        assert model["band"] is None


def test_a_model_below_its_band_is_alarmed(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [alarm["rule"] for alarm in read(nights)["alarms"]] == []
    high = {**BAND, "rank_ic": {"mean": 0.7, "sd": 0.2, "low": 0.65, "high": 0.75, "days": 60}}
    monkeypatch.setattr(card, "training_of", lambda runs, model_id: {"reference": {**REFERENCE, "band": high}})
    found = read(nights)["alarms"]
    assert {(alarm["rule"], alarm["model_id"]) for alarm in found} >= {("below-band", CHAMPION)}
    assert "Alarm (below-band)" in scorecard(nights.workspace, lambda: nights.decided(LAST)).markdown()


def test_drift_coverage_and_staleness_come_from_what_nights_recorded(nights: Nights) -> None:
    for night in range(LAST - 4, LAST + 1):
        told = {"scored": 90, "members": 100, "drift": {"rows": 90.0, "return": 0.9}}
        seal(nights.workspace, nights.label(night), {"models": {CHAMPION: told}}, nights.decided(night))
    found = read(nights)
    assert {alarm["rule"] for alarm in found["alarms"]} == {"drift", "coverage"}
    assert {alarm["model_id"] for alarm in found["alarms"]} == {CHAMPION}
    assert found["models"][0]["drift"]["inputs"]["return"]["psi"] == 0.9
    assert found["models"][1]["drift"] is None
    assert (found["through"], found["nights"]) == (str(nights.label(LAST)), 5)
    assert len(found["head"]) == 64
    assert [alarm["rule"] for alarm in read(nights, LAST + 1)["alarms"]].count("stale") == 0
    assert "stale" in [alarm["rule"] for alarm in read(nights, LAST + 2)["alarms"]]


def told(psi: float) -> dict[str, Any]:
    return {"scored": 95, "members": 100, "drift": {"rows": 95.0, "return": psi}}


def test_a_challenger_that_failed_in_the_newest_night_scored_nothing(nights: Nights) -> None:
    """Also one that failed in every night, and has no forecast; but none that has no role any more, or none yet."""
    never, retired, new = "e" * 16, "f" * 16, "a" * 16
    asked = {"champion": CHAMPION, "challengers": [CHALLENGER, never, retired]}
    challenge(nights.workspace.runs, never, nights.decided(0))
    both = {CHAMPION: told(0), CHALLENGER: told(0)}
    seal(nights.workspace, nights.label(LAST - 1), {**asked, "models": both}, nights.decided(LAST - 1))
    seal(nights.workspace, nights.label(LAST), {**asked, "models": {CHAMPION: told(0)}}, nights.decided(LAST))
    challenge(nights.workspace.runs, new, nights.decided(LAST))
    found = read(nights)["alarms"]
    assert [(alarm["rule"], alarm["model_id"]) for alarm in found] == [("coverage", CHALLENGER), ("coverage", never)]
    assert found[0]["what"].startswith("0 of 100 tickers")


def test_drift_is_counted_over_the_last_sealed_nights_not_the_models_own(nights: Nights) -> None:
    def drifted(night: int, psi: float | None) -> list[str]:
        models = {} if psi is None else {CHAMPION: told(psi)}
        seal(nights.workspace, nights.label(night), {"models": models}, nights.decided(night))
        return [alarm["rule"] for alarm in read(nights, night)["alarms"] if alarm["rule"] == "drift"]

    assert [drifted(night, 0.9) for night in range(40, 43)] == [[], [], ["drift"]]
    assert [drifted(night, None) for night in range(43, 46)] == [["drift"], ["drift"], []]
    assert read(nights, 45)["models"][0]["drift"] is None


def test_what_was_settled_late_counts_in_the_measures_and_in_no_evidence(nights: Nights) -> None:
    before = read(nights)
    nights.absent = {("T00", night) for night in range(LAST + 1, 75)}
    for night in range(LAST, LAST + 12):
        nights.bars(night)
    nights.forecasts(LAST)
    nights.forecasts(LAST, CHALLENGER, skill=2)
    nights.settle(LAST + 11)
    after = read(nights, LAST + 12)
    assert after["models"][0]["live"]["rows"] == before["models"][0]["live"]["rows"] + 11
    assert after["models"][0]["live"]["missing"] == 1
    assert after["evidence"][0]["nights"] == LAST + 1
    assert after["evidence"][0]["e_value"] == pytest.approx(before["evidence"][0]["e_value"])


def test_altered_quantiles_are_refused(nights: Nights) -> None:
    frame = nights.drawn(LAST, data_version="odd")
    nights.lake.merge("forecasts", frame.assign(quantiles=[[0.0, 1.0]] * len(frame)))
    with pytest.raises(LakeError, match="7 quantiles"):
        scorecard(nights.workspace)


def test_the_card_is_the_same_whatever_the_order_of_rows(nights: Nights) -> None:
    from deltalake import write_deltalake

    before = read(nights)
    for table in ("forecasts", "settlements"):
        rows = nights.lake.read(table)
        order = np.random.default_rng(0).permutation(len(rows))
        write_deltalake(str(nights.folder / "lake" / table), rows.take(order), mode="overwrite")
    assert read(nights) == before
