"""What a forecaster who knew the market's law would say, given prices only, text only, or both."""

import numpy as np
import pandas as pd

from data.calendar import Sessions
from data.simulate.companies import Company
from data.simulate.config import MarketConfig
from data.simulate.market import Floats, Paths


def oracle_frame(
    config: MarketConfig, companies: list[Company], days: Sessions, paths: Paths, realised: Floats
) -> pd.DataFrame:
    """One row a ticker and decision whose target was traded: expected log return and P(up) under three views.

    Text is symmetric around no effect and drawn apart from prices, so price alone expects nothing of
    the events it cannot see, and text alone nothing of the price state it cannot see. P(up) is from
    the empirical distribution of the noise in units of trailing volatility.
    """
    vol = paths.vol[:-1]
    price = config.price_strength * paths.price[:-1]
    text = config.text_strength * paths.text[:-1]
    both = price + text + config.interaction_strength * paths.state[:-1] * paths.text[:-1]
    noise = np.sort((paths.noise[1:] / vol).ravel())
    session, who = np.nonzero(~np.isnan(realised[1:]))
    columns = {
        "ticker": np.array([company.ticker for company in companies], dtype=object)[who],
        "session": days.labels[session].astype("datetime64[us]"),
        "target_session": days.target[session].astype("datetime64[us]"),
    }
    views = {"price": price, "text": text, "both": both}
    means = {f"mean_{name}": (vol * unit)[session, who] for name, unit in views.items()}
    ups = {f"up_{name}": _prob_up(unit[session, who], noise) for name, unit in views.items()}
    frame = pd.DataFrame({**columns, **means, **ups, "realised": realised[1:][session, who]})
    return frame.sort_values(["ticker", "session"], ignore_index=True)


def _prob_up(expected: Floats, noise: Floats) -> Floats:
    """P(noise > -expected); `noise` ascends."""
    return 1.0 - np.searchsorted(noise, -expected, side="right") / len(noise)
