"""``mmclipdis web``: a page to try words on photos."""

from __future__ import annotations

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
    from mmclipdis.web.address import check_gradio, check_port

    try:
        check_gradio()
        check_port(host, port)
    except (ImportError, OSError, ValueError) as error:
        raise Mistake(str(error)) from error

    def work() -> int:
        from mmclipdis.web import launch

        launch(model=model, host=host, port=port, device=device, share=share)
        return 0

    return run(work)
