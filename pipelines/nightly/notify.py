"""Whom a night tells how it went: a health check (the conventions of healthchecks.io) and a webhook.

The check's address is asked at the start (`/start`) and at the end: as it is where forecasts are out (full or
degraded), `/fail` where none are. The webhook gets a JSON document of every run that was less than full. Each has a
thread of its own, so that one which hangs does not keep the other from being told; the night waits for both only
briefly, and only at its very end: a server that is down, slow or hostile costs a line in the log. Redirects are not
followed, answers not read, addresses never logged: who knows them may use them.
"""

import json
import queue
import threading
import time

from pipelines.config import NightlyConfig
from pipelines.nightly.log import note
from pipelines.nightly.outcome import DEGRADED, FULL

TIMEOUT = 5.0  # seconds to connect, and for each wait
ATTEMPTS = 3
PAUSE = 0.5  # seconds before the second attempt, doubled
PATIENCE = 20.0  # seconds that the end of a run waits for what is still to be told

Message = tuple[str, str, bytes | None]  # what it is, the address, the body of a POST


class Notices:
    """What one run tells. `started` and `ended` return at once; `ended` is followed by `close`."""

    def __init__(self, config: NightlyConfig) -> None:
        self._config = config
        self._told: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._check = _Line("healthcheck", self._told)
        self._hook = _Line("webhook", self._told)

    def started(self) -> None:
        """The run has begun."""
        if self._config.healthcheck:
            self._check.send("healthcheck start", _address(self._config.healthcheck, "/start"))

    def ended(self, exit_code: int, facts: dict[str, object]) -> None:
        """The run has ended with this exit code; `facts` are JSON-ready."""
        if self._config.healthcheck:
            out = exit_code in (FULL, DEGRADED)
            name = "healthcheck success" if out else "healthcheck fail"
            self._check.send(name, _address(self._config.healthcheck, "" if out else "/fail"))
        if self._config.webhook and exit_code != FULL:
            document = {"job": "tapewire nightly", "exit_code": exit_code, **facts}
            self._hook.send("webhook", self._config.webhook, json.dumps(document, allow_nan=False).encode())

    def close(self) -> None:
        """Wait a little for what is still under way, and say in the log how it went."""
        end = time.monotonic() + PATIENCE
        given_up = [line.name for line in (self._hook, self._check) if not line.ends(end)]
        while not self._told.empty():
            name, outcome = self._told.get()
            note(name, outcome=outcome)
        for name in given_up:
            note("notices given up", what=name, seconds=PATIENCE)


class _Line:
    """One address, told in order by a thread that is started with the first message."""

    def __init__(self, name: str, told: "queue.SimpleQueue[tuple[str, str]]") -> None:
        self.name, self._told = name, told
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def send(self, name: str, address: str, body: bytes | None = None) -> None:
        """Tell it, some time."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)
            self._thread.start()
        self._messages.put((name, address, body))

    def ends(self, at: float) -> bool:
        """Whether all was told, or given up, by an instant of the monotonic clock."""
        if self._thread is None:
            return True
        self._messages.put(None)
        self._thread.join(max(0.0, at - time.monotonic()))
        return not self._thread.is_alive()

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
