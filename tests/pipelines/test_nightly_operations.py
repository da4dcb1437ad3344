"""The examples in docs/operations: units that systemd accepts, lines that cron reads, commands that exist."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data.calendar import zone_of
from pipelines.workspace import open_workspace

ROOT = Path(__file__).parents[2]
FILES = ROOT / "docs" / "operations"
UNITS = sorted(path.name for path in FILES.glob("tapewire-*"))
COMMAND = re.compile(r"\btapewire ((?:[a-z][a-z-]*)(?: --?[a-z][a-z-]*)*)")

analyze = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(analyze is None, reason="systemd-analyze is absent")


def commands() -> set[str]:
    """Every `tapewire ...` that the examples or the page tell somebody to run."""
    texts = [path.read_text() for path in (*FILES.iterdir(), ROOT / "docs" / "operations.md")]
    lines = [line for text in texts for line in text.splitlines() if not line.startswith("Description=")]
    return {found for line in lines for found in COMMAND.findall(line)}


def test_every_command_of_the_examples_exists(tmp_path: Path, tapewire: Any) -> None:
    found = commands()
    assert {"nightly", "ingest --news"} <= {command.removesuffix(" --json") for command in found}
    for command in sorted(found):
        words = [word for word in command.split() if not word.startswith("-")]
        ran = tapewire(tmp_path, *words[:1], "--help")
        assert ran.code == 0, command
        if words[0] in ("nightly", "ingest", "scorecard", "verify", "score"):
            options = [word for word in command.split() if word.startswith("--")]
            assert [option for option in options if option not in ran.out] == [], command


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_accepts_the_units(tmp_path: Path, unit: str) -> None:
    """With the command that is installed here in the place of theirs."""
    here = Path(sys.executable).with_name("tapewire")
    if not here.exists():
        pytest.skip("tapewire is not installed as a command")
    for name in UNITS:
        text = (FILES / name).read_text().replace("/opt/tapewire/.venv/bin/tapewire", str(here))
        (tmp_path / name).write_text(text)
    command = [str(analyze), "verify", "--man=no", str(tmp_path / unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    told = [line for line in done.stderr.splitlines() if "tapewire" in line]
    assert (done.returncode, told) == (0, []), done.stderr


@needs_systemd
@pytest.mark.parametrize("unit", [name for name in UNITS if name.endswith(".timer")])
def test_the_timers_name_times_that_exist(unit: str) -> None:
    (when,) = re.findall(r"^OnCalendar=(.*)$", (FILES / unit).read_text(), re.MULTILINE)
    command = [str(analyze), "calendar", when]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


def test_the_nightly_timer_follows_the_decision() -> None:
    """22:00 on the eve, in the zone of the calendar that a new workspace has."""
    text = (FILES / "tapewire-nightly.timer").read_text()
    assert f"OnCalendar=*-*-* 22:05:00 {zone_of('XNYS')}" in text


def test_exit_codes_of_the_service_are_those_of_the_job() -> None:
    text = (FILES / "tapewire-nightly.service").read_text()
    assert "SuccessExitStatus=3 75\n" in text
    assert "RestartPreventExitStatus=2\n" in text


def test_cron_reads_the_lines() -> None:
    lines = [line for line in (FILES / "crontab").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == 'MAILTO=""'
    for line in lines[1:]:
        *fields, command = line.split(maxsplit=5)
        bounds = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
        assert all(reads(field, *bound) for field, bound in zip(fields, bounds, strict=True)), line
        assert "%" not in command  # cron would make a new line of it
        assert subprocess.run(["sh", "-n", "-c", command], check=False, timeout=10).returncode == 0


def reads(field: str, low: int, high: int) -> bool:
    """Whether a field is one of crontab(5)."""
    parts = [re.fullmatch(r"(?:\*|(\d+)(?:-(\d+))?)(?:/(\d+))?", part) for part in field.split(",")]
    numbers = [int(number) for part in parts if part for number in part.groups()[:2] if number]
    return all(parts) and all(low <= number <= high for number in numbers)


def test_the_container_copies_what_there_is() -> None:
    text = (FILES / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    packages = re.findall(r'"([a-z]+)\*"', (ROOT / "pyproject.toml").read_text())
    assert set(packages) <= set(copied)
    assert 'ENTRYPOINT ["tapewire"]' in text


@pytest.mark.skipif(shutil.which("flock") is None, reason="flock is absent")
def test_flock_holds_the_same_locks(tmp_path: Path) -> None:
    """The page tells to back up under the locks of the jobs, with util-linux' flock."""
    (tmp_path / "tapewire.toml").write_text("")
    workspace = open_workspace(tmp_path)
    command = ["flock", "--nonblock", str(tmp_path / ".nightly.lock"), "true"]
    with workspace.lock("nightly"):
        assert subprocess.run(command, check=False, timeout=10).returncode == 1
    assert subprocess.run(command, check=False, timeout=10).returncode == 0
