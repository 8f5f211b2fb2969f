"""The README's three ways to use the package work as they are written there.

Weights cannot be downloaded here, so the tiny CLIP that ships stands for OpenAI's, ShapeScenes for
the data and an iteration for 80,000. What is replaced stands in :data:`IN_PLACE_OF`; each of these
texts must be in the README.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import mmseg
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import Runner, save_checkpoint
from mmseg.apis import MMSegInferencer, inference_model, init_model
from mmseg.registry import MODELS
from PIL import Image

from mmclipdis.apis.run import test as run_test
from mmclipdis.apis.run import train as run_train
from mmclipdis.commands.__main__ import command
from mmclipdis.shapes.coco import Settings, write_dataset
from mmclipdis.shapes.world import CLASSES
from tests.models.test_stock_configs import (
    BATCH_NORM,
    detection_batch,
    faster_rcnn,
    one_step,
    predicted_boxes,
    seg_batch,
)
from tests.paths import ROOT
from tests.tiny import tiny_arch

STOCK = Path(mmseg.__file__).parent / ".mim"
IN_PLACE_OF = {
    # the first way
    "configs/clearclip/clearclip_vitb16_ade20k.py": "configs/shapes/clearclip.py",
    "configs/declip/catseg_vitb16_coco-stuff.py": "configs/shapes/catseg_declip.py",
    "work_dirs/declip_catseg_vitb16_coco-stuff": "work_dirs/catseg_declip",
    "iter_80000.pth": "iter_1.pth",
    # the second
    "'ViT-B-16-quickgelu'": "'shapes-tiny'",
    "checkpoint='openai'": "checkpoint='shapes'",
    "'ADE20KDataset'": "'ShapeScenesDataset'",
    # the third
    "'clearclip-vitb16'": "'clearclip-shapes'",
    "configs/clearclip/clearclip_vitb16_voc20.py": "configs/shapes/clearclip.py",
}
README = (ROOT / "README.md").read_text(encoding="utf-8")
WAYS = README.split("## Three ways to use it")[1].split("\n## ")[0]


def blocks(language: str, way: int) -> list[str]:
    """The fenced blocks of one of the ways, with what is replaced."""
    part = re.split(r"(?m)^\*\*\d\. ", WAYS)[way]
    found = re.findall(rf"(?ms)^```{language}\n(.*?)^```", part)
    for text, replacement in IN_PLACE_OF.items():
        found = [block.replace(text, replacement) for block in found]
    return found


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_dataset(folder, Settings(train=2, val=2, seed=3))
    return folder


@pytest.fixture
def clone(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like the clone in which the README's commands are typed, after ``make demo``."""
    for name in ("configs", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "shapes").symlink_to(shapes)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCAL_RANK", "0")  # mmseg's tools write it
    return tmp_path


def test_what_is_replaced_stands_in_the_readme() -> None:
    assert not [text for text in IN_PLACE_OF if text not in WAYS]
    main = Config.fromfile(ROOT / "configs/declip/catseg_vitb16_coco-stuff.py")
    assert main.work_dir == "work_dirs/declip_catseg_vitb16_coco-stuff"
    assert main.train_cfg.max_iters == 80000
    assert main.train_dataloader.batch_size == 4
    assert [len(blocks(*block)) for block in (("bash", 1), ("python", 2), ("python", 3))] == [
        1,
        1,
        2,
    ]


