"""A user's file of labelled texts: read, checked, and dealt into parts that no text straddles.

It is not the news of the lake: these texts have no date and teach an encoder, never a forecast.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.errors import InputError
from data.tabular import NESTED, read_batches
from data.text import normalise_all

Ints = npt.NDArray[np.int64]

ALIASES = {"text": ("text", "sentence", "title", "headline"), "label": ("label", "sentiment")}
MOST_LABELS = 20  # more are ids or scores, not classes


@dataclass(frozen=True)
class Labels:
    """Distinct texts in their normal form, in the file's order, and the label of each.

    `duplicates` counts further rows of a text that is there, `skipped` rows without a text or a label.
    """

    texts: list[str]
    labels: list[str]
    sha256: str
    duplicates: int
    skipped: int

    @property
    def counts(self) -> dict[str, int]:
        """How many texts have each label, by its name."""
        return dict(sorted(Counter(self.labels).items()))


def read_labels(path: Path, columns: Mapping[str, str], folds: int) -> Labels:
    """The labelled texts in a CSV, Parquet or JSON lines file, enough of each label for that many folds.

    `columns` names the file's columns for `text` and `label` where they are not among `ALIASES`. Raises
    InputError where the file cannot be read, lacks a column, has less than two labels or too many, too
    few texts of one, or two labels for one text.
    """
    rows = [
        row for table in read_batches(path, lambda names: _choose(names, columns, path)) for row in _rows(table, path)
    ]
    whole = [(text, label) for text, label in rows if text not in ("", NESTED) and label not in ("", NESTED)]
    first: dict[str, str] = {}
    conflicts = []
    for text, (_, label) in zip(normalise_all([text for text, _ in whole]), whole, strict=True):
        if first.setdefault(text, label) != label:
            conflicts.append((text, first[text], label))
    if conflicts:
        text, one, other = conflicts[0]
        raise InputError(
            f"{path}: expected one label for each text, found {len(conflicts)} rows that contradict an earlier one, "
            f"such as {text[:100]!r}: {one}, then {other}. Keep the rows you trust and try again."
        )
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    labels = Labels(list(first), list(first.values()), sha256, len(whole) - len(first), len(rows) - len(whole))
    _refuse_unfit(labels, path, folds)
    return labels


def deal(label_N: Ints, parts: int, order: np.random.Generator) -> Ints:
    """The part (0 .. parts - 1) of each text: every label's texts spread evenly and at random.

    Part 0 has the most of each label: at least one, where there is one.
    """
    part_N = np.empty(len(label_N), dtype=np.int64)
    for label in np.unique(label_N):
        rows = order.permutation(np.flatnonzero(label_N == label))
        part_N[rows] = np.arange(len(rows)) % parts
    return part_N


def _choose(names: Sequence[str], columns: Mapping[str, str], path: Path) -> dict[str, str]:
    """`text` and `label` -> the file's names for them."""
    found = {}
    for ours, aliases in ALIASES.items():
        wanted = [columns[ours]] if ours in columns else list(aliases)
        by_form = {name if ours in columns else name.strip().lower(): name for name in reversed(names)}
        match = next((by_form[name] for name in wanted if name in by_form), None)
        if match is None:
            raise InputError(
                f"{path}: expected a column {' or '.join(wanted)}, found {', '.join(names)[:1000]}. Name yours with "
                f"--{ours}-column."
            )
        found[ours] = match
    return found


def _rows(table: pa.Table, path: Path) -> list[tuple[str, str]]:
    """Pairs of text and label, stripped; "" where there is none."""
    try:
        cells = [table[name].cast(pa.string()).to_pylist() for name in ("text", "label")]
    except pa.ArrowException as error:
        raise InputError(f"{path}: expected texts and labels as plain columns, found: {error}") from error
    return [((text or "").strip(), (label or "").strip()) for text, label in zip(*cells, strict=True)]


def _refuse_unfit(labels: Labels, path: Path, folds: int) -> None:
    counts = labels.counts
    found = ", ".join(f"{label} {count}" for label, count in list(counts.items())[:10]) or "none"
    if not 2 <= len(counts) <= MOST_LABELS:
        raise InputError(
            f"{path}: expected 2 to {MOST_LABELS} different labels, such as negative, neutral and positive; found "
            f"{len(counts)} ({found[:300]}), and {labels.skipped} rows without a text or a label. Choose another "
            "column with --label-column, or add texts of another label."
        )
    if len({label.lower() for label in counts}) < len(counts):
        raise InputError(f"{path}: expected each label in one spelling, found {found}. Make them alike.")
    if min(counts.values()) < 2 * folds:
        raise InputError(
            f"{path}: expected at least {2 * folds} different texts of every label for {folds} folds, found {found}. "
            "Add texts, or lower --folds."
        )
