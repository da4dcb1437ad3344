import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from clean_tape import NOW, clean_tape

from data.errors import InputError, LakeError
from data.prices.files import PriceTerms
from pipelines.config import parse_config
from pipelines.imports import import_prices
from pipelines.quality import Checked, check_files, check_lake, quality_table
from pipelines.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, parse_config({}, (), "the tests' settings"))


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Three clean tickers as a file of unadjusted prices, splits and dividends has them."""
    tape = clean_tape(3, 400, seed=5)
    rows = tape.bars.drop(columns=["basis", "adj_close"]).rename(columns={"session": "date"})
    for kind in ("split", "dividend"):
        one = tape.actions[tape.actions["kind"] == kind].rename(columns={"ex_date": "date", "value": kind})
        rows = rows.merge(one[["ticker", "date", kind]], on=["ticker", "date"], how="left")
    return rows


def write(rows: pd.DataFrame, folder: Path, name: str = "prices.csv") -> Path:
    rows.to_csv(folder / name, index=False, date_format="%Y-%m-%d")
    return folder / name


def check(workspace: Workspace, *paths: Path, **terms: Any) -> Checked:
    given = {"mapping": {}, "calendar": "XNYS", "basis": "raw", "ticker": None, "now": NOW, **terms}
    return check_files(workspace, paths, PriceTerms(**given))


def codes(result: Checked) -> dict[str, int]:
    return {name: entry["count"] for name, entry in result.as_dict()["codes"].items()}  # type: ignore[attr-defined]


def test_a_clean_file(workspace: Workspace, rows: pd.DataFrame, tmp_path: Path) -> None:
    result = check(workspace, write(rows, tmp_path))
    assert (result.exit_code, result.tickers, result.bars) == (0, 3, len(rows))
    assert result.as_dict()["flags"] == []
    assert quality_table(result).endswith("3 tickers: no flags; nothing would be left out.")


def test_what_is_checked_is_what_an_import_leaves_out(workspace: Workspace, rows: pd.DataFrame, tmp_path: Path) -> None:
    spoilt = rows.copy()
    spoilt.loc[[10, 11], "close"] = [-1.0, np.nan]
    spoilt.loc[20, "high"] = spoilt["low"][20] / 2
    spoilt.loc[30, "date"] = pd.Timestamp("2018-07-04")
    spoilt.loc[40, "ticker"] = " "
    spoilt.loc[50, "volume"] = -5
    path = write(spoilt, tmp_path)
    result = check(workspace, path)
    assert result.exit_code == 3
    skipped = import_prices(workspace.lake, [path], {}, "XNYS", "raw", now=NOW).skipped
    quarantined = {name for name, entry in result.codes().items() if entry["severity"] == "quarantine"}
    assert {reason.replace(" ", "-") for reason in skipped} == quarantined
    assert sum(skipped.values()) == sum(codes(result)[name] for name in quarantined) == 6


def test_warnings_alone_leave_nothing_out(workspace: Workspace, rows: pd.DataFrame, tmp_path: Path) -> None:
    name = rows["ticker"][0]
    own = np.flatnonzero(rows["ticker"] == name)
    spoilt = rows.copy()
    spoilt.loc[own[200:206], "volume"] = 0
    result = check(workspace, write(spoilt, tmp_path))
    assert result.exit_code == 0
    (run,) = [flag for flag in result.runs() if flag["code"] == "zero-volume"]
    days = rows["date"].iloc[own[[200, 205]]].dt.strftime("%Y-%m-%d").tolist()
    assert (run["ticker"], run["first"], run["last"], run["sessions"]) == (name, *days, 6)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "unreadable-file"),
        ("a,b\n1,2\n", "missing-column"),
        ("date;open;high;low;close;volume\n2024-01-02;1,5;1,6;1,4;1,5;100\n", "decimal-comma"),
        ('date,open,high,low,close,volume\n2024-01-02,"1,5","1,6","1,4","1,5",100\n', "decimal-comma"),
        ('date,open,high,low,close,volume\n2024-01-02,"1,500.5","1,600","1,400","1,500.1",100\n', "decimal-comma"),
        ("date,open,high,low,close,volume\nsoon,1,1,1,1,100\n", "unreadable-dates"),
        ("date,open,high,low,close,volume\n2024-01-02,1,1,1,-1,100\n", "no-usable-row"),
        (
            "date,open,high,low,close,volume\n2024-01-02,1,1,1,1,100\n2024-01-02,1,2,1,1,100\n",
            "conflicting-duplicate",
        ),
    ],
)
def test_a_file_that_an_import_refuses(text: str, code: str, workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    result = check(workspace, path, ticker="AAA")
    assert result.exit_code == 2
    assert code in codes(result)
    assert quality_table(result).endswith("refused: nothing would be stored.")
    with pytest.raises(InputError):
        import_prices(workspace.lake, [path], {}, "XNYS", "raw", "AAA", NOW)


def test_a_web_page(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("<!doctype html><html><body>Sign in</body></html>")
    assert codes(check(workspace, path)) == {"html-not-csv": 1}


def test_a_refused_file_does_not_hide_another(workspace: Workspace, rows: pd.DataFrame, tmp_path: Path) -> None:
    good, bad = write(rows, tmp_path), tmp_path / "bad.csv"
    bad.write_text("a,b\n1,2\n")
    result = check(workspace, bad, good)
    assert (result.exit_code, result.bars) == (2, len(rows))
    (flag,) = result.runs()
    assert (flag["file"], flag["ticker"], flag["first"]) == (str(bad), None, None)


def test_the_lake(workspace: Workspace, rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LakeError, match="found none"):
        check_lake(workspace, NOW)
    own = np.flatnonzero(rows["ticker"] == rows["ticker"][0])
    spoilt = rows.copy()
    spoilt.loc[own[100:103], ["open", "high", "low", "close"]] *= 100
    path = write(spoilt.drop(index=own[200]), tmp_path)
    import_prices(workspace.lake, [path], {}, "XNYS", "raw", now=NOW)
    monkeypatch.setattr("pipelines.quality.BLOCK_TICKERS", 2)
    result = check_lake(workspace, NOW)
    assert (result.exit_code, result.tickers, result.bars) == (0, 3, len(rows) - 1)
    assert codes(result) == {"unit-error": 3, "missing-session": 1}
    assert [(run["code"], run["sessions"]) for run in result.runs()] == [("unit-error", 3), ("missing-session", 1)]
    json.dumps(result.as_dict(), allow_nan=False)


def test_tickers_are_judged_by_their_own_calendar(workspace: Workspace, tmp_path: Path) -> None:
    days = pd.to_datetime(["2024-07-03", "2024-07-04", "2024-07-05", "2024-07-06"])
    parts = [pd.DataFrame({"ticker": name, "date": days}) for name in ("AAA", "BBB.L", "CCC-USD")]
    rows = pd.concat(parts, ignore_index=True)
    rows = rows.assign(open=1.0, high=1.1, low=0.9, close=1.0, volume=range(1, len(rows) + 1))
    flags = check(workspace, write(rows, tmp_path)).flags
    found = {name: set(part["code"]) for name, part in flags.groupby("ticker")}
    assert found == {"AAA": {"holiday-bar", "weekend-bar"}, "BBB.L": {"weekend-bar"}}
