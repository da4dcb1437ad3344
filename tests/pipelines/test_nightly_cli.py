"""The commands as a person runs them, by the real clock; a page that shows text as text; a full disk told."""

import errno
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from feed_server import FeedServer
from wires import item, rss

from data.asof import known
from data.calendar import sessions
from data.simulate import MarketConfig, simulate, write
from pipelines.disk import DiskFullError, disk_full, full_disk
from pipelines.instants import utc_now
from pipelines.nightly.page import safe

SETTINGS = """
seeds = [0]
[price]
kind = "lstm"
lookback = 10
width = 8
[fusion]
kind = "price_only"
[train]
epochs = 1
[nightly]
ingest = ["news"]
[[news.feeds]]
name = "wire"
url = "{url}"
allow_private = true
"""


def newest() -> int:
    """Position of the session whose night is due now."""
    return int(known(sessions("XNYS").decision_at, utc_now()).sum()) - 1


@pytest.fixture(scope="module")
def server() -> Iterator[FeedServer]:
    with FeedServer() as opened:
        yield opened


@pytest.fixture(scope="module")
def today(tmp_path_factory: pytest.TempPathFactory, server: FeedServer, tapewire: Any) -> Path:
    """A workspace whose simulated prices end with the session that is due, and a model."""
    folder = tmp_path_factory.mktemp("today")
    first = sessions("XNYS").labels[newest() - 119].item()
    write(simulate(MarketConfig(seed=3, tickers=8, sessions=120, first_session=first)), folder)
    url = server.add("/wire.xml", rss(item(1, title="| <b>*Wire*</b> [x](https://evil.example) |")))
    (folder / "tapewire.toml").write_text(SETTINGS.format(url=url))
    assert tapewire(folder, "import", "prices", "prices.parquet", "--basis", "raw").code == 0
    assert tapewire(folder, "train").code == 0
    return folder


def test_the_commands_of_a_night(today: Path, tapewire: Any) -> None:
    command = [sys.executable, "-c", "from pipelines.cli import main; main()", "nightly", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=today, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    (night,) = result["nights"]
    session = str(sessions("XNYS").labels[newest()])
    assert (night["session"], night["published"], night["scored"], night["members"]) == (session, True, 8, 8)
    assert (today / night["report"]).exists()

    again = tapewire(today, "nightly")
    assert (again.code, again.out.startswith("Nothing is due.")) == (0, True)

    replayed = tapewire(today, "nightly", "--as-of", session, "--json")
    assert (replayed.code, replayed.json["compared"], replayed.json["differing"]) == (0, 8, [])

    verified = tapewire(today, "verify", "--head", night["seal"], "--json")
    assert (verified.code, verified.json["intact"], verified.json["head"]) == (0, True, night["seal"])
    other = tapewire(today, "verify", "--head", "0" * 64)
    assert (other.code, "Not intact" in other.out) == (3, True)

    card = tapewire(today, "scorecard", "--json")
    assert (card.code, card.json["nights"]) == (0, 1)
    assert tapewire(today, "scorecard").out.startswith("# Scorecard")


def test_a_wrong_engine_or_date_is_refused(today: Path, tapewire: Any) -> None:
    for args, named in ((["--engine", "spark"], "spark"), (["--as-of", "someday"], "someday")):
        ran = tapewire(today, "nightly", *args)
        assert (ran.code, ran.out) == (2, "")
        assert named in ran.err


@pytest.mark.parametrize("text", ["a|b", "<script>", "[x](https://y.example)", "*b* _c_ `d`", "https://evil.example",
    "www.evil.example", "a\n# b", "a@b.example", "&lt;", "a\u202eb", "![i](x)", "~~x~~"])  # fmt: skip
def test_text_from_outside_stays_text(text: str) -> None:
    shown = safe(text)
    bare = shown.replace("\\\\", "")
    for sign in "|<>*_`[]@~!&":
        assert bare.count(sign) == bare.count(f"\\{sign}")
    assert "https://" not in shown
    assert "www." not in shown
    assert "\n" not in shown
    assert "\u202e" not in shown
    assert shown.replace("\\", "") == " ".join(text.replace("\u202e", "").split())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_full_disk_is_known_however_it_is_wrapped(number: int, wrapped: bool) -> None:
    error: BaseException = OSError(number, "said so")
    if wrapped:
        try:
            raise RuntimeError("the store gave up") from error
        except RuntimeError as outer:
            error = outer
    assert disk_full(error)
    assert full_disk(error).exit_code == 4
    assert "said so" in str(full_disk(error))


@pytest.mark.parametrize("text", ["File too large (os error 27)", "Generic error: No space left on device"])
def test_a_full_disk_is_known_by_what_libraries_say(text: str) -> None:
    assert disk_full(ValueError(text))


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "denied"), ValueError("281"), DiskFullError("no space left")])
def test_what_is_no_full_disk_is_not_taken_for_one(error: BaseException) -> None:
    assert not disk_full(error)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
def test_any_command_says_it_in_a_paragraph(
    today: Path, tapewire: Any, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(number, "said so")

    monkeypatch.setattr("pipelines.scorecard.card.scorecard", full)
    ran = tapewire(today, "scorecard")
    assert (ran.code, ran.out, ran.err.count("\n")) == (4, "", 1)
    assert ran.err.startswith("tapewire: expected room to write")


def test_another_fault_of_the_system_is_not_hidden(today: Path, tapewire: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr("pipelines.scorecard.card.scorecard", broken)
    with pytest.raises(OSError, match="broken"):
        tapewire(today, "scorecard")
