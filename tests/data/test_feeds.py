"""Feeds as a user configures them, and the catalogue they are filled up from."""

import pytest
from pydantic import ValidationError

from data.errors import ConfigError
from data.news.feeds import TICKER, FeedConfig, catalogue, expand


def test_every_known_feed_is_a_sound_configuration():
    for name, table in catalogue().items():
        config = FeedConfig(name=name)  # the rest comes from the catalogue
        assert config.url == table["url"]
        assert config.url.startswith("https://")
        assert table["about"]
        assert not config.allow_private
    assert {"yahoo", "nasdaq", "google-news", "sec-8k", "prnewswire", "globenewswire", "fed-press"} <= set(catalogue())


def test_a_users_keys_win_over_the_catalogues():
    config = FeedConfig(name="sec-8k", default_tz="UTC")
    assert config.default_tz == "UTC"
    assert config.url == catalogue()["sec-8k"]["url"]


@pytest.mark.parametrize(
    "keys",
    [
        {"name": "unknown-and-without-url"},
        {"name": "x", "url": "ftp://example.com/"},
        {"name": "x", "url": "file:///etc/passwd"},
        {"name": "x", "url": "https://user:word@example.com/"},
        {"name": "x", "url": "https://example.com/a b"},
        {"name": "x", "url": "https://example.com/", "default_tz": "EST5"},
        {"name": "x", "url": "https://example.com/", "default_tz": "../../etc/passwd"},
        {"name": "x", "url": "https://example.com/", "tag": "misspelt"},
        {"name": "Two words", "url": "https://example.com/"},
    ],
)
def test_wrong_feeds_are_refused(keys):
    with pytest.raises(ValidationError):
        FeedConfig(**keys)


def test_a_template_stands_for_each_ticker_safely_quoted():
    template = FeedConfig(name="t", url=f"https://example.com/rss?s={TICKER}", tickers=("spy",))
    first, second = expand([template], ["BRK.B", "^DJI"])
    assert (first.url, first.tickers, first.label) == ("https://example.com/rss?s=BRK.B", ("SPY", "BRK.B"), "t BRK.B")
    assert second.url == "https://example.com/rss?s=%5EDJI"


def test_what_cannot_be_expanded_says_why():
    template = FeedConfig(name="t", url=f"https://example.com/{TICKER}")
    with pytest.raises(ConfigError, match="watchlist"):
        expand([template], [])
    with pytest.raises(ConfigError, match="twice"):
        expand([template, template], ["A"])
