"""Historic headlines from a user's files: read, dated, keyed, checked. Storing them is `data/news/store.py`.

A backfilled headline is available at `published_at + lag`; one that names only a day counts as known
at the close of the first session after that day. A file is read once, in batches: its usable rows wait
in a temporary file (see `data/spool.py`) while it is checked whole, and what is stored later is what was checked.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from data.calendar import sessions
from data.errors import InputError
from data.intake import MOST_UNREADABLE, ODD_TICKER, UNREADABLE, Quarantine, clean_tickers, refuse_all_bad
from data.invisible import INVISIBLE
from data.news.dates import read_stamps
from data.news.presets import Layout, lay_out
from data.spool import Spool
from data.tabular import BATCH_ROWS, NESTED, read_batches

LONGEST_TITLE = 1_000
LONGEST_SUMMARY = 10_000

# Nothing to clean: printable ASCII, single spaces, none around.
_CLEAN = r"^(?:[!-~]+(?: [!-~]+)*)?$"

_INSTANT = pa.timestamp("us")
SPOOLED = pa.schema(
    [(name, pa.large_string()) for name in ("id", "title", "summary", "source", "url", "published_raw", "precision")]
    + [("ticker", pa.large_string()), ("published_at", _INSTANT), ("available_at", _INSTANT)]
)

Hashes = npt.NDArray[np.int64]
_NONE: Hashes = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Terms:
    """How an import reads its corpora.

    `mapping` is the user's, ours -> theirs; `preset` the corpus they named; `zone` (IANA) that of stamps
    without one; `lag` how long after its stamp a headline was known; `now` (UTC) bounds the future.
    """

    calendar: str
    now: np.datetime64
    lag: np.timedelta64
    mapping: Mapping[str, str]
    zone: str | None = None
    preset: str | None = None


@dataclass(frozen=True)
class Batch:
    """Part of a corpus: one row a headline and ticker, the columns of `SPOOLED`; `problem` is empty where usable."""

    rows: pd.DataFrame
    problem: "pd.Series[str]"


@dataclass(frozen=True)
class HeadlineFile:
    """One file, checked. Its usable rows are batches `first` to `last` (excluded) of `spool`.

    Of each of them `keep` says whether it is stored (a repeat is not), `ids` is a hash of its id and
    `facts` of what rows of one id must agree on; hashes are this process's own.
    """

    path: Path
    read: int
    quarantine: Quarantine
    preset: str | None
    spool: Spool
    first: int
    last: int
    keep: npt.NDArray[np.bool_]
    ids: Hashes
    facts: Hashes

    def batches(self) -> Iterator[pd.DataFrame]:
        """The rows to store, in the file's order."""
        done = 0
        for number in range(self.first, self.last):
            rows = self.spool[number].to_pandas()
            yield rows[self.keep[done : done + len(rows)]].reset_index(drop=True)
            done += len(rows)


