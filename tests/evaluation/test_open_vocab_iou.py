"""Mean IoU over groups, the two rules for absent classes, and labels that are no class."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmseg.evaluation.metrics import IoUMetric, iou_metric
from PIL import Image

from mmclipdis.evaluation import OpenVocabIoUMetric, open_vocab_iou

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


def test_wrong_labels_are_counted_by_value() -> None:
    label = [7, 0, 7, 65535, 255, 7]
    bad = sample([], [0] * 6, seg_map_path="masks/a.tif")
    bad["gt_sem_seg"] = {"data": torch.tensor([[label]])}
    message = r"masks/a\.tif holds the values 7 \(3 px\), 65535 \(1 px\); 4 of 6 pixels"
    with pytest.raises(ValueError, match=message + r".*3 classes.*ignored: 255.*ignore_index"):
        evaluate(OpenVocabIoUMetric(), [bad])


def test_labels_that_were_reduced_say_so() -> None:
    bad = sample([3], [0], seg_map_path="a.png", reduce_zero_label=True)
    with pytest.raises(ValueError, match=r"3 \(1 px\) \(the file's less one"):
        evaluate(OpenVocabIoUMetric(), [bad])


def test_ignored_pixels_do_not_count() -> None:
    metrics = evaluate(OpenVocabIoUMetric(), [sample([0, 255, 1], [0, 2, 1])])
    assert metrics["mIoU"] == 100.0


LARGE = tuple(f"class {i}" for i in range(847))


def test_sixteen_bits_are_scored_and_65535_is_ignored() -> None:
    item = sample([], [700, 255, 3, 3], seg_map_path="a.tif")
    item["gt_sem_seg"] = {"data": torch.tensor([[[700, 255, 846, 65535]]])}
    metric = OpenVocabIoUMetric(ignore_index=65535, present_only=True)
    metric.dataset_meta = dict(classes=LARGE)
    metric.process({}, [item])
    metrics = metric.evaluate(1)
    # 700 and 255 are right, 846 is missed, 3 is only predicted
    assert (metrics["mIoU"], metrics["mIoU_present"]) == (50.0, 66.67)
    metric = OpenVocabIoUMetric()
    metric.dataset_meta = dict(classes=LARGE)
    with pytest.raises(ValueError, match=r"ignore_index=255 .*'class 255'.*ignore_index=65535"):
        metric.process({}, [item])


PAS20B = tuple(f"voc {i}" for i in range(20)) + tuple(f"other {i}" for i in range(39))


def merged(metric: IoUMetric, *samples: dict[str, Any], **meta: Any) -> dict[str, float]:
    metric.dataset_meta = dict(classes=PAS20B, **meta)
    for item in samples:
        metric.process({}, [item])
    return metric.evaluate(len(samples))


def test_golden_any_name_of_the_background_is_the_background() -> None:
    metrics = merged(OpenVocabIoUMetric(background_from=20), sample([20], [37]))
    assert (metrics["mIoU"], metrics["aAcc"]) == (100.0, 100.0)


def test_background_is_merged_as_by_hand() -> None:
    generator = np.random.default_rng(0)
    samples, by_hand = [], []
    for _ in range(3):
        label = np.append(generator.integers(0, 21, 300), [255] * 9)
        prediction = np.where(generator.random(309) < 0.5, label, generator.integers(0, 59, 309))
        prediction[-9:] = 58
        samples.append(sample(label.tolist(), prediction.tolist()))
        by_hand.append(sample(label.tolist(), np.minimum(prediction, 20).tolist()))
    plain = OpenVocabIoUMetric(present_only=True)
    plain.dataset_meta = dict(classes=PAS20B[:21])
    for item in by_hand:
        plain.process({}, [item])
    expected = plain.evaluate(3)
    assert 30 < expected["mIoU"] < 90
    option = OpenVocabIoUMetric(present_only=True, background_from=20)
    assert merged(option, *samples) == expected
    # the data set may say so, too
    assert merged(OpenVocabIoUMetric(present_only=True), *samples, background_from=20) == expected


def test_an_image_of_ignored_pixels_changes_nothing() -> None:
    one, ignored = sample([20, 3], [37, 3]), sample([255, 255], [5, 37])
    with_it = merged(OpenVocabIoUMetric(background_from=20), one, ignored)
    assert with_it == merged(OpenVocabIoUMetric(background_from=20), one)


def test_labels_beyond_the_merged_background_are_refused() -> None:
    bad = sample([21], [0], seg_map_path="masks/a.png")
    with pytest.raises(ValueError, match=r"masks/a\.png.*21 \(1 px\).*has 21 classes"):
        merged(OpenVocabIoUMetric(background_from=20), bad)


def test_the_written_maps_are_merged_as_the_labels_are(tmp_path: Path) -> None:
    metric = OpenVocabIoUMetric(background_from=20, output_dir=str(tmp_path), format_only=True)
    merged(metric, sample([], [0, 19, 20, 58], img_path="a.jpg"))
    with Image.open(tmp_path / "a.png") as picture:
        assert np.asarray(picture).ravel().tolist() == [0, 19, 20, 20]


@pytest.mark.parametrize(("first", "message"), [(0, "1 or more"), (59, "has 59 classes")])
def test_a_background_that_is_no_class_is_refused(first: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"background_from={first}.*{message}"):
        merged(OpenVocabIoUMetric(background_from=first), sample([0], [0]))


def test_the_run_prints_both_means_and_whose_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    for module in (iou_metric, open_vocab_iou):
        monkeypatch.setattr(module, "print_log", lambda text, *_, **__: printed.append(text))
    evaluate(OpenVocabIoUMetric(present_only=True), GOLDEN)
    table = printed[-1]
    assert re.search(r"mIoU +\| .*mmseg's IoUMetric\) +\| 3 of 3 +\| 50.00", table)
    assert re.search(r"mIoU_present \| .*published numbers of CAT-Seg.*\| 2 of 3 +\| 75.00", table)
    merged(OpenVocabIoUMetric(background_from=20, present_only=True), GOLDEN[0])
    assert "background" in printed[-2] and "other 0" not in printed[-2]


def test_more_pixels_than_float32_can_count() -> None:
    """2^24 + 1 pixels of a class in two images: a float32 sum would lose the last one."""
    metric = OpenVocabIoUMetric()
    full = torch.zeros(2**24, dtype=torch.uint8)
    one = torch.zeros(1, dtype=torch.uint8)
    areas = [metric.intersect_and_union(t, t, 2, 255)[3][0] for t in (full, one)]
    assert int(sum(areas)) == 2**24 + 1


def test_results_are_kept_as_mmsegs_test_tool_writes_it() -> None:
    OpenVocabIoUMetric(output_dir="a", keep_results=True)
    with pytest.raises(ValueError, match="label maps in output_dir always stay"):
        OpenVocabIoUMetric(output_dir="a", keep_results=False)


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
