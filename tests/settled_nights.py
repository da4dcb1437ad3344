"""A small lake with bars and forecasts by hand, night after night, for the tests of the scorecard. No model is run."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from data.calendar import Sessions, sessions
from data.lake import Lake
from data.types import QUANTILES
from pipelines.scorecard.seal import Seal, seal
from pipelines.scorecard.settle import Settled, settle
from pipelines.workspace import Workspace, open_workspace

CHAMPION, CHALLENGER = "c" * 16, "d" * 16
HOUR, MINUTE = np.timedelta64(1, "h"), np.timedelta64(1, "m")
NORMAL = np.array([-1.645, -1.282, -0.674, 0.0, 0.674, 1.282, 1.645])
assert len(NORMAL) == len(QUANTILES)


@dataclass
class Nights:
    """Bars of `tickers` from the first session after `start`; a forecast's mean is drawn, its scale 2%."""

    folder: Path
    tickers: tuple[str, ...] = ("A", "B", "C", "D", "E", "F")
    start: str = "2024-01-02"
    count: int = 60
    seed: int = 0
    target: str = "close_close"
    absent: set[tuple[str, int]] = field(default_factory=set)  # bars that never come

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "tapewire.toml").write_text('target = "close_close"\n')
        self.workspace: Workspace = open_workspace(self.folder)
        self.exchange: Sessions = sessions("XNYS")
        self.first = int(np.searchsorted(self.exchange.labels, np.datetime64(self.start)))
        order = np.random.default_rng(self.seed)
        self.moves = order.normal(0, 0.02, (self.count + 30, len(self.tickers)))
        self.closes = 100 * np.exp(self.moves.cumsum(axis=0))

    @property
    def lake(self) -> Lake:
        return self.workspace.lake

    def label(self, night: int) -> np.datetime64:
        label: np.datetime64 = self.exchange.labels[self.first + night]
        return label

    def decided(self, night: int) -> np.datetime64:
        """When the night's forecasts are made: a little after its decision."""
        instant: np.datetime64 = self.exchange.decision_at[self.first + night] + MINUTE
        return instant

    def bars(self, *nights: int, version: int = 1, factor: float = 1.0, late: bool = False) -> None:
        """Their bars, recorded two hours after the close (late: two days after)."""
        rows = []
        for night in nights:
            closed = self.exchange.closes[self.first + night]
            stamp = closed + (48 * HOUR if late else 2 * HOUR)
            for column, ticker in enumerate(self.tickers):
                if (ticker, night) not in self.absent:
                    close = self.closes[night, column] * factor
                    values = {"open": close * 0.99, "high": close * 1.02, "low": close * 0.98, "close": close}
                    rows.append(
                        {
                            "ticker": ticker,
                            "session": self.label(night).astype("datetime64[s]"),
                            "version": version,
                            **values,
                            "volume": 1e6,
                            "basis": "raw",
                            "source": "test",
                            "available_at": utc(closed if version == 1 else stamp),
                            "recorded_at": utc(stamp),
                            "origin": "live",
                        }
                    )
        self.lake.merge("bars", pd.DataFrame(rows))

    def forecasts(
        self,
        night: int,
        model_id: str = CHAMPION,
        standing: str = "live",
        made_at: np.datetime64 | None = None,
        data_version: str = "v1",
        skill: float = 0.0,
    ) -> pd.DataFrame:
        """Stored, one a ticker for the session after `night`. `skill` is how much of the outcome they know."""
        frame = self.drawn(night, model_id, standing, made_at, data_version, skill)
        self.lake.merge("forecasts", frame)
        return frame

    def drawn(
        self,
        night: int,
        model_id: str = CHAMPION,
        standing: str = "live",
        made_at: np.datetime64 | None = None,
        data_version: str = "v1",
        skill: float = 0.0,
    ) -> pd.DataFrame:
        """The same, not stored."""
        made_at = self.decided(night) if made_at is None else made_at
        order = np.random.default_rng([self.seed, night, int(model_id[0], 16)])
        rows = []
        for column, ticker in enumerate(self.tickers):
            mean = 0.004 * order.normal() + skill * self.moves[night + 1, column]
            rows.append(
                {
                    "ticker": ticker,
                    "target_session": self.label(night + 1).astype("datetime64[s]"),
                    "model_id": model_id,
                    "data_version": data_version,
                    "target": self.target,
                    "decision_at": utc(self.exchange.decision_at[self.first + night]),
                    "made_at": utc(made_at),
                    "cutoff_at": utc(made_at),
                    "mean": mean,
                    "quantiles": list(mean + 0.02 * NORMAL),
                    "prob_up": 0.5 + np.sign(mean) * 0.1,
                    "price": 100.0,
                    "price_low": 90.0,
                    "price_high": 110.0,
                    "available_at": utc(made_at),
                    "recorded_at": utc(made_at),
                    "origin": "live" if standing == "live" else "backfill",
                    "standing": standing,
                }
            )
        return pd.DataFrame(rows)

    def settle(self, night: int) -> Settled:
        return settle(self.workspace, self.label(night), self.decided(night), self.decided(night))

    def seal(self, night: int) -> Seal:
        record = {"calendar": "XNYS", "decision": "nightly", "models": {}}
        return seal(self.workspace, self.label(night), record, self.decided(night))

    def run(self, *nights: int, skill: float = 0.0, challenger: float | None = None) -> None:
        """Whole nights: bars, forecasts, settlements, seal."""
        for night in nights:
            self.bars(night)
            self.forecasts(night, skill=skill)
            if challenger is not None:
                self.forecasts(night, CHALLENGER, skill=challenger)
            self.settle(night)
            self.seal(night)

    def fill(self, frames: list[pd.DataFrame]) -> None:
        """Forecasts stored together, and each settled in its own night, without a bar or a job."""
        forecasts = pd.concat(frames, ignore_index=True)
        self.lake.merge("forecasts", forecasts)
        days = forecasts["target_session"].to_numpy(dtype="datetime64[D]")
        at = self.exchange.index(days)
        column = pd.Index(self.tickers).get_indexer(pd.Index(forecasts["ticker"]))
        stamp = pd.DatetimeIndex(self.exchange.decision_at[at] + MINUTE).tz_localize("UTC")
        realised = self.moves[at - self.first, column]
        stamps = {"available_at": stamp, "recorded_at": stamp, "night": forecasts["target_session"]}
        self.lake.merge("settlements", forecasts.assign(**stamps, outcome="settled", realised=realised))

    def settlements(self) -> pd.DataFrame:
        return self.lake.current("settlements")


def utc(instant: np.datetime64) -> pd.Timestamp:
    return pd.Timestamp(instant, tz="UTC")
