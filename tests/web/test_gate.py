"""Requests that the page never makes are refused before gradio sees them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from mmclipdis.web import gate
from mmclipdis.web.gate import Gate

MEGABYTE = 2**20


class Asked:
    """Sends requests through a gate to an application that notes what comes through."""

    def __init__(self, folder: Path) -> None:
        self.gate = Gate(self._answer, folder, 2 * MEGABYTE)
        self.seen: list[bytes] = []

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        self.seen.append(message["body"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b"answer"})

    def __call__(
        self, path: str, body: bytes | None = None, headers: dict[bytes, bytes] | None = None
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        """Status, headers and content of what is answered."""
        parts = [(body or b"")[:10], (body or b"")[10:]]
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        async def send(message: Any) -> None:
            sent.append(message)

        if headers is None:
            headers = {} if body is None else {b"content-length": b"%d" % len(body)}
        method = "GET" if body is None else "POST"
        scope = {"type": "http", "method": method, "path": path, "headers": [*headers.items()]}
        asyncio.run(self.gate(scope, receive, send))
        return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


@pytest.fixture
def ask(tmp_path: Path) -> Asked:
    (tmp_path / "uploads").mkdir()
    return Asked(tmp_path)


def test_every_answer_tells_the_browser_to_load_nothing_from_elsewhere(ask):
    for path in ("/", "/gradio_api/file=/etc/passwd"):
        _, headers, _ = ask(path)
        policy = headers[b"content-security-policy"].decode()
        assert policy.startswith("default-src 'self'")
        assert "http" not in policy
        assert headers[b"x-content-type-options"] == b"nosniff"
    assert ask("/")[1][b"a"] == b"b"


def test_files_are_sent_from_the_folder_alone(ask, tmp_path):
    (tmp_path / "uploads" / "link.png").symlink_to("/etc/passwd")
    assert ask(f"/gradio_api/file={tmp_path}/uploads/a.png")[0] == 200
    refused = (
        *("/etc/passwd", "setup.py", "https://example.org/a.png", "file:///etc/passwd"),
        *(f"{tmp_path}/../x.png", f"{tmp_path}/uploads/link.png", f"{tmp_path}x/a.png", ""),
    )
    for file in refused:
        for form in ("file=", "file/"):
            assert ask(f"/gradio_api/{form}{file}")[0] == 403, (form, file)


@pytest.mark.parametrize(
    "path",
    [
        *("proxy=https://example.org/", "deep_link?session_hash=a", "dev/reload", "vibe-edit"),
        *("undo-vibe-edit", "run-history/records"),
    ],
)
def test_what_the_page_does_not_need_is_not_there(ask, path):
    assert ask(f"/gradio_api/{path}")[0] == 404
    assert ask("/monitoring/summary")[0] == 404
    assert ask.seen == []


def test_what_the_page_sends_comes_through_as_it_was(ask):
    file = {"path": "/tmp/a.png", "url": "http://127.0.0.1/a.png", "meta": {}}
    body = json.dumps({"data": [file, "see https://example.org", None]}).encode()
    assert ask("/gradio_api/queue/join", body)[0] == 200
    assert ask("/gradio_api/run/predict", body)[0] == 200
    assert ask.seen == [body, body]


@pytest.mark.parametrize("address", ["https://example.org/a.png", "HTTP://10.0.0.1/", "ftp://x/y"])
def test_a_file_at_an_address_is_not_fetched(ask, address):
    body = json.dumps({"data": [None, [{"deep": {"path": address}}]]}).encode()
    status, _, content = ask("/gradio_api/queue/join", body)
    assert status == 403
    assert json.loads(content) == {"detail": "the page takes files that were uploaded to it"}
    assert ask.seen == []


def test_large_requests_and_those_that_hide_their_size_are_refused_unread(ask):
    upload = "/gradio_api/upload"
    assert ask(upload, b"x" * 2 * MEGABYTE)[0] == 200
    status, _, content = ask(upload, b"", {b"content-length": b"%d" % (3 * MEGABYTE)})
    assert (status, json.loads(content)["detail"]) == (
        413,
        "too large: this page takes files of 2 MB",
    )
    assert ask("/gradio_api/queue/join", b"", {b"content-length": b"300000"})[0] == 413
    assert ask(upload, b"x", {})[0] == 411
    assert ask(upload, b"x", {b"content-length": b"-1"})[0] == 411


def test_uploads_together_have_their_limit(ask, tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "MOST_UPLOADS", 1)
    (tmp_path / "uploads" / "a.png").write_bytes(b"x" * 2 * MEGABYTE)
    assert ask("/gradio_api/upload", b"x")[0] == 200
    (tmp_path / "uploads" / "b.png").write_bytes(b"x" * 9000)
    assert ask("/gradio_api/upload", b"x")[0] == 507


def test_what_is_no_json_is_left_to_gradio(ask):
    assert ask("/gradio_api/queue/join", b"{")[0] == 200
    assert ask("/gradio_api/reset", b"")[0] == 200
