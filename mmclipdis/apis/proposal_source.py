"""Where class-agnostic proposals come from: a detector's RPN, or a file."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.ops import clip_boxes_to_image
from tqdm import tqdm

from mmclipdis.apis.inferencers.building import build_model
from mmclipdis.models.detection.frozen_vit import FrozenViT
from mmclipdis.models.detection.reconstruction import centre_features
from mmclipdis.utils.coco_boxes import is_box
from mmclipdis.utils.coco_json import read_json, short
from mmclipdis.utils.device import usable_device
from mmclipdis.utils.finite import check_scores

#: Boxes (n, 4), x0, y0, x1, y1 in pixels of the photo, and scores (n,).
Proposals = tuple[Tensor, Tensor]


def training_data(config: Config) -> Any:
    """The training images of a config with their known boxes, as a detector is shown them in test.

    Boxes of novel classes and pseudo boxes are not read, whatever the config says.

    Raises:
        ValueError: several data sets are joined, or the data set does not know which classes are
            novel.
    """
    from mmdet.registry import DATASETS

    init_default_scope("mmdet")
    data = config.train_dataloader.dataset
    while isinstance(data.get("dataset"), Mapping):  # repeated, balanced, mixed
        data = data["dataset"]
    if "datasets" in data:
        raise ValueError(
            "train_dataloader.dataset joins several data sets, whose images may have the same ids: "
            "make a file for each, with a config of one data set"
        )
    data = copy.deepcopy(dict(data))
    kind = DATASETS.get(data["type"]) if isinstance(data["type"], str) else data["type"]
    if not getattr(kind, "labels_by_name", False):
        raise ValueError(
            f"train_dataloader.dataset is a {data['type']}, which does not know novel classes, so "
            "that their boxes would be read: take OVCocoDataset or OVLVISDataset"
        )
    shown = config.get("test_dataloader") or config.get("val_dataloader")
    if shown is None:
        raise ValueError("the config has no test_dataloader, whose pipeline shows the photos")
    pipeline = shown.dataset.pipeline
    data.update(pipeline=pipeline, test_mode=False, pseudo_boxes=None, novel_in_training=False)
    return DATASETS.build(data)


def known_boxes(info: Mapping[str, Any]) -> Tensor:
    """Boxes (m, 4) of an item of a data list, crowds included, in pixels of the photo."""
    listed = [box["bbox"] for box in info["instances"]]
    return torch.tensor(listed, dtype=torch.float32).reshape(-1, 4)


class Detector:
    """A trained two-stage detector that gives proposals, and the dense map of its frozen CLIP.

    Args:
        config: With ``model``.
        checkpoint: Of the detector.
        device: Where to compute; None for a GPU if there is one.
        proposes: Whether its proposals are asked for.
        has_map: Whether the dense map is.
        classes: Names that a detector with text needs before its second stage moves proposals;
            None leaves them where the RPN has put them.

    Raises:
        FileNotFoundError, ValueError: as ``build_model``; a model without an RPN, without the
            dense map of a frozen CLIP, or whose second stage has boxes of its own for each class.
    """

    def __init__(
        self,
        config: Config,
        checkpoint: str,
        device: str | None,
        proposes: bool,
        has_map: bool,
        classes: Sequence[str] | None = None,
    ) -> None:
        place = usable_device(device)
        self.model = build_model(config, checkpoint).to(place).eval()
        self.proposes = proposes
        name = type(self.model).__name__
        if proposes and not hasattr(self.model, "rpn_head"):
            raise ValueError(
                f"{name} has no region proposal network: give the config and checkpoint of a "
                "two-stage detector such as FViT, or --proposals FILE"
            )
        self.refines = classes is not None
        if classes is not None:
            head = getattr(getattr(self.model, "roi_head", None), "bbox_head", None)
            if not getattr(head, "reg_class_agnostic", False):
                raise ValueError(
                    f"--refine moves proposals by the boxes of a second stage that knows no "
                    f"classes (reg_class_agnostic=True), which {name} has not: leave it out"
                )
            if hasattr(self.model, "set_vocabulary"):
                self.model.set_vocabulary(list(classes))
        backbone = getattr(self.model, "backbone", None)
        self.has_map = isinstance(backbone, FrozenViT) and getattr(backbone, "dense_map", True)
        if has_map and not self.has_map:
            raise ValueError(
                f"--weight density reads the dense map of a frozen CLIP, which {name} has not: "
                "take --weight objectness, or an FViT"
            )

    @torch.no_grad()
    def look(
        self, data: Mapping[str, Any], propose: bool = True
    ) -> tuple[list[Proposals], Tensor | None, list[Any]]:
        """Proposals of a batch of a pipeline, the dense map (B, D, h, w), and the data samples."""
        data = self.model.data_preprocessor(dict(data), False)
        samples = data["data_samples"]
        maps = self.model.backbone(data["inputs"])
        levels, dense = (maps[:-1], maps[-1]) if self.has_map else (maps, None)
        if not (propose and self.proposes):
            return [], dense, samples
        if getattr(self.model, "neck", None) is not None:
            levels = self.model.neck(levels)
        found = self.model.rpn_head.predict(levels, samples, rescale=not self.refines)
        for one, sample in zip(found, samples, strict=True):
            check_scores(one.scores, sample)
        boxes = [one.bboxes for one in found]
        if self.refines:
            boxes = self._refined(tuple(levels), boxes, samples)
        scores = [one.scores.cpu() for one in found]
        return list(zip([each.cpu() for each in boxes], scores, strict=True)), dense, samples

    def _refined(
        self, levels: tuple[Tensor, ...], boxes: Sequence[Tensor], samples: Sequence[Any]
    ) -> list[Tensor]:
        """Boxes in pixels of the photos, of proposals in pixels of the input."""
        from mmdet.structures.bbox import bbox2roi

        rois = bbox2roi(list(boxes))
        if not len(rois):
            return list(boxes)
        head = self.model.roi_head
        moves = head._bbox_forward(levels, rois)["bbox_pred"]
        moved = head.bbox_head.bbox_coder.decode(rois[:, 1:], moves)
        return [
            clip_boxes_to_image(
                each / each.new_tensor(sample.scale_factor).repeat(2), sample.ori_shape[:2]
            )
            for each, sample in zip(moved.split(list(map(len, boxes))), samples, strict=True)
        ]

    def centres(self, dense: Tensor, boxes: Sequence[Tensor], samples: Sequence[Any]) -> Tensor:
        """Features (n, D) of the middles of boxes (px of the photos) of all images of a batch."""
        rois = []
        for number, (of_image, sample) in enumerate(zip(boxes, samples, strict=True)):
            scale = of_image.new_tensor(sample.scale_factor).repeat(2)
            column = of_image.new_full((len(of_image), 1), number)
            rois.append(torch.cat([column, of_image * scale], dim=1))
        return centre_features(dense, torch.cat(rois), self.model.backbone.patch_size)

    def cells(self, dense: Tensor, samples: Sequence[Any]) -> Tensor:
        """Cells (n, D) of the dense map that show photos, without padding."""
        stride, kept = self.model.backbone.patch_size, []
        for one, sample in zip(dense, samples, strict=True):
            height, width = (max(side // stride, 1) for side in sample.img_shape[:2])
            kept.append(one[:, :height, :width].flatten(1).T)
        return torch.cat(kept)


def batches_of(
    dataset: Any,
    indices: Sequence[int],
    batch_size: int,
    workers: int,
    title: str = "proposals",
    photos: bool = True,
) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """Places of images in a data set and their batch, with a progress bar; empty without photos."""
    places = [list(indices[i : i + batch_size]) for i in range(0, len(indices), batch_size)]
    loader: Iterator[Any] = itertools.repeat({})
    if photos:
        loader = iter(
            DataLoader(
                dataset, batch_sampler=places, num_workers=workers, collate_fn=pseudo_collate
            )
        )
    with tqdm(total=len(indices), desc=title, unit="image", disable=None) as bar:
        for group in places:
            yield group, next(loader)
            bar.update(len(group))


def read_proposals(
    path: str | Path, known: Mapping[Any, tuple[int, int]], weigh: bool = False
) -> tuple[dict[Any, Proposals], int]:
    """Proposals of a file like COCO's results: records with ``image_id``, ``bbox`` and ``score``.

    Args:
        path: Of a json list; boxes are x, y, width, height in pixels, other keys are not read.
        known: Height and width of the images of the data, by id.
        weigh: Whether the scores are to be weights, which are in 0..1.

    Returns:
        Proposals by image id, clipped to the image, and the number of those of other images.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no such list, a record is broken, or no image is one of the data.
    """
    records = read_json(path, "name a file of proposals")
    if not isinstance(records, list) or not records:
        raise ValueError(
            f"{path} holds no proposals: a list of records with image_id, bbox and score is read, "
            "as COCO's results are"
        )
    grouped: dict[Any, list[list[float]]] = {}
    others = 0
    for place, record in enumerate(records):
        if not isinstance(record, Mapping) or not {"image_id", "bbox", "score"} <= record.keys():
            raise ValueError(
                f"{path}: record {place} is {short(record)}, which is no dict with image_id, bbox "
                "and score"
            )
        box, score = record["bbox"], record["score"]
        if not is_box(box) or not is_box([score] * 4):
            raise ValueError(
                f"{path}: record {place} has the bbox {short(box)} and the score {short(score)}; "
                "a box is x, y, width, height, and all are finite numbers"
            )
        if weigh and not 0 <= score <= 1:
            raise ValueError(
                f"{path}: record {place} has the score {short(score)}, and scores become weights, "
                "which are from 0 to 1: make probabilities of them, or take --weight density"
            )
        size = known.get(record["image_id"]) if record["image_id"].__hash__ else None
        if size is None:
            others += 1
            continue
        x, y, width, height = box
        left, top = min(max(x, 0), size[1]), min(max(y, 0), size[0])
        right, bottom = min(max(x + width, left), size[1]), min(max(y + height, top), size[0])
        grouped.setdefault(record["image_id"], []).append([left, top, right, bottom, score])
    if not grouped:
        raise ValueError(
            f"{path} has proposals of {others:,} records, and none of an image of the training "
            f"data (the first: image {short(records[0]['image_id'])}); name the file of these data"
        )
    arrays = {number: torch.tensor(rows) for number, rows in grouped.items()}
    return {number: (rows[:, :4], rows[:, 4]) for number, rows in arrays.items()}, others
