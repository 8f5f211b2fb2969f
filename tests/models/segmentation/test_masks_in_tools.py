"""Masks of a config reach the model in mmseg's tools, in ours, and in the inferencers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmseg.apis import MMSegInferencer, inference_model, init_model
from torch import Tensor

from mmclipdis.apis import OpenVocabSegInferencer
from mmclipdis.apis.run import test as run_test
from mmclipdis.commands.__main__ import command
from mmclipdis.models import ClearCLIPViT, MeanShiftMasks
from mmclipdis.shapes.coco import Settings, write_dataset
from tests.faults.endings import ends_in, raises
from tests.paths import ROOT

LINE = "by the name of its file, and it has none; give files, or give the model masks that are"


@MODELS.register_module()
class PooledClearCLIPViT(ClearCLIPViT):
    """The mean of its features over each mask: what masks do is seen in every label."""

    needs_masks = True

    def forward(self, images: Tensor, masks: Tensor | None = None) -> tuple[Tensor, ...]:
        """As the base, pooled."""
        if masks is None:
            raise ValueError("PooledClearCLIPViT needs masks")
        (features,) = super().forward(images)
        height, width = features.shape[-2:]
        step = images.shape[-1] // width
        regions = masks[:, ::step, ::step].flatten(1)
        same = (regions[:, None] == regions[:, :, None]).to(features)
        pooled = same / same.sum(-1, keepdim=True) @ features.flatten(2).mT
        return (pooled.mT.unflatten(2, (height, width)),)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masks") / "shapes"
    write_dataset(folder, Settings(train=1, val=2, seed=5))
    masks, made = folder / "masks", MeanShiftMasks()
    masks.mkdir()
    for photo in photos(folder):
        rgb = np.ascontiguousarray(cv2.imread(str(photo))[..., ::-1])
        np.savez_compressed(masks / f"{photo.stem}.npz", instance_mask=made(rgb).astype(np.uint16))
    return folder


def photos(folder: Path) -> list[Path]:
    return sorted((folder / "images/val").glob("*.*"))


def config_of(shapes: Path, masks: Any) -> Config:
    config = Config.fromfile(ROOT / "configs/shapes/clearclip.py")
    config.model.backbone.type = "PooledClearCLIPViT"
    config.model.decode_head.templates = "single"
    config.model.masks = masks
    config.model.test_cfg.stride = (80, 80)
    config.test_dataloader.dataset.data_root = str(shapes)
    config.test_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    config.log_level = "ERROR"
    for part in ("val_dataloader", "val_evaluator", "val_cfg"):
        config.pop(part, None)
    config.custom_imports = None
    return config


@pytest.fixture(scope="module")
def with_folder(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "folder.py"
    config_of(shapes, {"type": "MaskFolder", "root": str(shapes / "masks")}).dump(path)
    return path


@pytest.fixture(scope="module")
def model(with_folder: Path) -> Any:
    return init_model(str(with_folder), device="cpu")


@pytest.fixture(scope="module")
def labels(model: Any, shapes: Path) -> list[np.ndarray]:
    found = [inference_model(model, str(photo)).pred_sem_seg.data[0] for photo in photos(shapes)]
    return [one.numpy() for one in found]


def test_mmsegs_inference_model(model: Any, labels: list[np.ndarray], shapes: Path) -> None:
    """In batches as alone; masks change labels; an array has no file."""
    together = inference_model(model, list(map(str, photos(shapes))))
    for one, other in zip(together, labels, strict=True):
        assert np.array_equal(one.pred_sem_seg.data[0].numpy(), other)
    source, model.masks = model.masks, lambda photo: np.zeros(photo.shape[:2], int)
    try:
        plain = inference_model(model, str(photos(shapes)[0])).pred_sem_seg.data[0].numpy()
    finally:
        model.masks = source
    assert not np.array_equal(plain, labels[0])


def test_an_array_under_mmsegs_inference_model(with_folder: Path, shapes: Path) -> None:
    model = init_model(str(with_folder), device="cpu")
    raises(LINE, inference_model, model, cv2.imread(str(photos(shapes)[0])))


def test_mmsegs_inferencer(with_folder: Path, labels: list[np.ndarray], shapes: Path) -> None:
    torch.save({"state_dict": {}, "meta": {}}, with_folder.with_suffix(".pth"))
    inferencer = MMSegInferencer(
        str(with_folder), str(with_folder.with_suffix(".pth")), device="cpu"
    )
    found = inferencer(list(map(str, photos(shapes))))["predictions"]
    assert all(np.array_equal(one, other) for one, other in zip(found, labels, strict=True))
    raises(LINE, inferencer, cv2.imread(str(photos(shapes)[0])))


def test_our_inferencer(with_folder: Path, labels: list[np.ndarray], shapes: Path) -> None:
    inferencer = OpenVocabSegInferencer(str(with_folder), device="cpu")
    results = inferencer(list(map(str, photos(shapes))), batch_size=2)
    assert all(
        np.array_equal(one.labels, other) for one, other in zip(results, labels, strict=True)
    )
    heat = results[0].heatmap(results[0].names[0]).values
    assert heat.shape == labels[0].shape
    array = results[0].photo
    raises(LINE, inferencer, array)
    failed, kept = inferencer.stream([array, str(photos(shapes)[1])], on_error="yield")
    assert LINE[:40] in failed.message
    assert np.array_equal(kept.labels, labels[1])


def test_masks_of_the_photo_need_no_file(labels: list[np.ndarray], shapes: Path) -> None:
    """The same generator that has written the files."""
    config = config_of(shapes, {"type": "MeanShiftMasks"})
    inferencer = OpenVocabSegInferencer(config, device="cpu")
    files = list(map(str, photos(shapes)))
    arrays = [np.ascontiguousarray(cv2.imread(file)[..., ::-1]) for file in files]
    for one, other, label in zip(inferencer(files), inferencer(arrays), labels, strict=True):
        assert np.array_equal(one.labels, other.labels)
        assert np.array_equal(one.labels, label)


def test_the_test_tool(with_folder: Path, tmp_path: Path) -> None:
    metrics: Any = run_test([str(with_folder), "--work-dir", str(tmp_path)])
    assert 0 < metrics["mIoU"] <= 100


def test_a_missing_file_ends_a_test_before_it_begins(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = tmp_path / "masks"
    shutil.copytree(shapes / "masks", masks)
    last = masks / f"{photos(shapes)[-1].stem}.npz"
    last.unlink()
    config = config_of(shapes, {"type": "MaskFolder", "root": str(masks)})
    config.dump(tmp_path / "c.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PooledClearCLIPViT, "forward", None)
        line = f"no masks of .*{last.stem}.png: no file .*; make it as the others were made"
        ends_in(line, run_test, [tmp_path / "c.py", "--work-dir", tmp_path / "w"], capsys)


def test_the_command(
    with_folder: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["segment", str(photos(shapes)[0]), "--model", str(with_folder), "--device", "cpu"]
    words += ["--words", "grass, sand, kite"]
    assert command([*words, "--out", str(tmp_path / "out")]) == 0
    assert list((tmp_path / "out").rglob("*.png"))
    other = tmp_path / "other.jpg"
    other.write_bytes(photos(shapes)[0].read_bytes())
    words[1] = str(other)
    assert command([*words, "--out", str(tmp_path / "out2")]) == 2
    assert "no masks of" in capsys.readouterr().err
