"""From the start of Python: mmcv._ext and mmengine's names, before mmclipdis is imported."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.paths import ROOT
from tests.processes import run_code

STARTUP = ROOT / "mmclipdis_startup.py"
LINE = (ROOT / "mmclipdis.pth").read_text()
START = f"import sys\n{LINE}"
#: No other clone or installation of the package is found than the one that a test means.
ALONE = (
    "import sys\n"
    "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in f'{f!r}'.lower()]\n"
)
#: An mmcv without compiled ops, whatever is installed.
LITE = (
    "from importlib.machinery import PathFinder\n"
    "find = PathFinder.find_spec\n"
    "PathFinder.find_spec = lambda n, *rest: None if n == 'mmcv._ext' else find(n, *rest)\n"
)


def read_startup() -> ModuleType:
    """This file, whatever an installed ``mmclipdis.pth`` has imported under its name."""
    spec = importlib.util.spec_from_file_location("mmclipdis_startup", STARTUP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_starting_imports_nothing_and_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    code = compile(STARTUP.read_text(), str(STARTUP), "exec")
    for name in ("mmengine.config.utils", "mmengine.infer.infer"):  # as at the start of Python
        monkeypatch.delitem(sys.modules, name)
    times = []
    for _ in range(20):
        monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
        before, started = set(sys.modules), time.perf_counter()
        exec(code, {"__name__": "mmclipdis_startup"})
        times.append(time.perf_counter() - started)
        assert set(sys.modules) == before
    assert min(times) < 1e-3


@pytest.mark.parametrize("content", [None, "raise RuntimeError('broken')", "syntax error"])
def test_the_line_in_site_packages_never_stops_python(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "mmclipdis_startup.py").write_text(content)
    start = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    command = [sys.executable, "-ISc", f"{start}\n{LINE}print('up')"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("up\n", "")
    assert LINE.startswith("import ") and LINE.count("\n") == 1  # what site executes


def test_it_can_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "mmclipdis_startup.py").write_text("print('started')\n")
    start = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{LINE}"
    for value, printed in (("", "started\n"), ("1", "")):
        command = [sys.executable, "-ISc", start]
        env = {**os.environ, "MMCLIPDIS_NO_STARTUP": value}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
        assert done.stdout == printed


def test_mmdet_imports_first_and_everything_is_found_by_name() -> None:
    result = run_code(
        f"{LITE}{START}"
        "from mmdet.apis import DetInferencer\n"
        "import mmcv._ext, torch\n"
        "assert 'mmclipdis' not in sys.modules\n"
        "assert mmcv._ext.nms(torch.zeros(1, 4), torch.ones(1), 0.5).tolist() == [0]\n"
        "from mmengine.hub import get_config\n"
        "from mmengine.infer import BaseInferencer\n"
        "assert BaseInferencer._get_models_from_metafile.knows_mmclipdis\n"
        "assert 'mmclipdis' not in sys.modules\n"
        "config = get_config('mmclipdis::clearclip/clearclip_vitb16_voc20.py')\n"
        f"assert config.filename.startswith({str(ROOT)!r}), config.filename\n"
        "import mmclipdis\n"
        "from mmclipdis.compat import mmcv_ops, ops\n"
        "assert mmclipdis.compat.ops is ops and mmcv._ext.nms is ops.nms\n"
        "assert mmcv_ops.uses_stand_in()\n"
        "try:\n    mmcv._ext.correlation_forward()\n"
        "except mmcv_ops.MissingOpError as error:\n    print(error)\n"
        "from mmdet.datasets.transforms import transforms\n"
        "assert transforms._scale_size((100, 1), 0.1) == (10, 1)\n"
    )
    assert result.returncode == 0, result.stderr
    assert "correlation_forward" in result.stdout


@pytest.mark.parametrize(
    ("module", "check"),
    [
        ("mmengine.config.utils", lambda found: found.MODULE2PACKAGE["mmclipdis"]),
        (
            "mmengine.infer.infer",
            lambda found: found.BaseInferencer._get_models_from_metafile.knows_mmclipdis,
        ),
    ],
)
def test_mmengine_is_told_when_it_is_imported(
    module: str, check: Callable[[ModuleType], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    startup = read_startup()
    parent = importlib.import_module(module.rpartition(".")[0])
    spec = startup.FirstFinder.find_spec(module, parent.__path__)
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    assert fresh is not sys.modules[module] and check(fresh)
    assert startup.FirstFinder.find_spec("mmengine.config", None) is None


def test_a_full_mmcv_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "_ext.py").write_text("nms = 'compiled'\n")
    result = run_code(
        f"{START}import mmcv; mmcv.__path__.insert(0, {str(tmp_path)!r})\n"
        "import mmcv._ext\nassert mmcv._ext.nms == 'compiled'\n"
        "assert 'mmclipdis.compat.mmcv_ops' not in sys.modules\n"
    )
    assert result.returncode == 0, result.stderr


def test_without_the_package_mm_is_as_it_was(tmp_path: Path) -> None:
    """The package is gone, its line and the module of that line are left."""
    (tmp_path / "mmclipdis_startup.py").write_text(STARTUP.read_text())
    result = run_code(
        f"{ALONE}sys.path[:] = [{str(tmp_path)!r}, *(p for p in sys.path if p != {str(ROOT)!r})]\n"
        f"{LITE}{START}assert sys.modules['mmclipdis_startup'].LastFinder in sys.meta_path\n"
        "from mmengine.config.utils import MODULE2PACKAGE\n"
        "assert 'mmclipdis' not in MODULE2PACKAGE and 'mmseg' in MODULE2PACKAGE\n"
        "import mmengine.infer\n"
        "try:\n    import mmcv._ext\nexcept ModuleNotFoundError as error:\n    print(error)\n",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "No module named 'mmcv._ext'\n"


def test_half_an_upgrade_is_a_warning_and_mm_is_as_it_was(tmp_path: Path) -> None:
    """The package is there, and what the start of Python reads of it is not Python."""
    site = tmp_path / "site"
    compat = site / "mmclipdis" / "compat"
    compat.mkdir(parents=True)
    (site / "mmclipdis_startup.py").write_text(STARTUP.read_text())
    (compat.parent / "__init__.py").touch()
    (compat / "hub.py").write_text("raise RuntimeError('half')\n")
    (compat / "mmcv_ops.py").write_text("half an upgrade\n")
    result = run_code(
        f"{ALONE}sys.path[:] = [{str(site)!r}, *(p for p in sys.path if p != {str(ROOT)!r})]\n"
        f"{START}import mmengine.config.utils\n"
        "try:\n    import mmcv._ext\nexcept ModuleNotFoundError as error:\n    print(error)\n",
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "No module named 'mmcv._ext'\n"
    assert "hub.py cannot be read (RuntimeError: half); reinstall mmclipdis" in result.stderr
    assert "mmcv_ops.py cannot be read (SyntaxError: invalid syntax" in result.stderr


def test_an_mmengine_that_has_changed_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    startup = read_startup()
    with pytest.warns(UserWarning, match="cannot tell mmengine.infer.infer of its .*Attribute"):
        startup.tell(ModuleType("mmengine.infer.infer"))
