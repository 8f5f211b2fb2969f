"""Each misfit of the installed packages is one sentence with its remedy."""

from __future__ import annotations

import importlib
import subprocess
import sys
import types
import warnings
from collections.abc import Mapping

import pytest
import torch

from mmclipdis.compat import (
    IncompatibleEnvironmentError,
    UntestedEnvironmentWarning,
    check_environment,
    environment,
)
from mmclipdis.compat.installation import installation_troubles
from tests.distributions import FORK_VERSIONS, UPSTREAM_VERSIONS, Row
from tests.paths import ROOT


def one_sentence(error: pytest.ExceptionInfo[ImportError]) -> str:
    message = str(error.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_this_environment_passes() -> None:
    check_environment()


def test_old_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(IncompatibleEnvironmentError) as error:
        check_environment()
    assert "torch>=2.6" in one_sentence(error) and "2.5.1+cpu" in str(error.value)


def test_torch_26_with_local_version_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.6.0+cu124")
    assert list(environment.torch_troubles()) == []


def test_mismatched_torchvision_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def broken(name: str) -> types.ModuleType:
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")
        return real(name)

    monkeypatch.setattr(environment.importlib, "import_module", broken)
    with pytest.raises(IncompatibleEnvironmentError, match="was not built for torch") as error:
        check_environment()
    assert "--force-reinstall torch torchvision" in one_sentence(error)


def test_torchvision_without_compiled_ops_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "torchvision", types.SimpleNamespace())
    with pytest.raises(IncompatibleEnvironmentError, match="torchvision::nms is missing") as error:
        check_environment()
    one_sentence(error)


def fails(pattern: str) -> str:
    """The one sentence by which ``check_environment`` refuses."""
    with pytest.raises(IncompatibleEnvironmentError, match=pattern) as error:
        check_environment()
    return one_sentence(error)


def warns(pattern: str) -> str:
    """The one warning, of one sentence, that ``check_environment`` gives."""
    with pytest.warns(UntestedEnvironmentWarning, match=pattern) as record:
        check_environment()
    (message,) = [str(one.message) for one in record]
    assert "\n" not in message and message.endswith(".") and len(message) < 700
    return message


