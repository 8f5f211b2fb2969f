"""Downloads: whole or not at all, continued where they broke, checked, one line otherwise."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mmclipdis.utils import downloading
from mmclipdis.utils.downloading import DownloadError, download, sha256_of

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """A server with ranges; ``breaks`` says how many bytes each of the next answers brings."""

    content = CONTENT
    version: str | None = '"v1"'
    ranges = True
    breaks: list[int] = []
    asked: list[str] = []

    def do_GET(self) -> None:
        start = self.start()
        self.asked.append(str(self.headers.get("Range")))
        if self.path != "/model.pt":
            self.send_error(404)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/*")
        if self.version:
            self.send_header("ETag", self.version)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        data = self.content[start:]
        with contextlib.suppress(ConnectionError):  # the client had enough of it already
            self.wfile.write(data[: self.breaks.pop(0)] if self.breaks else data)

    def start(self) -> int:
        same = self.headers.get("If-Range") in (None, self.version)
        asked = self.headers.get("Range")
        return int(asked[6:-1]) if asked and self.ranges and same else 0

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Handler, "asked", [])
    monkeypatch.setattr(Handler, "breaks", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/model.pt"
        server.shutdown()


def leftovers(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.glob("*.incomplete")]


def test_a_connection_that_breaks_is_taken_up_where_it_broke(site: str, tmp_path: Path) -> None:
    Handler.breaks[:] = [1000, 5000]
    assert download(site, tmp_path / "model.pt", SHA256).read_bytes() == CONTENT
    assert Handler.asked == ["None", "bytes=1000-", "bytes=6000-"]
    assert leftovers(tmp_path) == []


def test_the_next_call_goes_on_where_the_last_one_ended(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "TRIES", 1)
    Handler.breaks[:] = [3000]
    with pytest.raises(DownloadError, match=r"3,000 bytes came of 1,024,000.*goes on from there"):
        download(site, tmp_path / "model.pt")
    assert leftovers(tmp_path) == [3000] and not (tmp_path / "model.pt").exists()
    assert download(site, tmp_path / "model.pt").read_bytes() == CONTENT
    assert Handler.asked[-1] == "bytes=3000-" and leftovers(tmp_path) == []


@pytest.mark.parametrize("change", ["version", "no ranges"])
def test_another_file_is_not_put_behind_the_start_of_this_one(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(downloading, "TRIES", 1)
    Handler.breaks[:] = [3000]
    with pytest.raises(DownloadError):
        download(site, tmp_path / "model.pt")
    new = CONTENT[::-1] if change == "version" else CONTENT
    monkeypatch.setattr(Handler, "content", new)
    monkeypatch.setattr(Handler, "version", '"v2"' if change == "version" else '"v1"')
    monkeypatch.setattr(Handler, "ranges", change == "version")
    assert download(site, tmp_path / "model.pt").read_bytes() == new


def test_without_a_version_nothing_is_continued(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "version", None)
    Handler.breaks[:] = [3000]
    with pytest.raises(DownloadError, match=r"^3,000 bytes came of 1,024,000$"):
        download(site, tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []
    # with a hash the end says whether it was right to go on
    Handler.breaks[:] = [3000]
    assert download(site, tmp_path / "model.pt", SHA256).read_bytes() == CONTENT
    assert Handler.asked[-1] == "bytes=3000-"


def test_another_hash_is_refused_and_nothing_is_kept(site: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"is not model.pt: its SHA-256 is {SHA256}, not 0000"):
        download(site, tmp_path / "model.pt", "0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_hash_is_replaced_and_one_that_is_right_asks_nobody(
    site: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"damaged")
    assert download(site, path, SHA256.upper()).read_bytes() == CONTENT
    asked = [*Handler.asked]
    assert len(asked) == 1
    assert download(site, path, SHA256) == download(site, path) == path
    assert Handler.asked == asked


def test_a_file_that_is_missing_and_a_server_that_is_not_there(site: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="404"):
        download(site.replace("model", "other"), tmp_path / "a")
    with pytest.raises(DownloadError, match="refused"):
        download("http://127.0.0.1:9/a.pt", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_somebody_put_there_is_not_written_through(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "TRIES", 1)
    Handler.breaks[:] = [3000]
    with pytest.raises(DownloadError):
        download(site, tmp_path / "model.pt")
    (part,) = tmp_path.glob("*.incomplete")
    part.unlink()
    part.symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="incomplete"):
        download(site, tmp_path / "model.pt")
    assert not (tmp_path / "mine").exists()


def _download(site: str, path: Path) -> None:
    download(site, path, SHA256)


def test_two_processes_bring_one_file(site: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=_download, args=(site, tmp_path / "m.pt")) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0]
    assert sha256_of(tmp_path / "m.pt") == SHA256
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt"]
