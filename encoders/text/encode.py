"""Run a text encoder over many texts: tokenised ahead, packed without padding, pooled, fp16.

Equal texts are computed once. It neither normalises texts nor stores vectors; skipping what is stored
already is the caller's part. Where an architecture has no packed forward its batches are padded, and
where bf16 is used instead of fp32, are `forward.py`'s business.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from encoders.text.attention import Layout
from encoders.text.checkpoint import ENCODER
from encoders.text.forward import SAMPLE, full_forward, halve, has_bf16_units
from encoders.text.load import Loaded, Source, load
from encoders.text.packed import PackedEncoder
from encoders.text.pooling import finite
from encoders.text.tokens import Sequences, Tokeniser

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float16]

# By device: texts tokenised and sorted together, texts to a yield (what a crash may cost), tokens to a batch (on a CPU
# a batch's activations should stay in its cache, a GPU should be filled).
CPU_TEXTS, CPU_YIELD, CPU_TOKENS = 8_192, 1_024, 1_024
GPU_TEXTS, GPU_YIELD, GPU_TOKENS = 65_536, 16_384, 65_536
GPU_AHEAD = 3  # batches handed to a GPU before the first one's vectors are waited for


class TextEncoder:
    """A loaded encoder. `dimension` is its vectors' width, `device` where it runs: CUDA where there is any, else CPU.

    `half` says whether bf16 is tried; by default where the device has units for it.
    """

    def __init__(self, source: Source, loaded: Loaded, device: torch.device, half: bool | None = None) -> None:
        config = source.config
        self.source = source
        self.dimension = source.dimension
        self.device = device
        on_gpu = device.type == "cuda"
        self._texts, self._yield = (GPU_TEXTS, GPU_YIELD) if on_gpu else (CPU_TEXTS, CPU_YIELD)
        self._budget = GPU_TOKENS if on_gpu else CPU_TOKENS
        self._tokenise = Tokeniser(loaded.tokenizer, config.max_tokens, config.chunks, config.overlap)
        self._pool = loaded.pool.to(device)
        self._forward = full_forward(loaded.model, first_only=config.pooling == "cls").to(device)
        if has_bf16_units(device) if half is None else half:
            self._forward = halve(self._forward, self._sample)

    @classmethod
    def load(cls, source: Source) -> Self:
        """Load what `resolve` found. Raises EncoderError where the checkpoint is not usable."""
        encoder = cls(source, load(source), torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        width = encoder._sample(encoder._forward).shape[1]
        if width != source.dimension:
            raise ENCODER.unusable(source.folder, f"its vectors have {width} numbers, not {source.dimension}")
        return encoder

    def encode(self, texts: Sequence[str]) -> Iterator[tuple[Ids, Vectors]]:
        """Yield (positions [N] in `texts`, vectors [N, D] fp16) until every text was given once.

        The order is by length within a chunk, not that of `texts`. An empty text is read as its
        special tokens alone; no texts, no yields. A vector does not depend on its company beyond
        rounding. Of a text of several windows it is their mean weighted by tokens, or their maximum.
        Raises EncoderError for a text whose vector is not finite in fp16.
        """
        number: dict[str, int] = {}
        numbers = np.array([number.setdefault(text, len(number)) for text in texts], dtype=np.int64)
        distinct = list(number)
        places = np.argsort(numbers, kind="stable")
        start = np.searchsorted(numbers[places], np.arange(len(distinct) + 1))
        for at, vectors in self._encode(distinct):
            counts = start[at + 1] - start[at]
            positions = places[_ranges(start[at], counts)]
            yield positions, finite(texts, positions, np.repeat(vectors, counts, axis=0))

    def _encode(self, texts: list[str]) -> Iterator[tuple[Ids, Vectors]]:
        """`encode` of texts that all differ."""
        for start, sequences in self._tokenised(texts):
            tokens = np.bincount(sequences.text, weights=sequences.lengths).astype(np.int64)
            done: list[Ids] = []
            vectors: list[Vectors] = []
            count = 0
            grouped = list(batches(tokens, self._budget))
            for batch, rows in zip(grouped, self._run(sequences, grouped), strict=True):
                done.append(start + batch)
                vectors.append(rows)
                count += len(batch)
                if count >= self._yield:
                    yield np.concatenate(done), np.concatenate(vectors)
                    done, vectors, count = [], [], 0
            if done:
                yield np.concatenate(done), np.concatenate(vectors)

    def _tokenised(self, texts: list[str]) -> Iterator[tuple[int, Sequences]]:
        """The texts in chunks, tokenised one chunk ahead: the Rust tokeniser runs while the model does."""
        starts = range(0, len(texts), self._texts)
        with ThreadPoolExecutor(1) as ahead:
            coming = deque(ahead.submit(self._tokenise, texts[start : start + self._texts]) for start in starts[:1])
            for start in starts:
                if (after := start + self._texts) < len(texts):
                    coming.append(ahead.submit(self._tokenise, texts[after : after + self._texts]))
                yield start, coming.popleft().result()

    def _run(self, sequences: Sequences, grouped: list[Ids]) -> Iterator[Vectors]:
        """Vectors of each batch of texts, in order."""
        threads = torch.get_num_threads()
        if self.device.type == "cuda" or threads == 1:
            under_way: deque[Callable[[], Vectors]] = deque()
            for batch in grouped:
                under_way.append(self._launch(sequences, batch))
                if len(under_way) > (GPU_AHEAD if self.device.type == "cuda" else 0):
                    yield under_way.popleft()()
            yield from (wait() for wait in under_way)
            return
        # A batch per thread instead of all threads on each batch: threads that share an operation wait for the
        # slowest at every one of it, several times slower as soon as anything else runs on the machine.
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(threads) as pool:
                yield from pool.map(lambda batch: self._launch(sequences, batch)(), grouped)
        finally:
            torch.set_num_threads(threads)

    def _launch(self, sequences: Sequences, batch: Ids) -> Callable[[], Vectors]:
        """Start a batch of texts; the answer waits for its vectors [B, D]. Only a GPU lets one go on meanwhile."""
        vectors_BD = self._embed(self._forward, sequences, batch).to(torch.float16)
        if self.device.type != "cuda":
            return vectors_BD.numpy
        copied = vectors_BD.to("cpu", non_blocking=True)  # to pinned memory
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()

        def wait() -> Vectors:
            event.synchronize()
            rows: Vectors = copied.numpy()
            return rows

        return wait

    def _embed(self, forward: nn.Module, sequences: Sequences, batch: Ids) -> Tensor:
        """Vectors [B, D] of a batch of texts, fp32, on the device."""
        first, stop = np.searchsorted(sequences.text, [batch, batch + 1])
        windows = _ranges(first, stop - first)
        text_S = np.repeat(np.arange(len(batch)), stop - first)
        by_length = np.argsort(sequences.lengths[windows], kind="stable")
        windows, text_S = windows[by_length], text_S[by_length]
        length_S = sequences.lengths[windows]
        ids_N = torch.from_numpy(sequences.ids[_ranges(sequences.offset[windows], length_S)])
        layout = Layout.of(length_S, self.device)
        with torch.inference_mode():
            hidden = forward(ids_N.to(self.device, non_blocking=True), layout)
            first_only = isinstance(forward, PackedEncoder) and forward.first_only
            offset = torch.arange(len(windows) + 1, device=self.device) if first_only else layout.offset
            vectors_SD: Tensor = self._pool(hidden, offset)
            if len(windows) == len(batch):  # sorted by length already, as `batch` is
                return vectors_SD
            return self._joined(vectors_SD, torch.from_numpy(text_S).to(self.device), layout.offset.diff(), len(batch))

    def _joined(self, vectors_SD: Tensor, text_S: Tensor, length_S: Tensor, texts: int) -> Tensor:
        """The vectors of texts from those of their windows."""
        if self.source.config.pooling == "max":
            index_SD = text_S[:, None].expand_as(vectors_SD)
            most_BD = vectors_SD.new_empty(texts, vectors_SD.shape[1])
            return most_BD.scatter_reduce_(0, index_SD, vectors_SD, "amax", include_self=False)
        weight_S = length_S.to(vectors_SD.dtype)
        total_B = vectors_SD.new_zeros(texts).index_add_(0, text_S, weight_S)
        sum_BD = vectors_SD.new_zeros(texts, vectors_SD.shape[1])
        return sum_BD.index_add_(0, text_S, vectors_SD * weight_S[:, None]) / total_B[:, None]

    def _sample(self, forward: nn.Module) -> Tensor:
        sequences = self._tokenise(SAMPLE)
        tokens = np.bincount(sequences.text, weights=sequences.lengths)
        return self._embed(forward, sequences, np.argsort(tokens, kind="stable"))


def batches(lengths: Ids, budget: int) -> Iterator[Ids]:
    """Positions grouped by length, ascending, so that no batch has more than `budget` tokens in all.

    A text longer than the budget is a batch of its own. Every position comes exactly once.
    """
    order = np.argsort(lengths, kind="stable")
    total = np.cumsum(lengths[order])
    start = 0
    while start < len(order):
        before = total[start - 1] if start else 0
        stop = max(int(np.searchsorted(total, before + budget, side="right")), start + 1)
        yield order[start:stop]
        start = stop


def _ranges(start: Ids, count: Ids) -> Ids:
    """The numbers from each `start` on, `count` of them, one range after another."""
    before = np.cumsum(count) - count
    return np.repeat(start - before, count) + np.arange(int(count.sum()))
