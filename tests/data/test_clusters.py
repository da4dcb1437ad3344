from itertools import combinations, islice, permutations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import data.news.clusters as module
from data.news.clusters import COMPARED, WINDOW, cluster
from data.news.subsets import ONE_MAY_GO, TWO_MAY_GO, find_subsets
from data.news.wording import word_titles
from data.text import normalise

START = np.datetime64("2024-03-04T12:00", "us")
HOUR = np.timedelta64(1, "h")


def clustered(*titles: str, apart: np.timedelta64 = HOUR) -> list[int]:
    stamps = START + np.arange(len(titles)) * apart
    return cluster(titles, stamps, [f"id{i:06}" for i in range(len(titles))]).tolist()


COPIES = {
    "case": ("Acme wins $50M contract", "ACME WINS $50M CONTRACT"),
    "full stop and quotes": ("Acme chief: 'We are on track' for merger", "Acme chief: “We are on track” for merger."),
    "typography": ("Acme’s profit — up 5%", "Acme's profit - up 5%"),
    "initials": ("U.S. fines Acme over data breach", "US fines Acme over data breach"),
    "initials without the last dot": ("U.S. fines Acme over data breach", "U.S fines Acme over data breach"),
    "invisible characters": ("Acme wins contract in Ohio", "Ac\u200bme wins contract\u00a0in Ohio\ufeff"),
    "link": ("Acme wins contract in Ohio", "Acme wins contract in Ohio https://t.co/AbC123"),
    "update": ("Acme wins $50M contract", "UPDATE 1-Acme wins $50M contract"),
    "later update": ("UPDATE 1-Acme wins $50M contract", "UPDATE 2-Acme wins $50M contract"),
    "repeat of an update": ("Acme wins $50M contract", "RPT-UPDATE 2-Acme wins $50M contract"),
    "brief": ("Acme wins contract in Ohio", "BRIEF-Acme wins contract in Ohio"),
    "retweet": ("Acme wins contract in Ohio", "RT @newsdesk: Acme wins contract in Ohio"),
    "retweet of a retweet": ("Acme wins contract in Ohio", "RT @a_b: RT @newsdesk: Acme wins contract in Ohio"),
    "publisher": ("Acme wins $50M contract", "Acme wins $50M contract - Reuters"),
    "two publishers": ("Acme wins contract", "Acme wins contract - Reuters | Yahoo Finance"),
    "unknown publisher": ("Acme wins $50M contract from Ohio", "Acme wins $50M contract from Ohio | The Daily Ledger"),
    "unknown publisher, a word twice": (
        "Acme and Acme Ohio win river case",
        "Acme and Acme Ohio win river case - The Acme Ledger",
    ),
    "site": ("Acme wins $50M contract", "Acme wins $50M contract - dailyledger.com"),
    "sources": ("Exclusive: Acme nears deal to buy Apex - sources", "Acme nears deal to buy Apex, sources say"),
    "amount": ("Acme wins $50 million contract", "Acme wins $50M contract"),
    "amount with a point": ("Acme to pay $1.50 bln for Apex", "Acme to pay $1.5 billion for Apex"),
    "amount with a comma": ("Acme to cut 1,200 jobs", "Acme to cut 1200 jobs"),
    "percent": ("Acme profit rises 5 percent", "Acme profit rises 5%"),
    "quarter": ("Acme third-quarter profit rises 5%", "Acme Q3 profit rises 5%"),
    "small words": ("Acme to cut 300 jobs in Ohio plant", "Acme will cut 300 jobs at the Ohio plant"),
    "inflection": ("Acme wins contract for Ohio plants", "Acme winning contract for Ohio plant"),
    "British spelling": ("Acme apologizes for labor dispute", "Acme apologises for labour dispute"),
    "synonym": ("Acme to acquire Apex for $5M", "Acme to buy Apex for $5M"),
    "direction synonym": ("Acme shares slump on weak outlook", "Acme shares tumble on weak outlook"),
    "adverb added": ("Acme shares fall after Ohio plant fire", "Acme shares fall sharply after Ohio plant fire"),
    "clause first": (
        "Acme shares rise 5% after court clears Ohio merger",
        "After court clears Ohio merger, Acme shares rise 5%",
    ),
    "clause first, a word twice": ("Acme waste firm fined over dirty waste", "Over dirty waste, Acme waste firm fined"),
    "genitive": ("Shares of Acme rise 5%", "Acme's shares rise 5%"),
    "cut short": ("Acme wins $50M contract from Ohio hospital group", "Acme wins $50M contract from Ohio hosp…"),
    "cut short, then whole": (
        "Acme wins $50M contract from Ohio hosp...",
        "Acme wins $50M contract from Ohio hospital group",
    ),
    "cut short twice": (
        "Acme wins $50M contract from Ohio hosp...",
        "Acme wins $50M contract from Ohio hospital gr...",
    ),
    "cut short before a publisher": (
        "Acme wins $50M contract from Ohio hospital",
        "Acme wins $50M contract from ... - Reuters",
    ),
}

