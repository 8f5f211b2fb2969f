"""The configs on the shipped tiny CLIP: one training and one test iteration each, on real files."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mmclipdis.apis.cli import UserInputError
from mmclipdis.apis.run import test as run_test
from mmclipdis.apis.run import train as run_train
from mmclipdis.shapes.coco import LABEL_SUFFIX, Settings, write_dataset
from mmclipdis.shapes.world import CLASSES, GROUPS
from tests.paths import ROOT

CONFIGS = ROOT / "configs"
TWO_ITERATIONS = (
    *("train_cfg.max_iters=2", "train_cfg.val_interval=2", "train_dataloader.batch_size=2"),
    *("default_hooks.checkpoint.interval=2", "default_hooks.logger.interval=1"),
)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_dataset(folder, Settings(train=4, val=6, seed=3))
    return folder


@pytest.fixture(scope="module")
def camvid(tmp_path_factory):
    """CamVid's layout with noise in it: JPEG photos, label maps with values 0 to 11."""
    folder = tmp_path_factory.mktemp("data") / "camvid"
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 2)):
        for kind in ("images", "annotations"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(count):
            photo = rng.integers(0, 255, (360, 480, 3), dtype=np.uint8)
            label = np.kron(rng.integers(0, 12, (9, 12)), np.ones((40, 40))).astype(np.uint8)
            cv2.imwrite(str(folder / "images" / split / f"{index}.jpg"), photo)
            cv2.imwrite(str(folder / "annotations" / split / f"{index}.png"), label)
    return folder


def options(data, splits):
    return [f"{split}_dataloader.dataset.data_root={data}/" for split in splits]


def naive_iou(predictions, truths, num_classes, suffix=".png"):
    """IoU of each class in percent, NaN where it is in no file; from the label maps alone."""
    hits, unions = np.zeros(num_classes), np.zeros(num_classes)
    files = sorted(truths.glob(f"*{suffix}"))
    assert len(files) == len(list(predictions.iterdir())) > 0
    for file in files:
        path = predictions / f"{file.name.removesuffix(suffix)}.png"
        truth, found = (cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in (file, path))
        labelled = truth < num_classes
        for index in range(num_classes):
            hits[index] += np.sum((truth == index) & (found == index))
            unions[index] += np.sum(labelled & ((truth == index) | (found == index)))
    with np.errstate(invalid="ignore"):
        return 100 * hits / unions


@pytest.mark.parametrize("name", ["clip", "maskclip", "sclip", "clearclip"])
def test_training_free_configs_report_every_group(name, shapes, tmp_path):
    config = str(CONFIGS / "shapes" / f"{name}.py")
    arguments = [config, "--work-dir", str(tmp_path), "--out", str(tmp_path / "labels")]
    metrics = run_test([*arguments, "--cfg-options", *options(shapes, ["test"])])
    iou = naive_iou(tmp_path / "labels", shapes / "annotations" / "val", len(CLASSES), LABEL_SUFFIX)
    assert metrics["mIoU"] == pytest.approx(np.nanmean(iou), abs=0.006)
    for group, members in GROUPS.items():
        expected = np.nanmean([iou[CLASSES.index(member)] for member in members])
        assert metrics[f"mIoU_{group}"] == pytest.approx(expected, abs=0.006)
    # guessing gives about 6 % of the pixels and an mIoU of about 3
    assert metrics["aAcc"] > 20 and metrics["mIoU"] > 10


@pytest.mark.parametrize("name", ["catseg", "infoclip"])
def test_a_head_without_weights_is_not_tested(name, shapes, tmp_path):
    config = str(CONFIGS / "shapes" / f"{name}.py")
    words = [config, "--work-dir", str(tmp_path), "--cfg-options", *options(shapes, ["test"])]
    with pytest.raises(UserInputError, match=r"decode_head .*give a checkpoint: tools/test\.py"):
        run_test(words)


@pytest.mark.parametrize("name", ["shapes", "camvid"])
def test_catseg_trains_saves_and_is_tested(name, request, tmp_path):
    data = request.getfixturevalue(name)
    config = str(CONFIGS / name / "catseg.py")
    chosen = ["--cfg-options", *TWO_ITERATIONS, *options(data, ["train", "val"])]
    runner = run_train([config, "--work-dir", str(tmp_path), *chosen])
    trained = {n for n, p in runner.model.named_parameters() if p.requires_grad}
    # q and v of four image blocks (the last q is never read) and two text blocks
    assert sum("proj_weight" in n for n in trained if "encoder" in n) == 2 * 4 - 1 + 2 * 2
    checkpoint = tmp_path / "iter_2.pth"
    assert checkpoint.is_file()
    labels = tmp_path / "labels"
    arguments = [
        config,
        str(checkpoint),
        "--work-dir",
        str(tmp_path / "test"),
        "--out",
        str(labels),
    ]
    metrics = run_test([*arguments, "--cfg-options", *options(data, ["test"])])
    count, suffix = (len(CLASSES), LABEL_SUFFIX) if name == "shapes" else (11, ".png")
    iou = naive_iou(labels, data / "annotations" / "val", count, suffix)
    assert metrics["mIoU"] == pytest.approx(np.nanmean(iou), abs=0.006)
