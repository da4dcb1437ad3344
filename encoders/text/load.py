"""Find a text encoder, fingerprint it without loading it, and load it.

`resolve` answers for every kind and needs no torch; `load` is for kind `encoder` (`causal.py` loads the
other). Where a checkpoint comes from is `checkpoint.py`'s business.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import text as normal_form
from data.errors import EncoderError
from encoders.text.checkpoint import (
    ADAPTER,
    CAUSAL_LM,
    ENCODER,
    SAFETENSORS,
    architecture,
    check_length,
    check_words,
    describe,
    find,
    first_line,
    hashes,
    quiet_transformers,
    tokenizer_files,
    width,
)
from encoders.text.config import CausalLMConfig, EncoderConfig, TextConfig
from encoders.text.presets import PRESETS

if TYPE_CHECKING:
    from encoders.text.pooling import Pool

log = logging.getLogger(__name__)

FORMAT = 1  # of the fingerprint; raise it when vectors change though no file does
GENERATORS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
CLASSIFIER = "ForSequenceClassification"
SENTIMENTS = ("positive", "negative", "neutral")  # the order of their probabilities in a vector
PROBE = "Profit rose, but the outlook was cut."


@dataclass(frozen=True)
class Source:
    """An encoder that is on this machine: its folder, and what identifies the vectors it gives.

    `fingerprint` is the hex digest of everything that the vector of a given text depends on: weights,
    tokenizer, config and adapter by their bytes, pooling, limits, prompt, the text's normal form.
    `dimension` is the vector's. `adapter` is the adapter's folder, where there is one.
    """

    name: str
    folder: Path
    fingerprint: str
    dimension: int
    config: TextConfig
    adapter: Path | None = None


@dataclass(frozen=True)
class Loaded:
    """An encoder in memory: eval mode, fp32, on the CPU.

    `model` gives token vectors as its `last_hidden_state`; `pool` makes one vector a text of them. It is
    a module too: both go to the device they run on.
    """

    tokenizer: Any
    model: Any
    pool: "Pool"


def resolve(config: TextConfig) -> Source:
    """Find the encoder, downloading it if need be, and fingerprint it. Does not import torch.

    Raises EncoderError where it cannot be had, or is no checkpoint of that kind.
    """
    return _resolve_causal(config) if isinstance(config, CausalLMConfig) else _resolve_encoder(config)


def load(source: Source) -> Loaded:
    """Load what `resolve` found of kind `encoder`.

    Raises EncoderError where transformers cannot read the folder, or weights that are used are missing
    from it (they would be random numbers).
    """
    from transformers import AutoModel, AutoTokenizer

    from encoders.text.pooling import POOLS

    pooling = source.config.pooling
    preset = PRESETS.get(source.config.encoder)
    if preset and pooling not in preset.poolings:
        usual = preset.poolings[0]
        log.warning("%s was made for text.pooling = %s; it is %s", source.name, usual, pooling)
    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(source.folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # of transformers or tokenizers, for whatever lies in the folder
            raise _unreadable(source.folder, error) from error
    if pooling == "sentiment":
        return _load_classifier(source, tokenizer)
    # The pooler on top is not ours to use: `last_hidden_state` is what gets pooled.
    model = _weights(AutoModel, source.folder, unused="pooler.")
    check_words(ENCODER, source.folder, tokenizer, model.get_input_embeddings().num_embeddings)
    return Loaded(tokenizer, model, POOLS[pooling]())


def _load_classifier(source: Source, tokenizer: Any) -> Loaded:
    """The encoder of a classifier, and a pooling that asks its head."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from encoders.text.pooling import FirstTokenClassifier, SentimentPool

    model = _weights(AutoModelForSequenceClassification, source.folder)
    check_words(ENCODER, source.folder, tokenizer, model.get_input_embeddings().num_embeddings)
    ids = torch.tensor([tokenizer(PROBE)["input_ids"]])
    with torch.inference_mode():
        expected = model(input_ids=ids).logits
        encoder, head = model.base_model, FirstTokenClassifier(model)
        try:
            found = head(encoder(input_ids=ids).last_hidden_state[:, 0])
        except Exception as error:  # of a head that reads more than it is given here
            raise _unreadable(source.folder, error) from error
    if not torch.allclose(found, expected, atol=1e-4):
        raise ENCODER.unusable(
            source.folder, "its classifier does not answer by the first token's vector alone (text.pooling)"
        )
    labels = _labels(describe(ENCODER, source.folder))
    return Loaded(tokenizer, encoder, SentimentPool(head, sentiment_order(labels)).eval())


