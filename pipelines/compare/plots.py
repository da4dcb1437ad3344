"""The plots of a comparison as SVG files: what training costs, and what more data and more layers bring.

The same figures give the same bytes: no date, no random ids, text as text.
"""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from pipelines.compare.recommendation import layers_name, share_name
from pipelines.compare.result import Comparison
from pipelines.metrics import Interval

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "tapewire",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
}
MIB = 2**20
APART = 0.06  # factor between the points of two depths, so that their intervals do not cover each other


def draw_plots(result: Comparison, folder: Path) -> dict[str, Path]:
    """Write `cost.svg` and `accuracy.svg` into `folder`, which is made; their paths by name."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, draw in {"cost": _cost, "accuracy": _accuracy}.items():
        paths[name] = folder / f"{name}.svg"
        with matplotlib.rc_context(STYLE):
            draw(result).savefig(paths[name], format="svg", metadata={"Date": None, "Creator": None})
    return paths


def _cost(result: Comparison) -> Figure:
    """Time by lookback and by width, memory by lookback; both axes logarithmic, so that a power law is a line."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    by_lookback, by_width, memory = figure.subplots(1, 3)
    samples = result.epoch_samples
    for kind, of in result.costs.items():
        for axes, name in ((by_lookback, "lookback"), (by_width, "width")):
            seconds = [cost.seconds * samples for cost in of[name].values()]
            label = kind if len(seconds) < 2 else f"{kind}, exponent {result.growth(kind, name)[0]:.2f}"
            axes.plot(list(of[name]), seconds, "o-", markersize=4, label=label)
        held = [cost.bytes / MIB or np.nan for cost in of["lookback"].values()]
        memory.plot(list(of["lookback"]), held, "o-", markersize=4, label=kind)
    _log_axes(by_lookback, "sessions in a window", f"seconds for {samples} samples", result.grid.lookbacks)
    _log_axes(by_width, "width", "", result.grid.widths)
    _log_axes(memory, "sessions in a window", "MiB", result.grid.lookbacks)
    for axes, title in ((by_lookback, "Time by lookback"), (by_width, "Time by width"), (memory, "Memory by lookback")):
        axes.set_title(title)
        axes.legend()
    return figure


def _accuracy(result: Comparison) -> Figure:
    """Test gain and rank IC by share of the data: a column a kind, a line a depth, 0 for no skill."""
    kinds = result.grid.kinds
    figure = Figure(figsize=(2 + 4 * len(kinds), 6.2), layout="constrained")
    grid = figure.subplots(2, len(kinds), sharex=True, sharey="row", squeeze=False)
    titles = {"gain": "gain over no skill, 1/1000 nat", "rank_ic": "rank IC"}
    for (name, title), row in zip(titles.items(), grid, strict=True):
        for kind, axes in zip(kinds, row, strict=True):
            _learning(result, kind, name, axes)
            axes.axhline(0, color="black", linewidth=0.8)
            if name == "rank_ic" and result.data.oracle is not None:
                axes.axhline(result.data.oracle, color="black", linewidth=0.8, linestyle="--", label="attainable")
        row[0].set_ylabel(title)
    for kind, top, bottom in zip(kinds, *grid, strict=True):
        top.set_title(f"{kind} on the test fold")
        bottom.set_xlabel("share of the training sessions")
    named = {label: drawn for axes in grid.flat for drawn, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=len(named))
    return figure


def _learning(result: Comparison, kind: str, name: str, axes: Axes) -> None:
    shares = [float(share) for share in result.grid.shares]
    layers = result.layers(kind)
    for number, depth in enumerate(layers):
        told = [result.scores[kind, depth, share].interval("test", name) for share in result.grid.shares]
        place = np.array(shares) * (1 + APART * (number - (len(layers) - 1) / 2))
        mean, error = _bars(told)
        style: dict[str, Any] = {"fmt": "o-", "markersize": 3, "linewidth": 1, "elinewidth": 0.7}
        axes.errorbar(place, mean, yerr=error, label=layers_name(depth), **style)
    axes.set_xscale("log", base=2)
    axes.set_xticks(shares, [share_name(share) for share in result.grid.shares])
    axes.xaxis.minorticks_off()


def _bars(told: list[Interval]) -> tuple[np.ndarray, np.ndarray]:
    """Means [M], and how far the intervals reach below and above them [2, M]; NaN where there is none."""
    values = np.array([[each.mean, each.low, each.high] for each in told], dtype=float)
    mean, low, high = values.T
    return mean, np.abs(np.vstack([mean - low, high - mean]))


def _log_axes(axes: Axes, across: str, up: str, ticks: tuple[int, ...]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(across)
    axes.set_ylabel(up)
