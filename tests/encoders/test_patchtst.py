"""Patches and blocks against transformers' own; features that do not see each other; what patches say of days."""

import pytest
import torch
from price_windows import random_windows
from pydantic import ValidationError
from torch import Tensor, nn
from transformers import PatchTSTConfig as TheirConfig
from transformers.models.patchtst.modeling_patchtst import PatchTSTEncoderLayer, PatchTSTPatchify

from encoders.price.patchtst import PatchTSTConfig, PatchTSTEncoder

B, L, F, D, HEADS = 5, 20, 3, 16, 4
KEYS = {"lookback": L, "width": D, "patch_length": 6, "stride": 3, "dropout": 0.0}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def windows(length: int = L) -> tuple[Tensor, Tensor]:
    return random_windows(B, length, F)


def built(**keys) -> PatchTSTEncoder:
    encoder = PatchTSTConfig(**(KEYS | keys)).build(F).eval()
    nn.init.normal_(encoder.place.table_LD)  # near zero where untrained
    return encoder


@pytest.mark.parametrize(("length", "span", "stride"), [(18, 6, 3), (20, 6, 2), (17, 16, 1)])
def test_patches_are_those_of_transformers_where_they_fit(length, span, stride):
    price_BLF = torch.randn(B, length, F)
    ours = built(lookback=length, patch_length=span, stride=stride)._patches(price_BLF)
    theirs = PatchTSTPatchify(TheirConfig(context_length=length, patch_length=span, patch_stride=stride))(price_BLF)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("length", [2, 6, 7, 20])
def test_patches_end_with_the_window_and_leave_nothing_out(length):
    place_1L1 = torch.arange(1.0, length + 1)[None, :, None]
    patches = built()._patches(place_1L1)[0, 0]
    assert patches[-1, -1] == length
    assert set(patches.flatten().tolist()) - {0.0} == set(range(1, length + 1))


def test_a_block_is_that_of_transformers():
    shape = {"d_model": D, "num_attention_heads": HEADS, "ffn_dim": 2 * D, "num_input_channels": F}
    plain = {"channel_attention": False, "norm_type": "layernorm", "pre_norm": True, "activation_function": "gelu"}
    ours = built().blocks[0]
    theirs = PatchTSTEncoderLayer(TheirConfig(**shape, **plain, attention_dropout=0, ff_dropout=0)).eval()
    theirs.self_attn.config._attn_implementation = "eager"
    for name, weight in zip(("q_proj", "k_proj", "v_proj"), ours.qkv.weight.chunk(3), strict=True):
        getattr(theirs.self_attn, name).weight.data.copy_(weight)
        getattr(theirs.self_attn, name).bias.data.zero_()
    theirs.self_attn.out_proj.load_state_dict(ours.out.state_dict())
    for name, part in (("0", ours.mlp[0]), ("3", ours.mlp[2])):
        theirs.ff.get_submodule(name).load_state_dict(part.state_dict())
    tokens_BFND = torch.randn(B, F, 7, D)
    keys_C11N = torch.ones(B * F, 1, 1, 7).bool()
    found_BFND = ours(tokens_BFND.flatten(0, 1), keys_C11N).unflatten(0, (B, F))
    torch.testing.assert_close(found_BFND, theirs(tokens_BFND)[0], atol=1e-5, rtol=0)


def test_features_do_not_see_each_other_before_the_end():
    price_BLF, mask_BL = windows()
    encoder = built()
    other_BLF = price_BLF.clone()
    other_BLF[..., 1] += 1
    before, after = encoder(price_BLF, mask_BL), encoder(other_BLF, mask_BL)
    changed_F = (before.sequence_BLD != after.sequence_BLD).any(-1).any(0)
    assert changed_F.tolist() == [False, True, False]
    assert not torch.allclose(before.pooled_BD, after.pooled_BD)


@pytest.mark.parametrize("length", [2, 5, 7, 20])
def test_attention_of_sessions_sums_to_one_over_the_observed(length):
    price_BLF, mask_BL = windows(length)
    attention = built(layers=3)(price_BLF, mask_BL, explain=True).attention
    assert attention.shape == (B, 3, HEADS, length, length)
    torch.testing.assert_close(attention.sum(-1), torch.ones(B, 3, HEADS, length))
    assert not attention[~mask_BL[:, None, None, None].expand_as(attention)].any()


def test_a_patch_shares_its_weight_among_its_observed_sessions():
    encoder = built(lookback=5, patch_length=3, stride=2)
    maps_CHNN = torch.tensor([[0.25, 0.75], [1.0, 0.0]])[None, None].expand(F, HEADS, 2, 2)
    shared = encoder._by_session(maps_CHNN, torch.tensor([[True, False, True, True, True]]))[0, 0]
    early, late = torch.tensor([1, 0, 1, 0, 0]) / 2, torch.tensor([0, 0, 1, 1, 1]) / 3
    torch.testing.assert_close(shared[0], 0.25 * early + 0.75 * late)
    torch.testing.assert_close(shared[4], early)
    torch.testing.assert_close(shared[2], (shared[0] + shared[4]) / 2)  # in both patches


def test_normalised_windows_have_neither_level_nor_scale_but_the_code_is_told():
    price_BLF, mask_BL = windows()
    encoder = built(instance_norm=True)
    other_BLF = 3 * price_BLF - 2
    plain, moved = encoder(price_BLF, mask_BL), encoder(other_BLF, mask_BL)
    torch.testing.assert_close(plain.sequence_BLD, moved.sequence_BLD, atol=1e-3, rtol=0)
    assert not torch.allclose(plain.pooled_BD, moved.pooled_BD, atol=1e-2)


def test_gaps_between_patches_are_refused():
    with pytest.raises(ValidationError, match="stride must be at most patch_length"):
        PatchTSTConfig(patch_length=4, stride=5)
