"""Two hundred feeds from a local server: ours against a bare httpx2.AsyncClient, each followed by feedparser.

The second part adds five slow-loris feeds on hosts of their own, under the limits that are the default
but for the deadline, and shows when the other feeds are done, with and without them.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import feedparser
import httpx2
from paired import compare

from data.news.fetch import FetchConfig, Fetcher, Request

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "data"))

FEEDS, ITEMS, SLOW = 200, 20, 5
RAISED = FetchConfig(per_host_connections=FEEDS, per_host_rate=1e6, concurrency=FEEDS)
SHORTENED = FetchConfig(deadline=5)


def main() -> None:
    serving = subprocess.Popen([sys.executable, __file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with serving:
        port = int(serving.stdout.readline())
        urls = [f"http://127.0.0.1:{port}/{number}.xml" for number in range(FEEDS)]
        for parse in (True, False):
            what = "fetch and feedparser.parse" if parse else "fetch alone"
            compare(
                f"{FEEDS} feeds, {what}, against httpx2.AsyncClient",
                lambda parse=parse: asyncio.run(ours(urls, parse)),
                lambda parse=parse: asyncio.run(bare(urls, parse)),
                rounds=5,
            )
        isolation(port)
        serving.stdin.close()


async def ours(urls: Sequence[str], parse: bool) -> None:
    fetcher = Fetcher(RAISED)

    async def one(url: str) -> None:
        response = await fetcher.fetch(Request(url, allow_private=True))
        check(response.body, parse)

    await asyncio.gather(*map(one, urls))


async def bare(urls: Sequence[str], parse: bool) -> None:
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx2.AsyncClient(timeout=30, limits=limits) as client:

        async def one(url: str) -> None:
            check((await client.get(url)).content, parse)

        await asyncio.gather(*map(one, urls))


def check(body: bytes, parse: bool) -> None:
    if not body or (parse and len(feedparser.parse(body).entries) != ITEMS):
        raise SystemExit("a feed was not read")


def isolation(port: int) -> None:
    """Fifty hosts of four feeds each; the slow ones are asked first."""
    good = [f"http://host{number % 50}.test:{port}/{number}.xml" for number in range(FEEDS)]
    slow = [f"http://slow{number}.test:{port}/slow" for number in range(SLOW)]
    done: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(5):
        done["without"].append(asyncio.run(last_of(good, [])))
        done["with"].append(asyncio.run(last_of(good, slow)))
    without, alongside = map(min, done.values())
    print(f"{FEEDS} feeds done after {without:.2f} s without slow ones, {alongside:.2f} s with {SLOW}: best of 5")


async def last_of(good: Sequence[str], slow: Sequence[str]) -> float:
    """Seconds until the last good feed is there; the slow ones must end at their deadline."""

    async def at_home(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    fetcher = Fetcher(SHORTENED, resolve=at_home)
    start = time.perf_counter()
    hanging = [asyncio.create_task(fetcher.fetch(Request(url, allow_private=True))) for url in slow]
    responses = await asyncio.gather(*(fetcher.fetch(Request(url, allow_private=True)) for url in good))
    seconds = time.perf_counter() - start
    if {response.outcome for response in responses} != {"fetched"} or any(task.done() for task in hanging):
        raise SystemExit("a good feed failed, or a slow one did not hang")
    ends = await asyncio.gather(*hanging)
    if not all(end.reason.startswith("deadline") for end in ends):
        raise SystemExit("a slow feed did not end at its deadline")
    return seconds


def serve() -> None:
    """Until stdin ends."""
    from feed_server import FeedServer, slow

    item = "<item><title>Company {0} raises its outlook</title><link>https://example.com/{0}</link>"
    item += "<guid>{0}</guid><pubDate>Mon, 02 Mar 2026 12:00:00 GMT</pubDate><description>{1}</description></item>"
    with FeedServer() as server:
        for number in range(FEEDS):
            items = "".join(item.format(f"{number}-{line}", "Some more words about it. " * 10) for line in range(ITEMS))
            server.add(f"/{number}.xml", f"<rss version='2.0'><channel>{items}</channel></rss>".encode())
        server.add("/slow", behaviour=slow)
        print(server.port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main()
