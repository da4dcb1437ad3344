"""No sample reads a title before it was there: feeds whose stamps carry no zone, are wrong, or whose titles change."""

from pathlib import Path

import numpy as np
import pandas as pd
from feed_server import FeedServer, plain
from wires import SECOND, feed, ingest, item, rss, workspace

from data.asof import known
from data.calendar import sessions
from data.text import normalise
from pipelines.dataset import load_panel
from pipelines.imports import import_prices
from pipelines.workspace import open_workspace

DAYS = sessions("XNYS", "nightly").between("2024-10-28", "2024-11-12")  # both sides of the clock change
SUBJECTS = ("harbour", "bakery", "laser", "vineyard", "railway", "orchard", "turbine", "clinic", "quarry", "airport")
STAMPS = (
    "2024-11-05 16:05",  # no zone
    "Tue, 05 Nov 2024 4:05 PM EST",  # which feedparser reads as 04:05 UTC
    "Mon, 21 Oct 2024 09:00:00 GMT",  # back-dated: it came much later
    "Fri, 06 Nov 2043 10:00:00 GMT",  # in the future
    "1730840700",
    "no date at all",
)


def bars(folder: Path) -> None:
    """Bars of one ticker over `DAYS`, and a workspace that can make samples of them."""
    prices = pd.DataFrame({"ticker": "ACM", "date": DAYS.labels.astype("datetime64[s]"), "volume": 1e6})
    prices = prices.assign(open=10.0, high=10.0, low=10.0, close=10.0)
    prices.to_csv(folder / "prices.csv", index=False)
    import_prices(open_workspace(folder).lake, [folder / "prices.csv"], {}, "XNYS")


def test_no_sample_holds_a_title_that_was_not_there_yet(tmp_path):
    with FeedServer() as server:
        named, unnamed = server.url("/named"), server.url("/unnamed")
        folder = workspace(tmp_path / "w", feed("named", named, tickers='["ACM"]'), feed("unnamed", unnamed))
        bars(folder)
        seen = watch(server, folder, np.random.default_rng(7))
    workspace_ = open_workspace(folder)
    news = load_panel(workspace_, workspace_.config).news
    for cells in (news.own, news.market):
        assert len(cells.text) > 15
        for text, session in zip(cells.text, cells.session, strict=True):
            assert known([seen[news.texts[text]]], DAYS.decision_at[session])[0], news.texts[text]


def watch(server: FeedServer, folder: Path, rng: np.random.Generator) -> dict[str, np.datetime64]:
    """Ingest around each decision two wires whose titles change; when each title was first there to be seen."""
    seen: dict[str, np.datetime64] = {}
    titles: dict[tuple[str, int], str] = {}
    for session, decision_at in enumerate(DAYS.decision_at[:-1]):
        for at in (decision_at - 60 * SECOND, decision_at + SECOND):
            for wire in ("named", "unnamed"):
                number = int(rng.integers(0, 20))
                subject = SUBJECTS[number % 10].title()
                title = f"{subject} {number} reports outcome {len(seen)} of session {session}"
                titles[wire, number] = title
                seen[normalise(title)] = at
                items = [
                    item(n, title, pubDate=str(rng.choice(STAMPS))) for (on, n), title in titles.items() if on == wire
                ]
                server.add(f"/{wire}", rss(*items), behaviour=plain)
            assert ingest(folder, at).exit_code == 0
    return seen
