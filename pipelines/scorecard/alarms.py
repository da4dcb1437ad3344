"""When to look at a model, by rule. Each rule says how often it cries wolf; `tests` hold it to that.

- below-band: the live mean of the daily rank IC, or of the share inside the 80% interval, is below the lower end of
  the backtest's own 95% interval. Read every night, so by an e-process (`evidence.py`): where the live mean is not
  below, the chance of ever being alarmed is at most 1 / `CERTAIN` a rule, however long it runs. (That the backtest's
  own interval is too high is another 2.5%.)
- drift: an input's PSI was above its threshold (`drift.threshold`) in at least 3 of the last 5 sealed nights. With
  independent nights, and a threshold read off 250 of them, that alarms 0.7% of inputs within 250 nights.
- coverage: the newest sealed night scored too little of the universe. Exact: no false alarm.
- stale: sessions have closed since the last sealed night. Exact.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.scorecard.drift import unusual
from pipelines.scorecard.evidence import wealth
from pipelines.scorecard.measures import Daily, Floats

CERTAIN = 40.0
CLIP = 4.0  # standard deviations of a day in the backtest; one wild day is no evidence
BELOW = {"rank_ic": "rank IC", "coverage_80": "coverage of the 80% interval"}
DRIFTED, OF_LAST = 3, 5  # nights


@dataclass(frozen=True)
class Alarm:
    """`rule` is below-band | drift | coverage | stale; `model_id` is empty where it is about no single model."""

    rule: str
    model_id: str
    what: str

    def as_dict(self) -> dict[str, str]:
        """JSON-ready."""
        return dict(vars(self))


def below_band(model_id: str, on_time: Daily, band: Mapping[str, Any] | None) -> Iterator[Alarm]:
    """Alarms of the nights [D] that were settled on time. Without a band there is nothing to be below of."""
    for name, said in BELOW.items():
        known = (band or {}).get(name)
        values = on_time.values[name]
        if known is not None and known["sd"] > 0:
            e_value = evidence_below(values[np.isfinite(values)], known)[-1:]
            if e_value.size and e_value[0] >= CERTAIN:
                mean, end = float(np.nanmean(values)), known["low"]
                what = f"{said} {mean:.3f} over {len(values)} nights; the backtest's band begins at {end:.3f}"
                yield Alarm("below-band", model_id, f"{what} (e = {e_value[0]:.0f}, alarm from {CERTAIN:.0f})")


def evidence_below(daily: Floats, known: Mapping[str, Any]) -> Floats:
    """The e-process [D] against the null that the mean of a day, given the days before, reaches the band's lower end.

    `known` has the backtest's `mean`, `sd` and `low`. Days are clipped to CLIP standard deviations around its mean.
    """
    mean, low, reach = known["mean"], known["low"], CLIP * known["sd"]
    most = reach + abs(mean - low)
    return wealth((low - np.clip(daily, mean - reach, mean + reach)) / most)


def drift(model_id: str, nights: Sequence[Mapping[str, float]], reference: Mapping[str, Any] | None) -> list[Alarm]:
    """Alarms of the sealed nights' drift (see `input_drift`), oldest first; {} where the model had none that night.

    None without a reference.
    """
    if reference is None:
        return []
    counts: dict[str, int] = {}
    for night in nights[-OF_LAST:]:
        for name in unusual(night, reference):
            counts[name] = counts.get(name, 0) + 1
    return [
        Alarm("drift", model_id, f"{name} is unlike its training in {count} of the last {OF_LAST} nights")
        for name, count in sorted(counts.items())
        if count >= DRIFTED
    ]


def coverage(model_id: str, scored: int, members: int, least: float) -> list[Alarm]:
    """An alarm where a night scored less than `least` of the universe's `members`."""
    if members and scored / members >= least:
        return []
    what = f"{scored} of {members} tickers scored; {least:.0%} are expected"
    return [Alarm("coverage", model_id, what)]


def stale(behind: int, newest: str) -> list[Alarm]:
    """An alarm where `behind` decisions are due and no night after `newest` is sealed. One may be under way."""
    if behind <= 1:
        return []
    return [Alarm("stale", "", f"the last sealed night is {newest}; {behind} sessions have been decided since")]
