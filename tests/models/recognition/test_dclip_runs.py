"""DCLIP through the tools: trained, resumed exactly, tested, and tested on other classes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmclipdis.apis.cli import UserInputError
from mmclipdis.apis.run import test as run_test
from mmclipdis.apis.run import train as run_train
from mmclipdis.engine.nonfinite_guard import NonFiniteLossError
from mmclipdis.evaluation.precision import average_precision
from tests.models.recognition.tiny_dclip import build, small_arch
from tests.paths import ROOT

CLASSES = ("cat", "dog", "mug")

CONFIG = """
_base_ = ["{root}/configs/_base_/mmengine_runtime.py"]
image_weights = dict(type="Pretrained", checkpoint="{folder}/image.pt")
text_weights = dict(type="Pretrained", checkpoint="{folder}/text.pt")
arch = {arch}
model = dict(
    type="DCLIP",
    encoder=dict(type="CLIPViT", arch=arch, positions="size", init_cfg=image_weights),
    text_encoder=dict(
        type="OpenCLIPTextEncoder", arch=arch, cache_dir=False, progress=False,
        init_cfg=text_weights,
    ),
    projectors=dict(out_dim=8),
)
dataset = dict(
    type="CocoMultiLabelDataset",
    data_root="{folder}",
    ann_file="labels.json",
    data_prefix=dict(img_path="images"),
    pipeline=[
        dict(type="LoadImageFromFile"),
        dict(type="Resize", scale=(64, 64), keep_ratio=False),
        dict(type="PackMultiLabelInputs"),
    ],
)
train_dataloader = dict(
    batch_size=4, num_workers=0, dataset=dataset, sampler=dict(type="DefaultSampler", shuffle=True)
)
val_dataloader = dict(
    batch_size=3, num_workers=0, dataset=dataset, sampler=dict(type="DefaultSampler", shuffle=False)
)
test_dataloader = val_dataloader
val_evaluator = dict(type="MultiLabelMetric")
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.05, momentum=0.9))
train_cfg = dict(by_epoch=True, max_epochs=6, val_interval=2)
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1))
log_level = "WARNING"
"""


def write_task(folder: Path, count: int = 12) -> Path:
    """Images whose colour tells their classes, their labels, a CLIP and the config."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, notes = [], []
    for index in range(count):
        shown = {index % 3, int(rng.integers(3))}
        pixels = rng.integers(0, 80, (40, 50, 3), dtype=np.uint8)
        for label in shown:
            pixels[5 + 10 * label : 15 + 10 * label, 5:45, label] = 255
            notes.append({"id": len(notes), "image_id": index, "category_id": label + 1})
        cv2.imwrite(str(folder / "images" / f"{index}.png"), pixels)
        images.append({"id": index, "file_name": f"{index}.png"})
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": notes, "categories": categories}
    (folder / "labels.json").write_text(json.dumps(content))
    clip = build()
    torch.save(clip.encoder.tower.state_dict(), folder / "image.pt")
    torch.save(clip.text.encoder.tower.state_dict(), folder / "text.pt")
    text = CONFIG.format(root=ROOT, folder=folder, arch=small_arch())
    (folder / "dclip.py").write_text(text)
    return folder / "dclip.py"


def options(folder: Path, *more: str) -> list[str]:
    # mmengine keeps message hubs by name and second for the life of the process
    name = f"experiment_name={folder.name}"
    return ["--work-dir", str(folder), "--cfg-options", name, *more]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def trained(config: Path) -> tuple[Path, float]:
    """Work folder of six epochs, and the mAP of the validation at their end."""
    folder = config.parent / "whole"
    runner = run_train([str(config), *options(folder)])
    return folder, float(runner.message_hub.get_scalar("val/mAP").current())


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def test_a_resumed_run_equals_a_whole_one(config: Path, trained: tuple[Path, float]) -> None:
    folder = config.parent / "parts"
    run_train([str(config), *options(folder, "train_cfg.max_epochs=3")])
    run_train([str(config), "--resume", *options(folder, "experiment_name=again")])
    whole = trained[0]
    one, other = weights(whole / "epoch_6.pth"), weights(folder / "epoch_6.pth")
    assert set(one) == set(other) and all(name.startswith("projectors.") for name in one)
    assert (whole / "epoch_6.pth").stat().st_size < 100_000
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    start = weights(whole / "epoch_5.pth")
    assert not torch.equal(start["projectors.image.weight"], one["projectors.image.weight"])


