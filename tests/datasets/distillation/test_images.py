"""Listing images, and replacing and counting those that cannot be used."""

from __future__ import annotations

import copy
import itertools
import json
import logging
import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS
from mmengine.runner import Runner

import mmclipdis.datasets.distillation.images as module
from mmclipdis.datasets.distillation.images import DistillImageDataset, images_below, listed_images
from mmclipdis.engine.exact_loader import exact_data_loader
from tests.datasets.distillation.files import photo, pipeline, truncate, write_photos


def write_json(path: Path, images, **more) -> Path:
    path.write_text(json.dumps({"info": {}, **more, "images": images}))
    return path


def dataset(folder: Path, **options) -> DistillImageDataset:
    options = {"pipeline": pipeline(), **options}
    return DistillImageDataset(data_root=str(folder), **options)


def names(data) -> list[str]:
    return [Path(data.get_data_info(i)["img_path"]).name for i in range(len(data))]


@pytest.fixture
def warnings_(monkeypatch):
    """What the data set logs."""
    lines = []
    monkeypatch.setattr(module, "print_log", lambda text, logger, level: lines.append(text))
    return lines


def test_coco_json_lists_by_file_name(tmp_path):
    write_photos(tmp_path / "train2017", 3)
    annotation = {"id": 1, "image_id": 1, "segmentation": {"size": [1, 1]}, "bbox": [0, 0, 1, 1]}
    entries = [
        {"id": i, "file_name": f"{i:03d}.png", "coco_url": "http://x/val2017/z.png"} for i in (2, 0)
    ]
    write_json(tmp_path / "some.json", entries, annotations=[annotation] * 5)
    data = dataset(tmp_path, ann_file="some.json", data_prefix=dict(img_path="train2017"))
    assert names(data) == ["002.png", "000.png"]
    assert data.get_data_info(0)["img_path"] == str(tmp_path / "train2017" / "002.png")
    assert tuple(data[1]["inputs"]["image"].shape) == (3, 32, 32)


def test_lvis_json_lists_by_the_end_of_coco_url(tmp_path):
    entries = [{"id": 1, "coco_url": "http://images.cocodataset.org/train2017/000000391895.jpg"}]
    path = write_json(tmp_path / "lvis.json", entries)
    assert listed_images(str(path)) == ["train2017/000000391895.jpg"]


def test_a_panoptic_json_with_names_in_its_annotations_lists_images_only(tmp_path):
    path = write_json(
        tmp_path / "panoptic.json",
        [{"id": 1, "file_name": "1.jpg"}],
        annotations=[{"file_name": "1.png", "segments_info": [{"id": 5}]}],
    )
    assert listed_images(str(path)) == ["1.jpg"]


def test_annotations_are_not_parsed(tmp_path):
    entries = [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}]
    path = tmp_path / "list.json"
    path.write_text(f'{{"annotations": no json, "images":\n  {json.dumps(entries)}, "x": no json')
    assert listed_images(str(path)) == ["1.jpg", "2.jpg"]


def test_images_in_a_text_are_not_the_list(tmp_path):
    info = {"description": 'a set with "images": [] and "images": [1]'}
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"info": info, "images": [{"file_name": "é.jpg"}]}))
    assert listed_images(str(path)) == ["é.jpg"]


def test_a_folder_lists_all_images_below_it_sorted(tmp_path):
    write_photos(tmp_path / "b", 2)
    photo().save(tmp_path / "a.JPG")
    (tmp_path / "notes.txt").write_text("no image")
    assert [Path(p).name for p in images_below(str(tmp_path))] == ["a.JPG", "000.png", "001.png"]
    assert names(dataset(tmp_path)) == ["a.JPG", "000.png", "001.png"]
    assert names(dataset(tmp_path, indices=[2, 0])) == ["001.png", "a.JPG"]


@pytest.mark.parametrize(
    ("content", "error", "text"),
    [
        (None, FileNotFoundError, "no image list .*list.json'; set ann_file"),
        ("{", ValueError, "lists no images"),
        ("[]", ValueError, "lists no images"),
        ('["a.jpg"]', ValueError, "lists no images"),
        ('{"images": [{"file_name": ', ValueError, "no COCO or LVIS json"),
        ("{}", ValueError, "lists no images"),
        ('{"images": []}', ValueError, "lists no images"),
        ('{"images": {"file_name": "a.jpg"}}', ValueError, "lists no images"),
        (
            '{"images": [{"file_name": "a.jpg"}, {"id": 3}]}',
            ValueError,
            "image 1 in .* no file_name",
        ),
        ('{"images": ["a.jpg"]}', ValueError, "image 0 in .* has no file_name"),
    ],
)
def test_a_wrong_json_is_one_clear_error(content, error, text, tmp_path):
    if content is not None:
        (tmp_path / "list.json").write_text(content)
    with pytest.raises(error, match=text):
        dataset(tmp_path, ann_file="list.json")


