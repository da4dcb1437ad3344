"""A fitted model over many samples: calibrated forecasts in log returns."""

import torch

from data.panel import Panel
from data.windows import Samples
from fusion.head import Distribution
from pipelines.config import TapewireConfig
from pipelines.train import Embeddings, Fitted, forecast, make_windows


def predict(
    fitted: Fitted, panel: Panel, embeddings: Embeddings, rows: Samples, config: TapewireConfig
) -> Distribution:
    """The forecast distribution of each sample's target, in their order. Runs on a GPU where there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    windows = make_windows(panel, embeddings, fitted.scaler, fitted.text_scaler, config, device)
    in_units = fitted.calibration.apply(forecast(fitted.model.to(device), windows, rows))
    return in_units.times(panel.unit[rows.ticker, rows.session])
