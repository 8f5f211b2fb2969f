"""The floors of the package: an import goes down, two methods or rooms never know each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import ROOT

#: From the ground up. A package imports itself and what lies on floors below, nothing beside it.
FLOORS = (
    ("utils", "version"),
    ("clip", "losses", "compat", "registry"),
    ("engine", "evaluation", "visualization"),
    ("models",),
    ("shapes",),
    ("datasets",),
    ("apis", "doctor"),
    ("export",),
    ("web",),
    ("commands",),
    ("__main__",),
    ("tools",),
)
#: Packages that know torch, open_clip and timm, but no mm package.
PLAIN = ("utils", "clip", "losses")
MM = ("mmengine", "mmcv", "mmseg", "mmdet", "mmpretrain")
#: The task rooms of ``models`` and of ``datasets``: what two of them need lies above them.
ROOMS = ("segmentation", "detection", "recognition", "distillation")
#: Methods that are one file; every folder inside a room of ``models`` is a method, too.
METHOD_FILES = ("mmclipdis.models.recognition.dclip", "mmclipdis.models.recognition.zero_shot")


def floor_of(package: str) -> int:
    return next(height for height, names in enumerate(FLOORS) if package in names)


def method_of(module: str) -> str | None:
    """The method that a dotted name lies in: ``mmclipdis.models.segmentation.catseg``."""
    for method in METHOD_FILES:
        if f"{module}.".startswith(f"{method}."):
            return method
    parts = module.split(".")
    if len(parts) > 3 and parts[1] == "models" and (ROOT / Path(*parts[:4])).is_dir():
        return ".".join(parts[:4])
    return None


def imports(source: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported, in functions and under TYPE_CHECKING, too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)


def problem(module: str, name: str, registers: bool = False) -> str | None:
    """What is wrong with ``module`` importing ``name``.

    ``registers``: the module is the ``__init__`` of a package, which may import its methods.
    """
    own, other = module.split("."), name.split(".")
    package = own[1]
    if name.startswith("."):
        return "is relative"
    if other[0] in MM and package in PLAIN:
        return f"is an mm package, which {package} does without"
    if other[0] == "tools":
        return "goes up to the tools"
    if other[0] != "mmclipdis" or len(other) < 2:
        return None
    if other[1] != package:
        here, there = floor_of(package), floor_of(other[1])
        if there >= here:
            return f"goes up or sideways from {package}"
        return None
    if package in ("models", "datasets") and len(own) > 2 and len(other) > 2:
        rooms = {own[2], other[2]}
        if len(rooms) == 2 and rooms <= set(ROOMS):
            return f"goes from {own[2]} to another room"
    method = method_of(name)
    if method in (None, method_of(module)) or (registers and f"{method}.".startswith(f"{module}.")):
        return None
    return f"knows the method {method}"


def problems(module: str, source: str, registers: bool = False) -> list[str]:
    found = ((line, name, problem(module, name, registers)) for line, name in imports(source))
    return [f"{module}:{line}: {name} {wrong}" for line, name, wrong in found if wrong]


def modules() -> Iterator[tuple[str, Path]]:
    """Dotted name and file of every module, ``__init__`` under the name of its package."""
    for path in sorted((ROOT / "mmclipdis").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name != "mmclipdis":  # imports all of it, to register
            yield name, path


def test_no_import_goes_up_or_from_one_method_to_another():
    found = []
    for name, path in modules():
        found += problems(name, path.read_text("utf-8"), registers=path.name == "__init__.py")
    assert not found, "\n".join(found)


def test_every_package_has_a_floor():
    packages = {name.split(".")[1] for name, _ in modules()}
    assert packages == {name for names in FLOORS for name in names} - {"tools"}


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("clip.towers.rotary", "from mmclipdis.models import CLIPViT", "up or sideways from clip"),
        ("clip.towers.rotary", "import mmclipdis.losses.mfi", "up or sideways from clip"),
        ("engine.loops", "def f():\n    from mmclipdis.apis import run", "up or sideways"),
        (
            "models.losses",
            "if TYPE_CHECKING:\n    from mmclipdis.datasets.files import x",
            "up or sideways from models",
        ),
        ("shapes.coco", "from mmclipdis import datasets", "up or sideways from shapes"),
        ("apis.run", "import tools.train", "up to the tools"),
        ("losses.mfi", "from mmengine.registry import MODELS", "is an mm package"),
        ("clip.text.encoder", "import mmcv.ops as ops", "is an mm package"),
        ("models.losses", "from . import backbones", "is relative"),
        (
            "models.segmentation.infoclip.parts",
            "from mmclipdis.models.segmentation import catseg",
            "knows the method mmclipdis.models.segmentation.catseg",
        ),
        (
            "models.segmentation.windows",
            "from mmclipdis.models.segmentation.catseg.views import views_of",
            "knows the method",
        ),
        (
            "models.detection.nms",
            "from mmclipdis.models.detection.fvit.fusion import fuse_scores",
            "knows the method",
        ),
        (
            "models.recognition.zero_shot",
            "from mmclipdis.models.recognition.dclip import DCLIP",
            "knows the method",
        ),
        (
            "models.losses",
            "from mmclipdis.models.recognition.dclip import DCLIP",
            "knows the method",
        ),
        (
            "models.detection.regions",
            "from mmclipdis.models.segmentation.windows import pair",
            "from detection to another room",
        ),
        (
            "datasets.recognition.voc",
            "from mmclipdis.datasets.segmentation.label_maps import x",
            "from recognition to another room",
        ),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str, message: str):
    (found,) = problems(f"mmclipdis.{module}", source)
    assert message in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "clip.towers.rotary",
            "import timm, torch\nfrom mmclipdis.utils.letterbox import letterbox",
        ),
        ("models.detection.fvit.detector", "from mmclipdis.models.detection.nms import x"),
        ("models.detection.fvit.detector", "from mmclipdis.models.detection.fvit.fusion import x"),
        ("datasets.detection.lvis", "from mmclipdis.datasets.conversion.files import x"),
        ("apis.run", "from mmclipdis.models.recognition.dclip import DCLIP"),
        ("models.recognition.dclip", "from mmclipdis.models.recognition.pooling import x"),
    ],
)
def test_a_right_import_passes(module: str, source: str):
    assert not problems(f"mmclipdis.{module}", source)


def test_only_a_package_itself_may_import_its_methods():
    source = "from mmclipdis.models.detection.fvit.detector import FViT"
    assert not problems("mmclipdis.models.detection", source, registers=True)
    assert not problems("mmclipdis.models", source, registers=True)
    assert problems("mmclipdis.models.recognition", source, registers=True)


def packages(top: Path) -> set[str]:
    return {str(path.parent.relative_to(top)) for path in top.rglob("__init__.py")} - {"."}


def test_the_tests_mirror_the_package():
    tested, code = packages(ROOT / "tests"), packages(ROOT / "mmclipdis")
    tools = {name for name in tested if Path(name).parts[0] == "tools"}
    assert all((ROOT / name).is_dir() for name in tools)
    across = {"faults"}  # inputs that any floor may be given
    assert tested - tools - code == across, "test folders without a folder of the package"
    assert code - tested == set(), "folders of the package without a folder of tests"
