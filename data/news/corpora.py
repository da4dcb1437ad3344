"""Corpora of the Hugging Face hub, or of a folder laid out like one, streamed by `datasets`. Storing is elsewhere.

A stream cannot be read twice cheaply, so it is checked batch by batch: its first batch decides whether it
is trusted at all, and a later row that contradicts an earlier one is quarantined. `datasets` finds the
files and reads them; no code of a repository runs (`datasets` 5 has no way to), files must be CSV, JSON
or Parquet and lie in the repository itself, and cells stay as they were written wherever the library lets
them. Types that it infers are not used, because they are guesses that lose zones and turn `NA` into nothing.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from data.errors import InputError
from data.intake import Quarantine
from data.lake import Lake
from data.news.files import Batch, Tally, Terms, read_batch
from data.news.presets import Layout, lay_out
from data.tabular import NULLS, JsonTables, json_object, rebatch

if TYPE_CHECKING:
    from datasets import DatasetBuilder, IterableDataset  # type: ignore[import-untyped]
    from datasets.data_files import DataFilesList  # type: ignore[import-untyped]

PREFIX = "hf:"
DISAGREES = "contradicts an earlier row"

_SOURCE = re.compile(r"(?P<path>[^:@#]+)(?::(?P<config>[^@#]+))?(?:@(?P<revision>[^#]+))?(?:#(?P<split>.+))?")
_READERS = ("csv", "json", "parquet")
_READ_ROWS = 10_000

Position = dict[str, Any]  # where `datasets` goes on; plain JSON


@dataclass(frozen=True)
class Source:
    """A dataset: `path` is OWNER/NAME or a folder, `files` a path or pattern inside it; None leaves the choice open."""

    path: str
    files: str | None = None
    config: str | None = None
    revision: str | None = None
    split: str | None = None


def parse_source(text: str) -> Source:
    """`hf:OWNER/NAME[/FILES][:CONFIG][@REVISION][#SPLIT]`, or `hf:FOLDER` of this machine. Raises InputError."""
    rest = text.removeprefix(PREFIX)
    if Path(rest).is_dir():
        return Source(rest)
    found = _SOURCE.fullmatch(rest)
    if found is not None:
        source = Source(**found.groupdict())
        if Path(source.path).is_dir():
            return source
        parts = source.path.split("/")
        if len(parts) > 1 and parts[0] not in {"", ".", "..", "~"} and all(parts):
            return replace(source, path="/".join(parts[:2]), files="/".join(parts[2:]) or None)
    raise InputError(
        f"{text}: expected hf:OWNER/NAME of the Hugging Face hub, with :CONFIG, @REVISION or #SPLIT where "
        "needed, or hf: and a folder that is there."
    )


class Corpus:
    """One opened stream; opening finds its files and chooses columns by its first rows.

    `fingerprint` changes with the files and with how they are read; `preset` is the corpus it was known as.
    Raises InputError for what cannot be had or cannot be trusted.
    """

    def __init__(self, text: str, terms: Terms) -> None:
        self.text, self._terms = text, terms
        self._layouts: list[Layout] = []
        self._objects = JsonTables(text, self._choose_columns)
        self._source = parse_source(text)
        with self._refusing():
            builder = self._builder({})
            files = {str(split): each for split, each in (builder.config.data_files or {}).items()}
        self._reader = builder.name or ""
        self._split = self._choose_split(list(files))
        self._options = self._learn_columns()
        self.fingerprint = self._fingerprint(files[self._split])

    @property
    def preset(self) -> str | None:
        """The well-known corpus whose columns these are, if any."""
        return self._layouts[-1].preset

    def batches(self, position: Position | None = None) -> Iterator[tuple[Batch, Position]]:
        """The rows after `position` (None: from the start), in order, each batch with the position after it."""
        with self._refusing():
            stream = self._stream(self._options)
            if position is not None:
                stream.load_state_dict(position)
        for table in rebatch(self._tables(stream)):
            yield read_batch(table, self._layouts[-1], self._terms, None), stream.state_dict()

    def _tables(self, stream: "IterableDataset") -> Iterator[pa.Table]:
        """The stream's rows under our names."""
        parts = stream.iter(batch_size=_READ_ROWS)
        while True:
            with self._refusing():
                part = next(parts, None)
            if part is None:
                return
            if self._reader == "json":
                yield self._objects.table([_object_or_none(line, self.text) for line in _lines(part)])
            else:
                columns = self._layouts[-1].columns
                yield part.select(list(columns.values())).rename_columns(list(columns))

    def _builder(self, options: Mapping[str, Any]) -> "DatasetBuilder":
        import datasets

        datasets.disable_progress_bars()
        datasets.logging.set_verbosity(datasets.logging.CRITICAL)
        source = self._source
        return datasets.load_dataset_builder(
            source.path, source.config, data_files=source.files, revision=source.revision, **options
        )

    def _stream(self, options: Mapping[str, Any]) -> "IterableDataset":
        builder = self._builder(options)
        self._refuse_foreign(list(map(str, builder.config.data_files[self._split])))
        if self._reader == "json":
            # The library's JSON reader takes `2015-12-30T16:05:00-05:00` for a time and forgets its zone.
            from datasets.packaged_modules.text.text import Text  # type: ignore[import-untyped]

            builder = Text(data_files=builder.config.data_files, encoding="utf-8-sig")
        return builder.as_streaming_dataset(split=self._split).with_format("arrow")

    def _choose_split(self, splits: list[str]) -> str:
        wanted = self._source.split or ("train" if "train" in splits else splits[0] if len(splits) == 1 else None)
        if wanted not in splits:
            raise InputError(f"{self.text}: expected #SPLIT at the end, with one of {', '.join(splits)}.")
        return wanted

    def _refuse_foreign(self, files: list[str]) -> None:
        """A repository's own description may name any file or address; only what lies in it is read."""
        if self._reader not in _READERS:
            raise InputError(
                f"{self.text}: expected CSV, JSON lines or Parquet files, found those of {self._reader!r}."
            )
        folder = Path(self._source.path)
        home = f"{folder.resolve()}/" if folder.is_dir() else f"hf://datasets/{self._source.path}@"
        foreign = [file for file in files if not file.startswith(home) or ".." in file.split("/")]
        if foreign:
            raise InputError(f"{self.text}: expected files of its own, found {foreign[0]}. Nothing was imported.")

    def _choose_columns(self, names: list[str]) -> Mapping[str, str]:
        before = self._layouts[-1:]
        self._layouts.append(lay_out(names, self._terms.mapping, self._terms.preset, self.text, *before))
        return self._layouts[-1].columns

    def _fingerprint(self, files: "DataFilesList") -> str:
        """Of all that a position depends on, the way the library counts included."""
        import datasets

        read = [self.text, self._split, list(files), files.origin_metadata, _READ_ROWS, datasets.__version__]
        terms = self._terms
        how = [terms.calendar, str(terms.lag), sorted(terms.mapping.items()), terms.zone, terms.preset]
        return blake2b(repr([*read, *how]).encode(), digest_size=12).hexdigest()

    def _learn_columns(self) -> dict[str, Any]:
        """Choose columns by the first rows; the options by which the library keeps their cells as written."""
        from datasets import Features, Value

        with self._refusing():
            first = next(self._stream({}).iter(batch_size=_READ_ROWS), None)
        lines = _lines(first) if first is not None and self._reader == "json" else []
        if first is None or (self._reader == "json" and not lines):
            raise InputError(f"{self.text}: expected rows, found none. Nothing was imported.")
        if self._reader == "json":
            self._objects.table([json_object(line, self.text) for line in lines])
            return {}
        theirs = list(self._choose_columns(first.column_names).values())
        if self._reader == "parquet":
            return {"columns": theirs, "batch_size": _READ_ROWS}
        texts = Features({name: Value("string") for name in theirs})
        options = {"features": texts, "usecols": theirs, "chunksize": _READ_ROWS}
        return {**options, "keep_default_na": False, "na_values": NULLS}

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Around the library alone, whose readers raise errors of many kinds over a file or a network."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise InputError(
                f"{self.text}: expected a dataset that can be reached and read, found: {reason}. What was imported "
                "of it so far stays; the same command goes on there."
            ) from error


