"""What F-ViT costs on top of its frozen CLIP, and where that goes.

    python tools/benchmarks/fvit.py --write

The detector of configs/_base_/models/fvit_vitb16.py with random weights, and random embeddings of
the classes, on one image of ``--size`` pixels a side, which with random weights has the most
proposals that are allowed, 1000:

* whole: image to detections, and of that the tower alone;
* its parts, on what the parts before them give: up-samplers, neck, RPN with its proposals, box
  head, CLIP's embedding of the proposals, scores and NMS. The last once for each of
  ``--classes``, with thresholds of OV-COCO and of OV-LVIS, where almost every pair of proposal and
  class is above it, and beside the same with mmdet's ``multiclass_nms``.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from bench import Case, Claim, clock_of, interleave, make_parser, peak_mb, report
from mmdet.models.layers import multiclass_nms
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor

from mmclipdis.engine.random_weights import take_as_meant
from mmclipdis.engine.results import ROOT
from mmclipdis.models.detection.fvit import bbox_head as fvit_bbox_head

CONFIG = ROOT / "configs" / "_base_" / "models" / "fvit_vitb16.py"
#: Threshold, IoU of the NMS and detections, of OV-COCO and of OV-LVIS (more than 100 classes).
COCO, LVIS = (0.01, 0.4, 100), (1e-4, 0.5, 300)


def build(config: Config) -> Any:
    """The detector with random weights, and without a text encoder.

    Args:
        config: With ``model`` as in configs/_base_/models.
    """
    init_default_scope("mmdet")
    model = config.model
    model.backbone.encoder.pop("init_cfg", None)
    head = model.roi_head.bbox_head
    head.text_encoder = None
    with tempfile.TemporaryDirectory() as folder:
        head.text_embeddings = str(Path(folder) / "text.pt")
        torch.save(torch.randn(2, head.fc_out_channels), head.text_embeddings)
        head.vocabulary, head.background = ["thing"], "background"
        built = MODELS.build(model).eval()
    take_as_meant(built)
    return built


def use_classes(roi_head: Any, count: int) -> None:
    """So many classes with random embeddings, every fourth novel, and the options for them."""
    head = roi_head.bbox_head
    with tempfile.TemporaryDirectory() as folder:
        head.text.text_embeddings = str(Path(folder) / "text.pt")
        torch.save(torch.randn(count + 1, head.text.embed_dim), head.text.text_embeddings)
        names = [f"thing {number}" for number in range(count)]
        head.set_vocabulary(names, names[::4])
    threshold, overlap, most = COCO if count <= 100 else LVIS
    roi_head.test_cfg.update(score_thr=threshold, max_per_img=most)
    roi_head.test_cfg.nms.iou_threshold = overlap


def sample(size: int) -> DetDataSample:
    """What a data set says about an image."""
    shape = (size, size)
    facts = {"img_shape": shape, "ori_shape": shape, "pad_shape": shape, "scale_factor": (1.0, 1.0)}
    return DetDataSample(metainfo=facts)


def speed_rows(
    model: Any, image: Tensor, classes: tuple[int, ...], rounds: int, clock: Any
) -> tuple[list[dict[str, Any]], list[Claim]]:
    """Times of the whole, the tower and the parts."""
    facts = sample(image.shape[-1])
    use_classes(model.roi_head, classes[0])
    cases: dict[str, Case] = {
        "whole": lambda: model.predict(image, [facts]),
        "tower": lambda: model.backbone.encode(image),
        **_parts(model, image, facts, classes),
    }
    times = interleave(cases, rounds, clock=clock)
    title = f"F-ViT {image.shape[-1]} px"
    rows = times.shares(title)
    for name, row in zip(cases, rows, strict=True):
        if name.startswith("scores"):
            row["metrics"]["peak_mb"] = peak_mb(cases[name])
    claims = [
        Claim(f"{title}, scores and NMS, {count} classes / tower", share, at_most=0.02)
        for count in classes
        for share in [times.ratio(f"scores and NMS, {count} classes", "tower")]
    ]
    ours = f"scores and NMS, {classes[-1]} classes"
    gain = times.ratio(f"{ours}, multiclass_nms", ours)
    claims.append(Claim(f"{title}, {ours}, multiclass_nms / ours", gain, at_least=10))
    return rows, claims


def _parts(
    model: Any, image: Tensor, facts: DetDataSample, classes: tuple[int, ...]
) -> dict[str, Case]:
    """Each part of the detector on what those before it give."""
    backbone, roi_head = model.backbone, model.roi_head
    blocks, vlm_map = backbone.encode(image)
    pyramid = backbone.pyramid(blocks)
    levels = model.neck(pyramid)
    proposals = model.rpn_head.predict(levels, [facts], rescale=False)
    rois = bbox2roi([proposals[0].bboxes])
    print(f"{len(rois)} proposals")
    cases: dict[str, Case] = {
        "up-samplers": lambda: backbone.pyramid(blocks),
        "neck": lambda: model.neck(pyramid),
        "RPN": lambda: model.rpn_head.predict(levels, [facts], rescale=False),
        "box head": lambda: roi_head._bbox_forward(levels, rois),
        "CLIP's regions": lambda: roi_head.regions(rois, vlm_map, backbone.patch_size),
    }
    for count in classes:
        cases |= _ends(model, (levels, rois, vlm_map), facts, count)
    return cases


def _ends(
    model: Any, inputs: tuple[Any, Tensor, Tensor], facts: DetDataSample, count: int
) -> dict[str, Case]:
    """From embeddings of the proposals to detections among ``count`` classes, in two ways."""
    levels, rois, vlm_map = inputs
    roi_head = copy.deepcopy(model.roi_head)  # with its own classes
    use_classes(roi_head, count)
    found = roi_head._bbox_forward(levels, rois)
    regions = roi_head.regions(rois, vlm_map, model.backbone.patch_size)

    def ours() -> Any:
        scores = roi_head.scores(found["cls_score"], regions)
        return roi_head.bbox_head.predict_by_feat(
            rois=(rois,),
            cls_scores=(scores,),
            bbox_preds=(found["bbox_pred"],),
            batch_img_metas=[facts.metainfo],
            rcnn_test_cfg=roi_head.test_cfg,
        )[0]

    def stock() -> Any:
        with mock.patch.object(fvit_bbox_head, "strongest_nms", multiclass_nms):
            return ours()

    if not torch.allclose(ours().scores, stock().scores):
        raise RuntimeError(f"{count} classes: mmdet's multiclass_nms finds others")
    name = f"scores and NMS, {count} classes"
    return {name: ours, f"{name}, multiclass_nms": stock}


def main() -> None:
    """Read the command line, measure, report."""
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--size", type=int, default=640, help="pixels a side")
    parser.add_argument("--classes", type=int, nargs="+", default=(65, 1203))
    args = parser.parse_args()
    clock = clock_of(args)
    torch.manual_seed(0)
    model = build(Config.fromfile(str(CONFIG)))
    image = torch.randn(1, 3, args.size, args.size)
    with torch.inference_mode():
        rows, claims = speed_rows(model, image, tuple(args.classes), args.rounds, clock)
    report(args, rows, claims)


if __name__ == "__main__":
    main()
