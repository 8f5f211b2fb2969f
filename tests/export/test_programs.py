"""What becomes a file gives what the model's own code gives, and has no size that hangs on a photo.

Nothing is captured here, which takes seconds a model: a program is run as it is, and once more with
tensors that have shapes and no values, which fails wherever a capture would have to look into them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch._subclasses.fake_tensor import FakeTensorMode

from mmclipdis.engine.random_weights import take_as_meant
from mmclipdis.export.detectors import samples_of
from mmclipdis.export.kinds import Exportable, exportable
from tests.clip.readouts import fitted
from tests.export.tiny import (
    NAMES,
    WORDS,
    catseg,
    dclip,
    example,
    images,
    segmentor,
    stock,
    zero_shot,
)
from tests.faults.endings import raises
from tests.models.detection.fvit import tiny as tiny_fvit
from tests.models.detection.ovdquo import tiny as tiny_ovdquo

SIZE = (40, 52)
DETECTED = (64, 96)


def same(found: Exportable, *sizes: tuple[int, int], batch: int = 2) -> None:
    with torch.no_grad(), found.settings():
        for size in sizes:
            pictures = images(batch if found.batch else 1, *size)
            mine, wanted = found.program.eval()(pictures), found.reference(pictures)
            mine = (mine,) if isinstance(mine, torch.Tensor) else mine
            assert len(mine) == len(wanted) == len(found.outputs)
            for one, other in zip(mine, wanted):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
                assert other.std() > 1e-5  # not all the same
        with FakeTensorMode(allow_non_fake_inputs=True) as unknown:
            found.program(unknown.from_tensor(pictures))


def named(model: Any, words: Any) -> Any:
    part = model if hasattr(model, "set_vocabulary") else model.decode_head
    part.set_vocabulary(words)
    return model.eval()


@pytest.mark.parametrize("backbone", ["CLIPViT", "MaskCLIPViT", "SCLIPViT", "ClearCLIPViT"])
def test_each_readout_slides_its_windows_over_images_of_one_size(backbone: str) -> None:
    found = exportable(named(segmentor(backbone), WORDS), SIZE)
    assert not found.notes
    same(found, SIZE)


@pytest.mark.parametrize("name", ["clip_surgery", "gem", "naclip", "resclip", "scclip"])
def test_a_readout_of_several_blocks_or_of_places_is_in_the_program(name: str) -> None:
    model = named(segmentor("CLIPViT"), WORDS)
    readout = fitted(name)
    model.backbone.readout = replace(readout, k=3) if name == "scclip" else readout
    same(exportable(model, SIZE), SIZE)
    if name == "scclip":
        raises("SC-CLIP is exported for images of one size only.*--image-size", exportable, model,
               None)  # fmt: skip


SIGMOID: dict[str, Any] = dict(score="sigmoid", logit_scale=10.0, logit_bias=-3.0)


@pytest.mark.parametrize("head", [{"score_norm": "minmax"}, {"background": "threshold"}, SIGMOID])
@pytest.mark.parametrize(("size", "mode"), [(None, "slide"), ((37, 50), "slide"), (None, "whole")])
def test_options_of_the_head_are_in_the_program(head: dict[str, Any], size: Any, mode: str) -> None:
    model = segmentor(mode=mode, crop_size=(36, 36), stride=(20, 20))  # padded to 48 x 48
    part = model.decode_head
    part.score_norm = head.get("score_norm")
    if "score" in head:
        part.take_scale(10.0, "sigmoid", -3.0, None)
    if "background" in head:
        part.ask_background, part.prob_thd, part.background = False, 0.4, "threshold"
    found = exportable(named(model, ["background", *WORDS]), size)
    assert found.facts["background"] == 0 and found.facts["threshold"] == part.prob_thd
    assert found.facts["activation"] == head.get("score", "softmax")
    assert bool(found.notes) == (size is None and mode == "slide")
    same(found, *([size] if size else [(32, 32), (64, 48)]))


@pytest.mark.parametrize(
    ("build", "words", "sizes"),
    [
        (stock, WORDS, [(32, 32), (64, 48)]),
        (catseg, WORDS, [SIZE, (64, 64)]),
        (dclip, NAMES, [(32, 32), (64, 48)]),
        (lambda: dclip(order="pool_project"), NAMES, [(32, 32), (64, 48)]),
        (lambda: dclip(projectors=dict(out_dim=8, image_layers=2)), NAMES, [(32, 32)]),
        (zero_shot, NAMES, [(32, 32), (64, 48)]),
        (lambda: zero_shot(image_size=32), NAMES, [SIZE, (20, 90)]),
        (lambda: zero_shot(**SIGMOID), NAMES, [(32, 32)]),
    ],
)
def test_other_segmentors_and_taggers(build: Callable[[], Any], words: Any, sizes: Any) -> None:
    same(exportable(named(build(), words), None), *sizes)


def detected(model: Any, found: Exportable) -> None:
    """The example of the page makes of a file's boxes what the model detects."""
    page: dict[str, Any] = {}
    exec(compile(example("def kept"), "docs/export.md", "exec"), page)
    pictures = images(1, *DETECTED)
    with torch.no_grad():
        outputs = [values.numpy() for values in found.program(pictures)]
        (wanted,) = model.predict(pictures, samples_of(DETECTED), rescale=False)
    rows = page["detections"](found.facts, *outputs)
    wanted = wanted.pred_instances
    assert len(rows) == len(wanted) > 5
    assert [row[1] for row in rows] == wanted.labels.tolist()
    np.testing.assert_allclose([row[0] for row in rows], wanted.scores.numpy(), atol=1e-5)
    np.testing.assert_allclose([row[2] for row in rows], wanted.bboxes.numpy(), atol=1e-3)


@pytest.mark.parametrize("objectness", [0, 1])
def test_fvit_has_boxes_and_scores_of_all_proposals(objectness: int) -> None:
    DefaultScope.get_instance("tests-fvit-export", scope_name="mmdet")
    torch.manual_seed(0)
    model: Any = MODELS.build(tiny_fvit.config(objectness=objectness))
    torch.nn.init.normal_(model.rpn_head.rpn_cls.weight)  # scores that are apart
    torch.nn.init.normal_(model.rpn_head.rpn_reg.weight, std=0.1)
    take_as_meant(model)
    model.eval().set_vocabulary(tiny_fvit.CLASSES, tiny_fvit.NOVEL)
    found = exportable(model, DETECTED)
    assert found.facts["proposals_per_level"] == [100, 100, 100, 72, 18]
    same(found, DETECTED)
    detected(model, found)


def test_ovdquo_has_a_box_and_scores_of_every_query() -> None:
    model = tiny_ovdquo.build().eval()
    found = exportable(model, DETECTED)
    assert found.facts["nms"] == {"type": "nms", "iou_threshold": 0.5}
    same(found, DETECTED)
    detected(model, found)
    assert "forward" not in vars(model.encoder.layers[0].self_attn)
    assert "pre_transformer" not in vars(model) and model.test_cfg.score_thr == 0.001


def test_images_of_the_check_have_no_ranks_that_rounding_could_change() -> None:
    model = tiny_ovdquo.build().eval()
    found = exportable(model, DETECTED)
    assert found.settled(images(1, *DETECTED))
    with torch.no_grad():
        model.bbox_head.cls_branches[1].weight.zero_()  # all places are equally strong
        assert not found.settled(images(1, *DETECTED))
