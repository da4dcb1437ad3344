"""A comparison as a Markdown page: every sentence of judgement follows from an interval, none is written by hand."""

import textwrap
from collections.abc import Sequence
from fractions import Fraction

from pipelines.compare.cost import BATCH
from pipelines.compare.grid import COST_LAYERS, COST_LOOKBACK, COST_WIDTH
from pipelines.compare.plots import MIB, draw_plots
from pipelines.compare.result import VARIED, Cell, Comparison, Score
from pipelines.metrics import Interval
from pipelines.table import aligned
from pipelines.workspace import replace_file

WIDTH = 120  # characters of a line of prose
GROWN = [head for name in VARIED for head in (f"{name}: all sizes", "last two")]

HEAD = """
Measured on {about}: {valid} sessions to validate on, {test} to test on, prices alone, lookback {lookback}, width
{width}, {seeds}. Machine: {machine}. This page and its plots are made by
"""
ADVICE = """
The depth is the shallowest whose gain on the validation fold is not shown to be below that of the best one: the 95%
interval of their paired difference holds 0. "No difference shown" means that no depth was shown to be worse than the
best, so the plainest is taken; it does not mean that all are equal.
"""
MATCHES = "The last columns compare the kinds, each at its depth, on the test fold: in gain as defined below."
ACCURACY = """
Gain is how far a forecast's negative log likelihood lies below that of a forecast without skill, in thousandths of a
nat; more is better and 0 is no skill. The forecast without skill expects no return and spreads by the ticker's own
volatility, calibrated like the models; it has {line:.4f} nats on the test fold, and a rank IC of 0.
"""
ORACLE = "Who knew the market's law and saw prices alone would reach a rank IC of {oracle:.4f} there."
COST = """
Training at {layers} layers in batches of {batch}: width {width} where the lookback varies, lookback {lookback} where
the width does. Seconds are processor time for the steps of an epoch of {samples} samples, by the fastest step. Memory
is how far the process rose above what it held before the model was made, at its peak: weights, gradients, the
optimiser's state and what a batch leaves for the backward pass.
"""
GROWTH = """
How the seconds grow, as the exponent k of size^k: fitted over all sizes, and between the last two. What does not grow
with the size (the start of a step, short loops) flattens the first.
"""
EPOCHS = """
The fits of the section above, at lookback {lookback} and width {width} in batches of {batch}, on {share} of the data:
an epoch here is all that training does, gathering windows and validation included.
"""
METHOD = """
Each model was fitted for at most {epochs} epochs and stopped early by the validation fold, with one learning rate for
all; nothing was tuned for a kind or a depth. A share is the most recent part of the training sessions, as someone with
a shorter history would have it: only their returns are learned from. The windows of its first days reach further back,
and features are scaled by all that came before the validation fold. Validation and test are the same for all.
"""
INTERVALS = """
Intervals are 95%, by a bootstrap over whole days and over seeds together; a difference is paired: both sides are read
on the same days and seeds. {told} The validation fold also stopped the training, so gains on it are a little too good,
for all alike. Each difference stands for itself at 95%: of many, some are shown by chance where there is none. What
holds on these data need not hold on others: run it on yours.
"""
FEW = "A few seeds cannot tell much about seeds: in what concerns them, intervals are too narrow."
ONE = "Of one seed they hold nothing of what another would have given: a difference they show may be that seed's luck."


def write_page(result: Comparison) -> None:
    """Write the page at `result.page` and its plots into the folder of its name beside it."""
    folder = result.page.with_suffix("")
    plots = draw_plots(result, folder)
    links = {name: f"![{name}]({folder.name}/{path.name})" for name, path in plots.items()}
    parts = [*_head(result), *_advice(result), *_accuracy(result, links), *_cost(result, links), *_method(result)]
    replace_file(result.page, ("\n\n".join(parts) + "\n").encode())


def compare_table(result: Comparison) -> str:
    """What the page says first, for a terminal: the depths, the kinds, and how the cost grows."""
    grown = [["kind", *GROWN], *([kind, *_exponents(result, kind)] for kind in result.costs)]
    parts = [aligned(_advice_rows(result)), "Exponents of the training time:", aligned(grown)]
    return "\n".join([*parts, f"Report: {result.page}"])


def _head(result: Comparison) -> list[str]:
    kinds, config = result.grid.kinds, result.data.config
    facts = {"about": result.data.about, "machine": result.machine, "seeds": _seeds(result.seeds)}
    title = " against ".join(kinds) if len(kinds) > 1 else kinds[0]
    prose = _prose(HEAD, **result.days, **facts, lookback=config.price.lookback, width=config.price.width)
    return [f"# {title}, measured", prose, f"```\n{result.command}\n```", *map(_prose, result.notes)]


def _advice(result: Comparison) -> list[str]:
    head, *rows = _advice_rows(result)
    prose = ADVICE + MATCHES if len(result.grid.kinds) > 1 else ADVICE
    return ["## How many layers for how much data", _table(head, rows), _prose(prose)]


