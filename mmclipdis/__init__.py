"""mmclipdis: an OpenMMLab plugin that makes CLIP see several objects at once.

Importing the package registers its modules; in a config that is one line::

    custom_imports = dict(imports=['mmclipdis'], allow_failed_imports=False)
"""

from __future__ import annotations

from mmclipdis import compat as _compat
from mmclipdis.version import __version__

_compat.install()

# compat must come first
from mmclipdis import datasets, engine, evaluation, models, visualization  # noqa: E402

__all__ = ["__version__", "datasets", "engine", "evaluation", "models", "visualization"]
