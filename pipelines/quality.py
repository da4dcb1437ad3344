"""`tapewire prices check`: the faults of the bars in the lake, or of price files before they are imported.

Reads and tells; stores nothing. Each file is judged by itself; that two of them disagree is found by the import.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.calendar import sessions
from data.errors import InputError, LakeError
from data.intake import MOST_UNREADABLE, UNREADABLE
from data.prices.files import ALIASES, OPTIONAL, REQUIRED, PriceTerms, price_rows, refuse_ticker
from data.prices.markets import calendar_of
from data.quality import CODES, check
from data.quality.rows import PRICES
from data.tabular import choose_columns, read_batches
from pipelines.table import aligned
from pipelines.workspace import Workspace

BLOCK_TICKERS = 500  # of the lake at once
LONGEST_HEAD = 1 << 16
MOST_LINES = 200  # of the table; --json has all
NO_ACTIONS = pd.DataFrame({"ticker": [], "ex_date": [], "kind": [], "value": []}).astype(
    {"ticker": "str", "ex_date": "datetime64[s]", "kind": "str", "value": "float64"}
)

# The reasons of an import that are not codes already.
REASONS = {
    "no ticker": "no-ticker",
    "odd ticker": "odd-ticker",
    "stamp in the future": "future-bar",
    "unreadable adjusted close": "odd-adjusted-close",
    "adjusted close not above zero": "odd-adjusted-close",
    "unreadable dividend or split": "odd-action",
    "dividend above the close": "odd-action",
    **dict.fromkeys(UNREADABLE, "unreadable-date"),
}


@dataclass(frozen=True)
class Checked:
    """Flags (see `data.quality.check`; with the file's name, empty for the lake) and what was looked at."""

    flags: pd.DataFrame
    tickers: int
    bars: int

    @property
    def exit_code(self) -> int:
        """2 where a file would be refused, 3 where rows would be left out, else 0."""
        severities = set(self.flags["severity"])
        return 2 if "refuse" in severities else 3 if "quarantine" in severities else 0

    def as_dict(self) -> dict[str, object]:
        """The contract of `prices check --json`."""
        return {"flags": self.runs(), "codes": self.codes(), "tickers": self.tickers, "bars": self.bars}

    def codes(self) -> dict[str, dict[str, object]]:
        """Each code that was found, the gravest first, then the most frequent."""
        counts = self.flags["code"].value_counts()
        grave = ["refuse", "quarantine", "warn"]
        found = sorted(counts.index, key=lambda name: (grave.index(CODES[name].severity), -counts[name], name))
        return {
            name: {"severity": CODES[name].severity, "count": int(counts[name]), "sentence": CODES[name].sentence}
            for name in found
        }

    def runs(self) -> list[dict[str, Any]]:
        """The flags of one ticker and code in sessions that follow each other as one record."""
        flags = self.flags.sort_values(["file", "ticker", "code", "session"], ignore_index=True)
        same = (flags[["file", "ticker", "code"]] == flags[["file", "ticker", "code"]].shift()).all(axis=1)
        follows = flags["position"].diff().eq(1) & flags["position"].shift().ge(0)
        run = (~(same & follows)).cumsum()
        parts = flags.groupby(run, sort=False)
        merged = parts.first().assign(last=parts["session"].last(), sessions=parts.size())
        merged = merged.sort_values(["file", "ticker", "session", "code"])
        return [
            {
                "file": row["file"] or None,
                "ticker": row["ticker"] or None,
                "first": _day(row["session"]),
                "last": _day(row["last"]),
                "sessions": row["sessions"],
                **{name: row[name] for name in ("code", "severity", "detail")},
            }
            for row in merged.to_dict("records")
        ]


def check_lake(workspace: Workspace, now: np.datetime64) -> Checked:
    """The current bars of the lake, each ticker by its own exchange's calendar. LakeError where there are none."""
    lake = workspace.lake
    tickers = sorted(lake.read("bars", ["ticker"])["ticker"].unique().to_pylist())
    if not tickers:
        raise LakeError(f"{lake.folder}: expected bars to check, found none. Name files, or import some first.")
    actions = lake.current("actions")
    parts, bars = [], 0
    for start in range(0, len(tickers), BLOCK_TICKERS):
        block = pd.Series(tickers[start : start + BLOCK_TICKERS], dtype="str")
        rows = lake.current_among("bars", block, [*PRICES, "volume", "basis"])
        parts.append(_flags(workspace, rows, actions, now))
        bars += len(rows)
    return Checked(pd.concat(parts, ignore_index=True), len(tickers), bars)


def check_files(workspace: Workspace, paths: Sequence[Path], terms: PriceTerms) -> Checked:
    """The rows of price files as an import with these `terms` would read them. Refusals are flags, not errors."""
    parts, tickers, bars = [_refusal("no-usable-row", "", "")[:0]], set(), 0
    for path in paths:
        file = _File(path, terms)
        found = file.flags(workspace)
        parts.append(found.assign(file=str(path)))
        tickers |= file.tickers
        bars += file.read
    return Checked(pd.concat(parts, ignore_index=True), len(tickers), bars)


class _File:
    """One file, read as an import reads it, but with the faulty rows kept."""

    def __init__(self, path: Path, terms: PriceTerms) -> None:
        self._path, self._terms = path, terms
        self.read, self.tickers = 0, set[str]()

    def flags(self, workspace: Workspace) -> pd.DataFrame:
        """All of its faults; where it cannot be read, why."""
        try:
            parts = list(self._batches())
        except InputError as error:
            code = "decimal-comma" if _has_semicolons(self._path) else error.code
            return _refusal(code, str(error), "")
        rows = pd.concat([rows for rows, _ in parts], ignore_index=True)
        flags = pd.concat([named for _, named in parts], ignore_index=True)
        actions = _actions(rows)
        found = [flags, _flags(workspace, rows.assign(basis=self._terms.basis), actions, self._terms.now)]
        self.tickers = set(rows["ticker"].dropna().unique())
        unreadable = int((flags["code"] == "unreadable-date").sum())
        if unreadable > MOST_UNREADABLE * self.read:
            found.append(_refusal("unreadable-dates", f"{unreadable} of {self.read} rows", ""))
        severe = pd.concat(found, ignore_index=True)
        if not self._usable(severe):
            found.append(_refusal("no-usable-row", f"{self.read} rows, each with a fault", ""))
        return pd.concat(found, ignore_index=True).drop_duplicates(["ticker", "session", "code", "detail"])

    def _usable(self, flags: pd.DataFrame) -> bool:
        return int((flags["severity"] == "quarantine").sum()) < self.read

    def _batches(self) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
        """Rows, and flags of those faults that `check` does not look for."""

        def choose(names: list[str]) -> dict[str, str]:
            try:
                found = choose_columns(names, REQUIRED, OPTIONAL, ALIASES, self._terms.mapping, self._path)
                refuse_ticker(self._path, "ticker" in found, self._terms.ticker)
            except InputError as error:
                raise InputError(str(error), code="missing-column") from error
            return found

        for table in read_batches(self._path, choose):
            rows, faults = price_rows(table, self._terms, self._path)
            named, bad = [_refusal("", "", "")[:0]], np.zeros(len(rows), dtype=bool)
            for reason, where in faults:  # of a row's faults the first one counts
                new = np.flatnonzero(where & ~bad)
                if reason not in CODES and len(new):
                    named.append(_row_flags(rows.iloc[new], REASONS.get(reason, "before-calendar"), self.read + new))
                bad |= where
            self.read += len(rows)
            yield rows.assign(ticker=rows["ticker"].astype("str")), pd.concat(named)


def _has_semicolons(path: Path) -> bool:
    """Whether a text file's first line is cut by semicolons, as where the comma is the decimal sign."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.readline(LONGEST_HEAD)
    return head.count(b";") >= len(REQUIRED) - 1 and b"," not in head


def _flags(workspace: Workspace, rows: pd.DataFrame, actions: pd.DataFrame, now: np.datetime64) -> pd.DataFrame:
    """`check` of each exchange's tickers, with each flag's `position` among the exchange's sessions."""
    config = workspace.config
    names = pd.Index(rows["ticker"].dropna().unique())
    calendars = pd.Series([calendar_of(name, config.tape.calendars, config.calendar) for name in names], index=names)
    parts = [_refusal("", "", "")[:0]]
    for calendar, tickers in calendars.groupby(calendars):
        exchange = sessions(str(calendar))
        own = rows if len(tickers) == len(names) else rows[rows["ticker"].isin(tickers.index)]
        flags = check(own, actions, exchange, now)
        position = exchange.index(flags["session"].to_numpy())
        parts.append(flags.assign(file="", position=position))
    return pd.concat(parts, ignore_index=True)


def _actions(rows: pd.DataFrame) -> pd.DataFrame:
    """The splits and dividends that a file's columns give."""
    parts = [NO_ACTIONS]
    for kind, none in (("split", (0.0, 1.0)), ("dividend", (0.0,))):
        if kind in rows:
            there = rows[kind].notna() & ~rows[kind].isin(none) & rows["session"].notna()
            part = rows.loc[there, ["ticker", "session", kind]].set_axis(["ticker", "ex_date", "value"], axis=1)
            parts.append(part.assign(kind=kind)[NO_ACTIONS.columns])
    return pd.concat(parts, ignore_index=True)


def _row_flags(rows: pd.DataFrame, code: str, numbers: "np.ndarray[Any, Any]") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "ticker": rows["ticker"].astype("str").fillna("").to_numpy(),
            "session": rows["session"].to_numpy(),
            "code": code,
            "severity": CODES[code].severity,
            "detail": [f"row {number + 1}" for number in numbers],
            "file": "",
            "position": -1,
        }
    )


