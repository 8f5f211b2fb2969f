"""Files of URLs: one file each URL, the hash in its name, and no half file."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from mmengine.runner.checkpoint import _load_checkpoint

from mmclipdis.engine.downloads import downloaded

CONTENT = {"/a/iter_8.pth": b"one", "/b/iter_8.pth": b"two", "/c.pth?v=2": b"three"}


class Handler(BaseHTTPRequestHandler):
    files: dict[str, bytes] = CONTENT
    short = 0

    def do_GET(self) -> None:
        if self.path not in self.files:
            self.send_error(404)
            return
        data = self.files[self.path]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data) + self.short))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_equal_names_of_two_places_are_two_files(site: str):
    assert downloaded(f"{site}/a/iter_8.pth").read_bytes() == b"one"
    assert downloaded(f"{site}/b/iter_8.pth").read_bytes() == b"two"
    assert downloaded(f"{site}/a/iter_8.pth").name == "iter_8.pth"


def test_the_query_is_part_of_the_address(site: str):
    assert downloaded(f"{site}/c.pth?v=2").read_bytes() == b"three"
    with pytest.raises(FileNotFoundError):
        downloaded(f"{site}/c.pth?v=3")


def test_a_file_kept_under_its_name_alone_is_not_taken(site: str, tmp_path: Path):
    old = tmp_path / "hub/hub/checkpoints/iter_8.pth"
    assert old.parent == Path(torch.hub.get_dir()) / "checkpoints"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"of another place")
    assert downloaded(f"{site}/a/iter_8.pth").read_bytes() == b"one"


def test_a_second_call_asks_nobody(site: str, monkeypatch: pytest.MonkeyPatch):
    path = downloaded(f"{site}/a/iter_8.pth")
    monkeypatch.setattr(Handler, "files", {})
    assert downloaded(f"{site}/a/iter_8.pth") == path


@pytest.mark.parametrize("length", [8, 64])
def test_the_hash_in_a_name_is_compared(site: str, monkeypatch, length: int):
    right = hashlib.sha256(b"weights").hexdigest()[:length]
    wrong = "0" * length
    files = {f"/r-{digest}.pth": b"weights" for digest in (right, wrong)}
    monkeypatch.setattr(Handler, "files", files)
    path = downloaded(f"{site}/r-{right}.pth")
    for name in (wrong, right):
        path.write_bytes(b"damaged")
        message = rf"r-{name}\.pth is not what {site}/r-{name}\.pth promises: its SHA-256 starts"
        with pytest.raises(ValueError, match=message):
            downloaded(f"{site}/r-{name}.pth")


def test_a_date_in_a_name_is_no_hash(site: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Handler, "files", {"/net-20210526.pth": b"x"})
    assert downloaded(f"{site}/net-20210526.pth").read_bytes() == b"x"


def test_a_download_that_ends_early_leaves_no_file(site: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(Handler, "short", 5)
    with pytest.raises(FileNotFoundError, match=r"cannot download .*a/iter_8\.pth \(.*3 .*8"):
        downloaded(f"{site}/a/iter_8.pth")
    assert not [path for path in (tmp_path / "hub").rglob("*") if path.is_file()]


def test_secrets_of_an_address_are_not_printed(site: str):
    address = site.replace("http://", "http://me:hidden@") + "/none.pth?token=secret"
    with pytest.raises(FileNotFoundError) as caught:
        downloaded(address)
    assert "none.pth (" in str(caught.value)
    assert "hidden" not in str(caught.value) and "secret" not in str(caught.value)


def test_the_file_in_use_is_logged(site: str, monkeypatch: pytest.MonkeyPatch):
    lines: list[str] = []
    monkeypatch.setattr(
        "mmclipdis.engine.downloads.print_log", lambda text, **_: lines.append(text)
    )
    path = downloaded(f"{site}/a/iter_8.pth")
    assert lines[-1] == f"{site}/a/iter_8.pth is read from {path}"


@pytest.mark.parametrize(
    ("address", "reason"),
    [("{site}/none.pth", "HTTP Error 404"), ("http://127.0.0.1:9/a.pth", "Connection refused")],
)
def test_what_cannot_be_had_is_one_line_with_the_address(site: str, address: str, reason: str):
    address = address.format(site=site)
    with pytest.raises(FileNotFoundError, match=f"cannot download checkpoint {address} .*{reason}"):
        _load_checkpoint(address, logger=logging.getLogger())


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [(b"<html>Log in</html>", "text/html", "a web page"), (b"", "binary", "0 bytes came of 0")],
    ids=["web page", "nothing"],
)
def test_an_answer_that_is_no_file_is_not_kept(
    site: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    kind: str,
    reason: str,
) -> None:
    def answer(self: Handler) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    monkeypatch.setattr(Handler, "do_GET", answer)
    with pytest.raises(FileNotFoundError, match=f"cannot download checkpoint .*{reason}"):
        downloaded(f"{site}/a/login.pth")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_redirect_without_end_is_one_line(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(self: Handler) -> None:
        self.send_response(302)
        self.send_header("Location", self.path)
        self.end_headers()

    monkeypatch.setattr(Handler, "do_GET", answer)
    with pytest.raises(FileNotFoundError, match="infinite loop") as caught:
        downloaded(f"{site}/loop.pth")
    assert "\n" not in str(caught.value)


def test_a_kept_file_that_cannot_be_read_says_how_to_have_it_again(site: str) -> None:
    with pytest.raises(ValueError, match=r"came from .*/a/iter_8\.pth and is kept; delete it"):
        _load_checkpoint(f"{site}/a/iter_8.pth")
