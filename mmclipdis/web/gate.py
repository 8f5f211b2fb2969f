"""What comes between a browser and gradio: requests that the page never makes end here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: A browser loads nothing from elsewhere, whatever gradio's page asks for.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
API = "/gradio_api/"
UPLOAD = API + "upload"
#: How addresses begin that the page never asks for: they fetch, write files or are for developers.
UNUSED = (
    *(API + name for name in ("proxy=", "deep_link", "vibe", "undo-vibe", "dev/", "run-history")),
    "/monitoring",
)
#: Bytes of a request that uploads nothing: the page's own have a few thousand.
MOST_BYTES = 200_000
#: Room of all uploads together, in uploads of the largest size; the oldest go within the hour.
MOST_UPLOADS = 50


class Gate:
    """ASGI middleware.

    Gradio keeps to the folder of uploads, too, but fetches addresses that a request names in the
    place of a file, takes a thousand files at once, and has pages for its own developers.

    Args:
        app: What answers.
        folder: Files are sent from here alone.
        most_bytes: Of an upload.
    """

    def __init__(self, app: Any, folder: Path, most_bytes: int) -> None:
        self.app, self.folder, self.most_bytes = app, folder.resolve(), most_bytes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on and add headers to its answer, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        refused = self._refused(scope)
        if refused is None and scope["method"] == "POST" and scope["path"] != UPLOAD:
            content = await _content(receive)
            receive = _again(content, receive)
            if _names_an_address(content):
                refused = 403, "the page takes files that were uploaded to it"
        if refused is None:
            await self.app(scope, receive, with_headers)
        else:
            await _refuse(with_headers, *refused)

    def _refused(self, scope: Any) -> tuple[int, str] | None:
        """Status and reason, if a request is refused by its head."""
        path: str = scope["path"]
        for start in ("file=", "file/"):
            if path.startswith(API + start) and not self._holds(path[len(API + start) :]):
                return 403, "there is no such file on this page"
        if path.startswith(UNUSED):
            return 404, "this page has none of that"
        if scope["method"] != "POST":
            return None
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            return 411, "say how long the request is"
        upload = path == UPLOAD
        if int(length) > (self.most_bytes + MOST_BYTES if upload else MOST_BYTES):
            return 413, f"too large: this page takes files of {self.most_bytes / 2**20:g} MB"
        if upload and _size(self.folder) > MOST_UPLOADS * self.most_bytes:
            return 507, "too much was uploaded; try again later"
        return None

    def _holds(self, file: str) -> bool:
        return Path(file).is_absolute() and Path(file).resolve().is_relative_to(self.folder)


def _names_an_address(content: bytes) -> bool:
    """Whether some file of a request's JSON lies elsewhere, from where gradio would fetch it."""
    try:
        todo = [json.loads(content or b"null")]
    except (ValueError, RecursionError):
        return False  # gradio refuses it
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            if "://" in str(value.get("path", "")):
                return True
            todo += value.values()
        elif isinstance(value, list):
            todo += value
    return False


async def _content(receive: Any) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _again(content: bytes, receive: Any) -> Any:
    """A ``receive`` that gives what was read, and then what comes."""
    unread = [{"type": "http.request", "body": content, "more_body": False}]

    async def read() -> Any:
        return unread.pop() if unread else await receive()

    return read


async def _refuse(send: Any, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _size(folder: Path) -> int:
    """Bytes of all files below a folder; some may go meanwhile."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.lstat().st_size if file.is_file() else 0
        except OSError:
            continue
    return total