OTHERS = {
    "company": ("Acme Corp wins $50M contract", "Apex Corp wins $50M contract"),
    "company in a long title": (
        "Acme names former Apex finance chief Jane Doe to lead turnaround of Ohio unit",
        "Zenith names former Apex finance chief Jane Doe to lead turnaround of Ohio unit",
    ),
    "ticker": ("$ABCD options active ahead of earnings", "$WXYZ options active ahead of earnings"),
    "one-letter ticker": ("$F up 5%", "$T up 5%"),
    "amount": ("Acme wins $50M contract", "Acme wins $60M contract"),
    "unit": ("Acme wins $50M contract", "Acme wins $50B contract"),
    "sign": ("Acme Q3 EPS $0.10 vs est. $0.12", "Acme Q3 EPS $(0.10) vs est. $0.12"),
    "amount added": ("Acme wins contract from Ohio hospital group", "Acme wins $50M contract from Ohio hospital group"),
    "amounts exchanged": ("Acme profit rises 5%, sales fall 3%", "Acme profit rises 3%, sales fall 5%"),
    "amounts in another quarter": ("Acme Q2 profit rises 5%", "Acme Q3 profit rises 5%"),
    "number word": ("Acme to shut two Ohio plants", "Acme to shut three Ohio plants"),
    "rises and falls": ("Q3 profit rises 5%", "Q3 profit falls 5%"),
    "beats and misses": ("Acme beats estimates", "Acme misses estimates"),
    "up and down": ("Acme shares up after results", "Acme shares down after results"),
    "raises and cuts": ("Acme raises full-year outlook", "Acme cuts full-year outlook"),
    "upgrade and downgrade": ("Broker upgrades Acme to Hold", "Broker downgrades Acme to Hold"),
    "wins and loses": ("Acme wins patent case against Apex", "Acme loses patent case against Apex"),
    "approves and rejects": ("Court approves Acme merger with Apex", "Court rejects Acme merger with Apex"),
    "not": ("Acme will sell its Ohio plant to Apex", "Acme will not sell its Ohio plant to Apex"),
    "n't": ("Acme will sell its Ohio plant to Apex", "Acme won't sell its Ohio plant to Apex"),
    "no": ("Acme sees signs of Ohio recovery", "Acme sees no signs of Ohio recovery"),
    "denies": ("Acme in talks to buy Ohio rival Apex", "Acme denies it is in talks to buy Ohio rival Apex"),
    "may": ("Acme to buy Ohio rival Apex for cash", "Acme may buy Ohio rival Apex for cash"),
    "before and after": ("Acme shares steady before Ohio ruling", "Acme shares steady after Ohio ruling"),
    "antonyms in no table": ("Acme hopes weigh on Ohio stocks", "Acme fears weigh on Ohio stocks"),
    "who sues whom": ("Acme sues Apex over patents", "Apex sues Acme over patents"),
    "who is sued": ("Acme sues Apex over patents", "Acme sued by Apex over patents"),
    "who buys whom": ("Acme to buy Apex", "Apex to buy Acme"),
    "from and to": ("Broker moves Acme from Hold to Buy", "Broker moves Acme from Buy to Hold"),
    "to and from": ("Broker moves Acme to Hold from Buy", "Broker moves Acme to Buy from Hold"),
    "one beats the other": ("Stocks rise as bonds fall", "Bonds rise as stocks fall"),
    "weekday": ("Stocks moving in Tuesday's mid-day session", "Stocks moving in Wednesday's mid-day session"),
    "time of day": ("Mid-morning market update: Dow rises", "Mid-day market update: Dow rises"),
    "date": ("EARNINGS SCHEDULED FOR JULY 1, 2020", "EARNINGS SCHEDULED FOR JULY 2, 2020"),
    "month": ("Acme sales in January up on year", "Acme sales in February up on year"),
    "count": ("42 Biggest Movers From Yesterday", "37 Biggest Movers From Yesterday"),
    "gainers and losers": ("Top #PreMarket Gainers", "Top #PreMarket Losers"),
    "weekday of a list": ("10 biggest price target changes for Friday", "10 biggest price target changes for Monday"),
    "list and half of it": ("Top upgrades for today", "Top upgrades, downgrades for today"),
    "last words of a template": ("Stock of the day - Acme", "Stock of the day - Apex"),
    "cut short before the difference": (
        "Acme wins $50M contract from Ohio hosp…",
        "Acme wins $50M contract from Ohio city",
    ),
    "cut short, then two ways": ("Acme wins $50M contract from Ohio ho…", "Acme wins $50M contract from Ohio ci…"),
    "short title with a word more": ("Acme results", "Acme Ohio results"),
}


