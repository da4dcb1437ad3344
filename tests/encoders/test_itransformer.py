"""Features as tokens: the embedding is the paper's, short windows are masked ones, and there is no map of days."""

import pytest
import torch
from price_windows import random_windows
from torch import Tensor, nn

from encoders.price.itransformer import ITransformerConfig, ITransformerEncoder

B, L, F, D = 5, 20, 3, 16


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def windows(length: int = L) -> tuple[Tensor, Tensor]:
    return random_windows(B, length, F)


def built(**keys) -> ITransformerEncoder:
    return ITransformerConfig(**({"lookback": L, "width": D, "layers": 2} | keys)).build(F).eval()


def test_a_token_is_a_whole_feature():
    price_BLF, mask_BL = windows()
    encoder = built(layers=1)
    encoder.blocks = nn.ModuleList()  # equation 1 with no block: embedding, norm, projection
    found = encoder(price_BLF, mask_BL)
    for sample in range(B):
        told_D = encoder.observed.weight @ mask_BL[sample].float()
        for feature in range(F):
            series_L = price_BLF[sample, :, feature].where(mask_BL[sample], 0)
            token_D = encoder.values.weight @ series_L + encoder.values.bias + told_D + encoder.feature_FD[feature]
            expected_D = (token_D - token_D.mean()) / (token_D.var(unbiased=False) + 1e-5).sqrt()
            torch.testing.assert_close(found.sequence_BLD[sample, feature], expected_D, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.pooled_BD, encoder.join(found.sequence_BLD.flatten(1)))


def test_blocks_attend_between_features():
    price_BLF, mask_BL = windows()
    encoder = built()
    other_BLF = price_BLF.clone()
    other_BLF[:, -1, 1] += 1
    changed = (encoder(price_BLF, mask_BL).sequence_BLD - encoder(other_BLF, mask_BL).sequence_BLD).abs().amax((0, 2))
    assert (changed > 1e-4).all()


@pytest.mark.parametrize("length", [2, 5, 19])
def test_a_short_window_is_a_long_one_that_begins_masked(length):
    price_BLF, mask_BL = windows(length)
    before = L - length
    longer = nn.functional.pad(price_BLF, (0, 0, before, 0), value=9.0), nn.functional.pad(mask_BL, (before, 0))
    encoder = built()
    torch.testing.assert_close(encoder(price_BLF, mask_BL).pooled_BD, encoder(*longer).pooled_BD, atol=1e-5, rtol=0)


def test_a_window_beyond_the_lookback_is_an_error():
    with pytest.raises(ValueError, match="at most 20 sessions"):
        built()(*windows(21))


def test_there_is_no_map_of_sessions():
    assert built()(*windows(), explain=True).attention is None


def test_normalised_windows_have_neither_level_nor_scale_but_the_code_is_told():
    price_BLF, mask_BL = windows()
    encoder = built(instance_norm=True)
    plain, moved = encoder(price_BLF, mask_BL), encoder(3 * price_BLF - 2, mask_BL)
    torch.testing.assert_close(plain.sequence_BLD, moved.sequence_BLD, atol=1e-3, rtol=0)
    assert not torch.allclose(plain.pooled_BD, moved.pooled_BD, atol=1e-2)
