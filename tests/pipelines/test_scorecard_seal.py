import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, write_deltalake
from settled_nights import CHALLENGER, CHAMPION, HOUR, Nights, utc

from data.errors import ConfigError, LakeError
from data.schemas import SCHEMAS
from pipelines.engine.local import LOCAL
from pipelines.nightly.ledger import Kept, Members
from pipelines.nightly.steps import Run, settle_night
from pipelines.scorecard.live import read_settlements
from pipelines.scorecard.seal import SEALED, digest, read_seals, seal
from pipelines.scorecard.verify import verify
from pipelines.workspace import open_workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """Eight whole nights; tests copy it."""
    nights = Nights(tmp_path_factory.mktemp("sealed") / "world")
    nights.run(*range(8), challenger=0.0)
    return nights


@pytest.fixture
def nights(made: Nights, tmp_path: Path) -> Nights:
    shutil.copytree(made.folder, tmp_path / "world")
    return Nights(tmp_path / "world")


def rewrite(nights: Nights, table: str, change: Any) -> None:
    """What somebody does who wants another past: the whole table, written anew."""
    path = nights.folder / "lake" / table
    write_deltalake(str(path), change(nights.lake.read(table)), mode="overwrite")


def whats(nights: Nights, head: str | None = None) -> list[tuple[str, str]]:
    return [(str(finding.night), finding.what) for finding in verify(nights.workspace, head).findings]


def changed(rows: pa.Table, column: str, value: Any, which: int = 0) -> pa.Table:
    values = rows[column].to_pylist()
    values[which] = value
    return rows.set_column(rows.column_names.index(column), column, pa.array(values, rows.schema.field(column).type))


def of_night(nights: Nights, rows: pa.Table, night: int) -> Any:
    """Mask of the forecasts that were made in that night."""
    return pc.equal(rows["target_session"], pa.scalar(nights.label(night + 1).item(), pa.date32()))


def test_an_untouched_lake_is_intact(nights: Nights) -> None:
    found = verify(nights.workspace)
    assert (found.exit_code, found.nights, found.forecasts, found.settlements) == (0, 8, 96, 84)
    assert (found.unsealed, found.findings) == (0, ())
    assert found.as_dict()["intact"] is True
    assert found.lines()[0].startswith("Intact")


def test_an_empty_lake_is_intact(tmp_path: Path) -> None:
    found = verify(Nights(tmp_path).workspace)
    assert (found.exit_code, found.nights, found.head) == (0, 0, "")


def test_sealing_again_returns_the_seal_that_is_there(nights: Nights) -> None:
    before = verify(nights.workspace).head
    again = seal(nights.workspace, nights.label(7), {"other": 1}, nights.decided(20))
    assert again.sha256 == before
    assert nights.lake.count("seals") == 8
    with pytest.raises(LakeError, match="is sealed"):
        seal(nights.workspace, nights.label(0) - 7, {}, nights.decided(20))


def test_file_layout_and_row_order_change_nothing(nights: Nights) -> None:
    for table in ("forecasts", "settlements", "seals"):
        path = str(nights.folder / "lake" / table)
        DeltaTable(path).optimize.compact()
        DeltaTable(path).vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert whats(nights) == []
    for table in ("forecasts", "settlements", "seals"):
        order = np.random.default_rng(1)
        rewrite(nights, table, lambda rows, order=order: rows.take(order.permutation(len(rows))))
    assert whats(nights) == []


def test_the_hash_is_of_values_and_knows_every_column(nights: Nights) -> None:
    rows = nights.lake.read("forecasts").slice(0, 5)
    assert digest(rows, "forecasts") == digest(pa.concat_tables([rows.slice(3), rows.slice(0, 3)]), "forecasts")
    assert digest(rows, "forecasts") == digest(rows.select(rows.column_names[::-1]), "forecasts")
    others = {
        "quantiles": [1.0] * 7,
        "mean": np.nextafter(rows["mean"][0].as_py(), 1),
        "made_at": pd.Timestamp("2020-01-01", tz="UTC"),
        "decision_at": pd.Timestamp("2020-01-01", tz="UTC"),
        "cutoff_at": pd.Timestamp("2020-01-01", tz="UTC"),
        "available_at": pd.Timestamp("2020-01-01", tz="UTC"),
        "recorded_at": pd.Timestamp("2020-01-01", tz="UTC"),
        "target_session": pd.Timestamp("2020-01-01").date(),
    }
    for name in SEALED["forecasts"]:
        value = others.get(name, "x" if pa.types.is_string(rows.schema.field(name).type) else 1.5)
        for other in (value, None):
            assert digest(changed(rows, name, other), "forecasts") != digest(rows, "forecasts"), name
    assert set(SEALED["forecasts"]) <= set(SCHEMAS["forecasts"].names)
    assert set(SEALED["settlements"]) <= set(SCHEMAS["settlements"].names)


