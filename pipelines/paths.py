"""`tapewire paths`: many futures of one ticker, drawn from the current model's price language.

The paths are the language model's alone: they read no headline, and the calibration of `tapewire score` is not applied
to them. Nothing is written to the lake.
"""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet
import torch

from data.adjust import SMALLEST_UNIT, UNIT_DECAY
from data.asof import known
from data.calendar import sessions
from data.errors import ConfigError, LakeError, ModelError
from data.features import FEATURES
from data.panel import Panel
from data.types import QUANTILES
from data.windows import Samples
from encoders.price.tokens import PLAIN, Decoding, TokensEncoder
from pipelines.bundle import Bundle
from pipelines.dataset import eligible, load_panel, session_of
from pipelines.table import aligned
from pipelines.train import Fitted, make_windows
from pipelines.workspace import Workspace, replace_file

Floats = npt.NDArray[np.float64]

SHARE_LEFT = 1e-3  # of a move's square that its own volatility may leave: what is drawn stays finite


@dataclass(frozen=True)
class Ask:
    """How many paths, how many sessions ahead, and how their codes are chosen."""

    paths: int = 200
    horizon: int = 5
    seed: int = 0
    decoding: Decoding = PLAIN


@dataclass(frozen=True)
class Outlook:
    """Log total returns [N paths, H days] of one ticker after one decision; `sessions` [H] are the target sessions."""

    ticker: str
    decision_at: np.datetime64
    sessions: npt.NDArray[np.datetime64]
    returns_NH: Floats
    model_id: str
    path: Path
    in_sample: bool  # the model was fitted with labels that settled after this decision

    @property
    def cumulated(self) -> Floats:
        """[N, H]: log return from the last close to the close of each day ahead."""
        return np.cumsum(self.returns_NH, axis=1)

    @property
    def quantiles(self) -> Floats:
        """[H, Q]: over the paths, of the cumulated return, at the levels of QUANTILES.

        By Weibull's plotting positions: the interval between two levels then covers what it says, the outermost from
        19 paths on: fewer cannot reach so far out.
        """
        return np.quantile(self.cumulated, QUANTILES, axis=0, method="weibull").T

    @property
    def prob_up(self) -> Floats:
        """[H]: share of paths that stand above the last close; one that stands exactly there counts half."""
        return np.asarray(((np.sign(self.cumulated) + 1) / 2).mean(axis=0))

    def as_dict(self) -> dict[str, object]:
        """The contract of `paths --json`."""
        rows = zip(self.sessions, self.quantiles.tolist(), self.prob_up.tolist(), strict=True)
        return {
            "ticker": self.ticker,
            "decision_at": f"{self.decision_at.astype('datetime64[s]')}+00:00",
            "model": self.model_id,
            "paths": len(self.returns_NH),
            "levels": list(QUANTILES),
            "days": [{"session": str(day), "quantiles": row, "prob_up": up} for day, row, up in rows],
            "path": str(self.path),
        }


def parse_decoding(temperature: float, top_k: int | None, top_p: float | None, greedy: bool) -> Decoding:
    """The decoding a user asks for; ConfigError where a number makes no sense."""
    try:
        return Decoding(temperature, top_k, top_p, greedy)
    except ValueError as error:
        raise ConfigError(f"paths: {error}. Mend that option, or leave it out to draw as the model says.") from None


def draw_paths(workspace: Workspace, bundle: Bundle, ticker: str, session: np.datetime64 | None, ask: Ask) -> Outlook:
    """Paths of `ticker` after the decision that follows `session` (None: the last the lake has bars of).

    What was not known at that decision is not read. The same seed, ticker, inputs and model give the same paths;
    greedy decoding has but one. Raises ModelError where the model is no price language model, LakeError where the
    ticker has no bar at that session or fewer than the lookback, ConfigError where the calendar ends too soon.
    """
    encoder = _language(bundle)
    config = bundle.config.model_copy(update={"watchlist": (ticker,), "universe": ""})
    exchange = sessions(config.calendar, config.decision)
    at = session_of(exchange, _last_session(workspace) if session is None else session)
    ahead = exchange.target[at : at + ask.horizon]
    if len(ahead) < ask.horizon:
        raise ConfigError(
            f"--horizon {ask.horizon}: expected sessions that {config.calendar} knows, found {len(ahead)} after "
            f"{exchange.labels[at]}. Ask for fewer."
        )
    panel = load_panel(workspace, config, exchange.labels[at])
    _refuse_unscorable(panel, config.price.lookback)
    moves_NH = _moves(encoder, bundle.fitted, panel, bundle, ask)
    outlook = Outlook(
        ticker=ticker,
        decision_at=exchange.decision_at[at],
        sessions=ahead,
        returns_NH=returns_of(moves_NH, float(panel.unit[0, -1]), int(panel.history[0, -1])),
        model_id=bundle.model_id,
        path=workspace.reports / f"paths-{quote(ticker, safe='')}-{ahead[0]}.parquet",
        in_sample=not bool(known([bundle.fitted.settled_at], exchange.decision_at[at])[0]),
    )
    _publish(outlook, ask)
    return outlook


