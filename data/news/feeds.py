"""Which feeds to read: a user's `[[news.feeds]]`, filled up from the catalogue, one address a ticker where templated.

The catalogue `feeds.toml` holds addresses and quirks of well-known feeds. A user's feed with a name
that stands there takes what it leaves out from there. Nothing here fetches.
"""

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from data.errors import ConfigError
from data.types import Config

TICKER = "{ticker}"


class FeedConfig(Config):
    """One feed. `url` may hold `{ticker}`: it is then read once for each ticker of the watchlist.

    `default_tz` (IANA) is the zone of stamps that carry none. `tickers` are what every item is about.
    `allow_private` permits loopback and private addresses, for a feed of one's own. `strip_prefixes`
    are cut from the start of titles; of `strip_after`, such as " - ", the last one in a title and what
    follows it are cut, where aggregators append the publisher.
    """

    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")
    url: str = Field(max_length=2048)
    default_tz: str | None = None
    allow_private: bool = False
    tickers: tuple[str, ...] = ()
    strip_prefixes: tuple[str, ...] = ()
    strip_after: str | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _from_catalogue(cls, given: Any) -> Any:
        known = catalogue().get(str(given.get("name"))) if isinstance(given, dict) else None
        return {**{key: value for key, value in known.items() if key != "about"}, **given} if known else given

    @field_validator("url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        if not re.fullmatch(r"https?://[^\s/@]+([/?]\S*)?", url):
            raise ValueError("expected an address such as https://example.com/rss, http or https, without a password")
        return url

    @field_validator("default_tz")
    @classmethod
    def _is_zone(cls, zone: str | None) -> str | None:
        try:
            return zone if zone is None else ZoneInfo(zone).key
        except (KeyError, ValueError, OSError):
            raise ValueError("expected an IANA zone such as America/New_York") from None

    @field_validator("tickers")
    @classmethod
    def _upper(cls, tickers: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(ticker.strip().upper() for ticker in tickers)


@dataclass(frozen=True)
class Feed:
    """One address to read, and the tickers that all of its items are about."""

    config: FeedConfig
    url: str
    tickers: tuple[str, ...]

    @property
    def label(self) -> str:
        """How reports name it: `sec-8k`, or `yahoo AAPL` for one ticker's address of a template."""
        return f"{self.config.name} {self.tickers[-1]}" if TICKER in self.config.url else self.config.name


@cache
def catalogue() -> dict[str, dict[str, Any]]:
    """The known feeds by name: tables of `FeedConfig`, each with a line `about` it."""
    tables = tomllib.loads(files("data.news").joinpath("feeds.toml").read_text(encoding="utf-8"))["feeds"]
    return {table["name"]: table for table in tables}


def expand(configs: Iterable[FeedConfig], tickers: Sequence[str]) -> tuple[Feed, ...]:
    """Every address to read, in the order of the configuration, a template's by ticker.

    Raises ConfigError where a template has no ticker to stand for, or two feeds share a name.
    """
    feeds: list[Feed] = []
    names: set[str] = set()
    for config in configs:
        if config.name in names:
            raise ConfigError(f'[[news.feeds]]: expected each name once, found "{config.name}" twice. Rename one.')
        names.add(config.name)
        feeds += _addresses(config, tickers)
    return tuple(feeds)


def _addresses(config: FeedConfig, tickers: Sequence[str]) -> list[Feed]:
    if TICKER not in config.url:
        return [Feed(config, config.url, config.tickers)]
    if not tickers:
        raise ConfigError(
            f'[[news.feeds]] "{config.name}": its url holds {TICKER}, which stands for each ticker of `watchlist`; '
            'found an empty one and no bars in the lake. Name some: watchlist = ["AAPL", "MSFT"].'
        )
    return [
        Feed(config, config.url.replace(TICKER, quote(ticker, safe="")), (*config.tickers, ticker))
        for ticker in tickers
    ]
