"""Returns: what prices and events make expected, plus noise with factors, stochastic volatility and fat tails.

Every expected part is a function of what is known at the decision: past returns and the events so far.
Nothing here knows dates or words. Arrays are (sessions, companies); a row is session t.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.simulate.companies import Company
from data.simulate.config import MarketConfig

Floats = npt.NDArray[np.float64]

BURN = 120  # sessions before the first, so that volatility and momentum have settled
DECAY = 0.94  # of the trailing volatility, as in RiskMetrics
FACTORS = (0.22, 0.10, 0.68)  # share of the variance: market, sector, own
OVERNIGHT = 0.35  # share of the noise's variance that falls between close and open
OVERNIGHT_MEAN = 0.4  # share of the expected return that does
TAIL = 5  # degrees of freedom of Student's t


@dataclass(frozen=True)
class Paths:
    """All (sessions, companies). Row t of `vol`, `price`, `state` and `text` is known at decision t and acts on
    row t+1 of the returns. Returns are total log returns; `noise` is `total` less its expectation.
    """

    total: Floats
    overnight: Floats
    noise: Floats
    vol: Floats
    price: Floats
    state: Floats
    text: Floats


def simulate_paths(config: MarketConfig, companies: list[Company], text: Floats, rng: np.random.Generator) -> Paths:
    """Simulate `len(text)` sessions under the text state `text`, after a silent `BURN`."""
    text = np.vstack([np.zeros((BURN, len(companies))), text])
    base = 0.014 * np.exp(rng.normal(0, 0.3, len(companies)))
    night, day = (_noise(companies, len(text), base, share, rng) for share in (OVERNIGHT, 1 - OVERNIGHT))
    total, overnight = np.zeros_like(text), np.zeros_like(text)
    vol, price, state = np.tile(base, (len(text), 1)), np.zeros_like(text), np.zeros_like(text)
    for t in range(1, len(text)):
        expected = vol[t - 1] * _expected(config, price[t - 1], text[t - 1], state[t - 1])
        overnight[t] = OVERNIGHT_MEAN * expected + night[t]
        total[t] = expected + night[t] + day[t]
        vol[t] = np.sqrt(DECAY * vol[t - 1] ** 2 + (1 - DECAY) * total[t] ** 2)
        price[t], state[t] = _price_signal(total, vol[t], t), _price_state(total, vol[t], t)
    parts = (total, overnight, night + day, vol, price, state, text)
    return Paths(*(part[BURN:] for part in parts))


def _expected(config: MarketConfig, price: Floats, text: Floats, state: Floats) -> Floats:
    """Expected return of the next session in units of trailing volatility."""
    strength = config.text_strength + config.interaction_strength * state
    return config.price_strength * price + strength * text


def _price_signal(total: Floats, vol: Floats, t: int) -> Floats:
    """P: the return over a month without its last week, in units of volatility; it reverses.

    Were the last week in it, a headline of these days that tells a move would tell P too, and news
    would seem to predict in a world where it does not.
    """
    return -_trailing(total, vol, t - 19, t - 4)


def _price_state(total: Floats, vol: Floats, t: int) -> Floats:
    """Z: momentum over 20 sessions in units of volatility, clipped: mean near 0, variance near 1."""
    state: Floats = np.clip(_trailing(total, vol, t - 19, t + 1), -2.0, 2.0) / 0.94
    return state


def _trailing(total: Floats, vol: Floats, first: int, stop: int) -> Floats:
    """Return over the sessions from `first` up to `stop`, in units of its own volatility, within 3."""
    window = total[max(first, 0) : max(stop, 0)]
    momentum: Floats = np.clip(window.sum(axis=0) / (vol * np.sqrt(stop - first)), -3.0, 3.0)
    return momentum


def _noise(companies: list[Company], sessions: int, base: Floats, share: float, rng: np.random.Generator) -> Floats:
    """Market, sector and own shocks of one leg that has `share` of the variance."""
    sectors = sorted({company.sector for company in companies})
    of = np.array([sectors.index(company.sector) for company in companies])
    beta = rng.uniform(0.7, 1.3, len(companies))
    market, sector, own = (_shocks((sessions, width), rng) for width in (1, len(sectors), len(companies)))
    a, b, c = np.sqrt(FACTORS)
    noise: Floats = np.sqrt(share) * base * (a * beta * market + b * sector[:, of] + c * own)
    return noise


def _shocks(shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Fat-tailed shocks of unit variance under a slowly moving volatility."""
    pace, spread = 0.97, 0.25
    push = rng.normal(0, spread * np.sqrt(1 - pace**2), shape)
    level = np.zeros(shape)
    for t in range(1, len(level)):
        level[t] = pace * level[t - 1] + push[t]
    shocks: Floats = np.exp(level - spread**2) * rng.standard_t(TAIL, shape) / np.sqrt(TAIL / (TAIL - 2))
    return shocks