def test_missing_and_empty_folders_are_clear_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no image folder .*nowhere/'; set data_root"):
        dataset(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no image .*in .*empty/' or below"):
        dataset(tmp_path / "empty")


def test_a_wrong_folder_for_the_json_is_a_clear_error(tmp_path):
    write_json(tmp_path / "list.json", [{"file_name": f"{i}.jpg"} for i in range(200)])
    with pytest.raises(FileNotFoundError, match="0.jpg' is not there.*set data_prefix.img_path"):
        dataset(tmp_path, ann_file="list.json")
    photo().save(tmp_path / "99.jpg")  # some may be missing
    assert len(dataset(tmp_path, ann_file="list.json")) == 200


def test_other_prefixes_and_unknown_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must be dict\(img_path="):
        dataset(tmp_path, data_prefix=dict(img="x"))
    with pytest.raises(TypeError, match="filter_cfg"):
        dataset(tmp_path, filter_cfg=dict(min_size=1))


def test_a_broken_image_is_replaced_counted_and_named(tmp_path, warnings_):
    paths = write_photos(tmp_path, 6, ".jpg")
    truncate(paths[2])
    data = dataset(tmp_path)
    np.random.seed(0)
    used = [data[2]["data_samples"].img_path for _ in range(30)]
    assert str(paths[2]) not in used and set(used) == {str(p) for p in paths} - {str(paths[2])}
    assert data.num_replaced == len(warnings_) >= 30
    assert str(paths[2]) in warnings_[0] and "truncated" in warnings_[0]
    assert warnings_[0].endswith("; 1 so far") and warnings_[1].endswith("; 2 so far")
    before = data.num_replaced
    assert data[3]["data_samples"].img_path == str(paths[3]) and data.num_replaced == before


def test_a_too_small_image_and_a_lost_one_are_replaced(tmp_path, warnings_):
    paths = write_photos(tmp_path, 4)
    photo(9, 40).save(paths[0])
    data = dataset(tmp_path)
    paths[1].unlink()
    np.random.seed(0)
    assert data[0] is not None and data[1] is not None
    assert any("9x40 pixels" in line for line in warnings_)
    assert any("FileNotFoundError" in line for line in warnings_)


def test_none_of_another_transform_counts_too(tmp_path, warnings_):
    write_photos(tmp_path, 4)
    first = str(tmp_path / "000.png")
    data = dataset(tmp_path, pipeline=[lambda r: None if r["img_path"] == first else r])
    np.random.seed(0)
    assert data[0]["img_path"] != first
    assert "a transform returned None" in warnings_[0]


def test_only_broken_images_are_an_error_and_not_an_endless_loop(tmp_path, warnings_):
    for path in write_photos(tmp_path, 3):
        path.write_bytes(b"broken")
    data = dataset(tmp_path, max_refetch=7)
    with pytest.raises(RuntimeError, match="8 images in a row in .* cannot be used"):
        data[0]
    assert data.num_replaced == len(warnings_) == 8


def test_the_last_allowed_replacement_is_used(tmp_path, warnings_, monkeypatch):
    paths = write_photos(tmp_path, 3)
    paths[0].write_bytes(b"broken")
    data = dataset(tmp_path, max_refetch=2)
    draws = iter([0, 1])
    monkeypatch.setattr(data, "_rand_another", lambda: next(draws))
    assert data[0]["data_samples"].img_path == str(paths[1])


def loader_config(folder: Path, workers: int, **options):
    return dict(
        batch_size=2,
        num_workers=workers,
        persistent_workers=workers > 0,
        sampler=dict(type="DefaultSampler", shuffle=False),
        dataset=dict(
            type="DistillImageDataset", data_root=str(folder), pipeline=pipeline(), **options
        ),
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_the_count_is_seen_in_the_main_process_and_grows_with_each_epoch(workers, tmp_path):
    paths = write_photos(tmp_path, 12, ".jpg")
    for path in (paths[3], paths[4]):
        truncate(path)
    loader = Runner.build_dataloader(loader_config(tmp_path, workers), seed=0)
    for _ in range(2):
        before = loader.dataset.num_replaced
        used = [sample.img_path for batch in loader for sample in batch["data_samples"]]
        assert len(used) == 12 and not {str(paths[3]), str(paths[4])} & set(used)
        assert loader.dataset.num_replaced >= before + 2
    if workers:  # both workers have met a broken one: neither overwrote the other's number
        assert len(loader.dataset._replaced._counts.nonzero()) == 2


def test_the_count_is_shared_with_spawned_workers(tmp_path):
    """They get the data set through this pickle; starting one would take ten seconds."""
    paths = write_photos(tmp_path, 4)
    paths[0].write_bytes(b"broken")
    data = dataset(tmp_path)
    elsewhere = pickle.loads(ForkingPickler.dumps(data))
    assert elsewhere.prepare_data(0) is None
    assert data.num_replaced == elsewhere.num_replaced == 1


def test_a_copy_counts_for_itself_and_still_with_workers(tmp_path):
    paths = write_photos(tmp_path, 4)
    paths[0].write_bytes(b"broken")
    data = dataset(tmp_path)
    data[0]
    again = copy.deepcopy(data)
    assert data.num_replaced >= 1 and again.num_replaced == 0
    list(torch.utils.data.DataLoader(again, num_workers=1, collate_fn=list))
    assert again.num_replaced >= 1


def test_workers_write_the_warning_to_the_log_file(tmp_path):
    paths = write_photos(tmp_path / "photos", 4)
    paths[1].write_bytes(b"broken")
    log = tmp_path / "run.log"
    logger = MMLogger.get_instance("test_distill_images", log_file=str(log))
    try:
        loader = Runner.build_dataloader(loader_config(tmp_path / "photos", 1), seed=0)
        list(loader)
    finally:
        for handler in logger.handlers:
            handler.close()
        MMLogger._instance_dict.pop("test_distill_images")
    assert f"{paths[1]} cannot be used (UnidentifiedImageError" in log.read_text()


def test_other_ranks_log_as_an_error_which_their_loggers_print(tmp_path, monkeypatch):
    levels = []
    monkeypatch.setattr(module, "print_log", lambda text, logger, level: levels.append(level))
    paths = write_photos(tmp_path, 2)
    paths[0].write_bytes(b"broken")
    data = dataset(tmp_path)
    np.random.seed(0)
    data.prepare_data(0)
    monkeypatch.setattr(module, "get_rank", lambda: 1)
    data.prepare_data(0)
    assert levels == [logging.WARNING, logging.ERROR]


def test_samples_depend_on_seed_and_position_alone_also_when_images_are_replaced(tmp_path):
    """What exact resume asks for: a batch is the same with and without workers, and skipped to."""
    paths = write_photos(tmp_path, 7)
    truncate(paths[1])

    def batches(workers: int, skip: int):
        config = loader_config(tmp_path, workers)
        config["sampler"] = dict(type="InfiniteSampler", shuffle=True)
        exact = exact_data_loader(Runner.build_dataloader(config, seed=5), 5, 0, endless=True)
        exact.skip = skip
        return list(itertools.islice(iter(exact), 8))[6:]

    whole, resumed, parallel = batches(0, 0), batches(0, 6), batches(2, 6)
    for other in (resumed, parallel):
        for one, two in zip(whole, other):
            assert [s.img_path for s in one["data_samples"]] == [
                s.img_path for s in two["data_samples"]
            ]
            for key in ("image", "crops", "boxes"):
                assert all(map(torch.equal, one["inputs"][key], two["inputs"][key]))


def test_the_data_set_can_be_joined_and_built_from_the_root_registry(tmp_path):
    write_photos(tmp_path / "a", 2)
    write_photos(tmp_path / "b", 3)
    parts = [
        dict(type="DistillImageDataset", data_root=str(tmp_path / name), pipeline=pipeline())
        for name in "ab"
    ]
    joined = DATASETS.build(dict(type="ConcatDataset", datasets=parts))
    assert isinstance(joined, ConcatDataset) and len(joined) == 5
    assert joined[4]["data_samples"].img_path == str(tmp_path / "b" / "002.png")