def test_a_checkpoint_is_tested_with_the_clip_that_it_leaves_out(
    config: Path, trained: tuple[Path, float]
) -> None:
    path, validated = str(trained[0] / "epoch_6.pth"), trained[1]
    metrics = run_test([str(config), path, *options(config.parent / "test")])
    assert metrics["mAP"] == pytest.approx(validated, abs=1e-9)
    broken = ["model.encoder.init_cfg=None", "randomness.seed=5"]
    with pytest.raises(RuntimeError, match=r"weights of CLIPViT are random: its init_cfg is None"):
        run_test([str(config), path, *options(config.parent / "random", *broken)])


def test_out_writes_the_scores_of_all_images(config: Path, trained: tuple[Path, float]) -> None:
    path, out = str(trained[0] / "epoch_6.pth"), config.parent / "new" / "out"
    arguments = [str(config), path, "--out", str(out)]
    metrics = run_test([*arguments, *options(config.parent / "out_work")])
    assert metrics["mAP"] == pytest.approx(trained[1], abs=1e-9)
    assert [file.name for file in out.iterdir()] == ["predictions.npz"]
    with np.load(out / "predictions.npz") as found:
        names = [str(config.parent / "images" / f"{index}.png") for index in range(12)]
        assert found["img_path"].tolist() == names and tuple(found["classes"]) == CLASSES
        logits, scores = found["pred_logit"], found["pred_score"]
    assert logits.shape == scores.shape == (12, 3) and logits.dtype == scores.dtype == np.float32
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), rtol=1e-5)
    content = json.loads((config.parent / "labels.json").read_text())
    target = np.zeros((12, 3))
    for note in content["annotations"]:
        target[note["image_id"], note["category_id"] - 1] = 1
    precisions = average_precision(logits, target)
    assert 100 * precisions.mean() == pytest.approx(metrics["mAP"], abs=1e-9)


@pytest.mark.parametrize("flags", [["--tta"], ["--show"], ["--show-dir", "painted"]])
def test_options_of_segmentation_are_refused(
    config: Path, trained: tuple[Path, float], flags: list[str]
) -> None:
    arguments = [str(config), str(trained[0] / "epoch_6.pth"), *flags]
    message = f"{flags[0]} is for segmentation, .* recognition .*; leave {flags[0]} out"
    with pytest.raises(UserInputError, match=message):
        run_test([*arguments, *options(config.parent / "refused")])


@pytest.mark.parametrize("option", ["out_dim=4", "hidden_dim=12"])
def test_a_checkpoint_of_other_widths_is_not_tested(
    config: Path, trained: tuple[Path, float], option: str
) -> None:
    path = str(trained[0] / "epoch_6.pth")
    wrong = options(config.parent / option, f"model.projectors.{option}")
    remedy = r"set projectors=dict\(hidden_dim=24, out_dim=8\)"
    with pytest.raises(ValueError, match=f"the checkpoint of projectors has .*{remedy}"):
        run_test([str(config), path, *wrong])


def test_other_classes_can_be_tested(config: Path, trained: tuple[Path, float]) -> None:
    path, key = str(trained[0] / "epoch_6.pth"), "test_dataloader.dataset.metainfo.classes"
    turned = options(config.parent / "turned", f"{key}=('mug','dog','cat')")
    assert run_test([str(config), path, *turned])["mAP"] == pytest.approx(trained[1], abs=1e-9)
    two = options(config.parent / "two", f"{key}=('mug','cat')")
    assert 0 < run_test([str(config), path, *two])["mAP"] <= 100
    chosen = "model.vocabulary=['cat','dog']"
    with pytest.raises(ValueError, match="vocabulary of DCLIP has 2 classes, .* labels 3"):
        run_test([str(config), path, *options(config.parent / "wrong", chosen)])


def test_a_loss_that_is_no_number_names_the_files(config: Path) -> None:
    folder = config.parent / "nan"
    with pytest.raises(NonFiniteLossError, match=r"iteration 1: .*loss_mfi.* files .*\d.png"):
        run_train([str(config), *options(folder, "model.mfi.type=MFILoss", "model.mfi.lam=1e39")])