@pytest.mark.parametrize("pair", COPIES.values(), ids=COPIES.keys())
def test_copies(pair: tuple[str, str]) -> None:
    assert clustered(*pair) == [0, 0]
    assert clustered(*reversed(pair)) == [0, 0]


@pytest.mark.parametrize("pair", OTHERS.values(), ids=OTHERS.keys())
def test_other_news_however_alike(pair: tuple[str, str]) -> None:
    assert clustered(*pair) == [0, 1]
    assert clustered(*reversed(pair)) == [0, 1]


def test_a_copy_joins_for_72_hours_and_then_opens_a_cluster_anew() -> None:
    assert clustered("Acme wins contract", "Acme wins contract", apart=WINDOW) == [0, 0]
    assert clustered("Acme wins contract", "Acme wins contract", apart=WINDOW + np.timedelta64(1, "us")) == [0, 1]
    # The window is that of the first text: a daily repeat does not keep a cluster alive.
    assert clustered(*["Acme wins contract"] * 8, apart=np.timedelta64(24, "h")) == [0, 0, 0, 0, 4, 4, 4, 4]


def test_a_cluster_does_not_drift() -> None:
    whole = "Acme wins Ohio contract for river boats with quiet electric engines"
    titles = [whole, whole.removesuffix(" electric engines"), whole.removesuffix(" with quiet electric engines")]
    assert clustered(*titles) == [0, 0, 2]  # the third is a copy of the second, which is not a first text


def test_where_a_title_may_be_shortened_is_not_learnt_from_a_later_one() -> None:
    titles = ("Acme wins Ohio contract", "Acme wins Ohio contract harbour bridge post", "Harbour bridge post Acme wins")
    later = "Acme wins Ohio contract - Harbour Bridge Post"  # the words of the second, the last three of them a tail
    assert clustered(*titles, later)[:3] == clustered(*titles) == [0, 1, 2]


def test_of_two_first_texts_the_nearer_is_joined() -> None:
    whole = "Acme wins Ohio contract for river boats with engines"
    assert clustered(f"{whole} today again", f"{whole} signed Monday", whole, f"{whole} today") == [0, 1, 0, 0]


