"""A fitted model over many samples: batched, in evaluation mode, in log returns."""

import numpy as np
import numpy.typing as npt
import torch

from data.panel import Panel
from data.windows import Samples, Windows
from fusion.head import Distribution
from pipelines.config import TapewireConfig
from pipelines.train import EVALUATE_BATCH, Fitted


@torch.inference_mode()
def predict(
    fitted: Fitted,
    panel: Panel,
    embeddings: npt.NDArray[np.float16],
    rows: Samples,
    config: TapewireConfig,
) -> Distribution:
    """The forecast distribution of each sample's target, in their order. Runs on a GPU where there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = fitted.model.to(device).eval()
    windows = Windows(
        panel, embeddings, fitted.scaler, config.target, config.price.lookback, config.news.window, device
    )
    parts = []
    for start in range(0, len(rows), EVALUATE_BATCH):
        batch = windows.gather(rows.take(np.arange(start, min(start + EVALUATE_BATCH, len(rows)))))
        prediction = model(batch)
        parts.append(prediction.in_returns(batch.unit_B))
    return concatenate(parts)


def concatenate(parts: list[Distribution]) -> Distribution:
    """Several batches' forecasts as one."""
    columns = (np.concatenate([getattr(part, name) for part in parts]) for name in ("location", "scale", "df"))
    return Distribution(*columns) if parts else Distribution(*(np.empty(0) for _ in range(3)))
