"""Stooq's daily bars: CSV, as traded, and the splits and dividends that its adjustments imply.

Stooq names no actions, but leaves out of its prices the adjustments one asks it to. A ticker is read three times:
as traded, adjusted for splits alone and for dividends alone; the steps between them are the actions. Stooq allows few
requests a day, has asked for a key since 2026, which it takes in the address alone, and may refuse what is no
browser; each of these ends in an error that says so. Neither the address nor the key is in any of them.
"""

import csv
import io
from fractions import Fraction
from urllib.parse import quote, urlencode

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.prices.source import ACTION_COLUMNS, History, MalformedError, RefusedError, UnknownTickerError
from data.prices.web import Web, is_markup

URL = "https://stooq.com/q/d/l/"
HEADER = ["date", "open", "high", "low", "close", "volume"]
MOST_ROWS = 50_000

# Which adjustments are left out: splits, dividends and five kinds of rights and denominations.
AS_TRADED, FOR_SPLITS, FOR_DIVIDENDS = "1111111", "0111111", "1011111"

SUFFIXES = {".L": ".uk", ".T": ".jp", ".HK": ".hk", ".DE": ".de", ".WA": ".pl", "-USD": ".v"}
SMALLEST_SPLIT = 0.01  # as a share: less is rounding
SMALLEST_DIVIDEND = 2e-4
QUOTA_WAIT = 12 * 3600.0  # seconds: its quota is by the day

Floats = npt.NDArray[np.float64]


class StooqSource:
    """`PriceSource` of stooq.com. A ticker without a suffix is one of the US."""

    name = "stooq"
    split_adjusted = False
    unit = 1e-4

    def __init__(self, web: Web, key: str = "", url: str = URL) -> None:
        self._web, self._key, self._url = web, key, url

    def history(self, ticker: str, since: np.datetime64) -> History:
        """See `PriceSource`."""
        symbol = symbol_of(ticker)
        traded = self._table(symbol, since, AS_TRADED)
        split = _factor(traded, self._table(symbol, since, FOR_SPLITS))
        paid = _factor(traded, self._table(symbol, since, FOR_DIVIDENDS))
        actions = [_splits(traded, split), _dividends(traded, paid)]
        return History(traded, pd.concat(actions, ignore_index=True).sort_values("ex_date", ignore_index=True))

    def _table(self, symbol: str, since: np.datetime64, left_out: str) -> pd.DataFrame:
        first = str(since.astype("datetime64[D]")).replace("-", "")
        query = {"s": symbol, "d1": first, "d2": "20991231", "i": "d", "o": left_out}
        if self._key:
            query["apikey"] = self._key
        return self._read(self._web.get(f"{self._url}?{urlencode(query, quote_via=quote)}"))

    def _read(self, body: bytes) -> pd.DataFrame:
        start = body[:200].lower()
        if b"daily hits limit" in start:
            raise self._web.limited(None, QUOTA_WAIT, "Stooq's quota of requests for today is used up")
        if b"apikey" in start or b"api key" in start:
            raise RefusedError("Stooq asks for a key: see key_env and key_file")
        if is_markup(body):
            raise MalformedError("expected CSV, found HTML or XML")
        if start.strip() in (b"", b"no data", b"brak danych", b"n/d"):
            raise UnknownTickerError("Stooq has no data of it")
        return parse_csv(body)


def symbol_of(ticker: str) -> str:
    """Stooq's symbol of a ticker written as Yahoo's: AAPL is aapl.us, VOD.L is vod.uk."""
    for ours, theirs in SUFFIXES.items():
        if ticker.endswith(ours):
            return f"{ticker.removesuffix(ours).lower()}{'usd' if ours == '-USD' else ''}{theirs}"
    if ticker.startswith("^"):
        return ticker.lower()
    if "." in ticker or "=" in ticker:
        raise UnknownTickerError(f"Stooq's symbol for the market of {ticker} is not known here")
    return f"{ticker.lower()}.us"


def parse_csv(body: bytes) -> pd.DataFrame:
    """The columns of `HEADER` as a frame of bars, by session. Raises MalformedError for anything but such CSV."""
    try:
        lines = [line for line in csv.reader(io.StringIO(body.decode()), strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise MalformedError(f"expected CSV in UTF-8, found: {error}") from None
    head, rows = [name.strip().lower() for name in lines[0]], lines[1:]
    if head not in (HEADER, HEADER[:-1]):
        raise MalformedError(f"expected the columns {', '.join(HEADER)}, found {ascii(', '.join(lines[0]))[1:200]}")
    if len(rows) > MOST_ROWS:
        raise MalformedError(f"expected at most {MOST_ROWS} rows, found {len(rows)}")
    odd = next((row for row in rows if len(row) != len(head)), None)
    if odd is not None:
        comma = "; is its decimal sign a comma?" if len(odd) > len(head) else ""
        raise MalformedError(f"expected {len(head)} cells a row, found {ascii(', '.join(odd))[1:100]}{comma}")
    if not rows:
        raise UnknownTickerError("Stooq has no data of it")
    table = pd.DataFrame(rows, columns=head)
    dates = pd.to_datetime(table["date"], format="%Y-%m-%d", errors="coerce").astype("datetime64[s]")
    numbers = {name: pd.to_numeric(table[name], errors="coerce").astype("float64") for name in head[1:]}
    bars = pd.DataFrame({"session": dates, "volume": 0.0, **numbers})
    return bars[["session", *HEADER[1:]]].sort_values("session", ignore_index=True)


def _factor(traded: pd.DataFrame, adjusted: pd.DataFrame) -> Floats:
    """What each bar's close was multiplied by, on the sessions of `traded`; NaN where it is not known."""
    closes = adjusted.drop_duplicates("session").set_index("session")["close"].reindex(traded["session"])
    return np.asarray(closes.to_numpy() / traded["close"].where(traded["close"] > 0).to_numpy(), dtype=np.float64)


def _steps(factor: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """Rows whose factor can be compared with that of a row before, and the later over the earlier."""
    known = np.flatnonzero(np.isfinite(factor) & (factor > 0))
    return known[1:], factor[known[1:]] / factor[known[:-1]]


def _splits(traded: pd.DataFrame, factor: Floats) -> pd.DataFrame:
    rows, steps = _steps(factor)
    there = np.abs(np.log(steps)) > SMALLEST_SPLIT
    return _frame(traded, rows[there], "split", np.array([_ratio(step) for step in steps[there]]))


def _dividends(traded: pd.DataFrame, factor: Floats) -> pd.DataFrame:
    rows, steps = _steps(factor)
    share = 1 - 1 / steps
    there = share > SMALLEST_DIVIDEND
    before = traded["close"].to_numpy()[rows[there] - 1]
    return _frame(traded, rows[there], "dividend", share[there] * before)


def _ratio(step: float) -> float:
    """The nearest ratio of small numbers, where the step is one but for rounding."""
    simple = float(Fraction(step).limit_denominator(20) if step >= 1 else 1 / Fraction(1 / step).limit_denominator(20))
    return simple if abs(simple / step - 1) < 2e-3 else float(step)


def _frame(traded: pd.DataFrame, rows: npt.NDArray[np.int64], kind: str, values: Floats) -> pd.DataFrame:
    dates = traded["session"].to_numpy()[rows]
    return pd.DataFrame({"ex_date": dates, "kind": kind, "value": values.astype(np.float64)})[ACTION_COLUMNS]
