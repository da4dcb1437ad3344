import json
import shutil
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import data.embeddings as embeddings
import data.key_file as key_file
from data.embeddings import EmbeddingStore
from data.errors import LakeError
from data.key_file import read_index, write_index
from data.key_index import KeyIndex, SortedKeys, first_of_each
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


def test_an_index_is_written_when_enough_was_appended_and_says_the_same(store, monkeypatch):
    monkeypatch.setattr(embeddings, "TAIL_ROWS", 20)
    monkeypatch.setattr(embeddings, "SHARD_ROWS", 32)
    index = store.folder / "keys.index"
    keys, rows = sample(0, 120)
    other = reopened(store)
    for start in range(0, 120, 10):
        store.append(keys[start : start + 10], rows[start : start + 10])
        assert index.exists() == (start >= 20)
        for seen in (store, reopened(store)):
            assert seen.rows(keys).tolist() == [*range(start + 10), *[-1] * (110 - start)]
    other.refresh()
    assert other.rows(keys).tolist() == list(range(120))


def test_settling_sorts_the_rest_into_the_index(store, monkeypatch):
    monkeypatch.setattr(embeddings, "SETTLE_ROWS", 5)
    store.settle()
    assert not store.folder.exists()
    keys, rows = sample(0, 50)
    for start, settled in ((0, 10), (10, 14), (14, 50)):
        store.append(keys[start:settled], rows[start:settled])
        store.settle()
        index = read_index(store.folder / "keys.index")
        assert len(index) == (10 if settled == 14 else settled)
        np.testing.assert_array_equal(reopened(store).rows(keys[:settled]), np.arange(settled))


