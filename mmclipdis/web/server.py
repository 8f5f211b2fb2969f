"""Starting and ending the page: who reaches it, and what is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmclipdis.apis.zoo import models
from mmclipdis.web.address import check_gradio, check_port, is_loopback
from mmclipdis.web.gate import Gate
from mmclipdis.web.offers import info_of, label, offered_models

#: A photo may have so many megabytes and pixels.
MOST_MEGABYTES, MOST_PIXELS = 20, 16_000_000


@dataclass(frozen=True)
class Running:
    """A page that is served: its address, that of gradio's tunnel, and how it ends."""

    url: str
    public_url: str | None
    page: Any
    folder: Path
    ending: ExitStack = field(default_factory=ExitStack, repr=False)

    def close(self) -> None:
        """Stop serving and remove what was uploaded; safe to call again."""
        self.ending.close()


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
        allowed: Names of the models that are offered; None for those with short names whose
            weights are on this machine or come by themselves.
        device: As of the inferencers.
        max_pixels: Of a photo.

    Raises:
        ImportError: gradio is not installed.
        ValueError: a model that the zoo has not.
    """
    check_gradio()
    offered = offered_models(model, allowed)
    task = info_of(model).task if model is not None else next(iter(offered))
    from mmclipdis.web.desk import Desk
    from mmclipdis.web.examples import write_examples
    from mmclipdis.web.page import make_page

    names = {task: [info.name for info in infos] for task, infos in offered.items()}
    first = info_of(model).name if model is not None else names[task][0]
    desk = Desk(names, Path(folder), device, max_pixels)
    labels = {task: [(label(info), info.name) for info in found] for task, found in offered.items()}
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
    check_gradio()
    if max_megabytes <= 0 or max_pixels < 1:
        raise ValueError(f"limits must be positive, got {max_megabytes} MB, {max_pixels} pixels")
    open_to_others = share or not is_loopback(host)
    if allowed is None and open_to_others:
        allowed = [info.name for info in models() if info.offline and info.short]
    offered_models(model, allowed)  # before anything slow
    check_port(host, port)
    with ExitStack() as ending:  # of what was begun, if the rest fails
        folder = Path(tempfile.mkdtemp(prefix="mmclipdis_web_"))
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        ending.enter_context(_environment(folder))
        page = build(folder, model=model, allowed=allowed, device=device, max_pixels=max_pixels)
        ending.callback(page.close, verbose=False)
        running = _serve(page, folder, host, port, share, max_megabytes, inbrowser)
        running = replace(running, ending=ending.pop_all())
    _greet(running, host, open_to_others)
    if block:
        _wait(running)
    return running


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Variables that gradio reads while it serves; afterwards they are what they were."""
    values = dict(
        GRADIO_TEMP_DIR=str(folder / "uploads"),
        GRADIO_EXAMPLES_CACHE=str(folder / "cache"),  # not in the folder where it was started
        GRADIO_ANALYTICS_ENABLED="False",
        GRADIO_RUN_HISTORY="False",  # in the browser, or at a hub
        HF_HUB_DISABLE_TELEMETRY="1",
    )
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


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

    if ":" in host:
        host = f"[{host.strip('[]')}]"  # as it stands in addresses of pages
    most_bytes = int(max_megabytes * 2**20)
    middleware = [Middleware(Gate, folder=folder, most_bytes=most_bytes)]
    if is_loopback(host) and not share:  # no other site's name leads a browser here
        names = [host, "localhost", "127.0.0.1"]
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
        max_file_size=most_bytes,
        footer_links=[],
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        strict_cors=True,
        state_session_capacity=100,
        app_kwargs={"middleware": middleware, "docs_url": None, "redoc_url": None},
        theme=theme(),
        css=CSS,
    )
    return Running(url, public, page, folder)


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
