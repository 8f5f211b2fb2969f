"""What a test pipeline did to a photo is undone, or refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample

from mmclipdis.models.segmentation.samples import content_slices
from tests.models.segmentation.catseg.test_segmentor import build as make_catseg
from tests.models.segmentation.fakes import head_cfg, make_segmentor


@pytest.fixture(autouse=True)
def _in_mmseg() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope("mmseg"):
        yield


RESIZE = {"type": "Resize", "scale": (2048, 32), "keep_ratio": True}
FLIP = {"type": "RandomFlip", "prob": 1.0, "direction": "horizontal"}


def pad(**options: Any) -> dict[str, Any]:
    return {"type": "Pad", **options}


def packed(steps: list[dict[str, Any]], size: tuple[int, int] = (20, 28)) -> dict[str, Any]:
    """A photo of bytes through a pipeline, as a data loader hands it over."""
    photo = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    prepare = Compose([{"type": "LoadImageFromNDArray"}, *steps, {"type": "PackSegInputs"}])
    item = prepare({"img": photo})
    return {"inputs": [item["inputs"]], "data_samples": [item["data_samples"]]}


def ours(**data_preprocessor: Any) -> Any:
    model = make_segmentor(mode="slide", crop_size=(12, 12), stride=(8, 8))
    if data_preprocessor:
        kind = {"type": "SegDataPreProcessor", **data_preprocessor}
        model = type(model)(
            backbone={"type": "PatchMeanBackbone"},
            decode_head=head_cfg(),
            test_cfg={"mode": "slide", "crop_size": (12, 12), "stride": (8, 8)},
            data_preprocessor=kind,
        )
    return model.double().eval()


def labels(model: Any, steps: list[dict[str, Any]]) -> torch.Tensor:
    data = packed(steps)
    kind = next(model.parameters()).dtype
    (result,) = model.test_step({**data, "inputs": [data["inputs"][0].to(kind) / 64]})
    return result.pred_sem_seg.data[0]


@pytest.mark.parametrize("model", [ours, lambda: make_catseg().eval()], ids=["ours", "catseg"])
@pytest.mark.parametrize(
    "padding",
    [pad(size_divisor=16), pad(size=(70, 50)), pad(size=(50, 50), pad_val=114)],
    ids=["divisor", "size", "grey"],
)
@pytest.mark.parametrize("resize", [[], [RESIZE]], ids=["", "resized"])
def test_padding_changes_nothing(model: Any, padding: dict[str, Any], resize: list[Any]) -> None:
    segmentor = model()
    assert torch.equal(labels(segmentor, [*resize, padding]), labels(segmentor, resize))


def test_the_padding_of_mmsegs_preprocessor_changes_nothing() -> None:
    plain = labels(ours(mean=[0, 0, 0], std=[255, 255, 255]), [RESIZE])
    padded = ours(mean=[0, 0, 0], std=[255, 255, 255], test_cfg={"size_divisor": 64})
    assert torch.equal(labels(padded, [RESIZE, pad(size_divisor=24)]), plain)


def test_padding_before_a_flip_and_after_it() -> None:
    flipped = labels(ours(), [FLIP])
    assert torch.equal(labels(ours(), [FLIP, pad(size=(40, 50))]), flipped)
    assert torch.equal(labels(ours(), [pad(size=(40, 50)), FLIP]), flipped)


def test_padding_before_the_resize_is_cut_where_the_photo_ends() -> None:
    data = packed([pad(size=(56, 40)), {"type": "Resize", "scale": (84, 60), "keep_ratio": False}])
    image, meta = data["inputs"][0], data["data_samples"][0].metainfo
    assert image.shape == (3, 60, 84)
    assert content_slices(image, meta) == (slice(30), slice(42))


def test_what_is_no_constant_is_no_padding() -> None:
    """``ResizeToMultiple`` leaves the same records."""
    meta = {"ori_shape": (20, 28), "pad_shape": (24, 32), "img_shape": (24, 32)}
    image = torch.rand(3, 24, 32)
    assert content_slices(image, meta) == (slice(24), slice(32))
    image[:, 20:], image[:, :, 28:] = 0.5, 0.5
    assert content_slices(image, meta) == (slice(20), slice(28))


@pytest.mark.parametrize(
    "steps",
    [
        [RESIZE, {"type": "RandomCrop", "crop_size": (16, 16)}],
        [RESIZE, {"type": "mmcv.CenterCrop", "crop_size": 16}],
        [pad(size=(40, 40)), {"type": "RandomCrop", "crop_size": (12, 12)}],
    ],
    ids=["crop", "centre", "pad and crop"],
)
def test_a_photo_that_was_cut_is_refused(steps: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="photo of 20 x 28 pixels .*a step of the test pipeline"):
        labels(ours(), steps)


def test_a_stock_segmentor_refuses_what_it_would_take_for_the_photo() -> None:
    model = EncoderDecoder(
        backbone={"type": "PatchMeanBackbone"},
        decode_head=head_cfg(num_classes=4),
        data_preprocessor={"type": "SegDataPreProcessor", "test_cfg": {"size_divisor": 32}},
        test_cfg=ConfigDict(mode="whole"),
    ).eval()
    model.test_step(packed([RESIZE]))
    with pytest.raises(ValueError, match=r"Pad in the test pipeline .*stock segmentor"):
        model.test_step(packed([RESIZE, pad(size_divisor=24)]))


def test_records_without_a_resize_are_left_alone() -> None:
    sample = SegDataSample(metainfo={"ori_shape": (40, 56)})
    (result,) = ours().predict([torch.rand(3, 20, 28).double()], [sample])
    assert result.pred_sem_seg.data.shape == (1, 40, 56)
