"""`tapewire adapt-text`: fine-tune the workspace's text encoder on labelled texts and register it as a new one.

What is learned is judged by cross-validation: each fold's figures are of texts that neither trained its
encoder nor chose its epochs. Then one encoder is fitted with all texts, for the folds' median of
epochs, and stands whole under `text/` of the workspace, or not at all.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from accelerate.utils import set_seed
from pydantic import ValidationError

from data.errors import ConfigError, EncoderError
from encoders.text.adapt import AdaptConfig, Labelled, fit
from encoders.text.classifier import Classifier, build_classifier, order_labels, tokenise
from encoders.text.config import EncoderConfig
from encoders.text.load import Source, resolve
from pipelines.adapted import Adapted, Cosines, Figures, FoldFigures, Ints, accuracy, confusion, f1_interval, macro_f1
from pipelines.labels import Labels, deal, read_labels
from pipelines.opposites import opposites
from pipelines.workspace import Workspace, replace_file

Progress = Callable[[int, int], None]

FORMAT = 1
MANIFEST = "manifest.json"
VALID_PARTS = 8  # one of so many parts of a fold's training texts chooses its epochs
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def adapt_text(
    workspace: Workspace,
    labels_file: Path,
    config: AdaptConfig,
    name: str | None = None,
    folds: int = 5,
    columns: Mapping[str, str] | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Adapted:
    """Adapt the encoder of `[text]` to the texts in `labels_file` and register it as `text/<name>`.

    `columns` names the file's columns for `text` and `label`. `name` None is the base's with `-adapted`.
    `progress` counts epochs. Raises ConfigError for a bad or taken name and a `[text]` that is no
    encoder, InputError for a file that is not fit, EncoderError for a base that is not, LockedError
    where another process is at it. A kill leaves a draft at most, which the next run clears away.
    """
    base = workspace.config.text
    if not isinstance(base, EncoderConfig):
        raise ConfigError(f'text.kind is {base.kind}: expected "encoder", the kind that can be adapted.')
    folder = _free_folder(workspace, name or f"{Path(base.encoder).name}-adapted")
    labels = read_labels(labels_file, columns or {}, folds)
    with workspace.lock("adapt-text"):
        folder = _free_folder(workspace, folder.name)  # another run may have made it since
        source = resolve(base)
        model, figures = _Study.prepare(source, labels, config).run(folds, progress)
        try:
            return _register(model, figures, source, labels, config, folder)
        except OSError as error:
            raise EncoderError(f"{folder}: expected to write the adapted encoder there, found: {error}.") from error


def _register(
    model: Classifier, figures: Figures, source: Source, labels: Labels, config: AdaptConfig, folder: Path
) -> Adapted:
    draft = _draft(folder)
    files = model.save(source, draft)
    adapted = resolve(source.config.model_copy(update={"encoder": str(draft), "revision": None}))
    result = Adapted(folder, f"{folder.parent.name}/{folder.name}", adapted.fingerprint, labels, figures)
    replace_file(draft / MANIFEST, json.dumps(_manifest(result, source, config, files), indent=1).encode())
    _publish(draft, folder)
    return result


def parse_settings(given: Mapping[str, Any]) -> AdaptConfig:
    """The settings of what was given on the command line, None for what was not. Raises ConfigError."""
    try:
        return AdaptConfig.model_validate({key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = str(problem["loc"][0]).replace("_", "-")
        raise ConfigError(f"--{name} {problem['input']}: {problem['msg']}.") from None


def parse_method(text: str) -> Literal["full", "lora"]:
    """One of full, lora. Raises ConfigError."""
    known = get_args(AdaptConfig.model_fields["method"].annotation)
    if text not in known:
        raise ConfigError(f"--method {text}: expected {' or '.join(known)}.")
    return cast("Literal['full', 'lora']", text)


@dataclass(frozen=True)
class _Study:
    """What every fit of a run shares. `pairs` are tokens: those of the good headlines, then of their opposites."""

    source: Source
    config: AdaptConfig
    names: list[str]
    texts: Labelled
    pairs: list[list[int]]

    @classmethod
    def prepare(cls, source: Source, labels: Labels, config: AdaptConfig) -> "_Study":
        """Everything as tokens and numbers."""
        names = order_labels(source, labels.labels)
        label_N = np.array([names.index(label) for label in labels.labels], dtype=np.int64)
        known = opposites()
        pairs = tokenise(source, [*known.good, *known.bad])
        return cls(source, config, names, Labelled(tokenise(source, labels.texts), label_N), pairs)

    def run(self, folds: int, progress: Progress) -> tuple[Classifier, Figures]:
        """Cross-validate, then fit with all texts."""
        count = _Count((folds + 1) * self.config.epochs, progress)
        before = self._cosines(self._start())
        tested, confusion_CC = self._cross_validate(folds, count)
        model, epochs = self._start(), int(np.median([fold.epochs for fold in tested]))
        count.done = folds * self.config.epochs
        fit(model, self.texts, self.config, epochs=epochs, advance=count.advance)
        f1 = f1_interval(confusion_CC, self.config.seed)
        return model, Figures(tested, f1, accuracy(confusion_CC), epochs, before, self._cosines(model))

    def _cross_validate(self, folds: int, count: "_Count") -> tuple[list[FoldFigures], Ints]:
        """Each fold's figures, and the confusion over all of them."""
        order = np.random.default_rng(self.config.seed)
        label_N, classes = self.texts.label_N, len(self.names)
        fold_N = deal(label_N, folds, order)
        tested, total = [], np.zeros((classes, classes), dtype=np.int64)
        for fold in range(folds):
            rest, test = np.flatnonzero(fold_N != fold), np.flatnonzero(fold_N == fold)
            chosen = deal(label_N[rest], VALID_PARTS, order) == 0
            train, valid = self.texts.take(rest[~chosen]), self.texts.take(rest[chosen])
            model, count.done = self._start(), fold * self.config.epochs
            epochs = fit(model, train, self.config, valid, advance=count.advance)
            log_NC, _ = model.read(self.texts.take(test).tokens)
            matrix = confusion(label_N[test], log_NC.argmax(1), classes)
            cosines = self._cosines(model)
            tested.append(FoldFigures(len(test), epochs, float(macro_f1(matrix)), accuracy(matrix), cosines))
            total += matrix
        return tested, total

    def _start(self) -> Classifier:
        """The base, ready to be trained: the same for every fit."""
        set_seed(self.config.seed)
        return build_classifier(self.source, self.names, self.config.rank if self.config.method == "lora" else None)

    def _cosines(self, model: Classifier) -> Cosines:
        """Of the opposites, as `model` sees them."""
        _, vectors = model.read(self.pairs)
        good, bad = np.split(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), 2)
        cosine = (good * bad).sum(1)
        return Cosines(float(cosine[: opposites().beats].mean()), float(cosine.mean()))


