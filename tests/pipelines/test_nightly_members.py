"""A past night is replayed for those who belonged then, whoever joined or left since."""

import json
from typing import Any

import pytest
from simulated_nights import Desk, Tape, evening, session

from data.errors import InputError, LakeError
from pipelines.ingest_prices import ingest_prices
from pipelines.nightly.replay import replay


def again(at_desk: Desk, night: int) -> tuple[int, int, tuple[str, ...]]:
    made = replay(at_desk.workspace, session(night), lambda: evening(9))
    return made.exit_code, made.compared, made.differing


def watch(tickers: list[str]) -> str:
    return f"watchlist={json.dumps(tickers)}"


@pytest.mark.parametrize("then", [8, 7])
def test_a_watchlist_that_shrank_or_grew(at_desk: Desk, then: int) -> None:
    tickers, overrides = sorted(at_desk.workspace.config.watchlist), at_desk.overrides
    at_desk.overrides = [*overrides, watch(tickers[:then])]
    at_desk.night(0)
    at_desk.overrides = [*overrides, watch(tickers[: 15 - then])]
    assert again(at_desk, 0) == (0, 2 * then, ())


def test_a_universe_that_changed(at_desk: Desk) -> None:
    tickers = sorted(at_desk.workspace.config.watchlist)
    file = at_desk.folder / "members.csv"

    def belong(names: list[str]) -> None:
        file.write_text("\n".join(["ticker,from,to", *(f"{name},2000-01-01," for name in names)]) + "\n")

    belong(tickers[:6])
    at_desk.overrides.append("universe=members.csv")
    assert at_desk.night(0).nights[0].members == 6
    belong(tickers[2:])
    assert again(at_desk, 0) == (0, 12, ())
    file.unlink()
    assert again(at_desk, 0) == (0, 12, ())
    (at_desk.folder / "nights" / str(session(0)) / "universe.csv").write_text("ticker,from,to\n")
    with pytest.raises(LakeError, match="sha256"):
        again(at_desk, 0)


def test_a_broken_universe_is_refused_and_not_kept(at_desk: Desk) -> None:
    file = at_desk.folder / "members.csv"
    file.write_text("ticker,from,to\nAAA,never,\n")
    at_desk.overrides.append("universe=members.csv")
    with pytest.raises(InputError, match=r"members\.csv"):
        at_desk.night(0)
    everybody = sorted(at_desk.workspace.config.watchlist)
    file.write_text("\n".join(["ticker,from,to", *(f"{name},2000-01-01," for name in everybody)]) + "\n")
    assert at_desk.night(0, evening(0, 30)).exit_code == 0


def test_score_by_hand_replays_the_night_for_those_who_belonged(at_desk: Desk, tapewire: Any) -> None:
    tickers = sorted(at_desk.workspace.config.watchlist)
    at_desk.overrides.append(watch(tickers[:5]))
    at_desk.night(0)
    ran = tapewire(at_desk.folder, "score", "--as-of", str(session(0)), "--json")
    assert ran.code == 0, ran.err
    assert (json.loads(ran.out)["scored"], json.loads(ran.out)["added"]) == (5, 0)


def test_a_night_in_which_nobody_could_be_scored_is_replayed(at_desk: Desk) -> None:
    """One ticker alone has a bar of the session, and is watched no more when it is scored."""
    tickers, now = sorted(at_desk.workspace.config.watchlist), evening(0)
    ingest_prices(at_desk.workspace, lambda: now, lambda *_: Tape(now, behind=tuple(tickers[1:])))
    at_desk.overrides = ["nightly.ingest=[]", "nightly.coverage=0.01", watch(tickers[1:])]
    none = at_desk.night(0, evening(0, 30)).nights[0]
    assert (none.state, none.published) == ("open", False)
    assert not (at_desk.folder / "reports" / "forecasts" / "latest").exists()
    assert again(at_desk, 0) == (0, 0, ())
