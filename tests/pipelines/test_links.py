"""Tickers found in titles: at import, afterwards with new names, and explained; and what listings say of them."""

from pathlib import Path

import pytest
from wires import workspace

NAMES = "name,ticker,valid_from,valid_to\nFacebook,FB,2012-05-18,2022-06-09\nFacebook,META,2022-06-09,\n"
ROWS = (
    ("2022-06-08T15:00:00Z", "Facebook shares fall after outage"),
    ("2022-06-10T15:00:00Z", "Facebook shares rise after update"),
    ("2022-06-10T16:00:00Z", "Zynerba (NASDAQ: ZYNE) wins approval"),
    ("2022-06-10T17:00:00Z", "ZYNERBA (NASDAQ: ZYNE) WINS APPROVAL"),
    ("2022-06-10T18:00:00Z", "Weather is fine"),
)


@pytest.fixture
def imported(tmp_path, tapewire) -> Path:
    folder = workspace(tmp_path / "w")
    lines = "\n".join(f"{at},{title}" for at, title in ROWS)
    (folder / "news.csv").write_text(f"published_at,title\n{lines}\n")
    ran = tapewire(folder, "import", "headlines", "news.csv", "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["added"], ran.json["links_added"]) == (5, 2)
    return folder


def with_names(folder: Path) -> Path:
    (folder / "names.csv").write_text(NAMES)
    toml = folder / "tapewire.toml"
    toml.write_text(f'{toml.read_text()}\n[news]\naliases = ["names.csv"]\n')
    return folder


def test_new_names_link_what_is_in_the_lake_by_its_own_time(imported, tapewire):
    folder = with_names(imported)
    assert tapewire(folder, "link", "update", "--json").json == {"links_added": 2}
    assert tapewire(folder, "link", "update", "--json").json == {"links_added": 0}
    listed = {line["title"]: line for line in tapewire(folder, "headlines", "--json").lines}
    assert [listed[title]["tickers"] for _, title in ROWS] == [["FB"], ["META"], ["ZYNE"], ["ZYNE"], []]
    assert listed[ROWS[0][1]]["link_rule"] == ["alias"]
    assert 0.8 <= listed[ROWS[0][1]]["confidence"][0] <= 1


def test_listings_name_the_first_of_near_duplicates(imported, tapewire):
    lines = {line["title"]: line for line in tapewire(imported, "headlines", "--json").lines}
    first, copy, other = (lines[ROWS[at][1]] for at in (2, 3, 4))
    assert first["cluster"] == copy["cluster"] == first["id"]
    assert other["cluster"] == other["id"]
    wanted = {"id", "version", "title", "source", "url", "published_at", "published_raw", "precision", "first_seen_at"}
    assert wanted | {"available_at", "tickers", "link_rule", "confidence", "cluster"} <= set(first)


def test_a_link_is_explained(imported, tapewire):
    folder = with_names(imported)
    ran = tapewire(folder, "link", "explain", "Facebook shares fall", "--at", "2020-01-02T00:00:00Z", "--json")
    links = ran.json["links"]
    assert {(link["ticker"], link["linked"], link["text"]) for link in links} == {("FB", True, "Facebook")}
    assert links[0]["why"]
    told = tapewire(folder, "link", "explain", "Facebook shares fall")
    assert "META" in told.out
    assert "No ticker" in tapewire(folder, "link", "explain", "Weather is fine").out


def test_a_missing_alias_file_is_named(imported, tapewire):
    ran = tapewire(imported, "link", "update", "--set", 'news.aliases=["nowhere.csv"]')
    assert ran.code == 2
    assert "nowhere.csv" in ran.err


def test_a_wrong_time_is_refused_by_the_option_it_was_given_to(imported, tapewire):
    ran = tapewire(imported, "link", "explain", "Apple shares fall", "--at", "yesterday-ish")
    assert ran.code == 2
    assert "--at yesterday-ish: expected an instant" in ran.err
