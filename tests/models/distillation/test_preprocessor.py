"""Batches of distillation samples: golden values of fact spec G10, indices, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mmclipdis.models.distillation.preprocessor import DistillDataPreprocessor
from tests.datasets.distillation.files import photo, pipeline, write_photos


def sample(count: int, seed: int, size: int = 8, proxy: int = 6, crop: int = 4):
    generator = torch.Generator().manual_seed(seed)

    def pixels(*shape):
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    inputs = dict(
        image=pixels(3, size, size),
        crops=pixels(count, 3, crop, crop),
        boxes=torch.rand(count, 4, generator=generator),
        proxies={proxy: pixels(3, proxy, proxy), size: pixels(3, size, size)},
    )
    return dict(inputs=inputs, data_samples=f"sample {seed}")


def test_g10_padding_has_the_normalised_values_of_black(tmp_path):
    photo(640, 480).save(tmp_path / "photo.png")
    chain = Compose(pipeline(560, 490, 224))
    chain.transforms[2].shapes = [(2, 3)]  # cells that are no squares
    batch = pseudo_collate([chain({"img_path": str(tmp_path / "photo.png")})])
    inputs = DistillDataPreprocessor()(batch, training=True)["inputs"]
    clip = torch.tensor([-1.79226, -1.75210, -1.48022])
    imagenet = torch.tensor([-2.11790, -2.03571, -1.80444])
    below = inputs["image"][0, :, 420:]
    torch.testing.assert_close(below, clip[:, None, None].expand_as(below), atol=1e-5, rtol=0)
    below = inputs["proxies"][490][0, :, 368:]
    torch.testing.assert_close(below, imagenet[:, None, None].expand_as(below), atol=1e-5, rtol=0)
    corner = inputs["crops"][:, :, 0, 0]
    torch.testing.assert_close(corner, clip.expand_as(corner), atol=1e-5, rtol=0)
    assert inputs["boxes"][:, [2, 4]].max() <= 0.75 and inputs["boxes"][:, 1:].max() == 1


def test_everything_equals_a_reference_in_float64():
    samples = [sample(3, 0), sample(1, 1), sample(2, 2)]
    result = DistillDataPreprocessor()(pseudo_collate(samples))
    inputs = result["inputs"]
    assert result["data_samples"] == ["sample 0", "sample 1", "sample 2"]
    clip = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    imagenet = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

    def normalised(pixels, constants):
        mean, std = (np.array(values)[:, None, None] for values in constants)
        return (pixels.numpy().astype(np.float64) / 255 - mean) / std

    raw = [s["inputs"] for s in samples]
    expected = np.stack([normalised(one["image"], clip) for one in raw])
    np.testing.assert_allclose(inputs["image"], expected, atol=2e-6)
    expected = np.concatenate([[normalised(crop, clip) for crop in one["crops"]] for one in raw])
    np.testing.assert_allclose(inputs["crops"], expected, atol=2e-6)
    assert set(inputs["proxies"]) == {6, 8}
    for side in (6, 8):
        expected = np.stack([normalised(one["proxies"][side], imagenet) for one in raw])
        np.testing.assert_allclose(inputs["proxies"][side], expected, atol=2e-6)
    assert inputs["boxes"][:, 0].tolist() == [0, 0, 0, 1, 2, 2]
    assert torch.equal(inputs["boxes"][:, 1:], torch.cat([one["boxes"] for one in raw]))
    floats = [inputs["image"], inputs["crops"], inputs["boxes"], *inputs["proxies"].values()]
    assert all(tensor.dtype == torch.float32 for tensor in floats)


def test_constants_can_be_chosen():
    config = dict(
        type="DistillDataPreprocessor",
        mean=[0, 0, 0],
        std=[1, 1, 1],
        proxy_mean=[1, 2, 3],
        proxy_std=[2, 2, 2],
    )
    one = sample(2, 0)
    inputs = MODELS.build(config)(pseudo_collate([one]))["inputs"]
    assert torch.equal(inputs["image"][0], one["inputs"]["image"].float())
    shift = torch.tensor([1.0, 2, 3])[:, None, None]
    assert torch.equal(inputs["proxies"][6][0], (one["inputs"]["proxies"][6].float() - shift) / 2)


@pytest.mark.parametrize("key", ["mean", "std", "proxy_mean", "proxy_std"])
def test_wrong_constants_are_refused(key):
    with pytest.raises(ValueError, match=f"{key} needs three values"):
        DistillDataPreprocessor(**{key: [1.0]})
    if "std" in key:
        with pytest.raises(ValueError, match=f"{key} needs three values, of std > 0"):
            DistillDataPreprocessor(**{key: [1.0, 0.0, 1.0]})


def test_the_constants_are_no_part_of_a_checkpoint():
    assert not DistillDataPreprocessor().state_dict()


def test_images_of_several_sizes_are_one_clear_error():
    odd = sample(1, 1)
    odd["inputs"]["image"] = torch.zeros(3, 8, 9, dtype=torch.uint8)
    batch = pseudo_collate([sample(1, 0), odd])
    with pytest.raises(ValueError, match="the image of a batch must have one size, got 8x8, 8x9"):
        DistillDataPreprocessor()(batch)


def test_crops_of_several_sizes_are_one_clear_error():
    batch = pseudo_collate([sample(1, 0), sample(1, 1, crop=5)])
    with pytest.raises(ValueError, match="the crops of a batch must have one size, got 4x4, 5x5"):
        DistillDataPreprocessor()(batch)


def test_pixels_travel_as_bytes():
    seen = []

    class Watched(DistillDataPreprocessor):
        def cast_data(self, data):
            if isinstance(data, torch.Tensor):
                seen.append(data.dtype)
            return super().cast_data(data)

    Watched()(pseudo_collate([sample(1, 0)]))
    assert sorted(map(str, seen)) == ["torch.float32"] + 4 * ["torch.uint8"]  # boxes; pixels


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_all_tensors_come_to_the_device():
    inputs = DistillDataPreprocessor().cuda()(pseudo_collate([sample(2, 0)]))["inputs"]
    tensors = [inputs["image"], inputs["crops"], inputs["boxes"], *inputs["proxies"].values()]
    assert all(tensor.is_cuda for tensor in tensors)


def test_from_files_to_a_batch(tmp_path):
    """A data loader as mmengine builds it, and the preprocessor behind it."""
    write_photos(tmp_path, 6)
    loader = Runner.build_dataloader(
        dict(
            batch_size=4,
            num_workers=0,
            sampler=dict(type="DefaultSampler", shuffle=True),
            dataset=dict(type="DistillImageDataset", data_root=str(tmp_path), pipeline=pipeline()),
        ),
        seed=0,
    )
    preprocessor = DistillDataPreprocessor()
    sizes = []
    for batch in loader:
        result = preprocessor(batch, training=True)
        inputs, count = result["inputs"], len(result["data_samples"])
        boxes = inputs["boxes"]
        assert tuple(inputs["image"].shape) == (count, 3, 32, 32)
        assert tuple(inputs["proxies"][28].shape) == (count, 3, 28, 28)
        assert tuple(inputs["crops"].shape) == (len(boxes), 3, 16, 16)
        per_image = [min(s.grid[0] * s.grid[1], 20) for s in result["data_samples"]]
        assert boxes[:, 0].long().bincount().tolist() == per_image
        assert torch.all(boxes[:, 1:3] < boxes[:, 3:]) and boxes[:, 1:].max() <= 1
        sizes.append(count)
    assert sizes == [4, 2]
