"""Run a text encoder over many texts: length-sorted batches under a token budget, pooled, fp16.

It neither normalises texts nor stores vectors, and gives every text it is handed a vector: skipping
duplicates and what is already stored is the caller's part.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data.errors import EncoderError
from encoders.text.load import Source, load

Ids = npt.NDArray[np.int64]

CHUNK_TEXTS = 8_192  # texts tokenised and sorted together; what a crash may cost is at most one yield of these
YIELD_TEXTS = 1_024
CPU_TOKENS, GPU_TOKENS = 1_024, 65_536  # a batch's activations should stay in the CPU's cache, or fill the GPU


class TextEncoder:
    """A loaded encoder. `dimension` is E, `device` where it runs: CUDA where there is any, else the CPU."""

    def __init__(self, source: Source, tokenizer: Any, model: Any, device: torch.device) -> None:
        self.source = source
        self.dimension = source.dimension
        self.device = device
        self._tokenizer = tokenizer
        self._model = model.to(device)
        self._budget = GPU_TOKENS if device.type == "cuda" else CPU_TOKENS

    @classmethod
    def load(cls, source: Source) -> Self:
        """Load what `resolve` found. Raises EncoderError where the checkpoint is not usable."""
        tokenizer, model = load(source)
        return cls(source, tokenizer, model, torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    def encode(self, texts: Sequence[str]) -> Iterator[tuple[Ids, npt.NDArray[np.float16]]]:
        """Yield (positions [N] in `texts`, vectors [N, E] fp16) until every text was given once.

        The order is by length within a chunk, not that of `texts`. An empty text is read as its
        special tokens alone; no texts, no yields. A vector does not depend on its company beyond
        rounding. Computed in fp32 on the CPU, under bf16 autocast on CUDA.
        Raises EncoderError for a text whose vector is not finite in fp16.
        """
        for start in range(0, len(texts), CHUNK_TEXTS):
            tokens = self._tokenise(texts[start : start + CHUNK_TEXTS])
            grouped = list(batches(np.array([len(ids) for ids in tokens]), self._budget))
            done: list[Ids] = []
            vectors: list[npt.NDArray[np.float16]] = []
            for batch, rows in zip(grouped, self._run(tokens, grouped), strict=True):
                done.append(start + batch)
                vectors.append(rows)
                if sum(map(len, done)) >= YIELD_TEXTS:
                    yield _checked(texts, np.concatenate(done), np.concatenate(vectors))
                    done, vectors = [], []
            if done:
                yield _checked(texts, np.concatenate(done), np.concatenate(vectors))

    def _tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        # Never with padding: the Rust tokeniser would keep it switched on, and later calls return padded ids.
        encoded = self._tokenizer(
            list(texts),
            padding=False,
            truncation=True,
            max_length=self.source.config.max_tokens,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def _run(self, tokens: list[list[int]], grouped: list[Ids]) -> Iterator[npt.NDArray[np.float16]]:
        """Vectors of each batch, in order."""
        inputs = [[tokens[at] for at in batch] for batch in grouped]
        threads = torch.get_num_threads()
        if self.device.type == "cuda" or threads == 1:
            yield from map(self._embed, inputs)
            return
        # A batch per thread instead of all threads on each batch: threads that share an operation wait for the
        # slowest at every one of it, several times slower as soon as anything else runs on the machine.
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(threads) as pool:
                yield from pool.map(self._embed, inputs)
        finally:
            torch.set_num_threads(threads)

    def _embed(self, tokens: list[list[int]]) -> npt.NDArray[np.float16]:
        """One batch of token ids -> vectors [B, E]."""
        length_B = torch.tensor([len(ids) for ids in tokens])
        mask_BT = torch.arange(int(length_B.max())) < length_B[:, None]
        ids_BT = torch.zeros(mask_BT.shape, dtype=torch.int64)
        ids_BT[mask_BT] = torch.tensor([token for ids in tokens for token in ids])
        # Without a mask attention takes its fastest path; sorted batches are often of one length.
        padded = not bool(mask_BT.all())
        ids_BT, mask_BT = ids_BT.to(self.device), mask_BT.to(self.device)
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            hidden_BTE = self._model(
                input_ids=ids_BT, attention_mask=mask_BT.to(torch.int64) if padded else None
            ).last_hidden_state
        pooled_BE = pool(hidden_BTE.float(), mask_BT, self.source.config.pooling)
        vectors: npt.NDArray[np.float16] = pooled_BE.to(torch.float16).cpu().numpy()
        return vectors


def batches(lengths: Ids, budget: int) -> Iterator[Ids]:
    """Positions grouped by length, ascending, so that no batch padded to its longest passes `budget` tokens.

    A text longer than the budget is a batch of its own. Every position comes exactly once.
    """
    order = np.argsort(lengths, kind="stable")
    start = 0
    for stop in range(1, len(order) + 1):
        if stop == len(order) or (stop - start + 1) * lengths[order[stop]] > budget:
            yield order[start:stop]
            start = stop


def pool(hidden_BTE: Tensor, mask_BT: Tensor, pooling: str) -> Tensor:
    """Token vectors [B, T, E] -> [B, E]: the first token's (`cls`), or the mean where `mask_BT` is True."""
    if pooling == "cls":
        return hidden_BTE[:, 0]
    weight_BT1 = mask_BT[..., None].to(hidden_BTE.dtype)
    return (hidden_BTE * weight_BT1).sum(1) / weight_BT1.sum(1)


def _checked(
    texts: Sequence[str], positions: Ids, vectors: npt.NDArray[np.float16]
) -> tuple[Ids, npt.NDArray[np.float16]]:
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        text = texts[int(positions[np.flatnonzero(~finite)[0]])]
        raise EncoderError(
            f"the text encoder gave a vector that is not finite in fp16 for the text {text[:200]!r}. Its batch was not "
            "stored; the weights are damaged or overflow in half precision: choose another text.encoder."
        )
    return positions, vectors
