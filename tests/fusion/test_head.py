"""The head: a proper likelihood, and one distribution behind every number a forecast states."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from data.types import QUANTILES
from fusion.head import DF_HIGH, DF_LOW, Distribution, Prediction, StudentTHead, nll, session_nll

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


SESSION_B = torch.tensor([7, 7, 7, 3, 3, 3, 5, 5, 5])  # neither sorted nor from 0


def centred_targets(forecast: Prediction, session_B: torch.Tensor = SESSION_B) -> torch.Tensor:
    """Targets whose residuals of each session have a mean of 0."""
    residual_B = torch.randn(B, generator=torch.Generator().manual_seed(1))
    for session in session_B.unique():
        residual_B[session_B == session] -= residual_B[session_B == session].mean()
    return forecast.location_B + residual_B


@pytest.mark.parametrize("ratio", [0.0, 1.0, 20.0])
def test_session_nll_is_nll_where_sessions_had_no_shock(ratio):
    forecast = prediction()
    target_B = centred_targets(forecast)
    torch.testing.assert_close(session_nll(forecast, target_B, SESSION_B, ratio), nll(forecast, target_B))


@pytest.mark.parametrize("shock", [-4.0, 4.0])
def test_a_sessions_shock_costs_session_nll_far_less_than_nll(shock):
    forecast = prediction()
    target_B = centred_targets(forecast)
    shocked_B = target_B + shock * (SESSION_B == 3)
    plain = nll(forecast, shocked_B) - nll(forecast, target_B)
    given = session_nll(forecast, shocked_B, SESSION_B, 0.1) - session_nll(forecast, target_B, SESSION_B, 0.1)
    assert plain > 0.5
    assert given.abs() < plain / 10


def test_without_shrinkage_a_shock_costs_and_teaches_nothing():
    forecast = prediction()
    forecast.location_B.requires_grad_()
    target_B = torch.randn(B, generator=torch.Generator().manual_seed(2))
    shocked_B = target_B + 5 * (SESSION_B == 7) - 3 * (SESSION_B == 5)
    loss = session_nll(forecast, shocked_B, SESSION_B, 0.0)
    torch.testing.assert_close(loss, session_nll(forecast, target_B, SESSION_B, 0.0))
    loss.backward()
    for session in SESSION_B.unique():
        assert forecast.location_B.grad[session == SESSION_B].sum().abs() < 1e-6
    assert forecast.location_B.grad.abs().max() > 0.01


def test_the_shock_is_the_sessions_mean_residual_shrunk():
    """Of 2 samples at residual 3 and one alone at -1, with ratio 2: shocks of 3 * 2/4 and -1 * 1/3."""
    forecast = Prediction(torch.tensor([0.5, 0.0, 1.0]), torch.ones(3), torch.tensor(4.0))
    found = session_nll(forecast, torch.tensor([3.5, 3.0, 0.0]), torch.tensor([9, 9, 2]), 2.0)
    left = stats.t.logpdf([1.5, 1.5, -2 / 3], 4.0)
    assert found.item() == pytest.approx(-left.mean(), rel=1e-6)


def test_shocks_too_small_to_matter_leave_nll():
    forecast, target_B = prediction(), torch.linspace(-3, 3, B)
    apart = session_nll(forecast, target_B, SESSION_B, 0.1) - nll(forecast, target_B)
    assert apart.abs() > 0.01
    torch.testing.assert_close(session_nll(forecast, target_B, SESSION_B, 1e9), nll(forecast, target_B))


def test_session_nll_knows_sessions_only_by_who_shares_them():
    forecast, target_B, order = prediction(), torch.linspace(-3, 3, B), torch.randperm(B)
    loss = session_nll(forecast, target_B, SESSION_B, 1.0)
    shuffled = Prediction(forecast.location_B[order], forecast.scale_B[order], forecast.df)
    torch.testing.assert_close(session_nll(shuffled, target_B[order], SESSION_B[order], 1.0), loss)
    torch.testing.assert_close(session_nll(forecast, target_B, 1000 - SESSION_B, 1.0), loss)
    assert not torch.allclose(session_nll(forecast, target_B, SESSION_B.roll(1), 1.0), loss)


def test_session_nll_refuses_missing_targets():
    target_B = torch.zeros(B)
    target_B[[1, 4]] = torch.nan
    with pytest.raises(ValueError, match=r"targets without NaN, received \d of 9 missing"):
        session_nll(prediction(), target_B, SESSION_B, 1.0)
    with pytest.raises(ValueError, match="received 2 of 9 missing"):
        session_nll(prediction(), target_B, torch.arange(B), 1.0)


def test_gradient_reaches_every_parameter():
    head = StudentTHead(D)
    nll(head(torch.randn(B, D)), torch.randn(B)).backward()
    assert all(p.grad.any() for p in head.parameters())


def test_computes_in_float32_under_autocast():
    head, fused_BD = StudentTHead(D), torch.randn(B, D).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        forecast = head(fused_BD)
        losses = nll(forecast, torch.randn(B)), session_nll(forecast, torch.randn(B), SESSION_B, 1.0)
    assert forecast.location_B.dtype == forecast.scale_B.dtype == torch.float32
    assert [loss.dtype for loss in losses] == [torch.float32] * 2
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


def test_in_units_is_the_same_forecast_in_numpy():
    forecast = prediction(df=4.5)
    forecast.location_B.requires_grad_()
    units = forecast.in_units()
    np.testing.assert_array_equal(units.location, forecast.location_B.detach().numpy())
    np.testing.assert_array_equal(units.scale, forecast.scale_B.numpy())
    np.testing.assert_array_equal(units.df, np.full(B, 4.5))
    assert units.location.dtype == units.scale.dtype == units.df.dtype == np.float64


def test_times_scales_with_the_unit():
    units, unit = prediction().in_units(), np.linspace(0.01, 0.05, B)
    returns = units.times(unit)
    np.testing.assert_allclose(returns.mean, units.mean * unit)
    np.testing.assert_allclose(returns.scale, units.scale * unit)
    np.testing.assert_allclose(returns.quantiles(QUANTILES), units.quantiles(QUANTILES) * unit[:, None])
    np.testing.assert_allclose(returns.prob_up, units.prob_up)
    np.testing.assert_array_equal(returns.df, units.df)


def test_take_keeps_the_asked_samples_in_their_order():
    units, mask = prediction().in_units(), np.arange(B) % 2 == 0
    for which in (np.array([4, 0, 7]), mask):
        taken = units.take(which)
        for name in ("location", "scale", "df"):
            np.testing.assert_array_equal(getattr(taken, name), getattr(units, name)[which])
    assert len(units.take(np.zeros(B, dtype=bool)).location) == 0


def test_batches_are_one_again_when_concatenated():
    units = prediction().in_units()
    whole = Distribution.concatenate([units.take(np.arange(4)), units.take(np.arange(4, B))])
    nothing = Distribution.concatenate([])
    for name in ("location", "scale", "df"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(units, name))
        assert getattr(nothing, name).shape == (0,)
    assert nothing.quantiles(QUANTILES).shape == (0, len(QUANTILES))
    assert nothing.prob_up.shape == (0,)


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
