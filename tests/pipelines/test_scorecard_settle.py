from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from settled_nights import CHALLENGER, Nights, utc

from data.lake import Lake
from pipelines.scorecard.settle import PATIENCE, settle
from pipelines.workspace import open_workspace


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights(tmp_path / "world")


def test_a_forecast_is_settled_by_the_return_into_its_session(nights: Nights) -> None:
    nights.bars(0, 1)
    nights.forecasts(0)
    assert nights.settle(0).added == 0  # its session has not been
    settled = nights.settle(1)
    assert (settled.added, settled.settled, settled.waiting) == (6, 6, 0)
    found = nights.settlements().set_index("ticker")
    np.testing.assert_allclose(found["realised"], nights.moves[1], rtol=1e-12)
    assert set(found["outcome"]) == {"settled"}
    assert (found["recorded_at"] == utc(nights.decided(1))).all()
    assert set(found["night"].astype(str)) == {str(nights.label(1))}


@pytest.mark.parametrize(("target", "move"), [("overnight", np.log(0.99)), ("open_close", -np.log(0.99))])
def test_each_target_is_settled_by_its_own_leg(tmp_path: Path, target: str, move: float) -> None:
    nights = Nights(tmp_path, target=target)
    nights.bars(0, 1)
    nights.forecasts(0)
    nights.settle(1)
    expected = (nights.moves[1] if target == "overnight" else 0) + move
    np.testing.assert_allclose(nights.settlements()["realised"], expected, rtol=1e-9)


def test_settling_again_adds_nothing_and_says_the_same(nights: Nights) -> None:
    nights.bars(0, 1)
    nights.forecasts(0)
    first, before = nights.settle(1), nights.settlements()
    again = nights.settle(1)
    assert again.added == 0
    assert {**vars(again), "added": 6} == vars(first)
    pd.testing.assert_frame_equal(nights.settlements(), before)


def test_a_restatement_changes_no_settlement(nights: Nights) -> None:
    nights.run(0, 1)
    before = nights.settlements()
    nights.bars(1, version=2, factor=1.5, late=True)
    nights.bars(2, 3, 4)
    assert nights.settle(4).added == 6  # those for the session after
    after = nights.settlements()
    pd.testing.assert_frame_equal(after[after["target_session"] == before["target_session"].iloc[0]], before)


def test_what_was_recorded_after_the_night_is_not_read(nights: Nights) -> None:
    """The bar has its session's stamp, but was not in the lake: it is waited for."""
    nights.bars(0)
    nights.forecasts(0)
    nights.bars(1, late=True)
    assert nights.settle(1).waiting == 6
    nights.bars(2, 3)
    assert nights.settle(3).settled == 6
    assert set(nights.settlements()["night"].astype(str)) == {str(nights.label(3))}


def test_a_missing_bar_waits_and_then_is_missing(nights: Nights) -> None:
    nights.absent = {("C", night) for night in range(1, 60)}
    nights.bars(*range(PATIENCE + 2))
    nights.forecasts(0)
    assert [nights.settle(1).settled, nights.settle(1).waiting] == [5, 1]
    for night in range(2, PATIENCE + 1):
        assert (nights.settle(night).added, nights.settle(night).waiting) == (0, 1)
    last = nights.settle(PATIENCE + 1)
    assert (last.missing, last.delisted, last.waiting) == (1, 0, 0)
    row = nights.settlements().set_index("ticker").loc["C"]
    assert row["outcome"] == "missing"
    assert pd.isna(row["realised"])


@pytest.mark.parametrize("paid", [None, 80.0])
def test_a_delisted_ticker_has_its_payout_where_it_is_known(nights: Nights, paid: float | None) -> None:
    nights.absent = {("C", night) for night in range(1, 60)}
    nights.bars(*range(PATIENCE + 2))
    nights.forecasts(0)
    stamp = utc(nights.decided(3))
    state = {"ticker": "C", "source": "test", "version": 1, "outcome": "ended", "code": "", "reason": "gone"}
    dates = {"since": nights.label(0), "through": nights.label(0), "failing_since": stamp, "retry_at": stamp}
    stamps = {"available_at": stamp, "recorded_at": stamp, "origin": "live"}
    nights.lake.merge("tickers", pd.DataFrame([state | dates | stamps]))
    if paid:
        day = nights.label(2).astype("datetime64[s]")
        row = {"ticker": "C", "ex_date": day, "kind": "dividend", "version": 1, "value": paid, "source": "test"}
        nights.lake.merge("actions", pd.DataFrame([row | stamps]))
    nights.settle(PATIENCE + 1)
    found = nights.settlements().set_index("ticker").loc["C"]
    assert found["outcome"] == "delisted"
    if paid:
        assert found["realised"] == pytest.approx(np.log(paid / nights.closes[0, 2]))
    else:
        assert pd.isna(found["realised"])


def test_every_data_version_model_and_standing_is_settled_once(nights: Nights) -> None:
    nights.bars(0, 1, 2)
    nights.forecasts(0)
    nights.forecasts(0, data_version="v2")
    nights.forecasts(0, CHALLENGER, standing="late")
    assert nights.settle(1).added == 18
    nights.forecasts(0, CHALLENGER, standing="replay", data_version="v3", made_at=nights.decided(2))
    assert nights.settle(2).added == 6
    found = nights.settlements()
    assert not found.duplicated(["target_session", "ticker", "model_id", "data_version"]).any()
    assert found.groupby("ticker")["realised"].nunique().eq(1).all()


def test_only_the_sessions_behind_are_read(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    nights.run(*range(6))
    read, asked = type(nights.lake).read, []

    def counted(lake, table, columns=None, within=None):
        rows = read(lake, table, columns, within)
        asked.append((table, tuple(columns or ()), len(rows)))
        return rows

    monkeypatch.setattr(type(nights.lake), "read", counted)
    nights.bars(6)
    nights.forecasts(6)
    asked.clear()
    nights.settle(6)
    wide = [rows for table, columns, rows in asked if table == "forecasts" and columns != ("target_session",)]
    assert wide == [6]


def test_a_session_that_the_calendar_no_longer_has_is_waited_for_and_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """15 July 2024 is a holiday in Tokyo; no more is read for it than for any other."""
    nights = Nights(tmp_path / "july", start="2024-07-02")
    nights.bars(*range(25))
    nights.forecasts(7)
    assert str(nights.label(8)) == "2024-07-15"
    (nights.folder / "tapewire.toml").write_text('calendar = "XTKS"\n')
    workspace, read = open_workspace(nights.folder), []
    coded = Lake.coded
    monkeypatch.setattr(Lake, "coded", lambda lake, *args: (read.append(args), coded(lake, *args))[1])
    found = [
        settle(workspace, np.datetime64(day, "D"), nights.decided(24), nights.decided(24))
        for day in ("2024-07-16", "2024-07-29", "2024-07-30")
    ]
    assert [(each.waiting, each.missing) for each in found] == [(6, 0), (6, 0), (0, 6)]
    firsts = [str(args[3].first) for args in read if args[0] == "bars"]
    assert firsts == ["2024-07-11"] * 3
