"""``mmclipdis convert``: the converters of ``tools``, which a wheel has in ``.mim``."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import click

from mmclipdis.commands.training import PASSED_ON
from mmclipdis.utils.places import PACKAGE, ROOT

TOOLS = ROOT / "tools"
FOLDERS = ("model_converters", "dataset_converters")
EPILOG = """\b
Examples:
  mmclipdis convert fvit CONFIG released.pth checkpoints/fvit.pth
  mmclipdis convert coco_object data/coco
"""


class Converters(click.Group):
    """A subcommand for each file of the folders of converters; all words go on to it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the files: those of weights, then those of data sets."""
        return [path.stem for folder in FOLDERS for path in sorted((TOOLS / folder).glob("*.py"))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The converter of that name, with underscores or hyphens; None if there is none."""
        name = cmd_name.replace("-", "_")
        files = [TOOLS / folder / f"{name}.py" for folder in FOLDERS]
        path = next((file for file in files if name.isidentifier() and file.is_file()), None)
        return None if path is None else _converter(path)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As always; an unknown name is answered with the names that there are."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            names = ", ".join(self.list_commands(ctx))
            ctx.fail(f"there is no converter {args[0]!r}; there are {names}")
        return super().resolve_command(ctx, args)


def _converter(path: Path) -> click.Command:
    """A process of its own: converters start processes, which need their file as it is."""
    summary = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n")[0]

    @click.command(path.stem, short_help=summary, **PASSED_ON)
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def converter(words: tuple[str, ...]) -> int:
        others = os.environ.get("PYTHONPATH")
        found = os.pathsep.join([str(PACKAGE.parent), *([others] if others else [])])
        environment = {**os.environ, "PYTHONPATH": found}
        # Ctrl-C reaches both; it is the converter that cleans up, says so and has the exit code
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            code = subprocess.run([sys.executable, str(path), *words], env=environment).returncode
        finally:
            signal.signal(signal.SIGINT, before)
        return code if code >= 0 else 128 - code

    return converter


convert = Converters(
    "convert",
    help="Convert released weights and data sets. Each converter has a --help of its own.",
    short_help="Convert released weights and data sets.",
    epilog=EPILOG,
)
