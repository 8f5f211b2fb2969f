"""Random images and a config for a tiny stock mmseg FCN on them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tests.paths import ROOT

CONFIG = """
_base_ = ["{root}/configs/_base_/default_runtime.py", "mmseg::_base_/models/fcn_unet_s5-d16.py"]
norm_cfg = dict(type="GN", num_groups=2, requires_grad=True)
model = dict(
    data_preprocessor=dict(size=(32, 32)),
    backbone=dict(base_channels=4, norm_cfg=norm_cfg),
    decode_head=dict(in_channels=4, channels=4, num_classes=3, dropout_ratio={dropout},
                     norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=8, channels=4, num_classes=3, dropout_ratio={dropout},
                        norm_cfg=norm_cfg),
    test_cfg=dict(_delete_=True, mode="whole"),
)
pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomFlip", prob={flip}),
    dict(type="PackSegInputs"),
]
dataset = dict(
    type="BaseSegDataset",
    data_root="{data}",
    data_prefix=dict(img_path="images", seg_map_path="labels"),
    img_suffix=".png",
    seg_map_suffix=".png",
    metainfo=dict(classes=("a", "b", "c"), palette=[[0, 0, 0], [0, 255, 0], [255, 0, 0]]),
    pipeline=pipeline,
)
test_dataset = dict(dataset, pipeline=[*pipeline[:2], *pipeline[3:]])  # nothing is flipped
train_dataloader = dict(
    batch_size=2, num_workers=0, dataset=dataset, sampler=dict(type="InfiniteSampler", shuffle=True)
)
val_dataloader = dict(
    batch_size=1, num_workers=0, dataset=test_dataset,
    sampler=dict(type="DefaultSampler", shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.5, momentum=0.9))
param_scheduler = [dict(type="PolyLR", power=0.9, begin=0, end=4, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=4, val_interval=2)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(checkpoint=dict(interval=2))
log_level = "WARNING"
"""


def write_task(folder: Path, *, count: int = 6, dropout: float = 0.1, flip: float = 0.5) -> Path:
    """Write images, labels and the config; return the config."""
    generator = np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        image = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        label = generator.integers(0, 3, (32, 32), dtype=np.uint8)
        cv2.imwrite(str(folder / "images" / f"{index}.png"), image)
        cv2.imwrite(str(folder / "labels" / f"{index}.png"), label)
    config = folder / "fcn_random.py"
    config.write_text(CONFIG.format(root=ROOT, data=folder, dropout=dropout, flip=flip))
    return config
