from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny import headline_frame, known_rows, link_frame, span

from data.news.index import Cells, NewsIndex, build_news

DAYS = span(60)
HOUR = np.timedelta64(1, "h")
AGES = 5
# Titles that nobody takes for copies of one another.
WORDS = (
    "Harbour reopens after storm", "Chipmaker unveils laser", "Bakery chain hires director", "Union rejects contract",
    "Regulator fines lender", "Drug trial disappoints", "Airline orders jets", "Miner strikes copper",
    "Retailer shuts warehouse", "Brewer sells vineyard",
)  # fmt: skip


def title(number: int) -> str:
    """A made-up headline; other numbers give other news."""
    return f"{WORDS[number % len(WORDS)]} in district {number // len(WORDS) + 1}"


def cell(index: NewsIndex, cells: Cells, at: int) -> list[str]:
    """Titles of one cell, oldest first."""
    return [index.texts[text] for text in cells.text[cells.start[at] : cells.start[at + 1]]]


def news(rows: list[tuple[str, str, Any]], links: list[tuple[str, str, Any]], most: int = 5) -> NewsIndex:
    return build_news(headline_frame(rows), link_frame(links), ("A", "B"), DAYS, most, AGES)


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


def test_an_edit_that_says_something_else_stands_where_it_was_known() -> None:
    first = headline_frame([("1", title(0), DAYS.closes[5]), ("2", title(1), DAYS.closes[5])])
    edits = headline_frame([("1", title(2), DAYS.closes[8]), ("2", title(1).upper(), DAYS.closes[5] + HOUR)], version=2)
    links = link_frame([("1", "A", "2014-01-01"), ("2", "A", "2014-01-01")])
    index = build_news(pd.concat([first, edits]), links, ("A",), DAYS, 5, AGES)
    assert cell(index, index.own, 5) == [title(0), title(1)]
    assert cell(index, index.own, 8) == [title(2)]
    assert (index.own.copies == 1).all()  # an edited item is one item


def test_a_cell_keeps_its_newest_distinct_news() -> None:
    rows = [(str(number), title(number), DAYS.closes[5] + number * HOUR / 4) for number in range(6)]
    copy = ("9", f" {title(3)} ", DAYS.closes[5] + 2 * HOUR)
    index = news([copy, *rows[::-1]], [(name, "A", "2014-01-01") for name in "0123459"], most=3)
    assert cell(index, index.own, 5) == [title(3), title(4), title(5)]


def test_copies_stand_once_by_their_first_text_and_are_counted_as_they_come() -> None:
    rows = [
        ("1", title(0), DAYS.closes[6]),
        ("2", title(0).upper(), DAYS.closes[6] + HOUR),
        ("3", f"{title(0)} - Reuters", DAYS.closes[8]),
    ]
    index = news(rows, [("1", "A", "2014-01-01"), ("2", "B", "2014-01-01"), ("3", "B", "2014-01-01")])
    assert cell(index, index.own, 6) == cell(index, index.own, 66) == [title(0)]
    assert len(index) == 2
    np.testing.assert_array_equal(index.own.copies, [[2, 2, 3, 3, 3]] * 2)


def test_a_copy_without_a_ticker_is_no_market_news_once_another_named_one() -> None:
    rows = [("1", title(0), DAYS.closes[5]), ("2", title(0), DAYS.closes[6]), ("3", title(1), DAYS.closes[5])]
    rows += [("4", title(1), DAYS.closes[6])]
    index = news(rows, [("1", "A", "2014-01-01"), ("4", "A", "2014-01-01")])
    assert cell(index, index.own, 5) == [title(0)]
    assert cell(index, index.own, 6) == [title(1)]  # first named then
    assert [index.texts[text] for text in index.market.text] == [title(1)]  # and before that the market's


