import numpy as np
import pytest
from scipy.stats import chi2

from pipelines.scorecard import alarms
from pipelines.scorecard.alarms import CERTAIN, DRIFTED, OF_LAST, evidence_below
from pipelines.scorecard.drift import USUAL, expected, psi, psi_of_each, threshold, unusual
from pipelines.scorecard.measures import Daily

RUNS, NIGHTS = 2000, 250


def of(name: str, values: np.ndarray) -> Daily:
    days = np.arange(len(values)).astype("datetime64[D]")
    others = {other: np.full(len(values), np.nan) for other in ("rank_ic", "coverage_80")}
    return Daily(days, np.full(len(values), 100), {**others, name: values})


def ever(daily: np.ndarray, known: dict[str, float]) -> float:
    """The share of runs that were ever alarmed."""
    return float(np.mean([(evidence_below(run, known) >= CERTAIN).any() for run in daily]))


@pytest.mark.parametrize("tails", ["normal", "heavy", "binomial"])
def test_a_model_as_good_as_its_bands_lower_end_is_hardly_ever_alarmed(tails: str) -> None:
    """At most 1 / CERTAIN of the models within a year, read every night."""
    order = np.random.default_rng(0)
    known = {"mean": 0.03, "sd": 0.12, "low": 0.01}
    if tails == "normal":
        daily = known["low"] + 0.12 * order.standard_normal((RUNS, NIGHTS))
    elif tails == "heavy":
        daily = known["low"] + 0.12 / np.sqrt(3) * order.standard_t(3, (RUNS, NIGHTS))
    else:
        known = {"mean": 0.8, "sd": 0.08, "low": 0.78}
        share = order.beta(0.78 * 30, 0.22 * 30, (RUNS, NIGHTS))
        daily = order.binomial(200, share) / 200
    assert ever(daily, known) <= 1 / CERTAIN


@pytest.mark.parametrize(("live", "least"), [(-0.05, 0.9), (-0.1, 0.99)])
def test_a_model_that_broke_is_alarmed_within_a_year(live: float, least: float) -> None:
    daily = live + 0.12 * np.random.default_rng(1).standard_normal((500, NIGHTS))
    assert ever(daily, {"mean": 0.03, "sd": 0.12, "low": 0.01}) >= least


def test_the_alarm_says_what_it_saw_and_is_about_its_own_measure() -> None:
    order = np.random.default_rng(2)
    band = {"rank_ic": {"mean": 0.05, "sd": 0.1, "low": 0.03}, "coverage_80": {"mean": 0.8, "sd": 0.05, "low": 0.79}}
    [alarm] = alarms.below_band("m", of("rank_ic", -0.1 + 0.1 * order.standard_normal(100)), band)
    assert (alarm.rule, alarm.model_id) == ("below-band", "m")
    assert "rank IC -0.1" in alarm.what
    assert "0.030" in alarm.what
    [alarm] = alarms.below_band("m", of("coverage_80", 0.5 + 0.05 * order.standard_normal(60)), band)
    assert "80%" in alarm.what
    assert list(alarms.below_band("m", of("rank_ic", 0.05 + 0.1 * order.standard_normal(100)), band)) == []


@pytest.mark.parametrize("band", [None, {}, {"rank_ic": {"mean": 0.0, "sd": 0.0, "low": 0.0}}])
def test_without_a_band_there_is_no_alarm(band: dict[str, object] | None) -> None:
    assert list(alarms.below_band("m", of("rank_ic", np.full(100, -1.0)), band)) == []
    assert list(alarms.below_band("m", of("rank_ic", np.empty(0)), {"rank_ic": {"mean": 0, "sd": 1, "low": 0}})) == []


def test_psi_by_hand_and_of_empty_bins() -> None:
    assert psi(np.array([10, 30]), np.array([10, 30])) == 0
    p, q = np.array([10.5, 30.5]) / 41, np.array([20.5, 20.5]) / 41
    assert psi(np.array([10, 30]), np.array([20, 20])) == pytest.approx(((p - q) * np.log(p / q)).sum())
    assert np.isfinite(psi(np.array([0, 40]), np.array([40, 0])))
    assert psi(np.array([0, 40]), np.array([40, 0])) > 1


