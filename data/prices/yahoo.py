"""Yahoo's daily bars and actions, through yfinance's `Ticker.history`. Import it only where it is used: it is heavy.

yfinance does the work; the session it is given decides what reaches it. That session takes a token for every
request, ends one that is too large, and turns what Yahoo answers into our errors before yfinance can hide it,
ask again with other cookies, or take a 429 for a dead ticker. What yfinance keeps in the process is cleared for each
source; of its files the table of time zones lies in the workspace. Its file of cookies is not used: it is a pickle.
"""

import json
import logging
import re
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yfinance
from curl_cffi.curl import CURL_WRITEFUNC_ERROR
from curl_cffi.requests import Response, Session
from curl_cffi.requests.exceptions import RequestException
from peewee import PeeweeException
from yfinance import cache
from yfinance.data import SingletonMeta, YfData
from yfinance.exceptions import YFPricesMissingError, YFTzMissingError

from data.prices.limiter import Limiter
from data.prices.source import (
    BAR_COLUMNS,
    EmptyError,
    History,
    MalformedError,
    RateLimitedError,
    SourceError,
    UnavailableError,
    UnknownTickerError,
)
from data.prices.web import MAX_BYTES, is_markup, seconds_of

TIMEOUT = 60.0  # seconds for a whole answer
CHART = "/v8/finance/chart/"
COOKIE = "https://fc.yahoo.com"
COLUMNS = {"Open": "open", "High": "high", "Low": "low", "Close": "close", "Volume": "volume"}
ACTIONS = {"Dividends": "dividend", "Stock Splits": "split"}

_SYMBOL = re.compile(r"[A-Z0-9^][A-Z0-9.^=-]{0,23}")


class YahooSession(Session[Response]):
    """yfinance's session, one for all threads."""

    def __init__(self, limiter: Limiter) -> None:
        super().__init__(impersonate="chrome", trust_env=False)
        self._limiter = limiter
        self._last = threading.local()
        self._cookie_answer: Response | None = None

    @property
    def last_status(self) -> int:
        """Of the last answer that this thread got to a request for prices; 0 before any."""
        return int(getattr(self._last, "status", 0))

    def address(self, url: str) -> str:
        """Where a request for `url` goes: there."""
        return url

    def request(self, method: Any, url: str, *args: Any, **options: Any) -> Response:
        """As Session's. Raises SourceError where prices are asked for and the answer holds none."""
        if url == COOKIE and self._cookie_answer is not None:
            return self._cookie_answer  # yfinance asks before every request; the session has the cookie already
        sent_at = self._limiter.wait()
        body = _Body()
        options |= {"timeout": TIMEOUT, "allow_redirects": "safe", "content_callback": body.take}
        try:
            response = super().request(method, self.address(url), *args, **options)
        except RequestException as error:
            if body.too_large:
                raise MalformedError(f"its answer is too large: more than {MAX_BYTES} bytes") from None
            if CHART not in url:
                raise  # yfinance goes on without a cookie
            self._limiter.unreachable()
            raise UnavailableError(f"Yahoo could not be reached ({type(error).__name__})") from None
        response.content = bytes(body.held)
        if CHART in url:
            self._last.status = response.status_code
            self._judge(response, sent_at)
        elif response.status_code == 429:
            self._limiter.limited(sent_at, seconds_of(response.headers.get("Retry-After")))
        elif url == COOKIE:
            self._cookie_answer = response
        return response

    def _judge(self, response: Response, sent_at: float) -> None:
        status, wait = response.status_code, seconds_of(response.headers.get("Retry-After"))
        if status == 429 or (status == 503 and wait is not None):
            self._limiter.limited(sent_at, wait)
            raise RateLimitedError(f"Yahoo limits our requests (status {status})", wait)
        if status >= 500:
            self._limiter.unreachable()
            raise UnavailableError(f"Yahoo failed (status {status})")
        self._limiter.answered()
        if status == 401:
            self._cookie_answer = None  # yfinance gets another cookie and asks again
        if is_markup(response.content):
            raise MalformedError(f"expected JSON, found HTML or XML (status {status})")
        if status in (400, 404, 422):
            _raise_told(response.content, status)
        if status == 200 and b'"chart"' not in response.content[:200]:
            raise MalformedError(f"expected a chart as JSON, found {response.content[:40]!a}")


class _Body:
    """What comes in of an answer, up to MAX_BYTES."""

    def __init__(self) -> None:
        self.held = bytearray()
        self.too_large = False

    def take(self, chunk: bytes) -> int:
        self.held += chunk
        self.too_large = len(self.held) > MAX_BYTES
        return CURL_WRITEFUNC_ERROR if self.too_large else len(chunk)