def _advice_rows(result: Comparison) -> list[list[str]]:
    """A head, then a row a share: the depth advised for each kind, and the kinds against the first."""
    first, *others = kinds = result.grid.kinds
    rows = [
        ["training data", "samples", *(f"layers of {kind}" for kind in kinds), *(f"{k} less {first}" for k in others)]
    ]
    for share in result.grid.shares:
        samples = result.scores[first, result.layers(first)[0], share].samples
        verdicts = [f"{each.verdict}: {_signed(each.differences['gain'])}" for each in result.matches(share)]
        rows.append([str(share), str(samples), *(_depth(result, kind, share) for kind in kinds), *verdicts])
    return rows


def _depth(result: Comparison, kind: str, share: Fraction) -> str:
    depth = result.depth(kind, share)
    if len(depth.gaps) == 1:
        return f"{depth.advised} (no other was run)"
    if not depth.worse:
        return f"{depth.advised} (no difference shown)"
    return f"{depth.advised} (shown to be worse than {depth.best}: {', '.join(map(str, depth.worse))})"


def _accuracy(result: Comparison, links: dict[str, str]) -> list[str]:
    rows = []
    for (kind, layers, share), score in _in_order(result):
        told = [_signed(score.interval(part, "gain")) for part in ("valid", "test")]
        seeds = [values["rank_ic"] for values in score.of_seeds["test"].values()]
        each = " ".join("-" if value is None else f"{value:.3f}" for value in seeds)
        rows.append([str(share), kind, str(layers), *told, _signed(score.interval("test", "rank_ic"), 4), each])
    oracle = result.data.oracle
    prose = ACCURACY.format(line=result.line["test"]) + ("" if oracle is None else ORACLE.format(oracle=oracle))
    head = ["data", "kind", "layers", "gain, validation", "gain, test", "rank IC, test", "rank IC of each seed"]
    return ["## Accuracy", _prose(prose), links["accuracy"], _table(head, rows)]


def _in_order(result: Comparison) -> list[tuple[Cell, Score]]:
    """Cells with their scores, by share, then kind, then depth."""
    place = {kind: number for number, kind in enumerate(result.grid.kinds)}
    return sorted(result.scores.items(), key=lambda item: (item[0][2], place[item[0][0]], item[0][1]))


def _cost(result: Comparison, links: dict[str, str]) -> list[str]:
    sizes = {"layers": COST_LAYERS, "width": COST_WIDTH, "lookback": COST_LOOKBACK}
    parts = ["## Cost", _prose(COST, **sizes, batch=BATCH, samples=result.epoch_samples), links["cost"]]
    for name in VARIED:
        head = [name, *(f"{kind}: {what}" for kind in result.costs for what in ("seconds", "MiB", "parameters"))]
        values = sorted({value for of in result.costs.values() for value in of[name]})
        parts.append(_table(head, [[str(value), *_cells(result, name, value)] for value in values]))
    grown = [[kind, *_exponents(result, kind)] for kind in result.costs]
    return [*parts, _prose(GROWTH), _table(["kind", *GROWN], grown), *_epochs(result)]


def _cells(result: Comparison, name: str, value: int) -> list[str]:
    cells = []
    for of in result.costs.values():
        cost = of[name].get(value)
        if cost is None:
            cells += ["-"] * 3
        else:
            seconds = cost.seconds * result.epoch_samples
            cells += [f"{seconds:.2f}", f"{cost.bytes / MIB:.0f}", str(cost.parameters)]
    return cells


def _exponents(result: Comparison, kind: str) -> list[str]:
    exponents = [exponent for name in VARIED for exponent in result.growth(kind, name)]
    return ["-" if exponent != exponent else f"{exponent:.2f}" for exponent in exponents]


def _epochs(result: Comparison) -> list[str]:
    """What the fits themselves took, by depth, on the largest share."""
    share, config = result.grid.shares[-1], result.data.config
    rows = [
        [kind, str(layers), str(score.parameters), f"{score.epochs:.1f}", f"{score.seconds:.2f}"]
        for (kind, layers, of), score in _in_order(result)
        if of == share
    ]
    sizes = {"lookback": config.price.lookback, "width": config.price.width, "batch": config.train.batch_size}
    head = ["kind", "layers", "parameters", "epochs run", "seconds an epoch"]
    return [_prose(EPOCHS, **sizes, share="all" if share == 1 else str(share)), _table(head, rows)]


def _method(result: Comparison) -> list[str]:
    told = FEW if len(result.seeds) > 1 else ONE
    parts = [_prose(METHOD, epochs=result.data.config.train.epochs), _prose(INTERVALS, told=told)]
    return ["## How it was measured", *parts]


def _seeds(seeds: Sequence[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"


def _signed(value: Interval, digits: int = 2) -> str:
    if value.mean is None:
        return "-"
    return f"{value.mean:+.{digits}f} [{value.low:+.{digits}f}, {value.high:+.{digits}f}]"


def _prose(text: str, /, **facts: object) -> str:
    filled = " ".join((text.format(**facts) if facts else text).split())
    return textwrap.fill(filled, WIDTH, break_long_words=False, break_on_hyphens=False)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))
