"""One clear sentence for each way in which the installed packages fail to fit together.

What cannot work stops the import; what is merely untested, or works by luck, is a warning. Nothing
is imported here before it is asked for: ``mmclipdis doctor`` asks the same questions.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from mmclipdis.compat.installation import installation_troubles
from mmclipdis.compat.rows import (
    FORK,
    ROWS,
    UPSTREAM,
    install_command,
    installed,
    installed_row,
    installed_rows,
    module_version,
    release,
    within,
)
from mmclipdis.compat.trouble import Trouble

TORCH_MIN = "2.6"
TORCH_REMEDY = f"run: pip install 'torch>={TORCH_MIN}' torchvision"
REINSTALL_TORCH = (
    "reinstall both from one place: pip install --force-reinstall torch torchvision "
    "(with the same --index-url for both, if you use one)"
)


class Refusal(NamedTuple):
    """Versions that a release of mmseg or mmdet refuses, by an assert, when it is imported."""

    newest: str  # release that is known to do so
    mmengine: tuple[str, str]
    mmcv: tuple[str, str]


#: Of upstream's; the fork's take any.
REFUSALS = {
    "mmsegmentation": Refusal("1.2.2", ("0.5.0", "1.0.0"), ("2.0.0", "2.2.0")),
    "mmdet": Refusal("3.3.0", ("0.7.1", "1.0.0"), ("2.0.0", "2.2.0")),
}
#: Distributions that supply a module under another name.
SUPPLIERS = {"cv2": "opencv-python", "yaml": "pyyaml", "PIL": "pillow"}


class IncompatibleEnvironmentError(ImportError):
    """The installed packages cannot work together; the message holds the remedy."""


class UntestedEnvironmentWarning(UserWarning):
    """The installed packages may work together, and nobody has tried; or they do so by luck."""


def check_environment() -> None:
    """Raise on what cannot work, warn of what is untested; one sentence with its remedy each.

    Warnings are left to the first process of a run, and to processes that a person started.

    Raises:
        IncompatibleEnvironmentError: naming what is wrong and the command that puts it right.
    """
    first = os.environ.get("RANK", "0") == "0" and multiprocessing.parent_process() is None
    for check in CHECKS:
        for trouble in check():
            if trouble.stops:
                raise IncompatibleEnvironmentError(f"{trouble}.") from trouble.error
            if first:
                warnings.warn(f"{trouble}.", UntestedEnvironmentWarning, stacklevel=5)


def _import(name: str, remedy: str) -> ModuleType | Trouble:
    """The module, or what keeps it from being imported."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            what = f"mmclipdis needs {name}, which is not installed"
            return Trouble(what, remedy, stops=True, error=error)
        needed = (error.name or "").partition(".")[0]
        if not needed or needed == name:  # damaged
            return _unimportable(name, error, f"reinstall it; {remedy}")
        what = f"{name} needs {needed}, which is not installed"
        remedy = f"run: pip install {SUPPLIERS.get(needed, needed)}"
        return Trouble(what, remedy, stops=True, error=error)
    except (ImportError, OSError) as error:
        if "libGL.so" in str(error) or "libgthread" in str(error):
            return _unimportable(
                "OpenCV", error, "install the library (Debian: apt-get install libgl1 libglib2.0-0)"
            )
        return _unimportable(name, error, f"reinstall it; {remedy}")


def _unimportable(name: str, error: Exception, remedy: str) -> Trouble:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return Trouble(f"{name} cannot be imported ({reason})", remedy, stops=True, error=error)


def home_troubles() -> Iterator[Trouble]:
    """No home folder, as in a container with a user that it does not know."""
    try:
        Path.home()
    except RuntimeError as error:
        yield Trouble(
            "there is no home folder, where torch, huggingface_hub and mmclipdis keep files: HOME "
            f"is not set and user {os.getuid()} is unknown",
            "set it to a folder that can be written: export HOME=/tmp",
            stops=True,
            error=error,
        )


def torch_troubles() -> Iterator[Trouble]:
    """Torch is missing, or below 2.6, whose ``weights_only=True`` can be made to run code."""
    torch = _import("torch", TORCH_REMEDY)
    if isinstance(torch, Trouble):
        yield torch
    elif release(torch.__version__) < release(TORCH_MIN):
        yield Trouble(
            f"mmclipdis needs torch>={TORCH_MIN} (older ones load checkpoints unsafely) but found "
            f"{torch.__version__}",
            TORCH_REMEDY,
            stops=True,
        )


def torchvision_troubles() -> Iterator[Trouble]:
    """Torchvision is missing, has no compiled ops, or was compiled for another torch."""
    torch = _import("torch", TORCH_REMEDY)
    if isinstance(torch, Trouble):
        return
    try:
        torchvision = _import("torchvision", "run: pip install torchvision")
    except RuntimeError as error:  # "operator torchvision::nms does not exist"
        what = f"the installed torchvision was not built for torch {torch.__version__} ({error})"
        yield Trouble(what, REINSTALL_TORCH, stops=True, error=error)
        return
    if isinstance(torchvision, Trouble):
        yield torchvision
    elif not hasattr(torch.ops.torchvision, "nms"):
        yield Trouble(
            f"torchvision {torchvision.__version__} has no compiled ops for torch "
            f"{torch.__version__} (torchvision::nms is missing)",
            REINSTALL_TORCH,
            stops=True,
        )


