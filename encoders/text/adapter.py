"""What a LoRA adapter says of itself: that it is one, and the base it was trained on. Needs no torch and no peft."""

import logging
from pathlib import Path
from typing import Any

from data.errors import EncoderError
from encoders.text.checkpoint import ADAPTER, describe

log = logging.getLogger(__name__)


def check_adapter(folder: Path, base: str, base_folder: Path) -> None:
    """Raise EncoderError where `folder` holds no LoRA adapter as safetensors, or one for another base.

    The base that the adapter names is compared by its name without the owner, for models are mirrored.
    A folder may be called anything: where `base` is one that is called otherwise, a warning is logged,
    and that the weights fit is seen when they are loaded.
    """
    details: dict[str, Any] = describe(ADAPTER, folder)
    if (found := str(details.get("peft_type", "none")).upper()) != "LORA":
        raise ADAPTER.unusable(folder, f"its adapter_config.json says peft_type {found}")
    meant = str(details.get("base_model_name_or_path") or "")
    if not meant or _name(meant) in {_name(base), _name(str(base_folder.resolve()))}:
        return
    if Path(base).expanduser().exists():
        log.warning("the adapter %s was made for %s; it is put on %s, whose name differs", folder, meant, base_folder)
        return
    raise EncoderError(
        f"text.adapter: expected an adapter for {base}, but the one in {folder} was made for {meant}. Set text.encoder "
        "to that model, or to its folder, or choose the adapter that belongs to this one."
    )


def _name(path: str) -> str:
    """The last part of a hub id or path, case aside."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2].casefold()
