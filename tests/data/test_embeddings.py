import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import data.embeddings as embeddings
from data.embeddings import EmbeddingStore, KeyIndex
from data.errors import LakeError
from data.text import text_keys

E = 4


@pytest.fixture
def store(tmp_path):
    return EmbeddingStore.open(tmp_path, "abc", E)


def reopened(store):
    return EmbeddingStore.open(store.folder.parent, store.fingerprint, store.dimension)


def sample(low, high):
    """Keys of the texts "low".."high", and rows that can be told apart."""
    numbers = np.arange(low, high)
    rows = (numbers[:, None] % 1024 + np.arange(E) / 8).astype(np.float16)
    return text_keys([str(number) for number in numbers]), rows


def test_what_was_stored_is_found_by_a_later_process(store):
    keys, rows = sample(0, 100)
    assert store.append(keys, rows) == 100
    for seen in (store, reopened(store)):
        assert len(seen) == 100
        order = np.random.default_rng(0).permutation(100)
        np.testing.assert_array_equal(seen.gather(seen.rows(keys[order])), rows[order])
        assert not seen.missing(keys).any()
        assert seen.missing(sample(100, 105)[0]).all()


def test_opening_writes_nothing_and_an_empty_store_answers(tmp_path):
    store = EmbeddingStore.open(tmp_path / "none", "abc", E)
    assert not (tmp_path / "none").exists()
    assert len(store) == 0
    assert store.rows(sample(0, 3)[0]).tolist() == [-1, -1, -1]
    assert store.gather(np.array([], dtype=np.int64)).shape == (0, E)
    keys, rows = sample(0, 0)
    assert store.append(keys, rows) == 0


def test_append_keeps_the_first_row_of_a_key(store):
    keys, rows = sample(0, 10)
    assert store.append(np.vstack([keys, keys[:3]]), np.vstack([rows, rows[:3] + 1])) == 10
    assert store.append(keys, rows + 1) == 0
    mixed, more = sample(5, 15)
    assert store.append(mixed, more) == 5
    assert len(store) == 15
    np.testing.assert_array_equal(reopened(store).gather(store.rows(keys)), rows)


def test_shards_fill_up_and_rows_stay_where_they_are(store, monkeypatch):
    monkeypatch.setattr(embeddings, "SHARD_ROWS", 8)
    keys, rows = sample(0, 50)
    ids = []
    for start in range(0, 50, 5):
        store.append(keys[start : start + 5], rows[start : start + 5])
        ids.append(store.rows(keys[: start + 5]))
    assert all((ids[-1][: len(earlier)] == earlier).all() for earlier in ids)
    assert len(list(store.folder.glob("*.f16"))) == 7
    order = np.random.default_rng(1).integers(0, 50, 200)
    for seen in (store, reopened(store)):
        np.testing.assert_array_equal(seen.gather(seen.rows(keys[order])), rows[order])


@pytest.mark.parametrize("ids", [[-1], [0, 10]])
def test_a_row_that_is_not_stored_is_refused(store, ids):
    store.append(*sample(0, 10))
    with pytest.raises(IndexError, match=r"\[0, 10\)"):
        store.gather(np.array(ids))


def test_shapes_that_do_not_fit_are_refused(store):
    keys, rows = sample(0, 3)
    for bad_keys, bad_rows in ((keys[:2], rows), (keys, rows[:, :2]), (keys[:, :1], rows)):
        with pytest.raises(ValueError, match="expected keys"):
            store.append(bad_keys, bad_rows)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("step", ["_commit", "replace"])
def test_a_crash_before_the_commit_leaves_the_last_one(store, monkeypatch, first, step):
    old = sample(0, 0 if first else 10)
    store.append(*old)
    with monkeypatch.context() as patch:
        target = EmbeddingStore if step == "_commit" else embeddings.Path
        patch.setattr(target, step, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.append(*sample(10, 30))
    survivor = reopened(store)
    assert len(survivor) == len(old[0])
    assert survivor.missing(sample(10, 30)[0]).all()
    keys, rows = sample(20, 25)  # shorter than the debris it overwrites
    assert survivor.append(keys, rows) == 5
    for seen in (survivor, reopened(store)):
        np.testing.assert_array_equal(seen.gather(seen.rows(keys)), rows)
        np.testing.assert_array_equal(seen.gather(seen.rows(old[0])), old[1])


def test_a_full_disk_is_worded_and_loses_nothing(store, monkeypatch):
    store.append(*sample(0, 10))

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(embeddings, "_write_at", full)
        with pytest.raises(LakeError, match="No space left"):
            store.append(*sample(10, 20))
    assert len(reopened(store)) == 10


@pytest.mark.parametrize("suffix", ["f16", "keys"])
@pytest.mark.parametrize("size", [None, 0, 15])
def test_a_truncated_shard_is_refused_and_left_alone(store, suffix, size):
    store.append(*sample(0, 10))
    path = store.folder / f"shard-000000.{suffix}"
    if size is None:
        path.unlink()
    else:
        with path.open("r+b") as file:
            file.truncate(size)
    before = {file.name: file.stat().st_size for file in store.folder.iterdir()}
    with pytest.raises(LakeError, match="truncated"):
        reopened(store)
    assert {file.name: file.stat().st_size for file in store.folder.iterdir()} == before


@pytest.mark.parametrize(("key", "value"), [("dimension", 8), ("fingerprint", "other"), ("format", 2)])
def test_a_store_of_another_encoder_is_refused(store, key, value):
    store.append(*sample(0, 10))
    path = store.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(LakeError, match="another encoder"):
        reopened(store)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 1}'])
def test_a_damaged_manifest_is_refused(store, text):
    store.append(*sample(0, 10))
    (store.folder / "manifest.json").write_text(text)
    with pytest.raises(LakeError, match="no manifest"):
        reopened(store)


def test_two_processes_append_at_once_without_loss_or_repeats(tmp_path):
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        import numpy as np
        from data.embeddings import EmbeddingStore
        from data.text import text_keys

        store = EmbeddingStore.open(Path(sys.argv[1]), "abc", 4)
        for start in range(int(sys.argv[2]), int(sys.argv[2]) + 200, 10):
            numbers = np.arange(start, start + 10)
            store.append(text_keys([str(n) for n in numbers]), np.repeat(numbers[:, None], 4, 1).astype(np.float16))
        """
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), low]) for low in ("0", "100", "0")]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    store = EmbeddingStore.open(tmp_path, "abc", E)
    assert len(store) == 300
    rows = store.gather(store.rows(text_keys([str(number) for number in range(300)])))
    np.testing.assert_array_equal(rows, np.repeat(np.arange(300)[:, None], E, 1).astype(np.float16))


words = st.integers(0, 3) | st.integers(0, 2**64 - 1)
key_lists = st.lists(st.tuples(words, words), max_size=30, unique=True)


@settings(deadline=None)
@given(key_lists, st.lists(st.tuples(words, words), max_size=30))
def test_keys_are_found_as_a_dict_finds_them_also_where_first_words_collide(stored, asked):
    asked = asked + stored
    index = KeyIndex(np.array(stored, dtype=np.uint64).reshape(-1, 2))
    found = index.find(np.array(asked, dtype=np.uint64).reshape(-1, 2))
    expected = {key: position for position, key in enumerate(stored)}
    assert found.tolist() == [expected.get(key, -1) for key in asked]
