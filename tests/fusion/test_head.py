"""The head: a proper likelihood, and one distribution behind every number a forecast states."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from data.types import QUANTILES
from fusion.head import DF_HIGH, DF_LOW, Distribution, Prediction, StudentTHead, nll

B, D = 9, 16


def prediction(df: float = 4.0) -> Prediction:
    draw = torch.Generator().manual_seed(0)
    return Prediction(
        location_B=torch.randn(B, generator=draw), scale_B=torch.rand(B, generator=draw) + 0.2, df=torch.tensor(df)
    )


def test_untrained_it_forecasts_nothing_in_particular():
    torch.manual_seed(0)
    forecast = StudentTHead(D)(torch.nn.functional.layer_norm(torch.randn(500, D), (D,)))
    assert forecast.location_B.abs().max() < 0.5
    torch.testing.assert_close(forecast.scale_B.mean(), torch.tensor(1.0), atol=0.05, rtol=0)
    torch.testing.assert_close(forecast.df, torch.tensor(5.0))


def test_scale_and_df_stay_in_bounds_whatever_is_learned():
    head = StudentTHead(D)
    assert (head(torch.full((B, D), -1e4)).scale_B > 0).all()
    assert (head(torch.full((B, D), 1e4)).scale_B > 0).all()
    for extreme in (-1e4, 1e4):
        torch.nn.init.constant_(head.df_logit, extreme)
        assert DF_LOW - 1e-4 <= head.df.item() <= DF_HIGH + 1e-4


@pytest.mark.parametrize("df", [2.5, 5.0, 29.0])
def test_nll_is_scipys(df):
    forecast, target_B = prediction(df), torch.linspace(-6, 6, B)
    log_likelihood = stats.t.logpdf(target_B.numpy(), df, forecast.location_B.numpy(), forecast.scale_B.numpy())
    assert nll(forecast, target_B).item() == pytest.approx(-log_likelihood.mean(), rel=1e-5)


def test_missing_targets_are_counted_and_refused():
    target_B = torch.zeros(B)
    target_B[[1, 4]] = torch.nan
    with pytest.raises(ValueError, match="received 2 of 9 missing"):
        nll(prediction(), target_B)


def test_gradient_reaches_every_parameter():
    head = StudentTHead(D)
    nll(head(torch.randn(B, D)), torch.randn(B)).backward()
    assert all(p.grad.any() for p in head.parameters())


def test_computes_in_float32_under_autocast():
    head, fused_BD = StudentTHead(D), torch.randn(B, D).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        forecast = head(fused_BD)
        loss = nll(forecast, torch.randn(B))
    assert forecast.location_B.dtype == forecast.scale_B.dtype == loss.dtype == torch.float32
    assert torch.equal(forecast.location_B, head(fused_BD.float()).location_B)


def test_fits_location_scale_and_tails():
    torch.manual_seed(0)
    target_B = torch.from_numpy(stats.t.rvs(3.0, 0.4, 0.7, size=4000, random_state=0)).float()
    head = StudentTHead(1)
    step = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(200):
        step.zero_grad()
        nll(head(torch.zeros(len(target_B), 1)), target_B).backward()
        step.step()
    forecast = head(torch.zeros(1, 1))
    found = [forecast.location_B.item(), forecast.scale_B.item(), forecast.df.item()]
    assert found == pytest.approx([0.4, 0.7, 3.0], rel=0.15)


def test_in_returns_scales_with_the_unit():
    forecast = prediction()
    forecast.location_B.requires_grad_()
    unit_B = torch.linspace(0.01, 0.05, B)
    returns = forecast.in_returns(unit_B)
    np.testing.assert_allclose(returns.mean, (forecast.location_B.detach() * unit_B).numpy(), rtol=1e-6)
    np.testing.assert_allclose(returns.scale, (forecast.scale_B * unit_B).numpy(), rtol=1e-6)
    assert returns.df.shape == (B,)
    assert returns.mean.dtype == np.float64


def test_quantiles_and_prob_up_are_scipys():
    one = Distribution(np.array([0.01, -0.02]), np.array([0.02, 0.03]), np.array([3.0, 12.0]))
    law = stats.t(one.df, one.location, one.scale)
    np.testing.assert_allclose(one.quantiles(QUANTILES), law.ppf(np.array(QUANTILES)[:, None]).T, rtol=1e-9)
    np.testing.assert_allclose(one.prob_up, law.sf(0.0), rtol=1e-9)


@settings(max_examples=100, deadline=None)
@given(
    location=st.floats(-0.5, 0.5),
    scale=st.floats(1e-5, 0.5),
    df=st.floats(DF_LOW, DF_HIGH),
    level=st.floats(0.01, 0.99),
)
def test_all_numbers_of_a_forecast_agree(location, scale, df, level):
    one = Distribution(np.array([location]), np.array([scale]), np.array([df]))
    quantiles = one.quantiles(QUANTILES)[0]
    assert (np.diff(quantiles) > 0).all()
    assert quantiles[QUANTILES.index(0.5)] == pytest.approx(one.mean[0], abs=1e-9)
    assert (one.prob_up[0] - 0.5) * location >= 0
    # The quantile at level 1 - P(up) is a return of zero, unless P(up) is too near 0 or 1 to be inverted.
    if 0.01 < one.prob_up[0] < 0.99:
        assert one.quantiles([1 - one.prob_up[0]])[0, 0] == pytest.approx(0, abs=1e-6 * scale)
    assert 0 <= one.prob_up[0] <= 1
    assert one.quantiles([level])[0, 0] <= one.quantiles([min(level + 0.005, 0.999)])[0, 0]
