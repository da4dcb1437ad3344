"""Real feed documents through the pool of one parser process, against bare feedparser in this process.

Takes a folder of documents with an index.csv that names them (default ../shared/feeds). Bare feedparser is
`feedparser.parse(BytesIO(document))`, without any limit, check or cleaning. At least 0.7 is wanted.
"""

import asyncio
import csv
import io
import sys
from pathlib import Path

import feedparser
from paired import compare

from data.news.parse import ParserPool

SHARED = Path(__file__).parents[2] / "shared" / "feeds"
URL = "https://feeds.example/feed.xml"


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SHARED
    index = folder / "index.csv"
    if not index.is_file():
        print(f"{index}: expected an index of feed documents, found none. Nothing was measured; name a folder of them.")
        return
    with index.open(encoding="utf-8", newline="") as file:
        documents = [(folder / row["file"]).read_bytes() for row in csv.DictReader(file)]
    with asyncio.Runner() as runner:
        pool = runner.run(ParserPool(workers=1).__aenter__())

        async def read_all() -> None:
            for document in documents:
                await pool.parse(document, None, URL)

        def peer() -> None:
            for document in documents:
                feedparser.parse(io.BytesIO(document))

        mib = sum(map(len, documents)) / 2**20
        name = f"{len(documents)} documents ({mib:.1f} MiB) against bare feedparser"
        compare(name, lambda: runner.run(read_all()), peer, rounds=7)
        runner.run(pool.__aexit__(None, None, None))


if __name__ == "__main__":
    main()
