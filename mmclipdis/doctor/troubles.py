"""What is known to go wrong in an environment beyond what stops or warns at import.

Each function yields its troubles, imports what it needs when it is called, and looks at nothing
that another one looks at.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from mmclipdis.compat.environment import CHECKS as AT_IMPORT
from mmclipdis.compat.environment import home_troubles
from mmclipdis.compat.rows import UPSTREAM, installed, release, version_of
from mmclipdis.compat.trouble import Trouble

#: What cannot be missing: name of the module, of its distribution, and who imports it.
NEEDED = (
    ("numpy", "numpy", "mmclipdis"),
    ("PIL", "pillow", "mmclipdis"),
    ("safetensors", "safetensors", "mmclipdis"),
    ("tqdm", "tqdm", "mmclipdis"),
    ("open_clip", "open_clip_torch", "mmclipdis"),
    ("timm", "timm", "mmclipdis"),
    ("ftfy", "ftfy", "open_clip and mmseg"),
    ("regex", "regex", "open_clip and mmseg"),
    ("scipy", "scipy", "mmclipdis"),
    ("click", "click", "mmclipdis"),
)
#: Modules that are compiled against NumPy, with their distributions.
COMPILED = (
    ("cv2", "opencv-python"),
    ("pycocotools._mask", "pycocotools"),
    ("scipy.ndimage", "scipy"),
    ("matplotlib.pyplot", "matplotlib"),
    ("shapely", "shapely"),
)
OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
#: Bytes that a cache should be able to take: the weights of one ViT-B.
ROOM = 600_000_000


def missing_troubles() -> Iterator[Trouble]:
    """Packages that are imported everywhere and are not there."""
    for module, distribution, user in NEEDED:
        if find_spec(module) is None:
            what = f"{user} {'need' if ' and ' in user else 'needs'} {module}, which is not"
            yield Trouble(f"{what} installed", f"run: pip install {distribution}", stops=True)


def numpy_troubles() -> Iterator[Trouble]:
    """Packages compiled for another NumPy, whose import says so in its own words."""
    if find_spec("numpy") is None:
        return
    for module, distribution in COMPILED:
        if find_spec(module.partition(".")[0]) is None:
            continue
        try:
            importlib.import_module(module)
        except (ImportError, ValueError, AttributeError) as error:
            text = " ".join(str(error).split())
            if "numpy" in text.lower() or "_ARRAY_API" in text:
                yield Trouble(
                    f"{distribution} {version_of(distribution) or ''} was compiled for another "
                    f"NumPy than {version_of('numpy')} ({text[:150]})",
                    "run: pip install --upgrade --force-reinstall --no-deps "
                    f"{distribution}; or pip install 'numpy<2'",
                    stops=True,
                    error=error,
                )


def opencv_troubles() -> Iterator[Trouble]:
    """Several distributions of OpenCV, which all write the folder ``cv2``."""
    versions = {name: version_of(name) for name in OPENCV}
    found = {name: version for name, version in versions.items() if version is not None}
    if len(found) < 2:
        return
    names = " and ".join(f"{name} {version}" for name, version in found.items())
    harm = (
        "of two versions mixed" if len(set(found.values())) > 1 else "gone when one is uninstalled"
    )
    keep, version = max(found.items(), key=lambda item: (release(item[1]), item[0] == OPENCV[0]))
    yield Trouble(
        f"{names} are installed into the same folder cv2, which is {harm}",
        f"keep one: pip uninstall -y {' '.join(found)}, then pip install '{keep}=={version}'",
    )


def setuptools_troubles() -> Iterator[Trouble]:
    """``pkg_resources`` is gone from setuptools 82, and upstream's mmengine still asks it."""
    if installed({"mmengine": UPSTREAM["mmengine"]}) and find_spec("pkg_resources") is None:
        yield Trouble(
            f"setuptools {version_of('setuptools') or 'is not installed and'} has no "
            "pkg_resources, by which mmengine reads config names such as 'mmseg::...'",
            "run: pip install 'setuptools<82'",
        )


