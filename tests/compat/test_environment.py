"""Each misfit of the installed packages is one sentence with its remedy."""

from __future__ import annotations

import importlib
import subprocess
import sys
import types

import pytest
import torch

from mmclipdis.compat import IncompatibleEnvironmentError, check_environment, environment
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
    environment.check_torch()


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
        environment.check_torchvision()
    one_sentence(error)


@pytest.mark.parametrize("version", ["1.7.2", "2.2.0", "2.3.0"])
def test_wrong_mmcv_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    import mmcv

    monkeypatch.setattr(mmcv, "__version__", version)
    with pytest.raises(IncompatibleEnvironmentError, match=f"but found {version}") as error:
        check_environment()
    assert "mmcv-lite==2.1.0" in one_sentence(error)


def test_wrong_mmengine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import mmengine

    monkeypatch.setattr(mmengine, "__version__", "0.7.4")
    with pytest.raises(IncompatibleEnvironmentError, match="mmengine>=0.10.7,<1.0.0") as error:
        check_environment()
    one_sentence(error)


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


def test_compiled_ops_of_another_torch_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def broken(name: str) -> types.ModuleType:
        if name == "mmcv._ext":
            raise ImportError("undefined symbol: _ZN2at4_ops")
        return real(name)

    monkeypatch.setattr(environment.importlib, "import_module", broken)
    with pytest.raises(IncompatibleEnvironmentError, match="do not load with torch") as error:
        check_environment()
    assert "pip uninstall -y mmcv" in one_sentence(error)


def test_import_errors_inside_a_package_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> types.ModuleType:
        raise ModuleNotFoundError("No module named 'cv2'", name="cv2")

    monkeypatch.setattr(environment.importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="cv2"):
        environment.check_mmcv()