def test_daily_series_stay_apart() -> None:
    days = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
    titles = [f"{kind} for {day}" for day in days for kind in ("Top upgrades", "Top downgrades", "12 biggest movers")]
    assert clustered(*titles) == list(range(15))


def test_no_texts_undated_texts_and_texts_without_words() -> None:
    assert clustered().__len__() == 0
    assert cluster([], np.array([], "datetime64[us]"), []).dtype == np.int64
    stamps = np.array(["NaT", "2024-03-04", "NaT", "2024-03-04"], "datetime64[s]")
    assert cluster(["Acme wins"] * 4, stamps, np.arange(4)).tolist() == [0, 1, 2, 1]
    assert clustered("???", "!!!", "🏆🏆", "🏆🏆", "", "???") == [0, 1, 2, 2, 4, 0]
    assert clustered("日本銀行が利上げ", "日本銀行が利下げ", "日本銀行が利上げ") == [0, 1, 0]


def test_equal_stamps_are_taken_by_id_and_then_by_title() -> None:
    stamps = np.array([START, START, START])
    assert cluster(["Acme wins contract"] * 3, stamps, ["c", "a", "b"]).tolist() == [1, 1, 1]
    titles = ["acme wins contract", "Acme wins contract", "ACME wins contract"]
    assert cluster(titles, stamps, ["a", "a", "a"]).tolist() == [2, 2, 2]


# Few words and few stamps, so that copies, near misses, moved stretches, cuts and ties all occur.
_words = st.sampled_from(["acme", "apex", "wins", "contract", "ohio", "boats", "river", "falls", "5%", "quiet"])
_titles = st.builds(
    lambda words, end: " ".join(words) + end,
    st.lists(_words, min_size=1, max_size=9),
    st.sampled_from(["", "", "...", " - Acme Post"]),
)
_rows = st.lists(st.tuples(_titles, st.integers(0, 5), st.integers(0, 3)), max_size=14)


def _run(rows: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """The first text's own row for each row: what a cluster is, wherever its rows stand."""
    titles, days, ids = zip(*rows, strict=True) if rows else ((), (), ())
    first = cluster(titles, START + np.array(days, dtype="timedelta64[D]"), np.array(ids, dtype=np.int64))
    return [rows[i] for i in first]


def _order(row: tuple[str, int, int]) -> tuple[int, int, str]:
    return row[1], row[2], row[0]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(_rows, _rows)
def test_what_comes_later_changes_nothing(rows: list[tuple[str, int, int]], others: list[tuple[str, int, int]]) -> None:
    rows = sorted(rows, key=_order)
    known = rows[: 1 + len(rows) // 2]
    later = [other for other in others if known and _order(other) > _order(known[-1])]
    assert _run(known + later)[: len(known)] == _run(rows)[: len(known)] == _run(known)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data())
def test_the_order_of_the_input_does_not_matter(data: st.DataObject) -> None:
    rows = data.draw(_rows)
    shuffled = data.draw(st.permutations(rows))
    assert dict(zip(rows, _run(rows), strict=True)) == dict(zip(shuffled, _run(shuffled), strict=True))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(_rows)
def test_a_cluster_is_a_star_of_copies_within_the_window(rows: list[tuple[str, int, int]]) -> None:
    for row, first in zip(rows, _run(rows), strict=True):
        assert _order(first) <= _order(row)
        assert 0 <= row[1] - first[1] <= 3
        assert _run([first, row])[1] == first or first == row


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.text(st.characters(), max_size=40), max_size=8))
@example(
    [
        "\ud800",
        "a\0b\1",
        "…",
        "..",
        "- -",
        "x - ",
        "| y",
        "RT @x:",
        "UPDATE 1-",
        "-5%",
        "$",
        "#",
        "'s",
        "n't",
        "!up",
        "_",
    ]
)
def test_any_text_is_a_copy_of_itself(titles: list[str]) -> None:
    assert clustered(*titles, *titles)[len(titles) :] == clustered(*titles)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.lists(st.sampled_from(["!1", "!up", *"abcdefghijk"]), min_size=1, max_size=11, unique=True), min_size=1)
)
def test_subsets_are_those_that_comparing_all_pairs_finds(lists: list[list[str]]) -> None:
    words = [tuple(each) for each in lists]
    found = find_subsets(words, [0] * len(words))
    sets = {number: frozenset(each) for number, each in zip(found.set_of.tolist(), words, strict=True)}
    assert len(set(sets.values())) == len(sets)
    for large, whole in sets.items():
        small = found.small[found.start[large] : found.start[large + 1]].tolist()
        allowed = 2 if len(whole) >= TWO_MAY_GO else 1 if len(whole) >= ONE_MAY_GO else 0
        expected = [
            number
            for number, part in sets.items()
            if part < whole and len(whole - part) <= allowed and not any(gone[0] == "!" for gone in whole - part)
        ]
        assert small == sorted(expected)


