"""Evidence that may be read every night: e-values, which stay honest however often one looks and whenever one stops.

An e-process starts at 1 and is expected not to grow while the null hypothesis holds, so by Ville's inequality the
chance that it ever reaches 1/alpha is at most alpha (Ville 1939; Grünwald, de Heide and Koolen, Safe testing, JRSS B
86(5), 2024). The process is a gambler's wealth (Waudby-Smith and Ramdas, Estimating means of bounded random variables
by betting, JRSS B 86(1), 2024): every night it bets a fraction of what it has on the night's outcome, a number in
[-1, 1] whose mean under the null is at most 0. Several fractions bet side by side and their mean is the wealth, which
is as honest and needs no tuning. A fixed-n test read every night lies: see docs/scorecard.md.

What is bet on is a night's gain in pinball loss, winsorised: it counts up to 5 times the root mean square of the nights
before. Its true bound is known too (`furthest`), but the worst case of hundreds of tickers at once is so far out that
no bet against it wins within years. So the null is about winsorised gains: a challenger that gains a little on most
nights and loses it on a very rare one may be proposed before that night comes. `worst` shows the worst so far.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.types import QUANTILES
from pipelines.metrics import pinball
from pipelines.scorecard.measures import Floats

FRACTIONS = 0.9 * 0.5 ** np.arange(7)
ENOUGH = 20.0  # 1 / alpha with alpha = .05

REACH = 5.0  # root mean squares of the nights before, up to which a night counts
LEARN = 20  # nights until that is known

KEY = ["target_session", "ticker", "target"]


@dataclass(frozen=True)
class Evidence:
    """For a challenger against the champion, on the same tickers and nights.

    `gain` is the champion's mean pinball loss less the challenger's, over nights, in log return: above 0 the challenger
    is better. `worst` is the night that was worst for it. `highest` is the most that the e-value ever was.
    """

    champion: str
    challenger: str
    nights: int
    rows: int
    gain: float | None
    worst: float | None
    e_value: float
    highest: float

    @property
    def proposed(self) -> bool:
        """Whether it is enough to propose the challenger; a person promotes."""
        return self.e_value >= ENOUGH and self.gain is not None and self.gain > 0

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return {**vars(self), "proposed": self.proposed}


def wealth(outcomes: Floats) -> Floats:
    """The e-process [..., T] over outcomes [..., T] in [-1, 1], against the null that each has a mean of at most 0
    given those before it. ValueError where one lies outside.
    """
    if outcomes.size and not np.abs(outcomes).max() <= 1:
        raise ValueError(f"expected outcomes in [-1, 1], received {np.abs(outcomes).max()}")
    logs = [np.log1p(fraction * outcomes).cumsum(axis=-1) for fraction in FRACTIONS]
    together: Floats = np.exp(np.logaddexp.reduce(logs, axis=0) - np.log(len(FRACTIONS)))
    return together


def compare(champion: pd.DataFrame, challenger: pd.DataFrame, names: tuple[str, str]) -> Evidence:
    """Evidence that the challenger's pinball loss is the lower one, from live forecasts of both.

    Each frame has one row a ticker, target session and target: `quantiles`, `realised`, and `on_time`, whether it was
    settled in its own night. What was settled later counts as a draw, so that no night that was read changes later.
    """
    both = champion.merge(challenger, on=KEY, suffixes=("", "_other"), validate="one_to_one")
    both = both.sort_values(KEY, ignore_index=True)
    if both.empty:
        return Evidence(*names, nights=0, rows=0, gain=None, worst=None, e_value=1.0, highest=1.0)
    first, second = (np.stack(both[name].to_list()) for name in ("quantiles", "quantiles_other"))
    counted = (both["on_time"] & both["realised"].notna()).to_numpy(dtype=bool)
    realised = np.where(counted, both["realised"], 0.0)
    gain = np.where(counted, pinball(first, realised) - pinball(second, realised), 0.0)
    night, number = np.unique(both["target_session"].to_numpy(), return_inverse=True)
    gains, bounds = (np.bincount(number, values) for values in (gain, furthest(first, second)))
    shares = np.divide(gains, bounds, out=np.zeros(len(night)), where=bounds > 0).clip(-1, 1)
    process = wealth(winsorised(shares))
    nightly = gains / np.bincount(number)
    return Evidence(
        *names,
        nights=len(night),
        rows=len(both),
        gain=float(nightly.mean()),
        worst=float(nightly.min()),
        e_value=float(process[-1]),
        highest=float(process.max()),
    )


def winsorised(shares: Floats) -> Floats:
    """Numbers [..., T] in [-1, 1], each in units of REACH root mean squares of those before it and cut off there."""
    before = np.arange(shares.shape[-1])
    squares = np.cumsum(shares**2, axis=-1) - shares**2
    limit = REACH * np.sqrt(np.maximum(squares, 0) / np.maximum(before, 1))
    limit = np.where((before >= LEARN) & (limit > 0), np.minimum(limit, 1.0), 1.0)
    cut: Floats = np.clip(shares / limit, -1, 1)
    return cut


def furthest(first: Floats, second: Floats) -> npt.NDArray[np.float64]:
    """The most that the pinball losses of two forecasts [M, Q] can differ, whatever happens; per row.

    A quantile's loss changes by at most max(level, 1 - level) per unit of the forecast. So the bound is known before
    the outcome, as the bet needs, and no assumption about the tails of returns is made.
    """
    levels = np.asarray(QUANTILES)
    most: npt.NDArray[np.float64] = (np.maximum(levels, 1 - levels) * np.abs(first - second)).mean(axis=1)
    return most
