"""What an environment has: versions, ops, caches, weights, data sets."""

from __future__ import annotations

import importlib
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path

from mmclipdis.compat.installation import PACKAGE, install_kind
from mmclipdis.compat.rows import ROWS, installed, installed_rows, version_of
from mmclipdis.doctor.troubles import cache_folders, nvidia_driver
from mmclipdis.version import __version__

Facts = dict[str, str]
OTHERS = (
    *("open_clip_torch", "timm", "numpy", "opencv-python", "opencv-python-headless"),
    *("pycocotools", "lvis", "setuptools"),
)
WEIGHTS = ("*.pth", "*.pt", "*.safetensors", "*.bin")


def system() -> Facts:
    """Python and the operating system."""
    python = f"{platform.python_version()} ({sys.executable})"
    return {"Python": python, "OS": platform.platform()}


def package() -> Facts:
    """mmclipdis itself."""
    return {"mmclipdis": f"{__version__} ({install_kind()}) in {PACKAGE.parent}"}


def pytorch() -> Facts:
    """PyTorch, whether torchvision is built for it, and the GPUs, as mmengine finds them."""
    torch = importlib.import_module("torch")
    facts = {"torch": f"{torch.__version__} (CUDA {torch.version.cuda or 'none'})"}
    try:
        torchvision = importlib.import_module("torchvision")
        matches = hasattr(torch.ops.torchvision, "nms")
        fit = "built for this torch" if matches else "not built for this torch"
        facts["torchvision"] = f"{torchvision.__version__}, {fit}"
    except Exception as error:
        facts["torchvision"] = f"cannot be imported ({' '.join(str(error).split())[:120]})"
    facts["NVIDIA driver"] = "loaded" if nvidia_driver() else "none"
    try:
        env = importlib.import_module("mmengine.utils.dl_utils").collect_env()
    except Exception:  # mmengine is missing or damaged, which is a trouble of its own
        env = {}
    gpus = {key: str(value) for key, value in env.items() if key.startswith("GPU")}
    tools = {key: str(env[key]) for key in ("CUDA_HOME", "NVCC", "GCC") if key in env}
    return {**facts, **(gpus or {"GPU": "none seen by torch"}), **tools}


def packages() -> Facts:
    """Which row is installed, and its packages."""
    rows = installed_rows()
    facts = {"row": " and ".join(rows) + (" (mixed)" if len(rows) > 1 else "") if rows else "none"}
    for module in ("mmengine", "mmcv", "mmseg", "mmdet"):
        found = [installed({module: row[module]}) for row in ROWS.values()]
        named = [f"{name} {version}" for one in found for name, version in one.items()]
        facts[module] = ", ".join(named) or "not installed"
    for name in OTHERS:
        version = version_of(name)
        if version is not None:
            facts[name] = version
    return facts


def ops() -> Facts:
    """Whether mmcv's ops are compiled ones or stand-ins, and which of these work."""
    from mmclipdis.compat.mmcv_ops import install_mmcv_ops, uses_stand_in
    from mmclipdis.compat.ops import OPS

    install_mmcv_ops()
    if not uses_stand_in():
        return {"mmcv ops": "compiled, all of them"}
    return {
        "mmcv ops": "none compiled; torchvision stands in",
        "stand-ins": ", ".join(sorted(OPS)),
        "all others": "can be imported, and raise an error that names the op when called",
    }


def caches() -> Facts:
    """Folders that keep files between runs, with what they hold."""
    return {name: f"{folder} ({_content(folder)})" for name, folder in cache_folders().items()}


def _content(folder: Path) -> str:
    if not folder.is_dir():
        return "not there yet"
    sizes = [file.lstat().st_size for file in folder.rglob("*") if file.is_file()]
    return f"{len(sizes)} files, {sum(sizes) / 1e6:,.1f} MB"


def weights() -> Facts:
    """Weights that lie at hand: in ``checkpoints/``, in the caches, and those of the package."""
    folders = cache_folders()
    shipped = (PACKAGE / "clip" / "model_configs").glob("*.safetensors")
    hub = folders["HF_HOME"].glob("models--*")
    return {
        "in the package (checkpoint='shapes')": _list([file.stem for file in shipped]),
        "in checkpoints/": _list(_weight_files(Path("checkpoints"))),
        "downloaded by URL": _list(_weight_files(folders["TORCH_HOME"] / "checkpoints")),
        "of Hugging Face": _list([path.name[8:].replace("--", "/") for path in hub]),
    }


def _weight_files(folder: Path) -> list[str]:
    files = {file for pattern in WEIGHTS for file in folder.rglob(pattern)}
    return [f"{file.name} ({file.stat().st_size / 1e6:,.0f} MB)" for file in files]


def _list(names: list[str]) -> str:
    shown = sorted(names)[:20]
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return (", ".join(shown) + more) or "none"


def data() -> Facts:
    """Roots of data sets that the configs name and that are there, from the folder one is in."""
    bases = (PACKAGE.parent / "configs", PACKAGE / ".mim" / "configs")
    files = [file for base in bases for file in (base / "_base_" / "datasets").glob("*.py")]
    pattern = re.compile(r'(?m)^\w*data_root\w* = "([^"]+)"|data_root="([^"]+)"')
    found = [match for file in files for match in pattern.findall(file.read_text())]
    roots = {first or second for first, second in found}
    there = [root for root in roots if Path(root).is_dir()]
    absent = len(roots) - len(there)
    return {"data sets": f"{_list(there)} ({absent} others that configs name are not here)"}


SECTIONS: dict[str, Callable[[], Facts]] = {
    "System": system,
    "mmclipdis": package,
    "PyTorch": pytorch,
    "Packages": packages,
    "Ops": ops,
    "Caches": caches,
    "Weights": weights,
    "Data": data,
}


def collect() -> dict[str, Facts]:
    """All sections; one that cannot be read says why in place of its facts."""
    report = {}
    for title, section in SECTIONS.items():
        try:
            report[title] = section()
        except Exception as error:  # of a broken environment, which is why the doctor was called
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            report[title] = {"unknown": reason}
    return report