def test_a_tail_goes_as_a_whole() -> None:
    words = [tuple("abcdwxyz"), tuple("abcd"), tuple("abcdw"), tuple("bcd")]
    found = find_subsets(words, [4, 0, 0, 0])
    small = found.small[found.start[found.set_of[0]] : found.start[found.set_of[0] + 1]]
    assert small.tolist() == [found.set_of[1]]


@pytest.mark.parametrize(
    "titles",
    [
        ["Acme wins contract in Ohio for boats"] * 2_000,
        [f"Acme wins contract in Ohio for boats named q{i}x" for i in range(2_000)],
        [f"Acme wins contract in Ohio for boats named {'a' * i}" for i in range(1, 1_000)],
        [
            f"Acme wins contract in Ohio {'for boats' if i % 2 else f'for boats named {chr(0x4E00 + i)}'}"
            for i in range(2_000)
        ],
        [
            " ".join(order)
            for order in islice(permutations(["acme", "apex", "ohio", "boat", "river", "hull", "oar"]), 2_000)
        ],
        [f"Acme wins contract in Ohio for boats {'with ' * (i % 3)}{chr(0x4E00 + i)}..." for i in range(2_000)],
    ],
    ids=["one title", "one number differs", "one word differs", "and the word missing", "all orders", "cut short"],
)
def test_no_set_of_titles_makes_the_work_quadratic(titles: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    judge = module._apart

    def counted(*pair: object) -> int | None:
        nonlocal compared
        compared += 1
        return judge(*pair)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_apart", counted)
    clustered(*titles, apart=np.timedelta64(1, "s"))
    assert compared <= COMPARED * len(titles)


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("UPDATE 2-Acme wins $50.0 million contract - Reuters", ("acme", "!win", "!50m", "contract")),
        ("The Acme of the US", ("acme", "american")),
        ("The of", ("the", "of")),
        ("AT&T's mid-day sell-off", ("att", "midday", "sell", "off")),
        ("Acme up, Apex up", ("acme", "!up", "apex", "!up\x011")),
        ("$ON and $IT rise", ("on", "it", "!up")),
        ("Acme -3% on 10-day view", ("acme", "!\x003%", "!10", "day", "view")),
    ],
)
def test_wording(title: str, words: tuple[str, ...]) -> None:
    assert word_titles([title])[0].words == words


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(["http://x.y", "t.co/a", "/", " ", "\t", "\x7f", "a", "B", "-", "é", "\x1c"])).map("".join)
)
def test_titles_are_read_in_their_normal_form(title: str) -> None:
    assert word_titles([title]) == word_titles([normalise(title)])


def test_titles_that_would_be_slow_to_read_are_not() -> None:
    hostile = [
        "- " * 500,
        ". .. " * 250,
        "update 1-" * 120,
        "1,111," * 160,
        "a.b." * 250,
        "x | y " * 160,
        "update (" * 120,
        "a1 " * 330,
    ]
    assert len(word_titles(hostile)) == len(hostile)
    for one, other in combinations(range(len(hostile)), 2):
        assert clustered(hostile[one], hostile[other]) == [0, 1]