@pytest.mark.parametrize("rows", [100, 200, 1000])
def test_psi_without_drift_is_what_chance_gives(rows: int) -> None:
    """Its mean is (bins - 1)(1/n + 1/m), and 99% stay below the chi-squared quantile times that."""
    order, shares = np.random.default_rng(3), np.full(10, 0.1)
    references = order.multinomial(5000, shares, 400)
    found = np.concatenate([psi_of_each(order.multinomial(rows, shares, 20), counts) for counts in references])
    known = {"counts": references[0].tolist(), "usual": 0.0}
    assert found.mean() == pytest.approx(expected(known, rows), rel=0.1)
    assert (found > threshold(known, rows)).mean() <= 0.013
    assert threshold(known, rows) == pytest.approx(chi2.ppf(USUAL, 9) * (1 / rows + 1 / 5000))


def test_the_folklore_limit_would_cry_wolf_over_few_rows() -> None:
    order, counts = np.random.default_rng(4), np.full(10, 500)
    found = psi_of_each(order.multinomial(50, counts / counts.sum(), 2000), counts)
    known = {"counts": counts.tolist(), "usual": 0.0}
    assert (found > 0.1).mean() > 0.5
    assert (found > threshold(known, 50)).mean() <= 0.013


def test_nights_that_were_lively_in_training_are_no_drift() -> None:
    known = {"counts": [500] * 10, "usual": 0.8}
    assert threshold(known, 200) == 0.8
    reference = {"inputs": {"return": known}}
    assert unusual({"rows": 200.0, "return": 0.7}, reference) == {}
    assert unusual({"rows": 200.0, "return": 1.6, "gone": 9.0}, reference) == {"return": 2.0}
    assert unusual({}, reference) == {}


def test_drift_needs_several_nights_and_is_hardly_ever_false() -> None:
    order, counts = np.random.default_rng(5), np.full(10, 500)
    reference = {"inputs": {"x": {"counts": counts.tolist(), "usual": 0.0}}}
    limit = threshold(reference["inputs"]["x"], 200)
    above = psi_of_each(order.multinomial(200, counts / counts.sum(), 500 * NIGHTS), counts).reshape(500, -1) > limit
    of_last = np.lib.stride_tricks.sliding_window_view(above, OF_LAST, axis=1).sum(axis=2)
    assert (of_last >= DRIFTED).any(axis=1).mean() <= 0.02
    quiet, loud = {"rows": 200.0, "x": limit / 2}, {"rows": 200.0, "x": limit * 2}
    assert alarms.drift("m", [loud, quiet, loud, quiet], reference) == []
    [alarm] = alarms.drift("m", [loud, quiet, loud, quiet, loud], reference)
    assert "x is unlike its training in 3 of the last 5 nights" in alarm.what
    assert alarms.drift("m", [loud] * DRIFTED + [quiet] * OF_LAST, reference) == []
    assert alarms.drift("m", [loud] * OF_LAST, None) == []


@pytest.mark.parametrize(
    ("nights", "passed", "alarmed"), [(250, 0.014, 0.007), (120, 0.018, 0.018), (60, 0.023, 0.044)]
)
def test_a_threshold_read_off_lively_nights_is_passed_as_often_as_the_docs_say(
    nights: int, passed: float, alarmed: float
) -> None:
    order, inputs, rows = np.random.default_rng(6), 1500, 2000
    shares = order.dirichlet(np.full(10, 50.0), (inputs, nights + NIGHTS))  # the market moves a night's rows together
    counts = np.full(10, 50_000)
    index = psi_of_each(order.multinomial(rows, shares.reshape(-1, 10)), counts).reshape(inputs, -1)
    usual = np.quantile(index[:, :nights], USUAL, axis=1)
    limit = np.array([threshold({"counts": counts.tolist(), "usual": each}, rows) for each in usual])
    above = index[:, nights:] > limit[:, None]
    of_last = np.lib.stride_tricks.sliding_window_view(above, OF_LAST, axis=1).sum(axis=2)
    assert above.mean() == pytest.approx(passed, abs=0.001)
    spread = 3 * np.sqrt(alarmed / inputs)
    assert (of_last >= DRIFTED).any(axis=1).mean() == pytest.approx(alarmed, abs=spread)


def test_coverage_and_staleness_are_exact() -> None:
    assert alarms.coverage("m", 95, 100, 0.95) == []
    assert "94 of 100" in alarms.coverage("m", 94, 100, 0.95)[0].what
    assert len(alarms.coverage("m", 0, 0, 0.95)) == 1
    assert alarms.stale(0, "2024-01-02") == alarms.stale(1, "2024-01-02") == []
    assert "2024-01-02" in alarms.stale(2, "2024-01-02")[0].what
