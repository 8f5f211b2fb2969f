"""What ``import mmclipdis`` offers by name, and when it leaves registering to the command."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

import mmclipdis
import mmclipdis.models
from mmclipdis import apis
from tests.paths import ROOT

#: As the console script: nothing is registered before the task is known.
ONE_TASK = """
import sys
import mmclipdis_command
mmclipdis_command.running = True
import mmclipdis
assert not hasattr(mmclipdis, "datasets"), "registered at once"
from mmclipdis.apis.zoo.resolving import look_up
assert look_up("clearclip-shapes", "segment")[2]  # which finds mmdet, as `--model` does
from mmclipdis.commands.start import start
start("segment")
from mmseg.registry import MODELS
from mmengine.registry import HOOKS
assert MODELS.get("OpenVocabSegmentor") and MODELS.get("CLIPViT") and HOOKS.get("VocabularyHook")
assert sys.modules["mmdet"] is None, "mmseg imported it"
unwanted = ("matplotlib", "pandas", "scipy.linalg", "sklearn", "tensorboard")
unwanted = (*unwanted, "torch._dynamo", "torch.distributed.optim")
unwanted = tuple(f"{name}." for name in unwanted)
found = {name for name in sys.modules if f"{name}.".startswith(unwanted)}
assert not found, found
import numpy, scipy.optimize
from mmseg.models.assigners.hungarian_assigner import linear_sum_assignment
assert linear_sum_assignment(numpy.array([[1, 0], [0, 1]]))[1].tolist() == [1, 0]
"""


@pytest.mark.parametrize("name", ["segment", "detect", "tag"])
def test_the_functions_are_those_of_apis(name: str) -> None:
    assert getattr(mmclipdis, name) is getattr(apis, name)
    assert name in dir(mmclipdis) and name in mmclipdis.__all__


def test_a_name_that_there_is_not_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="'mmclipdis' has no attribute 'segmnt'"):
        _ = mmclipdis.segmnt


def test_models_is_a_package_and_lists_models_when_it_is_called() -> None:
    from mmclipdis.models import CLIPViT

    assert isinstance(mmclipdis.models, ModuleType) and mmclipdis.models.CLIPViT is CLIPViT
    assert sys.modules["mmclipdis.models"] is mmclipdis.models
    names = [info.name for info in mmclipdis.models("tag")]
    assert "clip-shapes" in names and len(mmclipdis.models()) > len(names)
    with pytest.raises(ValueError, match="no task 'tags'"):
        mmclipdis.models("tags")


def test_registering_again_changes_nothing() -> None:
    before = {name for name in sys.modules if name.startswith("mmclipdis")}
    mmclipdis.register()
    assert {name for name in sys.modules if name.startswith("mmclipdis")} == before


@pytest.mark.parametrize(
    ("argv", "original", "command"),
    [
        (["-m"], ["python", "-m", "mmclipdis"], True),
        (["-m", "tag", "a"], ["python", "-Wignore", "-m", "mmclipdis", "tag", "a"], True),
        (["-m", "--json"], ["python", "-mmmclipdis.doctor", "--json"], True),
        (["-m", "mmclipdis"], ["python", "-m", "pytest", "mmclipdis"], False),
        (["-m"], ["python", "-m", "my.mmclipdis"], False),
        (["bin/mmclipdis", "tag"], ["python", "bin/mmclipdis", "tag"], False),
        (["train.py"], ["python", "train.py"], False),
    ],
)
def test_python_m_is_told_from_other_programs(
    argv: list[str], original: list[str], command: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", original)
    monkeypatch.delitem(sys.modules, "mmclipdis_command", raising=False)
    assert mmclipdis._is_command() is command


def test_the_console_script_is_known_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for running in (False, True):
        script = SimpleNamespace(running=running)
        monkeypatch.setitem(sys.modules, "mmclipdis_command", script)  # type: ignore[arg-type]
        assert mmclipdis._is_command() is running


def test_the_command_registers_what_a_task_needs_and_imports_no_other_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ONE_TASK], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
