"""Table 5 of DCLIP: configs of CLIP on whole images, and on the segments that DCLIP finds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mmclipdis.models.projectors import Projectors
from tests.models.recognition import dclip_files as files
from tests.paths import ROOT

FOLDER = ROOT / "configs" / "dclip"
PUBLISHED = {  # mAP: CLIP, CLIP and segments
    "rn101_voc2007": ("78.73", "80.71"),
    "rn50_voc2007": ("76.20", "79.87"),
    "rn101_coco14": ("50.10", "52.00"),
    "rn50_coco14": ("47.30", "50.15"),
}
ALL = [f"{kind}_{name}" for kind in ("clip", "segments") for name in PUBLISHED]


def load(name: str) -> Config:
    return Config.fromfile(FOLDER / f"{name}.py")


def shrunk(name: str, folder: Path) -> Config:
    """The config with small towers, projectors from a file, and four photos."""
    config = load(name)
    model = config.model
    files.shrink_encoders(model.encoder, model.text_encoder)
    model.image_size = 64
    if "segments" in model:
        torch.manual_seed(0)
        projectors = Projectors(32, arch=model.text_encoder.arch.to_dict())
        torch.save(projectors.state_dict(), folder / "p.pth")
        model.segments.update(projector=str(folder / "p.pth"), size=128, crop_size=64)
    (files.write_voc2007 if "voc" in name else files.write_coco14)(folder / "data")
    files.shrink_loader(config, "test_dataloader", folder / "data", side=96)
    for part in ("train_dataloader", "val_dataloader", "val_evaluator", "val_cfg"):
        config[part] = None
    config.work_dir = str(folder / "work")
    return config


@pytest.mark.parametrize("name", ALL)
def test_config_tests(name, tmp_path, monkeypatch):
    runner = Runner.from_cfg(shrunk(name, tmp_path))
    assert 0 < runner.test()["mAP"] <= 100
    images = torch.randn(2, 3, 96, 96)
    logits = runner.model.logits(images)
    assert logits.shape == (2, 20 if "voc" in name else 80)
    if name.startswith("segments"):
        segments = runner.model.segments
        halves = torch.arange(96).expand(2, 96, 96) // 48  # two segments, whatever is found
        monkeypatch.setattr(segments, "labels", lambda maps, text, size: halves)
        both = runner.model.logits(images)
        segments.min_area = 0.6  # larger than a half: nothing but the whole image is left
        whole = runner.model.logits(images)
        assert (both >= whole).all() and (both > whole).any()


@pytest.mark.parametrize("name", PUBLISHED)
def test_config_has_the_published_values(name):
    arch = name.split("_")[0]
    pair = [load(f"{kind}_{name}") for kind in ("clip", "segments")]
    for config in pair:
        model = config.model
        assert model.encoder.arch == model.text_encoder.arch == f"{arch.upper()}-quickgelu"
        assert model.encoder.init_cfg == model.text_encoder.init_cfg
        assert (model.encoder.readout, model.encoder.positions) == ("vv", "bilinear")
        assert (model.image_size, model.templates) == (224, "single")
    segments = pair[1].model.pop("segments")
    assert pair[0].to_dict() == pair[1].to_dict()
    assert segments.projector == f"work_dirs/dclip_{arch}_coco14/epoch_50.pth"
    assert (FOLDER / f"dclip_{arch}_coco14.py").is_file()
    assert (segments.size, segments.min_area, segments.reduce) == (448, 0.01, "max")
    for config, value in zip(pair, PUBLISHED[name], strict=True):
        text = Path(config.filename).read_text()
        assert f"Published: {value} mAP" in text and "Not run here" in text


def test_missing_projectors_are_one_error(tmp_path):
    config = shrunk("segments_rn50_voc2007", tmp_path)
    config.model.segments.projector = "work_dirs/gone.pth"
    with pytest.raises(FileNotFoundError, match=r"no projectors at .*gone.pth.*tools/train.py"):
        MODELS.build(config.model)
