"""What a subcommand imports: torch and mm when they are needed, and of mm what the task needs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

import mmclipdis

#: The library that a task's models of this package stand on, beside mmengine and mmcv.
LIBRARIES = {"segment": "mmseg", "detect": "mmdet", "tag": None}


def start(task: str | None = None) -> None:
    """Import and register mm and mmclipdis.

    Args:
        task: Only what the models of this package need for it. mmseg imports mmdet where it is
            installed, and mmdet scikit-learn and matplotlib: seconds that one photo notices. None
            for everything, which the config of a user may name.

    Raises:
        IncompatibleEnvironmentError: packages are missing or do not fit together.
    """
    if task is not None:
        for library in LIBRARIES.values():
            if library not in (None, LIBRARIES[task]) and library not in sys.modules:
                # as if it were not installed, which every part of the package is able to bear
                sys.modules[library] = None  # type: ignore[assignment]
    mmclipdis.register()


def run(work: Callable[[], int], task: str | None = None) -> int:
    """Do the work of a subcommand as tools do theirs: mistakes become one line.

    Args:
        work: Returns the exit code.
        task: See :func:`start`.

    Raises:
        SystemExit: with the exit codes of :func:`mmclipdis.apis.cli.run`.
    """
    start(task)
    done: list[int] = []
    importlib.import_module("mmclipdis.apis.cli").run(lambda _: done.append(work()), None)
    return done[0]
