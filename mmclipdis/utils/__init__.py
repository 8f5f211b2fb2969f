"""What every floor may use; needs neither torch nor an mm package."""

from __future__ import annotations

import importlib


def register_all_modules(init_default_scope: bool = True) -> None:
    """Register everything, as importing the package does; mmengine's hub looks for it here.

    Args:
        init_default_scope: For the sake of other packages' functions of this name. Each config
            names its scope; there is none that all of them share.
    """
    importlib.import_module("mmclipdis")
