"""The BERT family's forward over texts laid end to end: no padding token is ever computed.

BERT, RoBERTa, XLM-RoBERTa, CamemBERT, ELECTRA, DistilBERT and MPNet are one design: token and position
vectors, then layers of attention and a feed-forward part, each added to its input and normalised
(Vaswani et al. 2017, arXiv:1706.03762; Devlin et al. 2019, arXiv:1810.04805). `PackedEncoder` takes
its weights from a loaded transformers model. It trains nothing, and reads no second segment.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from encoders.text.attention import Bias, Layout, attend

BERT_LIKE = ("bert", "roberta", "xlm-roberta", "camembert", "electra")
COUNTED_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")  # the first position is the padding's id + 1


class PackedEncoder(nn.Module):
    """Token ids end to end to token vectors end to end.

    Shares the weights of the `model` it is made from, but for query, key and value, which become one
    matrix. With `first_only` the last layer computes the first token of each sequence alone.
    """

    def __init__(self, model: Any, first_only: bool = False) -> None:
        """`model` is an AutoModel that `packable` says yes to."""
        super().__init__()
        config, embeddings = model.config, model.embeddings
        self.first_only = first_only
        self.padding = config.pad_token_id if config.model_type in COUNTED_FROM_PADDING else None
        self.words, self.positions = embeddings.word_embeddings, embeddings.position_embeddings
        self.segments = getattr(embeddings, "token_type_embeddings", None)
        self.norm = embeddings.LayerNorm
        self.project = getattr(model, "embeddings_project", nn.Identity())  # ELECTRA's, where tokens are narrower
        self.layers = nn.ModuleList(Layer(_PARTS[config.model_type](layer)) for layer in _stack(model))
        self.distances = _Distances(model.encoder) if config.model_type == "mpnet" else None

    def forward(self, ids_N: Tensor, layout: Layout) -> Tensor:
        """Vectors [N, E] of the tokens `ids_N`, int64; [S, E] of the first of each sequence with `first_only`."""
        hidden_NE = self.words(ids_N) + self.positions(self._position(ids_N, layout.offset))
        if self.segments is not None:
            hidden_NE = hidden_NE + self.segments.weight[0]
        hidden_NE = self.project(self.norm(hidden_NE))
        for layer in self.layers[:-1]:
            hidden_NE = layer(hidden_NE, layout, self.distances)
        last: Any = self.layers[-1]
        last_NE: Tensor = (last.first if self.first_only else last)(hidden_NE, layout, self.distances)
        return last_NE

    def _position(self, ids_N: Tensor, offset: Tensor) -> Tensor:
        """Each token's place in its sequence, [N]."""
        if self.padding is None:
            start_N = torch.repeat_interleave(offset[:-1], offset.diff(), output_size=len(ids_N))
            return torch.arange(len(ids_N), device=ids_N.device) - start_N
        # A text may spell the padding token; these models then count on without it, and so do we.
        real_N = (ids_N != self.padding).long()
        count_N = real_N.cumsum(0)
        before_S = nn.functional.pad(count_N, (1, 0))[offset[:-1]]
        before_N = torch.repeat_interleave(before_S, offset.diff(), output_size=len(ids_N))
        position_N: Tensor = (count_N - before_N) * real_N + self.padding
        return position_N


class Parts(NamedTuple):
    """The modules of one layer, by what they do, whatever transformers calls them."""

    heads: int
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    mixed: nn.Linear
    mixed_norm: nn.LayerNorm
    wide: nn.Linear
    activation: Callable[[Tensor], Tensor]
    narrow: nn.Linear
    norm: nn.LayerNorm


