"""Comparing price encoders: what was measured is kept, the figures are those of direct calls, the advice has a rule."""

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student_t

from data.errors import ConfigError, InputError
from encoders.price import LSTMConfig, TransformerConfig
from fusion.head import Distribution
from pipelines.compare import runs as compare_runs
from pipelines.compare.accuracy import Daily, draw_blocks, most_recent, no_skill, over_seeds, settled
from pipelines.compare.advice import choose_depths, match_kinds
from pipelines.compare.cost import Cost, growth, measure_apart, measure_cost
from pipelines.compare.data import of_workspace
from pipelines.compare.grid import Cell, Grid, allowed, depths, known_kinds, parse_counts, price_config
from pipelines.compare.job import compare, plan
from pipelines.compare.ledger import Ledger, key_of
from pipelines.metrics import Days, Interval, rank_ic
from pipelines.predict import predict
from pipelines.train import fit
from pipelines.workspace import open_workspace

Tapewire = Callable[..., Any]

QUICK = ("train.epochs=1", "price.lookback=5")
GRID = Grid.parse("lstm,transformer", layers="1,2", shares="1/2,1", lookbacks="5,10", widths="8")
SEEDS = (0, 1)
ALL = Fraction(1)


def run(folder: Path, said: list[str] | None = None, grid: Grid = GRID, seeds: tuple[int, ...] = SEEDS) -> Any:
    return compare(folder, grid, seeds, False, None, QUICK, (said if said is not None else []).append)