def returns_of(moves_NH: Floats, unit: float, bars: int) -> Floats:
    """Log returns [N, H] of moves in units of the volatility that they themselves are part of; see `data/adjust.py`.

    `unit` is the volatility at the decision, of the returns into `bars` bars. Along each path it goes on by its own
    recursion, unit'^2 = (1 - s) unit^2 + s r^2, where s is the newest return's share of the weights, (1 - d) /
    (1 - d^n) of the nth; and a move is z = r / unit', solved here for r.
    """
    units_N, returns = np.full(len(moves_NH), unit), np.empty_like(moves_NH)
    for day, move_N in enumerate(moves_NH.T):
        share = (1 - UNIT_DECAY) / (1 - UNIT_DECAY ** (bars + day + 1))
        left_N = np.maximum(1 - share * move_N**2, SHARE_LEFT)
        returns[:, day] = move_N * units_N * np.sqrt((1 - share) / left_N)
        square_N = (1 - share) * units_N**2 + share * returns[:, day] ** 2
        units_N = np.maximum(np.sqrt(square_N), SMALLEST_UNIT)
    return returns


def outlook_table(outlook: Outlook) -> str:
    """Quantiles of the cumulated return and P(up), a line a day ahead."""
    head = f"{outlook.ticker}: {len(outlook.returns_NH)} paths after the decision of {outlook.decision_at} UTC."
    rows = [
        [str(number), str(day), *(f"{value:+.2%}" for value in np.expm1(row)), f"{up:.3f}"]
        for number, (day, row, up) in enumerate(
            zip(outlook.sessions, outlook.quantiles, outlook.prob_up, strict=True), start=1
        )
    ]
    table = aligned([["day", "session", *(f"{level:.0%}" for level in QUANTILES), "P(up)"], *rows])
    return f"{head} Return since the last close:\n{table}\nAll of them: {outlook.path}"


def _language(bundle: Bundle) -> TokensEncoder:
    encoder = bundle.fitted.model.price
    if not isinstance(encoder, TokensEncoder):
        kind = bundle.config.price.kind if bundle.config.fusion.reads_price else "no prices at all"
        raise ModelError(
            f"{bundle.model_id}: expected a model with a price language model to draw paths from, found one that reads "
            f"{kind}. Train one with `tapewire train --set price.kind=tokens`, or name another with --model."
        )
    return encoder


def _last_session(workspace: Workspace) -> np.datetime64:
    return np.datetime64(workspace.lake.frame("bars", ["session"])["session"].max(), "D")


def _refuse_unscorable(panel: Panel, lookback: int) -> None:
    if not eligible(panel, lookback)[0, -1]:
        seen = "a bar" if panel.observed[0, -1] else "no bar"
        raise LakeError(
            f"{panel.tickers[0]}: expected a bar for {panel.sessions.labels[-1]} and at least {lookback} of them (the "
            f"model's lookback), found {seen} and {int(panel.history[0, -1])}. Ingest its prices, or choose another "
            "decision with --as-of."
        )


def _moves(encoder: TokensEncoder, fitted: Fitted, panel: Panel, bundle: Bundle, ask: Ask) -> Floats:
    """[N, H]: the drawn returns in units of their volatility, off the scaler again."""
    nothing = np.zeros((len(panel.news.texts), len(fitted.text_scaler.centre)), dtype=np.float16)
    device = torch.device("cpu")
    windows = make_windows(panel, nothing, fitted.scaler, fitted.text_scaler, bundle.config, device)
    batch = windows.gather(Samples(np.array([0]), np.array([len(panel.sessions) - 1])))
    paths = 1 if ask.decoding.greedy else ask.paths
    generators = [_generator(ask.seed, panel.tickers[0])]
    drawn = encoder.paths(batch.price_BLF, batch.mask_BL, ask.horizon, paths, generators, ask.decoding)
    column = FEATURES.index("return")
    scaled_NH = drawn.returns_BNH[0].double().numpy()
    moves: Floats = scaled_NH / fitted.scaler.scale[column] + fitted.scaler.centre[column]
    return moves


def _generator(seed: int, ticker: str) -> torch.Generator:
    """A ticker's own, so that under one seed two tickers do not share their luck."""
    digest = blake2b(f"{seed}/{ticker}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest))


def _publish(outlook: Outlook, ask: Ask) -> None:
    """One row a path and day, and what they were drawn with in the file's metadata."""
    paths, days = outlook.returns_NH.shape
    table = pa.table(
        {
            "ticker": pa.array([outlook.ticker] * (paths * days)),
            "path": np.repeat(np.arange(paths, dtype=np.int32), days),
            "session": pa.array(np.tile(outlook.sessions.astype("datetime64[D]"), paths)),
            "log_return": outlook.returns_NH.ravel(),
            "cumulated": outlook.cumulated.ravel(),
        }
    )
    facts = {"decision_at": f"{outlook.decision_at}+00:00", "model_id": outlook.model_id, "ask": repr(ask)}
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table.replace_schema_metadata(facts), sink)
    replace_file(outlook.path, sink.getvalue().to_pybytes())
