"""``mmclipdis train`` and ``mmclipdis test``: ``tools/train.py`` and ``tools/test.py``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import click

from mmclipdis.commands.start import run

#: All words go on to another parser, --help included.
PASSED_ON: dict[str, Any] = {
    "context_settings": {"ignore_unknown_options": True, "help_option_names": []},
    "add_help_option": False,
}


def passed_on(name: str, main: Callable[[list[str]], object], words: tuple[str, ...]) -> object:
    """Run ``main`` with these words, which calls itself ``name`` in its help and its errors."""
    before = sys.argv
    sys.argv = [name, *words]  # argparse's name of the program
    try:
        return main(list(words))
    finally:
        sys.argv = before


@click.command(short_help="Train a model: CONFIG [--work-dir DIR] [--resume] ...", **PASSED_ON)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def train(words: tuple[str, ...]) -> int:
    """Train a model as a config says; all options are those of ``tools/train.py``."""
    run(lambda: passed_on("mmclipdis train", _of_run("train"), words))
    return 0


@click.command(short_help="Test a model: CONFIG [CHECKPOINT] [--out DIR] ...", **PASSED_ON)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def test(words: tuple[str, ...]) -> int:
    """Test a model as a config says; all options are those of ``tools/test.py``."""
    run(lambda: passed_on("mmclipdis test", _of_run("test"), words))
    return 0


def _of_run(name: str) -> Callable[[list[str]], object]:
    """A function of :mod:`mmclipdis.apis.run`."""
    function: Callable[[list[str]], object] = getattr(
        importlib.import_module("mmclipdis.apis.run"), name
    )
    return function