def row_troubles() -> Iterator[Trouble]:
    """Distributions of both rows, or both of upstream's mmcv, which overwrite each other."""
    upstream, fork = installed(UPSTREAM), installed(FORK)
    if upstream and fork:
        names = sorted({**upstream, **fork})
        yield Trouble(
            "packages of OpenMMLab and of its fork are mixed, which have the same import names: "
            + ", ".join(f"{name} {version}" for name, version in {**upstream, **fork}.items()),
            f"keep one row: pip uninstall -y {' '.join(names)}, then "
            f"{install_command(UPSTREAM, UPSTREAM)}, or {install_command(FORK, FORK)}",
        )
    if "mmcv" in upstream and "mmcv-lite" in upstream:
        yield Trouble(
            f"mmcv {upstream['mmcv']} and mmcv-lite {upstream['mmcv-lite']} are both installed, "
            "into the same folder",
            "keep one: pip uninstall -y mmcv mmcv-lite, then pip install 'mmcv-lite==2.1.0', or "
            "pip install --no-build-isolation 'mmcv==2.1.0' for all compiled ops",
        )


def mmengine_troubles() -> Iterator[Trouble]:
    """Mmengine is missing."""
    mmengine = _import("mmengine", f"run: {install_command(['mmengine'])}")
    if isinstance(mmengine, Trouble):
        yield mmengine


def mmcv_troubles() -> Iterator[Trouble]:
    """Mmcv is missing, is of the time before mmengine, or has ops of another torch."""
    row = installed_row()
    remedy = f"{install_command(['mmcv'], row)} (no compiler needed)"
    names = " ".join(name for name in row["mmcv"].distributions[::-1])
    mmcv = _import("mmcv", f"run: {remedy}")
    if isinstance(mmcv, Trouble):
        yield mmcv
        return
    if release(mmcv.__version__) < (2,):
        yield Trouble(
            f"mmclipdis needs mmcv>={row['mmcv'].minimum} (1.x has no transforms) but found "
            f"{mmcv.__version__}",
            f"run: pip uninstall -y mmcv-full {names}, then {remedy}",
            stops=True,
        )
        return
    try:
        importlib.import_module("mmcv._ext")
    except ModuleNotFoundError:
        return  # without compiled ops: the stand-in of mmcv_ops.py answers
    except (ImportError, OSError) as error:
        torch = getattr(sys.modules.get("torch"), "__version__", "of this environment")
        yield Trouble(
            f"the compiled ops of mmcv {mmcv.__version__} do not load with torch "
            f"{torch} ({' '.join(str(error).split())[:200]})",
            f"run: pip uninstall -y {names}, then "
            f"{remedy.replace('install ', 'install --no-cache-dir ', 1)}",
            stops=True,
            error=error,
        )


def refusal_troubles() -> Iterator[Trouble]:
    """Upstream's mmseg or mmdet refuses the version of mmcv or mmengine."""
    found = installed(UPSTREAM)
    for name, refusal in REFUSALS.items():
        if name not in found or release(found[name]) > release(refusal.newest):
            continue
        for module, (minimum, below) in (("mmcv", refusal.mmcv), ("mmengine", refusal.mmengine)):
            version = module_version(module)
            if version is not None and not within(version, minimum, below):
                yield Trouble(
                    f"{name} {found[name]} refuses {module} outside >={minimum},<{below} but found "
                    f"{version}",
                    _fitting(module),
                    stops=True,
                )


def _fitting(module: str) -> str:
    """What to install in place of a module that upstream's mmseg or mmdet refuses."""
    if installed(FORK):  # of the other row; what both supply has overwritten each other
        modules = [name for name in UPSTREAM if installed({name: UPSTREAM[name]})]
        gone = [
            name
            for row in (UPSTREAM, FORK)
            for part in modules
            for name in installed({part: row[part]})
        ]
        return f"run: pip uninstall -y {' '.join(gone)}, then {install_command(modules, FORK)}"
    names = " ".join(UPSTREAM[module].distributions[::-1])
    return f"run: pip uninstall -y {names}, then {install_command([module], UPSTREAM)}"


def version_troubles() -> Iterator[Trouble]:
    """Versions outside the tested range of the row that is installed; not where rows are mixed."""
    rows = installed_rows()
    if len(rows) > 1:
        return
    row = ROWS[rows[0]] if rows else UPSTREAM
    for module, package in row.items():
        version = module_version(module)
        if version is not None and not within(version, package.minimum, package.below):
            name = next(iter(installed({module: package})), package.distributions[0])
            yield Trouble(
                f"{name} {version} is outside the range that mmclipdis is tested with "
                f"({name}{package.range})",
                f"if something fails, run: pip install '{name}=={package.exact}'",
            )


#: In this order, since what one of them finds may be the echo of what stands before it.
CHECKS: tuple[Callable[[], Iterator[Trouble]], ...] = (
    home_troubles,
    torch_troubles,
    torchvision_troubles,
    row_troubles,
    mmengine_troubles,
    mmcv_troubles,
    refusal_troubles,
    version_troubles,
    installation_troubles,
)