@pytest.mark.slow
def test_first_way_the_commands(clone: Path) -> None:
    commands = [
        shlex.split(line, comments=True)
        for line in blocks("bash", 1)[0].replace("\\\n", " ").splitlines()
    ]
    assert [words[:2] for words in commands] == [
        ["python", "tools/test.py"],
        ["python", "tools/train.py"],
        ["python", "tools/test.py"],
        ["bash", "tools/dist_train.sh"],
    ]
    short = ["train_cfg.max_iters=1", "train_dataloader.batch_size=2", "log_level=WARNING"]
    for _, script, *words in commands[:3]:
        if script == "tools/train.py":
            run_train([*words, "--cfg-options", *short])
        else:
            one_view = ["--cfg-options", "model.test_cfg.mode=whole"]
            assert run_test([*words, *one_view])["mIoU"] > 0
    assert (clone / "work_dirs" / "catseg_declip" / "iter_1.pth").is_file()
    environment = {**os.environ, "PYTHON": "echo"}
    shown = subprocess.check_output(commands[3], env=environment, cwd=clone, text=True)
    assert "torch.distributed.run" in shown and "--nproc_per_node=4" in shown
    config, processes, *options = commands[3][2:]
    assert processes == "4"
    assert shown.rstrip().endswith(" ".join([config, "--launcher pytorch", *options]))
    loaded = Config.fromfile(config)
    loaded.merge_from_dict(dict(option.split("=") for option in options[1:]))
    assert str(loaded.train_dataloader.batch_size) == "1"


@pytest.fixture(scope="module")
def block() -> Any:
    """The config of the second way, as mmengine reads it."""
    return Config.fromstring(blocks("python", 2)[0], ".py")


@pytest.fixture
def own_config(block: Any, clone: Path) -> Path:
    """It in somebody's own config, on mmseg's default runtime; weights beside it."""
    runtime = STOCK / "configs" / "_base_" / "default_runtime.py"
    bases = [str(runtime), str(ROOT / "configs/_base_/datasets/shapes_test.py")]
    text = f"_base_ = {bases}\nmodel = None\n{blocks('python', 2)[0]}"
    path = clone / "mine.py"
    path.write_text(text, encoding="utf-8")
    init_default_scope("mmseg")
    model = MODELS.build(Config.fromfile(path).model)
    model.init_weights()
    saved = {"state_dict": model.state_dict(), "meta": {"dataset_meta": {"classes": CLASSES}}}
    save_checkpoint(saved, str(path.with_suffix(".pth")))
    return path


def stock(monkeypatch: pytest.MonkeyPatch, tool: str, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", [tool, *map(str, words)])
    runpy.run_path(str(STOCK / "tools" / tool), run_name="__main__")


@pytest.mark.slow
def test_second_way_in_mmsegs_own_tools(own_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, work = own_config.with_suffix(".pth"), own_config.parent / "work"
    stock(monkeypatch, "test.py", own_config, weights, "--work-dir", work, "--out", work / "maps")
    assert len(list((work / "maps").glob("*.png"))) == 2
    photo = own_config.parent / "data/shapes/images/val/000000000000.png"
    model = init_model(str(own_config), str(weights), device="cpu")
    assert inference_model(model, str(photo)).label_names == list(CLASSES)
    inferencer = MMSegInferencer(str(own_config), str(weights), device="cpu")
    found = inferencer(str(photo), out_dir=str(work / "drawn"))
    assert np.array_equal(found["predictions"], np.asarray(Image.open(work / "maps" / photo.name)))
    model.decode_head.set_vocabulary(["grass", "sand"])
    assert inference_model(model, str(photo)).label_names == ["grass", "sand"]


@pytest.mark.slow
def test_second_way_trained_by_mmengines_runner(own_config: Path) -> None:
    assert "With `trainable=('q', 'v')`, and the crops' `size` in the preprocessor" in WAYS
    config = Config.fromfile(own_config)
    data = Config.fromfile(ROOT / "configs/_base_/datasets/shapes.py")
    config.model.backbone.trainable = ("q", "v")
    config.model.data_preprocessor.size = data.crop_size
    config.train_dataloader = data.train_dataloader
    config.train_dataloader.update(batch_size=2)
    config.train_dataloader.dataset.pop("metainfo")  # all classes, as the vocabulary has them
    config.train_cfg = dict(type="IterBasedTrainLoop", max_iters=1, val_interval=1)
    config.optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.1))
    config.work_dir = str(own_config.parent / "trained")
    runner = Runner.from_cfg(config)
    runner.train()
    untrained = MODELS.build(config.model)
    untrained.init_weights()
    start, now = untrained.state_dict(), runner.model.state_dict()
    moved = {name for name in start if not torch.equal(now[name], start[name])}
    assert moved and all(re.search(r"backbone.*[qv]_proj", name) for name in moved)