@dataclass
class _Count:
    """Epochs done, of all there can be; an early stop leaves some out."""

    total: int
    progress: Progress
    done: int = 0

    def advance(self) -> None:
        """One more."""
        self.done += 1
        self.progress(self.done, self.total)


def _free_folder(workspace: Workspace, name: str) -> Path:
    if not NAME.fullmatch(name):
        raise ConfigError(f"--out {name}: expected a name of letters, digits, dots and hyphens, such as minilm-2024.")
    folder = workspace.folder / "text" / name
    if folder.exists():
        raise ConfigError(f"{folder}: there is one already; it was left as it is. Choose another name with --out.")
    return folder


def _draft(folder: Path) -> Path:
    """A new folder beside `folder`; what killed runs left there is cleared away."""
    for left in folder.parent.glob(".draft-*"):
        shutil.rmtree(left)
    draft = folder.with_name(f".draft-{os.getpid()}")
    draft.mkdir(parents=True)
    return draft


def _publish(draft: Path, folder: Path) -> None:
    """All files at once, and durable."""
    draft.rename(folder)
    handle = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _manifest(result: Adapted, source: Source, config: AdaptConfig, files: dict[str, str]) -> dict[str, Any]:
    """What the encoder was made of and what is known of it; no text of the labels."""
    labels = result.labels
    return {
        "format": FORMAT,
        "fingerprint": result.fingerprint,
        "base": {"encoder": source.name, "fingerprint": source.fingerprint},
        "text": source.config.model_dump(mode="json", include={"pooling", "max_tokens"}),
        "labels": {
            "sha256": labels.sha256,
            "texts": labels.counts,
            "duplicates": labels.duplicates,
            "skipped": labels.skipped,
        },
        "config": config.model_dump(mode="json"),
        "figures": result.figures.as_dict(),
        "files": files,
    }