@pytest.fixture(autouse=True)
def no_second_mmclipdis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where these tests run from is no part of them."""
    checks = [one for one in environment.CHECKS if one is not installation_troubles]
    monkeypatch.setattr(environment, "CHECKS", checks)


@pytest.mark.parametrize("versions", [UPSTREAM_VERSIONS, FORK_VERSIONS])
def test_both_rows_pass_without_a_word(row: Row, versions: Mapping[str, str]) -> None:
    row(versions)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_environment()


def test_an_mmcv_of_the_time_before_mmengine_is_refused(row: Row) -> None:
    row({**UPSTREAM_VERSIONS, "mmcv-lite": "1.7.2"}, mmcv="1.7.2")
    assert "mmcv-lite==2.1.0" in fails("1.x has no transforms.* but found 1.7.2")


@pytest.mark.parametrize("version", ["2.2.0", "2.3.0"])
def test_an_mmcv_that_upstreams_mmseg_refuses_is_refused(row: Row, version: str) -> None:
    row({**UPSTREAM_VERSIONS, "mmcv-lite": version}, mmcv=version)
    line = fails(f"mmsegmentation 1.2.2 refuses mmcv outside >=2.0.0,<2.2.0 but found {version}")
    assert "pip uninstall -y mmcv mmcv-lite, then pip install 'mmcv-lite==2.1.0'" in line


def test_the_forks_mmcv_under_upstreams_mmdet_is_told_what_fits(row: Row) -> None:
    row({"mmdet": "3.3.0", "onedl-mmcv": "2.3.6"}, mmcv="2.3.6")
    with pytest.warns(UntestedEnvironmentWarning, match="are mixed"):
        line = fails("mmdet 3.3.0 refuses mmcv outside >=2.0.0,<2.2.0 but found 2.3.6")
    assert "pip uninstall -y mmdet, then pip install 'onedl-mmdetection==3.5.1'" in line


def test_a_module_of_both_rows_is_removed_twice_and_installed_once(row: Row) -> None:
    row({**UPSTREAM_VERSIONS, "onedl-mmcv": "2.3.6"}, mmcv="2.3.6")
    with pytest.warns(UntestedEnvironmentWarning, match="are mixed"):
        line = fails("mmsegmentation 1.2.2 refuses mmcv outside >=2.0.0,<2.2.0 but found 2.3.6")
    removed, _, put = line.partition(", then pip install ")
    assert {"mmengine", "mmcv-lite", "onedl-mmcv", "mmdet"} <= {*removed.split()}
    assert "'onedl-mmengine==0.10.12' 'onedl-mmcv==2.3.6' 'onedl-mmseg" in put


def test_an_mmengine_that_mmdet_refuses_is_refused(row: Row) -> None:
    row({**UPSTREAM_VERSIONS, "mmengine": "1.0.0"}, mmengine="1.0.0")
    assert "pip install 'mmengine==0.10.7'" in fails("mmengine outside >=0.5.0,<1.0.0")


@pytest.mark.parametrize(
    ("change", "modules", "range_"),
    [
        ({"mmengine": "0.9.1"}, {"mmengine": "0.9.1"}, "mmengine 0.9.1 .*mmengine>=0.10.4,<0.11"),
        ({"mmcv-lite": "2.0.0"}, {"mmcv": "2.0.0"}, "mmcv-lite 2.0.0 .*mmcv-lite>=2.0.1,<2.2"),
        ({"mmsegmentation": "1.3.0"}, {"mmseg": "1.3.0"}, "mmsegmentation>=1.2.2,<1.3"),
        ({"mmdet": "3.4.1"}, {"mmdet": "3.4.1"}, "mmdet>=3.3.0,<3.4"),
    ],
)
def test_an_untested_version_is_a_warning_that_names_the_range(
    row: Row, change: dict[str, str], modules: dict[str, str], range_: str
) -> None:
    row({**UPSTREAM_VERSIONS, **change}, **modules)
    (name,) = change
    assert f"pip install '{name}==" in warns(range_)


@pytest.mark.parametrize(
    ("change", "modules", "range_"),
    [
        ({"onedl-mmcv": "2.4.0"}, {"mmcv": "2.4.0"}, "onedl-mmcv 2.4.0 .*onedl-mmcv>=2.3.6,<2.4"),
        ({"onedl-mmengine": "0.10.9"}, {"mmengine": "0.10.9"}, "onedl-mmengine>=0.10.12,<0.11"),
    ],
)
def test_in_the_fork_nothing_of_upstream_is_advised(
    row: Row, change: dict[str, str], modules: dict[str, str], range_: str
) -> None:
    row({**FORK_VERSIONS, **change}, **modules)
    (name,) = change
    assert f"run: pip install '{name}==" in warns(range_)


def test_both_of_upstreams_mmcv_are_a_warning(row: Row) -> None:
    row({**UPSTREAM_VERSIONS, "mmcv": "2.1.0"})
    assert "pip uninstall -y mmcv mmcv-lite, then" in warns("mmcv 2.1.0 and mmcv-lite 2.1.0 are")


def test_mixed_rows_are_one_warning_that_names_all_and_both_ways_out(row: Row) -> None:
    row({**UPSTREAM_VERSIONS, "onedl-mmengine": "0.10.12"}, mmcv="2.1.0", mmseg="1.2.2")
    line = warns("of OpenMMLab and of its fork are mixed.*mmdet 3.3.0, onedl-mmengine 0.10.12")
    assert "pip uninstall -y mmcv-lite mmdet mmengine mmsegmentation onedl-mmengine, then" in line
    assert "'mmcv-lite==2.1.0'" in line and "'onedl-mmcv==2.3.6'" in line


def test_other_processes_of_a_run_warn_of_nothing(
    row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    row({**UPSTREAM_VERSIONS, "mmcv": "2.1.0"})
    monkeypatch.setenv("RANK", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_environment()


@pytest.mark.parametrize("missing", ["torch", "torchvision", "mmengine", "mmcv"])
def test_missing_package_is_one_import_error(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # a None entry makes Python raise ModuleNotFoundError, as for a package that is not there
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(IncompatibleEnvironmentError, match="which is not installed") as error:
        check_environment()
    assert f"needs {missing}," in one_sentence(error)


def test_importing_the_package_checks_the_environment() -> None:
    code = (
        "import sys\n"
        "sys.modules['mmcv'] = None\n"
        "try:\n    import mmclipdis\n"
        "except ImportError as error:\n    print(type(error).__name__, '|', error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    kind, message = result.stdout.strip().split(" | ")
    assert kind == "IncompatibleEnvironmentError", result.stdout + result.stderr
    assert "needs mmcv, which is not installed; run: pip install" in message


def broken_import(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    real = importlib.import_module

    def broken(wanted: str) -> types.ModuleType:
        if wanted == name:
            raise error
        return real(wanted)

    monkeypatch.setattr(environment.importlib, "import_module", broken)


@pytest.mark.parametrize(
    ("versions", "remedy"),
    [
        (
            UPSTREAM_VERSIONS,
            "-y mmcv mmcv-lite, then pip install --no-cache-dir 'mmcv-lite==2.1.0'",
        ),
        (FORK_VERSIONS, "-y onedl-mmcv, then pip install --no-cache-dir 'onedl-mmcv==2.3.6'"),
    ],
)
def test_compiled_ops_of_another_torch_are_explained(
    row: Row, monkeypatch: pytest.MonkeyPatch, versions: Mapping[str, str], remedy: str
) -> None:
    row(versions)
    broken_import(monkeypatch, "mmcv._ext", ImportError("undefined symbol: _ZN2at4_ops"))
    assert f"run: pip uninstall {remedy}" in fails("do not load with torch")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            ModuleNotFoundError("No module named 'cv2'", name="cv2"),
            "mmcv needs cv2, which is not installed; run: pip install opencv-python.",
        ),
        (
            ImportError("libGL.so.1: cannot open shared object file"),
            "OpenCV cannot be imported (libGL.so.1: cannot open shared object file); install the "
            "library (Debian: apt-get install libgl1 libglib2.0-0).",
        ),
    ],
)
def test_what_a_package_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch, error: Exception, line: str
) -> None:
    broken_import(monkeypatch, "mmcv", error)
    assert fails("; ") == line


def test_a_torch_that_does_not_load_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    broken_import(monkeypatch, "torch", OSError("libcudart.so.12:\n cannot open"))
    assert fails("torch cannot be imported").endswith("run: pip install 'torch>=2.6' torchvision.")
