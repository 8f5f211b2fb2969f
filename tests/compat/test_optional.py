"""mmseg and mmdet may each be missing: the rest registers, and what is missing is named."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.tools.random_data import ROOT

BLOCK = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None  # as if it were not installed
"""
REST = """
import mmclipdis
from mmengine.registry import HOOKS, LOOPS, MODELS, TRANSFORMS
names = ("ClearCLIPViT", "CLIPViT", "GatheredBCELoss", "OpenCLIPTextEncoder", "DeCLIP", "TimmVFM")
for name in names:
    assert MODELS.get(name), name
assert TRANSFORMS.get("LoadReadableImage")
assert HOOKS.get("VocabularyHook") and LOOPS.get("ExactIterBasedTrainLoop")
import mmclipdis.apis.run
"""
WITHOUT_MMSEG = """
import mmclipdis.datasets
for module, name in (
    (mmclipdis.models, "CATSeg"), (mmclipdis.datasets, "LoadReadableAnnotations"),
    (mmclipdis.evaluation, "OpenVocabIoUMetric"), (mmclipdis.apis, "segment"),
):
    try:
        getattr(module, name)
    except ImportError as error:
        assert f"{module.__name__}.{name} needs mmsegmentation" in str(error)
    else:
        raise SystemExit(f"{name} is there")
    assert not hasattr(module, "anything_else")
from mmclipdis.apis.cli import run
run(mmclipdis.apis.run.test, ["configs/shapes/clip.py"])
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("blocked", [("mmseg",), ("mmseg", "mmdet")])
def test_without_mmseg_the_rest_registers_and_segmentation_is_named(
    blocked: tuple[str, ...],
) -> None:
    result = python(BLOCK.format(blocked=blocked) + REST + WITHOUT_MMSEG)
    assert result.returncode == 2, result.stderr[-2000:]
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: config 'configs/shapes/clip.py' needs mmsegmentation")


def test_without_mmdet_everything_registers() -> None:
    segmentation = "from mmclipdis.models import CATSeg, OpenVocabTTAModel\n"
    result = python(BLOCK.format(blocked=("mmdet",)) + REST + segmentation)
    assert result.returncode == 0, result.stderr[-2000:]
