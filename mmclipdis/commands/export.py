"""``mmclipdis export``: a model with its words as one file for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from mmclipdis.commands.start import run
from mmclipdis.commands.usage import complete_model, words_of

EPILOG = """\b
Example:
  mmclipdis export clearclip-shapes --words "grass, sand, kite" --out shapes.onnx
"""


@click.command(epilog=EPILOG, short_help="Write a model with its words as ONNX or torch.export.")
@click.argument("model", shell_complete=complete_model)
@click.option("--words", help="The words, as for `mmclipdis segment`.")
@click.option("--words-file", type=click.Path(), help="A file of words, one a line.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file to write.")
@click.option("--format", "kind", type=click.Choice(["onnx", "torch"]), default="onnx",
              show_default=True, help="Of the file.")  # fmt: skip
@click.option("--weights", help="A checkpoint, if the model's own is not meant.")
@click.option("--image-size", type=int, help="Side of the images in pixels, if it is fixed.")
@click.option("--check/--no-check", default=True, help="Compare the file with the model.")
def export(
    model: str,
    words: str | None,
    words_file: str | None,
    out: Path,
    kind: str,
    weights: str | None,
    image_size: int | None,
    check: bool,
) -> int:
    """Write MODEL, a name (`mmclipdis models`) or a config, with its words into one file.

    The file holds the names and how photos are prepared, and is compared with the model before the
    command ends.
    """
    found = words_of(words, words_file)

    def work() -> int:
        from mmclipdis.export import export as write

        path = write(
            model, found, out, format=kind, checkpoint=weights, image_size=image_size, check=check
        )
        click.echo(f"wrote {path}", err=True)
        return 0

    return run(work)
