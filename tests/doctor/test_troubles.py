"""Each known trouble is found in an environment that has it, and in no other."""

from __future__ import annotations

import importlib
import os
import sys
import types
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

from mmclipdis.compat import IncompatibleEnvironmentError, check_environment
from mmclipdis.compat.environment import home_troubles
from mmclipdis.compat.trouble import Trouble
from mmclipdis.doctor import troubles
from mmclipdis.doctor.troubles import (
    cache_troubles,
    find_troubles,
    gpu_troubles,
    import_troubles,
    missing_troubles,
    numpy_troubles,
    opencv_troubles,
    setuptools_troubles,
)
from tests.distributions import FORK_VERSIONS, UPSTREAM_VERSIONS, Install, Row, write_metadata

Usage = namedtuple("Usage", "total used free")


def one(check: Any) -> Trouble:
    """The one trouble that a check finds, which is one readable line."""
    (trouble,) = check()
    assert "\n" not in str(trouble) and len(str(trouble)) < 700
    return trouble


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Hide modules from those who look whether they are installed."""
    real = troubles.find_spec
    monkeypatch.setattr(troubles, "find_spec", lambda name: None if name in names else real(name))


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("ftfy", "open_clip and mmseg need ftfy, which is not installed; run: pip install ftfy"),
        ("regex", "open_clip and mmseg need regex, which is not installed; run: pip install regex"),
        ("timm", "mmclipdis needs timm, which is not installed; run: pip install timm"),
        ("PIL", "mmclipdis needs PIL, which is not installed; run: pip install pillow"),
    ],
)
def test_a_missing_package_stops(monkeypatch: pytest.MonkeyPatch, module: str, line: str) -> None:
    assert list(missing_troubles()) == []
    without(monkeypatch, module)
    trouble = one(missing_troubles)
    assert trouble.stops and str(trouble) == line


def fails_to_import(monkeypatch: pytest.MonkeyPatch, module: str, error: Exception) -> None:
    real = importlib.import_module

    def broken(name: str, *rest: Any) -> types.ModuleType:
        if name == module:
            raise error
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", broken)


@pytest.mark.parametrize(
    ("module", "error", "package"),
    [
        ("pycocotools._mask", ValueError("numpy.dtype size changed, may indicate"), "pycocotools"),
        ("cv2", ImportError("numpy.core.multiarray failed to import"), "opencv-python"),
        ("scipy.ndimage", AttributeError("_ARRAY_API not found"), "scipy"),
    ],
)
def test_a_package_compiled_for_another_numpy_stops(
    monkeypatch: pytest.MonkeyPatch, module: str, error: Exception, package: str
) -> None:
    assert list(numpy_troubles()) == []
    fails_to_import(monkeypatch, module, error)
    trouble = one(numpy_troubles)
    assert trouble.stops and f"{package} " in trouble.what and "another NumPy than" in trouble.what
    assert f"--force-reinstall --no-deps {package}; or" in trouble.remedy


def test_an_import_error_that_is_not_numpys_is_none_of_its_troubles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fails_to_import(monkeypatch, "cv2", ImportError("libGL.so.1: cannot open shared object file"))
    assert list(numpy_troubles()) == []


def test_two_opencvs_are_named_with_the_newer_to_keep(only: Install) -> None:
    only({"opencv-python": "4.8.0.74"})
    assert list(opencv_troubles()) == []
    only({"opencv-python-headless": "5.0.0.93"})
    trouble = one(opencv_troubles)
    assert not trouble.stops and "of two versions mixed" in trouble.what
    assert trouble.remedy.endswith("then pip install 'opencv-python-headless==5.0.0.93'")


def test_two_opencvs_of_one_version_keep_the_one_with_windows(only: Install) -> None:
    only({"opencv-python": "5.0.0.93", "opencv-python-headless": "5.0.0.93"})
    trouble = one(opencv_troubles)
    assert "gone when one is uninstalled" in trouble.what
    assert trouble.remedy.endswith("then pip install 'opencv-python==5.0.0.93'")


def test_setuptools_without_pkg_resources_is_a_trouble_of_upstream_alone(
    only: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "pkg_resources")
    only({**FORK_VERSIONS, "setuptools": "82.0.1"})
    assert list(setuptools_troubles()) == []
    only(UPSTREAM_VERSIONS)
    trouble = one(setuptools_troubles)
    assert "setuptools 82.0.1 has no pkg_resources" in trouble.what and not trouble.stops
    assert trouble.remedy == "run: pip install 'setuptools<82'"


def test_a_gpu_that_torch_does_not_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(troubles, "nvidia_driver", lambda: False)
    assert list(gpu_troubles()) == []
    monkeypatch.setattr(troubles, "nvidia_driver", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "was built without CUDA" in one(gpu_troubles).what
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "for CUDA 13.0 cannot use it" in one(gpu_troubles).what
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert list(gpu_troubles()) == []


def test_a_gpu_that_a_person_hides_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(troubles, "nvidia_driver", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert list(gpu_troubles()) == []


@pytest.fixture
def one_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No caches but that of class embeddings, in a folder that does not exist yet."""
    monkeypatch.setenv("MMCLIPDIS_CACHE", str(tmp_path / "new" / "cache"))
    folders = troubles.cache_folders()
    assert list(folders) == ["MMCLIPDIS_CACHE", "TORCH_HOME", "HF_HOME"]
    monkeypatch.setattr(
        troubles,
        "cache_folders",
        lambda: {"MMCLIPDIS_CACHE": Path(os.environ["MMCLIPDIS_CACHE"])},
    )


