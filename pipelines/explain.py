"""`tapewire explain`: which days of its window a forecast hangs on.

Two answers, and neither is a cause. `influence` holds for every kind of encoder: a session is made an ordinary one, all
its features at their medians of the training fold, and what the forecast's median changes by is counted. (To mask it
instead would ask what the model makes of a gap, of which it has seen next to none.) Features of later sessions still
tell of that one (a momentum, a volatility), so it is what its own row is relied on for. `attention` is what an encoder
that attends looked at (`encoders.price.attention.importance`); where it looked need not be what moved its forecast.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from data.errors import LakeError
from data.panel import Panel
from data.types import Batch
from data.windows import Samples, in_order
from encoders.price.attention import importance
from fusion.calibration import Heard
from pipelines.bundle import Bundle
from pipelines.decision import Decision, gather_decision
from pipelines.table import aligned
from pipelines.train import Fitted, make_windows
from pipelines.workspace import Workspace

Floats = npt.NDArray[np.float64]

AT_ONCE = 512  # samples in a batch
SHOWN = 10  # sessions in the table
INFLUENCE = "influence: by how many volatilities the median would differ had that session been an ordinary one."
ATTENDS = "attention: how much the encoder looked at it, which is not what caused the forecast."


@dataclass(frozen=True)
class Day:
    """One session of the window, `back` sessions before the decision's own.

    `log_return` is the total return into it as its decision knew it, None where there is none. `influence` is the
    forecast's median less what it would be had this session been an ordinary one, in units of the ticker's volatility;
    0 where it was not observed. `attention` sums to 1 over the window; None where the encoder attends to nothing. Of
    several tickers both are means, influence that of its sizes, and there is no return.
    """

    back: int
    session: str
    observed: bool
    log_return: float | None
    influence: float
    attention: float | None


@dataclass(frozen=True)
class Explained:
    """The window behind one forecast, or the mean of all at that decision; the decision's own session is the last."""

    tickers: tuple[str, ...]
    session: str  # the target session
    decision_at: str
    model_id: str
    kind: str
    median: float | None  # in units of volatility; None of several tickers
    days: tuple[Day, ...]

    def as_dict(self) -> dict[str, Any]:
        """The contract of `explain --json`."""
        return {**vars(self), "tickers": list(self.tickers), "days": [asdict(day) for day in self.days]}


def explain(workspace: Workspace, bundle: Bundle, ticker: str | None, session: np.datetime64 | None) -> Explained:
    """Explain the forecast of `ticker` (None: of all that can be scored) at the decision that follows `session`.

    The sample is the one that `score` forecasts from. Raises LakeError where there is no forecast to explain.
    """
    decision = gather_decision(workspace, bundle, session)
    rows = _rows(decision, ticker)
    fitted, panel = bundle.fitted, decision.panel
    batches = list(_batches(decision, fitted, rows))
    influence = np.concatenate([influences(fitted, batch) for batch in batches])
    looked = [attention_of(fitted, batch) for batch in batches]
    attention = None if looked[0] is None else np.concatenate([part for part in looked if part is not None])
    medians = np.concatenate([median(fitted, batch) for batch in batches])
    alone = ticker is not None
    return Explained(
        tickers=tuple(panel.tickers[row] for row in rows.ticker),
        session=str(decision.exchange.target[decision.at]),
        decision_at=f"{decision.exchange.decision_at[decision.at].astype('datetime64[s]')}+00:00",
        model_id=bundle.model_id,
        kind=bundle.config.price.kind if bundle.config.fusion.reads_price else bundle.config.fusion.kind,
        median=float(medians[0]) if alone else None,
        days=_days(panel, rows, influence if alone else np.abs(influence), attention),
    )


@torch.inference_mode()
def median(fitted: Fitted, batch: Batch) -> Floats:
    """The calibrated forecast's median of each sample [B], in units of its volatility."""
    heard = Heard(fitted.model(batch).in_units(), fitted.model(batch.without_news()).in_units())
    return fitted.calibration.apply(heard).location


def influences(fitted: Fitted, batch: Batch) -> Floats:
    """[B, L]: the median less what it would be had that session been ordinary, in units of volatility.

    0 at a masked session: there is nothing of it to change.
    """
    without_BL = np.stack([median(fitted, _ordinary(batch, at)) for at in range(batch.mask_BL.shape[1])], axis=1)
    influence_BL: Floats = median(fitted, batch)[:, None] - without_BL
    return np.where(batch.mask_BL.cpu().numpy(), influence_BL, 0.0)


