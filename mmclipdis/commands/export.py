"""``mmclipdis export``: a model with its words as one file for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from mmclipdis.commands.start import run
from mmclipdis.commands.usage import Mistake, complete_model, words_of

EPILOG = """\b
Example:
  mmclipdis export clearclip-shapes --words "grass, sand, kite" --out shapes.onnx
"""
SETTINGS = "--cfg-options"


class WithSettings(click.Command):
    """Takes several words behind ``--cfg-options``, as argparse does in trainings."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As always, with the option before each of its words."""
        words: list[str] = []
        repeated = False
        for word in args:
            if repeated and not word.startswith("-") and words[-1] != SETTINGS:
                words.append(SETTINGS)
            words.append(word)
            repeated = word == SETTINGS or (repeated and not word.startswith("-"))
        return super().parse_args(ctx, words)


def _settings(context: click.Context, parameter: click.Parameter, value: Sequence[str]) -> Any:
    wrong = [pair for pair in value if not pair.partition("=")[0] or "=" not in pair]
    if wrong:
        raise Mistake(
            f"{SETTINGS} takes key=value pairs, got {wrong[0]!r}; what is no setting stands "
            f"before {SETTINGS}"
        )
    return value


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    sides = value.lower().split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() for side in sides):
        raise Mistake(f"--image-size {value!r}: give a side or height x width, as 224 or 480x640")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


@click.command(
    cls=WithSettings,
    epilog=EPILOG,
    short_help="Write a model with its words as ONNX or torch.export.",
)
@click.argument("model", shell_complete=complete_model)
@click.option("--words", help="The words, as for `mmclipdis segment`.")
@click.option("--words-file", type=click.Path(), help="A file of words, one a line.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file to write.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["onnx", "torch"]),
    default="onnx",
    show_default=True,
    help="Of the file.",
)
@click.option("--weights", help="A checkpoint, if the model's own is not meant.")
@click.option(
    "--image-size",
    metavar="SIDE|HEIGHTxWIDTH",
    callback=_size,
    help="Of all images, in pixels; detectors need it. Else any size that the model allows.",
)
@click.option(
    "--task",
    type=click.Choice(["segment", "detect", "tag"]),
    help="For a name that models of several tasks have.",
)
@click.option(
    SETTINGS,
    multiple=True,
    callback=_settings,
    metavar="KEY=VALUE ...",
    help="Settings that replace those of the config, as for `mmclipdis train`.",
)
@click.option("--check/--no-check", default=True, help="Compare the file with the model.")
def export(
    model: str,
    words: str | None,
    words_file: str | None,
    out: Path,
    kind: str,
    weights: str | None,
    image_size: int | tuple[int, int] | None,
    task: str | None,
    cfg_options: tuple[str, ...],
    check: bool,
) -> int:
    """Write MODEL, a name (`mmclipdis models`) or a config, with its words into one file.

    The file holds the names and how photos are prepared, and is compared with the model before the
    command ends.
    """
    found = words_of(words, words_file)

    def work() -> int:
        from mmclipdis.apis.zoo.resolving import read_settings
        from mmclipdis.export import export as write

        path = write(
            model,
            found,
            out,
            format=kind,
            checkpoint=weights,
            image_size=image_size,
            task=task,
            check=check,
            cfg_options=read_settings(cfg_options),
        )
        click.echo(f"wrote {path}", err=True)
        return 0

    return run(work)