def _refusal(code: str, detail: str, file: str) -> pd.DataFrame:
    """One flag of a whole file."""
    severity = CODES[code].severity if code else ""
    flag = {"ticker": "", "session": pd.NaT, "code": code, "severity": severity, "detail": detail, "file": file}
    return pd.DataFrame([{**flag, "position": -1}]).astype({"session": "datetime64[s]"})


def quality_table(result: Checked) -> str:
    """A line for each ticker and code, the codes with their sentences, and a verdict."""
    flags = result.flags.assign(first=result.flags["session"], last=result.flags["session"])
    keys = ["file", "ticker", "code", "severity"]
    parts = flags.groupby(keys, sort=False)
    told = parts.agg(first=("first", "min"), last=("last", "max"), count=("code", "size"), detail=("detail", "first"))
    body = [
        [
            row["ticker"] or row["file"] or "-",
            _span(row["first"], row["last"]),
            *(str(row[name]) for name in ("code", "severity", "count", "detail")),
        ]
        for row in told.reset_index().sort_values(["file", "ticker", "first"]).to_dict("records")
    ]
    head = [["ticker", "sessions", "code", "severity", "count", "the first of them"]] if body else []
    more = [f"... {len(body) - MOST_LINES} lines more; --json has all."] if len(body) > MOST_LINES else []
    codes = [
        [name, str(code["severity"]), str(code["count"]), str(code["sentence"])]
        for name, code in result.codes().items()
    ]
    tables = [aligned(rows) for rows in (head + body[:MOST_LINES], codes) if rows]
    return "\n".join([*tables[:1], *more, *tables[1:], _verdict(result)])


def _verdict(result: Checked) -> str:
    looked = f"{result.bars} bars of {result.tickers} tickers"
    flagged = f"{len(result.flags)} flags" if len(result.flags) else "no flags"
    ends = {0: "nothing would be left out", 3: "some rows would be left out", 2: "refused: nothing would be stored"}
    return f"{looked}: {flagged}; {ends[result.exit_code]}."


def _span(first: Any, last: Any) -> str:
    days = (_day(first) or "-", _day(last) or "-")
    return days[0] if days[0] == days[1] else f"{days[0]}..{days[1]}"


def _day(session: Any) -> str | None:
    return None if pd.isna(session) else f"{session:%Y-%m-%d}"
