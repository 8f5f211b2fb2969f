"""Starting and ending the page: where it listens, what leaves it, and what is left behind."""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmclipdis.apis.zoo import ModelInfo, find, models
from mmclipdis.apis.zoo.listing import DEFAULTS, ENTRANCES, near

#: A photo may have so many megabytes and pixels.
MOST_MEGABYTES, MOST_PIXELS = 20, 16_000_000
#: A browser loads nothing from elsewhere, whatever gradio's page asks for.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'"
)
NO_GRADIO = "the web page needs gradio, which is not installed; run: pip install 'mmclipdis[web]'"


@dataclass(frozen=True)
class Running:
    """A page that is served: its address, that of gradio's tunnel, and how it ends."""

    url: str
    public_url: str | None
    page: Any
    folder: Path

    def close(self) -> None:
        """Stop serving and remove what was uploaded; safe to call again."""
        self.page.close(verbose=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def build(
    folder: str | Path,
    *,
    model: str | None = None,
    allowed: Sequence[str] | None = None,
    device: str | None = None,
    max_pixels: int = MOST_PIXELS,
) -> Any:
    """The page as gradio's ``Blocks``, for a server of your own; :func:`launch` serves it.

    Args:
        folder: Photos are read from here alone, and examples and downloads are written here:
            that of ``GRADIO_TEMP_DIR``, or one above it.
        model: Name of a model that the page begins with.
        allowed: Names of the models that are offered; None for those with short names.
        device: As of the inferencers.
        max_pixels: Of a photo.

    Raises:
        ImportError: gradio is not installed.
        ValueError: a model that the zoo has not.
    """
    if find_spec("gradio") is None:
        raise ImportError(NO_GRADIO)
    offered = offered_models(model, allowed)
    task = _info(model).task if model is not None else next(iter(offered))
    from mmclipdis.web.desk import Desk
    from mmclipdis.web.examples import write_examples
    from mmclipdis.web.page import make_page

    names = {task: [info.name for info in infos] for task, infos in offered.items()}
    first = _info(model).name if model is not None else names[task][0]
    desk = Desk(names, Path(folder), device, max_pixels)
    labels = {
        task: [(_label(info), info.name) for info in found] for task, found in offered.items()
    }
    examples = [one for one in write_examples(Path(folder) / "examples") if one[2] in offered]
    return make_page(desk, examples, labels, (task, first))


def launch(
    host: str = "127.0.0.1",
    port: int = 7860,
    share: bool = False,
    *,
    model: str | None = None,
    allowed: Sequence[str] | None = None,
    device: str | None = None,
    max_megabytes: float = MOST_MEGABYTES,
    max_pixels: int = MOST_PIXELS,
    inbrowser: bool = False,
    block: bool = True,
) -> Running:
    """Serve the page until Ctrl-C or SIGTERM; uploads are removed at the end.

    Args:
        host: Address to listen on; other machines reach the page only if it is another than that
            of this machine itself.
        port: To listen on.
        share: Have gradio open a tunnel with a public address.
        model, allowed, device, max_pixels: As of :func:`build`. Where other machines reach the
            page and ``allowed`` is None, only models that come with the package are offered (and
            ``model``): nobody else starts downloads.
        max_megabytes: Of an upload.
        inbrowser: Open a browser.
        block: False returns at once; then ``close()`` of what is returned ends the page.

    Raises:
        ImportError: gradio is not installed.
        ValueError: a model that the zoo has not, or limits below 1.
        OSError: the address cannot be listened on.
    """
    if find_spec("gradio") is None:
        raise ImportError(NO_GRADIO)
    if max_megabytes <= 0 or max_pixels < 1:
        raise ValueError(f"limits must be positive, got {max_megabytes} MB, {max_pixels} pixels")
    open_to_others = share or not is_loopback(host)
    if allowed is None and open_to_others:
        allowed = [info.name for info in models() if info.offline and info.short]
    offered_models(model, allowed)  # before anything slow
    check_port(host, port)
    folder = Path(tempfile.mkdtemp(prefix="mmclipdis_web_"))
    os.environ.update(
        GRADIO_TEMP_DIR=str(folder / "uploads"),
        GRADIO_ANALYTICS_ENABLED="False",
        HF_HUB_DISABLE_TELEMETRY="1",
    )
    try:
        page = build(folder, model=model, allowed=allowed, device=device, max_pixels=max_pixels)
        running = _serve(page, folder, host, port, share, max_megabytes, inbrowser)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _greet(running, host, open_to_others)
    if block:
        _wait(running)
    return running


def _serve(
    page: Any,
    folder: Path,
    host: str,
    port: int,
    share: bool,
    max_megabytes: float,
    inbrowser: bool,
) -> Running:
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from mmclipdis.web.page import CSS, theme

    middleware = [Middleware(Headers)]
    if is_loopback(host) and not share:  # no other site's name leads a browser here
        names = [host.strip("[]"), "localhost", "127.0.0.1"]
        middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=names))
    page.queue(default_concurrency_limit=1, max_size=32)
    _, url, public = page.launch(
        server_name=host,
        server_port=port,
        share=share,
        prevent_thread_lock=True,
        show_error=False,
        quiet=True,
        inbrowser=inbrowser,
        max_file_size=int(max_megabytes * 2**20),
        footer_links=[],
        enable_monitoring=False,
        ssr_mode=False,
        strict_cors=True,
        state_session_capacity=100,
        app_kwargs={"middleware": middleware, "docs_url": None, "redoc_url": None},
        theme=theme(),
        css=CSS,
    )
    return Running(url, public, page, folder)


