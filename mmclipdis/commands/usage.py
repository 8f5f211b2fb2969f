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
        Mistake: neither is given, both are, or there is no such file.
    """
    if words is not None and file is not None:
        raise Mistake("--words and --words-file both say what to look for: give one")
    if file is not None:
        path = Path(file).expanduser()
        if not path.is_file():
            raise Mistake(f"--words-file: there is no file {file!r}")
        return path
    if words is None or not words.strip(" ,;"):
        raise Mistake(
            "no words: say what to look for, --words 'grass, sand, kite' or --words-file FILE "
            "with a word a line"
        )
    return words


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