def test_the_hash_stays_what_it_was() -> None:
    """Known rows, known hash: a library that packs otherwise would break every chain there is."""
    stamp = pd.Timestamp("2024-01-03T03:00:00", tz="UTC")
    row = dict.fromkeys(SEALED["settlements"], "a") | dict.fromkeys(("available_at", "recorded_at"), stamp)
    row |= {"target_session": stamp.date(), "night": stamp.date(), "realised": -0.0125}
    rows = pa.Table.from_pylist([row, row | {"ticker": "é", "realised": None}], SCHEMAS["settlements"])
    assert digest(rows, "settlements") == "60b8e397a2f5738ea144d53b2e932bf9304e0b62be59faf28da7ea97af8c06f1"


TAMPERINGS = {
    "a mean changed": ("forecasts", lambda rows: changed(rows, "mean", 0.5), "forecasts were changed"),
    "a quantile changed": ("forecasts", lambda rows: changed(rows, "quantiles", [0.0] * 7), "were changed"),
    "a standing changed": ("forecasts", lambda rows: changed(rows, "standing", "late"), "were changed"),
    "a forecast removed": ("forecasts", lambda rows: rows.slice(1), "1 forecasts were removed"),
    "a forecast twice": ("forecasts", lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]), "1 have a key"),
    "a return changed": ("settlements", lambda rows: changed(rows, "realised", 0.5), "settlements were changed"),
    "a settlement removed": ("settlements", lambda rows: rows.slice(1), "1 settlements were removed"),
    "a settlement twice": ("settlements", lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]), "1 have a key"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_tampering_is_found_at_its_night(nights: Nights, name: str) -> None:
    table, change, said = TAMPERINGS[name]
    key = "target_session" if table == "forecasts" else "night"
    first = nights.lake.read(table).sort_by([(key, "ascending"), ("ticker", "ascending"), ("model_id", "ascending")])
    rewrite(nights, table, lambda _: change(first))
    found = verify(nights.workspace)
    assert found.exit_code == 3
    assert said in found.findings[0].what
    assert {str(each.night) for each in found.findings} == {str(nights.label(0 if table == "forecasts" else 1))}


def forge_settlements(nights: Nights, night: np.datetime64 | None) -> None:
    """Other returns for what the second night settled, as if `night` had settled it."""

    def forged(rows: pa.Table) -> pa.Table:
        honest = rows.filter(pc.equal(rows["night"], pa.scalar(nights.label(1).item(), pa.date32())))
        others = {"night": None if night is None else night.item(), "realised": 0.5}
        for name, value in others.items():
            field = rows.schema.field(name)
            honest = honest.set_column(
                rows.column_names.index(name), field, pa.array([value] * len(honest), field.type)
            )
        return pa.concat_tables([honest, rows])

    rewrite(nights, "settlements", forged)


def returns(nights: Nights) -> pd.DataFrame:
    return read_settlements(nights.lake, read_seals(nights.lake)).rows[["ticker", "target_session", "realised"]]


def test_a_second_settlement_in_a_later_night_is_found_and_never_read(nights: Nights) -> None:
    before = returns(nights)
    forge_settlements(nights, nights.label(8))
    said = (str(nights.label(8)), "12 settlements are of forecasts that were settled before: one of each was added")
    assert whats(nights) == [said]
    pd.testing.assert_frame_equal(returns(nights), before)
    nights.run(8, challenger=0.0)
    assert whats(nights) == [said]  # whatever was sealed over it


def test_a_settlement_of_no_night_is_found_and_never_read(nights: Nights) -> None:
    before = returns(nights)
    forge_settlements(nights, None)
    assert "12 settlements name no night: they were added" in [what for _, what in whats(nights)]
    pd.testing.assert_frame_equal(returns(nights), before)


