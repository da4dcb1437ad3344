from pathlib import Path

import numpy as np
import pytest

from data.errors import InputError
from data.universe import SILENT, Universe, delisted

DAYS = np.arange("2020-01-01", "2020-01-11", dtype="datetime64[D]")


def write(folder: Path, text: str) -> Path:
    path = folder / "members.csv"
    path.write_text(text)
    return path


def test_a_member_belongs_from_its_first_day_to_the_day_before_its_last(tmp_path: Path) -> None:
    text = "ticker,from,to\nAAA,2019-06-01,2020-01-04\nBBB,2020-01-03,\nAAA,2020-01-08,2020-01-10\n"
    universe = Universe.read(write(tmp_path, text))
    assert universe.tickers == ("AAA", "BBB")
    members = universe.members(("BBB", "AAA", "CCC"), DAYS)
    assert [str(day)[-2:] for day in DAYS[members[1]]] == ["01", "02", "03", "08", "09"]
    assert [str(day)[-2:] for day in DAYS[members[0]]] == ["03", "04", "05", "06", "07", "08", "09", "10"]
    assert not members[2].any()


def test_the_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    rows = ["AAA,2019-06-01,2020-01-04", "BBB,2020-01-03,", "AAA,2020-01-08,2020-01-10"]
    read = [Universe.read(write(tmp_path, "\n".join(["symbol,added,removed", *each]))) for each in (rows, rows[::-1])]
    assert read[0].ticker == read[1].ticker
    np.testing.assert_array_equal(read[0].first, read[1].first)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ticker,until\nAAA,2020-01-01\n", "from"),
        ("ticker,from\nAAA,soon\n", "days such as"),
        ("ticker,from\nAAA,\n", "a day in `from`"),
        ("ticker,from\nA A A,2020-01-01\n", "a ticker"),
        ("ticker,from,to\nAAA,2020-01-05,2020-01-05\n", "`from` before `to`"),
        ("ticker,from,to\nAAA,2020-01-01,2020-01-05\nAAA,2020-01-04,\n", "do not overlap"),
        ("ticker,from\nAAA,2020-01-01T10:00:00Z\n", "days such as"),
    ],
)
def test_a_wrong_file_is_refused_by_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Universe.read(write(tmp_path, text))


def test_who_has_gone_is_told_by_a_long_silence_at_the_end() -> None:
    observed = np.ones((4, 3 * SILENT), dtype=bool)
    observed[1, -SILENT:] = False  # gone
    observed[2, -SILENT + 1 :] = False  # halted, perhaps
    observed[3] = False  # never traded
    assert delisted(observed).tolist() == [1]
