"""F-ViT with its own backbone, with a mask head, with embeddings from a file."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS

pytest.importorskip("mmdet")

from mmdet.structures.mask import BitmapMasks

from tests.models.detection.fvit import tiny as tiny_fvit
from tests.models.detection.fvit.tiny import CLASSES, NOVEL, SIZE, batch, bbox_head, config
from tests.tiny import tiny_eva_arch

ARCH = tiny_eva_arch(img_size=32, patch_size=8, depth=4)


def real_config(**head: Any) -> Any:
    backbone = dict(
        type="FViTBackbone",
        encoder=dict(type="CLIPViT", arch=ARCH, readout="maskclip"),
        out_indices=(0, 1, 2, 3),
        norm_cfg=dict(type="BN"),
    )
    return config(bbox_head(**head), backbone=backbone, width=32)


def total(found: dict[str, Any]) -> Any:
    losses = {k: v for k, v in found.items() if "loss" in k}
    return sum(sum(v) if isinstance(v, list) else v for v in losses.values())


def test_with_its_own_backbone_a_step_leaves_the_tower_alone():
    model = tiny_fvit.build(real_config()).train()
    before = copy.deepcopy(model.state_dict())
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    total(model(**batch(model, True), mode="loss")).backward()
    assert all(p.grad is not None for p in trained)
    optimizer.step()
    after = model.state_dict()
    tower = [name for name in after if name.startswith("backbone.encoder")]
    assert tower and all(torch.equal(after[name], before[name]) for name in tower)
    for name in ("backbone.interpolate1.0.weight", "roi_head.bbox_head.detect_temperature"):
        assert not torch.equal(after[name], before[name])
    with torch.no_grad():
        samples = model.eval()(**batch(model, False), mode="predict")
    assert all(len(sample.pred_instances) > 0 for sample in samples)
    assert all(sample.pred_instances.scores.isfinite().all() for sample in samples)


def test_a_backbone_without_map_is_refused():
    cfg = real_config()
    cfg.backbone.dense_map = False
    with pytest.raises(ValueError, match="dense_map=True"):
        MODELS.build(cfg)


def test_text_of_another_clip_is_refused():
    text = dict(type="OpenCLIPTextEncoder", arch={**ARCH, "quick_gelu": True}, cache_dir=False)
    with pytest.raises(ValueError, match="one CLIP"):
        MODELS.build(real_config(text_encoder=text))


def test_trained_parameters_are_as_many_as_published():
    """F-ViT B/16 on OV-COCO: 20,989,972, without the unused linear classifier."""
    tiny, wide = tiny_fvit.config(), 256
    for part in (tiny.rpn_head, tiny.roi_head.bbox_head):
        part.in_channels = wide
    tiny.rpn_head.feat_channels = tiny.neck.out_channels = wide
    tiny.neck.update(in_channels=[768] * 4, norm_cfg=dict(type="BN"))
    tiny.roi_head.bbox_head.update(
        fc_out_channels=512, conv_out_channels=wide, num_shared_convs=4, text_encoder=WideWords()
    )
    with torch.device("meta"):
        model = MODELS.build(tiny)
    parts = (model.neck, model.rpn_head, model.roi_head)
    count = sum(p.numel() for part in parts for p in part.parameters() if p.requires_grad)
    up_samplers = 3 * (4 * 768 * 768 + 768) + 2 * 768  # tested with the backbone
    assert count + up_samplers == 20_989_972


class WideWords(tiny_fvit.TinyFViTWords):
    embed_dim = 512


def masked_config() -> Any:
    cfg = config(mask_thr_binary=0.5)
    roi_head = cfg.roi_head
    roi_head.mask_roi_extractor = copy.deepcopy(roi_head.bbox_roi_extractor)
    roi_head.mask_roi_extractor.roi_layer.output_size = 14
    roi_head.mask_head = dict(
        type="FCNMaskHead", num_convs=1, in_channels=16, conv_out_channels=16, class_agnostic=True
    )
    cfg.train_cfg.rcnn.mask_size = 28
    return cfg


def test_a_stock_mask_head_trains_and_predicts_in_any_vocabulary():
    model = tiny_fvit.build(masked_config()).train()
    data = batch(model, True)
    for sample in data["data_samples"]:
        number = len(sample.gt_instances)
        sample.gt_instances.masks = BitmapMasks(
            [torch.ones(SIZE, SIZE).numpy()] * number, SIZE, SIZE
        )
    found = model(**data, mode="loss")
    assert found["loss_mask"].isfinite() and found["loss_mask"] > 0
    model.eval().set_vocabulary([f"thing {i}" for i in range(90)], ())
    with torch.no_grad():
        samples = model(**batch(model, False), mode="predict")
    for sample in samples:
        instances = sample.pred_instances
        assert instances.masks.shape == (len(instances), SIZE, SIZE)


def test_a_file_of_embeddings_has_the_background_last(tmp_path):
    rows = torch.randn(5, tiny_fvit.DIM)
    path = tmp_path / "text.pt"
    torch.save(rows, path)
    options = dict(text_encoder=None, text_embeddings=str(path), vocabulary=CLASSES)
    model = MODELS.build(config(bbox_head(novel_classes=NOVEL, **options)))
    found = model.roi_head.bbox_head.text.embeddings()
    torch.testing.assert_close(found, torch.nn.functional.normalize(rows, dim=1))
    with pytest.raises(ValueError, match="5 rows for 4 classes"):
        model.set_vocabulary(CLASSES[:3], ())


def test_boxes_go_back_to_the_original_size():
    model = tiny_fvit.build().eval()
    data = batch(model, False)
    with torch.no_grad():
        plain = model.predict(data["inputs"], copy.deepcopy(data["data_samples"]))
        for sample in data["data_samples"]:
            sample.set_metainfo(dict(scale_factor=(0.5, 0.25)))
        large = model.predict(data["inputs"], data["data_samples"])
    scale = torch.tensor([2.0, 4.0, 2.0, 4.0])
    for one, other in zip(plain, large):
        torch.testing.assert_close(other.pred_instances.bboxes, one.pred_instances.bboxes * scale)
        torch.testing.assert_close(other.pred_instances.scores, one.pred_instances.scores)
