"""COCO's annotations become labels of images; partial labels are the same everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mmclipdis.datasets.recognition import coco as module
from mmclipdis.datasets.recognition.coco import CocoMultiLabelDataset, select_classes
from mmclipdis.datasets.recognition.partial_labels import known_labels
from mmclipdis.shapes.coco import Settings, write_dataset
from mmclipdis.shapes.world import CLASSES, THINGS
from tests.paths import REAL_DATA

SAMPLE = REAL_DATA / "coco_panoptic_sample"
CATEGORIES = [  # not in the order of their ids
    {"id": 90, "name": "zebra"},
    {"id": 3, "name": "car"},
    {"id": 17, "name": "cat"},
]
IMAGES = [
    {"id": number, "file_name": f"{name}.jpg"}
    for number, name in ((40, "a"), (7, "b"), (12, "c"), (9, "d"))
]
ANNOTATIONS = [
    {"image_id": 7, "category_id": 90, "iscrowd": 1, "area": 0.2},  # a crowd, and tiny
    {"image_id": 40, "category_id": 3, "iscrowd": 0},
    {"image_id": 40, "category_id": 17, "iscrowd": 0},
    {"image_id": 40, "category_id": 3, "iscrowd": 0},  # twice the same class
    {"image_id": 9, "category_id": 17, "iscrowd": 0},
]  # none of image 12


def content(**changes) -> dict:
    base = {"images": IMAGES, "annotations": ANNOTATIONS, "categories": CATEGORIES}
    return {**base, **changes}


def write(folder: Path, data: object) -> Path:
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    (folder / "labels.json").write_text(json.dumps(data))
    return folder


def dataset(folder: Path, **kwargs) -> CocoMultiLabelDataset:
    defaults = dict(
        ann_file="labels.json",
        data_root=str(folder),
        data_prefix=dict(img_path="photos"),
        serialize_data=False,  # it collects garbage, which is slow among many tests
    )
    return CocoMultiLabelDataset(**{**defaults, **kwargs})


def scores(data: CocoMultiLabelDataset) -> list[list[int]]:
    return [data.get_data_info(i)["gt_score"].tolist() for i in range(len(data))]


@pytest.fixture
def said(monkeypatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(module, "print_log", lambda text, **_: lines.append(text))
    return lines


def test_any_annotation_counts_and_classes_are_in_the_order_of_their_ids(
    tmp_path: Path, said: list[str]
) -> None:
    data = dataset(write(tmp_path, content()))
    assert data.metainfo["classes"] == ("car", "cat", "zebra")
    assert scores(data) == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]
    info = data.get_data_info(1)
    assert info["img_path"] == str(tmp_path / "photos" / "b.jpg") and info["img_id"] == 7
    assert len(said) == 1
    assert "3 images, 3 classes; 1 images without any of them left out" in said[0]


def test_empty_images_are_kept_on_demand_and_in_testing_left_out_too(
    tmp_path: Path, said: list[str]
) -> None:
    folder = write(tmp_path, content())
    assert scores(dataset(folder, filter_empty=False))[2] == [0, 0, 0]
    assert "4 images, 3 classes; 1 images without any of them kept" in said[0]
    assert len(dataset(folder, test_mode=True)) == 3


def test_metainfo_selects_and_orders_classes(tmp_path: Path, said: list[str]) -> None:
    folder = write(tmp_path, content())
    data = dataset(folder, metainfo=dict(classes=["zebra", "car"]))
    assert data.metainfo["classes"] == ("zebra", "car")
    assert scores(data) == [[0, 1], [1, 0]]  # d shows a cat only
    assert "2 images without any of them left out" in said[0]
    with pytest.raises(ValueError, match=r"no class 'zebras'; did you mean zebra\?"):
        dataset(folder, metainfo=dict(classes=["zebras"]))
    with pytest.raises(ValueError, match="no class 'moon'; it has car, cat, zebra"):
        dataset(folder, metainfo=dict(classes=["moon"]))
    with pytest.raises(ValueError, match="more than one class is called car"):
        dataset(folder, metainfo=dict(classes=["car", "cat", "car"]))


def test_two_categories_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="f.json: more than one class is called bat"):
        select_classes(["bat", "ball", "bat"], None, "f.json")


def test_classes_that_no_image_shows_are_named(tmp_path: Path, said: list[str]) -> None:
    dataset(write(tmp_path, content(annotations=ANNOTATIONS[:1])))
    assert any("2 classes that no image shows: car, cat" in line for line in said)


def test_panoptic_json_has_the_same_labels(tmp_path: Path) -> None:
    segments = [
        {
            "image_id": image["id"],
            "segments_info": [note for note in ANNOTATIONS if note["image_id"] == image["id"]],
        }
        for image in IMAGES
    ]
    folder = write(tmp_path, content(annotations=segments))
    assert scores(dataset(folder)) == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"annotations": [{"image_id": 40, "category_id": 4}]},
            "annotation of image 40 has category_id 4, which is none of the 3 categories",
        ),
        (
            {"annotations": [{"image_id": 41, "category_id": 3}]},
            "image_id 41, which is not among the 4 images",
        ),
        ({"annotations": [{"category_id": 3}]}, "annotation or category has no 'image_id'"),
        ({"images": [{"id": 40}], "annotations": []}, "has no file_name"),
        ({"annotations": []}, "no image is left of the 4 .*filter_empty=False"),
    ],
)
def test_annotations_that_do_not_fit_are_named(tmp_path: Path, changes, message) -> None:
    with pytest.raises(ValueError, match=f"labels.json.*{message}|{message}"):
        dataset(write(tmp_path, content(**changes)))


def test_missing_and_wrong_files_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path, content())
    with pytest.raises(FileNotFoundError, match="no annotation file .*nothing.json'; set ann_file"):
        dataset(folder, ann_file="nothing.json")
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere'.*data_prefix.img_path"):
        dataset(folder, data_prefix=dict(img_path="nowhere"))
    with pytest.raises(
        ValueError, match="no COCO or LVIS annotation file: it has no list of images and no"
    ):
        dataset(write(tmp_path, {"categories": []}))
    with pytest.raises(ValueError, match="holds a list instead of images, annotations, categories"):
        dataset(write(tmp_path, [1]))
    (folder / "labels.json").write_text("{")
    with pytest.raises(ValueError, match="labels.json is no json"):
        dataset(folder)


# ---- partial labels ---------------------------------------------------------------------------


def many(folder: Path, count: int = 400) -> Path:
    """Images that all show a cat, some a car."""
    photos = [{"id": i, "file_name": f"{i}.png"} for i in range(count)]
    notes = [{"image_id": i, "category_id": 17} for i in range(count)]
    notes += [{"image_id": i, "category_id": 3} for i in range(0, count, 3)]
    write(folder, content(images=photos, annotations=notes))
    return folder


def table(data: CocoMultiLabelDataset) -> np.ndarray:
    return np.array(scores(data))


def test_the_known_share_is_as_asked_and_the_rest_as_annotated(
    tmp_path: Path, said: list[str]
) -> None:
    folder = many(tmp_path)
    everything, part = table(dataset(folder)), table(dataset(folder, partial=0.7))
    known = part >= 0
    assert (part[known] == everything[known]).all() and (part[~known] == -1).all()
    # 1200 draws: standard deviation 0.013; classes and images alike
    assert abs(known.mean() - 0.7) < 0.05 and (abs(known.mean(0) - 0.7) < 0.08).all()
    # Both labels of a pair are unknown as often as independent draws say.
    assert abs((~known[:, 0] & ~known[:, 1]).mean() - 0.09) < 0.05
    share = 100 * known.mean()
    assert f"{known.sum()} of 1200 labels are known ({share:.2f} %)" in said[-1]
    assert f"{(~known.any(1)).sum()} images without a known label" in said[-1]


def test_partial_labels_depend_on_seed_and_image_only(tmp_path: Path) -> None:
    folder = many(tmp_path)
    first = table(dataset(folder, partial=0.5))
    assert (table(dataset(folder, partial=0.5)) == first).all()
    assert (table(dataset(folder, partial=0.5, partial_seed=1)) != first).any()
    assert (table(dataset(folder, partial=0.5, indices=[5, 9])) == first[[5, 9]]).all()
    only_cars = dataset(folder, partial=0.5, metainfo=dict(classes=("car",)))
    assert (table(only_cars)[:, 0] == first[::3, 0]).all()  # fewer images, same draw
    reversed_list = json.loads((folder / "labels.json").read_text())
    reversed_list["images"].reverse()
    assert (table(dataset(write(folder, reversed_list), partial=0.5)) == first[::-1]).all()


def test_what_is_known_of_little_is_known_of_more() -> None:
    names = [str(i) for i in range(50)]
    little, more = known_labels(names, 20, 0.3, 0), known_labels(names, 20, 0.6, 0)
    assert (more[little]).all() and more.sum() > little.sum()


def test_golden_draw() -> None:
    """Another draw would change what a published seed stands for."""
    mask = known_labels(["139", "000005"], 8, 0.5, 0)
    assert mask.astype(int).tolist() == [[1, 0, 0, 0, 1, 0, 1, 1], [0, 0, 1, 0, 1, 1, 1, 1]]


def test_testing_uses_all_labels(tmp_path: Path, said: list[str]) -> None:
    folder = many(tmp_path, 20)
    data = dataset(folder, partial=0.1, test_mode=True)
    assert (table(data) == table(dataset(folder))).all()
    assert any("all labels are used in testing" in line for line in said)


def test_mask_from_a_file(tmp_path: Path) -> None:
    folder = many(tmp_path, 6)
    mask = np.random.default_rng(0).random((6, 3)) < 0.5
    np.save(folder / "mask.npy", mask)
    everything = table(dataset(folder))
    data = dataset(folder, partial_mask_file="mask.npy")
    assert (table(data) == np.where(mask, everything, -1)).all()
    some = dataset(folder, partial_mask_file="mask.npy", indices=[4])
    assert table(some).tolist() == table(data)[4:5].tolist()
    np.save(folder / "mask.npy", mask[:5])
    with pytest.raises(ValueError, match=r"mask.npy holds bool \(5, 3\), .* needs bool \(6, 3\)"):
        dataset(folder, partial_mask_file="mask.npy")
    np.save(folder / "mask.npy", mask.astype(float))
    with pytest.raises(ValueError, match="holds float64"):
        dataset(folder, partial_mask_file="mask.npy")
    np.savez(folder / "mask.npz", mask)
    with pytest.raises(ValueError, match="holds NpzFile"):
        dataset(folder, partial_mask_file="mask.npz")
    (folder / "mask.npy").write_text("no array")
    with pytest.raises(ValueError, match="mask.npy is no .npy file"):
        dataset(folder, partial_mask_file="mask.npy")
    with pytest.raises(FileNotFoundError, match="set partial_mask_file"):
        dataset(folder, partial_mask_file="nothing.npy")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"partial": 0}, r"partial must be in \(0, 1\], got 0"),
        ({"partial": 1.5}, "partial must be in"),
        ({"partial_seed": -1}, "partial_seed must be >= 0, got -1"),
        ({"partial": 0.5, "partial_mask_file": "m.npy"}, "set only one"),
    ],
)
def test_options_are_checked(tmp_path: Path, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        dataset(write(tmp_path, content()), **options)


PIPELINE = [
    dict(type="LoadReadableImage"),
    dict(type="Resize", scale=(20, 10), keep_ratio=False, backend="pillow"),
    dict(type="CutoutRandomColor"),
    dict(type="RandAugmentUDA"),
    dict(type="PackMultiLabelInputs"),
]


def test_workers_and_epochs_see_the_same_labels(tmp_path: Path) -> None:
    folder = many(tmp_path, 12)
    for i in range(12):
        Image.new("RGB", (8, 6), (i, 2 * i, 3 * i)).save(folder / "photos" / f"{i}.png")
    data = dataset(folder, partial=0.5, pipeline=PIPELINE)
    expected = table(data)
    assert (expected == -1).any()
    loader = DataLoader(data, batch_size=2, num_workers=2, collate_fn=list)
    for _ in range(2):
        samples = [item["data_samples"] for batch in loader for item in batch]
        assert [sample.sample_idx for sample in samples] == list(range(12))
        assert (torch.stack([sample.gt_score for sample in samples]).numpy() == expected).all()


# ---- whole data sets --------------------------------------------------------------------------


def test_shapescenes_in_both_jsons(tmp_path: Path) -> None:
    folder = tmp_path / "shapes"
    write_dataset(folder, Settings(train=6, val=2, seed=0))
    options = dict(data_root=str(folder), data_prefix=dict(img_path="images/train"))
    panoptic = CocoMultiLabelDataset(
        "annotations/panoptic_train.json", pipeline=PIPELINE, filter_empty=False, **options
    )
    assert panoptic.metainfo["classes"] == CLASSES and len(panoptic) == 6
    for index in range(6):
        labels = folder / "annotations/train" / f"{index:012d}_labelTrainIds.png"
        shown = np.unique(np.asarray(Image.open(labels)))
        item = panoptic[index]
        assert item["data_samples"].gt_score.nonzero().flatten().tolist() == shown.tolist()
        assert item["inputs"].shape == (3, 10, 20) and item["inputs"].dtype == torch.uint8
    instances = CocoMultiLabelDataset(
        "annotations/instances_train.json", filter_empty=False, **options
    )
    assert instances.metainfo["classes"] == THINGS
    assert (table(instances) == table(panoptic)[:, : len(THINGS)]).all()


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the COCO sample is not here")
def test_real_coco() -> None:
    options = dict(data_root=str(SAMPLE), data_prefix=dict(img_path="input_images"))
    data = CocoMultiLabelDataset("panoptic_examples.json", pipeline=PIPELINE, **options)
    classes = data.metainfo["classes"]
    assert len(classes) == 133 and classes[0] == "person" and classes[-1] == "rug-merged"
    shown = [{classes[i] for i in np.flatnonzero(row)} for row in table(data)]
    stuff = {"tree-merged", "sky-other-merged", "grass-merged"}
    assert shown[0] == {"person", "sports ball", *stuff}
    assert shown[1] == {"person", "truck", "horse", "gravel", *stuff}
    assert data[0]["data_samples"].ori_shape == (427, 640)
    things = CocoMultiLabelDataset(
        "panoptic_coco_detection_format.json",
        metainfo=dict(classes=("horse", "person", "truck", "sports ball")),
        **options,
    )
    assert table(things).tolist() == [[0, 1, 0, 1], [1, 1, 1, 0]]
