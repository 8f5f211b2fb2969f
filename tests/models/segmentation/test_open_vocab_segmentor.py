"""The segmentor follows the published order of operations, however windows are batched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample

from mmclipdis.models.segmentation import MixedSizeSegDataPreProcessor, OpenVocabSegmentor
from mmclipdis.models.segmentation.windows import slide_windows, symmetric_padding
from tests.models.segmentation.fakes import head_cfg, make_segmentor

SLIDE: dict[str, Any] = {"mode": "slide", "crop_size": (12, 12), "stride": (6, 6)}


def photo(height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, height, width, generator=generator, dtype=torch.float64)


def sample(**meta: Any) -> SegDataSample:
    return SegDataSample(metainfo=meta)


def labels_of(model, images, samples=None) -> list[torch.Tensor]:
    return [result.pred_sem_seg.data for result in model.predict(images, samples)]


def test_equals_the_published_steps_one_by_one() -> None:
    """Sequential windows, zero padding, cosines at full size, mean, resize, softmax, threshold."""
    model = make_segmentor({"prob_thd": 0.9, "background_index": 0}, return_probs=True, **SLIDE)
    image, size = photo(10, 29) * 4, (20, 60)
    windows = slide_windows((10, 29), (12, 12), (6, 6))
    total, count = torch.zeros(4, 10, 29, dtype=torch.float64), torch.zeros(10, 29)
    for y, x in windows.starts:
        crop = F.pad(image[:, y : y + 10, x : x + 12], (0, 0, 1, 1))  # 10 rows: 1 above, 1 below
        feature = F.normalize(model.backbone(crop[None])[0], dim=1)
        cosine = F.interpolate(feature, size=(12, 12), mode="bilinear", align_corners=False)[0]
        total[:, y : y + 10, x : x + 12] += cosine[:, 1:11]
        count[y : y + 10, x : x + 12] += 1
    full = F.interpolate((total / count)[None], size=size, mode="bilinear", align_corners=False)
    probabilities = (10 * full[0]).softmax(dim=0)
    best, labels = probabilities.max(dim=0)
    labels[best < 0.9] = 0
    (result,) = model.predict(image[None], [sample(ori_shape=size)])
    torch.testing.assert_close(result.seg_logits.data, probabilities)
    assert torch.equal(result.pred_sem_seg.data[0], labels)
    assert len(labels.unique()) >= 3


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batched_windows_equal_sequential_ones(batch_size: int) -> None:
    want = labels_of(make_segmentor(window_batch_size=1, **SLIDE), photo(25, 31)[None])
    model = make_segmentor(window_batch_size=batch_size, **SLIDE)
    assert torch.equal(labels_of(model, photo(25, 31)[None])[0], want[0])
    windows = len(slide_windows((25, 31), (12, 12), (6, 6)))
    assert sum(model.backbone.batches) == windows
    assert len(model.backbone.batches) == -(-windows // batch_size)


def test_one_window_equals_whole_where_the_photo_is_not_resized() -> None:
    for size in ((12, 20), (13, 19)):
        big = make_segmentor(mode="slide", crop_size=(64, 64), stride=(32, 32), return_probs=True)
        whole = make_segmentor(mode="whole", return_probs=True)
        results = [m.predict(photo(*size)[None])[0].seg_logits.data for m in (big, whole)]
        torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(12, 20), (14, 23)], ids=str)
@pytest.mark.parametrize("photo_size", [(31, 33), (12, 20), (5, 80)], ids=str)
def test_a_whole_image_goes_straight_to_the_photo(size, photo_size) -> None:
    """As in ClearCLIP's and SCLIP's code: cosines of patches -> photo, the remainder cut off."""
    model = make_segmentor(mode="whole", window_padding="floor", return_probs=True)
    image = 3 * photo(*size)
    feature = F.normalize(model.backbone(image[None])[0], dim=1)
    cosine = F.interpolate(feature, size=photo_size, mode="bilinear", align_corners=False)
    (result,) = model.predict(image[None], [sample(ori_shape=photo_size)])
    torch.testing.assert_close(result.seg_logits.data, (10 * cosine[0]).softmax(0))
    sliding = make_segmentor(
        mode="slide", crop_size=(64, 64), stride=(8, 8), window_padding="floor", return_probs=True
    )
    (twice,) = sliding.predict(image[None], [sample(ori_shape=photo_size)])
    if photo_size != size:
        assert (twice.seg_logits.data - result.seg_logits.data).abs().max() > 1e-3


@pytest.mark.parametrize("chunk", [1, 2, 3])
@pytest.mark.parametrize("prob_thd", [0.0, 0.6])
def test_chunked_labels_equal_those_from_stored_probabilities(chunk: int, prob_thd: float) -> None:
    image, meta = photo(25, 31)[None], [sample(ori_shape=(40, 50))]
    full = make_segmentor({"prob_thd": prob_thd}, return_probs=True, **SLIDE)
    streamed = make_segmentor({"prob_thd": prob_thd}, class_chunk=chunk, **SLIDE)
    (result,) = streamed.predict(image, [sample(ori_shape=(40, 50))])
    assert "seg_logits" not in result
    assert torch.equal(result.pred_sem_seg.data, labels_of(full, image, meta)[0])


@pytest.mark.parametrize("mode", [SLIDE, {"mode": "whole"}])
def test_images_of_a_batch_do_not_see_each_other(mode: dict[str, Any]) -> None:
    """Other input sizes, other photo sizes, one smaller than the crop."""
    images = [photo(25, 31, 1), photo(8, 40, 2), photo(25, 31, 3)]
    sizes = [(50, 62), (11, 47), (25, 30)]
    model = make_segmentor(window_batch_size=4, **mode)
    together = labels_of(model, images, [sample(ori_shape=size) for size in sizes])
    for image, size, result in zip(images, sizes, together, strict=True):
        assert result.shape == (1, *size)
        assert result.dtype == torch.int64
        alone = labels_of(model, image[None], [sample(ori_shape=size)])
        assert torch.equal(result, alone[0])


def test_padding_of_the_batch_is_cut_off_first() -> None:
    image = photo(24, 32)
    padded = F.pad(image, (0, 5, 0, 3), value=9.0)
    meta = sample(ori_shape=(24, 32), img_padding_size=[0, 5, 0, 3])
    model = make_segmentor(**SLIDE)
    assert torch.equal(labels_of(model, padded[None], [meta])[0], labels_of(model, image[None])[0])


@pytest.mark.parametrize(("direction", "axis"), [("horizontal", -1), ("vertical", -2)])
def test_flipped_images_give_unflipped_labels(direction: str, axis: int) -> None:
    image = photo(24, 24)
    model = make_segmentor(mode="whole", return_probs=True)
    meta = sample(ori_shape=(24, 24), flip=True, flip_direction=direction)
    (flipped,) = model.predict(image.flip(axis)[None], [meta])
    (plain,) = model.predict(image[None])
    torch.testing.assert_close(flipped.seg_logits.data, plain.seg_logits.data)
    assert torch.equal(flipped.pred_sem_seg.data, plain.pred_sem_seg.data)


def test_floor_drops_the_remainder_and_stretches() -> None:
    model = make_segmentor(mode="whole", window_padding="floor", return_probs=True)
    image = photo(14, 15)
    (result,) = model.predict(image[None])
    feature = F.normalize(model.backbone(image[None, :, :12, :12])[0], dim=1)
    stretched = F.interpolate(feature, size=(14, 15), mode="bilinear", align_corners=False)
    torch.testing.assert_close(result.seg_logits.data, (10 * stretched[0]).softmax(dim=0))


def test_golden_symmetric_padding() -> None:
    assert symmetric_padding((307, 448), (16, 16)) == (0, 0, 6, 7)
    image = photo(307, 448)
    left, right, top, bottom = symmetric_padding((307, 448), (16, 16))
    padded = F.pad(image, (left, right, top, bottom))
    assert torch.equal(padded[:, top : top + 307, left : left + 448], image)


def test_permuting_the_classes_permutes_the_labels() -> None:
    order = [2, 0, 3, 1]
    model = make_segmentor(**SLIDE)
    want = labels_of(model, photo(25, 31)[None])[0]
    model.decode_head.set_vocabulary(list("abcd"), torch.eye(4, dtype=torch.float64)[order])
    assert torch.equal(torch.tensor(order)[labels_of(model, photo(25, 31)[None])[0]], want)


def test_synonyms_and_a_new_vocabulary_on_a_live_model() -> None:
    model = make_segmentor(mode="whole")
    names = [["red thing", "green thing"], "blue thing", "ground"]
    model.set_vocabulary(names)
    assert model.num_classes == 3
    fine = labels_of(make_segmentor(mode="whole"), photo(16, 16)[None])[0]
    assert torch.equal(labels_of(model, photo(16, 16)[None])[0], (fine - 1).clamp(min=0))


def test_tensor_mode_gives_patch_logits_and_test_cfg_may_change_later() -> None:
    model = make_segmentor(mode="whole")
    assert model(photo(16, 20)[None], mode="tensor").shape == (1, 4, 4, 5)
    assert model.encode_decode(photo(16, 20)[None], []).shape == (1, 4, 16, 20)
    model.test_cfg = {"mode": "whole", "return_probs": True}
    assert "seg_logits" in model(photo(16, 20)[None], mode="predict")[0]


@pytest.mark.parametrize(
    ("test_cfg", "message"),
    [
        (
            {"mode": "slide", "crop_size": (3, 12), "stride": (2, 2)},
            "smaller than a patch.*choose a larger",
        ),
        ({"mode": "slide", "crop_size": (12, 12), "stride": (13, 12)}, "stride"),
        ({"mode": "slide"}, "needs crop_size and stride"),
        ({"crop_size": (12, 12)}, "needs crop_size and stride"),
        ({"stride": (6, 6)}, "needs crop_size and stride"),
        ({"mode": "sliding"}, "mode must be one of"),
        ({"mode": "whole", "croop_size": 3}, "unknown keys.*croop_size"),
        ({"mode": "whole", "window_padding": "same"}, "window_padding must be one of"),
        ({"mode": "whole", "class_chunk": 0}, "class_chunk"),
        ({"mode": "whole", "class_chunk": 2.5}, "class_chunk"),
        ({"mode": "whole", "chunk_mb": 0}, "chunk_mb"),
        ({"mode": "whole", "chunk_mb": "64"}, "chunk_mb"),
        ({"mode": "whole", "window_batch_size": True}, "window_batch_size"),
        ({"mode": "whole", "window_batch_size": "4"}, "window_batch_size"),
        ({"mode": "whole", "return_probs": 1}, "return_probs"),
        ({"mode": "slide", "crop_size": (12, 12, 3), "stride": 6}, r"test_cfg\.crop_size"),
        ({"mode": "slide", "crop_size": 12, "stride": 0}, r"test_cfg\.stride"),
        ({"mode": "whole", "val_mode": "whole"}, "unknown keys.*val_mode"),
    ],
)
def test_bad_test_cfg_is_refused_when_the_model_is_built(test_cfg, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_segmentor(**test_cfg)


def test_sizes_without_a_mode_mean_slide_and_a_mode_overrides_them() -> None:
    sizes = {"crop_size": (12, 12), "stride": (6, 6)}
    for test_cfg, windows in ((sizes, 9), ({}, 1), ({**sizes, "mode": "whole"}, 1)):
        model = make_segmentor(**test_cfg)
        model.predict(photo(24, 24)[None])
        assert sum(model.backbone.batches) == windows


def test_a_backbone_without_patches_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ResNet .*patch_size.*'ClearCLIPViT'"):
        OpenVocabSegmentor({"type": "ResNet", "depth": 18}, head_cfg())


def test_image_without_pixels_is_refused_by_name() -> None:
    model = make_segmentor(mode="whole")
    with pytest.raises(ValueError, match=r"empty\.jpg.*no pixels"):
        model.predict([photo(8, 8)[:, :0]], [sample(img_path="empty.jpg")])


def test_floor_refuses_an_image_smaller_than_a_patch() -> None:
    model = make_segmentor(mode="whole", window_padding="floor")
    with pytest.raises(ValueError, match="smaller than a patch"):
        model.predict([photo(3, 8)])


def test_preprocessor_keeps_images_of_several_sizes_apart() -> None:
    prepare = MixedSizeSegDataPreProcessor(
        mean=[1.0, 2.0, 3.0], std=[2.0, 2.0, 2.0], bgr_to_rgb=True
    )
    images = [torch.full((3, 4, 6), 5, dtype=torch.uint8), torch.zeros(3, 8, 2, dtype=torch.uint8)]
    samples = [sample(ori_shape=(4, 6)), sample(ori_shape=(8, 2))]
    out = prepare({"inputs": images, "data_samples": samples})
    assert [tuple(image.shape) for image in out["inputs"]] == [(3, 4, 6), (3, 8, 2)]
    torch.testing.assert_close(out["inputs"][0][:, 0, 0], torch.tensor([2.0, 1.5, 1.0]))
    assert [s.ori_shape for s in out["data_samples"]] == [(4, 6), (8, 2)]
    same = prepare({"inputs": [images[0], images[0]], "data_samples": samples})
    assert same["inputs"].shape == (2, 3, 4, 6)
