import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.errors import ModelError
from pipelines.promotions import FILE, Promotions, challenge, enter, promote, retire, rollback

A, B, C = ("a" * 16, "b" * 16, "c" * 16)


def day(number: int) -> np.datetime64:
    return np.datetime64(f"2024-01-{number:02}T08:00", "us")


def events(runs: Path) -> list[Any]:
    return list(json.loads((runs / FILE).read_text()))


def test_before_anything_was_trained_there_is_no_champion(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="tapewire train"):
        Promotions.read(tmp_path).champion()
    assert Promotions.read(tmp_path / "nowhere").challengers() == ()


def test_the_champion_of_an_instant_is_the_one_promoted_by_then(tmp_path: Path) -> None:
    for number, model_id in ((2, A), (4, B), (6, A)):
        promote(tmp_path, model_id, day(number))
    known = Promotions.read(tmp_path)
    assert [known.champion(day(number)) for number in range(2, 8)] == [A, A, B, B, A, A]
    assert known.champion() == A
    with pytest.raises(ModelError, match="2024-01-01"):
        known.champion(day(1))


def test_a_promotion_counts_from_its_own_instant_on(tmp_path: Path) -> None:
    promote(tmp_path, A, day(2))
    promote(tmp_path, B, day(3))
    known = Promotions.read(tmp_path)
    assert known.champion(day(3)) == B
    assert known.champion(day(3) - np.timedelta64(1, "us")) == A


def test_a_rollback_returns_to_the_champion_before_and_again_to_the_one_before_that(tmp_path: Path) -> None:
    for number, model_id in ((1, A), (2, B), (3, C)):
        promote(tmp_path, model_id, day(number))
    assert rollback(tmp_path, day(4)).champion() == B
    assert rollback(tmp_path, day(5)).champion() == A
    with pytest.raises(ModelError, match="champion before"):
        rollback(tmp_path, day(6))
    known = Promotions.read(tmp_path)
    assert [known.champion(day(number)) for number in range(1, 7)] == [A, B, C, B, A, A]
    assert (known.role(B), known.role(C)) == ("retired", "retired")


def test_a_rollback_passes_over_a_retired_champion(tmp_path: Path) -> None:
    for number, model_id in ((1, A), (2, B), (3, C)):
        promote(tmp_path, model_id, day(number))
    retire(tmp_path, B, day(4))
    assert rollback(tmp_path, day(5)).champion() == A


def test_a_rollback_never_returns_to_the_champion_itself(tmp_path: Path) -> None:
    for number, model_id in ((1, A), (2, B), (3, A)):
        promote(tmp_path, model_id, day(number))
    retire(tmp_path, B, day(4))
    with pytest.raises(ModelError, match="champion before"):
        rollback(tmp_path, day(5))
    assert Promotions.read(tmp_path).champion() == A


def test_challengers_come_and_go(tmp_path: Path) -> None:
    promote(tmp_path, A, day(1))
    challenge(tmp_path, B, day(2))
    challenge(tmp_path, C, day(3))
    retire(tmp_path, B, day(4))
    known = Promotions.read(tmp_path)
    assert [known.challengers(day(number)) for number in range(1, 5)] == [(), (B,), (B, C), (C,)]
    assert promote(tmp_path, C, day(5)).challengers() == ()
    assert challenge(tmp_path, A, day(6)).challengers() == (A,)


@pytest.mark.parametrize("lower", [challenge, retire])
def test_the_champion_is_not_lowered_by_itself(tmp_path: Path, lower: Callable[..., Any]) -> None:
    promote(tmp_path, A, day(1))
    with pytest.raises(ModelError, match="rollback"):
        lower(tmp_path, A, day(2))


def test_what_is_so_already_adds_nothing(tmp_path: Path) -> None:
    for number in (1, 2):
        promote(tmp_path, A, day(number))
        challenge(tmp_path, B, day(number))
        retire(tmp_path, C, day(number))
    assert [(event["model_id"], event["role"]) for event in events(tmp_path)] == [
        (A, "champion"),
        (B, "challenger"),
        (C, "retired"),
    ]


def test_the_first_trained_model_is_champion_and_later_ones_challenge(tmp_path: Path) -> None:
    for model_id in (A, B, A, B):
        enter(tmp_path, model_id, day(1), champion=False)
    assert [(event["model_id"], event["role"]) for event in events(tmp_path)] == [(A, "champion"), (B, "challenger")]
    assert enter(tmp_path, B, day(2), champion=True).champion() == B
    assert {event["by"] for event in events(tmp_path)} == {"train"}


def test_the_pointer_of_the_first_format_is_a_champion_since_ever(tmp_path: Path) -> None:
    (tmp_path / "current").write_text(A)
    assert Promotions.read(tmp_path).champion(np.datetime64("1990-01-01", "us")) == A
    promote(tmp_path, B, day(3))
    known = Promotions.read(tmp_path)
    assert not (tmp_path / "current").exists()
    assert (known.champion(day(2)), known.champion(day(3))) == (A, B)
    assert rollback(tmp_path, day(4)).champion() == A


def test_the_list_only_grows(tmp_path: Path) -> None:
    promote(tmp_path, A, day(1))
    before = events(tmp_path)
    promote(tmp_path, B, day(2))
    rollback(tmp_path, day(3))
    assert events(tmp_path)[:1] == before
    assert [event["at"] for event in events(tmp_path)] == [f"2024-01-0{n}T08:00:00.000000+00:00" for n in (1, 2, 3)]


class Killed(BaseException):
    """As SIGKILL: nothing in the code under test catches it."""


@pytest.mark.parametrize("step", ["fsync", "replace", "unlink"])
def test_a_kill_at_any_step_leaves_the_old_list_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    (tmp_path / "current").write_text(A)

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(os if step == "fsync" else Path, step, killed)
        with pytest.raises(Killed):
            promote(tmp_path, B, day(2))
    assert Promotions.read(tmp_path).champion() == (B if step == "unlink" else A)
    promote(tmp_path, B, day(2))
    assert [(event["model_id"], event["by"]) for event in events(tmp_path)] == [(A, "train"), (B, "promote")]
    assert Promotions.read(tmp_path).champion() == B
    assert {path.name for path in tmp_path.iterdir()} == {FILE, ".promotions.lock"}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}x",
        "7",
        '["a"]',
        '[{"model_id": "../evil", "role": "champion", "at": "2024-01-01T00:00:00+00:00", "by": "train"}]',
        f'[{{"model_id": "{A}", "role": "king", "at": "2024-01-01T00:00:00+00:00", "by": "train"}}]',
        f'[{{"model_id": "{A}", "role": "champion", "at": "2024-01-01T00:00:00", "by": "train"}}]',
        f'[{{"model_id": "{A}", "role": "champion", "at": "soon", "by": "train"}}]',
        f'[{{"model_id": "{A}", "role": "champion"}}]',
    ],
)
def test_what_is_no_list_of_promotions_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ModelError, match="expected what Tapewire wrote of promotions"):
        Promotions.read(tmp_path)
    (tmp_path / FILE).rename(tmp_path / "current")
    with pytest.raises(ModelError):
        Promotions.read(tmp_path)


def test_only_an_id_is_promoted(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="16 hexadecimal digits"):
        promote(tmp_path, "../evil", day(1))
