"""Random windows of prices, for the tests of price encoders."""

import torch
from torch import Tensor


def random_windows(samples: int, length: int, features: int) -> tuple[Tensor, Tensor]:
    """[B, L, F] and the mask [B, L]; three sessions in ten are unobserved, the decision's own never."""
    mask_BL = torch.rand(samples, length) < 0.7
    mask_BL[:, -1] = True
    return torch.randn(samples, length, features), mask_BL
