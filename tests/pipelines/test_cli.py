import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.lake import Lake

Tapewire = Callable[..., Any]

HEAVY = ("torch", "transformers", "accelerate", "pandas", "numpy", "pydantic", "rich", "pyarrow", "deltalake", "scipy")
COMMANDS = (
    ["embed"],
    ["train"],
    ["ablate"],
    ["score"],
    ["explain"],
    ["paths", "AAA"],
    ["adapt-text", "--labels", "x.csv"],
    ["headlines"],
    ["bars", "AAA"],
    ["import", "prices", "x.csv"],
    ["import", "headlines", "x.csv"],
)
HELP = """
import contextlib, io, sys
from pipelines.cli import main
for command in (["--help"], ["import", "--help"], ["score", "--help"]):
    sys.argv = ["tapewire", *command]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            main()
        except SystemExit as stop:
            assert not stop.code, command
    assert "Usage: tapewire" in out.getvalue(), command
    print(*sys.modules)
"""


def refused(ran: Any, *named: str) -> None:
    """One clear paragraph on stderr, nothing on stdout, code 2."""
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("tapewire: ")
    assert ran.err.count("\n") == 1
    assert [word for word in named if word not in ran.err] == [], ran.err


def counts(folder: Path) -> dict[str, int]:
    return {
        table: Lake(folder / "lake").count(table) for table in ("bars", "actions", "headlines", "links", "forecasts")
    }


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, timeout=60, check=True)
    for_all, for_import, for_one = (set(line.split()) for line in done.stdout.splitlines())
    assert "typer" in for_all
    assert sorted(for_all & set(HEAVY)) == []
    # Typer itself imports pydantic where a command has parameters.
    assert sorted((for_import | for_one) & set(HEAVY) - {"pydantic"}) == []


