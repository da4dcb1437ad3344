"""A causal language model as encoder and as scorer of sentiment, the FinGPT way (Yang et al. 2023, arXiv:2306.06031).

The embedding is the hidden state of a text's last token, or the mean of all, after the model's last
norm. The sentiment is what the model would answer: the probabilities of the label words as the next
ones after a prompt that holds the text, among themselves. A LoRA adapter stays beside the weights; to
merge it once for all is peft's business.

Only texts of equally many tokens are run together, so there is no padding: on which side a tokenizer
pads makes no difference, nor does a text's company. It generates nothing and trains nothing.
"""

import inspect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data.errors import EncoderError
from encoders.text.causal_files import load_causal
from encoders.text.config import CausalLMConfig
from encoders.text.load import Source
from encoders.text.pooling import POOLS, finite

Ids = npt.NDArray[np.int64]
Tokens = list[int]

CHUNK_TEXTS = 2_048  # texts tokenised together
CPU_TEXTS, GPU_TEXTS = 64, 1_024  # to a yield, which is what a kill may cost: a large model reads few a second
CPU_TOKENS, GPU_TOKENS = 1_024, 16_384  # of a batch


@dataclass(frozen=True)
class Window:
    """A part of a text that is read at once: its tokens, special ones included, and its own characters."""

    text: int
    tokens: Tokens
    characters: str