@pytest.fixture(scope="module")
def compared(imported: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A workspace after a comparison, and what it said. Costs are made up: processes of their own take seconds."""
    folder = Path(shutil.copytree(imported, tmp_path_factory.mktemp("compared") / "workspace"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare_runs, "measure_apart", made_up)
        said: list[str] = []
        return run(folder, said), said, folder


def made_up(price: Any) -> dict[str, Any]:
    """Time linear in the lookback, memory of a MiB a session."""
    return {"parameters": 10, "seconds": price.lookback * 1e-4, "bytes": price.lookback << 20}


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The configurations whose cost was asked for, at no cost."""
    asked: list[Any] = []

    def measured(price: Any) -> dict[str, Any]:
        asked.append(price)
        return made_up(price)

    monkeypatch.setattr(compare_runs, "measure_apart", measured)
    return asked


def test_the_contract_of_json(compared: Any) -> None:
    result = compared[0].as_dict()
    json.dumps(result, allow_nan=False)
    assert len(result["accuracy"]) == 2 * 2 * 2
    assert set(result["accuracy"][0]) >= {"kind", "layers", "share", "parameters", "seconds_per_epoch", "valid", "test"}
    assert result["seeds"] == [0, 1]
    assert set(result["cost"]) == set(result["growth"]) == set(result["depth"]) == {"lstm", "transformer"}
    assert result["growth"]["lstm"]["lookback"] == pytest.approx({"fitted": 1, "last": 1})
    assert result["growth"]["lstm"]["width"] == {"fitted": None, "last": None}
    assert [each["kind"] for each in result["kinds"]["1/2"]] == ["transformer"]


def test_a_cell_is_what_direct_calls_give(compared: Any) -> None:
    """Rank IC, likelihood and number of samples of one cell, from fit and predict themselves."""
    result, _, folder = compared
    data = of_workspace(open_workspace(folder, QUICK))
    panel, fold = data.panel, most_recent(data.folds[0], Fraction(1, 2))
    config = data.config.model_copy(update={"price": data.config.price.model_copy(update={"layers": 2})})
    score = result.scores["lstm", 2, Fraction(1, 2)]
    assert score.samples == len(settled(panel, fold.train, config))
    nothing = np.zeros((len(panel.news.texts), 1), np.float16)
    rows = settled(panel, fold.test, config)
    realised, unit = (of[rows.ticker, rows.session] for of in (panel.labels["close_close"], panel.unit))
    line = no_skill(panel, data.folds[0], config)["test"]
    for seed in SEEDS:
        forecast = predict(fit(panel, nothing, fold, config, seed), panel, nothing, rows, config)
        z = forecast.times(1 / unit)
        nll = -student_t.logpdf(realised / unit, z.df, z.location, z.scale).mean()
        found = score.of_seeds["test"][seed]
        assert found["gain"] == pytest.approx(1000 * (line.nll.sum() / line.rows.sum() - nll), abs=1e-6)
        assert found["rank_ic"] == pytest.approx(rank_ic(forecast.mean, realised, Days.draw(rows.session))[0])
    mean = np.mean([each["gain"] for each in score.of_seeds["test"].values()])
    assert score.interval("test", "gain").mean == pytest.approx(mean)


def test_what_was_measured_is_not_measured_again(compared: Any, tmp_path: Path, cheap: list[Any]) -> None:
    result, said, before = compared
    folder = Path(shutil.copytree(before, tmp_path / "again"))
    assert sum(line.startswith("Fitted") for line in said) == 2 * 2 * 2 * 2
    told: list[str] = []
    again = run(folder, told)
    assert told == [f"16 of 16 fits are in {folder / 'runs' / 'compare.jsonl'} already"]
    assert cheap == []
    assert again.as_dict() | {"path": ""} == result.as_dict() | {"path": ""}


def test_a_run_cut_short_goes_on_where_it_was(compared: Any, tmp_path: Path, cheap: list[Any]) -> None:
    """Three lines are lost and one is torn: four measurements are made again, and the figures are the same."""
    folder = Path(shutil.copytree(compared[2], tmp_path / "torn"))
    ledger = folder / "runs" / "compare.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[:-4]) + lines[-4][:40])
    told: list[str] = []
    again = run(folder, told)
    assert sum(line.startswith("Fitted") for line in told) == 4
    assert "4 of 4, about 0 min left" in told[-1]
    for cell, score in compared[0].scores.items():
        assert again.scores[cell].of_seeds == score.of_seeds


def test_other_settings_are_other_measurements(compared: Any, tmp_path: Path, cheap: list[Any]) -> None:
    folder = Path(shutil.copytree(compared[2], tmp_path / "other"))
    grid = Grid.parse("lstm", layers="1", shares="1", lookbacks="5", widths="8")
    told: list[str] = []
    compare(folder, grid, (0,), False, None, [*QUICK, "train.learning_rate=0.003"], told.append)
    assert sum(line.startswith("Fitted") for line in told) == 1


def test_the_page_says_what_the_figures_say_and_is_the_same_twice(compared: Any, tmp_path: Path, cheap: Any) -> None:
    result, _, before = compared
    page = result.page.read_text()
    assert result.page == before / "reports" / "compare.md"
    score = result.scores["transformer", 2, Fraction(1)].interval("test", "rank_ic")
    assert "| all | transformer | 2 | " in page
    assert f"{score.mean:+.4f} [{score.low:+.4f}, {score.high:+.4f}]" in page
    assert result.command in page
    assert "no difference shown" in page or "shown to be worse" in page
    assert "processor time" in page
    for kind in ("lstm", "transformer"):
        advised = result.depths[kind, ALL].advised
        assert f"{advised} layer{'s' * (advised > 1)} for {kind}" in page[page.index("## Recommendation") :]
    folder = Path(shutil.copytree(before, tmp_path / "twice"))
    out = tmp_path / "docs" / "mine.md"
    compare(folder, GRID, SEEDS, False, out, QUICK, lambda _: None)
    assert out.read_text() == page.replace("(compare/", "(mine/")
    for name in ("cost.svg", "accuracy.svg"):
        drawn = (out.with_suffix("") / name).read_bytes()
        assert drawn == (result.page.with_suffix("") / name).read_bytes()
        assert b"<dc:date>" not in drawn


def test_outside_of_a_workspace_a_market_is_simulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cheap: Any
) -> None:
    from data.simulate import MarketConfig
    from pipelines.compare import data as compare_data

    monkeypatch.setattr(compare_data, "WORLD", MarketConfig(seed=4, tickers=8, sessions=160))
    grid = Grid.parse("lstm", layers="1", shares="1", lookbacks="5", widths="8")
    result = compare(tmp_path, grid, (0,), False, None, ["train.epochs=1", "price.width=8"], lambda _: None)
    assert result.page == tmp_path / "tapewire-compare" / "reports" / "compare.md"
    assert result.data.config.price.width == 8
    assert result.data.oracle is not None
    assert -1 < result.data.oracle < 1
    assert f"{result.data.oracle:.4f}" in result.page.read_text()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"kinds": "lstm,nope"}, "--price"),
        ({"kinds": ","}, "--price"),
        ({"layers": "0,1"}, "--layers"),
        ({"layers": ""}, "--layers"),
        ({"shares": "1/8,2"}, "--shares"),
        ({"shares": "1/0"}, "--shares"),
        ({"shares": "nan"}, "--shares"),
        ({"lookbacks": "1"}, "--lookbacks"),
        ({"widths": "x"}, "--widths"),
    ],
    ids=str,
)
def test_a_bad_option_is_named(options: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Grid.parse(**{"kinds": "lstm", **options})


@pytest.mark.parametrize(("least", "text"), [(0, "4294967296"), (1, "0,1")])
def test_a_count_out_of_bounds_is_told_both(least: int, text: str) -> None:
    with pytest.raises(ConfigError, match=f"--seeds {text}: expected whole numbers from {least} to 4294967295"):
        parse_counts("--seeds", text, least)


def test_lists_ascend_and_repeat_nothing_and_the_command_gives_them_back() -> None:
    grid = Grid.parse(" transformer , lstm,transformer", layers="4,1,4", shares="1,1/4,0.5")
    assert grid.kinds == ("transformer", "lstm")
    assert grid.layers == (1, 4)
    assert grid.shares == (Fraction(1, 4), Fraction(1, 2), Fraction(1))
    assert grid.options() == ["--price", "transformer,lstm", "--layers", "1,4", "--shares", "1/4,1/2,1"]


def test_keys_of_a_kind_of_its_own_are_kept_for_it_alone() -> None:
    base = TransformerConfig(heads=2, width=12, dropout=0.3)
    assert price_config("transformer", base, layers=4) == base.model_copy(update={"layers": 4})
    assert price_config("lstm", base, layers=4) == LSTMConfig(width=12, dropout=0.3, layers=4)


@pytest.mark.parametrize("kind", known_kinds())
def test_every_kind_has_a_plan(kind: str) -> None:
    kept, _ = depths(kind, LSTMConfig(lookback=20, width=16), (1, 2))
    assert kept in ([1], [2], [1, 2])
    layers, sizes, _ = plan(Grid.parse(kind, "2,4"), LSTMConfig(lookback=20, width=16))
    assert layers[kind]
    assert list(sizes[kind]["lookback"]) == [20, 60, 120, 250, 500]


def test_sizes_a_kind_does_not_take_are_left_out_and_named() -> None:
    kept, notes = allowed("transformer", LSTMConfig(), "width", (6, 8))
    assert kept == [8]
    assert "heads" in notes[0]
    with pytest.raises(ConfigError, match="heads"):
        allowed("transformer", LSTMConfig(), "width", (6,))


def test_the_newest_share_of_the_training_sessions_is_kept() -> None:
    from data.splits import Fold

    fold = Fold(np.arange(80), np.arange(80, 90), np.arange(90, 99))
    part = most_recent(fold, Fraction(1, 8))
    assert part.train.tolist() == list(range(70, 80))
    assert (part.valid, part.test) == (fold.valid, fold.test)
    assert most_recent(fold, Fraction(1)).train.tolist() == fold.train.tolist()


def draws(mean: float, spread: float = 0.0, seed: int = 0) -> np.ndarray:
    """A measure's draws: the estimate first."""
    return mean + spread * np.concatenate([[0.0], np.random.default_rng(seed).normal(size=2000)])


def cells_of(means: dict[int, Any], kind: str = "a", share: Fraction = ALL) -> dict[Cell, Any]:
    """Gains by depth as cells of one kind and share."""
    return {(kind, layers, share): of for layers, of in means.items()}


def test_the_shallowest_depth_not_shown_to_be_worse_is_advised() -> None:
    gains = cells_of({n: draws(mean, 0.1, seed=n) for n, mean in ((1, 1.0), (2, 2.9), (4, 3.0), (6, 2.0))})
    clear = choose_depths(gains)["a", ALL]
    assert (clear.advised, clear.best, clear.worse) == (2, 4, [1, 6])
    unclear = choose_depths(cells_of({n: draws(n / 10, 1.0, seed=n) for n in (1, 2, 4)}))["a", ALL]
    assert (unclear.advised, unclear.best, unclear.worse) == (1, 4, [])
    certain = choose_depths(cells_of({1: draws(1.0), 2: draws(2.0)}))["a", ALL]
    assert (certain.advised, certain.worse) == (2, [1])


def test_a_gap_is_shown_where_it_is_wider_than_the_smallest_that_could_be() -> None:
    depth = choose_depths(cells_of({n: draws(n / 10, 1.0, seed=n) for n in (1, 2, 4)}))["a", ALL]
    shown = depth.gaps[1]
    assert shown.high is not None
    assert shown.mean is not None
    least = shown.high - shown.mean
    assert least > 1.96 * np.sqrt(2)  # more than for one difference of two independent cells
    for gap, worse in ((0.99 * least, []), (1.01 * least, [1])):
        again = choose_depths(
            cells_of({1: draws(0, 1.0, seed=1), 2: draws(0.4, 1.0, seed=2), 4: draws(gap, 1.0, seed=4)})
        )
        assert again["a", ALL].worse == worse


@pytest.mark.parametrize(
    ("lead", "spread", "verdict"),
    [(1.0, 0.1, "b is better"), (-1.0, 0.1, "a is better"), (0.1, 0.1, "no difference shown")],
)
def test_a_verdict_needs_an_interval_without_0(lead: float, spread: float, verdict: str) -> None:
    cells = {("b", 1, ALL): draws(lead, spread), ("a", 2, ALL): draws(0.0)}
    nothing = dict.fromkeys(cells, np.full(2001, np.nan))
    found = match_kinds({cell[::2]: cell for cell in cells}, "a", {"gain": cells, "rank_ic": nothing})
    assert list(found) == [("b", ALL)]
    assert found["b", ALL].verdict == verdict
    assert found["b", ALL].differences["rank_ic"] == Interval(None, None, None)


WORLD_DAYS, WORLD_SEEDS, WORLD_SHARES, WORLD_DEPTHS = 120, 3, (Fraction(1, 4), ALL), (1, 2, 4, 6)


def gains_of_a_world(world: int, days: Days, loss: float, luck: float = 1.0) -> dict[Cell, Any]:
    """Two kinds at every share and depth, all as good as each other but one cell that is worse by `loss` of them.

    Days move all cells alike and each alone; a seed is worth `luck` more or less.
    """
    draw = np.random.default_rng(world)
    gains = {}
    for share in WORLD_SHARES:
        noise = 1 + float(1 - share)  # fewer data, more luck
        common = draw.standard_t(5, WORLD_DAYS)
        for kind, layers in product(("a", "b"), WORLD_DEPTHS):
            fits = luck * draw.normal(size=(WORLD_SEEDS, 1)) * noise
            fits = fits + noise * np.sqrt(WORLD_DAYS) * 0.5 * (common + draw.normal(size=(WORLD_SEEDS, WORLD_DAYS)))
            if (kind, layers, share) == ("b", 1, ALL):
                fits = fits - loss
            gains[kind, layers, share] = [days.means(fit) for fit in fits]
    return over_seeds(gains)


@pytest.mark.parametrize("luck", [0.0, 1.0])
def test_where_all_are_equally_good_hardly_any_comparison_shows_one_to_be_worse(luck: float) -> None:
    """About 1 of 20; the best against each other depth by an interval of its own would show one in 10 of 20."""
    days = draw_blocks(np.arange(WORLD_DAYS))
    depths = [choose_depths(gains_of_a_world(n, days, 0, luck)).values() for n in range(60)]
    assert sum(any(of.worse for of in each) for each in depths) <= 4


def test_a_depth_that_is_truly_worse_is_found() -> None:
    days = draw_blocks(np.arange(WORLD_DAYS))
    found = [choose_depths(gains_of_a_world(n, days, 5.0))["b", ALL] for n in range(30)]
    assert sum(1 in depth.worse and depth.advised == 2 for depth in found) >= 25


def test_days_are_drawn_in_blocks_as_often_as_each_other() -> None:
    sessions = np.repeat(np.arange(300, 364), 3)  # three rows a day
    days = draw_blocks(sessions)
    assert days.count == 64
    assert (days.weights[0] == 1).all()
    assert (days.weights.sum(axis=1) == 64).all()
    assert days.weights[1:].mean(axis=0) == pytest.approx(np.ones(64), abs=0.15)
    drawn = days.weights[1:] > 0
    assert (drawn & np.roll(drawn, 1, axis=1)).sum() / drawn.sum() > 0.8  # a day comes with the one before
    alone = Days.draw(sessions).weights[1:] > 0
    assert (alone & np.roll(alone, 1, axis=1)).sum() / alone.sum() < 0.7


def test_blocks_know_what_days_have_in_common() -> None:
    """The mean of an autocorrelated series varies more than its days drawn one by one say."""
    draw = np.random.default_rng(0)
    steps = draw.normal(size=500)
    series = np.convolve(steps, np.full(5, 0.2))[:500]
    blocks, single = (of.means(series)[1:].std() for of in (draw_blocks(np.arange(500)), Days.draw(np.arange(500))))
    assert blocks > 1.5 * single


def test_draws_vary_as_the_mean_of_seeds_does_whatever_makes_them_differ() -> None:
    """Days that move each fit alone, or the worth of its seed: the variance of the mean of three is a third, once."""
    days, draw = draw_blocks(np.arange(200)), np.random.default_rng(1)
    for by_days, by_seed in ((1.0, 0.0), (0.0, 1.0), (0.6, 0.8)):
        fits = by_seed * draw.normal(size=(40, 3, 1)) + by_days * np.sqrt(200) * draw.normal(size=(40, 3, 200))
        cells = {("a", n, ALL): [days.means(fit) for fit in of] for n, of in enumerate(fits)}
        pooled = over_seeds(cells)
        assert np.mean([of[1:].var() for of in pooled.values()]) == pytest.approx(1 / 3, rel=0.25)
        assert pooled["a", 7, ALL][0] == pytest.approx(fits[7].mean())


def test_of_one_seed_nothing_is_known_of_others() -> None:
    assert over_seeds({("a", 1, ALL): [draws(1.0, 0.5)]})["a", 1, ALL].tolist() == draws(1.0, 0.5).tolist()


def test_days_without_enough_tickers_have_no_rank_and_go_through_json() -> None:
    forecast = Distribution(np.array([0.1, 0.2]), np.ones(2), np.full(2, 5.0))
    daily = Daily.of(forecast, np.array([0.0, 1.0]), np.full(2, 0.5), np.array([7, 7]))
    again = Daily.from_dict(json.loads(json.dumps(daily.as_dict(), allow_nan=False)))
    assert np.isnan(again.rank_ic).tolist() == [True]
    expected = -student_t.logpdf([0.0, 2.0], 5, [0.2, 0.4], 2.0).sum()
    assert (again.session[0], again.rows[0], again.nll[0]) == (7, 2, pytest.approx(expected))


def test_exponents_are_those_of_a_power_law() -> None:
    sizes = [20, 60, 500]
    assert growth(sizes, [0.3 * size**1.5 for size in sizes]) == pytest.approx((1.5, 1.5))
    fitted, last = growth(sizes, [100 + size for size in sizes])
    assert fitted < last < 1
    assert np.isnan(growth([20], [1.0])).all()


def test_more_sessions_take_longer_and_the_parameters_are_counted() -> None:
    short, long = (measure_cost(LSTMConfig(lookback=length, width=8)) for length in (4, 200))
    assert 0 < short.seconds < long.seconds
    assert short.parameters == long.parameters > 100


@pytest.mark.slow
def test_a_cost_is_measured_in_a_process_of_its_own() -> None:
    small, large = (Cost(**measure_apart(LSTMConfig(lookback=length, width=32))) for length in (10, 400))
    assert 0 <= small.bytes < large.bytes
    assert small.seconds < large.seconds


def test_a_ledger_keeps_what_was_appended_and_drops_a_torn_last_line(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "ledger.jsonl"
    ledger = Ledger(path)
    for number in range(3):
        ledger.append(key_of(number=number), {"value": number / 3})
    path.write_bytes(path.read_bytes()[:-5])
    again = Ledger(path)
    assert [key_of(number=number) in again for number in range(3)] == [True, True, False]
    assert again[key_of(number=1)]["value"] == 1 / 3
    again.append(key_of(number=2), {"value": 2})
    assert len(Ledger(path).path.read_text().splitlines()) == 3


@pytest.mark.parametrize("line", ["{", "[]", '{"value": 1}', "null"])
def test_a_spoilt_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(f'{{"key": "a"}}\n{line}\n')
    with pytest.raises(InputError, match="line 2"):
        Ledger(path)


def test_the_command_line(compared: Any, tmp_path: Path, cheap: Any, tapewire: Tapewire) -> None:
    folder = Path(shutil.copytree(compared[2], tmp_path / "workspace"))
    sizes = ["--layers", "1", "--shares", "1", "--lookbacks", "5", "--widths", "8", "--seeds", "0"]
    sets = [part for each in QUICK for part in ("--set", each)]
    done = tapewire(folder, "compare", "--price", "lstm", *sizes, *sets, "--json")
    assert done.code == 0, done.err
    assert done.json["accuracy"][0]["kind"] == "lstm"
    shown = tapewire(folder, "compare", "--price", "lstm", *sizes, *sets)
    assert "Report: " in shown.out
    refused = tapewire(folder, "compare", "--price", "nope")
    assert (refused.code, refused.out) == (2, "")
    assert "nope" in refused.err