def gpu_troubles() -> Iterator[Trouble]:
    """An NVIDIA GPU that torch does not use."""
    torch = sys.modules.get("torch")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if torch is None or hidden or not nvidia_driver():
        return
    if torch.version.cuda is None:
        yield Trouble(
            f"an NVIDIA GPU is here, and torch {torch.__version__} was built without CUDA",
            "reinstall torch and torchvision in a build for CUDA (on Linux: pip install "
            "--force-reinstall torch torchvision, without the --index-url of CPU wheels)",
        )
    elif not torch.cuda.is_available():
        yield Trouble(
            f"an NVIDIA GPU is here, and torch {torch.__version__} for CUDA {torch.version.cuda} "
            "cannot use it",
            "compare with the CUDA version that nvidia-smi shows: update the driver, or install a "
            "torch for that version",
        )


def nvidia_driver() -> bool:
    """Whether the driver of NVIDIA is loaded and a GPU is there."""
    return Path("/proc/driver/nvidia/version").exists() and any(Path("/dev").glob("nvidia[0-9]*"))


def cache_troubles() -> Iterator[Trouble]:
    """Folders for caches that cannot be written, or whose disk is full."""
    for variable, folder in cache_folders().items():
        place = folder
        while not place.exists() and place != place.parent:
            place = place.parent
        try:
            with tempfile.TemporaryFile(dir=place):
                free = shutil.disk_usage(place).free
        except OSError as error:
            yield Trouble(
                f"the cache {folder} cannot be written ({error.strerror or error})",
                f"set {variable} to a folder that can",
            )
            continue
        if free < ROOM:
            yield Trouble(
                f"the disk of the cache {folder} has {free / 1e6:,.0f} MB left, less than the "
                "weights of one model",
                f"make room, or set {variable} to a folder on another disk",
            )


def cache_folders() -> dict[str, Path]:
    """Where files are kept between runs, by the variable that says where."""
    from mmclipdis.clip.text.embedding_cache import default_cache_dir

    torch = importlib.import_module("torch")
    hub = importlib.import_module("huggingface_hub.constants")
    return {
        "MMCLIPDIS_CACHE": default_cache_dir(),
        "TORCH_HOME": Path(torch.hub.get_dir()),
        "HF_HOME": Path(hub.HF_HUB_CACHE),
    }


Check = Callable[[], Iterator[Trouble]]
#: Those of the import first. The others need no more than the standard library to speak.
CHECKS: tuple[Check, ...] = (
    *AT_IMPORT,
    missing_troubles,
    numpy_troubles,
    opencv_troubles,
    setuptools_troubles,
    gpu_troubles,
)


def find_troubles() -> list[Trouble]:
    """All troubles, worst first; one that only echoes another is left out."""
    found: list[Trouble] = []
    for check in CHECKS:
        found += [one for one in _looked_at(check) if not _is_echo(one, found)]
        if found and check is home_troubles:
            return found  # of which all others would be an echo
    if not any(one.stops for one in found):
        found += _looked_at(import_troubles)
    if not any(one.stops for one in found):
        found += _looked_at(cache_troubles)
    return sorted(found, key=lambda one: not one.stops)


def _looked_at(check: Check) -> list[Trouble]:
    try:
        return list(check())
    except Exception as error:  # of a library that is damaged in a way nobody foresaw
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        name = check.__name__.replace("_troubles", "")
        return [Trouble(f"{name} cannot be examined ({reason})", f"mend or reinstall {name}")]


def _is_echo(trouble: Trouble, before: list[Trouble]) -> bool:
    """Whether it tells of a missing package that was told of."""
    missing = getattr(trouble.error, "name", None)
    named = {getattr(one.error, "name", None) for one in before}
    texts = {one.remedy for one in before}
    return (missing is not None and missing in named) or trouble.remedy in texts


def import_troubles() -> Iterator[Trouble]:
    """Importing all of mmclipdis fails, for a reason that no other check knows."""
    import contextlib
    import io
    import warnings

    from mmclipdis import compat

    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # what they would say is known by now
            compat.install()
            for name in ("datasets", "engine", "evaluation", "models", "visualization"):
                importlib.import_module(f"mmclipdis.{name}")
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        yield Trouble(
            f"mmclipdis cannot be imported ({reason})",
            "python -c 'import mmclipdis' shows where; reinstall the package that it names",
            stops=True,
            error=error,
        )
