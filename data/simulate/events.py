"""When something happens to which company, how good or bad it is, and when it is published. No words, no prices."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.asof import Instants
from data.calendar import Sessions
from data.simulate.companies import Company
from data.simulate.config import MarketConfig
from data.simulate.grammar import TYPES

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

STRENGTH = np.array([0.8, 1.0, 1.25])  # mild, clear, strong
STRENGTH_SHARE = (0.3, 0.45, 0.25)
MARGIN = np.timedelta64(2, "m")  # kept from every boundary
LONG_PAUSE = np.timedelta64(24, "h")  # from close to decision: a weekend or a holiday


@dataclass(frozen=True)
class Events:
    """One entry an event, ascending by session. `session` is t, whose decision it is the first to inform."""

    session: Ints
    company: Ints
    polarity: Ints
    level: Ints
    kind: Ints
    published_at: Instants


def draw_events(config: MarketConfig, companies: list[Company], days: Sessions, rng: np.random.Generator) -> Events:
    """At most one event a company and session, only while the company is listed."""
    listed = listing_mask(companies, len(days))
    session, company = np.nonzero((rng.random(listed.shape) < config.event_rate) & listed)
    count = len(session)
    return Events(
        session=session,
        company=company,
        polarity=rng.choice(np.array([-1, 1]), count),
        level=rng.choice(3, count, p=STRENGTH_SHARE),
        kind=rng.integers(len(TYPES), size=count),
        published_at=draw_stamps(days, session, rng),
    )


def text_state(events: Events, sessions: int, companies: int) -> Floats:
    """T, (sessions, companies): polarity times strength of the event that first informs each decision, else 0."""
    state = np.zeros((sessions, companies))
    np.add.at(state, (events.session, events.company), events.polarity * STRENGTH[events.level])
    return state


def listing_mask(companies: list[Company], sessions: int) -> npt.NDArray[np.bool_]:
    """(sessions, companies): where each company trades."""
    at = np.arange(sessions)[:, None]
    first, last = (np.array([getattr(company, end) for company in companies]) for end in ("first", "last"))
    return (at >= first) & (at <= last)


def draw_stamps(days: Sessions, session: Ints, rng: np.random.Generator) -> Instants:
    """For each session t an instant that first informs decision t: before the open of t, during it, after its close
    or in the pause before the next session.
    """
    opens, closes, decision = days.opens[session], days.closes[session], days.decision_at[session]
    evening = np.minimum(closes + np.timedelta64(330, "m"), decision)
    paused = decision - closes > LONG_PAUSE
    slot = rng.choice(4, len(session), p=(0.2, 0.25, 0.4, 0.15))
    slot = np.where((slot == 3) & ~paused, 2, slot)
    bounds: Instants = np.stack([opens - np.timedelta64(200, "m"), opens, closes, evening, decision])
    row = np.arange(len(session))
    return between(bounds[slot, row] + MARGIN, bounds[slot + 1, row] - MARGIN, rng)


def between(low: Instants, high: Instants, rng: np.random.Generator) -> Instants:
    """An instant within each interval, never on a full minute: an importer may read midnight as 'time unknown'."""
    span = (high - low).astype("timedelta64[s]").astype(np.int64)
    return off_minute(low + (rng.random(len(low)) * span).astype("timedelta64[s]"), rng)


def off_minute(stamps: Instants, rng: np.random.Generator) -> Instants:
    """The same minutes, each with 1 to 59 seconds."""
    minutes = stamps.astype("datetime64[m]").astype("datetime64[us]")
    shifted: Instants = minutes + rng.integers(1, 60, len(stamps)).astype("timedelta64[s]")
    return shifted
