"""What the OpenMMLab stack needs on today's PyTorch, and nothing else.

``install()`` runs when ``mmclipdis`` is imported. It checks the versions that must fit together,
answers ``import mmcv._ext`` from torchvision when mmcv was installed without compiled ops, lets
the package ``lvis`` run on today's NumPy, and mmcv resize photos of one row or column. It also
keeps mmengine's list of initialised parameters, and a line of the fork, out of terminals, and lets
mmengine find the configs and models of this package by name.

Two of these are needed before the package is imported, and stand from the start of Python:
``mmcv._ext``, without which mmseg and mmdet do not import, and the names of configs and models,
by which the package is imported in the first place (``mmclipdis_startup.py``). The others are
looked up when they are called, and come in time with a config's ``custom_imports``.
"""

from __future__ import annotations

import sys

from mmclipdis.compat.environment import (
    IncompatibleEnvironmentError,
    UntestedEnvironmentWarning,
    check_environment,
)

__all__ = [
    "IncompatibleEnvironmentError",
    "UntestedEnvironmentWarning",
    "check_environment",
    "install",
]

for _name in ("hub", "mmcv_ops", "ops"):  # read before the package, by mmclipdis.pth: bound here
    if f"{__name__}.{_name}" in sys.modules:
        globals()[_name] = sys.modules[f"{__name__}.{_name}"]


def install() -> None:
    """Prepare the process for mmengine, mmcv, mmseg and mmdet; safe to call more than once.

    Raises:
        IncompatibleEnvironmentError: packages are missing or do not fit together.
    """
    check_environment()
    # behind the check, since they import what it looks for
    from mmclipdis.compat.hub import install_hub
    from mmclipdis.compat.lvis import install_lvis
    from mmclipdis.compat.mmcv_ops import install_mmcv_ops
    from mmclipdis.compat.python import install_find_loader
    from mmclipdis.compat.quiet import import_fork_quietly, install_quiet_initialisation
    from mmclipdis.compat.thin_photos import install_thin_photos

    install_find_loader()
    install_mmcv_ops()
    install_hub()
    install_lvis()
    install_quiet_initialisation()
    install_thin_photos()
    import_fork_quietly()
