"""`tapewire import`: every file is read and checked before the first row of any is stored.

A dataset that is streamed (`hf:...`) is checked and stored batch by batch, and resumed after a kill.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import cast, get_args

import numpy as np
import pandas as pd

from data.asof import Instants
from data.errors import ConfigError, InputError
from data.intake import Quarantine
from data.lake import Lake
from data.news.corpora import PREFIX, Corpus, Position, refuse_untrusted, usable_rows
from data.news.files import Batch, HeadlineFile, Terms, read_headlines, refuse_disagreement, stored_batches
from data.news.store import FindTickers, Stored, store_backfill
from data.prices.files import Basis, PriceTerms, read_prices
from data.prices.store import refuse_other_basis, store_batches
from data.prices.years import Years
from data.spool import open_spool
from pipelines.instants import Now, utc_now
from pipelines.workspace import replace_file


@dataclass(frozen=True)
class Imported:
    """Input rows read, new records, and the rows left out by reason."""

    read: int
    added: int
    actions_added: int
    links_added: int
    skipped: dict[str, int]

    def as_dict(self) -> dict[str, object]:
        """The contract of `import --json`."""
        return {
            "read": self.read,
            "added": self.added,
            "links_added": self.links_added,
            "actions_added": self.actions_added,
            "skipped": self.skipped,
        }


@dataclass(frozen=True)
class ImportedHeadlines(Imported):
    """The same for headlines, with the corpora that files were known as, and where streams were resumed (rows)."""

    presets: dict[str, str]
    resumed: dict[str, int]

    def as_dict(self) -> dict[str, object]:
        """The contract of `import headlines --json`."""
        return {**super().as_dict(), "presets": self.presets, "resumed": self.resumed}

    def notes(self) -> list[str]:
        """A line for each source of which there is something to say."""
        known = [f"{source}: read as {preset}." for source, preset in self.presets.items()]
        return known + [f"{source}: went on after row {rows}." for source, rows in self.resumed.items()]


def import_prices(
    lake: Lake,
    files: Sequence[Path],
    mapping: dict[str, str],
    calendar: str,
    basis: Basis = "split",
    ticker: str | None = None,
    now: np.datetime64 | None = None,
) -> Imported:
    """Store the bars and actions of price files. `now` (UTC) is when the lake records them."""
    recorded_at = utc_now() if now is None else now
    terms = PriceTerms(mapping, calendar, basis, ticker, recorded_at)
    with open_spool(_standing(lake.folder)) as spool:
        years = Years(spool)
        read = [read_prices(path, terms, years) for path in files]
        repeats, actions = years.settle(terms.exchange, basis, ["dividend" in file.columns for file in read])
        refuse_other_basis(lake, pd.DataFrame({"ticker": years.tickers, "basis": basis}))
        stored = store_batches(lake, lambda: years.bars(terms.exchange, basis), actions, recorded_at)
    for file, repeated in zip(read, repeats, strict=True):
        file.quarantine.add("duplicate row", repeated)
    return Imported(
        read=sum(file.read for file in read),
        added=stored.bars,
        actions_added=stored.actions,
        links_added=0,
        skipped=_skipped([file.quarantine for file in read]),
    )


def no_tickers(_titles: Sequence[str], _known_at: Instants) -> pd.DataFrame:
    """Finds none: headlines keep the tickers that their source gives."""
    return pd.DataFrame({"row": [], "ticker": [], "rule": [], "confidence": [], "hindsight": []}).astype({"row": int})


def import_headlines(
    lake: Lake,
    sources: Sequence[Path | str],
    mapping: Mapping[str, str],
    calendar: str,
    zone: str | None = None,
    lag: str = "0s",
    now: np.datetime64 | None = None,
    preset: str | None = None,
    find: FindTickers = no_tickers,
) -> ImportedHeadlines:
    """Store the headlines of files, and of datasets named `hf:...`, and their links.

    `lag` is how long after its stamp a headline was known, `preset` the corpus whose columns these are
    (None: by their names), `find` what looks for tickers where a source gives none. Every file, and the first
    batch of every dataset, is checked before the first row is stored.
    """
    clock = utc_now if now is None else lambda: now
    terms = Terms(calendar, clock(), parse_lag(lag), mapping, zone, preset)
    streamed = [str(source) for source in sources if str(source).startswith(PREFIX)]
    with open_spool(_standing(lake.folder)) as spool:
        files = [read_headlines(Path(source), terms, spool) for source in sources if str(source) not in streamed]
        refuse_disagreement(
            files, "Import one of the two, or one after the other if the later one corrects the earlier."
        )
        streams = [_Stream.open(lake, text, terms) for text in streamed]
        stored = [store_backfill(lake, rows, clock(), find) for rows in stored_batches(files)]
    for stream in streams:
        stored += stream.store(lake, clock, find)
    parts: list[HeadlineFile | _Stream] = [*files, *streams]
    return ImportedHeadlines(
        read=sum(part.read for part in parts),
        added=sum(new.headlines for new in stored),
        actions_added=0,
        links_added=sum(new.links for new in stored),
        skipped=_skipped([part.quarantine for part in parts]),
        presets={str(part.path): part.preset for part in parts if part.preset is not None},
        resumed={stream.path: stream.start.read for stream in streams if stream.start.read},
    )


@dataclass(frozen=True)
class _Start:
    """Where the import of a stream begins: `position` None is its first row; `since` is when it first began."""

    since: np.datetime64
    position: Position | None = None
    read: int = 0

    @classmethod
    def load(cls, path: Path, now: np.datetime64) -> "_Start":
        """What a killed import left at `path`; the first row where there is nothing that can be read."""
        try:
            kept = json.loads(path.read_bytes())
            return cls(np.datetime64(kept["since"], "us"), dict(kept["position"]), int(kept["read"]))
        except (OSError, ValueError, KeyError, TypeError):
            return cls(now)

    def save(self, path: Path) -> None:
        """Replace the file at once, so that a kill leaves this one or the one before."""
        kept = {"since": str(self.since), "position": self.position, "read": self.read}
        replace_file(path, json.dumps(kept).encode())


@dataclass
class _Stream:
    """One dataset on its way into the lake; counts are those of this run alone."""

    path: str
    preset: str | None
    start: _Start
    mark: Path
    batches: Iterator[tuple[Batch, Position]]
    quarantine: Quarantine = field(default_factory=Quarantine)
    read: int = 0

    @classmethod
    def open(cls, lake: Lake, text: str, terms: Terms) -> "_Stream":
        """Opened at its start, whose first batch is checked, or where a killed import stopped.

        Where that is stands in `_imports/` of the lake, one file for each dataset and way to read it.
        """
        corpus = Corpus(text, terms)
        mark = lake.folder / "_imports" / f"{corpus.fingerprint}.json"
        start = _Start.load(mark, terms.now)
        batches = corpus.batches(start.position)
        first = list(islice(batches, 1))
        if start.position is None:
            refuse_untrusted(first[0][0], text)
        return cls(text, corpus.preset, start, mark, chain(first, batches))

    def store(self, lake: Lake, clock: Now, find: FindTickers) -> Iterator[Stored]:
        """Store batch after batch; after each the position is kept, and at the end forgotten."""
        for batch, position in self.batches:
            rows = usable_rows(batch, lake, self.start.since, self.quarantine)
            if not rows.empty:
                yield store_backfill(lake, rows, clock(), find)
            self.read += len(batch.rows)
            _Start(self.start.since, position, self.start.read + self.read).save(self.mark)
        self.mark.unlink(missing_ok=True)


def _standing(folder: Path) -> Path:
    """The nearest folder that is there already: a refused import makes none."""
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())


def parse_basis(text: str) -> Basis:
    """One of raw, split, total. Raises ConfigError."""
    for basis in get_args(Basis):
        if text == basis:
            return cast("Basis", basis)
    raise ConfigError(f"--basis {text}: expected {', '.join(get_args(Basis))}.")


def parse_lag(text: str) -> np.timedelta64:
    """A span such as 90s, 15min or 1h. Raises InputError where it is none, or negative."""
    lag = pd.to_timedelta([text], errors="coerce").to_numpy("timedelta64[us]")[0]
    if np.isnat(lag) or lag < np.timedelta64(0):
        raise InputError(f"--lag {text}: expected a span of time such as 90s, 15min or 1h, not below zero.")
    return np.timedelta64(lag)


def _skipped(quarantines: Sequence[Quarantine]) -> dict[str, int]:
    total = Quarantine()
    for quarantine in quarantines:
        for reason, rows in quarantine.skipped.items():
            total.add(reason, rows)
    return total.skipped
