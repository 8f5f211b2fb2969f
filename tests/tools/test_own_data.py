"""docs/own_data.md, end to end: each template tests and trains on data as people have them.

The templates run as they are but for the model, that of configs/shapes, and smaller views.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmseg.registry import DATASETS

from mmclipdis.apis.run import test as run_test
from mmclipdis.apis.run import train as run_train
from mmclipdis.engine.label_check import look_at_labels
from mmclipdis.shapes.coco import Settings, write_dataset
from mmclipdis.utils.statistics import CLIP
from tests.paths import REAL_DATA, ROOT
from tests.tools.own_data import (
    GROUNDS,
    TEMPLATES,
    THINGS,
    UNLABELLED,
    template,
    write_boxes,
    write_lists,
    write_maps,
    write_photos,
)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "shapes"
    write_dataset(folder, Settings(train=8, val=4, seed=3))
    return folder


def metainfo(classes: tuple[str, ...], **more: Any) -> dict[str, Any]:
    return {
        f"{loader}.dataset.metainfo": {"classes": classes, **more}
        for loader in ("train_dataloader", "val_dataloader", "test_dataloader")
    }


def steps(**changes: Any) -> dict[str, Any]:
    """Options of steps of pipelines: ``train_3_crop_size`` is of the fourth of the training."""
    found = {}
    for key, value in changes.items():
        split, place, option = key.split("_", 2)
        found[f"{split}_dataloader.dataset.pipeline.{place}.{option}"] = value
    return found


def run(tool: Any, config: Path, *more: str) -> Any:
    return tool([str(config), *more, "--work-dir", str(config.parent / f"work-{config.stem}")])


SMALL = steps(train_1_unlabelled=UNLABELLED, train_2_scale=(160, 160), train_3_crop_size=(128, 128),
              val_1_scale=(160, 160), val_2_unlabelled=UNLABELLED,
              test_1_scale=(160, 160), test_2_unlabelled=UNLABELLED)  # fmt: skip


def test_label_maps_with_unlabelled_pixels_zero_shot_and_trained(
    shapes: Path, tmp_path: Path
) -> None:
    folder = write_maps(shapes, tmp_path / "my_data")
    options = {**metainfo(GROUNDS), **SMALL}
    zero_shot = template("segment_zero_shot", "maskclip", folder / "zero.py", **options)
    assert run(run_test, zero_shot)["mIoU"] > 50  # of six grounds: the labels are read rightly
    config = template(
        *("segment_train", "catseg", folder / "train.py"),
        **options,
        **{"train_cfg.max_iters": 1, "train_cfg.val_interval": 1, "train_dataloader.batch_size": 2},
    )
    runner = run(run_train, config)
    assert runner.iter == 1 and list((folder / "work-train").glob("best_mIoU_*.pth"))


def test_boxes_of_base_and_novel_classes_tested_and_trained(shapes: Path, tmp_path: Path) -> None:
    folder = write_boxes(shapes, tmp_path / "my_data")
    names = metainfo(THINGS, novel_classes=("kite",), unused_classes=())
    views = steps(train_2_scale=(160, 160), train_3_crop_size=(160, 160), val_1_scale=(160, 160),
                  test_1_scale=(160, 160))  # fmt: skip
    json_file = str(folder / "annotations/val.json")
    config = template(
        *("detect", "fvit", folder / "train.py"),
        **names,
        **views,
        **{"val_evaluator.ann_file": json_file, "test_evaluator.ann_file": json_file},
        **{"train_cfg.max_epochs": 1, "model.data_preprocessor": preprocessor()},
        **{"param_scheduler": []},
    )
    runner = run(run_train, config)
    flags = runner.model.roi_head.bbox_head.novel
    assert [bool(flag) for flag in flags] == [name == "kite" for name in THINGS]
    (checkpoint,) = (folder / "work-train").glob("epoch_1.pth")
    table = folder / "classes.csv"
    run(run_test, config, str(checkpoint), "--per-class", str(table))
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(THINGS)
    assert [row["group"] for row in rows if row["class"] == "kite"] == ["novel"]


def preprocessor() -> dict[str, Any]:
    own = dict(Config.fromfile(TEMPLATES / "detect.py").model.data_preprocessor)
    mean, std = CLIP.of_bytes  # the small model's
    return {**own, "mean": mean, "std": std, "pad_size_divisor": 160}


def test_lists_of_labels_zero_shot_and_trained(shapes: Path, tmp_path: Path) -> None:
    folder = write_lists(shapes, tmp_path / "my_data")
    views = steps(train_1_scale=(160, 160), val_1_scale=(160, 160), test_1_scale=(160, 160))
    options = {**metainfo(GROUNDS), **views}
    zero_shot = template("recognize_zero_shot", "dclip_zero_shot", folder / "zero.py", **options)
    assert run(run_test, zero_shot)["mAP"] > 80
    config = template(
        *("recognize_train", "dclip", folder / "train.py"),
        **options,
        **{"train_cfg.max_epochs": 1, "train_cfg.val_interval": 1, "param_scheduler": []},
    )
    assert run(run_train, config).epoch == 1


def test_a_folder_of_photos_is_distilled_and_the_student_segments(
    shapes: Path, tmp_path: Path
) -> None:
    photos = write_photos(shapes, tmp_path / "my_photos")
    config = template(
        *("distill", "declip_distill", photos / "distill.py"),
        **steps(train_1_size=160, train_1_proxy_sizes=(160,), train_2_crop_size=80),
        **{"train_cfg.max_iters": 1, "train_dataloader.batch_size": 2, "param_scheduler": []},
        **{"model.region_classifier": None, "default_hooks.checkpoint.interval": 1},
    )
    run(run_train, config)
    (student,) = (photos / "work-distill").glob("iter_1.pth")
    folder = write_maps(shapes, tmp_path / "my_data")
    test = template(
        *("segment_distilled", "declip", folder / "student.py"),
        **{**metainfo(GROUNDS), **SMALL},
        **{"model.backbone.init_cfg.checkpoint": str(student)},
    )
    assert run(run_test, test)["mIoU"] > 20


@pytest.mark.parametrize("name", ["detect", "distill", "segment_distilled"])
def test_templates_that_change_the_published_model_build_it(name: str) -> None:
    config = Config.fromfile(TEMPLATES / f"{name}.py")
    init_default_scope(config.default_scope)
    with torch.device("meta"):  # no weights
        model = MODELS.build(config.model)
    assert sum(weight.numel() for weight in model.parameters()) > 1e8


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="no real data here")
def test_the_template_reads_camvid_with_its_unlabelled_pixels() -> None:
    config = Config.fromfile(TEMPLATES / "segment_zero_shot.py")
    init_default_scope("mmseg")
    settings = config.test_dataloader.dataset
    settings.pipeline[2].unlabelled = UNLABELLED
    settings.update(
        data_root=str(REAL_DATA / "camvid_small"),
        data_prefix={"img_path": "images/val", "seg_map_path": "annotations/val"},
        metainfo=Config.fromfile(ROOT / "configs/camvid/catseg.py").metainfo,
    )
    dataset = DATASETS.build(settings)
    counts = look_at_labels(dataset)
    assert (counts.maps, counts.of) == (20, 20)
    assert counts.pixels[:2].min() > 0 and counts.ignored > 0 and not counts.problem()


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.py")), ids=lambda path: path.stem)
def test_the_page_shows_each_template_as_it_is(path: Path) -> None:
    page = (ROOT / "docs/own_data.md").read_text(encoding="utf-8")
    assert f"```python\n# {path.relative_to(ROOT)}\n{path.read_text()}```" in page
