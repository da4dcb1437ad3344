from datetime import UTC, date, datetime
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.linking import CONFIDENT, Alias, AliasTable, Linker
from data.linking.linker import COLUMNS

NAMES = {
    "AAPL": "Apple Inc.",
    "TGT": "Target Corp",
    "V": "VISA INC.",
    "F": "FORD MOTOR CO",
    "GAP": "Gap Inc",
    "XYZ": "BLOCK, INC.",
    "ALL": "ALLSTATE CORP",
    "AMZN": "AMAZON COM INC",
    "SHEL": "Shell plc",
    "CAT": "CATERPILLAR INC",
    "BBY": "BEST BUY CO INC",
    "MCD": "MCDONALDS CORP",
    "KSS": "KOHLS Corp",
    "T": "AT&T INC.",
    "JNJ": "JOHNSON & JOHNSON",
    "BRK-B": "BERKSHIRE HATHAWAY INC",
    "NVDA": "NVIDIA CORP",
    "MSFT": "MICROSOFT CORP",
    "GS": "GOLDMAN SACHS GROUP INC",
    "MS": "MORGAN STANLEY",
    "AAL": "AMERICAN AIRLINES GROUP INC.",
    "BA": "Boeing CO",
    "AA": "Alcoa Corp",
    "BP": "BP PLC",
    "MMM": "3M CO",
    "IBM": "INTERNATIONAL BUSINESS MACHINES CORP",
    "WRB": "BERKLEY W R CORP",
    "USB": "US BANCORP \\DE\\",
    "KO": "COCA COLA CO",
    "GOOGL": "Alphabet Inc.",
    "DAL": "Delta Air Lines, Inc.",
    "ORCL": "ORACLE CORP",
    "SNAP": "Snap Inc",
    "BAC": "Bank of America Corp",
    "BK": "Bank of New York Mellon Corp",
    "TSLA": "TESLA, INC.",
    "NKE": "NIKE, Inc.",
    "ACHC": "Acadia Healthcare Company, Inc.",
    "ACAD": "ACADIA PHARMACEUTICALS INC",
    "NSRGY": "Nestle S.A.",
}
DATED = [
    Alias("Facebook", "FB", date(2012, 5, 18), date(2022, 6, 9)),
    Alias("Facebook", "META", date(2022, 6, 9)),
    Alias("Meta Platforms", "FB", date(2021, 10, 28), date(2022, 6, 9)),
    Alias("Meta Platforms", "META", date(2022, 6, 9)),
]
ROWS = [Alias(name, ticker) for ticker, name in NAMES.items()] + DATED
LINKER = Linker(AliasTable.of(ROWS, symbols=["GOOG"]))
MARKET = Path(__file__).parents[3] / "shared" / "market"
NOW = np.datetime64("2024-06-03T14:00", "us")