def _raise_told(body: bytes, status: int) -> None:
    """What Yahoo says itself of a ticker it gives no prices of."""
    try:
        error = json.loads(body)["chart"]["error"]
        code, said = str(error["code"]), " ".join(str(error["description"]).split())[:200]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise MalformedError(f"expected prices or a reason, found neither (status {status})") from None
    if code == "Not Found":
        raise UnknownTickerError(f"Yahoo says: {said}")
    if "data doesn't exist" in said.lower():
        raise EmptyError(f"Yahoo says: {said}")
    raise MalformedError(f"Yahoo refuses the request: {code}: {said}")


class YahooSource:
    """`PriceSource` of Yahoo Finance. `folder` is for yfinance's files; one source at a time in a process."""

    name = "yahoo"
    split_adjusted = True
    unit = 1e-6

    def __init__(self, limiter: Limiter, folder: Path, session: YahooSession | None = None) -> None:
        _clear_yfinance(folder)
        self._session = session or YahooSession(limiter)

    def history(self, ticker: str, since: np.datetime64) -> History:
        """See `PriceSource`."""
        if not _SYMBOL.fullmatch(ticker):
            raise UnknownTickerError("it is no symbol of Yahoo's")
        try:
            frame = yfinance.Ticker(ticker, session=self._session).history(
                start=str(since.astype("datetime64[D]")), auto_adjust=False, actions=True, keepna=True, timeout=TIMEOUT
            )
        except SourceError:
            raise
        except YFPricesMissingError:
            if self._session.last_status >= 400:
                raise UnavailableError(f"Yahoo failed (status {self._session.last_status})") from None
            raise EmptyError("Yahoo knows it and has no bar of these sessions") from None
        except YFTzMissingError:
            raise MalformedError("expected its time zone, found none") from None
        except Exception as error:  # whatever yfinance trips over: Yahoo's answer had another shape
            raise MalformedError(f"yfinance could not read Yahoo's answer: {_brief(error)}") from error
        return _history(frame)


def _history(frame: pd.DataFrame) -> History:
    wanted = [*COLUMNS, *ACTIONS]
    if not isinstance(frame.index, pd.DatetimeIndex) or not set(wanted) <= set(frame.columns):
        raise MalformedError(f"expected the columns {', '.join(wanted)}, found {', '.join(map(str, frame.columns))}")
    if frame.empty:
        raise EmptyError("Yahoo knows it and has no bar of these sessions")
    sessions = frame.index.tz_localize(None).normalize().to_numpy(dtype="datetime64[s]")
    numbers = frame[wanted].apply(pd.to_numeric, errors="coerce").astype("float64")
    bars = numbers[list(COLUMNS)].apply(_as_written).rename(columns=COLUMNS).assign(session=sessions)[BAR_COLUMNS]
    parts = []
    for theirs, kind in ACTIONS.items():
        there = (numbers[theirs] != 0).to_numpy()
        values = {"ex_date": sessions[there], "kind": kind, "value": numbers[theirs].to_numpy()[there]}
        parts.append(pd.DataFrame(values))
    actions = pd.concat(parts, ignore_index=True).sort_values(["ex_date", "kind"], ignore_index=True)
    # yfinance adds a row without prices for an action on a day that has no bar.
    added = numbers[["Open", "High", "Low", "Close"]].isna().all(axis=1) & (numbers[list(ACTIONS)] != 0).any(axis=1)
    return History(bars[~added.to_numpy()].reset_index(drop=True), actions)


def _as_written(numbers: "pd.Series[float]") -> "pd.Series[float]":
    """97.6 for 97.5999984741211: the shortest number that a 32-bit float stands for, where it is one."""
    wide = numbers.to_numpy(dtype=np.float64)
    with np.errstate(over="ignore"):
        short = wide.astype(np.float32)
    written = np.where(short == wide, short.astype(str).astype(np.float64), wide)
    return pd.Series(written, index=numbers.index)


class _Zones:
    """yfinance's table of time zones, a file of SQLite's, for one thread at a time; one that cannot be used is none."""

    def __init__(self) -> None:
        self._table, self._lock = cache._TzCache(), threading.Lock()

    def lookup(self, key: str) -> str | None:
        with self._lock, suppress(PeeweeException):
            zone: str | None = self._table.lookup(key)
            return zone
        return None

    def store(self, key: str, value: str | None) -> None:
        with self._lock, suppress(PeeweeException):
            self._table.store(key, value)


def _clear_yfinance(folder: Path) -> None:
    """Forget what an earlier run left in this process, and keep the time zones in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="^yfinance")  # it turns them on itself
    logging.getLogger("yfinance").setLevel(logging.CRITICAL)  # we say ourselves what went wrong
    yfinance.config.debug.hide_exceptions = False
    SingletonMeta._instances.pop(YfData, None)
    YfData.cache_get.cache_clear()
    yfinance.set_tz_cache_location(str(folder))
    cache._TzCacheManager._tz_cache = _Zones()
    cache._CookieCacheManager._Cookie_cache = cache._CookieCacheDummy()


def _brief(error: Exception) -> str:
    return f"{type(error).__name__} {ascii(' '.join(str(error).split()))[1:-1]}"[:200]