class Headers:
    """ASGI middleware: answers tell the browser to load nothing from elsewhere."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, and add the headers to its answer."""

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


def offered_models(
    model: str | None = None, allowed: Sequence[str] | None = None
) -> dict[str, list[ModelInfo]]:
    """Task -> the models that the page offers, those that need no download first.

    Raises:
        ValueError: a name that the zoo has not, or of a model that takes no photos and words.
    """
    if allowed is None:
        named = [info for info in models() if info.short or info.default]
    else:
        named = [info for name in dict.fromkeys(allowed) for info in _infos(name)]
    if model is not None and _info(model) not in named:
        named.insert(0, _info(model))
    if not named:
        raise ValueError("no models: name at least one that the page may offer")
    offered = {task: [info for info in named if info.task == task] for task in ENTRANCES}
    return {
        task: sorted(infos, key=lambda info: (not info.default, not info.offline))
        for task, infos in offered.items()
        if infos
    }


def _info(name: str) -> ModelInfo:
    """The model of a name; of one that several tasks know, the packaged model of a task first."""
    return sorted(_infos(name), key=lambda info: not info.default)[0]


def _infos(name: str) -> list[ModelInfo]:
    """The models of a name, one for each task that knows it.

    Raises:
        ValueError: there is none, or it takes no photos and words.
    """
    found = [find(name, task) for task in ENTRANCES]
    infos = [info for info, task in zip(found, ENTRANCES) if info is not None and info.task == task]
    if infos:
        return infos
    if found[0] is not None:
        raise ValueError(
            f"the model {name!r} neither segments, detects nor tags photos; take another, such as "
            f"{DEFAULTS['segment']!r}"
        )
    close = near(name)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    raise ValueError(
        f"there is no model {name!r}; {hint}The page takes names of the zoo, which "
        "`mmclipdis models` lists"
    )


def _label(info: ModelInfo) -> str:
    return info.name if info.offline else f"{info.name} (needs a download)"


def is_loopback(host: str) -> bool:
    """Whether an address is that of this machine itself, which no other one reaches."""
    if host.strip("[]").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_port(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on, before anything slow.

    Raises:
        OSError: another program does, or this machine has no such address.
        ValueError: no port.
    """
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
        raise ValueError(f"a port is a number from 1 to 65535, got {port!r}")
    try:
        family, *_, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}:{port} ({error.strerror or error}); if another program "
            f"does, give another port, such as --port {port + 1 if port < 65535 else 7860}"
        ) from error


def _greet(running: Running, host: str, open_to_others: bool) -> None:
    """Say where the page is; warn if others reach it."""
    if open_to_others:
        whom = running.public_url or host
        print(
            f"warning: other machines reach this page ({whom}), and whoever does can use it "
            "without a password; --host 127.0.0.1 without --share keeps it to this machine",
            file=sys.stderr,
        )
    print(f"The page is at {running.public_url or running.url} (Ctrl-C ends it)", flush=True)


def _wait(running: Running) -> None:
    """Until Ctrl-C or SIGTERM; then the page is closed."""
    end = threading.Event()
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, lambda *_: end.set())
    try:
        while not end.wait(3600):
            pass
    except KeyboardInterrupt:
        print("\nThe page has ended.", file=sys.stderr)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
        running.close()
