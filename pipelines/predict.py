"""A fitted model over many samples: calibrated forecasts in log returns."""

from dataclasses import dataclass
from functools import cached_property

import torch

from data.panel import Panel
from data.windows import Samples, Windows, in_order
from fusion.calibration import Heard
from fusion.head import Distribution
from fusion.model import ForecastModel
from pipelines.config import TapewireConfig
from pipelines.engine.base import Engine
from pipelines.engine.local import LOCAL
from pipelines.train import EVALUATE_BATCH, Embeddings, Fitted, forecast, make_windows


@dataclass(frozen=True)
class _Inputs:
    """What every part of a prediction reads; its tensors are made once in each process."""

    fitted: Fitted
    panel: Panel
    embeddings: Embeddings
    config: TapewireConfig

    @cached_property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @cached_property
    def model(self) -> ForecastModel:
        return self.fitted.model.to(self.device)

    @cached_property
    def windows(self) -> Windows:
        fitted = self.fitted
        return make_windows(self.panel, self.embeddings, fitted.scaler, fitted.text_scaler, self.config, self.device)


def predict(
    fitted: Fitted,
    panel: Panel,
    embeddings: Embeddings,
    rows: Samples,
    config: TapewireConfig,
    engine: Engine = LOCAL,
) -> Distribution:
    """The forecast distribution of each sample's target, in their order. Runs on a GPU where there is one.

    The samples are cut into the same batches by every engine: the last bits of a row may depend on its batch.
    """
    parts = list(in_order(rows, EVALUATE_BATCH))
    heard = list(engine.map(_hear, _Inputs(fitted, panel, embeddings, config), parts))
    joined = Heard(
        Distribution.concatenate([part.news for part in heard]),
        Distribution.concatenate([part.silence for part in heard]),
    )
    return fitted.calibration.apply(joined).times(panel.unit[rows.ticker, rows.session])


def _hear(inputs: _Inputs, part: Samples) -> Heard:
    return forecast(inputs.model, inputs.windows, part)
