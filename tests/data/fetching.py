"""What the tests of fetching share: a document, settings, a network and a name server of their own."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import httpcore2
import httpx2

from data.news.fetch import FetchConfig, Fetcher, Request, Response

FEED = b"<rss><channel><title>Acme up 3%</title></channel></rss>" * 40
PATIENT = FetchConfig(timeout=10, deadline=30, backoff=0.001, per_host_rate=1e6, contact="desk@example.com")
HASTY = PATIENT.model_copy(update={"timeout": 0.2, "attempts": 1})
SHORT = PATIENT.model_copy(update={"timeout": 1, "deadline": 0.4})
PUBLIC = "93.184.215.14"

_SYSTEM = httpx2.create_ssl_context()  # reading the system's certificates takes longer than most tests


class Detour(httpcore2.AsyncNetworkBackend):
    """Connects every address to one local server, and notes which addresses were asked for."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[str] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        self.asked.append(host)
        return await httpcore2.AnyIOBackend().connect_tcp("127.0.0.1", self.port, timeout)


class Names:
    """A name server: each look-up of a name gives its next answer, the last again and again."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self.answers = {name.replace("_", "."): list(rows) for name, rows in answers.items()}

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        rows = self.answers.get(host)
        if not rows:
            raise OSError("no such name")
        return rows.pop(0) if len(rows) > 1 else rows[0]


def fetch(*requests: Request, config: FetchConfig = PATIENT, **seams: Any) -> list[Response]:
    """All of them at once, by one fetcher; `seams` are the fetcher's own."""

    async def run() -> list[Response]:
        fetcher = Fetcher(config, **{"tls": _SYSTEM, **seams})
        return await asyncio.gather(*map(fetcher.fetch, requests))

    return asyncio.run(run())


def get(url: str, config: FetchConfig = PATIENT, **wanted: Any) -> Response:
    """One of them, private addresses allowed."""
    return fetch(Request(url, allow_private=True, **wanted), config=config)[0]


def kind(response: Response) -> str:
    """The outcome and the name of its reason: `failed timeout`."""
    return f"{response.outcome} {response.reason.partition(':')[0]}".strip()
