import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.text import READS, normalise, normalise_all, row_texts, text_key, text_keys

# Pieces that meet badly: marks, joiners, links, compatibility forms, white space of every kind.
PIECES = ["http", "https://", "t.co/", "a", "e", " ", "\t", "\u2028", "\u200b", "\u0301", "\u00b4", "\u202e", "\ud800"]
messy = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3))).map("".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Apple\tbeats \n estimates ", "Apple beats estimates"),
        ("Apple beats https://t.co/AbC123", "Apple beats"),
        ("Apple http://x.y/z?a=b beats t.co/abc", "Apple beats"),
        ("\uff21pple\u00a0beats", "Apple beats"),  # full-width A, no-break space
        ("App\u200ble \u202ebeats\u202c\ufeff", "Apple beats"),
        ("cafe\u200b\u0301", "caf\u00e9"),
        ("at\ud83dend", "atend"),
        ("https://t.co/AbC123 ", "https://t.co/AbC123"),
        ("$AAPL a\x00b", "$AAPL ab"),
        ("Not.co/mpany about.co/x", "Not.co/mpany about.co/x"),
        ("\u200b \x07", ""),
        ("", ""),
    ],
)
def test_normal_form(text, expected):
    assert normalise(text) == expected


@settings(deadline=None)
@given(messy)
@example("http://a\u0301 b https://")
def test_normalising_twice_changes_nothing_and_leaves_nothing_invisible(text):
    once = normalise(text)
    assert normalise(once) == once
    assert once == " ".join(once.split())
    assert unicodedata.normalize("NFKC", once) == once
    once.encode()


def test_nfkc_makes_no_invisible_character():
    made = {
        char
        for code in range(sys.maxunicode + 1)
        if not unicodedata.is_normalized("NFKC", chr(code))
        for char in unicodedata.normalize("NFKC", chr(code))
    }
    assert all(normalise(f"a{char}b") != "ab" for char in made)


def test_many_texts_as_one_by_one():
    texts = ["A  b", "", "A b", "A  b", "https://t.co/x"]
    assert normalise_all(texts) == [normalise(text) for text in texts]
    assert normalise_all([]) == []


def test_keys_are_those_of_the_texts():
    texts = ["Apple beats", "", "\u00e9", "apple beats"]
    keys = text_keys(texts)
    assert keys.shape == (4, 2)
    assert [row.tobytes() for row in keys.astype("<u8")] == [text_key(text) for text in texts]
    assert len(np.unique(keys, axis=0)) == 4
    assert text_keys([]).shape == (0, 2)
    assert (
        text_key("Apple beats").hex() == "7da0108d4b0f6a4343471f0775e87ea7"
    )  # stored keys must still be found by later versions


@pytest.mark.parametrize(
    ("title", "summary", "expected"),
    [
        ("Acme  beats", " Sales  rose https://t.co/x 4%.", "Acme beats. Sales rose 4%."),
        ("Will Acme beat?", "Analysts doubt it", "Will Acme beat? Analysts doubt it"),
        ("Acme beats", None, "Acme beats"),
        ("Acme beats", float("nan"), "Acme beats"),
        ("Acme beats", "\u200b ", "Acme beats"),
        ("Acme beats", "ACME BEATS.", "Acme beats"),  # says nothing more
        ("Acme beats estimates", "Acme beats", "Acme beats estimates"),
        ("Acme beats", "Acme beats. Sales rose.", "Acme beats. Sales rose."),  # says it once
        ("Fed", "Federal judge rules", "Fed. Federal judge rules"),
        ("Acme beats", "meb", "Acme beats. meb"),
    ],
)
def test_a_rows_text_is_its_title_and_what_the_summary_adds(title, summary, expected):
    assert row_texts([title], [summary]) == [expected]
    assert row_texts([title]) == [normalise(title)]


@settings(deadline=None)
@given(messy, st.one_of(st.none(), messy))
def test_a_rows_text_holds_its_title_and_is_one_line(title, summary):
    (text,) = row_texts([title], [summary])
    assert normalise(title).casefold().rstrip(".!?:;\u2026") in text.casefold()
    assert text == " ".join(text.split())
    assert row_texts([title, title], [summary, None]) == [text, normalise(title)]


def test_what_may_be_read_begins_with_the_title():
    assert {columns[0] for columns in READS.values()} == {"title"}