def _weights(auto: Any, folder: Path, unused: str = "\0") -> Any:
    """A model of the Auto class, all of whose weights are the folder's but those whose names begin with `unused`."""
    import torch

    with quiet_transformers():
        try:
            model, report = auto.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=bool(ENCODER.files(folder)[0].match(SAFETENSORS)),
                dtype=torch.float32,
                output_loading_info=True,
            )
        except Exception as error:  # of transformers, safetensors or torch, for whatever lies in the folder
            raise _unreadable(folder, error) from error
    absent = sorted(key for key in report["missing_keys"] if not key.startswith(unused))
    if absent or report["mismatched_keys"]:
        named = ", ".join([*absent, *map(str, report["mismatched_keys"])][:3])
        raise ENCODER.unusable(folder, f"its weights lack or contradict {named}")
    return model.eval()


def _unreadable(folder: Path, error: Exception) -> EncoderError:
    return ENCODER.unusable(folder, f"transformers cannot load it ({first_line(error)})")


def _resolve_encoder(config: EncoderConfig) -> Source:
    folder = find(ENCODER, config.encoder, config.revision)
    details = describe(ENCODER, folder)
    named = architecture(ENCODER, folder, details)
    if details.get("is_encoder_decoder") or any(name.endswith(GENERATORS) for name in named.split(", ")):
        raise ENCODER.unusable(folder, f'it is a text generator ({named}); text.kind = "causal-lm" reads such')
    dimension = width(ENCODER, folder, details)
    check_length(folder, details, config.max_tokens)
    if config.pooling == "sentiment":
        if CLASSIFIER not in named or len(_labels(details)) < 2:
            raise EncoderError(
                f"text.pooling is sentiment, which asks the checkpoint's own classifier (a ...{CLASSIFIER} of several "
                f"labels), but the one in {folder} is {named}. Choose an encoder that has one, such as finbert, or "
                "another pooling: mean, cls, max."
            )
        dimension += len(_labels(details))
    files = hashes([*ENCODER.files(folder), *tokenizer_files(folder), folder / "config.json"])
    parts = [config.pooling, f"{config.max_tokens}", *files, *_windows(config)]
    return Source(config.encoder, folder, _digest(parts), dimension, config)


def _resolve_causal(config: CausalLMConfig) -> Source:
    from encoders.text.adapter import check_adapter

    folder = find(CAUSAL_LM, config.encoder, config.revision)
    details = describe(CAUSAL_LM, folder)
    named = architecture(CAUSAL_LM, folder, details)
    if not any(name.endswith(GENERATORS[:2]) for name in named.split(", ")):
        raise CAUSAL_LM.unusable(folder, f'its architecture is {named}; text.kind = "encoder" reads encoders')
    check_length(folder, details, config.max_tokens)
    files = hashes([*CAUSAL_LM.files(folder), *tokenizer_files(folder), folder / "config.json"])
    parts = [config.kind, config.pooling, f"{config.max_tokens}", f"bits {config.bits}", *files]
    adapter = None
    if config.adapter is not None:
        adapter = find(ADAPTER, config.adapter, config.adapter_revision)
        check_adapter(adapter, config.encoder, folder)
        parts += [f"adapter {line}" for line in hashes([*ADAPTER.files(adapter), adapter / ADAPTER.config])]
    dimension = 0 if config.sentiment == "only" else width(CAUSAL_LM, folder, details)
    if config.sentiment != "none":
        dimension += len(config.labels)
        parts += [f"sentiment {config.sentiment}", config.prompt, *config.labels]
    return Source(config.encoder, folder, _digest([*parts, *_windows(config)]), dimension, config, adapter)


def _windows(config: TextConfig) -> list[str]:
    return [f"chunks {config.chunks} overlap {config.overlap}"] if config.chunks > 1 else []


def _digest(parts: list[str]) -> str:
    lines = [f"{FORMAT}", f"text {normal_form.VERSION}", *parts]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _labels(details: dict[str, Any]) -> list[str]:
    """What a classifier calls its outputs, in their order; transformers takes two where `config.json` is silent."""
    named = details.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    return [str(label) for _, label in sorted(named.items(), key=lambda item: (len(item[0]), item[0]))]


def sentiment_order(labels: Sequence[str]) -> list[int]:
    """The order in which a classifier's outputs stand in a vector: positive, negative, neutral, then the rest.

    Where it does not call its outputs so, their own.
    """
    lower = [label.lower() for label in labels]
    if not set(SENTIMENTS) <= set(lower):
        return list(range(len(labels)))
    first = [lower.index(name) for name in SENTIMENTS]
    return first + [number for number in range(len(labels)) if number not in first]
