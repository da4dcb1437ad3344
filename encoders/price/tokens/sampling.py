"""Drawing futures from the language model, bar by bar: many paths a sample, all of them returned.

A path is one future; nothing is averaged here. Quantiles, P(up) and whatever else is asked of the distribution are
taken over the paths by whoever reads them. All randomness comes in as uniform numbers, one generator a sample, so a
sample's paths do not depend on which others share its batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.price.tokens.language import LanguageModel
from encoders.price.tokens.quantiser import Quantiser
from encoders.price.tokens.stacks import Cache

AT_ONCE = 2_000  # paths: the Transformer stack's cache holds a whole window of each
LEAST_TEMPERATURE = 1e-3  # less is greedy decoding, and logits divided by it may be too large for a number


@dataclass(frozen=True)
class Decoding:
    """How a code is chosen from its probabilities; the default is to draw from them as they are.

    `temperature` divides the logits; `top_k` keeps the likeliest so many codes (Fan et al. 2018), `top_p` the fewest
    that hold that probability (Holtzman et al. 2020); both apply to each code of a bar in turn. `greedy` takes the
    likeliest code and the median of its bin. All but the default bend the distribution: intervals are then too narrow.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    greedy: bool = False

    def __post_init__(self) -> None:
        if not LEAST_TEMPERATURE <= self.temperature < math.inf:
            expected = f"expected a number from {LEAST_TEMPERATURE} on"
            raise ValueError(f"temperature: {expected}, received {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k: expected at least 1, received {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: expected a share in (0, 1], received {self.top_p}")

    def probabilities(self, logits: Tensor) -> Tensor:
        """[..., K], each row summing to 1, of logits [..., K]."""
        if self.greedy:
            return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
        scores = logits.float() / self.temperature
        if self.top_k is not None and self.top_k < scores.shape[-1]:
            least = scores.topk(self.top_k, dim=-1).values[..., -1:]
            scores = scores.masked_fill(scores < least, -torch.inf)
        share = scores.softmax(-1)
        if self.top_p is None:
            return share
        ranked, order = share.sort(dim=-1, descending=True, stable=True)
        beyond = ranked.cumsum(-1) - ranked >= self.top_p  # the likeliest is never beyond
        kept = share.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), 0)
        return kept / kept.sum(-1, keepdim=True)


PLAIN = Decoding()


@dataclass(frozen=True)
class Paths:
    """H bars ahead along N paths for each of B samples: returns in the price features' scaled units, and codes."""

    returns_BNH: Tensor
    codes_BNHG: Tensor


@torch.inference_mode()
def sample(
    language: LanguageModel,
    quantiser: Quantiser,
    codes_BTG: Tensor,
    mask_BT: Tensor,
    horizon: int,
    paths: int,
    generators: Sequence[torch.Generator],
    decoding: Decoding = PLAIN,
) -> Paths:
    """`paths` futures of each of B histories, drawn with that sample's own generator (on the CPU).

    The history is read once, whatever the number of paths; then each step reads one bar, from the cache. Memory does
    not grow with the paths: about AT_ONCE of them (at least one of each sample) go ahead together. Generated bars
    count as observed. Dropout is the caller's to switch off.
    """
    # Drawn all at once: which paths go ahead together changes none of them.
    draws_BNHU = uniforms(generators, paths, horizon, len(language.levels) + 1).to(mask_BT.device)
    states_BTD, cache = language(codes_BTG, mask_BT)
    together = torch.split(draws_BNHU, max(1, AT_ONCE // len(mask_BT)), dim=1)
    codes_BNHG = torch.cat([_ahead(language, states_BTD[:, -1], cache, draws, decoding) for draws in together], dim=1)
    place_BNH = torch.full_like(draws_BNHU[..., -1], 0.5) if decoding.greedy else draws_BNHU[..., -1]
    return Paths(quantiser.decode(codes_BNHG, place_BNH), codes_BNHG)


def uniforms(generators: Sequence[torch.Generator], paths: int, horizon: int, numbers: int) -> Tensor:
    """[B, paths, horizon, numbers] in [0, 1), one generator a sample."""
    return torch.stack([torch.rand(paths, horizon, numbers, generator=generator) for generator in generators])


def _ahead(language: LanguageModel, state_BD: Tensor, cache: Cache, draws_BNHU: Tensor, decoding: Decoding) -> Tensor:
    """Codes [B, N, H, G] of N paths a sample, which all go on from its state and cache."""
    samples, paths, horizon, _ = draws_BNHU.shape
    draws_MHU = draws_BNHU.flatten(0, 1)  # M = B x N
    state_MD, cache = state_BD.repeat_interleave(paths, dim=0), cache.fan(paths)
    observed_M1 = torch.ones(len(draws_MHU), 1, dtype=torch.bool, device=state_BD.device)
    bars: list[Tensor] = []
    for step in range(horizon):
        bars.append(_bar(language, state_MD, draws_MHU[:, step], decoding))
        if step + 1 < horizon:
            states_M1D, cache = language(bars[-1][:, None], observed_M1, cache)
            state_MD = states_M1D[:, 0]
    return torch.stack(bars, dim=1).reshape(samples, paths, horizon, -1)


def _bar(language: LanguageModel, state_MD: Tensor, draws_MU: Tensor, decoding: Decoding) -> Tensor:
    """The next bar's codes [M, G], one after the other, each given those before it."""
    context_MD, codes = state_MD, []
    for position in range(len(language.levels)):
        share_MK = decoding.probabilities(language.logits(context_MD, position))
        codes.append(pick(share_MK, draws_MU[:, position]))
        context_MD = language.follow(context_MD, position, codes[-1])
    return torch.stack(codes, dim=-1)


def pick(share_MK: Tensor, draw_M: Tensor) -> Tensor:
    """The code [M] in whose part of [0, 1) each draw falls; never one of probability 0."""
    end_MK = share_MK.double().cumsum(-1)
    end_MK = end_MK / end_MK[:, -1:]  # exactly 1 from the last possible code on: rounding must not lead past it
    return torch.searchsorted(end_MK, draw_M.double()[:, None], right=True)[:, 0]
