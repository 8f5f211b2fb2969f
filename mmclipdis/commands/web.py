"""``mmclipdis web``: a page to try words on photos."""

from __future__ import annotations

import socket
from importlib.util import find_spec

import click

from mmclipdis.commands.start import run
from mmclipdis.commands.usage import Mistake, complete_model

EPILOG = """\b
Example:
  mmclipdis web --port 8000
"""


@click.command(epilog=EPILOG, short_help="Open a web page to try words on photos.")
@click.option("--model", shell_complete=complete_model, help="What the page begins with.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; "
              "that of the default answers this machine alone.")  # fmt: skip
@click.option("--port", type=click.IntRange(1, 65535), default=7860, show_default=True)
@click.option("--device", help="'cuda', 'cpu', ...; a GPU if there is one.")
@click.option("--share", is_flag=True, help="Ask gradio for a public address.")
def web(model: str | None, host: str, port: int, device: str | None, share: bool) -> int:
    """Open a web page: photo, words, task, threshold; overlays, heat maps, tables, downloads."""
    if find_spec("gradio") is None:
        raise Mistake(
            "the web page needs gradio, which is not installed; run: pip install 'mmclipdis[web]'"
        )
    check_port(host, port)

    def work() -> int:
        from mmclipdis.web import launch

        launch(model=model, host=host, port=port, device=device, share=share)
        return 0

    return run(work)


def check_port(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on.

    Raises:
        Mistake: another program does, or there is no such address.
    """
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            raise Mistake(
                f"cannot listen on {host}:{port} ({error.strerror or error}); if another program "
                "does, give another --port"
            ) from error
