"""Everything the simulated wire publishes: events, and what surrounds them without telling anything new.

Distractors, syndicated copies, stale repeats, mentions of the wrong company, market-wide items, and reactions that
tell a move after it happened: in every world, whatever its strengths.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from data.calendar import Sessions
from data.simulate import grammar, words
from data.simulate.companies import VALID_SHARE, Company
from data.simulate.events import STRENGTH, Events, between, draw_stamps, listing_mask, off_minute
from data.simulate.grammar import TYPES, pick
from data.simulate.market import Paths

COPIED, STALE, MISTAGGED, MISLINKED = 0.08, 0.03, 0.01, 0.01  # shares of the events
DISTRACTOR_RATE, PAIR_RATE = 0.014, 0.002  # a company and session
MARKET_RATE = 0.3  # a session
REACTION_RATE, REACTION_FROM = 0.2, 1.6  # of the moves beyond so many trailing volatilities

Instant = np.datetime64


@dataclass
class _Wire:
    """Collects items; `kind`, `event`, `session`, `reserved` go to the truth and never to the headlines."""

    rows: list[dict[str, object]] = field(default_factory=list)
    items: int = 0

    def publish(
        self, at: Instant, title: str, tickers: list[str | None], kind: str, session: int,
        source: str, event: str | None = None, polarity: int = 0, strength: float = 0.0, reserved: bool = False,
    ) -> None:  # fmt: skip
        """One item, one row a ticker. An event concerns the first of `tickers`; any further is a mistaken tag."""
        self.items += 1
        item = {"id": f"n{self.items:06d}", "published_at": at, "title": title, "source": source}
        common = {**item, "event": event, "session_index": session, "reserved": reserved}
        self.rows.append({**common, "ticker": tickers[0], "kind": kind, "polarity": polarity, "strength": strength})
        other = "mislinked" if kind == "event" else kind
        self.rows += [{**common, "ticker": each, "kind": other, "polarity": 0, "strength": 0.0} for each in tickers[1:]]


def write_wire(
    companies: list[Company], days: Sessions, events: Events, paths: Paths, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The headlines as a vendor would deliver them, and the truth about each row, by the same row order."""
    wire = _Wire()
    _write_events(wire, companies, days, events, rng)
    _write_distractors(wire, companies, days, rng)
    _write_reactions(wire, companies, days, paths, rng)
    _write_market(wire, companies, days, rng)
    frame = pd.DataFrame(wire.rows).sort_values(["published_at", "id"], ignore_index=True, kind="stable")
    frame["published_at"] = pd.to_datetime(frame["published_at"]).astype("datetime64[us]").dt.tz_localize("UTC")
    frame["url"] = "https://wire.example/" + frame["id"]
    frame["session"] = days.labels[frame.pop("session_index")].astype("datetime64[us]")
    truth = ["id", "ticker", "session", "kind", "event", "polarity", "strength", "reserved"]
    return frame[["id", "published_at", "title", "ticker", "source", "url"]], frame[truth]


def _write_events(
    wire: _Wire, companies: list[Company], days: Sessions, events: Events, rng: np.random.Generator
) -> None:
    test_from = int(VALID_SHARE * len(days))
    for at in range(len(events.session)):
        session, company = int(events.session[at]), companies[events.company[at]]
        kind, up, level = TYPES[events.kind[at]], events.polarity[at] > 0, int(events.level[at])
        written = grammar.write_event(rng, company, kind, bool(up), level, late=session >= test_from)
        stamp, source = events.published_at[at], pick(rng, words.SOURCES)
        tickers: list[str | None] = [company.ticker]
        if rng.random() < MISTAGGED:  # the same item under a company that it does not concern
            tickers.append(_other(companies, company, session, rng).ticker)
        wire.publish(
            stamp, written.title, tickers, "event", session, source,
            kind, int(events.polarity[at]), float(STRENGTH[level]), written.reserved,
        )  # fmt: skip
        _echo(wire, companies, company, days, session, stamp, written.title, kind, rng)


