"""Headlines' vectors to one vector a sample. Does not read text: that is the text encoder's, done once beforehand."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from data.types import NewsBatch
from encoders.encoded import Encoded

# Scores of an untrained encoder: a headline of the decision's own session weighs e^2 against the no-news vector's 1,
# and less for each session it is older. Where to go from there is learned.
FRESH, STALE_STEP = 2.0, 1.5


class NewsEncoder(nn.Module):
    """Up to K headlines to one vector by learned attention; a learned vector where there are none.

    Neither the order of the headlines nor what stands in padding, NaN included, changes the result; K may be 0.
    """

    def __init__(self, embedding: int, width: int, ages: int, dropout: float) -> None:
        """`embedding` is E, `width` D; ages 0 .. `ages` - 1 are told apart, older headlines count as the oldest."""
        super().__init__()
        self.token = nn.Linear(embedding, width)
        self.age = nn.Embedding(ages, width)
        self.copies = nn.Linear(1, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)
        self.recency = nn.Embedding(ages, 1)
        self.no_news_D = nn.Parameter(torch.randn(width) * 0.02)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.copies.weight)  # what a count of copies means is not known beforehand
        with torch.no_grad():
            self.recency.weight.copy_(FRESH - STALE_STEP * torch.arange(ages)[:, None])

    def forward(self, news: NewsBatch) -> Encoded:
        """`attention` [B, K] is each headline's weight: rows sum to at most 1, the rest is the no-news vector's."""
        token_BKD = self._tokens(news)
        age_BK = self._ages(news)
        score_BK = (self.score(token_BKD) + self.recency(age_BK)).squeeze(-1).float()
        score_BK = score_BK.masked_fill(~news.mask_BK, -torch.inf)
        # One more key, the no-news vector at score 0, keeps the softmax defined; stale news can fade into it.
        weight_BN = functional.pad(score_BK, (0, 1)).softmax(-1)  # N = K + 1
        weight_BK = weight_BN[:, :-1]
        pooled_BD = (weight_BK[..., None] * token_BKD).sum(1) + weight_BN[:, -1:] * self.no_news_D
        return Encoded(pooled_BD, token_BKD, news.mask_BK, weight_BK)

    def _tokens(self, news: NewsBatch) -> Tensor:
        """[B, K, D]. The embedding may come in half precision, as it is stored."""
        absent_BK = ~news.mask_BK
        embedding_BKE = news.embedding_BKE.to(self.token.weight.dtype).masked_fill(absent_BK[..., None], 0)
        content_BKD = self.token(functional.layer_norm(embedding_BKE, embedding_BKE.shape[-1:]))
        # News told once adds nothing here; each doubling of the copies adds as much again.
        spread_BK1 = news.copies_BK.masked_fill(absent_BK, 1).to(content_BKD.dtype).log2()[..., None]
        seen_BKD = content_BKD + self.age(self._ages(news)) + self.copies(spread_BK1)
        tokens_BKD: Tensor = self.dropout(functional.gelu(seen_BKD))
        return tokens_BKD

    def _ages(self, news: NewsBatch) -> Tensor:
        return news.age_BK.masked_fill(~news.mask_BK, 0).clamp(0, self.age.num_embeddings - 1)


class NewsChannels(nn.Module):
    """The ticker's own headlines, plus what those that name no ticker add to them.

    The market's part enters through a map that starts at zero: it has to earn its place, and a wire without such
    headlines costs nothing.
    """

    def __init__(self, embedding: int, width: int, ages: int, dropout: float) -> None:
        super().__init__()
        self.own = NewsEncoder(embedding, width, ages, dropout)
        self.market = NewsEncoder(embedding, width, ages, dropout)
        self.from_market = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.from_market.weight)

    def forward(self, own: NewsBatch, market: NewsBatch, market_row_B: Tensor) -> Encoded:
        """Pooled over both channels; `sequence_BLD`, `mask_BL` and `attention` are the own headlines'.

        `market` has a row for each distinct session, and `market_row_B` says which is whose.
        """
        encoded = self.own(own)
        market_UD = self.from_market(self.market(market).pooled_BD)  # U distinct sessions
        pooled_BD = encoded.pooled_BD + market_UD[market_row_B]
        return Encoded(pooled_BD, encoded.sequence_BLD, encoded.mask_BL, encoded.attention)
