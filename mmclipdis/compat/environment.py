"""One clear sentence for each way in which the installed packages fail to fit together."""

from __future__ import annotations

import importlib
from types import ModuleType

from packaging.version import Version

TORCH_MIN = "2.6"
MMCV_MIN, MMCV_MAX = "2.0.0", "2.2.0"
MMENGINE_MIN, MMENGINE_MAX = "0.10.7", "1.0.0"
MMCV_REMEDY = "pip install 'mmcv-lite==2.1.0' (no compiler needed)"


class IncompatibleEnvironmentError(ImportError):
    """The installed packages cannot work together; the message holds the remedy."""


def check_environment() -> None:
    """Check torch, torchvision, mmengine and mmcv, and report the first misfit in one sentence.

    Raises:
        IncompatibleEnvironmentError: naming what is wrong and the command that puts it right.
    """
    check_torch()
    check_torchvision()
    check_mmengine()
    check_mmcv()


def _import(name: str, remedy: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise IncompatibleEnvironmentError(
            f"mmclipdis needs {name}, which is not installed; run: {remedy}."
        ) from error


def check_torch() -> None:
    """Refuse torch below 2.6, whose ``torch.load`` can run code even with ``weights_only=True``."""
    torch = _import("torch", f"pip install 'torch>={TORCH_MIN}' torchvision")
    if Version(torch.__version__) < Version(TORCH_MIN):
        raise IncompatibleEnvironmentError(
            f"mmclipdis needs torch>={TORCH_MIN} (older ones load checkpoints unsafely) but found "
            f"{torch.__version__}; run: pip install 'torch>={TORCH_MIN}' torchvision."
        )


def check_torchvision() -> None:
    """Refuse a torchvision without compiled ops, or compiled for another torch."""
    import torch

    remedy = (
        "reinstall both from one place: pip install --force-reinstall torch torchvision "
        "(with the same --index-url for both, if you use one)"
    )
    try:
        torchvision = _import("torchvision", "pip install torchvision")
    except RuntimeError as error:  # "operator torchvision::nms does not exist"
        raise IncompatibleEnvironmentError(
            f"the installed torchvision was not built for torch {torch.__version__} "
            f"({error}); {remedy}."
        ) from error
    if not hasattr(torch.ops.torchvision, "nms"):
        raise IncompatibleEnvironmentError(
            f"torchvision {torchvision.__version__} has no compiled ops for torch "
            f"{torch.__version__} (torchvision::nms is missing); {remedy}."
        )


def check_mmengine() -> None:
    """Refuse a missing mmengine and versions outside the tested range."""
    remedy = f"pip install 'mmengine>={MMENGINE_MIN},<{MMENGINE_MAX}'"
    mmengine = _import("mmengine", remedy)
    if not Version(MMENGINE_MIN) <= Version(mmengine.__version__) < Version(MMENGINE_MAX):
        raise IncompatibleEnvironmentError(
            f"mmclipdis needs mmengine>={MMENGINE_MIN},<{MMENGINE_MAX} but found "
            f"{mmengine.__version__}; run: {remedy}."
        )


def check_mmcv() -> None:
    """Refuse a missing mmcv, a version mmseg 1.2 and mmdet 3.3 refuse, and broken compiled ops."""
    mmcv = _import("mmcv", MMCV_REMEDY)
    if not Version(MMCV_MIN) <= Version(mmcv.__version__) < Version(MMCV_MAX):
        raise IncompatibleEnvironmentError(
            f"mmsegmentation and mmdet need mmcv>={MMCV_MIN},<{MMCV_MAX} but found "
            f"{mmcv.__version__}; run: pip uninstall -y mmcv mmcv-lite, then {MMCV_REMEDY}."
        )
    try:
        importlib.import_module("mmcv._ext")
    except ModuleNotFoundError:
        return  # mmcv-lite: the stand-in of mmcv_ops.py answers
    except (ImportError, OSError) as error:
        import torch

        raise IncompatibleEnvironmentError(
            f"the compiled ops of mmcv {mmcv.__version__} do not load with torch "
            f"{torch.__version__} ({error}); run: pip uninstall -y mmcv, then {MMCV_REMEDY}."
        ) from error
