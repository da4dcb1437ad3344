"""Tiingo's daily bars and actions: JSON, as traded. Needs a key, which goes into one header and nowhere else."""

import json
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from data.prices.source import (
    ACTION_COLUMNS,
    BAR_COLUMNS,
    EmptyError,
    History,
    MalformedError,
    RefusedError,
    UnknownTickerError,
)
from data.prices.web import Web, is_markup

URL = "https://api.tiingo.com/tiingo/daily"
FIELDS = ("date", "open", "high", "low", "close", "volume", "divCash", "splitFactor")
ALLOCATION_WAIT = 3600.0  # seconds: its allocations are by the hour or longer


class TiingoSource:
    """`PriceSource` of api.tiingo.com: `open` to `volume` as traded, `divCash` and `splitFactor` of the ex-date."""

    name = "tiingo"
    split_adjusted = False
    unit = 1e-6

    def __init__(self, web: Web, key: str, url: str = URL) -> None:
        self._web = web
        self._headers = {"Authorization": f"Token {key}", "Accept": "application/json"}
        self._url = url

    def history(self, ticker: str, since: np.datetime64) -> History:
        """See `PriceSource`."""
        symbol = quote(ticker.replace(".", "-").lower(), safe="-")
        first = since.astype("datetime64[D]")
        body = self._web.get(f"{self._url}/{symbol}/prices?startDate={first}&format=json", self._headers)
        return _history(self._objects(body))

    def _objects(self, body: bytes) -> list[Any]:
        if is_markup(body):
            raise MalformedError("expected JSON, found HTML or XML")
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise MalformedError(f"expected JSON, found {body[:40]!a}") from error
        if isinstance(answer, dict) and "detail" in answer:
            self._raise_told(" ".join(str(answer["detail"]).split())[:200])
        if not isinstance(answer, list):
            raise MalformedError(f"expected a list of bars, found {type(answer).__name__}")
        return answer

    def _raise_told(self, said: str) -> None:
        """What Tiingo says in words, with a status of 200."""
        said_low = said.lower()
        if "allocation" in said_low or "run over" in said_low:
            raise self._web.limited(None, ALLOCATION_WAIT, f"Tiingo says: {said}")
        if "not found" in said_low:
            raise UnknownTickerError(f"Tiingo says: {said}")
        if "token" in said_low or "auth" in said_low:
            raise RefusedError("Tiingo refuses us: is the key right?")
        raise MalformedError(f"expected a list of bars, found the words: {said}")


def _history(rows: list[Any]) -> History:
    if not rows:
        raise EmptyError("Tiingo knows it and has no bar of these sessions")
    for row in rows:
        if not isinstance(row, dict) or not row.keys() >= set(FIELDS):
            found = ", ".join(map(str, row))[:200] if isinstance(row, dict) else type(row).__name__
            raise MalformedError(f"expected objects with {', '.join(FIELDS)}, found {found}")
    stamps = pd.Series([str(row["date"])[:10] for row in rows])
    dates = pd.to_datetime(stamps, format="%Y-%m-%d", errors="coerce").astype("datetime64[s]")
    numbers = pd.DataFrame({name: [_number(row[name]) for row in rows] for name in FIELDS[1:]})
    bars = numbers.assign(session=dates)[BAR_COLUMNS].sort_values("session", ignore_index=True)
    cash = _actions(dates, "dividend", numbers["divCash"], 0.0)
    splits = _actions(dates, "split", numbers["splitFactor"], 1.0)
    actions = pd.concat([cash, splits], ignore_index=True)
    return History(bars, actions.sort_values(["ex_date", "kind"], ignore_index=True))


def _actions(dates: "pd.Series[Any]", kind: str, values: "pd.Series[float]", none: float) -> pd.DataFrame:
    rows = pd.DataFrame({"ex_date": dates, "value": values})[(values != none) & values.notna()]
    return rows.assign(kind=kind)[ACTION_COLUMNS]


def _number(value: Any) -> float:
    """NaN for what is no number: a missing value, a string, a whole number beyond all floats."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return float("nan")
    try:
        return float(value)
    except OverflowError:
        return float("nan")
