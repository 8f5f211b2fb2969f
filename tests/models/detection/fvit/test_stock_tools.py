"""mmdet's own tools and inferencers on F-ViT's configs, called as a person calls them."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmcv
import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmclipdis.shapes.coco import Settings, write_dataset
from tests.paths import ROOT

pytest.importorskip("mmdet")

import mmdet
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmdet.registry import DATASETS, MODELS, VISUALIZERS
from mmdet.visualization import DetLocalVisualizer

TOOLS = Path(mmdet.__file__).parent / ".mim" / "tools"
CONFIGS = [*ROOT.glob("configs/fvit/*.py"), *ROOT.glob("configs/shapes/fvit*.py")]
NOVEL = ("watermelon", "kite", "mushroom")
Tool = Callable[..., None]


@pytest.fixture(autouse=True)
def mmdet_scope() -> None:
    DefaultScope.get_instance("test-stock-tools", scope_name="mmdet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config file of F-ViT on three photos, and a checkpoint as a training leaves it."""
    root = tmp_path_factory.mktemp("stock")
    write_dataset(root / "data", Settings(train=2, val=3, seed=3))
    config = Config.fromfile(ROOT / "configs/shapes/fvit.py")
    for phase in ("train", "val", "test"):
        config[f"{phase}_dataloader"].dataset.data_root = f"{root}/data"
    for phase in ("val", "test"):
        config[f"{phase}_evaluator"].ann_file = f"{root}/data/annotations/instances_val.json"
    config.model.test_cfg.rpn.max_per_img = 8
    config.model.test_cfg.rcnn.max_per_img = 6
    config.model.roi_head.bbox_head.templates = "a {}."
    config.train_dataloader.batch_size = 2
    config.dump(root / "fvit.py")
    DefaultScope.get_instance("test-stock-tools-data", scope_name="mmdet")
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    meta = {key: tuple(names) for key, names in config.metainfo.items()}
    torch.save(
        {"state_dict": model.state_dict(), "meta": {"dataset_meta": meta}}, root / "fvit.pth"
    )
    return root