def out_indices() -> tuple[int, ...]:
    found = re.search(r"`out_indices=\(([\d, ]+)\)` the same backbone feeds UPerNet", WAYS)
    assert found is not None
    return tuple(int(index) for index in found[1].split(","))


def backbone_of(block: Any) -> Any:
    """The block's backbone with twelve blocks, random, and what the README adds to it."""
    backbone = block.model.backbone.copy()
    backbone.pop("init_cfg")
    backbone.update(arch=tiny_arch(layers=12), out_indices=out_indices(), trainable=("all",))
    return backbone


def test_second_way_feeds_upernet(block: Any) -> None:
    init_default_scope("mmseg")
    config = Config.fromfile(STOCK / "configs/_base_/models/upernet_vit-b16_ln_mln.py").model
    config.pretrained = None
    config.backbone = backbone_of(block)
    config.neck.update(in_channels=[64] * 4, out_channels=16)
    config.decode_head.update(in_channels=[16] * 4, channels=16, num_classes=5, norm_cfg=BATCH_NORM)
    config.auxiliary_head.update(in_channels=16, channels=16, num_classes=5, norm_cfg=BATCH_NORM)
    config.data_preprocessor.update(block.model.data_preprocessor, size=(64, 96))
    loss, _ = one_step(MODELS.build(config), seg_batch())
    assert np.isfinite(loss)


def test_second_way_feeds_faster_rcnn(block: Any) -> None:
    from mmdet.registry import MODELS as DETECTORS

    DefaultScope.get_instance("readme", scope_name="mmdet")
    levels = dict(
        type="mmseg.Feature2Pyramid", embed_dim=64, rescales=[4, 2, 1, 0.5], norm_cfg=BATCH_NORM
    )
    model, batch = DETECTORS.build(faster_rcnn(backbone_of(block), [levels])), detection_batch()
    loss, _ = one_step(model, batch)
    assert np.isfinite(loss)
    assert predicted_boxes(model, batch).shape[1] == 4


def test_third_way_from_python(clone: Path) -> None:
    photo = np.zeros((96, 128, 3), dtype=np.uint8)
    photo[48:] = 180
    Image.fromarray(photo).save(clone / "street.jpg")
    (clone / "photos").symlink_to(clone / "data" / "shapes" / "images" / "val")
    names: dict[str, Any] = {}
    for code, found in zip(
        blocks("python", 3), ("road tree car sky", "road tree sky"), strict=True
    ):
        exec(compile(code, "README.md", "exec"), names)
        shares = names["result"].shares()
        assert sum(shares.values()) == pytest.approx(1)
        assert set(shares) <= {*found.split(), "none"}
    assert names["result"].path == Path("photos/000000000001.png")
    assert (clone / "street_segmented.png").is_file()


def test_the_first_lines_in_python(clone: Path) -> None:
    (clone / "photo.jpg").symlink_to(clone / "data/shapes/images/val/000000000000.png")
    code = re.findall(r"(?ms)^```python\n(.*?)^```", README.split("## Two commands")[0])
    names: dict[str, Any] = {}
    for block in reversed(code):  # the import stands in the second one
        exec(compile(block, "README.md", "exec"), names)
    assert len(code) == 2
    assert (clone / "results" / "photo.png").is_file()
    assert (clone / "apple.png").is_file()


def test_the_first_lines_in_a_terminal(clone: Path) -> None:
    """Every command of the README parses; the three that search find the photos."""
    (clone / "photo.jpg").symlink_to(clone / "data/shapes/images/val/000000000000.png")
    (clone / "photos").symlink_to(clone / "data" / "shapes" / "images" / "val")
    lines = [
        shlex.split(line)
        for block in re.findall(r"(?ms)^```bash\n(.*?)^```", README)
        for line in block.splitlines()
        if line.startswith("mmclipdis ")
    ]
    assert [words[1] for words in lines] == ["segment", "detect", "segment"]
    for number, words in enumerate(lines):
        words[words.index("results/")] = f"results_{number}"
        assert command(words[1:]) == 0
        assert len(list((clone / f"results_{number}").glob("*.png"))) == (1 if number == 2 else 2)
