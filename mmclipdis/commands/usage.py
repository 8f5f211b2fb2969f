"""What the subcommands share of the command line: mistakes, words, names of models."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem


class Mistake(click.ClickException):
    """One line for the user, with the remedy; the command ends with exit code 2."""


def words_of(words: str | None, file: str | None) -> str | Path:
    """What ``--words`` or ``--words-file`` says.

    Raises:
        Mistake: neither is given, both are, there is no such file, or it holds no text.
    """
    if words is not None and file is not None:
        raise Mistake("--words and --words-file both say what to look for: give one")
    if file is not None:
        return _checked(Path(file).expanduser())
    if words is None or not words.strip(" ,;"):
        raise Mistake(
            "no words: say what to look for, --words 'grass, sand, kite' or --words-file FILE "
            "with a word a line"
        )
    return words


def _checked(path: Path) -> Path:
    """A file with words; what its lines mean says the inferencer."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        raise Mistake(f"--words-file {path} {what}: give a text file with a word a line")
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise Mistake(
            f"--words-file {path} is no UTF-8 text ({error.reason} at byte {error.start}): give a "
            "text file with a word a line"
        ) from error
    except OSError as error:
        raise Mistake(f"--words-file {path} cannot be read: {error.strerror or error}") from error
    if not text.strip(" ,;\n\r\t\ufeff"):
        raise Mistake(f"--words-file {path} is empty: write a word a line")
    return path


def number(least: float, most: float) -> click.FloatRange:
    """A number from ``least`` to ``most``, called so where something else is given."""
    kind = click.FloatRange(least, most)
    kind.name = "number"
    return kind


def count() -> click.IntRange:
    """A whole number from 1, called so where something else is given."""
    kind = click.IntRange(min=1)
    kind.name = "whole number"
    return kind


def complete_model(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of the models that begin so, for shells; of the subcommand's task, if it has one."""
    from mmclipdis.apis.zoo import models
    from mmclipdis.apis.zoo.listing import ENTRANCES

    task = context.command.name if context.command.name in ENTRANCES else None
    found = [info for info in models(task) if info.name.startswith(incomplete)]
    return [CompletionItem(info.name, help=info.method) for info in found] or [
        CompletionItem(incomplete, type="file")  # a config
    ]
