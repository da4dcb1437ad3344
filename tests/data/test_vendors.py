"""Stooq and Tiingo over a local web server, and the key, markets and session of any vendor."""

import json
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
from feed_server import FeedServer, bomb, gzipped, hang_up, plain, redirect, status
from yahoo_stub import StubSession, YahooStub, days, listing

from data.errors import ConfigError
from data.prices import stooq, web, yahoo
from data.prices.limiter import Limiter
from data.prices.markets import calendar_of
from data.prices.source import (
    EmptyError,
    MalformedError,
    RateLimitedError,
    RefusedError,
    StoppedError,
    UnavailableError,
    UnknownTickerError,
)
from data.prices.stooq import StooqSource, parse_csv, symbol_of
from data.prices.tape import TapeConfig, open_source, read_key
from data.prices.tiingo import TiingoSource
from data.prices.web import Web
from data.prices.yahoo import YahooSource

SINCE = np.datetime64("2024-03-01")
KEY = "s3cret-key"


@pytest.fixture
def server():
    with FeedServer() as started:
        yield started


@pytest.fixture
def limiter():
    return Limiter(1000.0, 10)


def tiingo(server, limiter):
    return TiingoSource(Web(limiter, allow_private=True, deadline=5.0), KEY, server.url("/daily"))


PATH = "/daily/acme/prices?startDate=2024-03-01&format=json"


def day(number, **fields):
    row = {"date": f"2024-03-{number:02d}T00:00:00.000Z", "open": 10.0, "high": 11.0, "low": 9.0, "close": 10.5}
    return row | {"volume": 1000, "divCash": 0.0, "splitFactor": 1.0, "adjClose": 1.0} | fields


def test_tiingo_gives_bars_and_actions_as_traded(server, limiter):
    rows = [day(4), day(5, splitFactor=4.0), day(6, divCash=0.25, close=None), day(7, volume="many")]
    server.add(PATH, json.dumps(rows).encode(), behaviour=gzipped)
    history = tiingo(server, limiter).history("ACME", SINCE)
    assert history.bars["session"].dt.day.tolist() == [4, 5, 6, 7]
    assert history.bars["close"].isna().tolist() == [False, False, True, False]
    assert history.bars["volume"].isna().tolist() == [False, False, False, True]
    records = [(f"{at:%d}", kind, value) for at, kind, value in history.actions.itertuples(index=False)]
    assert records == [("05", "split", 4.0), ("06", "dividend", 0.25)]


def test_the_key_is_in_a_header_and_nowhere_else(server, limiter):
    server.add(PATH, b"[]", behaviour=plain)
    source = tiingo(server, limiter)
    with pytest.raises(EmptyError):
        source.history("ACME", SINCE)
    (visit,) = server.visits()
    assert visit.headers["authorization"] == f"Token {KEY}"
    assert KEY not in visit.path
    for behaviour in (status(500), status(401), status(404), hang_up, status(302, location=f"http://x/{KEY}")):
        server.add(PATH, behaviour=behaviour)
        with pytest.raises(Exception) as caught:  # noqa: PT011
            tiingo(server, Limiter(1000.0)).history("ACME", SINCE)
        assert KEY not in repr(caught.value) + str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<html>Log in</html>", MalformedError),
        (b"{}", MalformedError),
        (b"7", MalformedError),
        (b"[[1, 2]]", MalformedError),
        (b'[{"date": "2024-03-04"}]', MalformedError),
        (b"[" * 200_000, MalformedError),
        (b'{"detail": "Error: Ticker \'ACME\' not found"}', UnknownTickerError),
        (b'{"detail": "Error: You have run over your hourly request allocation."}', RateLimitedError),
        (b'{"detail": "Invalid token."}', RefusedError),
        (b'{"detail": "Something else"}', MalformedError),
        (b"\xff\xfe", MalformedError),
    ],
)
def test_what_tiingo_says_otherwise_has_its_name(server, limiter, body, error):
    server.add(PATH, body, behaviour=plain)
    with pytest.raises(error):
        tiingo(server, limiter).history("ACME", SINCE)


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (status(404), UnknownTickerError),
        (status(401), RefusedError),
        (status(403), RefusedError),
        (status(429), RateLimitedError),
        (status(429, retry_after="7"), RateLimitedError),
        (status(503, retry_after="7"), RateLimitedError),
        (status(503), UnavailableError),
        (status(500), UnavailableError),
        (redirect("http://127.0.0.1:9/"), MalformedError),
        (hang_up, UnavailableError),
    ],
)
def test_how_a_server_fails_has_its_name(server, limiter, behaviour, error):
    server.add(PATH, behaviour=behaviour)
    with pytest.raises(error):
        tiingo(server, limiter).history("ACME", SINCE)
    assert len(server.visits()) == 1


def test_an_answer_that_unpacks_to_too_much_is_not_read(server, limiter, monkeypatch):
    monkeypatch.setattr(web, "MAX_BYTES", 1 << 20)
    server.add(PATH, behaviour=bomb)
    with pytest.raises(MalformedError, match="too large"):
        tiingo(server, limiter).history("ACME", SINCE)