HEADLINES = [
    # spelt out
    ("Acme (NASDAQ: AAPL) jumps", "AAPL tag"),
    ("Acme (NYSE:BRK.B) rises", "BRK-B tag"),
    ("Acme [NYSE: BRK/B] rises", "BRK-B tag"),
    ("Report (Nasdaq: GOOG, GOOGL) is out", "GOOG tag, GOOGL tag"),
    ("Acme Corp (OTCMKTS: ACMEF) announces results", "ACMEF tag"),
    ("Merger of two (NYSE: ABCD; TSX: ABCD) is off", "ABCD tag"),
    ("Merger (NYSE American: WXYZ) is off", "WXYZ tag"),
    ("Acme (TSX: ACM) opens a mine", ""),
    ("Acme (LSE: VOD) opens a shop", ""),
    ("NASDAQ: DOW AND GOLD FALL TOGETHER", ""),
    ("Update: AAPL", ""),
    ("$AAPL breaks out", "AAPL cashtag"),
    ("$BRK.B near its high", "BRK-B cashtag"),
    ("$aapl to the moon", "AAPL cashtag"),
    ("Costs $5 a share", ""),
    ("Pays $USD 5 for lunch", ""),
    ("Raises $M for a fund", ""),
    ("US$AAPL is not a symbol", ""),
    ("IBM.N rises 3%", "IBM ric"),
    ("<AAPL.O> up in early trade", "AAPL ric"),
    ("(F.N) leads", "F ric"),
    ("BRKb.N at a record", "BRK-B ric"),
    ("<VOD.L> down in London", ""),
    ("In the U.S.A. and the U.N. today", ""),
    ("BRK.B hits record", "BRK-B symbol"),
    ("NVDA beats on data center demand", "NVDA symbol"),
    ("NVDA, MSFT lead rally", "NVDA symbol, MSFT symbol"),
    ("NVDA", ""),
    ("T rises, V falls, F flat", ""),
    ("ALL EYES ON THE FED", ""),
    ("IT spending to rise", ""),
    ("Alcoa (AA) beats", "AA alias"),
    ("Alcoa Inc. (AA) beats", "AA alias"),
    ("Losers (TGT, MSFT, AA)", "TGT bracket, MSFT bracket, AA bracket"),
    ("Losers (TGT ,MSFT, AA )", "TGT bracket, MSFT bracket, AA bracket"),
    ("New boss (CEO) at the bank", ""),
    # the headline's own ticker goes before what the name means today
    ("Alcoa (ARNC) splits in two", ""),
    # possessives, and names that end in one
    ("Apple's margins shrink", "AAPL alias"),
    ("Apple’s margins shrink", "AAPL alias"),
    ("APPLE'S MARGINS SHRINK", "AAPL alias"),
    ("AT&T's dividend is safe", "T alias"),
    ("McDonald's beats estimates", "MCD alias"),
    ("McDonald’s new boss", "MCD alias"),
    ("McDonalds to open 50 stores", "MCD alias"),
    ("Kohl's shares fall", "KSS alias"),
    ("KOHL'S RAISES OUTLOOK", "KSS alias"),
    # common words need context
    ("Apple reports record quarter", "AAPL alias"),
    ("Fed probes Apple over App Store fees", "AAPL alias"),
    ("STOCKS SLIDE AS APPLE WARNS ON SALES", "AAPL alias"),
    ("Apple pie recipe wins county fair", ""),
    ("apple growers fear frost", ""),
    ("Big Apple braces for storm", ""),
    ("Target shares slide 5%", "TGT alias"),
    ("Target cuts outlook as shoppers pull back", "TGT alias"),
    ("Analysts raise price target on Target", "TGT alias"),
    ("Price target raised to $90", ""),
    ("Price Target Raised To $90", ""),
    ("Inflation target in doubt, central bank says", ""),
    ("Visa reports higher profit on travel boom", "V alias"),
    ("Visa applications rise in India", ""),
    ("Britain tightens visa rules", ""),
    ("Ford recalls 100,000 trucks", "F alias"),
    ("Ford shares fall on profit warning", "F alias"),
    ("Harrison Ford returns to the screen", ""),
    ("Ford F-150", ""),
    ("Gap shares surge after earnings", "GAP alias"),
    ("Gap between rich and poor widens", ""),
    ("Mind the gap: pay still unequal", ""),
    ("Block shares jump after results", "XYZ alias"),
    ("Lawmakers block spending bill", ""),
    ("All eyes on the Fed", ""),
    ("Allstate raises dividend", "ALL alias"),
    ("Amazon to hire 100,000 workers", "AMZN alias"),
    ("Amazon rainforest fires surge", ""),
    ("Shell to sell refinery stake", "SHEL alias"),
    ("Shell companies used to hide money", ""),
    ("Caterpillar cuts outlook", "CAT alias"),
    ("Best Buy sees weaker sales", "BBY alias"),
    ("best buy for your money this week", ""),
    ("Oracle shares rise on cloud growth", "ORCL alias"),
    ("Oracle of Omaha buys more", ""),
    ("Snap shares dive", "SNAP alias"),
    ("Snap election called in Britain", ""),
    ("Delta variant spreads", ""),
    ("BP profit doubles", "BP alias"),
    ("BP", ""),
    ("Raise your bp with salt", ""),
    # who acts, and who is written about
    ("Goldman Sachs upgrades Apple to Buy", "AAPL alias"),
    ("Morgan Stanley Maintains Overweight on Boeing, Raises Price Target to $250", "BA alias"),
    ("Boeing upgraded to Buy at Goldman Sachs", "BA alias"),
    ("Boeing Cut to Neutral by Morgan Stanley", "BA alias"),
    ("Goldman Sachs posts record profit", "GS alias"),
    ("Goldman Sachs analyst sees oil at $100", ""),
    # forms of names
    ("Johnson and Johnson wins talc case", "JNJ alias"),
    ("Johnson & Johnson wins talc case", "JNJ alias"),
    ("W. R. Berkley beats estimates", "WRB alias"),
    ("U.S. Bancorp profit falls", "USB alias"),
    ("Coca-Cola raises forecast", "KO alias"),
    ("Nestlé trims outlook", "NSRGY alias"),
    ("3M to pay $10 billion", "MMM alias"),
    ("nvidia unveils a chip", "NVDA alias"),
    ("Nikes and Teslas", ""),
    ("Bank of New York Mellon to cut jobs", "BK alias"),
    ("Bank of America beats", "BAC alias"),
    ("Microsoft, Nvidia and Tesla lead gains", "MSFT alias, NVDA alias, TSLA alias"),
    ("ACADIA Pharma rises on FDA nod", "ACAD alias"),
    ("Acadia rises on FDA nod", ""),
]

