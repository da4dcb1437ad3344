"""What came of adapting a text encoder: figures with their error bars, as a record and as a table."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.labels import Labels
from pipelines.metrics import DRAWS, Interval
from pipelines.table import aligned

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cosines:
    """Mean cosine of made-up headlines and their opposites: those that say beats and misses, and all."""

    beats: float
    opposites: float


@dataclass(frozen=True)
class FoldFigures:
    """Of one fold: how many texts it tested, after how many epochs, and the encoder's `Cosines` then."""

    texts: int
    epochs: int
    macro_f1: float
    accuracy: float
    cosines: Cosines


@dataclass(frozen=True)
class Figures:
    """Of a whole run. `macro_f1` and `accuracy` are of all folds' predictions together, each text's by the
    fold that did not see it. `epochs` and the cosines `after` are of the encoder that is registered.
    """

    folds: list[FoldFigures]
    macro_f1: Interval
    accuracy: float
    epochs: int
    before: Cosines
    after: Cosines

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "macro_f1": self.macro_f1.as_dict()}


@dataclass(frozen=True)
class Adapted:
    """A registered encoder. `encoder` is what `text.encoder` takes, inside the workspace."""

    folder: Path
    encoder: str
    fingerprint: str
    labels: Labels
    figures: Figures

    def as_dict(self) -> dict[str, Any]:
        """The contract of `adapt-text --json`."""
        return {
            "path": str(self.folder),
            "encoder": self.encoder,
            "fingerprint": self.fingerprint,
            "texts": len(self.labels.texts),
            "labels": self.labels.counts,
            "duplicates": self.labels.duplicates,
            "skipped": self.labels.skipped,
            "figures": self.figures.as_dict(),
        }


def confusion(label_N: Ints, predicted_N: Ints, classes: int) -> Ints:
    """How many texts of each label (row) were given each label (column)."""
    return np.bincount(label_N * classes + predicted_N, minlength=classes**2).reshape(classes, classes)


def accuracy(confusion_CC: Ints) -> float:
    """The share of texts that were given their own label."""
    return float(confusion_CC.trace() / confusion_CC.sum())


def macro_f1(confusion_CC: Ints) -> Floats:
    """Mean F1 of the labels, over the last two axes; that of a label neither there nor given is 0."""
    right = np.diagonal(confusion_CC, axis1=-2, axis2=-1)
    both = confusion_CC.sum(-1) + confusion_CC.sum(-2)
    scores: Floats = np.asarray((2 * right / np.maximum(both, 1)).mean(-1))
    return scores


def f1_interval(confusion_CC: Ints, seed: int) -> Interval:
    """Macro-F1 with a 95% interval by bootstrap over texts. What another seed would change is not in it."""
    count = int(confusion_CC.sum())
    draws = np.random.default_rng(seed).multinomial(count, confusion_CC.ravel() / count, DRAWS)
    drawn = draws.reshape(DRAWS, *confusion_CC.shape)
    return Interval.of(macro_f1(np.concatenate([confusion_CC[None], drawn])))


def adapted_table(result: Adapted) -> str:
    """The folds, what all of them say, and the line that puts the encoder to use."""
    figures, labels = result.figures, result.labels
    f1, before, after = figures.macro_f1, figures.before, figures.after
    head = ["fold", "texts", "epochs", "macro-F1", "accuracy", "beats/misses", "opposites"]
    counts = ", ".join(f"{count} {label}" for label, count in labels.counts.items())
    left_out = f"left out: {labels.duplicates} duplicates, {labels.skipped} without a text or a label"
    beats = f"of beats and misses {before.beats:.3f} -> {after.beats:.3f}"
    others = f"of all opposites {before.opposites:.3f} -> {after.opposites:.3f}"
    lines = [
        f"{len(labels.texts)} texts ({counts}); {left_out}.",
        aligned([head, *(_row(number, fold) for number, fold in enumerate(figures.folds, 1))]),
        f"All folds: macro-F1 {f1.mean:.4f} [{f1.low:.4f}, {f1.high:.4f}], accuracy {figures.accuracy:.4f}.",
        f"Registered, after {figures.epochs} epochs with all texts: cosine {beats}, {others}.",
        f'To use it, set text.encoder = "{result.encoder}" in tapewire.toml and run tapewire embed.',
    ]
    return "\n".join(lines)


def _row(number: int, fold: FoldFigures) -> list[str]:
    measured = [fold.macro_f1, fold.accuracy, fold.cosines.beats, fold.cosines.opposites]
    return [str(number), str(fold.texts), str(fold.epochs), *(f"{value:.4f}" for value in measured)]
