"""Models from a hub: a server on this machine that speaks enough of the hub's protocol."""

import json
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from bundles import small_stored

from data.errors import ModelError
from pipelines.bundle import Bundle, files_of
from pipelines.bundle_files import FILES, MANIFEST

COMMIT = "1f" * 20
REPO = "somebody/forecaster"


class Hub(BaseHTTPRequestHandler):
    """One repository: what it holds, and what was asked for."""

    files: ClassVar[dict[str, bytes]] = {}
    claimed: ClassVar[dict[str, int]] = {}  # sizes that are not true
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: Any) -> None:
        """Not on stderr."""

    def _answer(self, body: bool) -> None:
        path = self.path.split("?")[0].strip("/")
        if path.startswith("api/models/"):
            self._describe(path)
        elif path.startswith(f"{REPO}/resolve/"):
            self._file(path.removeprefix(f"{REPO}/resolve/").partition("/"), body)
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _describe(self, path: str) -> None:
        _, _, revision = path.removeprefix(f"api/models/{REPO}").partition("/revision/")
        if not path.startswith(f"api/models/{REPO}"):
            return self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        if revision not in ("", "main", "v1", COMMIT):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if path.endswith(f"/tree/{COMMIT}"):
            return self._send(200, json.dumps([self._entry(name) for name in self.files]).encode(), {})
        siblings = [{"rfilename": name, "size": len(content)} for name, content in self.files.items()]
        return self._send(200, json.dumps({"id": REPO, "sha": COMMIT, "siblings": siblings}).encode(), {})

    def _entry(self, name: str) -> dict[str, Any]:
        size = self.claimed.get(name, len(self.files[name]))
        return {"type": "file", "path": name, "size": size, "oid": sha256(self.files[name]).hexdigest()}

    def _file(self, parts: tuple[str, str, str], body: bool) -> None:
        _, _, name = parts
        if name not in self.files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        if body:
            self.asked.append(name)
        content = self.files[name]
        facts = {"ETag": f'"{sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        return self._send(200, content, facts, self.claimed.get(name), body)

    def _send(
        self, status: int, content: bytes, headers: dict[str, str], size: int | None = None, body: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(size or len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Hub]]:
    """A hub with a model, besides files that are none of a model's."""
    stored = small_stored(3)
    Hub.files = {**files_of(stored), ".gitattributes": b"x", "pytorch_model.bin": b"\x80evil", "code/modeling.py": b""}
    Hub.claimed, Hub.asked = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)  # it was read from there at the import
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    yield Hub
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("revision", [None, "v1", COMMIT])
def test_a_model_of_the_hub_opens_by_its_own_files_alone(hub: type[Hub], revision: str | None) -> None:
    bundle = Bundle.from_pretrained(REPO, revision)
    assert bundle.model_id == small_stored(3).model_id
    assert set(hub.asked) == {*FILES, MANIFEST}


def test_what_the_cache_holds_opens_without_the_hub(hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.from_pretrained(REPO, COMMIT)
    hub.files = {}
    assert Bundle.from_pretrained(REPO, COMMIT).model_id == bundle.model_id


def test_a_model_of_the_hub_is_verified_too(hub: type[Hub]) -> None:
    weights = hub.files["model.safetensors"]
    hub.files["model.safetensors"] = weights[:-1] + bytes([weights[-1] ^ 1])
    with pytest.raises(ModelError, match=rf"{REPO} at main/model\.safetensors: expected sha256"):
        Bundle.from_pretrained(REPO)


def test_a_model_that_lacks_a_file_is_refused(hub: type[Hub]) -> None:
    del hub.files["config.json"]
    with pytest.raises(ModelError, match=r"config\.json"):
        Bundle.from_pretrained(REPO)


def test_a_file_of_an_absurd_size_is_not_fetched(hub: type[Hub]) -> None:
    hub.claimed["README.md"] = 10**12
    with pytest.raises(ModelError, match=r"found 1000000000000\. It is not fetched"):
        Bundle.from_pretrained(REPO)
    assert hub.asked == []


@pytest.mark.parametrize(
    ("name", "revision"), [("nobody/nothing", None), (REPO, "v7"), ("not a name", None), ("/no/such/folder", None)]
)
def test_what_is_nowhere_is_said_to_be(hub: type[Hub], name: str, revision: str | None) -> None:
    with pytest.raises(ModelError, match=r"expected a model's folder or one on the hub"):
        Bundle.from_pretrained(name, revision)