@pytest.mark.usefixtures("one_cache")
def test_a_cache_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMCLIPDIS_CACHE", str(tmp_path / "file"))
    trouble = one(cache_troubles)
    assert f"the cache {tmp_path / 'file'} cannot be written (Not a directory)" == trouble.what
    assert trouble.remedy == "set MMCLIPDIS_CACHE to a folder that can" and not trouble.stops


@pytest.mark.usefixtures("one_cache")
def test_a_cache_on_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(troubles.shutil, "disk_usage", lambda place: Usage(1e12, 0, 1e12))
    assert list(cache_troubles()) == []
    monkeypatch.setattr(troubles.shutil, "disk_usage", lambda place: Usage(1e12, 1e12, 5e6))
    assert "has 5 MB left" in one(cache_troubles).what
    assert list(tmp_path.iterdir()) == []  # looking leaves nothing behind


def test_what_nobody_foresaw_is_found_by_importing_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert list(import_troubles()) == []
    fails_to_import(monkeypatch, "mmclipdis.models", AssertionError("MMCV==9\nis incompatible"))
    trouble = one(import_troubles)
    assert trouble.stops and "AssertionError: MMCV==9 is incompatible" in trouble.what


@pytest.mark.parametrize("versions", [UPSTREAM_VERSIONS, FORK_VERSIONS])
def test_an_environment_without_trouble_has_none(row: Row, versions: dict[str, str]) -> None:
    row({**versions, "opencv-python": "5.0.0.93", "numpy": "2.4.6"})
    found = [str(trouble) for trouble in find_troubles() if "cache" not in trouble.what]
    assert [line for line in found if "clone" not in line] == []


def test_troubles_of_the_import_are_told_too_and_those_that_stop_first(
    only: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    only({**UPSTREAM_VERSIONS, "onedl-mmcv": "2.3.6", "mmcv": "2.1.0"})
    write_metadata(only({}), "mmclipdis", "0.1")
    monkeypatch.setattr(torch, "__version__", "2.5.1")
    monkeypatch.setitem(sys.modules, "mmengine", None)
    found = find_troubles()
    stops = [trouble.stops for trouble in found]
    assert stops == sorted(stops, reverse=True) and stops[:2] == [True, True]
    text = "\n".join(map(str, found))
    for part in (
        "needs torch>=2.6",
        "needs mmengine, which is not installed",
        "of OpenMMLab and of its fork are mixed",
        "mmcv 2.1.0 and mmcv-lite 2.1.0 are both installed",
        "but is installed (wheel) in",
    ):
        assert part in text


def test_a_user_without_a_home_is_told_of_that_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*names: object) -> Any:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    (trouble,) = find_troubles()
    assert trouble.stops and "HOME is not set and user" in trouble.what
    assert trouble.remedy.endswith("export HOME=/tmp")
    with pytest.raises(IncompatibleEnvironmentError, match="^there is no home folder"):
        check_environment()
    monkeypatch.setenv("HOME", "/tmp")
    assert list(home_troubles()) == []


def test_a_check_that_fails_itself_is_a_trouble_and_not_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def strange_troubles() -> Any:
        raise MemoryError("odd")

    monkeypatch.setattr(troubles, "CHECKS", (strange_troubles, opencv_troubles))
    assert "strange cannot be examined (MemoryError: odd)" in [t.what for t in find_troubles()]
