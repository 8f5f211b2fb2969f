"""DCLIP's zero-shot segmentation configs: published values, and a test of each at a tiny size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmseg.datasets import PascalVOCDataset
from mmseg.registry import DATASETS, MODELS

from mmclipdis.clip.towers.readout import get_readout
from mmclipdis.models.projectors import Projectors
from tests.models.recognition import dclip_files as files
from tests.paths import ROOT

FOLDER = ROOT / "configs" / "dclip"
#: Values in a label map, classes of the data set, classes with a query.
SETS = {
    "rn101_voc12": (21, 21, 20),
    "rn101_coco17": (81, 81, 80),
    "rn101_coco17_nobg": (81, 80, 80),
    "rn101_cityscapes": (19, 19, 19),
    "rn101_context59": (60, 59, 59),
    "rn101_coco_stuff164k": (171, 171, 171),
    "rn101_coco_stuff91": (171, 91, 91),
    "rn101_ade20k": (151, 150, 150),
    "vitb16_voc12": (21, 21, 20),
}
PUBLISHED = {  # DCLIP, CLIP, CLIPSurgery, CLIP-VV
    "rn101_voc12": ("36.0", "14.1", "17.5", "32.6"),
    "vitb16_voc12": ("36.0", "14.1", "17.5", "32.6"),
    "rn101_coco17": ("22.7", "3.9", "13.0", "19.9"),
    "rn101_coco17_nobg": ("37.8", "5.6", "22.9", "35.5"),
}


def load(name: str) -> Config:
    return Config.fromfile(FOLDER / f"zs3_{name}.py")


def shrunk(name: str, folder: Path) -> Config:
    """The config with a small tower, projectors from a file, and two photos to segment."""
    config = load(name)
    head = config.model.decode_head
    files.shrink_encoders(config.model.backbone, head.text_encoder)
    torch.manual_seed(0)
    torch.save(Projectors(32, arch=head.text_encoder.arch.to_dict()).state_dict(), folder / "p.pth")
    head.projector = str(folder / "p.pth")
    dataset = config.test_dataloader.dataset
    files.write_segmentation(
        folder / "data", dataset, DATASETS.get(dataset.type), labels=SETS[name][0]
    )
    files.shrink_loader(config, "test_dataloader", folder / "data", side=96)
    for part in ("val_dataloader", "val_evaluator", "val_cfg"):
        config[part] = None
    config.work_dir = str(folder / "work")
    return config


def test_there_is_a_config_for_every_set():
    assert {path.stem for path in FOLDER.glob("zs3_*.py")} == {f"zs3_{name}" for name in SETS}


@pytest.mark.parametrize("name", SETS)
def test_config_segments(name, tmp_path):
    _, classes, queries = SETS[name]
    runner = Runner.from_cfg(shrunk(name, tmp_path))
    metrics = runner.test()
    assert 0 <= metrics["mIoU"] <= 100
    assert len(runner.test_dataloader.dataset.metainfo["classes"]) == classes
    head = runner.model.decode_head
    assert head.num_classes == classes and len(head.embeddings()) == queries
    assert runner.model.backbone(torch.zeros(1, 3, 96, 96))[-1].shape[1] == 32


@pytest.mark.parametrize(
    "options",
    [
        {"model.decode_head.projector": None},
        {"model.backbone.readout": "v", "model.backbone.positions": "size"},
        {"model.decode_head.score_norm": "minmax"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_option_of_the_comments_changes_the_scores(options, tmp_path):
    config = shrunk("rn101_coco17_nobg", tmp_path)
    config.model.decode_head.vocabulary = ["dog", "cat"]
    config.model.test_cfg.return_probs = True
    usual = scores(config)
    config.merge_from_dict(options)
    assert not torch.allclose(scores(config), usual, atol=1e-3)


def scores(config: Config) -> torch.Tensor:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmseg"):
        model = MODELS.build(config.model).eval()
    image = torch.arange(3 * 96 * 96).reshape(1, 3, 96, 96) % 7 / 3.5 - 1
    (sample,) = model.predict(image)
    return sample.seg_logits.data


@pytest.mark.parametrize("name", SETS)
def test_config_has_the_published_protocol(name):
    config = load(name)
    backbone, head = config.model.backbone, config.model.decode_head
    resnet = name.startswith("rn101")
    arch = "RN101-quickgelu" if resnet else "ViT-B-16-quickgelu"
    assert backbone.arch == head.text_encoder.arch == arch
    assert backbone.init_cfg == head.text_encoder.init_cfg
    if resnet:
        kind = (backbone.type, backbone.readout, backbone.positions)
        assert kind == ("CLIPResNet", "vv", "bilinear")
    else:
        files.shrink_encoders(backbone)
        backbone = MODELS.build(backbone)
        kind = (backbone.readout, backbone.tower.positions)
        assert kind == (get_readout("clip_surgery"), "bilinear")
    folder = f"dclip_{name.split('_')[0]}_coco14"
    assert head.projector == f"work_dirs/{folder}/epoch_50.pth"
    assert (FOLDER / f"{folder}.py").is_file()
    assert (head.templates, head.logit_scale) == ("single", 100)
    background = name.endswith(("voc12", "coco17"))
    assert head.get("prob_thd", 0) == (0.85 if background else 0)
    assert head.get("background", "query") == ("threshold" if background else "query")
    assert config.model.test_cfg.mode == "whole"
    for loader in (config.val_dataloader, config.test_dataloader):
        (resize,) = [step for step in loader.dataset.pipeline if step.type == "Resize"]
        assert (resize.scale, resize.keep_ratio) == ((448, 448), False)
    text = Path(config.filename).read_text()
    if name in PUBLISHED:
        dclip, clip, surgery, vv = PUBLISHED[name]
        assert f"Published: {dclip} mIoU" in text
        assert f"CLIP {clip}, CLIPSurgery {surgery}, CLIP-VV {vv}." in text
    else:
        assert "Published as a bar of Figure 6 only" in text
    assert "Not run here" in text and "IoU of each image" in text


def test_names_of_voc_are_words_and_those_of_coco_in_order():
    names = load("rn101_voc12").model.decode_head.vocabulary
    tokens = PascalVOCDataset.METAINFO["classes"]
    changed = {token: name for token, name in zip(tokens, names, strict=True) if token != name}
    assert changed == {
        "diningtable": "dining table",
        "pottedplant": "potted plant",
        "tvmonitor": "tv/monitor",
    }
    things = load("rn101_coco17_nobg").test_dataloader.dataset.metainfo.classes
    dataset = DATASETS.get("COCOObjectDataset")
    assert tuple(things) == dataset.METAINFO["classes"][1:]


def test_without_background_its_pixels_are_ignored(tmp_path):
    config = shrunk("rn101_coco17_nobg", tmp_path)
    with DefaultScope.overwrite_default_scope("mmseg"):
        dataset = DATASETS.build(config.test_dataloader.dataset)
        whole = DATASETS.build({**config.test_dataloader.dataset, "metainfo": None})
    for index in range(2):
        own, every = (d[index]["data_samples"].gt_sem_seg.data for d in (dataset, whole))
        assert (every == 0).any() and every.unique().numel() > 50
        assert torch.equal(own == 255, (every == 0) | (every == 255))
        kept = own != 255
        assert torch.equal(own[kept], every[kept] - 1)


def test_of_stuff_alone_things_are_ignored(tmp_path):
    config = shrunk("rn101_coco_stuff91", tmp_path)
    names = DATASETS.get("COCOStuffDataset").METAINFO["classes"]
    assert tuple(config.test_dataloader.dataset.metainfo.classes) == names[80:]
    with DefaultScope.overwrite_default_scope("mmseg"):
        dataset = DATASETS.build(config.test_dataloader.dataset)
        whole = DATASETS.build({**config.test_dataloader.dataset, "metainfo": None})
    for index in range(2):
        own, every = (d[index]["data_samples"].gt_sem_seg.data for d in (dataset, whole))
        assert every.unique().numel() > 150
        assert torch.equal(own == 255, (every < 80) | (every == 255))
        kept = own != 255
        assert torch.equal(own[kept], every[kept] - 80)


def test_missing_projectors_are_one_error(tmp_path):
    config = shrunk("rn101_voc12", tmp_path)
    config.model.decode_head.projector = "work_dirs/dclip_rn101_coco14/gone.pth"
    with pytest.raises(FileNotFoundError, match=r"no projectors at .*gone.pth.*tools/train.py"):
        MODELS.build(config.model)