def test_summaries_are_read_where_asked_for_and_copies_are_judged_by_titles() -> None:
    rows = [
        ("1", title(0), DAYS.closes[6]),
        ("2", title(0).upper(), DAYS.closes[6] + HOUR),
        ("3", title(1), DAYS.closes[6]),
    ]
    first = headline_frame(rows).assign(summary=["Early words.", "Later words.", None])
    edit = headline_frame([("3", title(2), DAYS.closes[8])], version=2).assign(summary=["Words of the edit."])
    headlines = pd.concat([first, edit])
    links = link_frame([(name, "A", "2014-01-01") for name in "123"])
    plain, full = (build_news(headlines, links, ("A",), DAYS, 5, AGES, reads) for reads in ("title", "title+summary"))
    assert cell(plain, plain.own, 6) == [title(0), title(1)]
    assert cell(full, full.own, 6) == [f"{title(0)}. Early words.", title(1)]
    assert cell(full, full.own, 8) == [f"{title(2)}. Words of the edit."]
    for name in ("start", "session", "copies"):
        np.testing.assert_array_equal(getattr(plain.own, name), getattr(full.own, name))


def test_what_repeats_after_three_days_is_news_again() -> None:
    later = DAYS.closes[5] + 73 * HOUR
    index = news([("1", title(0), DAYS.closes[5]), ("2", title(0), later)], [])
    assert len(index.market.text) == 2
    np.testing.assert_array_equal(index.market.copies, np.ones((2, AGES)))


def test_a_window_of_sessions_is_one_slice() -> None:
    rng = np.random.default_rng(0)
    at = rng.integers(0, 60, 80)
    rows = [(str(n), title(n), DAYS.closes[session] + n * np.timedelta64(1, "s")) for n, session in enumerate(at)]
    tickers = rng.choice(["A", "B"], 80)
    index = news(rows, [(str(n), name, "2014-01-01") for n, name in enumerate(tickers)], most=99)
    for ticker, offset in (("A", 0), ("B", 60)):
        low, high = index.own.start[offset + 20], index.own.start[offset + 31]
        inside = [n for n in range(80) if tickers[n] == ticker and 20 <= at[n] <= 30]
        expected = [title(n) for n in sorted(inside, key=lambda n: (at[n], n))]
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
    first = headline_frame([(str(n), title(int(rng.integers(60))), at) for n, at in enumerate(stamps)])
    edits = first[rng.random(150) < 0.2]
    later = edits["available_at"] + rng.integers(1, 100, len(edits)) * HOUR
    edits = edits.assign(version=2, title=edits["title"] + " edited", available_at=later)
    linked = [(str(n), name, at) for n, at in enumerate(stamps) for name in "AB" if n % 3 and rng.random() < 0.6]
    return pd.concat([first, edits], ignore_index=True), link_frame(linked)


def seen(index: NewsIndex, cells: Cells, at: int, session: int) -> list[tuple[str, int]]:
    """Text and copies of one cell as the decision of `session` knew them."""
    entries = range(cells.start[at], cells.start[at + 1])
    ages = np.minimum(session - cells.session[cells.start[at] : cells.start[at + 1]], AGES - 1)
    return [(index.texts[cells.text[e]], int(cells.copies[e, age])) for e, age in zip(entries, ages, strict=True)]


def assert_news_is_as_known(headlines: pd.DataFrame, links: pd.DataFrame) -> None:
    whole = build_news(headlines, links, ("A", "B"), DAYS, 3, AGES)
    for session in range(0, 60, 5):
        then = [known_rows(rows, DAYS.decision_at[session]) for rows in (headlines, links)]
        rebuilt = build_news(*then, ("A", "B"), DAYS, 3, AGES)
        for name, tickers in (("own", 2), ("market", 1)):
            window = range(max(0, session - AGES + 1), session + 1)
            for at in (ticker * 60 + before for ticker in range(tickers) for before in window):
                expected = seen(whole, getattr(whole, name), at, session)
                assert seen(rebuilt, getattr(rebuilt, name), at, session) == expected, f"{name} {at} as of {session}"


@pytest.mark.parametrize("seed", range(3))
def test_a_cell_holds_what_its_decision_knew(seed: int) -> None:
    assert_news_is_as_known(*random_wire(seed))


def test_a_later_link_takes_no_headline_out_of_the_market_channels_past() -> None:
    headlines = headline_frame([("1", "unlinked at first", DAYS.closes[5])])
    assert_news_is_as_known(headlines, link_frame([("1", "A", DAYS.closes[12])]))