@pytest.fixture
def tool(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Run one of mmdet's tools on the config file, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("LOCAL_RANK", "0")

    def run(name: str, *words: object, config: Path = folder / "fvit.py") -> None:
        argv = [name, str(config), *map(str, words)]
        monkeypatch.setattr(sys, "argv", argv)
        runpy.run_path(str(TOOLS / name), run_name="__main__")

    return run


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written on pictures."""
    words: list[str] = []
    draw = DetLocalVisualizer.draw_texts

    def watched(self: Any, texts: Any, *args: Any, **kwargs: Any) -> Any:
        words.append(texts)
        return draw(self, texts, *args, **kwargs)

    monkeypatch.setattr(DetLocalVisualizer, "draw_texts", watched)
    return words


@pytest.fixture(scope="module")
def inferencer(folder: Path) -> Any:
    return DetInferencer(
        str(folder / "fvit.py"), str(folder / "fvit.pth"), device="cpu", show_progress=False
    )


def written(drawn: list[str]) -> set[str]:
    """Names on pictures, without scores; there must be some."""
    assert drawn
    return {text.split(":")[0] for text in drawn}


def photos(folder: Path) -> list[str]:
    return sorted(map(str, (folder / "data/images/val").glob("*.png")))


@pytest.mark.slow
def test_results_of_a_test_feed_the_analysis(
    folder: Path, tool: Tool, tmp_path: Path, drawn: list[str]
) -> None:
    options = ("--work-dir", tmp_path / "work")
    shown = ("--out", tmp_path / "found.pkl", "--show-dir", "shown")
    tool("test.py", folder / "fvit.pth", *shown, *options)
    found = mmengine.load(tmp_path / "found.pkl")
    names = Config.fromfile(folder / "fvit.py").metainfo.classes
    assert len(found) == 3
    for sample in found:
        instances = sample["pred_instances"]
        assert len(instances["labels"]) > 0
        assert instances["label_names"] == [names[label] for label in instances["labels"]]
    assert len(list(tmp_path.rglob("shown/*.png"))) == 3
    score = tmp_path.glob("work/*/*.json")
    assert "coco/novel_ap50" in json.loads(next(score).read_text())
    tool("analysis_tools/confusion_matrix.py", "found.pkl", "matrix", "--score-thr", "0.05")
    assert (tmp_path / "matrix/confusion_matrix.png").is_file()
    tool("analysis_tools/analyze_results.py", "found.pkl", "best", "--topk", "1")
    assert len(list((tmp_path / "best/good").iterdir())) == 1


@pytest.mark.slow
def test_views_are_merged(folder: Path, tool: Tool, tmp_path: Path) -> None:
    tool("test.py", folder / "fvit.pth", "--tta", "--out", "a.pkl", "--work-dir", tmp_path / "a")
    assert all(len(sample["pred_instances"]["labels"]) for sample in mmengine.load("a.pkl"))


@pytest.mark.slow
@pytest.mark.parametrize("hook", ["ExactCheckpointHook", "CheckpointHook"])
def test_a_training_leaves_a_checkpoint_that_names_its_classes(
    hook: str, folder: Path, tool: Tool, tmp_path: Path
) -> None:
    short = ("train_cfg.max_iters=1", "param_scheduler=None", "val_cfg=None")
    short = (*short, "val_dataloader=None", "val_evaluator=None")
    saved = ("default_hooks.checkpoint.interval=1", f"default_hooks.checkpoint.type={hook}")
    tool("train.py", "--work-dir", tmp_path / "work", "--cfg-options", *short, *saved)
    config = Config.fromfile(folder / "fvit.py")
    config.custom_hooks = []
    model = init_detector(config, str(tmp_path / "work/iter_1.pth"), device="cpu")
    assert model.vocabulary.class_names == tuple(config.metainfo.classes)
    flags = dict(zip(model.vocabulary.class_names, model.roi_head.bbox_head.novel))
    assert tuple(name for name, novel in flags.items() if novel) == NOVEL
    # the file holds its config, too
    alone = DetInferencer(
        weights=str(tmp_path / "work/iter_1.pth"), device="cpu", show_progress=False
    )
    assert alone.model.vocabulary == model.vocabulary


def test_operations_are_counted_without_weights_and_names(
    tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    tool("analysis_tools/get_flops.py", "--num-images", "1")
    printed = capsys.readouterr().out
    assert "Flops: " in printed and "Input shape: (160, 160)" in printed


def test_a_data_set_is_browsed(tool: Tool, tmp_path: Path) -> None:
    tool("analysis_tools/browse_dataset.py", "--not-show", "--output-dir", tmp_path / "seen")
    assert len(list((tmp_path / "seen").iterdir())) == 2


def test_the_inferencer_takes_what_mmdet_takes(
    inferencer: Any,
    folder: Path,
    tmp_path: Path,
    drawn: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = dict(pred_score_thr=0.0, out_dir=str(tmp_path), no_save_pred=False, print_result=True)
    whole = inferencer(str(folder / "data/images/val"), batch_size=2, **options)
    assert "predictions" in capsys.readouterr().out
    assert len(list(tmp_path.glob("vis/*.png"))) == len(list(tmp_path.glob("preds/*.json"))) == 3
    assert written(drawn) <= set(inferencer.model.dataset_meta["classes"])
    assert len(whole["predictions"]) == 3
    scores = mmengine.load(tmp_path / f"preds/{Path(photos(folder)[1]).stem}.json")["scores"]
    one = inferencer(photos(folder)[1], return_vis=True)
    assert one["visualization"][0].shape[2] == 3
    np.testing.assert_allclose(one["predictions"][0]["scores"], scores, rtol=1e-3)
    array = inferencer([mmcv.imread(photos(folder)[1])])["predictions"][0]
    assert array == one["predictions"][0]


def test_the_inferencer_searches_each_photo_for_its_text(
    inferencer: Any, folder: Path, drawn: list[str]
) -> None:
    texts = ["kite . red apple", "fish, wheel", "kite . red apple"]
    options = dict(custom_entities=True, pred_score_thr=0.0, return_vis=True)
    found = inferencer(
        photos(folder), texts=texts, batch_size=3, return_datasamples=True, **options
    )["predictions"]
    for sample, names in zip(
        found, ({"kite", "red apple"}, {"fish", "wheel"}, {"kite", "red apple"})
    ):
        assert set(sample.pred_instances.label_names) <= names
    assert written(drawn) <= {"kite", "red apple", "fish", "wheel"}
    same = inferencer(photos(folder)[0], texts="kite . red apple", custom_entities=True)
    scores = found[0].pred_instances.scores.tolist()
    np.testing.assert_allclose(same["predictions"][0]["scores"], scores, rtol=1e-4)
    inferencer.model.set_vocabulary(["blue wheel", "kite"])  # live
    drawn.clear()
    inferencer(photos(folder)[0], return_vis=True, pred_score_thr=0.0)
    inferencer.model.dataset_meta = dict(Config.fromfile(folder / "fvit.py").metainfo)
    assert written(drawn) <= {"blue wheel", "kite"}


def test_a_detector_of_the_api(folder: Path) -> None:
    model = init_detector(str(folder / "fvit.py"), str(folder / "fvit.pth"), device="cpu")
    assert model.roi_head.bbox_head.novel == tuple(
        name in NOVEL for name in model.vocabulary.class_names
    )
    plain, other = photos(folder)[:2]
    first, _ = inference_detector(model, [plain, other])
    asked = inference_detector(model, plain, text_prompt="kite, plum", custom_entities=True)
    assert set(asked.pred_instances.label_names) <= {"kite", "plum"}
    again = inference_detector(model, mmcv.imread(plain))
    torch.testing.assert_close(first.pred_instances.scores, again.pred_instances.scores)


@pytest.mark.slow
def test_a_stock_data_set_is_tested_by_stock_tools(
    folder: Path, tool: Tool, tmp_path: Path
) -> None:
    # no flags in its metainfo: the checkpoint says which classes had boxes
    config = Config.fromfile(folder / "fvit.py")
    data = config.test_dataloader.dataset
    data.type, data.metainfo = "CocoDataset", dict(classes=("kite", "fish", "apple"))
    config.test_evaluator.type = "CocoMetric"
    config.dump(tmp_path / "stock.py")
    tool("test.py", folder / "fvit.pth", "--work-dir", tmp_path / "w", config=tmp_path / "stock.py")
    assert "coco/bbox_mAP_50" in json.loads(next(tmp_path.glob("w/*/*.json")).read_text())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_has_what_stock_tools_look_for(path: Path) -> None:
    config = Config.fromfile(path)
    assert "data_preprocessor" not in config
    prepare = MODELS.build(config.model.data_preprocessor)
    assert prepare.mean.flatten().tolist() == pytest.approx(config.model.data_preprocessor.mean)
    assert prepare.pad_size_divisor == config.image_size[0]
    if config.test_dataloader.dataset.type != "OVLVISDataset" or config.get("train_dataloader"):
        DATASETS.build({**config.test_dataloader.dataset, "lazy_init": True})
    pipeline = DetInferencer._init_pipeline(DetInferencer.__new__(DetInferencer), config)
    image = np.zeros((20, 40, 3), np.uint8)
    packed = pipeline({"img": image, "text": "kite", "custom_entities": True})["data_samples"]
    assert packed.text == "kite" and packed.img_shape[1] == config.image_size[1]
    assert isinstance(VISUALIZERS.build(config.visualizer), DetLocalVisualizer)
