"""Bars and corporate actions whose total returns are exactly the simulated ones, up to the rounding of prices."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.calendar import Sessions
from data.simulate.companies import Company
from data.simulate.events import between, listing_mask
from data.simulate.market import OVERNIGHT, Floats, Paths

DECIMALS = 4
RATIOS = (2.0, 2.0, 3.0, 1.5, 4.0, 0.1)  # new shares for one old; the last is a reverse split
QUARTER = 63
UNANNOUNCED = 0.05  # share of the actions


@dataclass(frozen=True)
class Actions:
    """All (sessions, companies). `split` is 0 where there is none; `payout` is the dividend as a share of the close
    when it was announced; `lead` counts sessions from announcement to ex-date.
    """

    split: Floats
    payout: Floats
    lead: npt.NDArray[np.int64]


def draw_actions(companies: list[Company], sessions: int, rng: np.random.Generator) -> Actions:
    """Quarterly dividends for three in five, one split for one in three; never both within a month."""
    shape = (sessions, len(companies))
    split, payout = np.zeros(shape), np.zeros(shape)
    for who, company in enumerate(companies):
        if rng.random() < 0.6:
            payout[company.first + 25 + rng.integers(QUARTER) : company.last + 1 : QUARTER, who] = rng.uniform(
                0.002, 0.009
            )
        if rng.random() < 0.35 and company.last - company.first > 60:
            ex = int(rng.integers(company.first + 30, company.last - 5))
            split[ex, who] = RATIOS[rng.integers(len(RATIOS))]
            payout[max(ex - 25, 0) : ex + 26, who] = 0.0
    return Actions(split, payout, rng.integers(10, 21, shape))


def price_frame(
    companies: list[Company], days: Sessions, paths: Paths, actions: Actions, rng: np.random.Generator
) -> tuple[pd.DataFrame, Floats]:
    """The bars of every listed company and session, and the total log returns that their rounded prices give.

    The returns are (sessions, companies), NaN before a company's second session and after its last.
    """
    listed = listing_mask(companies, len(days))
    close, opening, dividend = _closes_and_opens(paths, actions, rng)
    high, low = _extremes(opening, close, paths.vol, rng)
    volume = _volume(paths, rng)
    announced = _announcements(days, actions, (actions.split > 0) | (dividend > 0), rng)
    columns: dict[str, npt.NDArray[Any]] = {"open": opening, "high": high, "low": low, "close": close, "volume": volume}
    columns |= {"dividend": dividend, "split": actions.split, "announced_at": announced}
    session, who = np.nonzero(listed)
    frame = pd.DataFrame({name: values[session, who] for name, values in columns.items()})
    frame["announced_at"] = frame["announced_at"].dt.tz_localize("UTC")
    frame.insert(0, "ticker", np.array([company.ticker for company in companies], dtype=object)[who])
    frame.insert(1, "date", days.labels[session].astype("datetime64[us]"))
    frame = frame.sort_values(["ticker", "date"], ignore_index=True)
    return frame, _realised(close, actions.split, dividend, listed)


def _closes_and_opens(paths: Paths, actions: Actions, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    close, opening, dividend = (np.zeros_like(paths.total) for _ in range(3))
    close[0] = np.round(np.exp(rng.uniform(np.log(25), np.log(250), paths.total.shape[1])), DECIMALS)
    opening[0] = np.round(close[0] * np.exp(paths.overnight[0] - paths.total[0]), DECIMALS)
    everyone = np.arange(paths.total.shape[1])
    for t in range(1, len(close)):
        at_announcement = close[np.maximum(t - actions.lead[t], 0), everyone]
        dividend[t] = np.round(actions.payout[t] * at_announcement, DECIMALS)
        ratio = np.where(actions.split[t] > 0, actions.split[t], 1.0)
        close[t] = np.round((close[t - 1] * np.exp(paths.total[t]) - dividend[t]) / ratio, DECIMALS)
        opening[t] = np.round((close[t - 1] * np.exp(paths.overnight[t]) - dividend[t]) / ratio, DECIMALS)
    return close, opening, dividend


def _extremes(opening: Floats, close: Floats, vol: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    reach = np.abs(rng.normal(0, 0.45 * np.sqrt(1 - OVERNIGHT), (2, *close.shape))) * vol
    high = np.round(np.maximum(opening, close) * np.exp(reach[0]), DECIMALS)
    low = np.round(np.minimum(opening, close) * np.exp(-reach[1]), DECIMALS)
    return np.maximum(high, np.maximum(opening, close)), np.minimum(low, np.minimum(opening, close))


def _volume(paths: Paths, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Shares traded: more on large moves and in the session that an event moves."""
    usual = np.exp(rng.uniform(np.log(3e5), np.log(2e7), paths.total.shape[1]))
    event = np.zeros_like(paths.text)
    event[1:] = np.abs(paths.text[:-1])
    log_volume = 0.25 * np.abs(paths.total) / paths.vol + 0.2 * event + rng.normal(0, 0.3, paths.total.shape)
    volume: npt.NDArray[np.int64] = np.maximum(usual * np.exp(log_volume), 100).astype(np.int64)
    return volume


def _announcements(
    days: Sessions, actions: Actions, present: npt.NDArray[np.bool_], rng: np.random.Generator
) -> npt.NDArray[np.datetime64]:
    """When each action was announced, in the evening `lead` sessions before its ex-date; NaT where it was not."""
    announced = np.full(present.shape, np.datetime64("NaT", "us"))
    session, who = np.nonzero(present)
    closes = days.closes[np.maximum(session - actions.lead[session, who], 0)]
    stamps = between(closes + np.timedelta64(5, "m"), closes + np.timedelta64(300, "m"), rng)
    stamps[rng.random(len(stamps)) < UNANNOUNCED] = np.datetime64("NaT", "us")
    announced[session, who] = stamps
    return announced


def _realised(close: Floats, split: Floats, dividend: Floats, listed: npt.NDArray[np.bool_]) -> Floats:
    realised = np.full(close.shape, np.nan)
    ratio = np.where(split[1:] > 0, split[1:], 1.0)
    realised[1:] = np.log((close[1:] * ratio + dividend[1:]) / close[:-1])
    realised[1:][~(listed[1:] & listed[:-1])] = np.nan
    return realised
