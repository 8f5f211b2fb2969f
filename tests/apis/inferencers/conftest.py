"""Small models of all three tasks, built once, on a few photos of ShapeScenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmclipdis.apis import OpenVocabDetInferencer, OpenVocabSegInferencer, OpenVocabTagger
from mmclipdis.shapes.coco import Settings, write_dataset
from tests.apis.inferencers.colours import of_words
from tests.paths import ROOT

SHAPES = ROOT / "configs" / "shapes"


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two photos."""
    root = tmp_path_factory.mktemp("pictures")
    write_dataset(root, Settings(train=1, val=2, seed=3))
    return root / "images" / "val"


def random_checkpoint(config: Config, path: Path) -> Path:
    """A file with the weights of a config's model, untrained, and its base and novel things."""
    with DefaultScope.overwrite_default_scope(config.default_scope):
        torch.manual_seed(0)
        model = MODELS.build(config.model)
        model.init_weights()
    meta = {key: tuple(names) for key, names in config.metainfo.items()}
    torch.save({"state_dict": model.state_dict(), "meta": {"dataset_meta": meta}}, path)
    return path


@pytest.fixture(scope="session")
def fvit_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A config of F-ViT, untrained, with many boxes, and a checkpoint that knows base things."""
    config = Config.fromfile(SHAPES / "fvit.py")
    config.model.test_cfg.rpn.max_per_img = 20
    config.model.test_cfg.rcnn.update(max_per_img=30, score_thr=0.0)
    config.model.roi_head.bbox_head.templates = "a {}."
    return config, random_checkpoint(config, tmp_path_factory.mktemp("fvit") / "fvit.pth")


@pytest.fixture(scope="session")
def ovdquo(tmp_path_factory: pytest.TempPathFactory) -> OpenVocabDetInferencer:
    """OV-DQUO, untrained, with few queries."""
    config = Config.fromfile(SHAPES / "ovdquo.py")
    config.model.bbox_head.templates = "a {}."
    path = random_checkpoint(config, tmp_path_factory.mktemp("ovdquo") / "ovdquo.pth")
    return OpenVocabDetInferencer(config, path, device="cpu")


@pytest.fixture(scope="session")
def detector(fvit_files: tuple[Config, Path]) -> OpenVocabDetInferencer:
    config, path = fvit_files
    return OpenVocabDetInferencer(config, path, device="cpu")


@pytest.fixture(scope="session")
def tagger() -> OpenVocabTagger:
    return OpenVocabTagger(SHAPES / "dclip_zero_shot.py", device="cpu")


@pytest.fixture
def noise() -> np.ndarray:
    """A photo of 60 x 90 pixels."""
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


@pytest.fixture(scope="module")
def segmentor() -> OpenVocabSegInferencer:
    return OpenVocabSegInferencer(of_words(), device="cpu")
