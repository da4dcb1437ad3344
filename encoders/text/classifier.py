"""A text encoder under a classifier of its own architecture: built from a checkpoint, read with, saved as one.

What is saved is an ordinary checkpoint: transformers reads it as an encoder and as a classifier. How it
is trained is `adapt.py`'s part.
"""

import hashlib
import os
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.text.checkpoint import ENCODER, describe, first_line, quiet_transformers, tokenizer_files
from encoders.text.load import Source
from encoders.text.padded import groups, needed, pad
from encoders.text.pooling import POOLS, MeanPool, Pool

Floats = npt.NDArray[np.float32]
Tokens = Sequence[Sequence[int]]

READ_TOKENS = 2_048  # of a batch that is only read, its padding included; a longer text is one of its own


class Classifier(nn.Module):
    """A checkpoint's encoder and classifier, and the pooling with which the encoder will be used."""

    def __init__(self, network: Any, pool: Pool) -> None:
        super().__init__()
        self.network = network
        self.pool = pool

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.parameters()).device

    def forward(self, ids_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, C] and pooled vectors [B, E] of padded token ids; `mask_BT` is True at tokens."""
        out = self.network(input_ids=ids_BT, attention_mask=needed(mask_BT), output_hidden_states=True)
        offset_B1 = functional.pad(mask_BT.sum(1).cumsum(0), (1, 0))
        return out.logits, self.pool(out.hidden_states[-1][mask_BT], offset_B1)

    @torch.inference_mode()
    def read(self, tokens: Tokens) -> tuple[Floats, Floats]:
        """Log-probabilities [N, C] and pooled vectors [N, E] of texts, in their order; at least one text."""
        self.eval()
        order = np.argsort([len(ids) for ids in tokens], kind="stable")
        ascending = [tokens[row] for row in order]
        lengths = [len(ids) for ids in ascending]
        logs, vectors = [], []
        for batch in groups(lengths, lambda first, last: (last - first + 1) * lengths[last] <= READ_TOKENS):
            logits_BC, pooled_BE = self(*pad_lists(ascending[batch], self.device))
            logs.append(logits_BC.float().log_softmax(-1).cpu())
            vectors.append(pooled_BE.float().cpu())
        back = np.argsort(order, kind="stable")
        return torch.cat(logs).numpy()[back], torch.cat(vectors).numpy()[back]

    def save(self, source: Source, folder: Path) -> dict[str, str]:
        """Write the checkpoint into the empty `folder` and return the sha256 of each of its files.

        Adapters are merged into the weights, here too. The tokenizer's files are those of `source`, byte
        by byte. Every file is durable when this returns.
        """
        from peft import PeftModel

        if isinstance(self.network, PeftModel):
            self.network = self.network.merge_and_unload()
        self.network.config.name_or_path = ""  # where the base lay on this machine is no part of the encoder
        with quiet_transformers():
            self.network.save_pretrained(folder)
        for path in tokenizer_files(source.folder):
            shutil.copyfile(path, folder / path.name)
        return {path.name: _settle(path) for path in sorted(folder.iterdir())}


def build_classifier(source: Source, labels: Sequence[str], rank: int | None) -> Classifier:
    """The source under a classifier of `labels` (in the order of `order_labels`), ready to be trained, on the CPU.

    A classifier that the checkpoint has for just these labels is kept; any other is new, drawn from
    torch's generator. `rank` adds LoRA matrices (Hu et al. 2021) beside every linear layer of the
    encoder, and then they and the classifier alone are trained; None trains everything. The table of
    word vectors is trained in neither case: a few thousand texts would move the words they hold away
    from all the others. Raises EncoderError where transformers has no classifier for the architecture.
    """
    network = _load(source, labels)
    inside = f"{network.base_model_prefix}."
    head = [module for name, module in network.named_modules() if name and not f"{name}.".startswith(inside)]
    if [name.lower() for name in own_labels(source)] != [label.lower() for label in labels]:
        # Also where there were as many labels: what they meant is another matter.
        for module in head:
            if isinstance(module, nn.Linear):
                module.reset_parameters()
    if rank is None:
        network.get_input_embeddings().requires_grad_(False)
    else:
        network = _with_lora(network, inside, rank)
        for module in head:
            module.requires_grad_(True)
    return Classifier(network, POOLS.get(source.config.pooling, MeanPool)())


def order_labels(source: Source, labels: Sequence[str]) -> list[str]:
    """The distinct labels: in the order of the source's own classifier if it has just these, else sorted.

    Case is no difference there, and the spelling is that of `labels`.
    """
    ours = {label.lower(): label for label in labels}
    theirs = [name.lower() for name in own_labels(source)]
    same = len(set(labels)) == len(ours) == len(theirs) and set(ours) == set(theirs)
    return [ours[name] for name in theirs] if same else sorted(set(labels))


def own_labels(source: Source) -> list[str]:
    """The labels of the classifier that the checkpoint holds, in the order of its logits; [] where it holds none."""
    details = describe(ENCODER, source.folder)
    if not any(str(name).endswith("ForSequenceClassification") for name in details.get("architectures") or []):
        return []
    named = (details.get("id2label") or {}).items()
    return [str(name) for _, name in sorted(named, key=lambda item: (len(item[0]), item[0]))]


def tokenise(source: Source, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, special ones included, cut after `text.max_tokens`."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of transformers or tokenizers, for whatever lies in the folder
        raise ENCODER.unusable(
            source.folder, f"transformers cannot load its tokenizer ({first_line(error)})"
        ) from error
    # Never with padding: the Rust tokeniser would keep it switched on, and later calls return padded ids.
    encoded = tokenizer(list(texts), padding=False, truncation=True, max_length=source.config.max_tokens)
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def pad_lists(tokens: Tokens, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids [B, T] on `device`, zero where there is none, and True where there is one."""
    ids_N = torch.tensor([token for ids in tokens for token in ids])
    ids_BT, mask_BT = pad(ids_N, torch.tensor([len(ids) for ids in tokens]))
    return ids_BT.to(device), mask_BT.to(device)


