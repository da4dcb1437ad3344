"""A market whose returns are a Markov chain's symbols: what a language model of prices can know of it is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from encoders.price.tokens import TokensConfig, TokensEncoder

FEATURES = 5

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MarkovMarket:
    """Returns stand in ascending bands, one a state; within its band a return is uniform, or one value at spread 0."""

    transition_KK: Floats
    centre_K: Floats
    spread: float

    @classmethod
    def draw(cls, states: int, spread: float, seed: int = 0) -> MarkovMarket:
        """Rows of the transition matrix are Dirichlet(0.5): some moves are likely, some hardly happen."""
        transition_KK = np.random.default_rng(seed).dirichlet(np.full(states, 0.5), states)
        return cls(0.02 / states + 0.98 * transition_KK, np.linspace(-2, 2, states), spread * 4 / (states - 1))

    @property
    def long_run(self) -> Floats:
        """[K]: the long-run share of each state."""
        values, vectors = np.linalg.eig(self.transition_KK.T)
        chosen = np.real(vectors[:, np.argmax(np.real(values))])
        return np.asarray(chosen / chosen.sum())

    @property
    def entropy_rate(self) -> float:
        """In nats a session: what no model of the symbols can beat."""
        of_row_K = -(self.transition_KK * np.log(self.transition_KK)).sum(1)
        return float(self.long_run @ of_row_K)

    def returns(self, tickers: int, sessions: int, seed: int) -> Floats:
        """[tickers, sessions], each ticker a chain of its own that starts in the long run."""
        rng = np.random.default_rng(seed)
        cumulated_KK = self.transition_KK.cumsum(1)
        state_N = rng.choice(len(self.centre_K), tickers, p=self.long_run)
        states = np.empty((tickers, sessions), dtype=np.int64)
        for session in range(sessions):
            states[:, session] = state_N
            state_N = (rng.random((tickers, 1)) > cumulated_KK[state_N]).sum(1).clip(max=len(self.centre_K) - 1)
        return self.centre_K[states] + self.spread * (rng.random(states.shape) - 0.5)


def windows(returns_NS: Floats) -> tuple[Tensor, Tensor]:
    """price_BLF with the return as its first feature, and a mask of observed sessions."""
    price_BLF = torch.zeros(*returns_NS.shape, FEATURES)
    price_BLF[..., 0] = torch.from_numpy(returns_NS)
    return price_BLF, torch.ones(returns_NS.shape, dtype=torch.bool)


def taught(market: MarkovMarket, config: TokensConfig, tickers: int, sessions: int, seed: int = 0) -> TokensEncoder:
    """An encoder pretrained on this market."""
    torch.manual_seed(seed)
    encoder = config.build(FEATURES)
    price_BLF, mask_BL = windows(market.returns(tickers, sessions, seed=seed + 1))
    encoder.pretrain(price_BLF[..., list(encoder.columns)], mask_BL, seed)
    return encoder.eval()


@torch.inference_mode()
def nats_a_session(encoder: TokensEncoder, market: MarkovMarket, tickers: int, sessions: int, seed: int) -> float:
    """Mean negative log-likelihood of a held-out session's token."""
    return -float(encoder.log_prob(*windows(market.returns(tickers, sessions, seed))).sum(-1).mean())


def coverage(
    encoder: TokensEncoder, market: MarkovMarket, samples: int, lookback: int, days: int, paths: int, seed: int
) -> Floats:
    """[days]: how often the 80% interval of `paths` paths held the cumulated return, over independent held-out samples.

    Entry h is of the return over h + 1 days.
    """
    truth_BS = market.returns(samples, lookback + days, seed)
    held = np.zeros(days)
    for first in range(0, samples, 50):
        part_BS = truth_BS[first : first + 50]
        price_BLF, mask_BL = windows(part_BS[:, :lookback])
        generators = [torch.Generator().manual_seed(seed + first + row) for row in range(len(part_BS))]
        drawn_BNH = encoder.paths(price_BLF, mask_BL, days, paths, generators).returns_BNH.cumsum(-1).numpy()
        low_BH, high_BH = np.quantile(drawn_BNH, [0.1, 0.9], axis=1, method="weibull")
        came_BH = part_BS[:, lookback:].cumsum(1)
        held += ((came_BH >= low_BH) & (came_BH <= high_BH)).sum(0)
    return np.asarray(held / samples)
