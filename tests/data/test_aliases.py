import json
from datetime import date
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.linking import Alias, AliasTable
from data.linking.names import Cut, Kind, core, forms, kind

FB = Alias("Facebook", "FB", date(2012, 5, 18), date(2022, 6, 9))
META = Alias("Facebook", "META", date(2022, 6, 9))


def sec(*rows):
    return json.dumps(
        {str(rank): {"cik_str": cik, "ticker": ticker, "title": name} for rank, (cik, ticker, name) in enumerate(rows)}
    )


def table(tmp_path, text, name="aliases.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return AliasTable.read(path)


def test_csv_with_dates(tmp_path):
    read = table(
        tmp_path, "name,ticker,valid_from,valid_to\nFacebook,fb,2012-05-18,2022-06-09\nFacebook,META,2022-06-09,\n"
    )
    assert read.rows == (FB, META)
    assert read.symbols == {"FB", "META"}
    assert not any(row.hindsight for row in read.rows)


def test_csv_with_a_byte_order_mark_blank_lines_and_quotes(tmp_path):
    read = table(tmp_path, '\ufeffticker,name\nCAT,"Caterpillar, Inc."\n\n')
    assert read.rows == (Alias("Caterpillar, Inc.", "CAT"),)
    assert read.rows[0].hindsight


def test_sec_file_takes_the_first_ticker_of_a_company_and_knows_them_all(tmp_path):
    text = sec((1, "GOOGL", "Alphabet Inc."), (2, "F", "FORD MOTOR CO"), (1, "GOOG", "Alphabet Inc."))
    read = table(tmp_path, text, "company_tickers.json")
    assert [row.ticker for row in read.rows] == ["GOOGL", "F"]
    assert read.symbols == {"GOOGL", "GOOG", "F"}
    assert all(row.hindsight for row in read.rows)


def test_sec_names_of_fund_families_and_of_two_companies_are_nobodys(tmp_path):
    text = sec((1, "AAA", "Wide Trust"), (1, "BBB", "Wide Trust"), (2, "CC", "Twin Corp"), (3, "DD", "Twin Inc"))
    read = table(tmp_path, text, "company_tickers.json")
    assert read.rows == ()
    assert read.symbols == {"AAA", "BBB", "CC", "DD"}


def test_a_trust_with_preferred_shares_keeps_its_name(tmp_path):
    read = table(tmp_path, sec((1, "ABR", "Arbor Realty Trust"), (1, "ABR-PD", "Arbor Realty Trust")), "t.json")
    assert [row.ticker for row in read.rows] == ["ABR"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "found the columns none"),
        ("name,ticker\n", "found no rows"),
        ("name,symbol\nFord,F\n", "found the columns name, symbol"),
        ("name,ticker,notes\nFord,F,x\n", "found the columns name, ticker, notes"),
        ("name,name,ticker\nFord,Ford,F\n", "found the columns name, name, ticker"),
        ("name,ticker\nFord,F,extra\n", "found more"),
        ("name,ticker\nFord,\n", "expected a ticker such as BRK-B"),
        ("name,ticker\nFord,not a ticker\n", "found 'NOT A TICKER'"),
        ("name,ticker\n!!!,F\n", "expected a name with letters or digits"),
        ("name,ticker,valid_from\nFord,F,05/18/2012\n", "found '05/18/2012'"),
        ("name,ticker,valid_from,valid_to\nFord,F,2020-01-02,2020-01-02\n", "expected valid_to after valid_from"),
        ("name,ticker,valid_from,valid_to\nFord,F,2020-01-02,2019-01-02\n", "expected valid_to after valid_from"),
        ("name,ticker\nFord Inc,F\nFord Corp,FORD\n", "expected a name to mean one ticker at a time"),
        ("name,ticker,valid_from,valid_to\nA b,F,,2020-01-02\nA b,G,2020-01-01,\n", "one ticker at a time"),
        ('name,ticker\n"Ford,F\n', "broken CSV"),
        ("<html><body>403 Forbidden</body></html>", "found the columns"),
        ("{}}", "found JSON of another shape"),
        ("[1, 2]", "found JSON of another shape"),
        ('{"0": {"ticker": "A"}}', "found JSON of another shape"),
        ('{"0": {"cik_str": "x", "ticker": "A", "title": "B"}}', "found JSON of another shape"),
        ('{"a":' * 5000, "found JSON of another shape"),
    ],
)
def test_wrong_files_say_what_is_expected(tmp_path, text, complaint):
    with pytest.raises(InputError, match="expected") as caught:
        table(tmp_path, text)
    assert complaint in str(caught.value)
    assert "aliases.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        AliasTable.read(tmp_path / "nowhere.csv")
    (tmp_path / "latin.csv").write_bytes(b"name,ticker\nNestl\xe9,NSRGY\n")
    with pytest.raises(InputError, match="UTF-8"):
        AliasTable.read(tmp_path / "latin.csv")


