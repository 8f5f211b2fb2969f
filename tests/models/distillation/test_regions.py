"""Features of regions against naive loops and golden values; the classifier as a whole."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement, InstanceData

from mmclipdis.clip.towers.build import build_image_tower
from mmclipdis.clip.towers.readout import Readout
from mmclipdis.clip.weights.eva_layout import official_to_open_clip
from mmclipdis.models.distillation.regions import (
    RegionClassifier,
    RegionDataPreprocessor,
    classify,
    mask_features,
    predict_regions,
    roi_features,
)
from tests.eva_files import EVA_ARCH, hash_values, tiny_vision
from tests.tiny import tiny_arch

SIDE, PATCH, CLASSES = 64, 16, 9


def box(*corners: float, image: int = 0) -> torch.Tensor:
    return torch.tensor([[float(image), *corners]])


# --- RoIAlign ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("corners", "expected"),
    [
        ((0.25, 0.25, 0.75, 0.75), 7.5),
        ((0, 0, 1, 1), 7.5),
        ((0, 0, 0.5, 0.5), 2.5),
        ((0, 0, 1 / 3, 0.25), 0.25),
        ((0.1, 0.2, 0.9, 0.55), 5.5),
    ],
)
def test_roi_align_is_the_golden_one(corners, expected) -> None:
    """DeCLIP spec, golden G6."""
    maps = torch.arange(16.0).view(1, 1, 4, 4)
    value = roi_features(maps, box(*corners))
    torch.testing.assert_close(value, torch.tensor([[expected]]), rtol=0, atol=1e-4)


def bilinear(plane: np.ndarray, y: float, x: float) -> float:
    """Value at (y, x), whole numbers being cell centres; outside by at most a cell, clamped."""
    height, width = plane.shape
    y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
    top, left = int(y), int(x)
    low, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    upper = plane[top, left] * (1 - dx) + plane[top, right] * dx
    lower = plane[low, left] * (1 - dx) + plane[low, right] * dx
    return upper * (1 - dy) + lower * dy


def naive_roi(plane: np.ndarray, corners: list[float]) -> float:
    """Mean of ceil(size) x ceil(size) samples spread over the box."""
    height, width = plane.shape
    x0, y0, x1, y1 = np.array(corners) * [width, height, width, height]
    rows, columns = math.ceil(y1 - y0), math.ceil(x1 - x0)
    samples = [
        bilinear(
            plane,
            y0 + (i + 0.5) * (y1 - y0) / rows - 0.5,
            x0 + (j + 0.5) * (x1 - x0) / columns - 0.5,
        )
        for i in range(rows)
        for j in range(columns)
    ]
    return float(np.mean(samples))


def test_roi_align_equals_a_naive_one_on_maps_that_are_not_square() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 5, 8, generator=generator, dtype=torch.float64)
    low = torch.rand(6, 2, generator=generator, dtype=torch.float64) * 0.6
    corners = torch.cat([low, low + 0.15 + 0.2 * low], dim=1)
    index = torch.tensor([0, 1, 1, 0, 1, 0])
    found = roi_features(maps, torch.cat([index[:, None].double(), corners], dim=1))
    for number, (image, one) in enumerate(zip(index, corners.tolist())):
        expected = [naive_roi(plane.numpy(), one) for plane in maps[image]]
        assert found[number].tolist() == pytest.approx(expected, abs=1e-9)


def test_roi_align_passes_gradients_and_keeps_half_precision_boxes_apart() -> None:
    maps = torch.randn(1, 4, 6, 6, requires_grad=True)
    roi_features(maps, box(0, 0, 0.5, 0.5)).sum().backward()
    assert maps.grad is not None
    assert maps.grad[..., :3, :3].abs().min() > 0 and maps.grad[..., 4:, :].abs().max() == 0
    half = roi_features(maps.detach().bfloat16(), box(0, 0, 0.5, 0.5))
    assert half.dtype == torch.float32  # boxes in bfloat16 would move by up to a pixel in 256


def test_no_regions_give_no_features() -> None:
    maps = torch.randn(2, 4, 6, 6)
    assert roi_features(maps, torch.zeros(0, 5)).shape == (0, 4)
    none = mask_features(maps, torch.zeros(0, 6, 6), torch.zeros(0, dtype=torch.long))
    assert none.shape == (0, 4)
    assert classify(none, torch.randn(7, 4)).shape == (0, 5)


# --- masks ------------------------------------------------------------------------------------


def test_mask_features_equal_a_loop_over_regions_of_several_images() -> None:
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(3, 4, 5, 6, generator=generator, dtype=torch.float64)
    masks = torch.rand(7, 5, 6, generator=generator) > 0.6
    index = torch.tensor([2, 0, 2, 0, 2, 2, 0])  # unsorted; image 1 has none
    found = mask_features(maps, masks, index)
    for number in range(7):
        inside = maps[index[number]][:, masks[number]]
        torch.testing.assert_close(found[number], inside.mean(1), rtol=0, atol=1e-9)


def test_features_are_float32_under_autocast() -> None:
    generator = torch.Generator().manual_seed(4)
    maps = torch.randn(1, 4, 8, 8, generator=generator)
    masks, index = torch.rand(3, 8, 8, generator=generator) > 0.5, torch.zeros(3).long()
    boxes = torch.tensor([[0, 0.11, 0.13, 0.77, 0.83]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled, aligned = mask_features(maps, masks, index), roi_features(maps, boxes)
    torch.testing.assert_close(pooled, mask_features(maps, masks, index))
    torch.testing.assert_close(aligned, roi_features(maps, boxes))


def test_an_empty_mask_gives_zeros() -> None:
    masks = torch.zeros(1, 3, 3, dtype=torch.bool)
    found = mask_features(torch.randn(1, 4, 3, 3), masks, torch.zeros(1, dtype=torch.long))
    assert found.tolist() == [[0.0] * 4]


def test_masks_of_another_grid_are_refused() -> None:
    with pytest.raises(ValueError, match=r"masks of \(4, 4\) cells for a map of \(3, 3\)"):
        mask_features(torch.randn(1, 2, 3, 3), torch.ones(1, 4, 4), torch.zeros(1).long())


# --- golden values on the toy EVA tower ---------------------------------------------------------


@pytest.fixture(scope="module")
def toy_maps() -> dict[int, torch.Tensor]:
    tower = build_image_tower(EVA_ARCH).eval()
    official = {f"visual.{name}": value for name, value in tiny_vision().items()}
    tower.load_state_dict(official_to_open_clip(official)[0])
    maps = {}
    for side in (16, 24):
        image = (2 * hash_values(3 * side * side, 99)).float().view(1, 3, side, side)
        with torch.no_grad():
            maps[side] = tower.forward_dense(image, Readout(("qq",))).map
    return maps


# fmt: off
ROI = {
    16: [0.29349, 0.22699, -0.54647, -0.33188, 0.3576, -0.54495, -0.12552, -0.11387],
    24: [0.59176, 0.30346, -0.52495, -0.29045, 0.09876, -0.24949, -0.24866, -0.25292],
}
MASK_16 = [0.19209, 0.38878, -0.53399, -0.40512, 0.2431, -0.52956, -0.12013, -0.09337]
# fmt: on


@pytest.mark.parametrize("side", [16, 24])
def test_roi_features_of_the_toy_tower(toy_maps, side) -> None:
    """DeCLIP spec, golden G3."""
    found = F.normalize(roi_features(toy_maps[side], box(0, 0, 0.5, 0.75)), dim=1)
    torch.testing.assert_close(found, torch.tensor([ROI[side]]), rtol=0, atol=1e-4)


def test_mask_features_of_the_toy_tower(toy_maps) -> None:
    """DeCLIP spec, golden G3: rows 0 and 1, columns from 1 on."""
    mask = torch.zeros(1, 4, 4)
    mask[0, :2, 1:] = 1
    found = F.normalize(mask_features(toy_maps[16], mask, torch.zeros(1).long()), dim=1)
    torch.testing.assert_close(found, torch.tensor([MASK_16]), rtol=0, atol=1e-4)


# --- classes ------------------------------------------------------------------------------------


def test_classify_ranks_by_cosine() -> None:
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(6, 8, generator=generator) * 10
    text = torch.randn(12, 8, generator=generator) * torch.arange(1, 13)[:, None]
    cosines = [[F.cosine_similarity(f, t, dim=0).item() for t in text] for f in features]
    expected = np.argsort(-np.array(cosines), axis=1)[:, :5]
    assert classify(features, text).tolist() == expected.tolist()
    assert classify(features, text[:3]).shape == (6, 3)


def test_classify_stays_in_float32_under_autocast() -> None:
    text = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 1e-3]]), dim=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert classify(text * 7, text).tolist() == [[0, 1], [1, 0]]


def test_features_of_another_space_are_refused() -> None:
    with pytest.raises(ValueError, match="features have 8 channels, text embeddings 4"):
        classify(torch.randn(1, 8), torch.randn(3, 4))


# --- the model ----------------------------------------------------------------------------------


def model(**kwargs) -> RegionClassifier:
    torch.manual_seed(0)
    arch = tiny_arch()
    arch["text_cfg"].update(context_length=77, vocab_size=49408)
    defaults = dict(
        encoder=dict(type="DeCLIPViT", arch=arch),
        text_encoder=dict(type="OpenCLIPTextEncoder", arch=arch, cache_dir=False, progress=False),
        vocabulary=[f"thing {i}" for i in range(CLASSES)],
        templates="single",
    )
    return RegionClassifier(**{**defaults, **kwargs}).eval()


def sample(number: int, regions: int, side: int = SIDE) -> dict:
    generator = torch.Generator().manual_seed(number)
    low = torch.rand(regions, 2, generator=generator) * 0.5
    inputs = dict(
        image=torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8),
        boxes=torch.cat([low, low + 0.4], dim=1),
        crops=torch.randint(0, 256, (regions, 3, 64, 64), generator=generator, dtype=torch.uint8),
    )
    element = BaseDataElement(metainfo=dict(img_path=f"{number}.jpg"))
    masks = torch.rand(regions, side // PATCH, side // PATCH, generator=generator) > 0.5
    element.gt_regions = InstanceData(labels=torch.arange(regions), masks=masks)
    return dict(inputs=inputs, data_samples=element)


def batch(*samples: dict) -> dict:
    inputs = {key: [s["inputs"][key] for s in samples] for key in samples[0]["inputs"]}
    return dict(inputs=inputs, data_samples=[s["data_samples"] for s in samples])


def test_preprocessor_batches_and_normalises() -> None:
    samples = [sample(0, 2), sample(1, 0), sample(2, 3)]
    inputs = RegionDataPreprocessor()(batch(*samples))["inputs"]
    assert inputs["boxes"][:, 0].tolist() == [0, 0, 2, 2, 2]
    assert torch.equal(inputs["boxes"][2:, 1:], samples[2]["inputs"]["boxes"])
    assert inputs["image"].shape == (3, 3, SIDE, SIDE) and inputs["crops"].shape == (5, 3, 64, 64)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    for found, pixels in (
        (inputs["image"][2], samples[2]["inputs"]["image"]),
        (inputs["crops"][2], samples[2]["inputs"]["crops"][0]),
    ):
        torch.testing.assert_close(found, (pixels / 255 - mean) / std, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", [SIDE, 96])
def test_a_batch_gives_what_its_images_give_alone(side) -> None:
    classifier = model(regions=("rois", "maskpool", "crops"))
    numbers = ((0, 2), (1, 0), (2, 4))
    together = classifier.test_step(batch(*(sample(n, r, side) for n, r in numbers)))
    for (number, regions), found in zip(numbers, together):
        (alone,) = classifier.test_step(batch(sample(number, regions, side)))
        for kind in ("rois", "maskpool", "crops"):
            best = found.pred_regions[kind]
            assert best.shape == (regions, 5)
            assert torch.equal(best, alone.pred_regions[kind])
    kinds = [torch.cat([f.pred_regions[k] for f in together]) for k in ("rois", "crops")]
    assert not torch.equal(*kinds)


def test_predictions_equal_those_of_the_parts() -> None:
    classifier = model(regions=("rois", "maskpool", "crops"))
    data = classifier.data_preprocessor(batch(sample(0, 3), sample(1, 2)))
    inputs, samples = data["inputs"], data["data_samples"]
    found = classifier(inputs, samples, mode="predict")
    with torch.no_grad():
        maps = classifier(inputs, mode="tensor")
        assert torch.equal(maps, classifier.encoder.dense(inputs["image"]).map)
        text = classifier.text.encoder.embed(classifier.text.vocabulary)
        crops = classifier.encoder.tower.encode_image(inputs["crops"])
    masks = torch.cat([s.gt_regions.masks for s in samples])
    pooled = mask_features(maps, masks, torch.tensor([0, 0, 0, 1, 1]))
    expected = dict(rois=roi_features(maps, inputs["boxes"]), maskpool=pooled, crops=crops)
    for kind, features in expected.items():
        best = torch.cat([one.pred_regions[kind] for one in found])
        assert torch.equal(best, classify(features, text)), kind


def test_the_encoder_sees_every_batch_once_and_only_for_what_reads_it() -> None:
    classifier = model()
    calls = []
    dense = classifier.encoder.dense
    classifier.encoder.dense = lambda images: calls.append(len(images)) or dense(images)
    inputs = classifier.data_preprocessor(batch(sample(0, 3), sample(1, 2)))
    text = classifier.text.embeddings()
    predict_regions(classifier.encoder, inputs["inputs"], inputs["data_samples"], text)
    assert calls == [2]
    predict_regions(classifier.encoder, inputs["inputs"], inputs["data_samples"], text, ("crops",))
    assert calls == [2]


def test_another_model_classifies_with_its_own_encoder() -> None:
    whole = model()
    lender = model(encoder=None)
    lender.text.load_state_dict(whole.text.state_dict())
    data = whole.data_preprocessor(batch(sample(0, 3)))
    (expected,) = whole(**data, mode="predict")
    want = {kind: expected.pred_regions[kind].clone() for kind in ("rois", "maskpool")}
    (found,) = lender.predict(whole.encoder, data["inputs"], data["data_samples"])
    assert all(torch.equal(found.pred_regions[kind], want[kind]) for kind in want)
    with pytest.raises(ValueError, match="RegionClassifier has no encoder"):
        lender(**data, mode="predict")


def test_vocabulary_follows_the_data_set() -> None:
    classifier = model(vocabulary="dataset")
    assert classifier.text.follow_dataset and not classifier.text.used_in_training
    with pytest.raises(RuntimeError, match="no class names yet"):
        classifier.text.embeddings()
    classifier.text.set_vocabulary(("car", "sky"))
    first = classifier.text.embeddings()
    assert first.shape == (2, 32) and classifier.text.embeddings() is first
    classifier.text.set_vocabulary(("car", "sky"))  # before every validation
    assert classifier.text.embeddings() is first
    classifier.text.set_vocabulary(("sky", "car"))
    torch.testing.assert_close(classifier.text.embeddings(), first.flip(0))
    assert not [name for name in classifier.state_dict() if "_embeddings" in name]


def test_other_text_weights_make_other_embeddings() -> None:
    classifier = model()
    before = classifier.text.embeddings()
    state = {k: v * 1.5 if "text_projection" in k else v for k, v in model().state_dict().items()}
    key = next(k for k in state if k.endswith("text_projection"))
    state[key] = torch.randn_like(state[key])
    classifier.load_state_dict(state)
    assert (classifier.text.embeddings() - before).abs().max() > 0.01


def test_ready_embeddings_take_the_place_of_a_text_encoder(tmp_path) -> None:
    table = F.normalize(torch.randn(CLASSES, 32, generator=torch.Generator().manual_seed(3)))
    np.save(tmp_path / "t.npy", table.half().numpy())
    classifier = model(text_encoder=None, text_embeddings=str(tmp_path / "t.npy"))
    torch.testing.assert_close(classifier.text.embeddings(), table, rtol=0, atol=1e-3)
    classifier.init_weights()
    classifier.load_state_dict(classifier.state_dict())
    (found,) = classifier.test_step(batch(sample(0, 3)))
    (other,) = model().test_step(batch(sample(0, 3)))
    assert not torch.equal(found.pred_regions.rois, other.pred_regions.rois)
    with pytest.raises(ValueError, match="have 9 rows for 2 classes"):
        classifier.text.set_vocabulary(("car", "sky"))
    np.save(tmp_path / "t.npy", torch.randn(CLASSES, 16).numpy())
    with pytest.raises(ValueError, match="have 16 channels, the image tower has 32"):
        model(text_encoder=None, text_embeddings=str(tmp_path / "t.npy"))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(encoder=dict(type="CLIPViT", arch=EVA_ARCH)), "has 8 channels, the text encoder 32"),
        (dict(regions=("boxes",)), r"regions must be some of \('rois', 'maskpool', 'crops'\)"),
        (dict(regions=()), "regions must be some of"),
        (dict(regions="rois"), "regions must be some of"),
        (dict(text_encoder=None), "either a text_encoder or a file"),
        (dict(vocabulary=[["car", "auto"]]), r"class 'car' has 2 names \(car, auto\): this"),
    ],
)
def test_mistakes_are_refused(kwargs, message) -> None:
    with pytest.raises(ValueError, match=message):
        model(**kwargs)


def test_a_text_encoder_that_trains_is_refused() -> None:
    with pytest.raises(ValueError, match=r"give the text_encoder trainable=\(\)"):
        model(text_encoder=dict(type="OpenCLIPTextEncoder", arch=tiny_arch(), trainable=("all",)))


def test_crops_that_are_not_there_and_other_modes_are_refused() -> None:
    classifier = model(regions=("crops",))
    one = sample(0, 1)
    del one["inputs"]["crops"]
    with pytest.raises(ValueError, match="CropRegions"):
        classifier.test_step(batch(one))
    with pytest.raises(ValueError, match="got mode='loss'"):
        classifier({}, [], mode="loss")
