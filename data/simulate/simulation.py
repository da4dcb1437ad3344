"""Puts a simulated market together and writes its source files. Draws nothing itself."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from data.calendar import Sessions, sessions
from data.errors import ConfigError
from data.simulate.companies import TRAIN_SHARE, VALID_SHARE, found_companies
from data.simulate.config import MarketConfig
from data.simulate.events import draw_events, text_state
from data.simulate.market import simulate_paths
from data.simulate.oracle import oracle_frame
from data.simulate.prices import draw_actions, price_frame
from data.simulate.wire import write_wire


@dataclass(frozen=True)
class World:
    """A simulated market.

    prices: ticker, date, open, high, low, close, volume, dividend, split, announced_at; one row a ticker
        and session it was listed in. Raw basis: nothing is adjusted. `split` is the ratio on its ex-date,
        0.0 elsewhere; `dividend` is in dollars a share on its ex-date; never both on one date, so the
        total log return is log((close * split + dividend) / previous close) with split 1 for none.
        `announced_at` (UTC) is when that row's action became known, NaT where there is none or it was
        not announced.
    headlines: id, published_at (UTC), title, ticker (None for market-wide), source, url; an item about
        several tickers is several rows with one id.
    oracle: ticker, session, target_session, mean_price, mean_text, mean_both, up_price, up_text, up_both,
        realised; returns are total log returns, close to close.
    truth: for each row of `headlines` (by position) id, ticker, session (whose decision it was written
        for), kind (event, copy, stale, mislinked, distractor, reaction, market), event, polarity,
        strength, reserved (a phrasing kept for the test period). Polarity and strength are 0 but for
        events; the second ticker of an event with two is a mistaken tag, of kind mislinked.
    train_end, valid_end, test_end: samples with target_session before train_end train, before valid_end
        validate, before test_end test.
    """

    prices: pd.DataFrame
    headlines: pd.DataFrame
    oracle: pd.DataFrame
    truth: pd.DataFrame
    train_end: date
    valid_end: date
    test_end: date


def simulate(config: MarketConfig) -> World:
    """The world of `config`: the same frames for the same config, bit for bit.

    Raises ConfigError where the calendar does not reach over all the sessions.
    """
    days = _days(config)
    seeds = np.random.SeedSequence(config.seed).spawn(6)
    of_companies, of_events, of_paths, of_actions, of_bars, of_words = map(np.random.default_rng, seeds)
    companies = found_companies(config, of_companies)
    events = draw_events(config, companies, days, of_events)
    paths = simulate_paths(config, companies, text_state(events, len(days), len(companies)), of_paths)
    actions = draw_actions(companies, len(days), of_actions)
    prices, realised = price_frame(companies, days, paths, actions, of_bars)
    headlines, truth = write_wire(companies, days, events, paths, of_words)
    oracle = oracle_frame(config, companies, days, paths, realised)
    train, valid = (days.labels[int(share * len(days))].item() for share in (TRAIN_SHARE, VALID_SHARE))
    return World(prices, headlines, oracle, truth, train, valid, days.target[-1].item())


def write(world: World, folder: Path) -> None:
    """Write prices.parquet and headlines.parquet, the files a user would import, and oracle.parquet apart.

    Makes `folder`; replaces what is there. The truth about single headlines is not written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("prices", "headlines", "oracle"):
        getattr(world, name).to_parquet(folder / f"{name}.parquet", index=False)


def _days(config: MarketConfig) -> Sessions:
    every = sessions(config.calendar, config.clock)
    first = int(np.searchsorted(every.labels, np.datetime64(config.first_session, "D")))
    last = first + config.sessions - 1
    if last >= len(every):
        raise ConfigError(
            f"sessions = {config.sessions} from first_session = {config.first_session}: calendar {config.calendar} "
            f"has {len(every) - first} of them. Begin earlier or ask for fewer."
        )
    return every.between(every.labels[first], every.labels[last])