PIECES = """
Apple's Apple apple Target price target ( ) NYSE: AAPL $AAPL AA Boeing Facebook BRK.B IBM.N <AAPL.O> , : - ’s shares
Goldman Sachs upgrades Bank of America at&t AT&T (AA) 3M é $ . café 日本
"""
words = st.sampled_from([*PIECES.split(), "\ud800", "\n", "\t", " "])
titles = st.one_of(st.lists(words, max_size=10).map(" ".join), st.text(max_size=40))


def at(count, when=NOW):
    return np.full(count, when)


def links(found):
    return ", ".join(f"{row.ticker} {row.rule}" for row in found.itertuples())


@pytest.mark.parametrize(("title", "expected"), HEADLINES)
def test_headlines(title, expected):
    assert links(LINKER.link_all([title], at(1))) == expected


def test_all_headlines_at_once_link_as_each_alone():
    found = LINKER.link_all([title for title, _ in HEADLINES], at(len(HEADLINES)))
    by_row = {row: links(group) for row, group in found.groupby("row")}
    assert [by_row.get(row, "") for row in range(len(HEADLINES))] == [expected for _, expected in HEADLINES]


@pytest.mark.parametrize(
    ("title", "when", "expected"),
    [
        ("Facebook to buy startup", "2012-05-17T23:59:59", []),
        ("Facebook to buy startup", "2012-05-18T00:00:00", ["FB"]),
        ("Facebook to buy startup", "2022-06-08T23:59:59", ["FB"]),
        ("Facebook to buy startup", "2022-06-09T00:00:00", ["META"]),
        ("Meta Platforms beats estimates", "2021-10-27T12:00:00", []),
        ("Meta Platforms beats estimates", "2022-06-01T12:00:00", ["FB"]),
        ("Meta Platforms beats estimates", "2024-01-02T12:00:00", ["META"]),
        ("Facebook to buy startup", "NaT", []),
        ("Boeing to buy startup", "NaT", ["BA"]),
    ],
)
def test_names_mean_what_they_meant_then(title, when, expected):
    found = LINKER.link_all([title], at(1, np.datetime64(when, "us")))
    assert found["ticker"].tolist() == expected


def test_undated_names_are_hindsight_and_dated_names_and_symbols_are_not():
    found = LINKER.link_all(["Facebook and Boeing soar", "(NYSE: BA) soars"], at(2))
    assert found["hindsight"].tolist() == [False, True, False]


def test_a_dated_name_goes_before_an_undated_one_on_its_days_only():
    rows = [Alias("Zorblat Inc", "NEW"), Alias("Zorblat", "OLD", date(2010, 1, 1), date(2020, 1, 1))]
    linker = Linker(AliasTable.of(rows))
    times = np.array(["2015-01-01", "2021-01-01"], dtype="datetime64[us]")
    found = linker.link_all(["Zorblat beats"] * 2, times)
    assert found["ticker"].tolist() == ["OLD", "NEW"]
    assert found["hindsight"].tolist() == [False, True]


def test_the_table_of_links():
    found = LINKER.link_all(["no name here", "Boeing's $BA and Boeing (NYSE: BA)"], at(2))
    assert tuple(found.columns) == COLUMNS
    assert found[["row", "ticker", "rule", "start", "end"]].values.tolist() == [[1, "BA", "alias", 0, 6]]
    assert found["confidence"].between(CONFIDENT, 1).all()


def test_no_titles_and_no_aliases():
    assert LINKER.link_all([], at(0)).empty
    bare = Linker(AliasTable.of([]))
    assert links(bare.link_all(["Boeing (NYSE: BA) soars", ""], at(2))) == "BA tag"
    assert bare.explain("", datetime(2024, 1, 1, tzinfo=UTC)) == []


def test_less_sure_links_come_when_asked_for():
    titles = ["Visa and others agree", "NVDA"]
    assert LINKER.link_all(titles, at(2)).empty
    found = LINKER.link_all(titles, at(2), least=0.1)
    assert found["ticker"].tolist() == ["V", "NVDA"]
    assert (found["confidence"] < CONFIDENT).all()


