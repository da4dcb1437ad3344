"""Forecasts as files: a folder a target session and model, and `latest`, a symlink to the newest that may be acted on.

A folder is made whole under another name and renamed, so a reader sees all of it or nothing, and what was published
stays: other forecasts of the same session and model lie beside it, as `<name>.2`, `<name>.3` and so on. The same
forecasts are published once, whoever asks how often. What stands in `latest` and when is `pipelines/score.py`'s to say.
"""

import csv
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from filelock import FileLock, Timeout

from data.errors import ConfigError, LockedError
from data.schemas import SCHEMAS
from data.types import QUANTILES
from pipelines.files import sync_folder, write_folder

PARQUET, CSV, ABSTAINED, MANIFEST = "forecasts.parquet", "forecasts.csv", "abstained.csv", "manifest.json"
LATEST = "latest"
WAIT = 60.0  # seconds for another process, which writes a few files

# With which a cell begins that a spreadsheet may run as a formula (OWASP, "CSV Injection"), full-width ones included.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
_SEPARATOR = re.compile(r"\s*[;；\t\r\n\v\f]\s*")
_FIRST = ("ticker", "target_session", "target")
_LAST = ("prob_up", "price", "price_low", "price_high", "decision_at", "made_at", "cutoff_at", "standing", "origin")


def publish(folder: Path, frame: pd.DataFrame, abstained: Mapping[str, str], facts: Mapping[str, Any]) -> Path:
    """Write forecasts (rows of the lake's table) and reasons as `folder` or a later version of it; the Parquet file.

    `facts` go into its manifest beside the sha256 of each file. A version that says the same is taken as it is,
    whichever is the newest; no version is ever changed. An OSError leaves what was there before.
    """
    files = {PARQUET: _parquet(frame), CSV: _csv(frame), ABSTAINED: _rows(("ticker", "reason"), abstained.items())}
    sums = {name: {"sha256": _sha256(content), "bytes": len(content)} for name, content in files.items()}
    files[MANIFEST] = (json.dumps({"format": 1, **facts, "files": sums}, indent=1) + "\n").encode()
    draft = folder.with_name(f".{folder.name}.draft")
    with _alone(folder.parent.parent):
        shutil.rmtree(draft, ignore_errors=True)  # left by a killed run
        version = next(each for each in _versions(folder) if not each.exists() or _holds(each, files))
        if not version.exists():
            write_folder(version, files, draft)
    return version / PARQUET


def point_latest(latest: Path, folder: Path) -> None:
    """Make `latest` lead to `folder`, which lies in a folder named by its session beside it; never to an older session.

    A reader finds the old one or the new one. Raises ConfigError where `latest` is no link.
    """
    if latest.exists() and not latest.is_symlink():
        raise ConfigError(
            f"{latest}: expected a link to the newest forecasts, found a folder or file, as a copy that follows links "
            "makes one. Remove it, and start again."
        )
    with _alone(latest.parent):
        to = folder.relative_to(latest.parent)
        at = Path(os.readlink(latest)) if latest.is_symlink() else None
        if at == to or (at is not None and latest.exists() and at.parts[0] > to.parts[0]):
            return
        draft = latest.with_name(f".{latest.name}")
        draft.unlink(missing_ok=True)
        draft.symlink_to(to)
        draft.replace(latest)
        sync_folder(latest.parent)


def _parquet(frame: pd.DataFrame) -> bytes:
    schema = SCHEMAS["forecasts"]
    rows = pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(rows, sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _csv(frame: pd.DataFrame) -> bytes:
    """One column a quantile; days and instants as ISO 8601, numbers so that they are read back as they were."""
    levels = [f"q{level * 100:02.0f}" for level in QUANTILES]
    names = (*_FIRST, "mean", *levels, *_LAST, "model_id", "data_version")
    if frame.empty:
        return _rows(names, ())
    plain = frame.assign(**{name: frame["quantiles"].str[number] for number, name in enumerate(levels)})
    plain["target_session"] = plain["target_session"].dt.strftime("%Y-%m-%d")
    for name in ("decision_at", "made_at", "cutoff_at"):
        plain[name] = plain[name].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return _rows(names, zip(*(plain[name].tolist() for name in names), strict=True))


def _rows(names: Iterable[str], rows: Iterable[Iterable[Any]]) -> bytes:
    """CSV: numbers plain, every text in quotes and none that a spreadsheet would run."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_safe(cell) for cell in row] for row in rows)
    return text.getvalue().encode()


def _safe(cell: Any) -> Any:
    """A spreadsheet may also part cells at a semicolon or a tab, whatever the quotes say."""
    if not isinstance(cell, str):
        return cell
    text = _SEPARATOR.sub(", ", cell.strip())
    return f"'{text}" if text.startswith(_FORMULA) else text


def _versions(folder: Path) -> Iterator[Path]:
    """Every name that a version may have, the first one first."""
    yield folder
    for number in count(2):
        yield folder.with_name(f"{folder.name}.{number}")


def _holds(folder: Path, files: Mapping[str, bytes]) -> bool:
    try:
        return all((folder / name).read_bytes() == content for name, content in files.items())
    except OSError:
        return False


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=WAIT):
            yield
    except Timeout:
        raise LockedError(
            f"{folder}: another process has been publishing here for {WAIT:.0f} s. Wait for it to end."
        ) from None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
