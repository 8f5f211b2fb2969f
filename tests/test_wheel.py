"""What a wheel holds, what it asks for, and that it works from a folder far away from any clone."""

from __future__ import annotations

import email
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from mmclipdis.shapes.coco import Settings, write_dataset
from tests.paths import ROOT
from tests.processes import run_code

#: What a clean checkout lacks.
NO_CHECKOUT = shutil.ignore_patterns(
    *(".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "build", "dist"),
    *("data", "work_dirs"),
)
BACKEND = (
    "import sys, setuptools.build_meta as backend\n"
    "print(getattr(backend, f'build_{sys.argv[1]}')(sys.argv[2]))\n"
)
MM = re.compile(r"(onedl-)?(mm\w+|lvis)")


def left_out(folder: str, names: list[str]) -> set[str]:
    """Names that are not copied: also what no build reads, which packages may be called, too."""
    unread = {"tests", "results"} if Path(folder) == ROOT else set()
    return {*NO_CHECKOUT(folder, names), *unread}


def build(kind: str, tree: Path, out: Path) -> Path:
    """What pip asks of the build backend, without a network: the file it makes."""
    command = [sys.executable, "-Wignore", "-c", BACKEND, kind, str(out)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the sdist of a clean checkout, so that what an sdist lacks is missing here, too."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT, folder / "tree", ignore=left_out, symlinks=True)
    with tarfile.open(build("sdist", folder / "tree", folder)) as sdist:
        names = sdist.getnames()
        sdist.extractall(folder / "unpacked", filter="data")
    assert not any("/tests/" in name or "__pycache__" in name for name in names)
    (unpacked,) = (folder / "unpacked").iterdir()
    assert (unpacked / "mmclipdis" / ".mim" / "configs").is_symlink()
    return build("wheel", unpacked, folder)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with what ``pip install`` puts there."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_holds_what_mm_looks_for_and_no_tests(installed: Path) -> None:
    mim = installed / "mmclipdis" / ".mim"
    for kind in ("configs", "tools"):
        source = {p.relative_to(ROOT) for p in (ROOT / kind).rglob("*") if p.is_file()}
        source = {path for path in source if "__pycache__" not in path.parts}
        assert {p.relative_to(mim) for p in (mim / kind).rglob("*") if p.is_file()} == source
    index = (mim / "model-index.yml").read_text().splitlines()
    assert all((mim / line[2:]).is_file() for line in index if line.startswith("- "))
    assert not any(path.is_symlink() for path in installed.rglob("*"))
    top = {path.name for path in installed.iterdir()}
    assert {n for n in top if not n.endswith(".dist-info")} == {
        "mmclipdis", "mmclipdis.pth", "mmclipdis_command.py", "mmclipdis_startup.py"
    }  # fmt: skip
    for name in ("py.typed", "clip/model_configs/shapes-tiny.safetensors", "clip/text/class_files"):
        assert (installed / "mmclipdis" / name).exists()
    for name in ("weights.yml", "weights/fvit-shapes.safetensors"):
        assert (installed / "mmclipdis/apis/zoo" / name).is_file()
    assert len(list(installed.glob("*.dist-info/licenses/LICENSE"))) == 1


def test_mm_packages_come_with_extras_alone(installed: Path) -> None:
    (path,) = installed.glob("*.dist-info/METADATA")
    metadata = email.message_from_string(path.read_text("utf-8"))
    offered = {"seg", "det", "lite", "all", "dev", "docs", "export", "text", "web"}
    assert offered == set(metadata.get_all("Provides-Extra"))
    plain, extras = set(), {}
    for line in metadata.get_all("Requires-Dist"):
        name = re.match(r"[\w-]+", line)[0].replace("_", "-")
        extra = re.search(r"extra == ['\"](\w+)['\"]", line)
        extras.setdefault(extra[1], set()).add(name) if extra else plain.add(name)
    assert not {name for name in plain if MM.fullmatch(name)} and "torch" in plain
    assert {"mmsegmentation", "mmengine", "ftfy", "regex"} <= extras["seg"]
    assert {"mmdet", "mmengine", "lvis"} <= extras["det"]
    assert {"mmcv-lite", "mmengine"} <= extras["lite"]
    assert extras["all"] == extras["seg"] | extras["det"] | extras["lite"] | extras["text"]
    assert {"tokenizers", "sentencepiece"} == extras["text"] <= extras["dev"]
    assert extras["web"] == {"gradio"} and {"onnx", "onnxruntime"} <= extras["export"]
    # nothing at all asks for a full mmcv, which pip would compile for minutes
    assert "mmcv" not in plain.union(*extras.values())


def test_an_editable_wheel_starts_with_python_as_well(tmp_path: Path) -> None:
    shutil.copytree(ROOT, tmp_path / "tree", ignore=left_out, symlinks=True)
    with zipfile.ZipFile(build("editable", tmp_path / "tree", tmp_path)) as archive:
        names = archive.namelist()
        record = archive.read(next(n for n in names if n.endswith("/RECORD"))).decode()
    assert "mmclipdis.pth" in names and "\nmmclipdis.pth,sha256=" in f"\n{record}"


def test_the_wheel_works_far_from_any_clone(installed: Path, tmp_path: Path) -> None:
    """The line that starts, names in the hub, ``_base_``, an inferencer, the command and a tool."""
    write_dataset(tmp_path / "data" / "shapes", Settings(train=1, val=2))
    (tmp_path / "mine.py").write_text("_base_ = 'mmclipdis::shapes/maskclip.py'\n")
    before = {path: path.stat().st_mtime_ns for path in installed.rglob("*") if path.is_file()}
    result = run_code(
        "import sys, site, runpy\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in f'{f!r}'.lower()]\n"
        f"sys.path[:] = [p for p in sys.path if p not in ('', {str(ROOT)!r})]\n"
        "sys.dont_write_bytecode = True\n"
        f"site.addsitedir({str(installed)!r})\n"  # reads mmclipdis.pth
        "from mmseg.apis import MMSegInferencer\n"
        "assert 'mmclipdis' not in sys.modules\n"
        "from mmengine.config import Config\n"
        "config = Config.fromfile('mine.py')\n"
        "segmentor = MMSegInferencer('shapes_clearclip', device='cpu')\n"
        "import mmclipdis\n"
        "from mmclipdis.apis.zoo import resolve\n"
        "found = resolve(None, 'detect')\n"
        f"assert found.checkpoint.startswith({str(installed)!r}), found.checkpoint\n"
        "assert len(mmclipdis.models()) > 150\n"
        f"assert mmclipdis.__file__.startswith({str(installed)!r}), mmclipdis.__file__\n"
        f"assert segmentor.cfg.filename.startswith({str(installed)!r})\n"
        "from mmclipdis.utils.places import IN_CLONE, RESULTS, ROOT\n"
        f"assert not IN_CLONE and str(ROOT) == {str(installed / 'mmclipdis' / '.mim')!r}\n"
        "import mmclipdis_command\n"
        f"assert mmclipdis_command.__file__.startswith({str(installed)!r})\n"
        "asked = ['data/shapes/images/val', '--words', 'grass, kite', '--out', 'found', '-q']\n"
        "sys.argv = ['mmclipdis', 'segment', *asked, '--format', 'json']\n"
        "assert mmclipdis_command.command() == 0\n"
        "sys.argv = ['test.py', 'mine.py', '--work-dir', 'out']\n"
        "runpy.run_path(str(ROOT / 'tools/test.py'), run_name='__main__')\n",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert len((tmp_path / "found" / "results.jsonl").read_text().splitlines()) == 2
    (measured,) = (tmp_path / "out").glob("*/*.json")
    assert json.loads(measured.read_text())["aAcc"] > 50  # the weights that ship
    after = {path: path.stat().st_mtime_ns for path in installed.rglob("*") if path.is_file()}
    assert after == before