def test_the_installed_command_refuses_without_a_traceback(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("tapewire")
    done = subprocess.run([program, "bars", "AAA"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tapewire: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_workspace_says_how_to_make_one(tmp_path: Path, tapewire: Tapewire, command: list[str]) -> None:
    refused(tapewire(tmp_path, *command), "tapewire.toml", "tapewire init")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_checks_what_set_says(imported: Path, tapewire: Tapewire, command: list[str]) -> None:
    refused(
        tapewire(imported, *command, "--set", "price.kind=perceptron"), "tapewire.toml", "price", "perceptron", "lstm"
    )


@pytest.mark.parametrize(
    "args",
    [["trian"], ["import", "tweets", "x.csv"], ["train", "--fast"], ["demo", "--seed", "x"], ["demo", "--seed", "-1"],
     ["import", "prices"], ["headlines", "--limit", "0"], ["init"]],
    ids=" ".join,
)  # fmt: skip
def test_an_unknown_command_or_option_is_refused(imported: Path, tapewire: Tapewire, args: list[str]) -> None:
    ran = tapewire(imported, *args)
    assert (ran.code, ran.out) == (2, "")
    assert "Error" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    "text", ['calender = "XNYS"\n', "[price]\nkind = 'perceptron'\n", "[fusion\n", '[text]\npooling = "median"\n']
)
def test_a_wrong_file_is_named(fresh: Path, tapewire: Tapewire, text: str) -> None:
    (fresh / "tapewire.toml").write_text(text)
    before = counts(fresh)
    for command in (["train"], ["score"], ["embed"]):
        refused(tapewire(fresh, *command), "tapewire.toml")
    assert counts(fresh) == before


@pytest.mark.parametrize("when", ["2015-02-30", "yesterday", "2018-13-01", "20181109", "2018-11-09T12:00:00Z", ""])
def test_an_unknown_date_is_refused(trained: Path, tapewire: Tapewire, when: str) -> None:
    before = counts(trained)
    refused(tapewire(trained, "score", "--as-of", when), f"--as-of {when}")
    assert counts(trained) == before


@pytest.mark.parametrize("when", ["2018-11-22", "2018-11-24", "1970-01-05", "2999-01-04"])
def test_a_day_without_a_session_is_refused(trained: Path, tapewire: Tapewire, when: str) -> None:
    before = counts(trained)
    refused(tapewire(trained, "score", "--as-of", when), when)
    refused(tapewire(trained, "headlines", "--as-of", when), when)
    assert counts(trained) == before


@pytest.mark.parametrize("when", ["noon", "2018-02-30", "2018-11-09T25:00:00Z"])
def test_an_unknown_instant_is_refused(imported: Path, tapewire: Tapewire, when: str) -> None:
    refused(tapewire(imported, "headlines", "--as-of", when), f"--as-of {when}")
    refused(tapewire(imported, "bars", "AAA", "--as-of", when), f"--as-of {when}")


def test_an_instant_may_have_any_offset(imported: Path, tapewire: Tapewire) -> None:
    forms = ("2018-11-09T12:00:00Z", "2018-11-09T12:00:00", "2018-11-09T07:00:00-05:00", "2018-11-09 13:00+01:00")
    assert len({tapewire(imported, "headlines", "--json", "--as-of", form).out for form in forms}) == 1


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("encoder", ["finbert", "nobody/nothing-here", "./no-such-folder"])
def test_an_encoder_that_cannot_be_had_says_what_to_do(fresh: Path, tapewire: Tapewire, encoder: str) -> None:
    before = counts(fresh)
    for command in ("embed", "train", "ablate"):
        refused(tapewire(fresh, command, "--set", f"text.encoder={encoder}"), "FinBERT", "minilm")
    assert counts(fresh) == before
    assert not list(fresh.glob("runs/*/manifest.json"))


def test_embedding_once_is_enough(workspace: Path, market: Any, tapewire: Tapewire) -> None:
    again = tapewire(workspace, "embed", "--json")
    assert set(again.json) == {"texts", "embedded", "fingerprint"}
    assert again.json["embedded"] == 0
    assert 0 < again.json["texts"] <= market.headlines["title"].nunique()
    assert again.err == ""


def test_only_what_is_new_is_embedded(workspace: Path, tapewire: Tapewire) -> None:
    text = (
        "published_at,title,ticker\n2018-12-03T12:00:00Z,A new one  here,AAA\n2018-12-04T12:00:00Z,A new one here,BBB\n"
    )
    (workspace / "new.csv").write_text(text)
    before = tapewire(workspace, "embed", "--json").json
    assert tapewire(workspace, "import", "headlines", "new.csv").code == 0
    refused(tapewire(workspace, "train", "--set", "watchlist=['AAA']"), "AAA")  # it has news and no bars
    after = tapewire(workspace, "embed", "--json").json
    assert after == {"texts": before["texts"] + 1, "embedded": 1, "fingerprint": before["fingerprint"]}


def test_headlines_that_are_not_embedded_yet_are_missed(imported: Path, fresh: Path, tapewire: Tapewire) -> None:
    for command in ("train", "ablate"):
        refused(tapewire(fresh, command), "tapewire embed")
    assert counts(fresh) == counts(imported)


def test_an_empty_lake_says_what_to_import(tmp_path: Path, tapewire: Tapewire) -> None:
    tapewire(tmp_path, "init", "fund")
    fund = tmp_path / "fund"
    for command in ("train", "ablate"):
        refused(tapewire(fund, command, "--set", "text.encoder=minilm"), "tapewire import prices")
    assert tapewire(fund, "headlines", "--json").lines == []
    assert tapewire(fund, "embed", "--set", "text.encoder=minilm", "--json").json["texts"] == 0


def test_json_is_alone_on_stdout(workspace: Path) -> None:
    """In a process of its own, where nothing catches what a library prints."""
    command = [sys.executable, "-c", "from pipelines.cli import main; main()", "score", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=workspace, check=True)
    assert json.loads(done.stdout)["scored"] == 8
    assert "warn" not in done.stderr.lower()


def test_a_dividend_above_the_price_is_named_without_a_warning(
    workspace: Path, sources: Path, market: Any, tapewire: Tapewire
) -> None:
    """One absurd number in a vendor's file: refused or quarantined, with the ticker's name."""
    prices = market.prices.copy()
    row = prices.index[prices["ticker"] == prices["ticker"].iloc[0]][120]
    prices.loc[row, ["dividend", "split"]] = [prices.loc[row, "close"] * 3, 0.0]
    other = workspace / "other"
    other.mkdir()
    (other / "tapewire.toml").write_text((workspace / "tapewire.toml").read_text())
    prices.to_parquet(other / "prices.parquet", index=False)
    first = tapewire(other, "import", "prices", "prices.parquet", "--basis", "raw", "--json")
    if first.code == 0 and not first.json["skipped"]:
        refused(tapewire(other, "train", "--set", "fusion.kind=price_only"), str(prices.loc[row, "ticker"]))
