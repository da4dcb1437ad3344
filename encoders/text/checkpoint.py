"""Find a checkpoint's folder on this machine or the hub, and read what of it needs no torch.

Nothing falls back silently: what cannot be had is an EncoderError that says how to get it. A copy in
the hub cache is used without asking the network, so a moving branch such as `main` stays where it was
first fetched. Weights are read as safetensors where they exist; of an encoder also as
`pytorch_model.bin` (the pinned FinBERT has nothing else) through torch's weights-only loader, which
runs no code of the file. Code that comes with a checkpoint is never run, nor offered.
"""

import hashlib
import importlib.util
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import EncoderError
from encoders.text.presets import FINBERT, MINILM_PACKAGE, PRESETS

log = logging.getLogger(__name__)

HUB_TIMEOUT_S = 5.0

SAFETENSORS, PICKLED = "model*.safetensors*", "pytorch_model*.bin*"
WORDS = ("tokenizer.json", "vocab*", "*.model", "*.codes")  # without any, transformers makes up a vocabulary
TOKENIZER = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model", "*.codes")
WIDTHS = ("hidden_size", "dim", "d_model", "n_embd")  # what architectures call E in config.json
LENGTHS = ("max_position_embeddings", "n_positions")
SHAPES: dict[str, type] = {**dict.fromkeys((*WIDTHS, *LENGTHS), int), "id2label": dict, "architectures": list}
ADAPTED = "text/"  # of a workspace: where adapted encoders lie
# Positions of these start behind the padding token's number, so that many fewer can be read.
OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer"})


@dataclass(frozen=True)
class Kind:
    """A kind of checkpoint: what a folder of it must hold, and what errors say of it.

    `config` is the file that describes it. `weights` are patterns of which the first that fits is
    read. `key` is the configuration's, `remedy` the last sentence of every error.
    """

    name: str
    key: str
    config: str
    weights: tuple[str, ...]
    has_tokenizer: bool
    remedy: str

    def files(self, folder: Path) -> list[Path]:
        """The weight files that would be read. [] where there are none."""
        return next((found for pattern in self.weights if (found := sorted(folder.glob(pattern)))), [])

    def lack(self, folder: Path) -> str:
        """What the folder lacks, as the end of a sentence; "" where it is whole."""
        weights = self.files(folder)
        if not weights:
            return f"it has no {' or '.join(pattern.replace('*', '') for pattern in self.weights)}"
        if absent := _absent_parts(weights):
            return f"{absent[0]} is missing, which its index names ({len(absent)} such)"
        if self.has_tokenizer and not any(path.is_file() for pattern in WORDS for path in folder.glob(pattern)):
            return f"it has no tokenizer ({', '.join(WORDS)})"
        if self.has_tokenizer and (folder / ADAPTER.config).exists():
            return f"an adapter lies in it ({ADAPTER.config}); keep it in a folder of its own, for text.adapter"
        return ""

    def unusable(self, folder: Path, found: str) -> EncoderError:
        """The error for a folder that is not what it should be."""
        inside = ", ".join([self.config, *(["tokenizer"] if self.has_tokenizer else []), "weights"])
        return EncoderError(f"{self.key}: expected {self.name} ({inside}) in {folder}, but {found}. {self.remedy}")

    def unavailable(self, name: str, found: str) -> EncoderError:
        """The error for what cannot be had."""
        return EncoderError(f"{self.key}: {name!r} cannot be had: {found}. {self.remedy}")


ENCODER = Kind(
    name="a Hugging Face checkpoint of a text encoder",
    key="text.encoder",
    config="config.json",
    weights=(SAFETENSORS, PICKLED),
    has_tokenizer=True,
    remedy=f"To get FinBERT, run `hf download {FINBERT.repo} --revision {FINBERT.revision} --local-dir finbert` on a "
    "machine with network, copy the folder here, and set text.encoder to its path. Or choose the small encoder that "
    "needs no network: `pip install 'tapewire[offline]'` and text.encoder = \"minilm\".",
)
CAUSAL_LM = Kind(
    name="a Hugging Face checkpoint of a causal language model",
    key="text.encoder",
    config="config.json",
    weights=(SAFETENSORS,),
    has_tokenizer=True,
    remedy="Run `hf download OWNER/NAME --local-dir FOLDER` on a machine with network (after `hf auth login` where the "
    "model is gated), copy the folder here, and set text.encoder to its path.",
)
ADAPTER = Kind(
    name="a LoRA adapter as peft saves it",
    key="text.adapter",
    config="adapter_config.json",
    weights=("adapter_model.safetensors",),
    has_tokenizer=False,
    remedy="Run `hf download OWNER/NAME --local-dir FOLDER` on a machine with network, copy the folder here, and set "
    "text.adapter to its path; docs/text-encoders.md says how an adapter_model.bin becomes safetensors.",
)


def find(kind: Kind, name: str, revision: str | None) -> Path:
    """The folder of `name`: a preset, a folder where that path exists, else a hub id, downloaded if need be.

    Raises EncoderError where it cannot be had.
    """
    if name == "minilm":
        return _minilm()
    if name in PRESETS:
        return _hub(kind, PRESETS[name].repo, revision or PRESETS[name].revision)
    path = Path(os.path.expanduser(name))  # where there is no such user the name stays as it is
    if path.exists():
        return path
    if name.startswith(ADAPTED):
        raise kind.unavailable(name, "there is no such folder; `tapewire adapt-text` makes those in text/")
    return _hub(kind, name, revision)