def test_order_does_not_matter_and_content_does():
    rows = [FB, META, Alias("Ford Motor Co", "F")]
    tables = [AliasTable.of(order) for order in permutations(rows)]
    assert len(set(tables)) == 1
    assert len({each.version for each in tables}) == 1
    assert AliasTable.of(rows[:2]).version != tables[0].version
    assert AliasTable.of(rows, symbols=["GOOG"]).version != tables[0].version


def test_a_dated_row_replaces_the_undated_one_of_its_ticker_only():
    undated = Alias("Meta Platforms, Inc.", "META")
    dated = Alias("Meta Platforms", "META", date(2022, 6, 9))
    before = Alias("Meta Platforms", "FB", date(2021, 10, 28), date(2022, 6, 9))
    assert AliasTable.of([undated, dated]).rows == (dated,)
    assert set(AliasTable.of([undated, before]).rows) == {undated, before}


def test_merged_tables_let_the_later_one_hold():
    registered = AliasTable.of([Alias("Alphabet Inc.", "GOOGL"), Alias("Ford Motor Co", "F")], symbols=["GOOG"])
    own = AliasTable.of([Alias("Alphabet", "GOOG")])
    merged = AliasTable.merge(registered, own)
    assert {(row.name, row.ticker) for row in merged.rows} == {("Alphabet", "GOOG"), ("Ford Motor Co", "F")}
    assert merged.symbols == {"GOOG", "GOOGL", "F"}
    assert AliasTable.merge() == AliasTable.of([])


def test_the_table_of_known_names_reads_and_knows_changes():
    known = AliasTable.known()
    facebook = [(row.ticker, row.valid_to) for row in known.rows if row.name == "Facebook"]
    assert facebook == [("FB", date(2022, 6, 9)), ("META", None)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Apple Inc.", {"apple": Cut.CORE}),
        ("TJX COMPANIES INC /DE/", {"tjx": Cut.CORE}),
        ("US BANCORP \\DE\\", {"us bancorp": Cut.CORE, "u s bancorp": Cut.CORE}),
        ("QUALCOMM INC/DE", {"qualcomm": Cut.CORE}),
        ("CISCO SYSTEMS, INC.", {"cisco systems": Cut.CORE, "cisco": Cut.SHORT}),
        ("American Airlines Group Inc", {"american airlines": Cut.SHORT}),
        ("PROCTER & GAMBLE Co", {"procter & gamble": Cut.CORE, "procter and gamble": Cut.CORE}),
        ("BERKLEY W R CORP", {"w r berkley": Cut.CORE, "wr berkley": Cut.CORE}),
        ("KOHLS Corp", {"kohls": Cut.CORE, "kohl s": Cut.CORE}),
        ("The Coca-Cola Co", {"coca cola": Cut.CORE}),
        ("AMAZON COM INC", {"amazon com": Cut.CORE, "amazon": Cut.SHORT}),
        ("Spotify Technology S.A.", {"spotify": Cut.SHORT}),
        ("Nestlé AG/ADR", {"nestle": Cut.CORE}),
        ("ACADIA PHARMACEUTICALS INC", {"acadia pharma": Cut.CORE, "acadia": Cut.SHORT}),
        ("PETROBRAS - PETROLEO BRASILEIRO SA", {"petrobras": Cut.CORE}),
        ("O REILLY AUTOMOTIVE INC", {"o reilly": Cut.SHORT, "oreilly automotive": Cut.CORE}),
        ("TOYOTA MOTOR CORP/", {"toyota": Cut.SHORT}),
        ("Anheuser-Busch InBev SA/NV", {"anheuser busch inbev": Cut.CORE}),
        ("AT&T INC.", {"at&t": Cut.CORE}),
        ("3M CO", {"3m": Cut.CORE}),
    ],
)
def test_forms(name, expected):
    found = {form.text: form.cut for form in forms(name)}
    assert expected.items() <= found.items()


@pytest.mark.parametrize("name", ["X Corp", "V Inc", "500 Inc"])
def test_single_letters_and_bare_numbers_are_not_searched(name):
    assert all(len(form.text) > 1 and not form.text.isdigit() for form in forms(name))


def test_kinds():
    found = {text: kind(text) for text in ("apple", "nvidia", "best buy", "goldman sachs", "bp", "gap", "targets")}
    assert found == {
        "apple": Kind.WORD,
        "nvidia": Kind.RARE,
        "best buy": Kind.PHRASE,
        "goldman sachs": Kind.RARE,
        "bp": Kind.INITIALS,
        "gap": Kind.WORD,
        "targets": Kind.WORD,
    }


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=40))
def test_any_name_has_forms_that_are_plain(name):
    for form in forms(name):
        assert form.text == " ".join(form.text.split())
        assert form.text == form.text.lower()
    assert core(name) == core(name.upper()) or not name.isascii()
