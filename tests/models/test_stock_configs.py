"""Our modules inside configs that mmseg and mmdet ship: what a user who drops them in will do."""

from __future__ import annotations

from pathlib import Path

import mmdet
import mmseg
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData

import mmclipdis  # noqa: F401  (registers the modules)
from mmclipdis.utils.statistics import CLIP
from tests.tiny import tiny_arch, tiny_eva_arch

MMSEG_CONFIGS = Path(mmseg.__file__).parent / ".mim" / "configs"
MMDET_CONFIGS = Path(mmdet.__file__).parent / ".mim" / "configs"
MEAN, STD = CLIP.of_bytes
BATCH_NORM = dict(type="BN", requires_grad=True)


def tiny_vit(**kwargs):
    return dict(type="CLIPViT", arch=tiny_arch(layers=4), **kwargs)


@pytest.fixture
def scope(request):
    DefaultScope.get_instance(f"stock-{request.node.name}", scope_name=request.param)


def seg_batch(height=64, width=96, classes=5):
    from mmseg.structures import SegDataSample

    sample = SegDataSample(
        metainfo=dict(
            img_shape=(height, width), ori_shape=(height, width), pad_shape=(height, width)
        )
    )
    label = torch.from_numpy(np.random.default_rng(0).integers(0, classes, (1, height, width)))
    sample.gt_sem_seg = PixelData(data=label)
    image = torch.randint(0, 255, (3, height, width), dtype=torch.uint8)
    return dict(inputs=[image, image], data_samples=[sample, sample])


def one_step(model, batch):
    """A training step as the runner does it; returns the loss and the names without gradient."""
    model.train()
    losses = model(**model.data_preprocessor(batch, training=True), mode="loss")
    total, _ = model.parse_losses(losses)
    total.backward()
    no_gradient = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    return total.item(), no_gradient


@pytest.mark.parametrize("scope", ["mmseg"], indirect=True)
def test_stock_upernet_with_feature2pyramid_trains_on_our_backbone(scope):
    from mmseg.registry import MODELS

    path = MMSEG_CONFIGS / "beit" / "beit-base_upernet_8xb2-160k_ade20k-640x640.py"
    model_cfg = Config.fromfile(path).model
    model_cfg.pop("pretrained", None)
    model_cfg.backbone = tiny_vit(out_indices=(0, 1, 2, 3), trainable=("all",))
    model_cfg.neck.update(embed_dim=64, norm_cfg=BATCH_NORM)
    model_cfg.decode_head.update(
        in_channels=[64] * 4, channels=16, num_classes=5, norm_cfg=BATCH_NORM
    )
    model_cfg.auxiliary_head.update(in_channels=64, channels=16, num_classes=5, norm_cfg=BATCH_NORM)
    model_cfg.data_preprocessor.update(size=(64, 96), mean=MEAN, std=STD)
    model = MODELS.build(model_cfg)
    loss, no_gradient = one_step(model, seg_batch())
    assert np.isfinite(loss)
    # the tail of the tower (ln_post, proj) is behind the maps the neck reads
    assert all("ln_post" in name or "visual.proj" in name for name in no_gradient)
    model.eval()
    model.test_cfg = Config(dict(mode="whole"))
    batch = model.data_preprocessor(seg_batch(), training=False)
    with torch.no_grad():
        result, _ = model(**batch, mode="predict")
    assert result.pred_sem_seg.data.shape == (1, 64, 96)


def faster_rcnn(backbone, neck=(), in_channels=64):
    """mmdet's own config with another backbone, and ``neck`` before a narrow FPN."""
    cfg = Config.fromfile(MMDET_CONFIGS / "faster_rcnn" / "faster-rcnn_r50_fpn_1x_coco.py")
    model_cfg = cfg.model
    model_cfg.backbone = backbone
    model_cfg.data_preprocessor.update(mean=MEAN, std=STD)
    fpn = dict(type="FPN", in_channels=[in_channels] * 4, out_channels=16, num_outs=5)
    model_cfg.neck = [*neck, fpn]
    model_cfg.rpn_head.update(in_channels=16, feat_channels=16)
    model_cfg.roi_head.bbox_roi_extractor.update(out_channels=16)
    model_cfg.roi_head.bbox_head.update(in_channels=16, fc_out_channels=32, num_classes=3)
    return model_cfg


def detection_batch():
    from mmdet.structures import DetDataSample

    sample = DetDataSample(
        metainfo=dict(
            img_shape=(128, 160), ori_shape=(128, 160), pad_shape=(128, 160), scale_factor=(1, 1)
        )
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[10.0, 10, 60, 70], [50, 40, 150, 120]]),
        labels=torch.tensor([0, 2]),
    )
    image = torch.randint(0, 255, (3, 128, 160), dtype=torch.uint8)
    return dict(inputs=[image], data_samples=[sample])


def predicted_boxes(model, batch):
    model.eval()
    with torch.no_grad():
        (result,) = model(**model.data_preprocessor(batch, training=False), mode="predict")
    return result.pred_instances.bboxes


@pytest.mark.parametrize("scope", ["mmdet"], indirect=True)
def test_stock_faster_rcnn_trains_and_predicts_on_our_backbone(scope):
    from mmdet.registry import MODELS

    pyramid = dict(
        type="mmseg.Feature2Pyramid", embed_dim=64, rescales=[4, 2, 1, 0.5], norm_cfg=BATCH_NORM
    )
    backbone = tiny_vit(out_indices=(0, 1, 2, 3), trainable=("all",))
    model, batch = MODELS.build(faster_rcnn(backbone, [pyramid])), detection_batch()
    loss, no_gradient = one_step(model, batch)
    assert np.isfinite(loss)
    assert all("ln_post" in name or "visual.proj" in name for name in no_gradient)
    assert predicted_boxes(model, batch).shape[1] == 4


@pytest.mark.parametrize("scope", ["mmdet"], indirect=True)
def test_stock_faster_rcnn_trains_and_predicts_on_the_levels_of_fvit_with_patch_14(scope):
    from mmdet.registry import MODELS

    encoder = dict(type="CLIPViT", arch=tiny_eva_arch(img_size=56, patch_size=14, depth=4))
    backbone = dict(type="FViTBackbone", encoder=encoder, out_indices=(0, 1, 2, 3))
    model_cfg = faster_rcnn({**backbone, "norm_cfg": BATCH_NORM, "dense_map": False}, [], 32)
    strides = [3.5, 7, 14, 28, 56]
    model_cfg.rpn_head.anchor_generator.strides = strides
    model_cfg.roi_head.bbox_roi_extractor.featmap_strides = strides[:4]
    model_cfg.data_preprocessor.pad_size_divisor = 28
    model, batch = MODELS.build(model_cfg), detection_batch()
    assert list(model.backbone.strides) == strides[:4]
    loss, no_gradient = one_step(model, batch)
    assert np.isfinite(loss) and no_gradient == []
    assert predicted_boxes(model, batch).shape[1] == 4