def _load(source: Source, labels: Sequence[str]) -> Any:
    """The classifier that transformers has for the architecture, over the source's weights: fp32, on the CPU."""
    from transformers import AutoModelForSequenceClassification

    with quiet_transformers():
        try:
            network, report = AutoModelForSequenceClassification.from_pretrained(
                source.folder,
                local_files_only=True,
                trust_remote_code=False,
                id2label=dict(enumerate(labels)),
                label2id={label: at for at, label in enumerate(labels)},
                ignore_mismatched_sizes=True,  # of a classifier for other labels; what else differs is refused below
                dtype=torch.float32,
                output_loading_info=True,
            )
        except Exception as error:  # of transformers, safetensors or torch, for whatever lies in the folder
            found = f"transformers cannot put a classifier on it ({first_line(error)})"
            raise ENCODER.unusable(source.folder, found) from error
    encoder = f"{network.base_model_prefix}."
    keys = [*report["missing_keys"], *(str(key[0]) for key in report["mismatched_keys"])]
    absent = sorted(key for key in keys if key.startswith(encoder) and not key.startswith(f"{encoder}pooler."))
    if absent:
        raise ENCODER.unusable(source.folder, f"its weights lack or contradict {', '.join(absent[:3])}")
    return network


def _with_lora(network: Any, inside: str, rank: int) -> Any:
    from peft import LoraConfig, get_peft_model

    linear = [
        name for name, module in network.named_modules() if isinstance(module, nn.Linear) and name.startswith(inside)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for a name that was changed
        return get_peft_model(network, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=linear))


def _settle(path: Path) -> str:
    """Make a file durable and return its sha256."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