def describe(kind: Kind, folder: Path) -> dict[str, Any]:
    """The file that describes the checkpoint in `folder`. Raises EncoderError where the folder is not whole."""
    if not folder.is_dir():
        raise kind.unusable(folder, "it is no folder")
    try:
        details = json.loads((folder / kind.config).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise kind.unusable(folder, f"its {kind.config} cannot be read ({first_line(error)})") from error
    if not isinstance(details, dict):
        raise kind.unusable(folder, f"its {kind.config} is no table")
    if lack := kind.lack(folder):
        raise kind.unusable(folder, lack)
    for key, made_of in SHAPES.items():
        if not isinstance(details.get(key), made_of | None):
            raise kind.unusable(folder, f"its {kind.config} has {key} = {str(details[key])[:80]!r}")
    return details


def architecture(kind: Kind, folder: Path, details: dict[str, Any]) -> str:
    """The model's class as `config.json` names it, else its `model_type`. EncoderError where there is neither."""
    if "model_type" not in details:
        raise kind.unusable(folder, "its config.json names no model_type")
    return ", ".join(map(str, details.get("architectures") or [])) or str(details["model_type"])


def width(kind: Kind, folder: Path, details: dict[str, Any]) -> int:
    """E as `config.json` states it."""
    for key in WIDTHS:
        if details.get(key) is not None:
            return int(details[key])
    raise kind.unusable(folder, f"its config.json (model_type {details['model_type']}) states no width")


def check_length(folder: Path, details: dict[str, Any], tokens: int) -> None:
    """Raise EncoderError where the checkpoint cannot read that many tokens at once."""
    limit = next((int(details[key]) for key in LENGTHS if details.get(key) is not None), None)
    if limit is None:
        return
    if details.get("model_type") in OFFSET_POSITIONS:
        padding = details.get("pad_token_id")
        limit -= (padding if isinstance(padding, int) else 1) + 1
    if tokens > limit:
        raise EncoderError(
            f"text.max_tokens is {tokens}, but the text encoder in {folder} reads at most {limit} tokens. Set "
            f"text.max_tokens to {limit} or less; text.chunks reads longer texts in several windows."
        )


def tokenizer_files(folder: Path) -> list[Path]:
    """Whatever a tokenizer may be read from."""
    return sorted({path for pattern in TOKENIZER for path in folder.glob(pattern) if path.is_file()})


def check_words(kind: Kind, folder: Path, tokenizer: Any, rows: int) -> None:
    """Raise EncoderError where the tokenizer knows more words than the model has `rows` of vectors for."""
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= rows:
        found = f"its tokenizer numbers words up to {highest}, and its model has vectors of {rows}"
        raise kind.unusable(folder, found)


def hashes(paths: Iterable[Path]) -> list[str]:
    """`name sha256` of each file."""
    lines = []
    for path in paths:
        with path.open("rb") as file:
            lines.append(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}")
    return lines


def first_line(error: Exception) -> str:
    """What an error says, in short."""
    return (str(error).strip().splitlines() or [""])[0][:200]


def _minilm() -> Path:
    """The `model` folder of the offline package; found, not imported: its code pulls in other libraries."""
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (folder := Path(place) / "model").is_dir():
            return folder
    raise ENCODER.unavailable("minilm", f"the Python package {MINILM_PACKAGE.replace('_', '-')} is not installed")


def _hub(kind: Kind, repo: str, revision: str | None) -> Path:
    """The snapshot of a hub model: the cached copy if it is whole, else a download."""
    from httpx2 import HTTPError
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        cached = Path(snapshot_download(repo, revision=revision, local_files_only=True))
        if (cached / kind.config).exists() and not kind.lack(cached):
            return cached
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise kind.unavailable(repo, "it is neither a folder here nor a valid hub id") from error
    try:
        # Asked first because it fails within seconds where there is no network; a download retries for long.
        siblings = HfApi().model_info(repo, revision=revision, timeout=HUB_TIMEOUT_S).siblings or []
        names = [Path(item.rfilename) for item in siblings]
        pattern = next((each for each in kind.weights if any(name.match(each) for name in names)), kind.weights[0])
        patterns = [kind.config, pattern, *(TOKENIZER if kind.has_tokenizer else ())]
        log.info("downloading %s, revision %s", repo, revision or "main")
        with _quiet_hub():
            return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except (HTTPError, OSError) as error:
        found = f"the hub did not give it ({type(error).__name__}: {first_line(error)})"
        raise kind.unavailable(repo, found) from error


def _absent_parts(weights: list[Path]) -> list[str]:
    """Files that an index among `weights` names but that are not there."""
    names: set[str] = set()
    for index in (path for path in weights if path.name.endswith(".index.json")):
        try:
            names |= set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return [index.name]
    return sorted(name for name in names if not (weights[0].parent / name).is_file())


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Progress bars of a download only on a terminal."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    silenced = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if silenced:
        disable_progress_bars()
    try:
        yield
    finally:
        if silenced:
            enable_progress_bars()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bar for reading a file, no report on unused heads: what matters is checked by us."""
    from transformers.utils import logging as hf

    level, bars = hf.get_verbosity(), hf.is_progress_bar_enabled()
    hf.set_verbosity(logging.ERROR)
    hf.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        hf.set_verbosity(level)
        if bars:
            hf.enable_progress_bar()  # type: ignore[no-untyped-call]