class Layer(nn.Module):
    """Attention, then the feed-forward part."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.heads, self.activation = parts.heads, parts.activation
        self.inputs = _stacked(parts.query, parts.key, parts.value)
        self.mixed, self.mixed_norm = parts.mixed, parts.mixed_norm
        self.wide, self.narrow, self.norm = parts.wide, parts.narrow, parts.norm

    def forward(self, hidden_NE: Tensor, layout: Layout, bias: Bias | None) -> Tensor:
        """[N, E] to [N, E]."""
        joined_NJHC = self.inputs(hidden_NE).view(len(hidden_NE), 3, self.heads, -1)
        return self._feed(hidden_NE, attend(joined_NJHC[:, 0], joined_NJHC[:, 1], joined_NJHC[:, 2], layout, bias))

    def first(self, hidden_NE: Tensor, layout: Layout, bias: Bias | None) -> Tensor:
        """[N, E] to [S, E]: the first token of each sequence alone. It still sees all of them."""
        width = self.inputs.out_features // 3
        weight, shift = self.inputs.weight, self.inputs.bias
        own_SE = hidden_NE[layout.offset[:-1]]
        query_SE = nn.functional.linear(own_SE, weight[:width], shift[:width])
        seen_NK = nn.functional.linear(hidden_NE, weight[width:], shift[width:])
        query_SHC = query_SE.view(len(own_SE), self.heads, -1)
        seen_NJHC = seen_NK.view(len(hidden_NE), 2, self.heads, -1)
        return self._feed(own_SE, attend(query_SHC, seen_NJHC[:, 0], seen_NJHC[:, 1], layout, bias))

    def _feed(self, hidden_NE: Tensor, mixed_NHC: Tensor) -> Tensor:
        hidden_NE = self.mixed_norm(_added(hidden_NE, self.mixed, mixed_NHC.flatten(1)))
        out_NE: Tensor = self.norm(_added(hidden_NE, self.narrow, self.activation(self.wide(hidden_NE))))
        return out_NE


class _Distances(nn.Module):
    """What MPNet adds to each attention score: a number for how far apart two tokens are (Song et al. 2020)."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, length: int) -> Tensor:
        """[1, H, T, T]."""
        device = self.encoder.relative_attention_bias.weight.device
        bias: Tensor = self.encoder.compute_position_bias(torch.empty(1, length, device=device))
        return bias


def packable(model: Any) -> bool:
    """Whether `PackedEncoder` can read this model."""
    config = model.config
    ordinary = not getattr(config, "is_decoder", False) and not getattr(config, "add_cross_attention", False)
    absolute = (getattr(config, "position_embedding_type", None) or "absolute") == "absolute"
    return ordinary and absolute and config.model_type in _PARTS


def _stack(model: Any) -> Any:
    return model.transformer.layer if model.config.model_type == "distilbert" else model.encoder.layer


def _bert(layer: Any) -> Parts:
    own = layer.attention.self
    mixed = layer.attention.output
    return Parts(
        own.num_attention_heads,
        own.query,
        own.key,
        own.value,
        mixed.dense,
        mixed.LayerNorm,
        layer.intermediate.dense,
        layer.intermediate.intermediate_act_fn,
        layer.output.dense,
        layer.output.LayerNorm,
    )


def _mpnet(layer: Any) -> Parts:
    own = layer.attention.attn
    return Parts(
        own.num_attention_heads,
        own.q,
        own.k,
        own.v,
        own.o,
        layer.attention.LayerNorm,
        layer.intermediate.dense,
        layer.intermediate.intermediate_act_fn,
        layer.output.dense,
        layer.output.LayerNorm,
    )


def _distilbert(layer: Any) -> Parts:
    own, feed = layer.attention, layer.ffn
    return Parts(
        own.n_heads,
        own.q_lin,
        own.k_lin,
        own.v_lin,
        own.out_lin,
        layer.sa_layer_norm,
        feed.lin1,
        feed.activation,
        feed.lin2,
        layer.output_layer_norm,
    )


_PARTS = dict.fromkeys(BERT_LIKE, _bert) | {"mpnet": _mpnet, "distilbert": _distilbert}


def _added(hidden_NE: Tensor, part: nn.Linear, input_NI: Tensor) -> Tensor:
    """`hidden + part(input)`: the product is added to what is there already, in one pass less."""
    return (hidden_NE + part.bias).addmm_(input_NI, part.weight.t())


def _stacked(*parts: nn.Linear) -> nn.Linear:
    """One linear map that gives the outputs of `parts` side by side."""
    joined = nn.Linear(parts[0].in_features, sum(part.out_features for part in parts))
    with torch.no_grad():
        joined.weight.copy_(torch.cat([part.weight for part in parts]))
        joined.bias.copy_(torch.cat([part.bias for part in parts]))
    return joined.requires_grad_(False)