def _spooled(rows: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(rows, schema=SPOOLED, preserve_index=False)


def read_headlines(path: Path, terms: Terms, spool: Spool) -> HeadlineFile:
    """The headlines of a CSV, Parquet or JSON lines file, each with the instant it became available.

    Raises InputError for a file that cannot be trusted; rows that cannot are quarantined and counted.
    """
    layouts: list[Layout] = []

    def choose(names: list[str]) -> Mapping[str, str]:
        layouts.append(lay_out(names, terms.mapping, terms.preset, path, *layouts[-1:]))
        return layouts[-1].columns

    tally, first = Tally(path), len(spool)
    for table in read_batches(path, choose):
        spool.append(_spooled(tally.add(read_batch(table, layouts[-1], terms, path.absolute().parent.name))))
    ids, facts, links = tally.check()
    keep = np.zeros(len(links), bool)
    keep[np.unique(links, return_index=True)[1]] = True
    tally.quarantine.add("duplicate row", int((~keep).sum()))
    preset = layouts[-1].preset
    file = HeadlineFile(path, tally.read, tally.quarantine, preset, spool, first, len(spool), keep, ids, facts)
    refuse_disagreement([file], "Keep one of each.")
    return file


def read_batch(table: pa.Table, layout: Layout, terms: Terms, folder: str | None) -> Batch:
    """The rows of one table, whose columns have our names. `folder`: the name of the folder that held the file."""
    written = standard = _instants_or_text(table["published_at"])
    corpus = layout.stamps
    if corpus is not None and corpus.stamp is not None and pa.types.is_large_string(written.type):
        standard = pc.replace_substring_regex(pc.utf8_trim_whitespace(written), *corpus.stamp)
    zone = terms.zone or (corpus.zone if corpus is not None else None)
    stamps = read_stamps(_series(standard), zone, terms.now)
    texts, nested = _texts(table)
    if layout.known is not None and layout.known.ticker_from_folder and "ticker" not in table.column_names:
        texts["ticker"] = _clean(pa.array([folder] * table.num_rows, pa.large_string()))
    rows = _rows(texts, _series(written), stamps)
    rows["available_at"] = _available_at(rows, terms)
    return Batch(rows, _problems(rows, stamps["problem"], nested))


def stored_batches(files: Sequence[HeadlineFile]) -> Iterator[pd.DataFrame]:
    """The rows to store of all `files`, in batches of about `BATCH_ROWS`: many small files make few commits."""
    held: list[pd.DataFrame] = []
    for file in files:
        for rows in file.batches():
            held.append(rows)
            if sum(map(len, held)) >= BATCH_ROWS:
                yield pd.concat(held, ignore_index=True)
                held = []
    if held:
        yield pd.concat(held, ignore_index=True)


def refuse_disagreement(files: Sequence[HeadlineFile], remedy: str) -> None:
    """InputError where rows of one id, of one of `files` or several, differ in title or stamp."""
    ids, facts = (np.concatenate([_NONE, *(getattr(file, name) for file in files)]) for name in ("ids", "facts"))
    order = np.lexsort((facts, ids))
    ids, facts = ids[order], facts[order]
    apart = (ids[1:] == ids[:-1]) & (facts[1:] != facts[:-1])
    if not apart.any():
        return
    first, second = _two_that_differ(files, ids[1:][apart][0])
    where = ", ".join(dict.fromkeys(str(file.path) for file in files[:5]))
    raise InputError(
        f"{where}: expected rows of one item to agree; {len(np.unique(ids[1:][apart]))} items do not, such as "
        f"{first['title'][:60]!r} ({first['published_raw']}) and {second['title'][:60]!r} "
        f"({second['published_raw']}) under one id. {remedy} Nothing was imported."
    )


def _two_that_differ(files: Sequence[HeadlineFile], wanted: np.int64) -> tuple[dict[str, str], dict[str, str]]:
    spool = files[0].spool
    parts = []
    for number in (number for file in files for number in range(file.first, file.last)):
        rows = spool[number].to_pandas()
        parts.append(rows[_hashes(rows, "id") == wanted])
    differing = pd.concat(parts).drop_duplicates(["title", "published_at"])
    first, second = differing.iloc[:2].to_dict("records")
    return first, second


class Tally:
    """What the check of one whole file (or of a stream's first batch) needs: counts, the first bad stamp, hashes."""

    def __init__(self, where: Path | str) -> None:
        self.where, self.read, self.quarantine = where, 0, Quarantine()
        self._unreadable = 0
        self._example = ""
        self._hashes: list[tuple[Hashes, Hashes, Hashes]] = []

    def add(self, batch: Batch) -> pd.DataFrame:
        """Count the batch in; its usable rows."""
        bad = batch.problem.isin(UNREADABLE).to_numpy()
        if bad.any() and not self._unreadable:
            at = int(np.argmax(bad))
            raw = str(batch.rows["published_raw"].iloc[at])[:100]
            self._example = f"row {self.read + at + 1} holds {raw!r} ({batch.problem.iloc[at]})"
        self._unreadable += int(bad.sum())
        self.read += len(bad)
        rows = self.quarantine.drop(batch.rows, batch.problem)
        facts = _hashes(rows, "title", "published_at")
        self._hashes.append((_hashes(rows, "id"), facts, _hashes(rows, "id", "ticker")))
        return rows

    def check(self) -> list[Hashes]:
        """Hashes of all usable rows: of id, of title and stamp, of id and ticker. InputError where stamps are bad."""
        if self._unreadable > MOST_UNREADABLE * self.read:
            raise InputError(
                f"{self.where}: expected stamps such as 2015-12-30 or 2015-12-30T16:05:00-05:00; {self._unreadable} of "
                f"{self.read} ({self._unreadable / self.read:.0%}) are not: {self._example}. Give --tz ZONE where "
                "stamps carry no zone. Nothing was imported."
            )
        hashes = [np.concatenate(parts) for parts in zip(*self._hashes, strict=True)]
        refuse_all_bad(pd.DataFrame({"id": hashes[0]}), self.quarantine, Path(self.where))
        return hashes


def _hashes(rows: pd.DataFrame, *names: str) -> Hashes:
    """One 64-bit hash a row, by a key of this process alone: nobody can make rows that collide."""
    columns = [rows[name] for name in names]
    plain = [
        (column.astype("int64") if pd.api.types.is_datetime64_dtype(column.dtype) else column.fillna("")).tolist()
        for column in columns
    ]
    return np.fromiter(map(hash, zip(*plain, strict=True)), np.int64, len(rows))


def _instants_or_text(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return whole if pa.types.is_temporal(whole.type) else _text(whole)


def _text(whole: pa.Array) -> pa.Array:
    """Any column as text: numbers as they are written; what cannot be written as text, such as a list, as `NESTED`."""
    try:
        return whole.cast(pa.large_string())
    except pa.ArrowException:
        marks = pa.array([NESTED] * len(whole), pa.large_string())
        return pc.if_else(whole.is_valid(), marks, pa.scalar(None, pa.large_string()))


def _series(column: pa.Array) -> pd.Series:
    series: pd.Series = column.to_pandas(date_as_object=False)
    return series


def _texts(table: pa.Table) -> tuple[dict[str, pa.Array], npt.NDArray[np.bool_]]:
    """The columns of text, cleaned, missing ones null; and which rows hold a list or object in one of them."""
    texts, nested = {}, np.zeros(table.num_rows, bool)
    for name in ("title", "summary", "source", "url", "ticker", "id", "precision"):
        if name not in table.column_names:
            texts[name] = pa.nulls(table.num_rows, pa.large_string())
            continue
        text = _text(table[name].combine_chunks())
        nested |= pc.fill_null(pc.equal(text, NESTED), fill_value=False).to_numpy(zero_copy_only=False)
        texts[name] = _clean(text)
    for name, most in (("title", LONGEST_TITLE), ("summary", LONGEST_SUMMARY)):
        texts[name] = pc.utf8_rtrim_whitespace(pc.utf8_slice_codeunits(texts[name], 0, most))
    return texts, nested


def _clean(text: pa.Array) -> pa.Array:
    """Without invisible characters, white space as single spaces; most titles are so and cost nothing."""
    odd = pc.fill_null(pc.invert(pc.match_substring_regex(text, _CLEAN)), fill_value=False)
    if not pc.any(odd).as_py():
        return text
    cleaned = [" ".join(INVISIBLE.sub("", each).split()) for each in text.filter(odd).to_pylist()]
    return pc.replace_with_mask(text, odd, pa.array(cleaned, pa.large_string()))


def _rows(texts: dict[str, pa.Array], written: pd.Series, stamps: pd.DataFrame) -> pd.DataFrame:
    precision = _series(texts["precision"])
    # A file may say that its midnights are times; one without a zone still cannot be placed.
    timed = precision.notna() & precision.ne("day") & stamps["at"].notna()
    day = precision.eq("day").fillna(False) | (stamps["day"] & ~timed)
    rows = pd.DataFrame({name: _series(texts[name]) for name in ("title", "summary", "source", "url")})
    rows["summary"] = rows["summary"].mask(rows["summary"] == "")
    rows["published_at"] = stamps["at"].where(~day, stamps["date"])
    rows["published_raw"] = written.astype("string")
    rows["precision"] = np.where(day, "day", "second")
    rows["ticker"] = clean_tickers(_series(texts["ticker"]))
    rows["id"] = _ids(texts, rows["published_at"])
    return rows


def _ids(texts: dict[str, pa.Array], published: pd.Series) -> list[str]:
    """A stable id: the file's own within its source, else of title, source, address and stamp."""
    source, title, url, given = (pc.fill_null(texts[name], "") for name in ("source", "title", "url", "id"))
    stamp = pa.array(published.astype("int64").astype(str), pa.large_string())
    kinds = [pa.scalar(kind, pa.large_string()) for kind in ("id", "text", "\x1f")]
    own = pc.binary_join_element_wise(kinds[0], source, given, kinds[2])
    made = pc.binary_join_element_wise(kinds[1], source, title, url, stamp, kinds[2])
    keys = pc.if_else(texts["id"].is_valid(), own, made).to_pylist()
    return [blake2b(key.encode(), digest_size=12).hexdigest() for key in keys]


def _available_at(rows: pd.DataFrame, terms: Terms) -> pd.Series:
    published = rows["published_at"].to_numpy()
    closes = sessions(terms.calendar).close_after(published)
    known_at = np.where(rows["precision"] == "day", closes, published)
    return pd.Series(known_at + terms.lag, index=rows.index)


def _problems(rows: pd.DataFrame, stamp: pd.Series, nested: npt.NDArray[np.bool_]) -> pd.Series:
    problem = stamp.copy()
    problem[(problem == "") & rows["available_at"].isna()] = "stamp outside the calendar"
    problem[(problem == "") & nested] = "list or object in place of a value"
    problem[(problem == "") & (rows["title"].isna() | (rows["title"] == ""))] = "empty title"
    odd = rows["ticker"].notna() & ~rows["ticker"].str.match(ODD_TICKER).fillna(False)
    problem[(problem == "") & odd] = "odd ticker"
    return problem
