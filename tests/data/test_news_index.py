from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny import headline_frame, known_rows, link_frame, span

from data.news.index import Cells, NewsIndex, build_news

DAYS = span(60)
HOUR = np.timedelta64(1, "h")


def cell(index: NewsIndex, cells: Cells, at: int) -> list[str]:
    """Titles of one cell, oldest first."""
    return [index.texts[text] for text in cells.text[cells.start[at] : cells.start[at + 1]]]


def news(rows: list[tuple[str, str, Any]], links: list[tuple[str, str, Any]], most: int = 5) -> NewsIndex:
    return build_news(headline_frame(rows), link_frame(links), ("A", "B"), DAYS, most)


def test_a_headline_stands_in_the_session_whose_decision_knew_it_first() -> None:
    at, tick = DAYS.decision_at, np.timedelta64(1, "us")
    rows = [("1", "on time", at[5]), ("2", "too late", at[5] + tick), ("3", "before", DAYS.decision_before)]
    index = news([*rows, ("4", "after", at[-1] + tick)], [(name, "A", "2014-01-01") for name in "1234"])
    assert cell(index, index.own, 5) == ["on time"]
    assert cell(index, index.own, 6) == ["too late"]
    assert len(index) == 2
    assert len(index.own.start) == 2 * 60 + 1
    np.testing.assert_array_equal(index.own.session, [5, 6])


def test_a_link_known_later_than_its_headline_decides() -> None:
    index = news([("1", "t", DAYS.closes[5])], [("1", "B", DAYS.closes[9])])
    assert cell(index, index.own, 60 + 9) == ["t"]
    assert len(index.own.text) == 1


def test_an_item_of_several_tickers_and_of_none() -> None:
    rows = [("1", "both", DAYS.closes[5]), ("2", "market", DAYS.closes[5]), ("3", "other", DAYS.closes[5])]
    index = news(rows, [("1", "A", "2014-01-01"), ("1", "B", "2014-01-01"), ("3", "Z", "2014-01-01")])
    assert cell(index, index.own, 5) == cell(index, index.own, 65) == ["both"]
    assert cell(index, index.market, 5) == ["market"]
    assert len(index.market.start) == 61
    assert index.texts == ("both", "market")  # that of an unwatched ticker is nowhere


def test_without_any_link_all_is_the_market_channel() -> None:
    index = news([("1", "t", DAYS.closes[5])], [])
    assert cell(index, index.market, 5) == ["t"]
    assert len(index.own.text) == 0


def test_an_edit_stands_again_where_it_was_known_and_once_within_a_cell() -> None:
    first = headline_frame([("1", "old", DAYS.closes[5]), ("2", "kept", DAYS.closes[5])])
    edits = headline_frame([("1", "new", DAYS.closes[8]), ("2", "mended", DAYS.closes[5] + HOUR)], version=2)
    links = link_frame([("1", "A", "2014-01-01"), ("2", "A", "2014-01-01")])
    index = build_news(pd.concat([first, edits]), links, ("A",), DAYS, 5)
    assert cell(index, index.own, 5) == ["old", "mended"]
    assert cell(index, index.own, 8) == ["new"]


def test_a_cell_keeps_its_newest_distinct_texts() -> None:
    rows = [(str(number), f"t{number}", DAYS.closes[5] + number * HOUR / 4) for number in range(6)]
    copy = ("9", " t3 ", DAYS.closes[5] + 2 * HOUR)
    index = news([copy, *rows[::-1]], [(name, "A", "2014-01-01") for name in "0123459"], most=3)
    assert cell(index, index.own, 5) == ["t3", "t4", "t5"]


def test_a_window_of_sessions_is_one_slice() -> None:
    rng = np.random.default_rng(0)
    at = rng.integers(0, 60, 80)
    rows = [(str(n), f"t{n}", DAYS.closes[session] + n * np.timedelta64(1, "s")) for n, session in enumerate(at)]
    tickers = rng.choice(["A", "B"], 80)
    index = news(rows, [(str(n), name, "2014-01-01") for n, name in enumerate(tickers)], most=99)
    for ticker, offset in (("A", 0), ("B", 60)):
        low, high = index.own.start[offset + 20], index.own.start[offset + 31]
        inside = [n for n in range(80) if tickers[n] == ticker and 20 <= at[n] <= 30]
        expected = [f"t{n}" for n in sorted(inside, key=lambda n: (at[n], n))]
        assert [index.texts[text] for text in index.own.text[low:high]] == expected
        assert (np.diff(index.own.session[low:high]) >= 0).all()


def test_no_headlines_give_an_empty_index() -> None:
    index = news([], [])
    assert len(index) == 0
    assert index.texts == ()
    assert (index.own.start == 0).all()


def random_wire(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Headlines with edits; each link as old as its headline."""
    rng = np.random.default_rng(seed)
    stamps = DAYS.opens[0] + rng.integers(0, 80 * 24, 150) * HOUR
    first = headline_frame([(str(n), f"title {rng.integers(60)}", at) for n, at in enumerate(stamps)])
    edits = first[rng.random(150) < 0.2]
    later = edits["available_at"] + rng.integers(1, 100, len(edits)) * HOUR
    edits = edits.assign(version=2, title=edits["title"] + " edited", available_at=later)
    linked = [(str(n), name, at) for n, at in enumerate(stamps) for name in "AB" if n % 3 and rng.random() < 0.6]
    return pd.concat([first, edits], ignore_index=True), link_frame(linked)


def assert_news_is_as_known(headlines: pd.DataFrame, links: pd.DataFrame) -> None:
    whole = build_news(headlines, links, ("A", "B"), DAYS, 3)
    for session in range(0, 60, 5):
        then = [known_rows(rows, DAYS.decision_at[session]) for rows in (headlines, links)]
        rebuilt = build_news(*then, ("A", "B"), DAYS, 3)
        for name, tickers in (("own", 2), ("market", 1)):
            for at in (ticker * 60 + before for ticker in range(tickers) for before in range(session + 1)):
                expected = cell(whole, getattr(whole, name), at)
                assert cell(rebuilt, getattr(rebuilt, name), at) == expected, f"{name} cell {at} as of {session}"


@pytest.mark.parametrize("seed", range(3))
def test_a_cell_holds_what_its_decision_knew(seed: int) -> None:
    assert_news_is_as_known(*random_wire(seed))


def test_a_later_link_takes_no_headline_out_of_the_market_channels_past() -> None:
    headlines = headline_frame([("1", "unlinked at first", DAYS.closes[5])])
    assert_news_is_as_known(headlines, link_frame([("1", "A", DAYS.closes[12])]))