def standings(nights: Nights, night: int) -> dict[str, int]:
    """What counts of the forecasts for the session after `night`, by standing."""
    rows = read_settlements(nights.lake, read_seals(nights.lake)).rows
    rows = rows[rows["counted"] & (rows["target_session"].to_numpy(dtype="datetime64[D]") == nights.label(night + 1))]
    return dict(rows["standing"].value_counts())


def test_a_live_forecast_forged_in_hindsight_is_unproven(nights: Nights) -> None:
    """It is stamped an hour after its decision, which was sealed, and waits for the next night to seal it."""
    before = returns(nights)
    nights.bars(8)
    nights.forecasts(7, data_version="forged", made_at=nights.decided(7) + HOUR, skill=1)
    assert verify(nights.workspace).unproven == 6
    nights.settle(8)
    nights.seal(8)
    found = verify(nights.workspace)
    assert (found.exit_code, found.unproven) == (0, 6)
    assert "6 say live and no card counts them" in found.lines()[0]
    assert standings(nights, 7) == {"live": 12, "unproven": 6}
    assert len(returns(nights)) == len(before) + 6


def test_what_is_under_the_seal_of_its_night_or_waits_for_it_stays_live(nights: Nights) -> None:
    nights.forecasts(8, data_version="by hand", made_at=nights.decided(8) - HOUR / 60)
    assert standings(nights, 8) == {"live": 6}
    nights.run(8)
    assert standings(nights, 8) == {"live": 6}
    assert verify(nights.workspace).unproven == 0


def test_forecasts_of_a_night_that_was_never_sealed_are_unproven(nights: Nights) -> None:
    nights.forecasts(8)
    nights.run(9)
    assert standings(nights, 8) == {"unproven": 6}
    assert standings(nights, 9) == {"live": 6}


def test_another_calendar_from_now_on_is_no_tampering(nights: Nights) -> None:
    """Tokyo opens before New York's nightly decision."""
    (nights.folder / "tapewire.toml").write_text('calendar = "XTKS"\n')
    assert verify(open_workspace(nights.folder)).findings == ()


def test_a_night_seals_its_calendar_and_its_decision(nights: Nights) -> None:
    run = Run(nights.workspace, lambda: nights.decided(8), None, LOCAL, nights.exchange)
    kept = Kept(nights.label(8), CHAMPION, (), nights.decided(8), nights.decided(8), Members((), "", ""))
    said = dict.fromkeys(("standing", "scored", "members", "coverage", "published", "abstained", "drift"))
    settle_night(run, kept, {"champion": said, "challengers": {}})
    record = json.loads(read_seals(nights.lake)[-1].record)
    assert (record["calendar"], record["decision"]) == ("XNYS", "nightly")


def test_a_forecast_forged_with_an_early_stamp_is_found(nights: Nights) -> None:
    nights.forecasts(3, "e" * 16)
    [(night, what)] = whats(nights)
    assert night == str(nights.label(3))
    assert "6 forecasts were added" in what


def test_a_forecast_that_claims_to_be_live_too_late_is_found(nights: Nights) -> None:
    frame = nights.forecasts(3, "e" * 16, made_at=nights.decided(12))
    assert set(frame["standing"]) == {"live"}
    [(night, what)] = whats(nights)
    assert night == str(nights.label(3))
    assert "6 forecasts say live and were recorded after" in what


def test_honest_replays_break_nothing_and_join_the_next_seal(nights: Nights) -> None:
    nights.forecasts(2, "e" * 16, standing="replay", made_at=nights.decided(7) + HOUR)
    found = verify(nights.workspace)
    assert (found.exit_code, found.unsealed) == (0, 6)
    nights.run(8)
    found = verify(nights.workspace)
    assert (found.exit_code, found.unsealed, found.forecasts) == (0, 0, 108)
    rewrite(nights, "forecasts", lambda rows: rows.filter(pc.not_equal(rows["model_id"], "e" * 16)))
    assert [night for night, _ in whats(nights)] == [str(nights.label(8))]


def test_a_stamp_in_seconds_is_the_same_stamp(nights: Nights) -> None:
    nights.bars(8)
    seal(nights.workspace, nights.label(8), {}, nights.decided(8).astype("datetime64[s]"))
    assert whats(nights) == []


