"""Yahoo's endpoints (cookie, crumb, chart) on 127.0.0.1, with made-up listings, and yfinance's session to it.

    with YahooStub() as stub:
        stub.listings["ACME"] = listing(days(30))
        stub.today = date
        source = YahooSource(limiter, folder, StubSession(limiter, stub.url))

A listing is as traded; what is served is divided by every split up to `today`, prices as 32-bit floats, as Yahoo does.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd

from data.calendar import sessions
from data.prices.limiter import Limiter
from data.prices.yahoo import YahooSession

SPLIT, DIVIDEND = "split", "dividend"


@dataclass
class Listing:
    """One ticker: `bars` as traded (session, open, high, low, close, volume); actions as (date, kind, value)."""

    bars: pd.DataFrame
    actions: list[tuple[str, str, float]] = field(default_factory=list)
    calendar: str = "XNYS"
    unadjusted: set[str] = field(default_factory=set)  # dates of splits that the bars are not yet adjusted for


def days(count: int, end: str = "2024-03-28", calendar: str = "XNYS") -> Any:
    """The last so many sessions up to `end`."""
    labels = sessions(calendar).labels
    return labels[labels <= np.datetime64(end)][-count:]


def listing(labels: Any, seed: int = 0, start: float = 100.0, calendar: str = "XNYS") -> Listing:
    """A quiet random walk in cents."""
    chance = np.random.default_rng(seed)
    close = np.round(start * np.exp(np.cumsum(chance.normal(0, 0.01, len(labels)))), 2)
    opening = np.round(np.append(start, close[:-1]) * np.exp(chance.normal(0, 0.003, len(labels))), 2)
    high = np.round(np.maximum(opening, close) * 1.01, 2)
    low = np.round(np.minimum(opening, close) * 0.99, 2)
    volume = chance.integers(10_000, 1_000_000, len(labels)).astype(float)
    columns = {"open": opening, "high": high, "low": low, "close": close, "volume": volume}
    return Listing(pd.DataFrame({"session": labels.astype("datetime64[s]"), **columns}), calendar=calendar)


class StubSession(YahooSession):
    """yfinance's own session, whose requests go to the stub."""

    def __init__(self, limiter: Limiter, url: str) -> None:
        super().__init__(limiter)
        self._stub = url

    def address(self, url: str) -> str:
        return f"{self._stub}/{url.removeprefix('https://')}"


