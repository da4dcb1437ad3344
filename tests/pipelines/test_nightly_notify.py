"""A health check and a webhook: told in order, retried, and never able to hold up or fail a night."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from pipelines.config import NightlyConfig
from pipelines.nightly import notify
from pipelines.nightly.log import night_log
from pipelines.nightly.notify import Notices


class Receiver:
    """A server on 127.0.0.1 that remembers what it was asked; it answers with `answers` in turn, the last for ever."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes]] = []
        self.answers = [200]
        self.hold = 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.asked.append((self.command, self.path, body))
                time.sleep(outer.hold)
                self.send_response(outer.answers[min(len(outer.asked), len(outer.answers)) - 1])
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST = _answer

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "PAUSE", 0.01)


def tell(config: NightlyConfig, exit_code: int, folder: Path, **facts: object) -> list[dict[str, object]]:
    """The lines of the log after a run that ended so."""
    with night_log(folder, lambda: np.datetime64("2024-01-02T03:04:05", "us")):
        notices = Notices(config)
        notices.started()
        notices.ended(exit_code, facts)
        notices.close()
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("code", "end"), [(0, ""), (3, ""), (4, "/fail"), (2, "/fail"), (1, "/fail")])
def test_the_check_is_asked_at_the_start_and_the_end(receiver: Receiver, tmp_path: Path, code: int, end: str) -> None:
    lines = tell(NightlyConfig(healthcheck=f"{receiver.url}/ping/uuid"), code, tmp_path)
    assert receiver.asked == [("GET", "/ping/uuid/start", b""), ("GET", f"/ping/uuid{end}", b"")]
    assert [line["outcome"] for line in lines] == ["told", "told"]


def test_a_query_stays_behind_the_path(receiver: Receiver, tmp_path: Path) -> None:
    tell(NightlyConfig(healthcheck=f"{receiver.url}/ping/?rid=1"), 0, tmp_path)
    assert [path for _, path, _ in receiver.asked] == ["/ping/start?rid=1", "/ping/?rid=1"]


def test_the_webhook_gets_what_was_less_than_full(receiver: Receiver, tmp_path: Path) -> None:
    config = NightlyConfig(webhook=f"{receiver.url}/hook")
    tell(config, 3, tmp_path, night="2024-01-02", reasons=["a feed failed"])
    ((method, path, body),) = receiver.asked
    assert (method, path) == ("POST", "/hook")
    assert json.loads(body) == {
        "job": "tapewire nightly", "exit_code": 3, "night": "2024-01-02", "reasons": ["a feed failed"]
    }  # fmt: skip


def test_a_full_night_is_no_news(receiver: Receiver, tmp_path: Path) -> None:
    assert tell(NightlyConfig(webhook=f"{receiver.url}/hook"), 0, tmp_path) == []
    assert receiver.asked == []


def test_a_server_that_fails_is_asked_again(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answers = [500, 503, 200]
    lines = tell(NightlyConfig(webhook=receiver.url), 4, tmp_path)
    assert len(receiver.asked) == 3
    assert [line["outcome"] for line in lines] == ["told"]


def test_a_server_that_goes_on_failing_is_told_in_the_log(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answers = [500]
    lines = tell(NightlyConfig(webhook=receiver.url), 4, tmp_path)
    assert len(receiver.asked) == notify.ATTEMPTS
    assert [line["outcome"] for line in lines] == ["failed 3 times: status 500"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/hook", "http://no-such-host.invalid/", "http://[::1]:1/x"])
def test_a_server_that_is_not_there_fails_nothing(tmp_path: Path, url: str) -> None:
    lines = tell(NightlyConfig(webhook=url, healthcheck=url), 4, tmp_path)
    assert [str(line["outcome"]).startswith("failed") for line in lines] == [True] * 3


def test_a_server_that_hangs_holds_nothing_up(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "PATIENCE", 0.2)
    receiver.hold = 2.0
    lines = tell(NightlyConfig(healthcheck=receiver.url), 0, tmp_path)
    assert [line["event"] for line in lines] == ["notices given up"]


def test_a_check_that_hangs_does_not_keep_the_webhook(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody ever answers at the check's address."""
    monkeypatch.setattr(notify, "PATIENCE", 2.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        check = f"http://127.0.0.1:{silent.getsockname()[1]}/uuid"
        lines = tell(NightlyConfig(healthcheck=check, webhook=f"{receiver.url}/hook"), 4, tmp_path)
    assert [path for _, path, _ in receiver.asked] == ["/hook"]
    assert [(line["event"], line.get("outcome", line.get("what"))) for line in lines] == [
        ("webhook", "told"), ("notices given up", "healthcheck")
    ]  # fmt: skip


def test_no_address_is_logged(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answers = [404]
    lines = tell(
        NightlyConfig(healthcheck=f"{receiver.url}/secret-uuid", webhook=f"{receiver.url}/secret"), 4, tmp_path
    )
    assert "secret" not in json.dumps(lines)


def test_whoever_is_not_named_is_not_told(tmp_path: Path) -> None:
    assert tell(NightlyConfig(), 4, tmp_path) == []


@pytest.mark.parametrize("address", ["ftp://x/y", "hc-ping.com/uuid", "http://", "javascript:alert(1)"])
def test_an_address_is_that_of_a_web_server(address: str) -> None:
    with pytest.raises(ValueError, match="healthcheck"):
        NightlyConfig(healthcheck=address)
