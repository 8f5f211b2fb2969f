"""What a subcommand imports: torch and mm when they are needed, and of mm what the task needs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

import mmclipdis

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
        IncompatibleEnvironmentError: packages are missing or do not fit together.
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
    with late(OF_MM):
        mmclipdis.register()
    for name in {*absent} - others:
        del sys.modules[name]


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
