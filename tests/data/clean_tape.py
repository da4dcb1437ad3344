"""Clean daily bars as a vendor of unadjusted prices gives them: nothing in them is a fault, though much is rare.

Volatility is different for each ticker and comes in clusters, two storms hit all at once, returns have fat tails, and
a large move brings volume and range. There are gaps of up to a third at earnings, splits, reverse splits, quarterly and
special dividends (all recorded), listings and delistings, prices of a dollar, sessions halted after their first
trade, and illiquid tickers. Not in it: a whole session without a trade, which vendors do not agree how to show.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from data.calendar import Sessions, sessions

NOW = np.datetime64("2026-01-05T16:00", "us")
SPLITS = (2.0, 3.0, 1.5, 4.0, 7.0, 20.0, 0.1, 0.2)


@dataclass(frozen=True)
class Tape:
    """Bars with the `adj_close` that the actions give, and the actions, as the lake has them."""

    bars: pd.DataFrame
    actions: pd.DataFrame
    days: Sessions

    def of(self, ticker: str) -> "Tape":
        """One ticker's."""
        parts = (frame[frame["ticker"] == ticker].reset_index(drop=True) for frame in (self.bars, self.actions))
        return Tape(*parts, self.days)


def clean_tape(tickers: int, count: int, seed: int, first: str = "2018-01-02") -> Tape:
    """So many tickers over so many XNYS sessions from `first` on."""
    every = sessions("XNYS")
    start = int(every.index([first])[0])
    days = every.between(first, every.labels[start + count - 1])
    rng = np.random.default_rng(seed)
    market = _storms(count, rng) * 0.01 * rng.standard_t(5, count) / np.sqrt(5 / 3)
    made = [_ticker(f"T{i:03d}", days, market, rng) for i in range(tickers)]
    bars, actions = (pd.concat(parts, ignore_index=True) for parts in zip(*made, strict=True))
    return Tape(bars, actions, days)


def _storms(count: int, rng: np.random.Generator) -> np.ndarray:
    """The market's volatility over its usual: each storm begins within days and dies down over two months."""
    scale = np.ones(count)
    for begin in rng.integers(60, count - 20, 2):
        since = np.arange(count) - begin
        scale += np.where(since >= 0, np.minimum(since / 6, 1) * 4 * np.exp(-np.maximum(since, 0) / 30), 0)
    return scale


def _ticker(
    name: str, days: Sessions, market: np.ndarray, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    listed = rng.integers(0, len(days) // 3) if rng.random() < 0.3 else 0
    gone = rng.integers(2 * len(days) // 3, len(days)) if rng.random() < 0.2 else len(days)
    span = np.arange(listed, gone)
    count = len(span)
    usual = np.exp(rng.normal(np.log(0.016), 0.4))
    vol = usual * np.exp(_ar(count, 0.97, 0.08, rng))
    total = rng.uniform(0.4, 1.5) * market[span] + vol * rng.standard_t(4, count) / np.sqrt(2)
    surprise = rng.random(count) < 0.006
    total[surprise] += rng.choice([-1, 1], surprise.sum()) * rng.uniform(0.08, 0.35, surprise.sum())
    overnight = np.where(surprise, rng.uniform(0.7, 1.0, count), rng.uniform(0.0, 0.6, count)) * total
    overnight += 0.3 * vol * rng.normal(size=count)
    split, share = _actions(count, rng)
    shares = np.cumprod(split)
    index = np.exp(np.cumsum(total) - total[0])
    price = np.exp(rng.uniform(np.log(8), np.log(300))) * index / shares * np.cumprod(1 - share)
    if (price < 1).any():  # delisted
        return _ticker(name, days, market, rng)
    close = np.round(price, 2)
    before = np.concatenate([close[:1], close[:-1]])
    cash = np.round(share * before / split, 4)
    opening = np.maximum(np.round((before * np.exp(overnight) / split) - cash, 2), 0.5)
    opening[0] = close[0]
    shock = np.abs(total) / vol
    reach = np.abs(rng.normal(0, 0.5, (2, count))) * np.maximum(vol, 0.3 * np.abs(total - overnight))
    high = np.round(np.maximum(opening, close) * np.exp(reach[0]), 2)
    low = np.maximum(np.round(np.minimum(opening, close) * np.exp(-reach[1]), 2), 0.01)
    base = np.exp(rng.uniform(np.log(2e4), np.log(2e7)))
    volume = base * shares * np.exp(0.3 * np.minimum(shock, 8) + _ar(count, 0.7, 0.25, rng))
    volume *= np.where(surprise, rng.uniform(2, 6, count), 1)
    halted = (rng.random(count) < 0.002) & ~surprise & (shock < 2) & (np.arange(count) > 0)
    opening[halted], high[halted], low[halted] = close[halted], close[halted], close[halted]
    volume[halted] *= 0.05
    factor = np.log(split) - np.log1p(-cash * split / before)
    labels = days.labels[span].astype("datetime64[s]")
    bars = pd.DataFrame(
        {
            "ticker": name,
            "session": labels,
            "open": opening,
            "high": np.maximum(high, np.maximum(opening, close)),
            "low": np.minimum(low, np.minimum(opening, close)),
            "close": close,
            "volume": np.maximum(np.round(volume), 100.0),
            "adj_close": np.round(close * np.exp(np.cumsum(factor) - factor.sum()), 6),
            "basis": "raw",
        }
    )
    parts = [
        pd.DataFrame({"ticker": name, "ex_date": labels[here], "kind": kind, "value": value[here]})
        for kind, value, here in (("split", split, split != 1), ("dividend", cash, cash > 0))
    ]
    return bars, pd.concat(parts, ignore_index=True)


def _actions(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """New shares per old, and the dividend as a share of the price, on each bar."""
    split, share = np.ones(count), np.zeros(count)
    if rng.random() < 0.6:
        ex = np.arange(int(rng.integers(5, 63)), count, 63)
        share[ex] = rng.uniform(0.002, 0.009)
    if rng.random() < 0.3:
        split[rng.integers(10, count - 5)] = rng.choice(SPLITS)
    if rng.random() < 0.1:
        share[rng.integers(10, count - 5)] = rng.uniform(0.05, 0.2)
    share[split != 1] = 0.0
    return split, share


def _ar(count: int, memory: float, shock: float, rng: np.random.Generator) -> np.ndarray:
    """A stationary first-order process around 0."""
    from scipy.signal import lfilter

    start = rng.normal(0, shock / np.sqrt(1 - memory**2))
    return lfilter([1.0], [1.0, -memory], rng.normal(0, shock, count), zi=[memory * start])[0]
