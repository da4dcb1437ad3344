"""`[tape]`: which vendor the bars come from, how often it is asked, and its key. Imports no vendor by itself."""

import os
import re
import stat
from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import Field

from data.errors import ConfigError
from data.prices.limiter import Limiter
from data.prices.source import PriceSource
from data.types import Config

LONGEST_KEY = 512

_KEY = re.compile(r"[\x21-\x7e]+")


class TapeConfig(Config):
    """Bars and actions of the watchlist from a vendor, as `tapewire ingest --prices` keeps them.

    `start`: the first date asked for. `overlap`: stored sessions that are asked for again. `settle`: minutes after a
    close before its bar is believed. `rate`: requests a second, all `workers` together. `backoff`: seconds before a
    second attempt. The key is in the variable named `key_env` or the file `key_file`, relative to the workspace.
    `calendars`: exchange_calendars codes of tickers or suffixes; the rest are known, or the workspace's `calendar`.
    """

    source: Literal["yahoo", "stooq", "tiingo"] = "yahoo"
    start: date = date(2000, 1, 1)
    overlap: int = Field(default=10, ge=3, le=250)
    settle: float = Field(default=20.0, ge=0, le=1440)
    workers: int = Field(default=4, ge=1, le=32)
    rate: float = Field(default=2.0, gt=0, le=1000)
    backoff: float = Field(default=1.0, ge=0, le=60)
    key_env: str = Field(default="", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")
    key_file: str = ""
    calendars: dict[str, str] = Field(default={})


def open_source(config: TapeConfig, limiter: Limiter, folder: Path) -> PriceSource:
    """The vendor of `config`; `folder` is the workspace. Raises ConfigError where a key is missing."""
    key = read_key(config, folder)
    if config.source == "yahoo":
        from data.prices.yahoo import YahooSource

        return YahooSource(limiter, folder / ".yfinance")
    from data.prices.web import Web

    if config.source == "stooq":
        from data.prices.stooq import StooqSource

        return StooqSource(Web(limiter), key)
    from data.prices.tiingo import TiingoSource

    if not key:
        raise ConfigError(
            'tape.source = "tiingo": expected a key, found none. Say where it is: key_env = "TIINGO_API_KEY" (a '
            'variable of the environment) or key_file = "tiingo.key" (a file) in the table [tape].'
        )
    return TiingoSource(Web(limiter), key)


def read_key(config: TapeConfig, folder: Path) -> str:
    """The vendor's key, or nothing where the configuration names none. ConfigError never shows it."""
    if config.key_env and config.key_file:
        raise ConfigError("[tape]: expected key_env or key_file, found both. Leave one out.")
    if config.key_env:
        where, text = f"tape.key_env: the variable {config.key_env}", os.environ.get(config.key_env, "")
    elif config.key_file:
        where, text = f"tape.key_file: {folder / config.key_file}", _read(folder / config.key_file)
    else:
        return ""
    key = text.strip()
    if not _KEY.fullmatch(key) or len(key) > LONGEST_KEY:
        found = (
            "nothing" if not key else "spaces or other characters between" if len(key) <= LONGEST_KEY else "far more"
        )
        raise ConfigError(f"{where}: expected a key of letters, digits and signs, found {found}.")
    return key


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(f"tape.key_file: {path}: expected a file that holds the key, found no regular one.")
            return file.read(LONGEST_KEY * 4).decode("ascii", errors="replace")
    except OSError as error:
        raise ConfigError(
            f"tape.key_file: {path}: expected a file that holds the key, found: {error.strerror}."
        ) from None