def test_private_addresses_are_not_asked_for_a_vendor(server, limiter):
    server.add(PATH, b"[]", behaviour=plain)
    with pytest.raises(UnavailableError, match="not public"):
        TiingoSource(Web(limiter), KEY, server.url("/daily")).history("ACME", SINCE)
    assert not server.visits()


def _csv(closes, volumes=True):
    head = "Date,Open,High,Low,Close" + (",Volume" if volumes else "")
    rows = [f"2024-03-{at:02d},{c},{c},{c},{c}" + (",1000" if volumes else "") for at, c in closes]
    return "\r\n".join([head, *rows, ""]).encode()


def stooq_of(server, limiter, traded, splits=None, dividends=None, key=""):
    bodies = {stooq.AS_TRADED: traded, stooq.FOR_SPLITS: splits or traded, stooq.FOR_DIVIDENDS: dividends or traded}
    suffix = f"&apikey={key}" if key else ""
    for left_out, body in bodies.items():
        server.add(f"/q/d/l/?s=acme.us&d1=20240301&d2=20991231&i=d&o={left_out}{suffix}", body, behaviour=plain)
    return StooqSource(Web(limiter, allow_private=True, deadline=5.0), key, server.url("/q/d/l/"))


def test_stooqs_actions_are_the_steps_of_its_adjustments(server, limiter):
    traded = [(4, 100.0), (5, 101.0), (6, 25.5), (7, 25.0), (8, 25.2)]
    split = [(4, 25.0), (5, 25.25), *traded[2:]]
    paid = [(at, round(close * (1 - 0.25 / 25.5), 4) if at < 7 else close) for at, close in traded]
    history = stooq_of(server, limiter, _csv(traded), _csv(split), _csv(paid)).history("ACME", SINCE)
    assert history.bars["close"].tolist() == [close for _, close in traded]
    records = [(f"{at:%d}", kind) for at, kind, _ in history.actions.itertuples(index=False)]
    assert records == [("06", "split"), ("07", "dividend")]
    assert history.actions["value"].tolist() == pytest.approx([4.0, 0.25], rel=1e-3)
    assert history.actions["value"].iloc[0] == 4.0


def test_stooq_takes_its_key_in_the_query(server, limiter):
    source = stooq_of(server, limiter, _csv([(4, 10.0)]), key=KEY)
    assert len(source.history("ACME", SINCE).bars) == 1


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"No data", UnknownTickerError),
        (b"", UnknownTickerError),
        (_csv([]), UnknownTickerError),
        (b"Exceeded the daily hits limit", RateLimitedError),
        (b"Get your apikey: ...", RefusedError),
        (b"<!DOCTYPE html><html></html>", MalformedError),
        (b"Data;Otwarcie;Zamkniecie\n2024-03-04;1;2\n", MalformedError),
        (b"Date,Open,High,Low,Close,Volume\n2024-03-04,10,5,11,0,9,0,10,5,1000\n", MalformedError),
        (b"Date,Open,High,Low,Close,Volume\n2024-03-04,1\n", MalformedError),
        (b'Date,Open,High,Low,Close,Volume\n"2024-03-04,1', MalformedError),
        (b"\xff\xfe\x00", MalformedError),
    ],
)
def test_what_stooq_says_otherwise_has_its_name(server, limiter, body, error):
    with pytest.raises(error) as caught:
        stooq_of(server, limiter, body).history("ACME", SINCE)
    assert "http" not in str(caught.value)


def test_a_decimal_comma_is_named():
    with pytest.raises(MalformedError, match="comma"):
        parse_csv(b"Date,Open,High,Low,Close,Volume\n2024-03-04,10,5,11,0,9,0,10,5,1000\n")


def test_cells_that_are_no_numbers_are_missing():
    rows = parse_csv(b'Date,Open,High,Low,Close,Volume\n2024-03-04,"10,5",N/D,1e400,-,1\nsoon,1,1,1,1,1\n')
    assert rows.loc[0, ["open", "high", "close"]].isna().all()
    assert np.isinf(rows.loc[0, "low"])
    assert pd.isna(rows.loc[1, "session"])


def test_a_table_without_volumes_is_one_of_an_index():
    assert parse_csv(_csv([(4, 10.0)], volumes=False))["volume"].tolist() == [0.0]


@pytest.mark.parametrize(
    ("ticker", "symbol"),
    [("AAPL", "aapl.us"), ("BRK-B", "brk-b.us"), ("VOD.L", "vod.uk"), ("7203.T", "7203.jp"), ("BTC-USD", "btcusd.v")],
)
def test_symbols_of_stooq(ticker, symbol):
    assert symbol_of(ticker) == symbol


def test_a_market_that_stooq_does_not_have_is_an_unknown_ticker():
    with pytest.raises(UnknownTickerError):
        symbol_of("RELIANCE.NS")