@pytest.mark.parametrize(
    ("title", "ticker", "said"),
    [
        ("Boeing upgraded to Buy at Goldman Sachs", "GS", "who made the rating"),
        ("Goldman Sachs upgrades Apple to Buy", "GS", "it rates another company"),
        ("Price target raised", "", '"price target" is the name of something else'),
        ("Price target raised", "TGT", '"target" is not written as a name is'),
        ("Apple pie wins", "AAPL", '"apple" is part of a longer match'),
        ("Acadia rises", "", '"acadia" is a name of several tickers'),
        ("Acme (TSX: ACM) opens", "ACM", "TSX is not a US exchange"),
        ("Pays $USD 5", "USD", "an amount or a currency"),
        ("Apple's margins", "AAPL", "it is in the possessive"),
        ("Alcoa (ARNC) splits", "AA", "the headline gives it another ticker"),
    ],
)
def test_explain_says_why(title, ticker, said):
    found = LINKER.explain(title, datetime(2024, 6, 3, tzinfo=UTC))
    assert any(link.ticker == ticker and said in link.why for link in found)


def test_explain_says_when_a_name_meant_nothing():
    (link,) = LINKER.explain("Facebook soars", np.datetime64("2001-01-01", "us"))
    assert (link.ticker, link.accepted, link.why) == ("", False, '"facebook" meant no ticker at that time')


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(titles, max_size=6))
def test_any_text_links_within_itself_and_as_explained(texts):
    found = LINKER.link_all(texts, at(len(texts)), least=0.3)
    for row, title in enumerate(texts):
        explained = LINKER.explain(title, NOW, least=0.3)
        assert all(0 <= link.start < link.end <= len(title) for link in explained)
        assert all(link.accepted is False or link.confidence >= 0.3 for link in explained)
        accepted = {(link.ticker, link.rule, link.start, link.end) for link in explained if link.accepted}
        mine = found[found["row"] == row]
        assert accepted == set(mine[["ticker", "rule", "start", "end"]].itertuples(index=False, name=None))
        for link in explained:
            if link.accepted and link.rule != "alias":
                spelt = title[link.start : link.end].upper().replace(".", "-").replace("/", "-")
                assert link.ticker.split("-")[0] in spelt


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(titles, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_other_titles_do_not_matter(texts, random):
    order = list(range(len(texts)))
    random.shuffle(order)
    straight = LINKER.link_all(texts, at(len(texts)))
    shuffled = LINKER.link_all([texts[place] for place in order], at(len(texts)))
    back = shuffled.assign(row=np.array(order)[shuffled["row"]]).sort_values(["row", "start", "ticker"])
    pd.testing.assert_frame_equal(straight, back.reset_index(drop=True))


def test_the_order_of_aliases_does_not_matter():
    several = [title for title, _ in HEADLINES]
    backwards = Linker(AliasTable.of(ROWS[::-1], symbols=["GOOG"]))
    pd.testing.assert_frame_equal(
        LINKER.link_all(several, at(len(several))), backwards.link_all(several, at(len(several)))
    )


def test_more_titles_than_are_read_at_once():
    count = 9_000
    found = LINKER.link_all(["Boeing soars", "nothing"] * (count // 2), at(count))
    assert found["row"].tolist() == list(range(0, count, 2))
    assert set(found["start"]) == {0}


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.sampled_from(["AAL", "AA", "T", "V", "F", "XYZ", "KO", "MS"]), st.sampled_from(["rises", "beats", "(x)", "'s"])
)
def test_one_to_three_letters_alone_are_never_a_symbol(symbol, rest):
    assert LINKER.link_all([f"{symbol} {rest}", f"Stocks: {symbol}, {symbol} {rest}"], at(2)).empty


def test_names_bring_nothing_from_their_neighbours():
    pieces = ["Boeing soars", "Target", "shares", "(NYSE: BA)", "Apple"]
    alone = {piece: links(LINKER.link_all([piece], at(1))) for piece in pieces}
    for pair in combinations(pieces, 2):
        found = LINKER.link_all(list(pair), at(2))
        assert [links(found[found["row"] == row]) for row in range(2)] == [alone[piece] for piece in pair]


@pytest.mark.skipif(not MARKET.is_dir(), reason="../shared/market, optional test data, is not there")
def test_real_labels_agree_with_19_of_20_links():
    rows = pd.read_parquet(MARKET / "news_headlines.parquet", columns=["title", "published_at", "ticker"])
    rows = rows[rows["ticker"].notna()]
    labels = rows.groupby("title")["ticker"].agg(frozenset)
    times = rows.groupby("title")["published_at"].min().dt.tz_localize(None).to_numpy(dtype="datetime64[us]")
    linker = Linker(AliasTable.read(MARKET / "company_tickers.json"))
    found = linker.link_all(labels.index.tolist(), times)
    scored = found[found["ticker"].isin(set(rows["ticker"]))]
    right = [ticker in labels.iloc[row] for row, ticker in zip(scored["row"], scored["ticker"], strict=True)]
    assert np.mean(right) >= 0.95
    assert np.sum(right) >= 0.28 * labels.map(len).sum()
