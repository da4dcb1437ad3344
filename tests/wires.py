"""Made-up feeds and workspaces that read them, for the tests of ingest."""

from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.ingest import Ingested, ingest_news
from pipelines.workspace import open_workspace

NOON = np.datetime64("2024-11-06T12:00:00", "us")
SECOND = np.timedelta64(1, "s")


def rss(*items: dict[str, str]) -> bytes:
    """An RSS 2.0 document; an item's keys are its elements."""
    fields = ("".join(f"<{key}>{escape(text)}</{key}>" for key, text in item.items()) for item in items)
    body = "".join(f"<item>{each}</item>" for each in fields)
    return f'<?xml version="1.0"?><rss version="2.0"><channel><title>Wire</title>{body}</channel></rss>'.encode()


def item(number: int, title: str | None = None, **fields: str) -> dict[str, str]:
    """One item of a well-kept feed."""
    return {
        "guid": f"item-{number}",
        "title": title or f"Company {number} opens plant in county {number}",
        "link": f"https://wire.example/{number}",
        "pubDate": "Tue, 05 Nov 2024 16:05:00 EST",
    } | fields


def feed(name: str, url: str, **keys: str) -> str:
    """A table of tapewire.toml; values are TOML."""
    lines = [f'name = "{name}"', f'url = "{url}"', "allow_private = true", *(f"{k} = {v}" for k, v in keys.items())]
    return "\n".join(["", "[[news.feeds]]", *lines, ""])


def workspace(folder: Path, *feeds: str, top: str = "") -> Path:
    """A workspace of these feeds; limits on hosts are raised, since all are one."""
    folder.mkdir(parents=True, exist_ok=True)
    fetch = "[news.fetch]\nper_host_rate = 1000\nper_host_connections = 64\nbackoff = 0.01\n"
    (folder / "tapewire.toml").write_text(f"{top}\n{fetch}{''.join(feeds)}")
    return folder


def ingest(folder: Path, at: np.datetime64 = NOON) -> Ingested:
    return ingest_news(open_workspace(folder), lambda: at)


def ingest_at_noon(folder: Path) -> None:
    """As a process of its own would; nothing comes back."""
    ingest(folder)


def outcomes(result: Ingested) -> dict[str, str]:
    return {read.feed.label: read.outcome for read in result.feeds}


def headlines(folder: Path) -> list[dict[str, Any]]:
    """All versions in the lake, by available_at."""
    rows = open_workspace(folder).lake.read("headlines").to_pylist()
    return sorted(rows, key=lambda row: (row["available_at"], row["id"]))
