"""A comparison as a Markdown page: every sentence of judgement follows from an interval, none is written by hand."""

import textwrap
from collections.abc import Sequence
from fractions import Fraction

from pipelines.compare.advice import Depth
from pipelines.compare.cost import BATCH
from pipelines.compare.grid import COST_LAYERS, COST_LOOKBACK, COST_WIDTH, Cell
from pipelines.compare.plots import MIB, draw_plots
from pipelines.compare.recommendation import price_of_depth, recommend, share_name
from pipelines.compare.result import VARIED, Comparison, Score
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
The depth is the shallowest whose gain on the validation fold is not shown to be below that of the best one. "No
difference shown" means that no depth was shown to be worse than the best, so the plainest is taken; it does not mean
that all are equal: a gap below the smallest that could be shown, in the third column, would have gone unseen.
"""
MATCHES = "The last columns compare the kinds, each at its depth, on the test fold. All are in gain as defined below."
SHOWN = """
Of many fits one is always the best, if only by luck. So all that is said here of depths is one test, and all that is
said of kinds another, each on the largest of its differences: were all equally good, 95 such pages of 100 would show no
difference (White 2000; Hansen, Lunde and Nason 2011).
"""
ACCURACY = """
Gain is how far a forecast's negative log likelihood lies below that of a forecast without skill, in thousandths of a
nat; more is better and 0 is no skill. The forecast without skill expects no return and spreads by the ticker's own
volatility, calibrated like the models; it has {line:.4f} nats on the test fold, and a rank IC of 0.
"""
BARS = "Bars in the plot are the 95% intervals of the table."
ORACLE = "Who knew the market's law and saw prices alone would reach a rank IC of {oracle:.4f} there."
COST = """
Training at {layers} layers in batches of {batch}: width {width} where the lookback varies, lookback {lookback} where
the width does. Seconds are {clock} for the steps of an epoch of {samples} samples, by the fastest step, in single
precision. Memory is how far {memory} rose above what it held before the model was made, at its peak: weights,
gradients, the optimiser's state and what a batch leaves for the backward pass.
"""
GROWTH = """
How the seconds grow, as the exponent k of size^k: fitted over all sizes, and between the last two. What does not grow
with the size (the start of a step, short loops) flattens the first.
"""
EPOCHS = """
The fits of the section above, at lookback {lookback} and width {width} in batches of {batch}, on {share} of the data:
an epoch here is all that training does, gathering windows and validation included, in {precision}. Seconds are {clock}.
"""
PRECISIONS = {"no": "single precision", "bf16": "mixed precision with bf16", "fp16": "mixed precision with fp16"}
METHOD = """
Each model was fitted for at most {epochs} epochs and stopped early by the validation fold, with one learning rate for
all; nothing was tuned for a kind or a depth. A share is the most recent part of the training sessions, as someone with
a shorter history would have it: only their returns are learned from. The windows of its first days reach further back,
and features are scaled by all that came before the validation fold. Validation and test are the same for all.
"""
INTERVALS = """
Intervals are 95%, by a bootstrap over blocks of neighbouring days, on which both sides of a difference are read, and
by how far seeds differ beyond what their days explain. {told} Intervals of differences hold all at once, those in the
table of accuracy each for itself.
The validation fold also stopped the training, so gains on it are a little too good, for all alike.
"""
FEW = "A few seeds cannot tell much about seeds: in what concerns them, intervals are rough."
ONE = "Of one seed they hold nothing of what another would have given: a difference they show may be that seed's luck."
OTHERS = "What holds on these data need not hold on others: run the command above on yours."


def write_page(result: Comparison) -> None:
    """Write the page at `result.page` and its plots into the folder of its name beside it."""
    folder = result.page.with_suffix("")
    plots = draw_plots(result, folder)
    links = {name: f"![{name}]({folder.name}/{path.name})" for name, path in plots.items()}
    measured = [*_accuracy(result, links), *_cost(result, links), *_method(result)]
    parts = [*_head(result), *_advice(result), *measured, *_recommendation(result)]
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
    return ["## How many layers for how much data", _table(head, rows), _prose(prose), _prose(SHOWN)]


def _advice_rows(result: Comparison) -> list[list[str]]:
    """A head, then a row a share: the depth advised for each kind, and the kinds against the first."""
    first, *others = kinds = result.grid.kinds
    named = [*(f"layers of {kind}" for kind in kinds), *(f"{kind} less {first}" for kind in others)]
    rows = [["training data", "samples", "smallest gap shown", *named]]
    for share in result.grid.shares:
        matches = [result.matches[kind, share] for kind in others]
        verdicts = [f"{each.verdict}: {_signed(each.differences['gain'])}" for each in matches]
        depths = [_depth(result.depths[kind, share]) for kind in kinds]
        rows.append([share_name(share), str(result.samples(share)), _least_gap(result, share), *depths, *verdicts])
    return rows


def _least_gap(result: Comparison, share: Fraction) -> str:
    """How far a depth must lie below the best to be shown, which is the same for all kinds."""
    gaps = [gap for kind in result.grid.kinds for gap in result.depths[kind, share].gaps.values()]
    reach = max((gap.high - gap.mean for gap in gaps if gap.high is not None and gap.mean is not None), default=0.0)
    return f"{reach:.2f}" if reach > 0 else "-"


def _depth(depth: Depth) -> str:
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
        rows.append([share_name(share), kind, str(layers), *told, _signed(score.interval("test", "rank_ic"), 4), each])
    oracle = result.data.oracle
    prose = ACCURACY.format(line=result.line["test"]) + ("" if oracle is None else ORACLE.format(oracle=oracle))
    head = ["data", "kind", "layers", "gain, validation", "gain, test", "rank IC, test", "rank IC of each seed"]
    return ["## Accuracy", _prose(f"{prose} {BARS}"), links["accuracy"], _table(head, rows)]


def _in_order(result: Comparison) -> list[tuple[Cell, Score]]:
    """Cells with their scores, by share, then kind, then depth."""
    place = {kind: number for number, kind in enumerate(result.grid.kinds)}
    return sorted(result.scores.items(), key=lambda item: (item[0][2], place[item[0][0]], item[0][1]))


def _cost(result: Comparison, links: dict[str, str]) -> list[str]:
    sizes = {"layers": COST_LAYERS, "width": COST_WIDTH, "lookback": COST_LOOKBACK}
    facts = {"clock": _clock(result), "memory": "torch's part of the GPU's memory" if result.on_gpu else "the process"}
    parts = ["## Cost", _prose(COST, **sizes, **facts, batch=BATCH, samples=result.epoch_samples), links["cost"]]
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
    precision = config.train.precision if config.train.precision != "auto" else "bf16" if result.on_gpu else "no"
    facts = {"share": share_name(share), "precision": PRECISIONS[precision], "clock": _clock(result)}
    return [_prose(EPOCHS, **sizes, **facts), _table(head, rows)]


def _method(result: Comparison) -> list[str]:
    told = FEW if len(result.seeds) > 1 else ONE
    parts = [_prose(METHOD, epochs=result.data.config.train.epochs), _prose(INTERVALS, told=told)]
    return ["## How it was measured", *parts]


def _recommendation(result: Comparison) -> list[str]:
    points = "\n".join(_prose(f"- {point}").replace("\n", "\n  ") for point in recommend(result))
    return ["## Recommendation", points, _prose(" ".join([*price_of_depth(result), OTHERS]))]


def _clock(result: Comparison) -> str:
    return "time by the wall's clock" if result.on_gpu else "processor time"


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
