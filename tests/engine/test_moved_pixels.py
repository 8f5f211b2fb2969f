"""Steps of test pipelines that move pixels are refused before the run, the others are not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from mmclipdis.engine import DataCheckHook, VocabularyHook
from mmclipdis.engine.moved_pixels import check_test_pipeline

LOAD = {"type": "LoadAnnotations"}


class Model(torch.nn.Module):
    """A model that undoes what it is told to."""

    def __init__(self, *undoes: str) -> None:
        super().__init__()
        if undoes != ("unsaid",):
            self.undoes = undoes


OURS, STOCK = Model("pad", "flip"), Model("unsaid")


def steps(scope: str, *middle: dict[str, Any]) -> list[Any]:
    pack = {"mmseg": "PackSegInputs", "mmdet": "PackDetInputs"}[scope]
    with DefaultScope.overwrite_default_scope(scope):
        return Compose([*middle, {"type": pack}]).transforms


def check(model: Model, scope: str, *middle: dict[str, Any]) -> None:
    check_test_pipeline(steps(scope, *middle), model, "test_dataloader (Data)")


FLIP = {"type": "RandomFlip", "prob": 1.0}
PAD = {"type": "Pad", "size_divisor": 32}
RESIZE = {"type": "Resize", "scale": (64, 64)}
ROTATE = {"type": "RandomRotate", "prob": 1.0, "degree": 10.0}

FINE = {
    "resize": (OURS, "mmseg", [RESIZE, LOAD]),
    "several sizes": (OURS, "mmseg", [{"type": "RandomChoiceResize", "scales": [(9, 9)]}]),
    "short edge": (OURS, "mmseg", [{"type": "ResizeShortestEdgePIL", "scale": 9, "max_size": 9}]),
    "colours": (OURS, "mmseg", [{"type": "PhotoMetricDistortion"}, LOAD]),
    "pad that is undone": (OURS, "mmseg", [PAD, LOAD]),
    "flip that is undone": (OURS, "mmseg", [FLIP, LOAD]),
    "flip of mmseg's models": (STOCK, "mmseg", [FLIP, LOAD]),
    "flip that never comes": (OURS, "mmseg", [LOAD, {"type": "RandomFlip", "prob": 0.0}]),
    "pad for boxes": (STOCK, "mmdet", [PAD]),
    "augmentation": (
        OURS,
        "mmseg",
        [{"type": "TestTimeAug", "transforms": [
            [RESIZE], [{"type": "RandomFlip", "prob": 0.0}, FLIP], [LOAD],
        ]}],
    ),
}  # fmt: skip

MOVES = "moves pixels, and nothing moves the results back"
BAD = {
    "crop": (OURS, "mmseg", [{"type": "RandomCrop", "crop_size": (8, 8)}], MOVES),
    "centre": (OURS, "mmseg", [{"type": "mmcv.CenterCrop", "crop_size": 8}], MOVES),
    "rotation": (OURS, "mmseg", [ROTATE], MOVES),
    "quarter turns": (OURS, "mmseg", [{"type": "RandomRotFlip"}], MOVES),
    "cut-out": (
        OURS, "mmseg",
        [{"type": "RandomCutOut", "prob": 1.0, "n_holes": 1, "cutout_shape": (2, 2)}], MOVES,
    ),
    "mosaic": (OURS, "mmseg", [{"type": "RandomMosaic", "prob": 1.0, "img_scale": (9, 9)}], MOVES),
    "inside a wrapper": (OURS, "mmseg", [{"type": "RandomApply", "transforms": [ROTATE]}], MOVES),
    "one of several": (
        OURS, "mmseg", [{"type": "RandomChoice", "transforms": [[RESIZE], [ROTATE]]}], MOVES,
    ),
    "in augmented testing": (
        OURS, "mmseg", [{"type": "TestTimeAug", "transforms": [[RESIZE], [ROTATE]]}], MOVES,
    ),
    "padding of the edge": (
        OURS, "mmseg", [{**PAD, "padding_mode": "edge"}], "cannot be told from the photo",
    ),
    "padded labels": (OURS, "mmseg", [LOAD, PAD], "Pad stands behind LoadAnnotations"),
    "flipped labels": (OURS, "mmseg", [LOAD, FLIP], "RandomFlip stands behind LoadAnnotations"),
    "pad under a stock segmentor": (STOCK, "mmseg", [PAD], "takes for a part of the photo"),
    "pad under F-ViT": (Model(), "mmdet", [PAD], "takes for a part of the photo"),
    "flipped boxes": (STOCK, "mmdet", [FLIP], MOVES),
    "cut boxes": (STOCK, "mmdet", [{"type": "RandomCrop", "crop_size": (8, 8)}], MOVES),
    "affine boxes": (STOCK, "mmdet", [{"type": "RandomAffine"}], MOVES),
    "shifted boxes": (STOCK, "mmdet", [{"type": "RandomShift"}], MOVES),
    "sheared boxes": (STOCK, "mmdet", [{"type": "ShearX"}], MOVES),
}  # fmt: skip


@pytest.mark.parametrize("case", FINE)
def test_what_is_undone_or_harmless_passes(case: str) -> None:
    model, scope, middle = FINE[case]
    check(model, scope, *middle)


@pytest.mark.parametrize("case", BAD)
def test_what_moves_pixels_is_refused_by_name(case: str) -> None:
    model, scope, middle, message = BAD[case]
    with pytest.raises(ValueError, match=message) as caught:
        check(model, scope, *middle)
    assert "test_dataloader (Data)" in str(caught.value) and "\n" not in str(caught.value)


def test_a_subclass_of_a_moving_step_is_one_and_recognition_does_not_care() -> None:
    crop = steps("mmseg", {"type": "RandomCrop", "crop_size": (8, 8)})[0]
    own = type("Mine", (type(crop),), {})(crop_size=(8, 8))
    pack = steps("mmseg")[-1]
    with pytest.raises(ValueError, match="Mine moves pixels"):
        check_test_pipeline([own, pack], OURS, "x")
    check_test_pipeline([own], OURS, "x")  # no label map and no box comes out of it


@pytest.mark.parametrize("hook", [DataCheckHook, VocabularyHook])
@pytest.mark.parametrize("name", ["val", "test"])
def test_hooks_look_at_every_loop_and_inside_wrappers(hook: type, name: str) -> None:
    inner = SimpleNamespace(pipeline=SimpleNamespace(transforms=steps("mmseg", ROTATE)))
    joined = SimpleNamespace(datasets=[SimpleNamespace(dataset=inner)])
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=joined))
    runner = SimpleNamespace(model=OURS, _val_loop=None, _test_loop=None)
    setattr(runner, f"_{name}_loop", loop)
    with pytest.raises(ValueError, match=f"{name}_dataloader .*RandomRotate moves pixels"):
        hook().before_run(runner)