@dataclass(frozen=True)
class Reply:
    """What is answered in place of the truth."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


Twist = Callable[[str, int], Reply | None]  # of a ticker and the count of its visits so far


@dataclass
class YahooStub:
    """A context manager. `twist` may answer in place of a listing; `doctor` may change the JSON of one."""

    listings: dict[str, Listing] = field(default_factory=dict)
    today: Any = field(default_factory=lambda: np.datetime64("2024-03-28"))
    twist: Twist = lambda ticker, visits: None
    doctor: Callable[[str, dict[str, Any]], Any] = lambda ticker, chart: chart
    crumb: Reply = Reply(body=b"a.crumb")
    visits: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    url: str = ""

    def asked(self, ticker: str) -> int:
        """Requests for prices of a ticker, without those for its time zone."""
        return sum(path.endswith(f"/chart/{ticker}") and "period1" in query for path, query in self.visits)

    def charts(self) -> int:
        return sum("/chart/" in path for path, _ in self.visits)

    def __enter__(self) -> Self:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(parts.query).items()}
                reply = stub.answer(parts.path, query)
                self.send_response(reply.status)
                for name, value in ({"Content-Length": str(len(reply.body))} | reply.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # a client that was killed

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, path: str, query: dict[str, str]) -> Reply:
        self.visits.append((path, query))
        self.times.append(time.monotonic())
        if path.startswith("/fc.yahoo.com"):
            return Reply(404, b"", {"Set-Cookie": "A3=made-up; Domain=127.0.0.1; Path=/"})
        if path.endswith("/getcrumb"):
            return self.crumb
        if "/v8/finance/chart/" not in path:
            return Reply(404, b"no such page")
        ticker = path.rpartition("/")[2]
        return self.twist(ticker, self.asked(ticker)) or self._chart(ticker, query)

    def _chart(self, ticker: str, query: dict[str, str]) -> Reply:
        if ticker not in self.listings:
            said = {"code": "Not Found", "description": "No data found, symbol may be delisted"}
            return Reply(404, json.dumps({"chart": {"result": None, "error": said}}).encode())
        first, last = int(query.get("period1", 0)), int(query.get("period2", 2**40))
        chart = self.doctor(ticker, chart_of(self.listings[ticker], ticker, first, last, self.today))
        text = json.dumps({"chart": {"result": [chart], "error": None}}) if isinstance(chart, dict) else chart
        return Reply(body=text.encode(), headers={"Content-Type": "application/json"})


def chart_of(listed: Listing, ticker: str, first: int, last: int, today: Any) -> dict[str, Any]:
    """The object `chart.result[0]` for the bars that start from `first` (epoch seconds) until `last`."""
    exchange = sessions(listed.calendar)
    bars = listed.bars[listed.bars["session"] <= today]
    opens = exchange.opens[exchange.index(bars["session"].to_numpy())].astype("datetime64[s]").astype(np.int64)
    inside = (opens >= first) & (opens < last)
    factor, prices = np.ones(len(bars)), {}
    splits = [(day, value) for day, kind, value in listed.actions if kind == SPLIT and np.datetime64(day) <= today]
    for day, ratio in splits:
        if day not in listed.unadjusted:
            factor[(bars["session"] < np.datetime64(day)).to_numpy()] *= ratio
    for name in ("open", "high", "low", "close"):
        prices[name] = _numbers((bars[name] / factor).astype(np.float32).astype(np.float64).to_numpy()[inside])
    prices["volume"] = _numbers(np.round(bars["volume"] * factor).to_numpy()[inside])
    chart: dict[str, Any] = {"meta": _meta(ticker, listed.calendar), "indicators": {"quote": [{}]}}
    if inside.any():
        quote = {"quote": [prices], "adjclose": [{"adjclose": prices["close"]}]}
        chart |= {"timestamp": opens[inside].tolist(), "indicators": quote}
    events: dict[str, dict[str, Any]] = {}
    for day, kind, value in listed.actions:
        at = int(exchange.opens[exchange.index([np.datetime64(day)])][0].astype("datetime64[s]").astype(np.int64))
        if np.datetime64(day) <= today and first <= at < last:
            later = np.prod([ratio for split, ratio in splits if split > day and split not in listed.unadjusted])
            events.setdefault(f"{kind}s", {})[str(at)] = _event(kind, at, value / (later if kind == DIVIDEND else 1))
    return chart | ({"events": events} if events else {})


def _event(kind: str, at: int, value: float) -> dict[str, Any]:
    if kind == DIVIDEND:
        return {"amount": round(value, 6), "date": at}
    up = value if value >= 1 else 1.0
    return {"date": at, "numerator": up, "denominator": up / value, "splitRatio": f"{up:g}:{up / value:g}"}


def _numbers(values: Any) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _meta(ticker: str, calendar: str) -> dict[str, Any]:
    zones = {"XNYS": "America/New_York", "XLON": "Europe/London", "24/7": "UTC", "XTKS": "Asia/Tokyo"}
    return {
        "currency": "USD",
        "symbol": ticker,
        "exchangeName": "NMS",
        "instrumentType": "EQUITY",
        "firstTradeDate": 0,
        "gmtoffset": 0,
        "timezone": "EST",
        "exchangeTimezoneName": zones[calendar],
        "priceHint": 2,
        "dataGranularity": "1d",
        "range": "",
        "validRanges": ["1d", "5d", "1mo", "max"],
    }
