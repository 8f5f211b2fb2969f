"""The detector that ships finds things, in mmdet's own inferencer as well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mmdet.apis import DetInferencer
from mmdet.registry import MODELS
from torchvision.ops import box_convert, box_iou

from mmclipdis.apis.zoo import resolve
from mmclipdis.engine.checkpoint_io import read_checkpoint
from mmclipdis.engine.foreign_checkpoint_guard import check_checkpoint
from mmclipdis.shapes.coco import Settings, write_dataset


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_dataset(folder, Settings(train=1, val=4, seed=5))
    return folder


def test_the_detector_that_ships_finds_things_by_name_in_the_inferencer_of_mmdet(
    photos: Path,
) -> None:
    inferencer = DetInferencer("fvit-shapes", device="cpu", show_progress=False)
    names = inferencer.model.dataset_meta["classes"]
    assert inferencer.model.dataset_meta["novel_classes"] == ("watermelon", "kite", "mushroom")
    truth = json.loads((photos / "annotations/instances_val.json").read_text())
    ids = {one["id"]: one["name"] for one in truth["categories"]}
    right = 0
    for image in truth["images"]:
        own = [one for one in truth["annotations"] if one["image_id"] == image["id"]]
        boxes = box_convert(torch.tensor([one["bbox"] for one in own]).float(), "xywh", "xyxy")
        path = photos / "images/val" / image["file_name"]
        found = inferencer(str(path), return_datasamples=True)["predictions"][0].pred_instances
        best = int(found.scores.argmax())
        overlap = box_iou(found.bboxes[best][None].float(), boxes)[0]
        place = int(overlap.argmax())
        right += bool(
            overlap[place] > 0.4
            and ids[own[place]["category_id"]] == names[int(found.labels[best])]
        )
    assert right >= 3  # of 4: the surest box of a photo is where a thing of its name is


def test_the_file_holds_every_weight_of_the_model() -> None:
    found = resolve(None, "detect")
    model = MODELS.build({**found.config.model, "_scope_": "mmdet"})
    check_checkpoint(model, read_checkpoint(found.checkpoint), may_lack=())