def test_a_store_without_an_index_is_read_and_gets_one(store):
    keys, rows = sample(0, 20_000)
    store.append(keys, rows)
    assert not (store.folder / "keys.index").exists()  # as every store was written before there was one
    old = reopened(store)
    np.testing.assert_array_equal(old.rows(keys), np.arange(20_000))
    with pytest.MonkeyPatch.context() as patch:  # killed while the index is written
        patch.setattr(key_file.Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            old.settle()
    np.testing.assert_array_equal(reopened(store).rows(keys), np.arange(20_000))
    old.settle()
    assert len(read_index(store.folder / "keys.index")) == 20_000
    np.testing.assert_array_equal(reopened(store).rows(keys), np.arange(20_000))


@pytest.mark.parametrize("damage", ["truncated", "empty", "other", "ahead", "of another store"])
def test_a_wrong_index_costs_nothing_but_its_sorting(store, monkeypatch, damage, tmp_path):
    monkeypatch.setattr(embeddings, "SETTLE_ROWS", 5)
    keys, rows = sample(0, 100)
    store.append(keys, rows)
    store.settle()
    path = store.folder / "keys.index"
    if damage == "other":
        path.write_bytes(b"x" * path.stat().st_size)
    elif damage == "ahead":
        write_index(path, SortedKeys.of(np.vstack([keys, sample(100, 200)[0]])))
    elif damage == "of another store":
        write_index(path, SortedKeys.of(sample(100, 200)[0]))
    else:
        path.write_bytes(path.read_bytes()[: 500 if damage == "truncated" else 0])
    seen = reopened(store)
    np.testing.assert_array_equal(seen.rows(keys), np.arange(100))
    assert seen.missing(sample(100, 200)[0]).all()
    assert seen.append(*sample(100, 200)) == 100
    seen.settle()
    np.testing.assert_array_equal(reopened(store).rows(sample(0, 200)[0]), np.arange(200))


def test_an_index_newer_than_a_restored_backup_is_seen_through(store, monkeypatch, tmp_path):
    """Shards and manifest of 9,950 rows come back, the index of 10,000 stays, and others are appended."""
    monkeypatch.setattr(embeddings, "SETTLE_ROWS", 5)
    keys, rows = sample(0, 10_200)
    store.append(keys[:9_950], rows[:9_950])
    backup = shutil.copytree(store.folder, tmp_path / "backup")
    store.append(keys[9_950:10_000], rows[9_950:10_000])
    store.settle()
    for path in backup.iterdir():
        if path.name != "keys.index":
            shutil.copy(path, store.folder / path.name)
    order = np.random.default_rng(0).permutation(np.arange(10_000, 10_200))
    monkeypatch.setattr(EmbeddingStore, "_settle", lambda *_: None)  # killed before
    reopened(store).append(keys[order], rows[order])
    seen = reopened(store)
    assert (seen.rows(keys[9_950:10_000]) == -1).all()
    np.testing.assert_array_equal(seen.gather(seen.rows(keys[10_000:])), rows[10_000:])


def test_a_flipped_bit_in_the_index_gives_no_wrong_row(store, monkeypatch):
    monkeypatch.setattr(embeddings, "SETTLE_ROWS", 5)
    keys, rows = sample(0, 1_000)
    store.append(keys, rows)
    store.settle()
    path = store.folder / "keys.index"
    whole = path.read_bytes()
    for at in np.random.default_rng(1).integers(key_file.HEAD_BYTES + 16_000, len(whole), 20):  # the row numbers
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        np.testing.assert_array_equal(reopened(store).rows(keys), np.arange(1_000))


def test_a_store_replaced_by_a_smaller_one_is_seen(store, tmp_path):
    store.append(*sample(0, 20))
    shutil.rmtree(store.folder)
    reopened(store).append(*sample(15, 25))
    store.refresh()
    assert store.rows(sample(14, 26)[0]).tolist() == [-1, *range(10), -1]


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


APPENDING = """
import sys
from pathlib import Path
import numpy as np
import data.embeddings as embeddings
from data.text import text_keys

embeddings.TAIL_ROWS, embeddings.SHARD_ROWS = 64, 200
store = embeddings.EmbeddingStore.open(Path(sys.argv[1]), "abc", 4)
for start in range(len(store), 1_000_000, 16):
    numbers = np.arange(start, start + 16)
    rows = (numbers[:, None] % 1024 + np.arange(4) / 8).astype(np.float16)
    store.append(text_keys([str(number) for number in numbers]), rows)
    print(start, flush=True)
"""


def test_killed_at_any_moment_the_last_commit_is_readable(tmp_path):
    random = np.random.default_rng(0)
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", APPENDING, tmp_path], stdout=subprocess.PIPE, text=True) as child:
            said = [int(child.stdout.readline()) for _ in range(3)][-1]
            time.sleep(random.random() / 50)
            child.kill()
        store = EmbeddingStore.open(tmp_path, "abc", E)
        keys, rows = sample(0, len(store) + 16)
        assert len(store) >= said + 16
        assert len(store) % 16 == 0
        np.testing.assert_array_equal(store.rows(keys), [*range(len(store)), *[-1] * 16])
        np.testing.assert_array_equal(store.gather(np.arange(len(store))), rows[: len(store)])
    assert store.append(*sample(len(store), len(store) + 3)) == 3


words = st.integers(0, 3) | st.integers(0, 2**64 - 1)
key_lists = st.lists(st.tuples(words, words), max_size=30, unique=True)


@settings(deadline=None)
@given(key_lists, st.lists(st.tuples(words, words), max_size=30))
def test_keys_are_found_as_a_dict_finds_them_also_where_first_words_collide(stored, asked):
    asked = asked + stored
    keys = np.array(stored, dtype=np.uint64).reshape(-1, 2)
    expected = {key: position for position, key in enumerate(stored)}
    half = len(keys) // 2
    merged = SortedKeys.of(keys[half:], half).merged(SortedKeys.of(keys[:half]))
    for known in (SortedKeys.of(keys), merged):
        found = KeyIndex(known).find(np.array(asked, dtype=np.uint64).reshape(-1, 2))
        assert found.tolist() == [expected.get(key, -1) for key in asked]


@settings(deadline=None)
@given(st.lists(st.tuples(words, words), max_size=30))
def test_the_first_of_equal_keys_is_kept(keys):
    first = list(dict.fromkeys(keys))
    assert first_of_each(np.array(keys, dtype=np.uint64).reshape(-1, 2)).tolist() == [keys.index(key) for key in first]
