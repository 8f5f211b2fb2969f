"""The configs of CAT-Seg build, train an iteration and test an image, at a tiny size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import MODELS, TRANSFORMS
from PIL import Image

import mmclipdis  # noqa: F401
from mmclipdis.engine.random_weights import take_as_meant
from tests.models.segmentation.catseg.tiny import shrink_data, shrink_model
from tests.paths import ROOT

CONFIGS = (
    "configs/catseg/catseg_vitb16_coco-stuff.py",
    "configs/catseg/catseg_vitl14-336_coco-stuff.py",
    "configs/declip/catseg_vitb16_coco-stuff.py",
    "configs/declip/catseg_vitl14-336_coco-stuff.py",
)


def write_images(root, split, sizes):
    generator = np.random.default_rng(0)
    for kind in ("images", "annotations"):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    for i, (height, width) in enumerate(sizes):
        photo = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(photo).save(root / "images" / split / f"{i}.jpg")
        labels = generator.integers(0, 171, (height, width), dtype=np.uint8)
        labels[:4] = 255
        path = root / "annotations" / split / f"{i}_labelTrainIds.png"
        Image.fromarray(labels).save(path)


def shrunk(path, tmp_path):
    """The config, with a tiny CLIP, a narrow aggregator and images of about 100 pixels."""
    config = Config.fromfile(ROOT / path)
    shrink_model(config.model, patch=14 if "vitl14" in path else 16)
    config.merge_from_dict(
        {
            "train_dataloader.batch_size": 2,
            "train_cfg.max_iters": 1,
            "train_cfg.val_interval": 1,
            "work_dir": str(tmp_path / "work"),
            "env_cfg.dist_cfg.backend": "gloo",
        }
    )
    shrink_data(config, tmp_path / "data")
    return config


@pytest.mark.parametrize("path", CONFIGS)
def test_config_builds_trains_an_iteration_and_tests(path, tmp_path):
    write_images(tmp_path / "data", "train2017", [(70, 101), (130, 66)])
    write_images(tmp_path / "data", "val2017", [(75, 120)])
    runner = Runner.from_cfg(shrunk(path, tmp_path))
    before = {name: p.detach().clone() for name, p in runner.model.named_parameters()}
    runner.train()  # and one validation
    moved = {
        name for name, p in runner.model.named_parameters() if not torch.equal(before[name], p)
    }
    trainable = {name for name, p in runner.model.named_parameters() if p.requires_grad}
    # The gradient of a window attention's key bias is zero up to rounding.
    still = {name for name in trainable - moved if not name.endswith("attn.k.bias")}
    assert moved <= trainable and not still
    encoders = [name for name in trainable if "encoder" in name]
    assert encoders
    for side in ("image_encoder", "text_encoder"):
        parts = runner.cfg.model[side].trainable
        names = (n.replace("_proj.weight", "_proj_weight") for n in encoders if n.startswith(side))
        assert {n.rsplit(".", 1)[1] for n in names} == {f"{part}_proj_weight" for part in parts}
    metrics = runner.test()
    assert {"mIoU", "mIoU_present"} <= set(metrics)
    assert runner.model.num_classes == 171


def test_validation_uses_whole_images_and_testing_windows(tmp_path):
    config = shrunk(CONFIGS[0], tmp_path)
    assert (config.model.test_cfg.mode, config.model.test_cfg.val_mode) == (
        "slide_with_global",
        "whole",
    )
    model = MODELS.build({**config.model, "vocabulary": ["sky", "road"]}).eval()
    take_as_meant(model)
    views = []
    model.decode_head.register_forward_hook(lambda _m, args, _o: views.append(len(args[0].map)))
    data = {"inputs": [torch.zeros(3, 64, 80, dtype=torch.uint8)], "data_samples": None}
    model.val_step(data)
    model.test_step(data)
    assert views == [1, 5]


def test_the_published_values_are_in_the_configs():
    config = Config.fromfile(ROOT / CONFIGS[0])
    assert config.optim_wrapper.optimizer.lr == 2e-4
    assert config.optim_wrapper.clip_grad.max_norm == 0.01
    assert config.param_scheduler[0].T_max == config.train_cfg.max_iters == 80000
    assert config.train_dataloader.batch_size == 4
    large = Config.fromfile(ROOT / CONFIGS[1]).model
    assert large.clip_size == (336, 336)
    assert large.guidance_indices == (7, 15)
    assert large.text_encoder.arch == large.image_encoder.arch == "ViT-L-14-336-quickgelu"
    declip = Config.fromfile(ROOT / CONFIGS[2]).model.image_encoder
    assert declip.type == "DeCLIPViT"
    assert declip.trainable == ("q", "v")
    assert declip.arch == "EVA02-B-16"
    assert declip.readout == {"attention": ("qq", "kk"), "scale": "none"}


def test_no_two_configs_train_into_the_same_default_folder():
    folders = {}
    for path in sorted((ROOT / "configs").rglob("*.py")):
        if "_base_" not in path.parts:
            folder = Config.fromfile(path).get("work_dir", f"work_dirs/{path.stem}")
            folders.setdefault(str(folder), []).append(path.name)
    assert [paths for paths in folders.values() if len(paths) > 1] == []


def resized(image, labels, **options):
    transform = TRANSFORMS.build({"type": "ResizeShortestEdgePIL", **options})
    return transform({"img": image, "gt_seg_map": labels, "seg_fields": ["gt_seg_map"]})


@pytest.mark.parametrize(
    ("size", "scale", "max_size", "expected"),
    [
        ((480, 640), 384, 1333, (384, 512)),
        ((640, 427), 384, 1333, (576, 384)),
        ((100, 1000), 384, 1333, (133, 1333)),
        ((300, 300), 640, 2560, (640, 640)),
    ],
)
def test_the_short_edge_is_resized_with_pillow(size, scale, max_size, expected):
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
    labels = generator.integers(0, 171, size, dtype=np.uint8)
    result = resized(image, labels, scale=scale, max_size=max_size)
    assert result["img"].shape[:2] == result["gt_seg_map"].shape == expected
    pillow = Image.fromarray(image).resize(expected[::-1], Image.BILINEAR)
    assert np.array_equal(result["img"], np.asarray(pillow))
    released = torch.from_numpy(labels).double()[None, None]
    released = torch.nn.functional.interpolate(released, size=expected, mode="nearest")[0, 0]
    assert np.array_equal(result["gt_seg_map"], released.numpy())
    opencv = cv2.resize(labels, expected[::-1], interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(result["gt_seg_map"], opencv)
    centred = resized(image, labels, scale=scale, max_size=max_size, nearest="centre")
    pillow = Image.fromarray(labels).resize(expected[::-1], Image.NEAREST)
    assert np.array_equal(centred["gt_seg_map"], np.asarray(pillow))
    assert not np.array_equal(centred["gt_seg_map"], result["gt_seg_map"])


def test_released_nearest_is_the_floor_of_the_ratio():
    labels = np.arange(5, dtype=np.uint8)[None].repeat(5, 0)
    results = resized(np.zeros((5, 5, 3), np.uint8), labels, scale=3, max_size=3)
    assert results["gt_seg_map"][0].tolist() == [0, 1, 3]
    results = resized(np.zeros((5, 5, 3), np.uint8), labels, scale=3, max_size=3, nearest="centre")
    assert results["gt_seg_map"][0].tolist() == [0, 2, 4]


@pytest.mark.parametrize(("size", "expected"), [((1, 20000), (1, 1333)), ((20000, 1), (1333, 1))])
def test_a_line_of_pixels_stays_a_line(size, expected):
    labels = np.zeros(size, np.uint8)
    results = resized(np.zeros((*size, 3), np.uint8), labels, scale=384, max_size=1333)
    assert results["img"].shape[:2] == results["gt_seg_map"].shape == expected


def test_an_unknown_rule_is_named():
    options = {"type": "ResizeShortestEdgePIL", "scale": 8, "max_size": 10, "nearest": "pillow"}
    with pytest.raises(ValueError, match="nearest must be one of floor, centre, got 'pillow'"):
        TRANSFORMS.build(options)


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match="scale and max_size"):
        TRANSFORMS.build({"type": "ResizeShortestEdgePIL", "scale": 0, "max_size": 10})
