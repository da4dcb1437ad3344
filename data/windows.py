"""Batches of windows, gathered by index on the model's device.

Nothing overlapping is ever materialised: the panel lies on the device once, and a batch is two index
tensors and a few gathers. There is no per-sample Python and no loader process.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data.news.index import Cells
from data.panel import Panel
from data.scaling import Scaler
from data.types import Batch, NewsBatch

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Samples:
    """Which rows of a panel: parallel indices of ticker and session, int64 [M]."""

    ticker: Ints
    session: Ints

    def __len__(self) -> int:
        return len(self.ticker)

    def take(self, which: npt.NDArray[np.generic]) -> "Samples":
        """The samples of a mask or of indices, in that order."""
        return Samples(self.ticker[which], self.session[which])


def in_order(rows: Samples, size: int) -> Iterator[Samples]:
    """`rows` as they stand, in parts of at most `size`."""
    for start in range(0, len(rows), size):
        yield Samples(rows.ticker[start : start + size], rows.session[start : start + size])


class Windows:
    """A panel and its embeddings on one device, from which batches are gathered.

    `embeddings` [T, E] has one row for each of `panel.news.texts`; with none, E may be anything.
    `news_window` is how many sessions of headlines a sample sees, the decision's own included.
    """

    def __init__(
        self,
        panel: Panel,
        embeddings: npt.NDArray[np.float16],
        scaler: Scaler,
        text_scaler: Scaler,
        target: str,
        lookback: int,
        news_window: int,
        device: torch.device,
    ) -> None:
        self.device, self.lookback, self.news_window = device, lookback, news_window
        self._tickers, self._labels = panel.tickers, panel.sessions.labels
        self._sessions = len(panel.sessions)
        self._features_NSF = torch.from_numpy(panel.features).to(device)
        self._mask_NS = torch.from_numpy(panel.mask).to(device)
        self._unit_NS = torch.from_numpy(panel.unit).to(device)
        self._label_NS = torch.from_numpy(panel.labels[target]).to(device)
        self._scale_price = _on(device, scaler)
        self._scale_text = _on(device, text_scaler)
        self._embedding_TE = torch.from_numpy(embeddings).to(device)
        self._own = _Channel.of(panel.news.own, device)
        self._market = _Channel.of(panel.news.market, device)

    def name(self, samples: Samples, at: int) -> str:
        """What a person calls one of the samples: its ticker and its decision's session."""
        return f"{self._tickers[samples.ticker[at]]} on {self._labels[samples.session[at]]}"

    def gather(self, samples: Samples) -> Batch:
        """The batch of `samples`; sessions before the panel's first are masked."""
        ticker_B = torch.from_numpy(samples.ticker).to(self.device)
        session_B = torch.from_numpy(samples.session).to(self.device)
        price_BLF, mask_BL = self._prices(ticker_B, session_B)
        unit_B = self._unit_NS[ticker_B, session_B]
        session_U, market_row_B = torch.unique(session_B, return_inverse=True)
        return Batch(
            price_BLF=price_BLF,
            mask_BL=mask_BL,
            news=self._news(self._own, ticker_B * self._sessions, session_B),
            market=self._news(self._market, torch.zeros_like(session_U), session_U),
            market_row_B=market_row_B,
            target_B=(self._label_NS[ticker_B, session_B] / unit_B).float(),
            unit_B=unit_B.float(),
            session_B=session_B,
        )

    def _prices(self, ticker_B: Tensor, session_B: Tensor) -> tuple[Tensor, Tensor]:
        back_L = torch.arange(1 - self.lookback, 1, device=self.device)
        at_BL = session_B[:, None] + back_L
        inside_BL, at_BL = at_BL >= 0, at_BL.clamp(min=0)
        mask_BL = self._mask_NS[ticker_B[:, None], at_BL] & inside_BL
        raw_BLF = self._features_NSF[ticker_B[:, None], at_BL]
        return self._scale_price(raw_BLF) * mask_BL[..., None], mask_BL

    def _news(self, channel: "_Channel", row_B: Tensor, session_B: Tensor) -> NewsBatch:
        # A ticker's cells follow one another by session, so a window of them is one slice, newest last.
        first_B = channel.start[row_B + (session_B - self.news_window + 1).clamp(min=0)]
        end_B = channel.start[row_B + session_B + 1]
        most = int((end_B - first_B).max()) if len(row_B) else 0
        at_BK = end_B[:, None] - 1 - torch.arange(most, device=self.device)
        mask_BK = at_BK >= first_B[:, None]
        at_BK = torch.where(mask_BK, at_BK, 0)
        age_BK = torch.where(mask_BK, session_B[:, None] - channel.session[at_BK], 0)
        embedding_BKE = self._scale_text(self._embedding_TE[channel.text[at_BK]].float())
        return NewsBatch(embedding_BKE, mask_BK, age_BK, channel.copies[at_BK, age_BK])


def _on(device: torch.device, scaler: Scaler) -> Callable[[Tensor], Tensor]:
    centre, scale = (torch.from_numpy(part).to(device) for part in (scaler.centre, scaler.scale))
    return lambda values: ((values - centre) * scale).clamp(-scaler.limit, scaler.limit)


@dataclass(frozen=True)
class _Channel:
    start: Tensor
    text: Tensor
    session: Tensor
    copies: Tensor

    @classmethod
    def of(cls, cells: Cells, device: torch.device) -> "_Channel":
        parts = (cells.start, cells.text, cells.session, cells.copies)
        return cls(*(torch.tensor(part, device=device) for part in parts))
