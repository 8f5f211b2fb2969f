"""The console script ``mmclipdis``.

It lies beside the package, because importing anything of that registers all of it, which takes
seconds: this file says first that the subcommands will do so when they need it.
"""

from __future__ import annotations

#: Read by ``mmclipdis/__init__.py``. Not set by the import of this file alone: processes that
#: multiprocessing spawns import it, too, and need what is registered.
running = False


def command() -> int:
    """Run the command; returns its exit code."""
    global running
    running = True
    from mmclipdis.commands.__main__ import main

    return main()
