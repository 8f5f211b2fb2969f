"""Faults of files of pseudo boxes, and of configs that use them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.datasets.transforms import PackDetInputs
from mmdet.models.detectors import BaseDetector
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

import mmclipdis  # noqa: F401  (registers)
from mmclipdis.apis.proposal_source import Detector, read_proposals, training_data
from mmclipdis.apis.run import train
from mmclipdis.datasets import RepeatFactorSampler
from tests.datasets.detection.test_pseudo_boxes import LOAD, PACK, record, world
from tests.faults.endings import ends_in, raises


@pytest.fixture(autouse=True)
def mmdet_scope() -> None:
    init_default_scope("mmdet")


GOOD = record(1, [50, 40, 30, 20])


def other(**values: Any) -> list[dict[str, Any]]:
    """Three records, the second of which has other values; None takes a key away."""
    changed = {key: value for key, value in {**GOOD, **values}.items() if value is not None}
    return [GOOD, changed, GOOD]


FILES = [
    pytest.param({"images": []}, "is no file of pseudo boxes: it holds a dict", id="annotations"),
    pytest.param([], "holds no pseudo box; make another, or leave pseudo_boxes out", id="empty"),
    pytest.param([GOOD, 7], "record 1 is 7, no dict", id="no_dict"),
    pytest.param(other(weight=None, score=0.5), r"record 1 has a score and no weight, as results "
                 r"of COCO have: .*pseudo_boxes.py --proposals \S+p.json", id="results"),
    pytest.param(other(weight=None), "record 1 has no weight; a record has", id="no_weight"),
    pytest.param(other(image_id=None, bbox=None), "record 1 has no image_id and no bbox",
                 id="no_keys"),
    pytest.param(other(weight=1.5), r"record 1 has the weight 1.5, which is not a number from 0 to "
                 r"1 \(1 of 3", id="weight_above_1"),
    pytest.param(other(weight=-0.1), "the weight -0.1", id="weight_below_0"),
    pytest.param(other(weight=math.nan), "the weight nan", id="weight_nan"),
    pytest.param(other(weight="0.5"), "the weight '0.5'", id="weight_text"),
    pytest.param(other(weight=True), "the weight True", id="weight_bool"),
    pytest.param(other(bbox=[1, 2, 3]), r"record 1 has the bbox \[1, 2, 3\], which is not x, y, "
                 r"width, height .*\(1 of 3", id="three_numbers"),
    pytest.param(other(bbox=[1, 2, math.inf, 4]), r"the bbox \[1, 2, inf, 4\]", id="infinite"),
    pytest.param(other(bbox=["1", 2, 3, 4]), r"the bbox \['1', 2, 3, 4\]", id="text"),
    pytest.param(other(image_id=[1]), r"record 1 has the image_id \[1\]", id="id_a_list"),
    pytest.param(other(category_id=3), "record 1 has category_id 3; that of a pseudo box is -1",
                 id="a_class"),
    pytest.param(other(pseudo=0), "record 1 has pseudo 0; that of a pseudo box is 1", id="real"),
    pytest.param([record(i, [5, 5, 9, 9]) for i in (7, 8, 1)], r"p.json belongs to other data than "
                 r"'\S*a.json': 2 of the 3 images .*first: image 7\)", id="other_data"),
    pytest.param([record(str(i), [5, 5, 9, 9]) for i in (1, 2, 3)],
                 r"belongs to other data .*3 of the 3 images .*image '1'\)", id="ids_of_text"),
    pytest.param([record(1, [100, 5, 9, 9]), record(2, [5, 5, 0, 9])], "none of its 2 pseudo boxes "
                 "can be used with .*: 1 are outside of their image, 1 are less than a pixel",
                 id="nothing_left"),
]  # fmt: skip


@pytest.mark.parametrize(("records", "line"), FILES)
def test_files(tmp_path: Path, records: Any, line: str) -> None:
    raises(line, DATASETS.build, world(tmp_path, records))


def test_no_file(tmp_path: Path) -> None:
    config = {**world(tmp_path, [GOOD]), "pseudo_boxes": "q.json"}
    raises(r"no annotation file '\S*q.json'; make it with tools", DATASETS.build, config)
    config["pseudo_boxes"] = ["p.json"]
    raises("pseudo_boxes is the path of one file, got", DATASETS.build, config)


def test_masks(tmp_path: Path) -> None:
    steps = [LOAD[0], {**LOAD[1], "with_mask": True}, PACK]
    config = {**world(tmp_path, [GOOD]), "pipeline": steps}
    raises("pseudo boxes have no masks, and LoadAnnotations loads masks", DATASETS.build, config)
    inside = {"type": "RandomChoice", "transforms": [steps[1:2]]}
    config["pipeline"] = [LOAD[0], inside, PACK]
    raises("with_mask=False in train_pipeline", DATASETS.build, config)


def test_a_transform_that_reads_classes(tmp_path: Path) -> None:
    class RandomSamplingNegPos:  # mmdet's needs a tokenizer from the hub
        def __call__(self, results: Any) -> Any:
            return results

    config = {**world(tmp_path, [GOOD]), "pipeline": [*LOAD, RandomSamplingNegPos()]}
    raises("neither class nor mask, which RandomSamplingNegPos needs", DATASETS.build, config)


def test_fvit_learns_named_classes_only(sound_shapes: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "p.json").write_text(json.dumps([record(0, [5, 5, 20, 20])]))
    options = (
        f"train_dataloader.dataset.data_root={sound_shapes}",
        f"val_dataloader.dataset.data_root={sound_shapes}",
        f"val_evaluator.ann_file={sound_shapes / 'annotations/instances_val.json'}",
        f"train_dataloader.dataset.pseudo_boxes={tmp_path / 'p.json'}",
        "train_dataloader.num_workers=0",
        "train_dataloader.batch_size=4",
        "train_dataloader.persistent_workers=False",
        "train_cfg.max_iters=1",
    )
    words = ["configs/shapes/fvit.py", "--work-dir", tmp_path / "w", "--cfg-options", *options]
    ends_in("FViT learns named classes only, .*leave pseudo_boxes out", train, words, capsys)


def test_stock_detectors_learn_named_classes_only(tmp_path: Path) -> None:
    head = {"type": "YOLOXHead", "num_classes": 2, "in_channels": 4, "feat_channels": 4}
    parts = {"backbone": {"type": "ResNet", "depth": 18}, "bbox_head": {**head, "strides": [8]}}
    detector = MODELS.build({"type": "SingleStageDetector", **parts})
    dataset = DATASETS.build(world(tmp_path, [GOOD]))
    line = "SingleStageDetector learns named classes only, and the training data have boxes of unk"
    sample, inputs = dataset[0]["data_samples"], torch.zeros(1, 3, 8, 8)
    raises(line, detector, inputs, [sample], mode="loss")
    raises(line, detector, inputs, {"sup": [sample]}, mode="loss")  # of a semi-supervised one


def test_labels_of_a_pipeline_reach_no_model(tmp_path: Path) -> None:
    class Takes(BaseDetector):
        takes_pseudo_boxes = True
        extract_feat = predict = _forward = loss = None

    inner = {**world(tmp_path, [GOOD]), "pipeline": LOAD}
    steps = [{"type": PackDetInputs}]  # mmdet's own, behind a wrapper that knows of nothing
    mixed = DATASETS.build({"type": "MultiImageMixDataset", "dataset": inner, "pipeline": steps})
    line = "Takes: boxes have labels below 0 and no weights: pack pseudo boxes with dict"
    raises(line, Takes(), torch.zeros(1, 3, 8, 8), [mixed[0]["data_samples"]], mode="loss")


class Boxes(list):
    """A data set of images, each of which holds class 0."""

    def get_cat_ids(self, index: int) -> list[int]:
        return [0]


@pytest.mark.parametrize(
    ("dataset", "options", "line"),
    [
        ([1, 2], {}, "list has no get_cat_ids; take one of boxes, or DefaultSampler"),
        (Boxes([1]), {"threshold": 0}, "threshold is a share of images above 0 .* got 0"),
        (Boxes([1]), {"threshold": True}, "got True"),
        (Boxes([1]), {"threshold": "1e-3"}, "got '1e-3'"),
        (Boxes([]), {}, "0 images are fewer than the 1 processes"),
    ],
)
def test_sampler(dataset: Any, options: dict[str, Any], line: str) -> None:
    raises(line, RepeatFactorSampler, dataset, **options)


PROPOSAL = {"image_id": 1, "bbox": [5, 5, 20, 20], "score": 0.5}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"annotations": []}, "holds no proposals: a list of records with image_id, bbox and"),
        ([], "holds no proposals"),
        ([PROPOSAL, {"image_id": 1}], "record 1 is {'image_id': 1}, which is no dict with image"),
        ([{**PROPOSAL, "bbox": [1, 2, 3]}], r"record 0 has the bbox \[1, 2, 3\] and the score 0.5"),
        ([{**PROPOSAL, "score": math.nan}], "and the score nan; .* all are finite numbers"),
        ([{**PROPOSAL, "image_id": [1]}], r"none of an image of the training data .*image \[1\]"),
        ([{**PROPOSAL, "image_id": 9}], r"none of an image of the training data .*image 9\)"),
    ],
)
def test_files_of_proposals(tmp_path: Path, content: Any, line: str) -> None:
    path = tmp_path / "given.json"
    path.write_text(json.dumps(content))
    raises(line, read_proposals, path, {1: (80, 100)})


def test_scores_that_are_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "given.json"
    path.write_text(json.dumps([PROPOSAL, {**PROPOSAL, "score": 87.5}]))
    line = r"record 1 has the score 87.5, and scores become weights, .* or take --weight density"
    raises(line, read_proposals, path, {1: (80, 100)}, True)
    assert read_proposals(path, {1: (80, 100)})[0][1][1].tolist() == [0.5, 87.5]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"type": "CocoDataset"}, "is a CocoDataset, which does not know novel classes"),
        ({"type": "ConcatDataset", "datasets": []}, "joins several data sets"),
    ],
)
def test_data_to_propose_on(data: dict[str, Any], line: str) -> None:
    config = Config({"train_dataloader": {"dataset": data}})
    raises(line, training_data, config)


def test_models_that_do_not_propose(monkeypatch: pytest.MonkeyPatch) -> None:
    class Single(torch.nn.Module):
        backbone = None

    monkeypatch.setattr("mmclipdis.apis.proposal_source.build_model", lambda *_: Single())
    raises("Single has no region proposal network", Detector, Config({}), "", "cpu", True, False)
    raises("reads the dense map of a frozen CLIP", Detector, Config({}), "", "cpu", False, True)
