"""Mean IoU over groups, the two rules for absent classes, and labels that are no class."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmseg.evaluation.metrics import IoUMetric
from PIL import Image

from mmclipdis.evaluation import OpenVocabIoUMetric

CLASSES = ("sky", "cat", "dog")


def sample(label: list[int], prediction: list[int], **meta: Any) -> dict[str, Any]:
    return dict(
        gt_sem_seg={"data": torch.tensor([[label]], dtype=torch.uint8)},
        pred_sem_seg={"data": torch.tensor([[prediction]])},
        **meta,
    )


def evaluate(metric: IoUMetric, samples: list[dict[str, Any]], **meta: Any) -> dict[str, float]:
    metric.dataset_meta = dict(classes=CLASSES, **meta)
    for item in samples:
        metric.process({}, [item])
    return metric.evaluate(len(samples))


GOLDEN = [sample([0, 0, 1, 1], [0, 0, 1, 2])]


def test_golden_detectron2_against_mmseg() -> None:
    metrics = evaluate(OpenVocabIoUMetric(present_only=True), GOLDEN)
    assert (metrics["mIoU"], metrics["mIoU_present"]) == (50.0, 75.0)
    assert "mIoU_present" not in evaluate(OpenVocabIoUMetric(), GOLDEN)


def test_equals_mmseg_on_random_maps() -> None:
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(4):
        label, prediction = rng.integers(0, 3, 500), rng.integers(0, 3, 500)
        label[rng.random(500) < 0.1] = 255
        samples.append(sample(label.tolist(), prediction.tolist()))
    ours = evaluate(OpenVocabIoUMetric(), samples)
    theirs = evaluate(IoUMetric(), samples)
    assert ours == pytest.approx(theirs)


def test_groups_come_from_the_data_set_or_the_config() -> None:
    groups = {"base": ("sky", "cat"), "novel": ("dog",), "unseen": ("whale",)}
    metrics = evaluate(OpenVocabIoUMetric(present_only=True), GOLDEN, groups=groups)
    assert metrics["mIoU_base"] == 75.0
    assert metrics["mIoU_novel"] == 0.0
    assert math.isnan(metrics["mIoU_novel_present"])
    assert "mIoU_unseen" not in metrics
    explicit = evaluate(OpenVocabIoUMetric(groups={"animals": ("cat", "dog")}), GOLDEN)
    assert explicit["mIoU_animals"] == 25.0


def test_unknown_class_in_a_configured_group_is_refused() -> None:
    with pytest.raises(ValueError, match="whale"):
        evaluate(OpenVocabIoUMetric(groups={"novel": ("whale",)}), GOLDEN)


@pytest.mark.parametrize(
    ("label", "prediction", "file"),
    [([0, 7], [0, 0], "masks/a.png"), ([0, 0], [0, 3], "photos/a.jpg")],
)
def test_values_beyond_the_classes_name_the_file(label, prediction, file: str) -> None:
    bad = sample(label, prediction, img_path="photos/a.jpg", seg_map_path="masks/a.png")
    with pytest.raises(ValueError, match=f"{file}.*has 3 classes"):
        evaluate(OpenVocabIoUMetric(), [bad])


def test_ignored_pixels_do_not_count() -> None:
    metrics = evaluate(OpenVocabIoUMetric(), [sample([0, 255, 1], [0, 2, 1])])
    assert metrics["mIoU"] == 100.0


def test_more_pixels_than_float32_can_count() -> None:
    """2^24 + 1 pixels of a class in two images: a float32 sum would lose the last one."""
    metric = OpenVocabIoUMetric()
    full = torch.zeros(2**24, dtype=torch.uint8)
    one = torch.zeros(1, dtype=torch.uint8)
    areas = [metric.intersect_and_union(t, t, 2, 255)[3][0] for t in (full, one)]
    assert int(sum(areas)) == 2**24 + 1


def test_a_misspelt_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="iou_metric"):
        OpenVocabIoUMetric(iou_metric=["mIoU"])


@pytest.mark.parametrize("count", [3, 255, 256, 300])
@pytest.mark.parametrize("shift", [False, True])
def test_written_label_maps_hold_every_class(tmp_path: Path, count: int, shift: bool) -> None:
    metric = OpenVocabIoUMetric(output_dir=str(tmp_path), format_only=True)
    metric.dataset_meta = {"classes": tuple(map(str, range(count)))}
    labels = [0, 1, count - 2, count - 1]
    metric.process({}, [sample([], labels, img_path="a/b.x.jpg", reduce_zero_label=shift)])
    with Image.open(tmp_path / "b.x.png") as picture:
        values = np.asarray(picture)
    assert values.dtype == (np.uint8 if count + shift <= 255 else np.uint16)
    assert (values.astype(int) - shift).ravel().tolist() == labels


def test_labels_within_the_classes_are_not_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorting every label map to find its values would take longer than the counts."""
    monkeypatch.setattr(torch, "unique", None)
    assert evaluate(OpenVocabIoUMetric(), GOLDEN)["mIoU"] == 50.0
    assert evaluate(OpenVocabIoUMetric(), [sample([0, 255], [0, 2])])["mIoU"] == 100.0