def test_several_nights_caught_up_at_one_moment_are_intact(nights: Nights) -> None:
    """A missed night's own run is late, and both are sealed with the clock where it stands."""
    nights.bars(8, 9)
    now = nights.decided(9)
    for night in (8, 9):
        nights.forecasts(night, standing="late" if night == 8 else "live", made_at=now)
        nights.settle(night)
        seal(nights.workspace, nights.label(night), {}, now)
    assert whats(nights) == []


def test_a_night_that_was_passed_over_leaves_the_chain_whole(nights: Nights) -> None:
    nights.forecasts(8)  # by hand; no run sealed it
    nights.run(9)
    assert whats(nights) == []
    rewrite(nights, "forecasts", lambda rows: rows.filter(pc.invert(of_night(nights, rows, 8))))
    assert [night for night, _ in whats(nights)] == [str(nights.label(9))]


def test_a_removed_seal_breaks_the_chain(nights: Nights) -> None:
    removed = pa.scalar(nights.label(3).item(), pa.date32())
    rewrite(nights, "seals", lambda rows: rows.filter(pc.not_equal(rows["night"], removed)))
    found = whats(nights)
    assert found[0][0] == str(nights.label(3))  # its settlements have no seal
    assert any(night == str(nights.label(4)) and "chain is broken" in what for night, what in found)


def test_a_changed_record_is_found(nights: Nights) -> None:
    rewrite(nights, "seals", lambda rows: changed(rows, "record", json.dumps({"coverage": 1})))
    assert any("the seal itself was changed" in what for _, what in whats(nights))


def test_the_first_seal_cannot_be_cut_off(nights: Nights) -> None:
    first = pa.scalar(nights.label(0).item(), pa.date32())
    rewrite(nights, "seals", lambda rows: rows.filter(pc.not_equal(rows["night"], first)))
    assert any("does not begin here" in what for _, what in whats(nights))


def test_a_noted_head_tells_a_chain_that_was_written_anew(nights: Nights) -> None:
    """Whoever rewrites all of it makes a chain that is whole: only a hash noted elsewhere tells."""
    noted = verify(nights.workspace).head
    assert whats(nights, noted) == whats(nights, noted[:12]) == []
    nights.run(8)
    assert whats(nights, noted) == []
    rewrite(nights, "forecasts", lambda rows: changed(rows.sort_by("target_session"), "mean", 0.5))
    rewrite(nights, "seals", lambda rows: rows.slice(0, 0))
    for night in range(9):
        nights.seal(night)
    assert whats(nights) == []
    assert "no seal has the noted hash" in whats(nights, noted)[0][1]
    with pytest.raises(ConfigError, match="12 characters"):
        verify(nights.workspace, noted[:4])


def test_the_newest_seal_cut_off_shows_as_rows_without_a_seal(nights: Nights) -> None:
    noted = verify(nights.workspace).head
    last = pa.scalar(nights.label(7).item(), pa.date32())
    rewrite(nights, "seals", lambda rows: rows.filter(pc.not_equal(rows["night"], last)))
    found = verify(nights.workspace)
    assert (found.exit_code, found.unsealed) == (0, 24)
    assert verify(nights.workspace, noted).exit_code == 3


def test_a_random_change_of_any_cell_is_found(nights: Nights) -> None:
    order = np.random.default_rng(5)
    for table in ("forecasts", "settlements"):
        whole = nights.lake.read(table)
        for name in order.choice(SEALED[table], 6, replace=False):
            kind = whole.schema.field(name).type
            value = "y" if pa.types.is_string(kind) else [9.0] if pa.types.is_list(kind) else None
            rewrite(nights, table, lambda _, v=value, n=name, w=whole: changed(w, n, v, int(order.integers(len(w)))))
            assert verify(nights.workspace).exit_code == 3, (table, name)
        rewrite(nights, table, lambda _, w=whole: w)
        assert verify(nights.workspace).exit_code == 0


def test_stamps_are_those_that_were_given(nights: Nights) -> None:
    rows = nights.lake.current("seals")
    assert (rows["recorded_at"] == [utc(nights.decided(night)) for night in range(8)]).all()
    assert CHALLENGER in set(nights.lake.read("forecasts", ["model_id"])["model_id"].to_pylist())
