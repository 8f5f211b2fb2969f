"""Every training-free benchmark is tested by the runner, on a miniature in its own file layout.

Only ViT-B/16 configs: those of ViT-L/14 differ in nothing else (test_training_free_configs.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import DATASETS
from PIL import Image

from tests.models.segmentation.test_training_free_configs import CLEARCLIP, METHODS, load, shrink

SIZES = {"a": (40, 56), "b": (48, 36)}


def write_miniature(root: Path, dataset: dict[str, Any]) -> None:
    """Two photos of different size with random labels, where the config looks for them."""
    prefix = dataset["data_prefix"]
    split = dataset.get("ann_file", "")
    (root / prefix["img_path"]).mkdir(parents=True)
    (root / prefix["seg_map_path"]).mkdir(parents=True, exist_ok=True)
    if split:
        (root / split).parent.mkdir(parents=True)
        (root / split).write_text("\n".join(SIZES) + "\n")
    # An empty instance tells suffixes and whether label 0 is ignored.
    changed = {"data_root": str(root), "pipeline": [], "lazy_init": True}
    probe = DATASETS.build({**dataset, **changed})
    shift = int(probe.reduce_zero_label)
    rng = np.random.default_rng(0)
    for name, size in SIZES.items():
        photo = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        labels = rng.integers(0, len(probe.metainfo["classes"]) + shift, size).astype(np.uint8)
        Image.fromarray(photo).save(root / prefix["img_path"] / f"{name}{probe.img_suffix}")
        Image.fromarray(labels).save(
            root / prefix["seg_map_path"] / f"{name}{probe.seg_map_suffix}"
        )


def at_tiny_size(config: Config, root: Path) -> Config:
    """The config with a tiny CLIP, small photos and small windows, on the miniature."""
    dataset = config.test_dataloader.dataset
    dataset.data_root = str(root)
    dataset.pipeline[1].scale = (2048, 48)
    dataset.serialize_data = False
    config.test_dataloader.update(num_workers=0, persistent_workers=False, batch_size=2)
    config.model = shrink(config)
    config.model.test_cfg.update(crop_size=(32, 32), stride=(16, 16))
    config.work_dir = str(root / "work")
    config.log_level = "ERROR"
    for part in ("val_dataloader", "val_evaluator", "val_cfg"):
        config.pop(part)
    return config


@pytest.mark.parametrize("benchmark", CLEARCLIP)
@pytest.mark.parametrize("method", METHODS)
def test_config_tests_a_miniature(method: str, benchmark: str, tmp_path: Path) -> None:
    config = load(method, "vitb16", benchmark)
    config.experiment_name = f"{method}_{benchmark}"
    write_miniature(tmp_path, config.test_dataloader.dataset.to_dict())
    metrics = Runner.from_cfg(at_tiny_size(config, tmp_path)).test()
    assert 0 <= metrics["mIoU"] <= 100
    assert 0 <= metrics["aAcc"] <= 100
