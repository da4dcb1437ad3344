"""Which forward an encoder runs with, and in which precision: packed where there is one, bf16 where it is as good.

bf16 weights are used where the machine has units for them and a few texts keep their vectors
(cosine to fp32); everywhere else they would be slower or worse, and fp32 is used. int8 is not offered:
it loses up to .09 of cosine on MiniLM.
"""

import copy
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from encoders.text.packed import PackedEncoder, packable
from encoders.text.padded import PaddedEncoder

log = logging.getLogger(__name__)

ALIKE = 0.9999  # the least cosine to fp32 that bf16 must keep
SAMPLE = (
    "Apple beats quarterly estimates as iPhone sales jump",
    "Apple misses quarterly estimates as iPhone sales fall",
    "Shares of the drug maker fell 4% after the regulator asked for another trial of its main product",
    "Fed holds rates",
    "Bank of Japan ends negative interest rates, first increase in 17 years",
    "",
)

Embed = Callable[[nn.Module], Tensor]  # vectors [B, D] of SAMPLE by a forward, fp32


def full_forward(model: Any, first_only: bool) -> nn.Module:
    """`(ids_N, layout) -> hidden_NE` in fp32; of the first tokens alone, [S, E], where that is asked and can be had."""
    if packable(model):
        return PackedEncoder(model, first_only).eval()
    log.info("%s models have no packed forward here: batches are padded", model.config.model_type)
    return PaddedEncoder(model).eval()


def halve(forward: nn.Module, embed: Embed) -> nn.Module:
    """The forward with bf16 weights if it keeps the vectors of SAMPLE, else `forward` as it was."""
    half = copy.deepcopy(forward).to(torch.bfloat16)
    alike = torch.cosine_similarity(embed(forward).double(), embed(half).double()).min()
    if not alike >= ALIKE:  # NaN too
        log.info("bf16 loses too much here (cosine %.5f to fp32): fp32 is used", float(alike))
        return forward
    return half


def has_bf16_units(device: torch.device) -> bool:
    """Whether `device` multiplies bf16 natively: a GPU since Ampere, a CPU with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    known = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(ask() for ask in known if ask is not None)
