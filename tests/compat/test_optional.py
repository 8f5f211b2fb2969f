"""mmseg and mmdet may each be missing: the rest registers, and what is missing is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmclipdis.compat.optional import absent
from tests.processes import run_code

BLOCK = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None  # as if it were not installed
"""
REST = """
import mmclipdis
from mmengine.registry import HOOKS, LOOPS, MODELS, TRANSFORMS
names = ("ClearCLIPViT", "CLIPViT", "FViTBackbone", "GatheredBCELoss", "OpenCLIPTextEncoder")
for name in (*names, "DeCLIP", "TimmVFM"):
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
WITHOUT_MMDET = """
import mmclipdis.models.detection
from mmclipdis.models import CATSeg, OpenVocabTTAModel
from mmclipdis.models.detection import FViTBackbone
for module in (mmclipdis.models, mmclipdis.models.detection):
    try:
        module.FViT
    except ImportError as error:
        assert f"{module.__name__}.FViT needs mmdetection" in str(error)
    else:
        raise SystemExit("FViT is there")
    assert not hasattr(module, "anything_else")
"""
NEEDED = ("model", "test_dataloader", "test_evaluator", "test_cfg")


@pytest.mark.parametrize("blocked", [("mmseg",), ("mmseg", "mmdet")])
def test_without_mmseg_the_rest_registers_and_segmentation_is_named(
    blocked: tuple[str, ...],
) -> None:
    result = run_code(BLOCK.format(blocked=blocked) + REST + WITHOUT_MMSEG)
    assert result.returncode == 2, result.stderr[-2000:]
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: config 'configs/shapes/clip.py' needs mmsegmentation")


def test_without_mmdet_a_detection_config_is_named(tmp_path: Path) -> None:
    config = tmp_path / "detector.py"
    config.write_text("default_scope = 'mmdet'\n" + "\n".join(f"{n} = dict()" for n in NEEDED))
    code = f"from mmclipdis.apis.cli import run\nrun(mmclipdis.apis.run.test, [{str(config)!r}])\n"
    result = run_code(BLOCK.format(blocked=("mmdet",)) + REST + code)
    assert result.returncode == 2, result.stderr[-2000:]
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: config {str(config)!r} needs mmdetection") and "pip" in last


def test_a_missing_name_says_which_library_it_needs() -> None:
    lookup = absent("package", ["CATSeg", "FViT"], detection=["FViT"])
    with pytest.raises(
        ImportError,
        match=r"package.FViT needs mmdetection.*pip install '(mmdet|onedl-mmdetection)==",
    ):
        lookup("FViT")
    with pytest.raises(ImportError, match=r"package.CATSeg needs mmsegmentation"):
        lookup("CATSeg")
    with pytest.raises(AttributeError, match="no attribute 'Other'"):
        lookup("Other")


def test_without_mmdet_the_rest_registers_and_detection_is_named() -> None:
    result = run_code(BLOCK.format(blocked=("mmdet",)) + REST + WITHOUT_MMDET)
    assert result.returncode == 0, result.stderr[-2000:]
