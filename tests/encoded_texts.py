"""What a text encoder gives, for its tests."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from encoders.text.config import Reader


def vectors(encoder: Reader, texts: Sequence[str]) -> npt.NDArray[np.float16]:
    """[N, D] in the order of `texts`, each of which must come once, finite and in fp16."""
    out = np.full((len(texts), encoder.dimension), np.nan, dtype=np.float16)
    for positions, rows in encoder.encode(texts):
        assert rows.dtype == np.float16
        assert np.isnan(out[positions]).all(), "a text came twice"
        out[positions] = rows
    assert np.isfinite(out).all(), "a text never came"
    return out
