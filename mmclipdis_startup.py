"""What mmclipdis does before anybody imports it; ``mmclipdis.pth`` runs this when Python starts.

Two finders are put on ``sys.meta_path``, which takes microseconds and imports nothing:

* behind all others one that offers ``mmcv._ext`` where mmcv was installed without compiled ops, so
  that mmseg and mmdet import with mmcv-lite in whatever order;
* before all others one that tells mmengine, when it is imported, of this package's configs and
  models, so that ``mmclipdis::clearclip/...`` and models by name are found by any tool.

What they do stands in ``mmclipdis/compat``, in ``mmcv_ops.py`` and ``hub.py``. These are read by
their path: importing the package would import mmseg and mmdet, which may be what is being imported.
Without the package both finders find nothing; where it is broken, they warn and find nothing.
``import mmclipdis`` does the same without this file, which nothing in the package needs.
``MMCLIPDIS_NO_STARTUP=1`` in the environment leaves it out.
"""

import sys

TYPE_CHECKING = False  # typing itself would take longer than all of this
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

#: Module of mmengine -> the function of ``mmclipdis.compat.hub`` that is called with it.
HOOKS = {"mmengine.config.utils": "name_package", "mmengine.infer.infer": "offer_models"}


def load_alone(name: str) -> "ModuleType | None":
    """Return ``mmclipdis.compat.<name>`` without importing what is around it; None without it."""
    import importlib
    import importlib.util
    import os.path

    full = f"mmclipdis.compat.{name}"
    if full in sys.modules:
        return sys.modules[full]
    if "mmclipdis" in sys.modules:
        return importlib.import_module(full)
    package = importlib.util.find_spec("mmclipdis")
    for folder in (package and package.submodule_search_locations) or ():
        path = os.path.join(folder, "compat", f"{name}.py")
        if os.path.isfile(path):
            spec = importlib.util.spec_from_file_location(full, path)
            assert spec is not None and spec.loader is not None
            sys.modules[full] = module = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(module)
            except Exception as error:  # half an upgrade
                del sys.modules[full]
                warn(f"{path} cannot be read", error)
                return None
            return module
    return None


def warn(what: str, error: Exception) -> None:
    """Say what keeps mmclipdis out; programs that use mm without it go on."""
    import warnings

    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    remedy = "reinstall mmclipdis, or set MMCLIPDIS_NO_STARTUP=1"
    warnings.warn(f"{what} ({reason}); {remedy}.", stacklevel=2)


def tell(module: "ModuleType") -> None:
    """Call our function for this module of mmengine."""
    hub = load_alone("hub")
    if hub is None:
        return
    try:
        getattr(hub, HOOKS[module.__name__])(module)
    except Exception as error:  # of an mmengine that is newer than this
        warn(f"mmclipdis cannot tell {module.__name__} of its configs and models", error)


class LastFinder:
    """Offers ``mmcv._ext`` when no other finder knows it."""

    @staticmethod
    def find_spec(
        fullname: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """Return the spec of the stand-in, or None for every other name."""
        if fullname != "mmcv._ext":
            return None
        mmcv_ops = load_alone("mmcv_ops")
        return None if mmcv_ops is None else mmcv_ops.StandInFinder().find_spec(fullname, path)


class FirstFinder:
    """Has modules of mmengine found by the others, and calls our function when they are loaded."""

    @staticmethod
    def find_spec(
        fullname: str,
        path: "Sequence[str] | None" = None,
        target: "ModuleType | None" = None,
    ) -> "ModuleSpec | None":
        """Return what the other finders return, with one more step at its end."""
        if fullname not in HOOKS:
            return None
        # neither this one nor that of a second copy, which would ask this one in its turn
        others = [one for one in sys.meta_path if getattr(one, "__module__", "") != __name__]
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: "ModuleType") -> None:
            execute(module)
            tell(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def start() -> None:
    """Put both finders in their places; safe to call again."""
    if LastFinder not in sys.meta_path:
        sys.meta_path.append(LastFinder)
    if FirstFinder not in sys.meta_path:
        sys.meta_path.insert(0, FirstFinder)
    for name in HOOKS:
        if name in sys.modules:  # not the start of Python, but of a notebook's next cell
            tell(sys.modules[name])


start()
