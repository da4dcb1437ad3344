"""Next-token training on the histories of a training fold. Reads nothing but what it is handed.

Histories are cut into tiles of consecutive sessions, from another offset each pass, so that every bar is forecast
about once a pass: a pass costs a small part of an epoch of the forecast model, which reads a window for each sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from encoders.price.tokens.language import LanguageModel

PEAK, WARM_UP, WEIGHT_DECAY, CLIP = 3e-3, 0.05, 0.01, 1.0
BATCH = 2048  # tokens an optimiser step


@runtime_checkable
class Pretrained(Protocol):
    """A price encoder that learns from the training fold's bars alone, before the forecast model is trained."""

    columns: tuple[int, ...]  # of the features it learns from

    def pretrain(self, history_NSV: Tensor, mask_NS: Tensor, seed: int) -> None:
        """Learn, in place, from N tickers' scaled columns over S sessions, where `mask_NS` is True; then `hold`."""
        ...

    def hold(self) -> None:
        """From now on what is pretrained stands still: the forecast's training does not move it."""
        ...


def teach(language: LanguageModel, codes_NSG: Tensor, mask_NS: Tensor, tile: int, passes: int, seed: int) -> None:
    """Minimise the cross-entropy of the next bar's codes, in place. The same seed gives the same weights.

    Neither a masked session nor the bar after one is forecast. Without two observed bars in a row nothing is learnt.
    """
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(language.parameters(), lr=PEAK, weight_decay=WEIGHT_DECAY)
    device = mask_NS.device
    language.train()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):  # dropout must not move others' draws
        torch.manual_seed(seed)
        for done, codes_BTG, mask_BT in _batches(codes_NSG, mask_NS, tile, passes, order):
            for group in optimizer.param_groups:
                group["lr"] = PEAK * _rate(done)
            loss = -language.next_log_prob(codes_BTG, mask_BT).sum(-1).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(language.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()  # nothing is left behind that a later optimiser might take a step by
    language.eval()


def _rate(done: float) -> float:
    """Share of the peak rate: up over the first WARM_UP of the training, then down a cosine."""
    if done < WARM_UP:
        return (done + 0.001) / WARM_UP
    return (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2


def _batches(
    codes_NSG: Tensor, mask_NS: Tensor, tile: int, passes: int, order: torch.Generator
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """The share of the training that is done, codes [B, tile + 1, G] and mask [B, tile + 1]."""
    for number in range(passes):
        offset = int(torch.randint(tile, (1,), generator=order))
        codes_MTG, mask_MT = _tiles(codes_NSG, offset, tile), _tiles(mask_NS[..., None], offset, tile)[..., 0]
        useful = (mask_MT[:, :-1] & mask_MT[:, 1:]).any(-1).nonzero()[:, 0]
        shuffled = useful[torch.randperm(len(useful), generator=order).to(useful.device)]
        batches = torch.split(shuffled, max(1, BATCH // tile)) if len(useful) else ()
        for step, rows in enumerate(batches):
            yield (number + step / len(batches)) / passes, codes_MTG[rows], mask_MT[rows]


def _tiles(values_NSG: Tensor, offset: int, tile: int) -> Tensor:
    """[M, tile + 1, G]: sessions offset - tile .. offset, offset .. offset + tile, and so on; zeros outside.

    Neighbours share a session, which one forecasts and the other begins with.
    """
    sessions = values_NSG.shape[1]
    count = -(-(sessions - offset) // tile) + 1 if sessions > offset else 1
    after = offset - tile + count * tile + 1 - sessions
    padded_NSG = functional.pad(values_NSG, (0, 0, tile - offset, after))
    return padded_NSG.unfold(1, tile + 1, tile).transpose(-1, -2).flatten(0, 1)
