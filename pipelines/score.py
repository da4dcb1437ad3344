"""Forecasts for every ticker for the session after a decision, kept in the lake under their inputs' hash."""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from data.asof import known
from data.calendar import Sessions
from data.news.index import Cells
from data.panel import Panel
from data.schemas import SCHEMAS
from data.types import QUANTILES, Forecast
from data.windows import Samples
from fusion.head import Distribution
from pipelines.bundle import Bundle
from pipelines.decision import gather_decision
from pipelines.predict import predict
from pipelines.workspace import Workspace, replace_file

INTERVAL = (0.05, 0.95)


@dataclass(frozen=True)
class Scored:
    """What one decision gave: forecasts, and a reason for every ticker without one."""

    session: np.datetime64  # the target session
    decision_at: np.datetime64
    forecasts: tuple[Forecast, ...]
    abstained: dict[str, str]
    added: int
    path: Path
    in_sample: bool  # the model was fitted with labels that settled after this decision

    def as_dict(self) -> dict[str, object]:
        """The contract of `score --json`."""
        return {
            "session": str(self.session),
            "decision_at": f"{self.decision_at.astype('datetime64[s]')}+00:00",
            "scored": len(self.forecasts),
            "added": self.added,
            "abstained": self.abstained,
            "path": str(self.path),
        }


def score(workspace: Workspace, bundle: Bundle, session: np.datetime64 | None, made_at: np.datetime64) -> Scored:
    """Forecast the session after the decision that follows `session` (None: the last the lake has bars of).

    What was not known at that decision is not read. Scoring again with the same inputs and model adds
    nothing to the lake.
    """
    decision = gather_decision(workspace, bundle, session)
    config, exchange, at, panel, rows = decision.config, decision.exchange, decision.at, decision.panel, decision.rows
    forecast = predict(bundle.fitted, panel, decision.embeddings, rows, config)
    versions = data_versions(panel, rows, config.price.lookback, config.news.window)
    forecasts = _forecasts(panel, rows, forecast, versions, bundle.model_id, made_at)
    frame = _frame(forecasts, config.target, live=bool(known([made_at], exchange.target_open[at])[0]))
    added = workspace.lake.merge("forecasts", frame)
    path = workspace.reports / f"forecasts-{exchange.target[at]}.parquet"
    _publish(frame, path)
    return Scored(
        session=exchange.target[at],
        decision_at=exchange.decision_at[at],
        forecasts=forecasts,
        abstained=decision.abstained,
        added=added,
        path=path,
        in_sample=not bool(known([bundle.fitted.settled_at], exchange.decision_at[at])[0]),
    )


def data_versions(panel: Panel, rows: Samples, lookback: int, news_window: int) -> list[str]:
    """For each sample a hash of all it was forecast from: features, mask, price basis, headlines.

    Independent of how and where the lake stores them.
    """
    hashes = []
    for ticker, session in zip(rows.ticker, rows.session, strict=True):
        window = slice(max(0, session - lookback + 1), session + 1)
        digest = blake2b(digest_size=12)
        digest.update(panel.features[ticker, window].tobytes())
        digest.update(panel.mask[ticker, window].tobytes())
        basis = (panel.close, panel.unit, panel.share_ratio)
        digest.update(np.array([part[ticker, session] for part in basis]).tobytes())
        row = ticker * len(panel.sessions)
        for cells, cell in ((panel.news.own, row + session), (panel.news.market, session)):
            for text, age, copies in _headlines(cells, cell, session, news_window):
                digest.update(f"\x1e{age}\x1f{copies}\x1f{panel.news.texts[text]}".encode())
            digest.update(b"\x1d")
        hashes.append(digest.hexdigest())
    return hashes


def _headlines(cells: Cells, cell: int, session: int, news_window: int) -> list[tuple[int, int, int]]:
    entries = np.arange(cells.start[cell - min(news_window - 1, session)], cells.start[cell + 1])
    age = session - cells.session[entries]
    return list(zip(cells.text[entries], age, cells.copies[entries, age], strict=True))


def _forecasts(
    panel: Panel,
    rows: Samples,
    forecast: Distribution,
    versions: list[str],
    model_id: str,
    made_at: np.datetime64,
) -> tuple[Forecast, ...]:
    last_close = panel.close[rows.ticker, rows.session] / panel.share_ratio[rows.ticker, rows.session]
    quantiles = forecast.quantiles(QUANTILES)
    low, high = (last_close * np.exp(forecast.quantiles([level])[:, 0]) for level in INTERVAL)
    target, decision_at = _moment(panel.sessions)
    made = pd.Timestamp(made_at, tz="UTC").to_pydatetime()
    return tuple(
        Forecast(
            ticker=panel.tickers[ticker],
            target_session=target,
            decision_at=decision_at,
            made_at=made,
            cutoff_at=decision_at,
            mean=float(forecast.mean[row]),
            quantiles=tuple(map(float, quantiles[row])),
            prob_up=float(forecast.prob_up[row]),
            price=float(last_close[row] * np.exp(forecast.mean[row])),
            price_low=float(low[row]),
            price_high=float(high[row]),
            model_id=model_id,
            data_version=versions[row],
        )
        for row, ticker in enumerate(rows.ticker)
    )


def _moment(exchange: Sessions) -> tuple[Any, Any]:
    """Target session and decision instant of the last session, as Python date and aware datetime."""
    return exchange.target[-1].item(), pd.Timestamp(exchange.decision_at[-1], tz="UTC").to_pydatetime()


def _frame(forecasts: tuple[Forecast, ...], target: str, live: bool) -> pd.DataFrame:
    """Rows of the lake's table. Only what was made before the target session opened is live."""
    frame = pd.DataFrame([vars(forecast) for forecast in forecasts])
    if frame.empty:
        return frame
    made_at, origin = frame["made_at"], "live" if live else "backfill"
    return frame.assign(target=target, available_at=made_at, recorded_at=made_at, origin=origin)


def _publish(frame: pd.DataFrame, path: Path) -> None:
    schema = SCHEMAS["forecasts"]
    table = pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False) if len(frame) else None
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table if table is not None else schema.empty_table(), sink)
    replace_file(path, sink.getvalue().to_pybytes())