class CausalEncoder:
    """A loaded model. `dimension` is that of its vectors, `device` where it runs: CUDA where there is any, else the
    CPU.
    """

    def __init__(self, source: Source, config: CausalLMConfig, tokenizer: Any, model: Any) -> None:
        self.source = source
        self.dimension = source.dimension
        self.device: torch.device = model.device
        self._config = config
        self._tokenizer = tokenizer
        self._model = model
        head = model.get_base_model() if config.adapter else model
        self._body = head.base_model
        self._keeps = "logits_to_keep" in inspect.signature(head.forward).parameters
        self._pool = POOLS[config.pooling]()
        cuda = self.device.type == "cuda"
        self._texts, self._budget = (GPU_TEXTS, GPU_TOKENS) if cuda else (CPU_TEXTS, CPU_TOKENS)
        self._labels = _label_tokens(tokenizer, config.labels, source) if config.sentiment != "none" else []
        self._check_prompt(getattr(head.config, "max_position_embeddings", None))

    @classmethod
    def load(cls, source: Source) -> Self:
        """Load what `resolve` found. Raises EncoderError where the model, or its adapter, is not usable."""
        config = source.config
        if not isinstance(config, CausalLMConfig):
            raise TypeError(f"expected the source of a causal language model, found one of kind {config.kind}")
        return cls(source, config, *load_causal(source, config))

    def encode(self, texts: Sequence[str]) -> Iterator[tuple[Ids, npt.NDArray[np.float16]]]:
        """Yield (positions [N] in `texts`, vectors [N, dimension] fp16), in the order of `texts`.

        A vector is the embedding, then the probabilities of the labels in the configuration's order, as
        `sentiment` asks for. Of a text of several windows both are their means, weighted by tokens. An
        empty text is read as the special tokens alone, or as the end-of-text token where there are none.
        Raises EncoderError for a text whose vector is not finite in fp16.
        """
        for start in range(0, len(texts), CHUNK_TEXTS):
            chunk = texts[start : start + CHUNK_TEXTS]
            windows = self._windows(chunk)
            for group in _groups(windows, self._texts):
                vectors = self._vectors(group)
                positions = np.unique([window.text for window in group]) + start
                yield positions, finite(texts, positions, vectors.to(torch.float16).numpy())

    def score(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Probabilities of the labels as the answer to the prompt, [N, labels]; each text is given to it whole."""
        return self._sentiment(self._asked(texts)).numpy()

    def _vectors(self, windows: list[Window]) -> Tensor:
        """One row a text of the windows, by its number."""
        parts = []
        if self._config.sentiment != "only":
            parts.append(self._embed([window.tokens for window in windows]))
        if self._config.sentiment != "none":
            parts.append(self._sentiment(self._asked([window.characters for window in windows])))
        part_WD = torch.cat(parts, dim=1)
        _, text_W = torch.unique(torch.tensor([window.text for window in windows]), return_inverse=True)
        weight_W = torch.tensor([float(len(window.tokens)) for window in windows])
        total_B = torch.zeros(int(text_W.max()) + 1).index_add_(0, text_W, weight_W)
        vector_BD = torch.zeros(len(total_B), part_WD.shape[1])
        return vector_BD.index_add_(0, text_W, part_WD * (weight_W / total_B[text_W])[:, None])

    def _windows(self, texts: Sequence[str]) -> list[Window]:
        """The windows of the texts, in order; at least one a text."""
        encoded = self._tokenizer(
            list(texts),
            padding=False,
            truncation=True,
            max_length=self._config.max_tokens,
            stride=self._config.overlap,
            return_overflowing_tokens=self._config.chunks > 1,
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        numbers = encoded.get("overflow_to_sample_mapping", range(len(texts)))
        windows: list[Window] = []
        taken: dict[int, int] = defaultdict(int)
        for number, tokens, places in zip(numbers, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            if taken[number] < self._config.chunks:
                taken[number] += 1
                first, last = min((a for a, b in places if b > a), default=0), max(b for _, b in [(0, 0), *places])
                windows.append(Window(number, tokens or [self._tokenizer.eos_token_id], texts[number][first:last]))
        return windows

    def _asked(self, texts: Sequence[str]) -> list[Tokens]:
        """The prompt's tokens with each text in it."""
        before, _, after = self._config.prompt.partition("{text}")
        asked: list[Tokens] = self._tokenizer(
            [before + text + after for text in texts], padding=False, truncation=False
        )["input_ids"]
        return asked

    def _check_prompt(self, limit: int | None) -> None:
        """Raise EncoderError where prompt, text and label can be longer than the model reads."""
        if not self._labels or limit is None:
            return
        around = len(self._asked([""])[0]) + max(map(len, self._labels))
        if around + self._config.max_tokens > limit:
            raise EncoderError(
                f"text.max_tokens is {self._config.max_tokens}, and text.prompt adds {around}, but the model in "
                f"{self.source.folder} reads at most {limit} tokens. Set text.max_tokens to {limit - around} or less."
            )

    def _embed(self, tokens: Sequence[Tokens]) -> Tensor:
        """[N, E]."""

        def run(ids_BT: Tensor) -> Tensor:
            hidden_BTE = self._body(input_ids=ids_BT, use_cache=False).last_hidden_state
            offset_B1 = torch.arange(0, ids_BT.numel() + 1, ids_BT.shape[1], device=ids_BT.device)
            pooled_BE: Tensor = self._pool(hidden_BTE.flatten(0, 1), offset_B1)
            return pooled_BE

        return self._by_length(tokens, run)

    def _sentiment(self, prompts: Sequence[Tokens]) -> Tensor:
        """[N, labels]: the labels' probabilities after the prompts, which sum to 1.

        By their first tokens where these differ, in one run; else by whole words, in one run a word.
        """
        first = [label[0] for label in self._labels]
        if len(set(first)) == len(first):
            return self._by_length(prompts, lambda ids_BT: self._logits(ids_BT, 1)[:, 0, first]).softmax(-1)
        return torch.cat([self._word(prompts, label) for label in self._labels], dim=1).softmax(-1)

    def _word(self, prompts: Sequence[Tokens], label: Tokens) -> Tensor:
        """[N, 1]: the log-probability of all of a label's tokens after the prompts."""

        def run(ids_BT: Tensor) -> Tensor:
            logit_BCV = self._logits(ids_BT[:, :-1], len(label)).log_softmax(-1)
            label_BC1 = ids_BT[:, -len(label) :, None]
            return logit_BCV.gather(-1, label_BC1).sum(1)

        return self._by_length([prompt + label for prompt in prompts], run)

    def _logits(self, ids_BT: Tensor, last: int) -> Tensor:
        """[B, last, V], fp32: what the model expects after each of the last tokens."""
        only = {"logits_to_keep": last} if self._keeps else {}
        logits_BTV: Tensor = self._model(input_ids=ids_BT, use_cache=False, **only).logits
        return logits_BTV[:, -last:].float()

    def _by_length(self, tokens: Sequence[Tokens], run: Any) -> Tensor:
        """`run` on batches [B, T] of equally long token lists; its rows in the order of `tokens`, on the CPU."""
        rows: list[Tensor | None] = [None] * len(tokens)
        for batch in _alike([len(ids) for ids in tokens], self._budget):
            ids_BT = torch.tensor([tokens[at] for at in batch], device=self.device)
            with torch.inference_mode():
                result = run(ids_BT).float().cpu()
            for at, row in zip(batch, result, strict=True):
                rows[at] = row
        return torch.stack([row for row in rows if row is not None])


def _alike(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Positions of equal length together, shortest first, at most `budget` tokens a batch, or one text."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for at, length in enumerate(lengths):
        by_length[length].append(at)
    for length in sorted(by_length):
        most = max(1, budget // length)
        same = by_length[length]
        yield from (same[start : start + most] for start in range(0, len(same), most))


def _groups(windows: Iterable[Window], most: int) -> Iterator[list[Window]]:
    """Windows of `most` texts at a time; a text's stay together."""
    group: list[Window] = []
    texts: set[int] = set()
    for window in windows:
        if window.text not in texts and len(texts) == most:
            yield group
            group, texts = [], set()
        group.append(window)
        texts.add(window.text)
    if group:
        yield group


def _label_tokens(tokenizer: Any, labels: Sequence[str], source: Source) -> list[Tokens]:
    """Each label's tokens as an answer by itself, as FinGPT's training data has it."""
    tokens: list[Tokens] = [tokenizer(label, add_special_tokens=False)["input_ids"] for label in labels]
    if not all(tokens) or len(set(map(tuple, tokens))) < len(tokens):
        raise EncoderError(
            f"text.labels: expected words that the tokenizer in {source.folder} tells apart, but {', '.join(labels)} "
            f"become the tokens {tokens}. Choose other words, or a model that knows these."
        )
    return tokens
