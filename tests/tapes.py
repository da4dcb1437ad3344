"""Workspaces whose prices come from a stub of Yahoo, for the tests of ingest."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from yahoo_stub import StubSession, YahooStub

from data.calendar import sessions
from data.lake import Lake
from data.prices.limiter import Limiter
from data.prices.tape import TapeConfig
from data.prices.yahoo import YahooSource
from pipelines.ingest_prices import ingest_prices
from pipelines.ticker_reads import PricesIngested
from pipelines.workspace import open_workspace

MINUTE = np.timedelta64(1, "m")

sessions("XNYS")  # built here once, not in each process that is forked


def workspace(folder: Path, *tickers: str, **keys: Any) -> Path:
    """A workspace of these tickers, whose vendor is asked as fast as it answers."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = {"start": "2024-01-01", "rate": 1000, "backoff": 0, "workers": 4} | keys
    names = ", ".join(f'"{ticker}"' for ticker in tickers)
    tape = "\n".join(f"{key} = {value}" for key, value in lines.items())
    (folder / "tapewire.toml").write_text(f"watchlist = [{names}]\n[tape]\n{tape}\n")
    return folder


def evening(day: str) -> np.datetime64:
    """22:00 UTC: New York has closed, its bars have settled."""
    return np.datetime64(f"{day}T22:00:00", "us")


def ingest(folder: Path, stub: YahooStub, at: np.datetime64) -> PricesIngested:
    """One run at that moment; the stub knows what Yahoo knows by then."""
    stub.today = at.astype("datetime64[D]")
    return ingest_at(folder, stub.url, str(at))


def ingest_at(folder: Path, url: str, at: str) -> PricesIngested:
    moment = np.datetime64(at, "us")

    def connect(_: TapeConfig, limiter: Limiter, where: Path) -> YahooSource:
        return YahooSource(limiter, where / ".yfinance", StubSession(limiter, url))

    return ingest_prices(open_workspace(folder), lambda: moment, connect)


def nightly(folder: Path, url: str, at: str) -> None:
    """As a process of its own would; nothing comes back, and it fails where a ticker does."""
    result = ingest_at(folder, url, at)
    assert result.exit_code == 0, [(read.ticker, read.outcome, read.reason) for read in result.reads]


def bars(folder: Path, ticker: str, as_of: Any = None) -> pd.DataFrame:
    """The newest versions in the lake, by session."""
    rows = Lake(folder / "lake").current("bars", as_of)
    return rows[rows["ticker"] == ticker].reset_index(drop=True)


def versions(folder: Path, ticker: str) -> pd.DataFrame:
    """All versions, the later ones last."""
    rows = Lake(folder / "lake").frame("bars")
    return rows[rows["ticker"] == ticker].sort_values(["session", "version"], ignore_index=True)


def actions(folder: Path, ticker: str) -> list[tuple[str, str, float]]:
    rows = Lake(folder / "lake").current("actions")
    rows = rows[rows["ticker"] == ticker]
    return [
        (str(day)[:10], kind, value)
        for day, kind, value in zip(rows["ex_date"], rows["kind"], rows["value"], strict=True)
    ]


def outcomes(result: PricesIngested) -> dict[str, str]:
    return {read.ticker: read.outcome for read in result.reads}


def codes(result: PricesIngested) -> dict[str, str]:
    return {read.ticker: read.code for read in result.reads}