def refuse_untrusted(batch: Batch, where: str) -> None:
    """InputError where the first batch of a stream could not be trusted if it were a whole file."""
    tally = Tally(where)
    tally.add(batch)
    tally.check()


def usable_rows(batch: Batch, lake: Lake, since: np.datetime64, quarantine: Quarantine) -> pd.DataFrame:
    """The rows of one batch of a stream to store; the others are counted.

    A row is left out where one of its id, earlier in the batch or recorded in the lake `since` (UTC) the
    stream was begun, has another title or stamp: a stream cannot be refused for what comes late.
    """
    rows = quarantine.drop(batch.rows, batch.problem).reset_index(drop=True)
    facts = ["title", "published_at"]
    earlier = lake.current_among("headlines", rows["id"], [*facts, "recorded_at"])
    earlier = _naive(earlier[earlier["recorded_at"] >= pd.Timestamp(since, tz="UTC")])
    decided = pd.concat([earlier, rows])[["id", *facts]].drop_duplicates("id")
    agreed = rows[["id", *facts]].merge(decided, on="id", how="left", suffixes=("", "_decided"))
    apart = (agreed["title"] != agreed["title_decided"]) | (agreed["published_at"] != agreed["published_at_decided"])
    rows = rows[~apart.to_numpy()]
    once = rows.drop_duplicates(["id", "ticker"], ignore_index=True)
    quarantine.add(DISAGREES, int(apart.sum()))
    quarantine.add("duplicate row", len(rows) - len(once))
    return once


def _lines(part: pa.Table) -> list[str]:
    return [line for line in part["text"].to_pylist() if line and not line.isspace()]


def _object_or_none(line: str, where: str) -> dict[str, Any]:
    """A line of a stream; one that is no object is as one without a stamp, which is quarantined."""
    try:
        return json_object(line, where)
    except InputError:
        return {}


def _naive(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(published_at=rows["published_at"].dt.tz_localize(None))
