"""Whom a night tells how it went: a health check (the conventions of healthchecks.io) and a webhook.

The check's address is asked at the start (`/start`) and at the end: as it is where forecasts are out (full or
degraded), `/fail` where none are. The webhook gets a JSON document of every run that was less than full. All of it
happens in a thread of its own that the night waits for only briefly, and only at its very end: a server that is down,
slow or hostile costs a line in the log. Redirects are not followed, answers not read, addresses never logged: who
knows them may use them.
"""

import json
import queue
import threading

from pipelines.config import NightlyConfig
from pipelines.nightly.log import note

TIMEOUT = 5.0  # seconds to connect, and for each wait
ATTEMPTS = 3
PAUSE = 0.5  # seconds before the second attempt, doubled
PATIENCE = 20.0  # seconds that the end of a run waits for what is still to be told

FULL, DEGRADED = 0, 3

Message = tuple[str, str, bytes | None]  # what it is, the address, the body of a POST


class Notices:
    """What one run tells. `started` and `ended` return at once; `ended` is followed by `close`."""

    def __init__(self, config: NightlyConfig) -> None:
        self._config = config
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._told: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def started(self) -> None:
        """The run has begun."""
        if self._config.healthcheck:
            self._send("healthcheck start", _address(self._config.healthcheck, "/start"))

    def ended(self, exit_code: int, facts: dict[str, object]) -> None:
        """The run has ended with this exit code; `facts` are JSON-ready."""
        if self._config.healthcheck:
            out = exit_code in (FULL, DEGRADED)
            name = "healthcheck success" if out else "healthcheck fail"
            self._send(name, _address(self._config.healthcheck, "" if out else "/fail"))
        if self._config.webhook and exit_code != FULL:
            document = {"job": "tapewire nightly", "exit_code": exit_code, **facts}
            self._send("webhook", self._config.webhook, json.dumps(document, allow_nan=False).encode())

    def close(self) -> None:
        """Wait a little for what is still under way, and say in the log how it went."""
        if self._thread is None:
            return
        self._messages.put(None)
        self._thread.join(PATIENCE)
        while not self._told.empty():
            name, outcome = self._told.get()
            note(name, outcome=outcome)
        if self._thread.is_alive():
            note("notices given up", seconds=PATIENCE)

    def _send(self, name: str, address: str, body: bytes | None = None) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="notices", daemon=True)
            self._thread.start()
        self._messages.put((name, address, body))

    def _work(self) -> None:
        while (message := self._messages.get()) is not None:
            name, address, body = message
            self._told.put((name, _deliver(address, body)))


def _address(base: str, suffix: str) -> str:
    """The check's address with a suffix to its path, before any query."""
    path, mark, query = base.partition("?")
    return f"{path.rstrip('/')}{suffix}{mark}{query}" if suffix else base


def _deliver(address: str, body: bytes | None) -> str:
    """Ask an address until it answers 2xx, a few times at most; how that ended."""
    import httpx2
    from tenacity import RetryError, Retrying, retry_if_result, stop_after_attempt, wait_exponential

    def ask() -> str:
        method, headers = ("GET", {}) if body is None else ("POST", {"Content-Type": "application/json"})
        try:
            with (
                httpx2.Client(timeout=TIMEOUT, trust_env=False) as client,
                client.stream(method, address, content=body, headers=headers) as answer,
            ):
                return "told" if answer.is_success else f"status {answer.status_code}"
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            return type(error).__name__

    attempts = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(PAUSE),
        retry=retry_if_result(lambda outcome: outcome != "told"),
    )
    try:
        return attempts(ask)
    except RetryError as error:
        return f"failed {ATTEMPTS} times: {error.last_attempt.result()}"
