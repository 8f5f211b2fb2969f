"""What a subcommand imports: torch and mm when they are needed, and of mm what the task needs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import TypeVar

import mmclipdis

T = TypeVar("T")

#: The library that a task's models of this package stand on, beside mmengine and mmcv.
LIBRARIES = {"segment": "mmseg", "detect": "mmdet", "tag": None}
#: What mmengine and mmdet can be without, for trainings on many machines and for tracks in videos.
OPTIONAL = ("motmetrics", "seaborn", "sklearn", "torch.distributed.optim")


def start(task: str | None = None) -> None:
    """Import and register mm and mmclipdis.

    Args:
        task: Only what the models of this package need for it. mmseg imports mmdet where it is
            installed, and mmdet scikit-learn and matplotlib: seconds that one photo notices. None
            for everything, which the config of a user may name.

    Raises:
        IncompatibleEnvironmentError: packages are missing or do not fit together. After any error
            all that is installed can be imported again.
    """
    if task is None:
        mmclipdis.register()
        return
    from mmclipdis.commands.late import OF_MM, late

    # as if they were not installed, which every part of the package is able to bear
    others = {library for library in LIBRARIES.values() if library} - {LIBRARIES[task]}
    absent = [name for name in (*sorted(others), *OPTIONAL) if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    if others & {*absent}:  # the zoo, which has looked up the model, imports what was installed
        sys.modules.pop("mmclipdis.compat.optional", None)
    found_again = {*absent} - others
    try:
        with late(OF_MM):
            mmclipdis.register()
    except BaseException:
        found_again = {*absent, "mmclipdis.compat.optional"}  # which has noted what was absent
        raise
    finally:
        for name in found_again:
            sys.modules.pop(name, None)


def run(work: Callable[[], T], task: str | None = None) -> T:
    """Do the work of a subcommand as tools do theirs: mistakes become one line.

    Args:
        work: What it returns, an exit code or a runner, lives until a distributed run has ended.
        task: See :func:`start`.

    Raises:
        SystemExit: with the exit codes of :func:`mmclipdis.apis.cli.run`.
    """
    start(task)
    done: list[T] = []
    importlib.import_module("mmclipdis.apis.cli").run(lambda _: done.append(work()), None)
    return done[0]