def _echo(
    wire: _Wire, companies: list[Company], company: Company, days: Sessions, session: int, stamp: Instant,
    title: str, event: str, rng: np.random.Generator,
) -> None:  # fmt: skip
    """What becomes of an event's headline afterwards: copied, repeated when stale, filed under another company."""
    if rng.random() < COPIED:
        source = pick(rng, words.SOURCES)
        copy = pick(rng, words.COPY_FRAMES).format(x=title, source=source)
        delay = np.timedelta64(int(60 * (4 + rng.exponential(30))), "s")
        wire.publish(
            off_minute(np.array([stamp + delay]), rng)[0], copy, [company.ticker], "copy", session, source, event
        )
    later = session + int(rng.integers(2, 9))
    if rng.random() < STALE and later <= min(company.last, len(days) - 1):
        again = pick(rng, words.STALE_FRAMES).format(x=title)
        when = draw_stamps(days, np.array([later]), rng)[0]
        wire.publish(when, again, [company.ticker], "stale", later, pick(rng, words.SOURCES), event)
    if rng.random() < MISLINKED:
        wrong = _other(companies, company, session, rng)
        when = off_minute(np.array([stamp]), rng)[0]
        wire.publish(when, title, [wrong.ticker], "mislinked", session, pick(rng, words.SOURCES), event)


def _write_distractors(wire: _Wire, companies: list[Company], days: Sessions, rng: np.random.Generator) -> None:
    listed = listing_mask(companies, len(days))
    test_from = int(VALID_SHARE * len(days))
    chance = rng.random(listed.shape)
    session, who = np.nonzero((chance < DISTRACTOR_RATE + PAIR_RATE) & listed)
    for t, i, stamp in zip(session, who, draw_stamps(days, session, rng), strict=True):
        company, source = companies[i], pick(rng, words.SOURCES)
        if chance[t, i] < PAIR_RATE:
            other = _other(companies, company, int(t), rng)
            tickers: list[str | None] = [company.ticker, other.ticker]
            wire.publish(stamp, grammar.write_pair(rng, company, other), tickers, "distractor", int(t), source)
        else:
            written = grammar.write_distractor(rng, company, late=bool(t >= test_from))
            wire.publish(
                stamp, written.title, [company.ticker], "distractor", int(t), source, reserved=written.reserved
            )


def _write_reactions(
    wire: _Wire, companies: list[Company], days: Sessions, paths: Paths, rng: np.random.Generator
) -> None:
    """Large moves of session t told in its last half hour or in the hours after its close, never before."""
    listed = listing_mask(companies, len(days))
    listed[1:] &= listed[:-1]
    large = np.abs(paths.total[1:]) > REACTION_FROM * paths.vol[:-1]
    told = np.zeros_like(listed)
    told[1:] = large & (rng.random(large.shape) < REACTION_RATE) & listed[1:]
    session, who = np.nonzero(told)
    closes = days.closes[session]
    stamps = between(closes - np.timedelta64(28, "m"), closes + np.timedelta64(300, "m"), rng)
    for t, i, stamp in zip(session, who, stamps, strict=True):
        title = grammar.write_reaction(rng, companies[i], float(np.expm1(paths.total[t, i])))
        wire.publish(stamp, title, [companies[i].ticker], "reaction", int(t), pick(rng, words.SOURCES))


def _write_market(wire: _Wire, companies: list[Company], days: Sessions, rng: np.random.Generator) -> None:
    session = np.flatnonzero(rng.random(len(days)) < MARKET_RATE)
    for t, stamp in zip(session, draw_stamps(days, session, rng), strict=True):
        title = grammar.write_market(rng, pick(rng, companies))
        wire.publish(stamp, title, [None], "market", int(t), pick(rng, words.SOURCES))


def _other(companies: list[Company], company: Company, session: int, rng: np.random.Generator) -> Company:
    """A company other than `company` that trades in `session`."""
    return pick(rng, [each for each in companies if each.first <= session <= each.last and each is not company])
