"""One id for an item from fetch to fetch, and never one for two items."""

from dataclasses import replace

import pytest

from data.news.identity import address_key, identify
from data.news.parse import Entry

ENTRY = Entry("guid-1", "Acme buys Apex", "https://wire.example/1", "Tue, 05 Nov 2024 16:05:00 EST", None)


def same(one: Entry, other: Entry) -> bool:
    """Whether two fetches that hold one entry each give it the same id."""
    return identify("wire", [one]) == identify("wire", [other])


def test_edits_keep_the_id_of_an_item():
    assert same(ENTRY, replace(ENTRY, title="Acme does not buy Apex"))
    assert same(ENTRY, replace(ENTRY, published_raw="now", summary="more"))
    assert same(ENTRY, replace(ENTRY, url="http://www.wire.example/1/?utm_source=rss&fbclid=2#ref=feed"))


def test_reused_ids_with_other_addresses_are_other_items():
    assert not same(ENTRY, replace(ENTRY, url="https://wire.example/2"))
    assert not same(ENTRY, replace(ENTRY, url="https://wire.example/1?page=2"))
    assert not same(ENTRY, replace(ENTRY, guid="guid-2"))


def test_sources_do_not_share_ids():
    assert identify("wire", [ENTRY]) != identify("other", [ENTRY])


def test_an_id_and_address_used_for_several_titles_is_not_believed():
    other = replace(ENTRY, title="Something else altogether")
    one, two = identify("wire", [ENTRY, other])
    assert one != two
    assert identify("wire", [other, ENTRY]) == [two, one]


def test_without_an_id_title_and_address_stand_in():
    bare = replace(ENTRY, guid=None)
    assert same(bare, replace(bare, title="ACME  buys Apex"))
    assert not same(bare, replace(bare, title="Acme sells Apex"))
    assert not same(bare, replace(bare, url="https://wire.example/2"))
    assert same(replace(bare, url=None), replace(bare, url=None))


def test_the_same_entry_twice_in_a_document_is_one_item():
    assert len(set(identify("wire", [ENTRY, ENTRY]))) == 1


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("http://a.example/x", "https://www.a.example/x/", True),
        ("https://a.example/x?b=2&a=1", "https://a.example/x?a=1&b=2", True),
        ("https://a.example/x?utm_medium=rss", "https://a.example/x", True),
        ("https://a.example/x#comments", "https://a.example/x", False),
        ("https://a.example/x?id=1", "https://a.example/x?id=2", False),
        ("https://a.example/x", "https://b.example/x", False),
    ],
)
def test_addresses_that_lead_to_the_same_place(one, other, equal):
    assert (address_key(one) == address_key(other)) == equal
