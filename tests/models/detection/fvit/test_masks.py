"""F-ViT with the mask head of OV-LVIS: one mask for whatever class, in training and in tests."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("mmdet")

from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch import Tensor

from tests.datasets.detection.files import lvis, save
from tests.models.detection.fvit import tiny as tiny_fvit
from tests.models.detection.fvit.tiny import PATCH, SIZE
from tests.paths import ROOT


def config(**rcnn: Any) -> ConfigDict:
    cfg = tiny_fvit.config(mask_thr_binary=0.5, **rcnn)
    cfg.rpn_head.update(type="FViTRPNHead", norm_cfg=dict(type="BN"))
    cfg.roi_head.mask_roi_extractor = dict(
        type="SingleRoIExtractor",
        roi_layer=dict(type="RoIAlign", output_size=14, sampling_ratio=0),
        out_channels=16,
        featmap_strides=[PATCH // 4, PATCH // 2, PATCH, 2 * PATCH],
    )
    cfg.roi_head.mask_head = dict(
        type="FCNMaskHead",
        num_convs=1,
        in_channels=16,
        conv_out_channels=16,
        num_classes=1,
        class_agnostic=True,
        norm_cfg=dict(type="BN"),
        loss_mask=dict(type="CrossEntropyLoss", use_mask=True),
    )
    cfg.train_cfg.rcnn.mask_size = 28
    return cfg


def batch(model: Any, training: bool) -> dict[str, Any]:
    data = tiny_fvit.batch(model, training)
    for sample in data["data_samples"]:
        masks = np.zeros((len(sample.gt_instances), SIZE, SIZE), dtype=np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, sample.gt_instances.bboxes.int().tolist()):
            mask[y1:y2, x1 : (x1 + x2) // 2] = 1  # the left half of the box
        sample.gt_instances.masks = BitmapMasks(masks, SIZE, SIZE)
    return data


def test_masks_train_and_do_not_depend_on_the_class() -> None:
    model = tiny_fvit.build(config()).train()
    found = {k: v for k, v in model(**batch(model, True), mode="loss").items() if "loss" in k}
    assert "loss_mask" in found and found["loss_mask"].isfinite()
    sum(sum(v) if isinstance(v, list) else v for v in found.values()).backward()
    parameters = dict(model.roi_head.mask_head.named_parameters())
    assert parameters["conv_logits.weight"].shape[0] == 1
    assert all(p.grad.abs().sum() > 0 for name, p in parameters.items() if name.endswith("weight"))


def test_masks_learn_the_left_half() -> None:
    model = tiny_fvit.build(config()).train()
    data = batch(model, True)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for _ in range(25):
        torch.manual_seed(0)
        found = model(**copy.deepcopy(data), mode="loss")
        losses.append(found["loss_mask"].item())
        optimizer.zero_grad()
        found["loss_mask"].backward()
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]


def predict(cfg: ConfigDict, weights: dict[str, Tensor], proposals: Tensor | None = None) -> Any:
    """Detections in images of 32 px that were enlarged to twice that."""
    model = tiny_fvit.build(cfg).eval()
    model.load_state_dict({k: v for k, v in weights.items() if k in model.state_dict()})
    data = tiny_fvit.batch(model, False)
    for sample in data["data_samples"]:
        sample.set_metainfo(dict(scale_factor=(2.0, 2.0), ori_shape=(32, 32)))
        if proposals is not None:
            sample.proposals = type(sample.gt_instances)(bboxes=proposals)
    with torch.no_grad():
        return [sample.pred_instances for sample in model(**data, mode="predict")]


def test_predicted_masks_lie_in_their_boxes_in_pixels_of_the_original() -> None:
    weights = tiny_fvit.build(config()).state_dict()
    weights["roi_head.mask_head.conv_logits.bias"].fill_(10)  # every pixel of a box
    boxes_only = config()
    for part in ("mask_head", "mask_roi_extractor"):
        boxes_only.roi_head.pop(part)
    for found, plain in zip(predict(config(), weights), predict(boxes_only, weights)):
        assert len(found) > 0 and found.masks.dtype == torch.bool
        assert found.masks.shape == (len(found), 32, 32)
        torch.testing.assert_close(found.bboxes, plain.bboxes)
        assert torch.equal(found.scores, plain.scores)
        centre = torch.arange(32) + 0.5
        x1, y1, x2, y2 = found.bboxes[:, :, None].unbind(1)
        inside = ((centre > x1) & (centre < x2))[:, None] & ((centre > y1) & (centre < y2))[
            ..., None
        ]
        assert (found.masks == inside).float().mean() > 0.99


def test_no_proposals_give_no_masks() -> None:
    weights = tiny_fvit.build(config()).state_dict()
    for found in predict(config(), weights, torch.zeros(0, 4)):
        assert found.masks.shape == (0, 32, 32)


def test_mask_features_of_half_precision_are_pooled_with_whole_coordinates() -> None:
    head = tiny_fvit.build(config()).roi_head.eval()
    torch.manual_seed(0)
    levels = [torch.randn(1, 16, n, n).bfloat16() for n in (512, 256, 128, 64)]
    rois = torch.tensor([[0.0, 901.3, 903.7, 990.1, 1003.9]])  # bf16 has steps of 4 px there
    with torch.no_grad():
        found = head._mask_forward((*levels, None), rois)["mask_feats"]
        exact = head.mask_roi_extractor([level.float() for level in levels], rois)
        rough = head.mask_roi_extractor(levels, rois)  # what stock code gives
    assert torch.equal(found, exact)
    assert (rough - exact).abs().max() > 0.1  # bf16 alone would be off by 0.01


def test_published_parameters_of_mask_head_and_norms() -> None:
    """OV-LVIS has 23,614,485 trained parameters with B/16, OV-COCO 20,989,972."""
    parts = config()
    parts.roi_head.mask_head.update(num_convs=4, in_channels=256, conv_out_channels=256)
    rpn = {**parts.rpn_head, "in_channels": 256, "feat_channels": 256}

    def count(cfg: Any) -> int:
        DefaultScope.get_instance("test-fvit-masks", scope_name="mmdet")
        module = MODELS.build({**cfg, "type": f"mmdet.{cfg['type']}"})
        return sum(p.numel() for p in module.parameters())

    norms = count(rpn) - count({**rpn, "norm_cfg": None})
    assert norms + count(parts.roi_head.mask_head) == 23_614_485 - 20_989_972


def test_runner_trains_and_reports_ap_of_boxes_and_masks(tmp_path: Path) -> None:
    data = Config.fromfile(ROOT / "configs/_base_/datasets/ov_lvis.py")
    for loader in (data.train_dataloader, data.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
        loader.dataset.data_root = str(tmp_path)
        save(tmp_path / loader.dataset.ann_file, lvis())
        for step in loader.dataset.pipeline:
            for key in {"scale", "crop_size"} & set(step):
                step[key] = (SIZE, SIZE)
    for number in (1, 2, 3):
        path = tmp_path / f"train2017/{number:012d}.jpg"
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (80, 100, 3), dtype=np.uint8)
        cv2.imwrite(str(path), pixels)
    data.val_evaluator.ann_file = str(tmp_path / data.val_dataloader.dataset.ann_file)
    cfg = Config(
        dict(
            default_scope="mmdet",
            model=config(),
            train_dataloader=data.train_dataloader,
            val_dataloader=data.val_dataloader,
            val_evaluator=data.val_evaluator,
            train_cfg=dict(by_epoch=True, max_epochs=1, val_interval=1),
            val_cfg=dict(),
            optim_wrapper=dict(optimizer=dict(type="SGD", lr=1e-3)),
            default_hooks=dict(
                checkpoint=dict(type="CheckpointHook", save_best="lvis/segm_APr", rule="greater")
            ),
            custom_hooks=[dict(type="VocabularyHook")],
            work_dir=str(tmp_path / "work"),
            experiment_name=tmp_path.name,
        )
    )
    cfg.model.data_preprocessor.update(pad_mask=True)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 1
    assert runner.model.vocabulary.class_names == ("person", "dog", "car")
    reported = runner.message_hub.log_scalars
    for name in ("bbox_AP", "bbox_APr", "segm_AP", "segm_APr"):
        assert 0 <= reported[f"val/lvis/{name}"].current() <= 1
    assert list((tmp_path / "work").glob("best_lvis_segm_APr*.pth"))