@torch.inference_mode()
def attention_of(fitted: Fitted, batch: Batch) -> Floats | None:
    """[B, L]: how the price encoder's attention is spread over the window, summing to 1; None where it has none."""
    encoded = fitted.model.explain(batch)
    if encoded.attention is None and encoded.pooling_BL is None:
        return None
    return importance(encoded.attention, batch.mask_BL, encoded.pooling_BL).double().cpu().numpy()


def explained_table(result: Explained) -> str:
    """The sessions with the most influence, and how to read them."""
    attends = result.days[0].attention is not None
    ranked = sorted(result.days, key=lambda day: -abs(day.influence))[:SHOWN]
    who = result.tickers[0] if result.median is not None else f"the mean of {len(result.tickers)} tickers"
    head = f"{who} for {result.session}, by model {result.model_id} ({result.kind})"
    if result.median is not None:
        head = f"{head}: median {result.median:+.3f} volatilities"
    columns = ["session", "back", *(["return"] if result.median is not None else []), "influence"]
    body = [_cells(day, result) for day in ranked]
    looked = ATTENDS if attends else f"{result.kind} attends to nothing, so there is no column of attention."
    return "\n".join([head, aligned([[*columns, *(["attention"] if attends else [])], *body]), INFLUENCE, looked])


def _cells(day: Day, result: Explained) -> list[str]:
    moved = [] if result.median is None else ["-" if day.log_return is None else f"{day.log_return:+.2%}"]
    influence = f"{day.influence:+.4f}" if result.median is not None else f"{day.influence:.4f}"
    looked = [] if day.attention is None else [f"{day.attention:.3f}"]
    return [day.session, str(day.back), *moved, influence, *looked]


def _rows(decision: Decision, ticker: str | None) -> Samples:
    label = decision.panel.sessions.labels[-1]
    if ticker in decision.abstained:
        raise LakeError(f"{ticker}: expected a forecast to explain, found none: {decision.abstained[ticker]}.")
    if ticker is not None and ticker not in decision.panel.tickers:
        raise LakeError(f"{ticker}: expected a ticker that is scored on {label}, found no bars of it in the lake.")
    wanted = [ticker is None or decision.panel.tickers[row] == ticker for row in decision.rows.ticker]
    if not any(wanted):
        raise LakeError(f"{label}: expected forecasts to explain, found that no ticker can be scored there.")
    return decision.rows.take(np.array(wanted))


def _batches(decision: Decision, fitted: Fitted, rows: Samples) -> Iterator[Batch]:
    config, device = decision.config, torch.device("cpu")
    scalers = (fitted.scaler, fitted.text_scaler)
    windows = make_windows(decision.panel, decision.embeddings, *scalers, config, device)
    return (windows.gather(part) for part in in_order(rows, AT_ONCE))


def _ordinary(batch: Batch, at: int) -> Batch:
    """The same samples with the session at place `at` of their windows an ordinary one: medians are scaled to 0."""
    others_L1 = torch.arange(batch.price_BLF.shape[1], device=batch.price_BLF.device)[:, None] != at
    return replace(batch, price_BLF=batch.price_BLF * others_L1)


def _days(panel: Panel, rows: Samples, influence: Floats, attention: Floats | None) -> tuple[Day, ...]:
    """`influence` and `attention` [M, L] of the `rows`, all of the panel's last session."""
    last, lookback = len(panel.sessions) - 1, influence.shape[1]
    days = []
    for back in range(min(lookback, last + 1) - 1, -1, -1):
        at, place = last - back, lookback - 1 - back
        looked = None if attention is None else float(attention[:, place].mean())
        label, observed = str(panel.sessions.labels[at]), bool(panel.mask[rows.ticker, at].any())
        moved = _moved(panel, int(rows.ticker[0]), at) if len(rows) == 1 else None
        days.append(Day(back, label, observed, moved, float(influence[:, place].mean()), looked))
    return tuple(days)


def _moved(panel: Panel, ticker: int, at: int) -> float | None:
    """Log total return into a session, from the one before it."""
    moved = panel.labels["close_close"][ticker, at - 1] if at else np.nan
    return None if np.isnan(moved) else float(moved)
