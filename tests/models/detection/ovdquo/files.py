"""A folder with ShapeScenes, pseudo boxes for it, and a config file of a small OV-DQUO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmclipdis.shapes.coco import Settings, write_dataset
from tests.models.detection.ovdquo import tiny
from tests.paths import ROOT

EMA = dict(type="EMAHook", momentum=4e-5, update_buffers=True, priority=49)


def write_files(folder: Path, train: int = 8, iterations: int = 4) -> Config:
    """Write ``ovdquo.py``, and the data it names; return the config."""
    write_dataset(folder / "data", Settings(train=train, val=3, seed=3))
    notes = json.loads((folder / "data/annotations/instances_train.json").read_text())
    unknown = [
        dict(image_id=note["image_id"], bbox=note["bbox"], category_id=-1, pseudo=1, weight=0.5)
        for note in notes["annotations"][::2]
    ]
    (folder / "pseudo.json").write_text(json.dumps(unknown))
    config = Config.fromfile(ROOT / "configs/shapes/ovdquo.py")
    config.model.update(num_queries=tiny.QUERIES, dn_cfg=dict(num_queries=60))
    config.model.data_preprocessor.pad_size_divisor = tiny.SIDE
    config.model.bbox_head.templates = "a {}."
    for phase in ("train", "val", "test"):
        data = config[f"{phase}_dataloader"].dataset
        data.data_root = f"{folder}/data"
        for step in data.pipeline:
            _shrink(step)
    for phase in ("val", "test"):
        config[f"{phase}_evaluator"].ann_file = f"{folder}/data/annotations/instances_val.json"
    config.train_dataloader.batch_size = 2
    config.train_dataloader.dataset.pseudo_boxes = f"{folder}/pseudo.json"
    config.train_cfg.update(max_iters=iterations, val_interval=2)
    config.param_scheduler = None
    config.custom_hooks = [*config.get("custom_hooks", []), EMA]
    config.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=-1)
    config.default_hooks.logger = dict(type="LoggerHook", interval=1)
    config.log_level = "ERROR"
    config.dump(folder / "ovdquo.py")
    return config


def _shrink(step: Any) -> None:
    for name in ("scale", "crop_size"):
        if name in step:
            step[name] = (tiny.SIDE, tiny.SIDE)
