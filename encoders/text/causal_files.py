"""Load a causal language model and its LoRA adapter, in the precision that was asked for. Only safetensors are read."""

import importlib.util
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from data.errors import EncoderError
from encoders.text.checkpoint import ADAPTER, CAUSAL_LM, first_line, quiet_transformers
from encoders.text.config import CausalLMConfig
from encoders.text.load import Source

DTYPES = {32: torch.float32, 16: torch.bfloat16}  # others are computed in bfloat16


def load_causal(source: Source, config: CausalLMConfig) -> tuple[Any, Any]:
    """Tokenizer and model, eval mode, on CUDA where there is any, else on the CPU.

    Raises EncoderError where transformers or peft cannot read the folders, weights are missing from
    them, or the extra for few bits is not installed.
    """
    _require_extra(config.bits)
    tokenizer = _tokenizer(source.folder)
    model = _base(source.folder, config.bits)
    if source.adapter is not None:
        model = _with_adapter(model, source.adapter)
    return tokenizer, model.eval()


def _require_extra(bits: int) -> None:
    if bits < 16 and importlib.util.find_spec("bitsandbytes") is None:
        raise EncoderError(
            f"text.bits = {bits} needs the Python package bitsandbytes, which is not installed. Install it with "
            "`pip install 'tapewire[quantised]'`, or set text.bits to 16 or 32."
        )


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # of transformers or tokenizers, for whatever lies in the folder
            raise CAUSAL_LM.unusable(folder, f"its tokenizer cannot be loaded ({first_line(error)})") from error
    if not tokenizer.is_fast:
        raise CAUSAL_LM.unusable(folder, "its tokenizer cannot say which characters a token stands for")
    if tokenizer.eos_token_id is None:
        raise CAUSAL_LM.unusable(folder, "its tokenizer names no end-of-text token")
    tokenizer.truncation_side = "right"  # a text's beginning is what is read, whatever it generates best from
    return tokenizer


def _base(folder: Path, bits: int) -> Any:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    auto: Any = AutoModelForCausalLM  # the stubs know only one of its two answers
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options: dict[str, Any] = {"dtype": DTYPES.get(bits, torch.bfloat16)}
    if bits < 16:
        options["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_8bit=bits == 8,
            load_in_4bit=bits == 4,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
        options["device_map"] = {"": device}
    with quiet_transformers():
        try:
            model, report = auto.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
        except Exception as error:  # of transformers, safetensors or torch, for whatever lies in the folder
            raise CAUSAL_LM.unusable(folder, f"transformers cannot load it ({first_line(error)})") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        named = ", ".join([*sorted(report["missing_keys"]), *map(str, report["mismatched_keys"])][:3])
        raise CAUSAL_LM.unusable(folder, f"its weights lack or contradict {named}")
    return model if bits < 16 else model.to(device)


def _with_adapter(model: Any, folder: Path) -> Any:
    """The model with the adapter's matrices beside its own. Raises EncoderError where they do not fit it."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns of weights that are missing; they are looked for below
        try:
            adapted = PeftModel.from_pretrained(model, folder, local_files_only=True)
            placed = _matrices(get_peft_model_state_dict(adapted, save_embedding_layers=False))
            with safe_open(ADAPTER.files(folder)[0], framework="pt") as file:
                given = _matrices(file.keys())
        except Exception as error:  # of peft, safetensors or torch: a module that is not there, a shape that differs
            raise ADAPTER.unusable(folder, f"it does not fit the base model ({first_line(error)})") from error
    if given != placed:
        named = ", ".join(sorted(given ^ placed)[:3])
        raise ADAPTER.unusable(folder, f"its matrices and the base model's modules do not pair up ({named})")
    return adapted


def _matrices(names: Iterable[str]) -> set[str]:
    """Those of LoRA; an adapter may hold whole layers besides."""
    return {name for name in names if ".lora_" in name}
