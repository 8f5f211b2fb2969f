"""The region configs: those on the shipped tiny CLIP run, the large ones read and build."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, MODELS, TRANSFORMS

from mmclipdis.apis.cli import UserInputError
from mmclipdis.apis.run import test as run_test
from mmclipdis.shapes.coco import Settings, write_dataset
from tests.paths import REAL_DATA, ROOT
from tests.processes import run_code

CONFIGS = ROOT / "configs"
SAMPLE = REAL_DATA / "coco_panoptic_sample"
LARGE = {
    "regions_vitb16_eva_coco-panoptic": (512, 35),
    "regions_vitl14-336_eva_coco-panoptic": (768, 40),
    "regions_vitb16_openai_coco-panoptic": (512, 35),
}
KEYS = {
    f"{kind}_{group}_macc{k}"
    for kind in ("rois", "maskpool", "crops")
    for group in ("thing", "stuff")
    for k in (1, 5)
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_dataset(folder, Settings(train=1, val=12, seed=3))
    return folder


def run(work_dir: Path, *options: str) -> dict[str, float]:
    config = str(CONFIGS / "shapes" / "regions.py")
    return run_test([config, "--work-dir", str(work_dir), "--cfg-options", *options])


def test_shapes_regions_are_named_better_than_by_chance(shapes, tmp_path) -> None:
    data = f"test_dataloader.dataset.data_root={shapes}/"
    qq = run(tmp_path, data)
    assert set(qq) == KEYS
    # of 18 classes, guessing hits 5.6 % and, among five, 27.8 %
    assert qq["rois_stuff_macc1"] > 40 and qq["maskpool_stuff_macc1"] > 40
    assert qq["maskpool_thing_macc5"] > 40 and qq["crops_thing_macc5"] > 60
    one = run(tmp_path, data, "test_dataloader.batch_size=1")
    assert one == pytest.approx(qq, abs=0.01)
    csa = run(tmp_path, data, "model.encoder.readout=csa", "model.regions=['maskpool']")
    assert len(csa) == 4 and csa["maskpool_thing_macc1"] != qq["maskpool_thing_macc1"]


@pytest.mark.parametrize("flags", [["--tta"], ["--show"], ["--show-dir", "d"], ["--out", "d"]])
def test_options_of_segmentation_are_refused(tmp_path, flags) -> None:
    arguments = [str(CONFIGS / "shapes" / "regions.py"), "--work-dir", str(tmp_path), *flags]
    with pytest.raises(UserInputError, match=f"{flags[0]} is for segmentation, .* of regions"):
        run_test(arguments)


def test_it_runs_without_mmseg(shapes, tmp_path) -> None:
    code = f"""
import sys
sys.modules["mmseg"] = sys.modules["mmdet"] = None  # as if they were not installed
from mmclipdis.apis.run import test
scores = test(["configs/shapes/regions.py", "--work-dir", {str(tmp_path)!r}, "--cfg-options",
               "test_dataloader.dataset.data_root={shapes}/", "model.regions=['rois']"])
assert len(scores) == 4, scores
"""
    result = run_code(code)
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the COCO sample is not here")
def test_real_coco_images_run(tmp_path) -> None:
    dataset = "test_dataloader.dataset"
    scores = run(
        tmp_path,
        f"{dataset}.data_root={SAMPLE}/",
        f"{dataset}.ann_file=panoptic_examples.json",
        f"{dataset}.data_prefix.img_path=input_images",
        f"{dataset}.data_prefix.seg_map_path=panoptic_examples",
        f"{dataset}.categories_file=panoptic_coco_categories.json",
        "model.templates=single",
    )
    assert set(scores) == KEYS
    assert all(0 <= value <= 100 for value in scores.values())


@pytest.mark.parametrize("name", sorted(LARGE))
def test_large_configs_build(name) -> None:
    config = Config.fromfile(CONFIGS / "declip" / f"{name}.py")
    dim, grid = LARGE[name]
    with torch.device("meta"):
        model = MODELS.build(config.model)
    assert model.encoder.embed_dim == model.text.encoder.embed_dim == dim
    loader = config.test_dataloader
    assert config.val_dataloader == loader
    views = next(t for t in loader.dataset.pipeline if t["type"] == "LetterboxRegions")
    assert (views["patch_size"],) * 2 == model.encoder.patch_size
    assert views["size"] // views["patch_size"] == grid
    assert all(TRANSFORMS.get(step["type"]) for step in loader.dataset.pipeline)
    assert DATASETS.get(loader.dataset.type) and METRICS.build(config.test_evaluator)
