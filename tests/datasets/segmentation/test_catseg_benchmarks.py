"""The test configs of CAT-Seg's benchmarks: one a model and benchmark, each really tests."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS, MODELS
from PIL import Image

from mmclipdis.apis.run import test as run_test
from tests.datasets.segmentation.benchmark_files import BENCHMARKS, IGNORED
from tests.models.segmentation.catseg.tiny import shrink_model
from tests.paths import ROOT

#: Folders of configs, and how the names of the files begin.
METHODS = {"catseg": "catseg", "declip": "catseg", "infoclip": "infoclip"}
ARCHS = ("vitb16", "vitl14-336")
ALL = [(method, arch, name) for method in METHODS for arch in ARCHS for name in BENCHMARKS]
CLASSES = {"a847": 847, "pc459": 459, "a150": 150, "pc59": 59, "pas20": 20, "pas20b": 59}
#: Labels in the files that stand for one ignored pixel and the classes 0, 1 and the last.
RAW = {
    "a847": (IGNORED, 0, 1, 846),
    "pc459": (IGNORED, 0, 1, 458),
    "a150": (0, 1, 2, 150),
    "pc59": (0, 1, 2, 59),
    "pas20": (0, 1, 2, 20),
    "pas20b": (255, 1, 2, 0),
}


def path_of(method: str, arch: str, name: str) -> Path:
    return ROOT / "configs" / method / f"{METHODS[method]}_{arch}_{name}.py"


def expected_labels(name: str) -> list[int]:
    """What the labels of ``RAW`` become, ascending."""
    last = 20 if name == "pas20b" else CLASSES[name] - 1
    return [0, 1, last, 255 if BENCHMARKS[name].bits == 8 else IGNORED]


@cache
def load(method: str, arch: str, name: str) -> Config:
    return Config.fromfile(path_of(method, arch, name))


def catseg(model: Any) -> Any:
    """The CATSeg of a model config, which may be wrapped."""
    return model.get("segmentor", model)


@pytest.mark.parametrize(("method", "arch", "name"), ALL)
def test_a_config_builds_its_data_and_has_the_published_protocol(
    method: str, arch: str, name: str, tmp_path: Path
) -> None:
    config = load(method, arch, name)
    text = path_of(method, arch, name).read_text()
    assert f"tools/test.py configs/{method}/{METHODS[method]}_{arch}_{name}.py CHECKPOINT" in text
    assert re.search(r"Published: \d\d\.\d mIoU", text) and "Not run here" in text
    model = catseg(config.model)
    assert config.model.type == ("InfoCLIP" if method == "infoclip" else "CATSeg")
    assert model.type == "CATSeg" and "vocabulary" not in model
    assert (model.test_cfg.mode, model.test_cfg.size) == ("slide_with_global", (640, 640))
    assert model.clip_size == ((384, 384) if arch == "vitb16" else (336, 336))
    loader, evaluator = config.test_dataloader, config.test_evaluator
    assert loader.dataset.pipeline[1] == {
        "type": "ResizeShortestEdgePIL",
        "scale": 640,
        "max_size": 2560,
    }
    assert evaluator.present_only
    assert evaluator.get("ignore_index", 255) == (255 if BENCHMARKS[name].bits == 8 else IGNORED)
    root = BENCHMARKS[name].write(tmp_path, {"a": [list(RAW[name])]})
    with DefaultScope.overwrite_default_scope("mmseg"):
        data = DATASETS.build({**loader.dataset, "data_root": str(root)})
    assert data[0]["data_samples"].gt_sem_seg.data.unique().tolist() == expected_labels(name)
    assert len(data) == 1 and len(data.metainfo["classes"]) == CLASSES[name]


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("method", METHODS)
def test_they_fit_what_the_training_config_trains_and_promises(method: str, arch: str) -> None:
    trained = path_of(method, arch, "coco-stuff")
    model = catseg(Config.fromfile(trained).model)
    assert all(catseg(load(method, arch, name).model) == model for name in BENCHMARKS)
    promised = re.findall(r"\b\d\d\.\d\b", trained.read_text().split("_base_")[0])
    configs = [path_of(method, arch, name).read_text() for name in BENCHMARKS]
    assert promised[:6] == re.findall(r"Published: (\d\d\.\d) mIoU", "".join(configs))


def plain_text(config: Config) -> str:
    """A config as Python, unformatted."""
    return "".join(f"{key} = {value!r}\n" for key, value in config.to_dict().items())


def write_tiny(config: Config, folder: Path, root: Path) -> tuple[str, str]:
    """The config at a tiny size, and a checkpoint of random weights for it."""
    config = Config(config.to_dict())
    shrink_model(catseg(config.model), patch=16)
    loader = config.test_dataloader
    loader.update(num_workers=0, persistent_workers=False)
    loader.dataset.data_root = str(root)
    loader.dataset.pipeline[1].scale = 64
    config.default_hooks.visualization.interval = 1
    torch.manual_seed(0)
    torch.save({"state_dict": MODELS.build(config.model).state_dict()}, folder / "tiny.pth")
    config.dump(folder / "tiny.py")
    return str(folder / "tiny.py"), str(folder / "tiny.pth")


@pytest.mark.parametrize(
    ("method", "name"),
    [*(("catseg", name) for name in BENCHMARKS), ("declip", "a150"), ("infoclip", "pas20b")],
)
def test_a_benchmark_is_tested_painted_and_written(method: str, name: str, tmp_path: Path) -> None:
    """Through tools/test.py: its numbers are those of the label maps that it writes."""
    raw = np.random.default_rng(0).choice(RAW[name], (50, 70))
    root = BENCHMARKS[name].write(tmp_path / "data", {"a": raw})
    config, checkpoint = write_tiny(load(method, "vitb16", name), tmp_path, root)
    folders = {flag: tmp_path / flag for flag in ("out", "show-dir", "work-dir")}
    flags = [text for flag, folder in folders.items() for text in (f"--{flag}", str(folder))]
    options = ["--cfg-options", f"experiment_name={tmp_path.name}"]
    metrics = run_test([config, checkpoint, *flags, *options])

    last = expected_labels(name)[2]
    true = np.select([raw == value for value in RAW[name]], [-1, 0, 1, last])
    with Image.open(folders["out"] / "a.png") as picture:
        found = np.asarray(picture).astype(int)
    found -= name in ("a150", "pc59", "pas20")  # written as their labels are, from 1
    assert found.max() <= last
    found[true == -1] = -1
    overlap = [((found == c) & (true == c)).sum() / ((found == c) | (true == c)).sum()
               for c in (0, 1, last)]  # fmt: skip
    assert metrics["mIoU_present"] == pytest.approx(100 * np.mean(overlap), abs=0.006)
    predicted = set(found.ravel()) - {-1}
    whole = 100 * np.sum(overlap) / len(predicted | {0, 1, last})
    assert metrics["mIoU"] == pytest.approx(whole, abs=0.006)
    assert len(list(folders["show-dir"].rglob("*.png"))) == 1


def test_catseg_trains_on_labels_of_sixteen_bits(tmp_path: Path) -> None:
    """The loss is BCE against one-hot labels, zero everywhere for 65535, file to logit."""
    raw = np.random.default_rng(0).choice([IGNORED, 0, 255, 700, 846], (50, 70))
    root = BENCHMARKS["a847"].write(tmp_path, {"a": raw, "b": raw.T})
    config = Config(load("catseg", "vitb16", "a847").to_dict())
    shrink_model(config.model, patch=16)
    config.model.decode_head.ignore_index = IGNORED
    config.model.data_preprocessor.seg_pad_val = IGNORED
    config.test_dataloader.dataset.pipeline = [
        dict(type="LoadReadableImage"),
        dict(type="LoadReadableAnnotations"),
        dict(type="ResizeShortestEdgePIL", scale=64, max_size=1333),
        dict(type="RandomCrop", crop_size=(60, 60)),  # the preprocessor pads to 64
        dict(type="PackSegInputs"),
    ]
    with DefaultScope.overwrite_default_scope("mmseg"):
        data = DATASETS.build({**config.test_dataloader.dataset, "data_root": str(root)})
        torch.manual_seed(0)
        model = MODELS.build({**config.model, "vocabulary": data.metainfo["classes"]})
    batch = model.data_preprocessor(pseudo_collate([data[0], data[1]]), training=True)
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in batch["data_samples"]])
    assert labels.unique().tolist() == [0, 255, 700, 846, IGNORED]
    assert (labels[:, 60:] == IGNORED).all()
    loss = model(**batch, mode="loss")["decode.loss_bce"]
    logits = F.interpolate(model(batch["inputs"], mode="tensor"), (64, 64), mode="bilinear")
    target = (labels[:, None] == torch.arange(847).view(1, -1, 1, 1)).float()
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits, target))
    model.decode_head.ignore_index = 255
    with pytest.raises(ValueError, match=r"a\.tif has 65535; .*b\.tif has 65535; with 847"):
        model(**batch, mode="loss")
