"""mmdet's own tools and inferencers on OV-DQUO, called as a person calls them."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import mmcv
import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

pytest.importorskip("mmdet")

import mmdet
from mmdet.apis import DetInferencer, inference_detector, init_detector

from tests.faults.endings import raises
from tests.models.detection.ovdquo.files import write_files
from tests.models.detection.ovdquo.tiny import build

TOOLS = Path(mmdet.__file__).parent / ".mim" / "tools"
NOVEL = ("watermelon", "kite", "mushroom")


@pytest.fixture(autouse=True)
def mmdet_scope() -> None:
    DefaultScope.get_instance("test-stock-ovdquo", scope_name="mmdet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config file on three photos, and a checkpoint as a training leaves it."""
    root = tmp_path_factory.mktemp("stock")
    config = write_files(root, train=2)
    config.model.test_cfg.update(target_class_factor=3.0, max_per_img=6)
    config.dump(root / "ovdquo.py")
    model = build(config.model, told=False)
    meta = {key: tuple(names) for key, names in config.metainfo.items()}
    torch.save(
        {"state_dict": model.state_dict(), "meta": {"dataset_meta": meta}}, root / "ovdquo.pth"
    )
    return root


@pytest.fixture
def tool(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run one of mmdet's tools on the config file, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("LOCAL_RANK", "0")

    def run(name: str, *words: object, config: Path = folder / "ovdquo.py") -> None:
        monkeypatch.setattr(sys, "argv", [name, str(config), *map(str, words)])
        runpy.run_path(str(TOOLS / name), run_name="__main__")

    return run


@pytest.fixture(scope="module")
def inferencer(folder: Path) -> Any:
    files = str(folder / "ovdquo.py"), str(folder / "ovdquo.pth")
    return DetInferencer(*files, device="cpu", show_progress=False)


def photos(folder: Path) -> list[str]:
    return sorted(map(str, (folder / "data/images/val").glob("*.png")))


@pytest.mark.slow
def test_stock_test_names_what_it_finds(folder: Path, tool: Any, tmp_path: Path) -> None:
    shown = ("--out", "found.pkl", "--show-dir", "shown", "--work-dir", tmp_path / "work")
    tool("test.py", folder / "ovdquo.pth", *shown)
    names = Config.fromfile(folder / "ovdquo.py").metainfo.classes
    found = mmengine.load("found.pkl")
    assert len(found) == 3 == len(list(tmp_path.rglob("shown/*.png")))
    for sample in found:
        instances = sample["pred_instances"]
        assert 0 < len(instances["labels"]) <= 6
        assert instances["label_names"] == [names[label] for label in instances["labels"]]
    score = json.loads(next(tmp_path.glob("work/*/*.json")).read_text())
    assert "coco/novel_ap50" in score


@pytest.mark.slow
def test_stock_views_are_merged(folder: Path, tool: Any, tmp_path: Path) -> None:
    tool("test.py", folder / "ovdquo.pth", "--tta", "--out", "a.pkl", "--work-dir", tmp_path / "a")
    assert all(len(sample["pred_instances"]["labels"]) for sample in mmengine.load("a.pkl"))


@pytest.mark.slow
def test_a_stock_training_leaves_a_checkpoint_that_names_its_classes(
    folder: Path, tool: Any, tmp_path: Path
) -> None:
    short = ("train_cfg.max_iters=1", "val_cfg=None", "val_dataloader=None", "val_evaluator=None")
    saved = ("default_hooks.checkpoint.type=CheckpointHook", "train_cfg.type=IterBasedTrainLoop")
    tool("train.py", "--work-dir", tmp_path / "work", "--cfg-options", *short, *saved)
    model = init_detector(folder / "ovdquo.py", str(tmp_path / "work/iter_1.pth"), device="cpu")
    assert model.vocabulary.class_names == tuple(
        Config.fromfile(folder / "ovdquo.py").metainfo.classes
    )
    flags = dict(zip(model.vocabulary.class_names, model.bbox_head.novel))
    assert tuple(name for name, novel in flags.items() if novel) == NOVEL


def test_operations_are_counted_without_weights_and_names(
    tool: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    tool("analysis_tools/get_flops.py", "--num-images", "1")
    printed = capsys.readouterr().out
    assert "Flops: " in printed and "Input shape: (64, 64)" in printed


def test_the_inferencer_takes_what_mmdet_takes(
    inferencer: Any, folder: Path, tmp_path: Path
) -> None:
    options = dict(pred_score_thr=0.0, out_dir=str(tmp_path), no_save_pred=False)
    whole = inferencer(str(folder / "data/images/val"), batch_size=2, **options)
    assert len(whole["predictions"]) == 3
    assert len(list(tmp_path.glob("vis/*.png"))) == len(list(tmp_path.glob("preds/*.json"))) == 3
    scores = mmengine.load(tmp_path / f"preds/{Path(photos(folder)[1]).stem}.json")["scores"]
    one = inferencer(photos(folder)[1], return_vis=True)
    assert one["visualization"][0].shape[2] == 3
    np.testing.assert_allclose(one["predictions"][0]["scores"], scores, rtol=1e-3)


def test_the_inferencer_searches_each_photo_for_its_text(inferencer: Any, folder: Path) -> None:
    texts = ["kite . red apple", "fish, wheel", "kite . red apple"]
    options = dict(custom_entities=True, return_datasamples=True)
    found = inferencer(photos(folder), texts=texts, batch_size=3, **options)["predictions"]
    wanted = ({"kite", "red apple"}, {"fish", "wheel"}, {"kite", "red apple"})
    for sample, names in zip(found, wanted, strict=True):
        assert set(sample.pred_instances.label_names) <= names and len(sample.pred_instances)
    alone = inferencer(photos(folder)[0], texts=texts[0], custom_entities=True)["predictions"][0]
    scores = found[0].pred_instances.scores.tolist()
    np.testing.assert_allclose(alone["scores"], scores, rtol=1e-4)


def test_a_detector_of_the_api(folder: Path) -> None:
    model = init_detector(str(folder / "ovdquo.py"), str(folder / "ovdquo.pth"), device="cpu")
    flags = zip(model.vocabulary.class_names, model.bbox_head.novel)
    assert tuple(name for name, novel in flags if novel) == NOVEL
    plain, other = photos(folder)[:2]
    first, _ = inference_detector(model, [plain, other])
    asked = inference_detector(model, plain, text_prompt="kite, plum", custom_entities=True)
    assert set(asked.pred_instances.label_names) <= {"kite", "plum"}
    again = inference_detector(model, mmcv.imread(plain))
    torch.testing.assert_close(first.pred_instances.scores, again.pred_instances.scores)


def test_without_trained_weights_nothing_is_found(folder: Path) -> None:
    model = init_detector(str(folder / "ovdquo.py"), None, device="cpu")
    raises("random|no weights|checkpoint", inference_detector, model, photos(folder)[0])


@pytest.mark.slow
def test_a_stock_data_set_is_tested_with_the_flags_of_the_checkpoint(
    folder: Path, tool: Any, tmp_path: Path
) -> None:
    config = Config.fromfile(folder / "ovdquo.py")
    data = config.test_dataloader.dataset
    data.type, data.metainfo = "CocoDataset", dict(classes=("kite", "fish", "apple"))
    config.test_evaluator.type = "CocoMetric"
    config.dump(tmp_path / "stock.py")
    tool(
        "test.py", folder / "ovdquo.pth", "--work-dir", tmp_path / "w", config=tmp_path / "stock.py"
    )
    assert "coco/bbox_mAP_50" in json.loads(next(tmp_path.glob("w/*/*.json")).read_text())
