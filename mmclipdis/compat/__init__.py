"""What the OpenMMLab stack needs on today's PyTorch, and nothing else.

``install()`` runs when ``mmclipdis`` is imported. It checks the versions that must fit together,
answers ``import mmcv._ext`` from torchvision when mmcv was installed without compiled ops, lets
the package ``lvis`` run on today's NumPy, and mmcv resize photos of one row or column. It also
keeps mmengine's list of initialised parameters out of terminals, and a line of the fork.
"""

from __future__ import annotations

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


def install() -> None:
    """Prepare the process for mmengine, mmcv, mmseg and mmdet; safe to call more than once.

    Raises:
        IncompatibleEnvironmentError: packages are missing or do not fit together.
    """
    check_environment()
    # behind the check, since they import what it looks for
    from mmclipdis.compat.lvis import install_lvis
    from mmclipdis.compat.mmcv_ops import install_mmcv_ops
    from mmclipdis.compat.python import install_find_loader
    from mmclipdis.compat.quiet import import_fork_quietly, install_quiet_initialisation
    from mmclipdis.compat.thin_photos import install_thin_photos

    install_find_loader()
    install_mmcv_ops()
    install_lvis()
    install_quiet_initialisation()
    install_thin_photos()
    import_fork_quietly()