@pytest.mark.parametrize(
    ("ticker", "code"),
    [
        ("AAPL", "XNYS"),
        ("BRK-B", "XNYS"),
        ("VOD.L", "XLON"),
        ("7203.T", "XTKS"),
        ("0700.HK", "XHKG"),
        ("BTC-USD", "24/7"),
        ("RELIANCE.NS", "XNSE"),
        ("EURUSD=X", "24/5"),
        ("ODD.XX", "XNYS"),
        ("OWN.L", "XDUB"),
        ("SELF", "24/7"),
    ],
)
def test_the_calendar_of_a_ticker(ticker, code):
    assert calendar_of(ticker, {"OWN.L": "XDUB", "SELF": "24/7", ".L": "XLON"}, "XNYS") == code


def test_a_key_comes_from_where_the_configuration_says(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", KEY)
    (tmp_path / "key").write_text(f"{KEY}\n")
    assert read_key(TapeConfig(key_env="SOME_KEY"), tmp_path) == KEY
    assert read_key(TapeConfig(key_file="key"), tmp_path) == KEY
    assert read_key(TapeConfig(), tmp_path) == ""


@pytest.mark.parametrize("text", ["", "two words", "line\nbreak", "\x00", "k" * 600, "clé"])
def test_a_key_that_is_none_is_refused_and_not_shown(tmp_path, text):
    (tmp_path / "key").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_key(TapeConfig(key_file="key"), tmp_path)
    assert not text or text not in str(caught.value)


def test_a_key_that_is_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_KEY", raising=False)
    for config in (TapeConfig(key_env="NO_KEY"), TapeConfig(key_file="none"), TapeConfig(key_file=".")):
        with pytest.raises(ConfigError, match="expected a"):
            read_key(config, tmp_path)
    with pytest.raises(ConfigError, match="found both"):
        read_key(TapeConfig(key_env="A", key_file="b"), tmp_path)
    with pytest.raises(ConfigError, match="key_env"):
        open_source(TapeConfig(source="tiingo"), Limiter(1.0), tmp_path)


def test_yahoo_is_asked_for_a_cookie_a_crumb_and_a_time_zone_once(tmp_path, limiter):
    with YahooStub() as stub:
        stub.listings["ACME"] = listing(days(20))
        for _ in range(2):  # runs: the second knows the time zone from the workspace
            source = YahooSource(limiter, tmp_path, StubSession(limiter, stub.url))
            for _ in range(3):
                source.history("ACME", SINCE)
        paths = [path for path, _ in stub.visits]
        zones = [query for path, query in stub.visits if "/chart/" in path and "range" in query]
    assert (sum("fc.yahoo" in path for path in paths), sum("getcrumb" in path for path in paths)) == (2, 2)
    assert (len(zones), stub.asked("ACME")) == (1, 6)
    assert not list(tmp_path.glob("*cookie*"))  # a pickle


def test_a_broken_table_of_time_zones_is_done_without(tmp_path, limiter):
    (tmp_path / "tkr-tz.db").write_bytes(b"no database " * 500)
    with YahooStub() as stub:
        stub.listings["ACME"] = listing(days(20))
        source = YahooSource(limiter, tmp_path, StubSession(limiter, stub.url))
        assert all(len(source.history("ACME", SINCE).bars) for _ in range(2))


def test_numbers_come_as_they_were_written(tmp_path, limiter):
    with YahooStub() as stub:
        stub.listings["ACME"] = listing(days(20))
        history = YahooSource(limiter, tmp_path, StubSession(limiter, stub.url)).history("ACME", SINCE)
        true = stub.listings["ACME"].bars
    assert history.bars["close"].tolist() == true["close"].tail(len(history.bars)).tolist()


@pytest.mark.parametrize("ticker", ["A/../B", "A?B", "a b", "", "..", "A%2F", "ACME\n"])
def test_what_is_no_symbol_is_not_asked(tmp_path, limiter, ticker):
    with YahooStub() as stub:
        source = YahooSource(limiter, tmp_path, StubSession(limiter, stub.url))
        with pytest.raises(UnknownTickerError):
            source.history(ticker, SINCE)
        assert not stub.visits


def test_an_answer_of_yahoo_that_is_too_large_is_not_read(tmp_path, limiter, monkeypatch):
    monkeypatch.setattr(yahoo, "MAX_BYTES", 2000)
    with YahooStub() as stub:
        stub.listings["ACME"] = listing(days(60))
        source = YahooSource(limiter, tmp_path, StubSession(limiter, stub.url))
        with pytest.raises(MalformedError, match="too large"):
            source.history("ACME", SINCE - 60)


def test_yahoo_that_is_not_there_is_unavailable(tmp_path, limiter):
    with YahooStub() as stub:
        url = stub.url
    source = YahooSource(limiter, tmp_path, StubSession(limiter, url))
    with suppress(StoppedError), pytest.raises(UnavailableError):
        source.history("ACME", SINCE)
