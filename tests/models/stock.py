"""Models of the configs that mmseg and mmdet ship, so small that a test can train them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mmdet
import mmseg
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData

FOLDERS = {
    "mmseg": Path(mmseg.__file__).parent / ".mim/configs",
    "mmdet": Path(mmdet.__file__).parent / ".mim/configs",
}
#: Classes of all of them.
CLASSES = {"mmseg": 5, "mmdet": 3}
BATCH_NORM = dict(type="BN", requires_grad=True)


def stock_config(library: str, path: str) -> Config:
    """The config with a ResNet-18, few channels and no weights to download."""
    found = Config.fromfile(str(FOLDERS[library] / path))
    shrink = _segmentor if library == "mmseg" else _detector
    shrink(found.model)
    return found


def _segmentor(model: Any) -> None:
    model.pretrained = None
    model.backbone.depth = 18
    model.backbone.norm_cfg = BATCH_NORM
    widths = [64, 128, 256, 512]
    heads = [model.decode_head, *[model[n] for n in ("auxiliary_head",) if model.get(n)]]
    if model.get("neck"):
        model.neck.update(in_channels=widths, out_channels=16)
        widths = [16] * 4
    for head in heads:
        at = head.in_index
        head.in_channels = widths[at] if isinstance(at, int) else [widths[i] for i in at]
        head.update(channels=8, num_classes=CLASSES["mmseg"], norm_cfg=BATCH_NORM, dropout_ratio=0)
    model.data_preprocessor.size = (64, 64)


def _detector(model: Any) -> None:
    model.backbone.update(depth=18, init_cfg=None)
    head = model.get("bbox_head")
    if model.type == "DETR":
        model.num_queries = 8
        model.neck.in_channels = [512]
        model.encoder.num_layers = model.decoder.num_layers = 1
        model.encoder.layer_cfg.ffn_cfg.ffn_drop = 0.0
        for layer, names in ((model.encoder, ("self",)), (model.decoder, ("self", "cross"))):
            layer.layer_cfg.ffn_cfg.update(feedforward_channels=16, ffn_drop=0.0)
            for name in names:
                layer.layer_cfg[f"{name}_attn_cfg"].dropout = 0.0
        head.num_classes = CLASSES["mmdet"]
        return
    model.neck.update(in_channels=[64, 128, 256, 512], out_channels=16)
    if head is not None:
        head.update(in_channels=16, feat_channels=16, stacked_convs=1, num_classes=CLASSES["mmdet"])
        return
    model.rpn_head.update(in_channels=16, feat_channels=16)
    model.roi_head.bbox_roi_extractor.out_channels = 16
    model.roi_head.bbox_head.update(
        in_channels=16, fc_out_channels=16, num_classes=CLASSES["mmdet"]
    )


def stock_batch(library: str) -> dict[str, Any]:
    """Two images with labels, as a loader hands them over."""
    torch.manual_seed(0)
    size = (64, 64)
    meta: dict[str, Any] = dict(img_shape=size, ori_shape=size, pad_shape=size)
    samples = []
    for index in range(2):
        if library == "mmseg":
            from mmseg.structures import SegDataSample

            sample = SegDataSample(metainfo=meta)
            labels = torch.randint(0, CLASSES["mmseg"], (1, *size))
            labels[:, :9] = 255
            sample.gt_sem_seg = PixelData(data=labels)
        else:
            from mmdet.structures import DetDataSample

            sample = DetDataSample(metainfo={**meta, "scale_factor": (1.0, 1.0), "img_id": index})
            boxes = torch.tensor([[4.0, 4.0, 40.0, 40.0], [20.0, 10.0, 60.0, 62.0]])
            sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 2]))
        samples.append(sample)
    images = [torch.randint(0, 255, (3, *size), dtype=torch.uint8) for _ in range(2)]
    return {"inputs": images, "data_samples": samples}


def place(config: Any, where: str, value: Any) -> None:
    """Put a value in place of that at ``a.b.c``."""
    *path, last = where.split(".")
    for name in path:
        config = config[name]
    config[last] = value


def step(model: Any, library: str) -> dict[str, torch.Tensor]:
    """Losses of a training step, whose gradients are there."""
    torch.manual_seed(1)
    model.train()
    losses: dict[str, torch.Tensor] = model(
        **model.data_preprocessor(stock_batch(library), training=True), mode="loss"
    )
    total, parsed = model.parse_losses(losses)
    total.backward()
    return {name: value.detach() for name, value in parsed.items()}
