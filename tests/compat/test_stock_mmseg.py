"""mmseg's own inferencers and tools, called on our configs: what a user without our tools does."""

from __future__ import annotations

import runpy
import sys
import warnings
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import mmseg
import numpy as np
import pytest
import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import save_checkpoint
from mmseg.apis import MMSegInferencer, inference_model, init_model, show_result_pyplot
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer
from PIL import Image

from mmclipdis.shapes.coco import LABEL_SUFFIX, Settings, write_dataset
from mmclipdis.shapes.world import CLASSES, PALETTE
from tests.paths import ROOT

TOOLS = Path(mmseg.__file__).parent / ".mim" / "tools"
SHAPES = ROOT / "configs" / "shapes"
SEGMENTORS = ("OpenVocabSegmentor", "CATSeg", "InfoCLIP")
#: mmseg draws one result in 50 unless told.
EACH = ("--cfg-options", "default_hooks.visualization.interval=1")
#: Of every kind of segmentor one that is quick.
KINDS = {
    "clearclip": {},
    "dclip_segment": {"model.decode_head.projector": None},
    "catseg": {"model.test_cfg": {"mode": "whole"}},
    "infoclip": {"model.segmentor.test_cfg": {"mode": "whole"}},
}


def segmentation_configs() -> list[Path]:
    """All, but those of ViT-L/14, whose data and runtime are those of ViT-B/16."""
    families = ("camvid", "catseg", "clearclip", "clip", "declip", "infoclip", "maskclip", "sclip")
    files = [path for family in families for path in ROOT.glob(f"configs/{family}/**/*.py")]
    files += [*ROOT.glob("configs/dclip/zs3_*.py"), *SHAPES.glob("*.py")]
    return sorted(path for path in files if "vitl14" not in path.name)


def test_each_config_has_what_mmsegs_tools_read() -> None:
    seen, wrong = 0, []
    for path in segmentation_configs():
        config = Config.fromfile(path)
        if config.model.type not in SEGMENTORS:
            continue
        seen += 1
        pipeline = config.test_dataloader.dataset.pipeline
        steps = [step.type for step in pipeline]
        model = config.model.get("segmentor", config.model)
        training = [config.get(k) for k in ("train_dataloader", "train_cfg", "optim_wrapper")]
        problems = {
            "no photo loader by name, first": steps[0] != "LoadImageFromFile",
            "labels and packing are not last": steps[-2:]
            != ["LoadReadableAnnotations", "PackSegInputs"],
            "inference_model takes another pipeline": config.get("test_pipeline") != pipeline,
            "no preprocessor in the model": "data_preprocessor" not in model,
            "no scope": config.default_scope != "mmseg",
            "test.py --show-dir draws nothing": "visualization" not in config.default_hooks,
            "no visualizer": config.visualizer.type != "VocabularyVisualizer",
            "test.py --out finds no metric": not isinstance(config.test_evaluator, dict),
            "half a training": any(training) and not all(training),
        }
        wrong += [f"{path.relative_to(ROOT)}: {what}" for what, bad in problems.items() if bad]
    assert seen > 60
    assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ShapeScenes with 2 photos to train and 2 to test on, of different sizes."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_dataset(folder, Settings(train=2, val=2, seed=3))
    return folder


@pytest.fixture(scope="module", params=KINDS)
def config(
    request: pytest.FixtureRequest, shapes: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A shipped config as a file, on this data; its weights are beside it, ``NAME.pth``."""
    loaded = Config.fromfile(SHAPES / f"{request.param}.py")
    loaded.merge_from_dict(KINDS[request.param])
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        if loaded.get(loader):
            loaded[loader].dataset.data_root = f"{shapes}/"
    path: Path = tmp_path_factory.mktemp("config") / f"{request.param}.py"
    loaded.dump(path)
    init_default_scope("mmseg")
    torch.manual_seed(0)
    model = MODELS.build(loaded.model)
    model.init_weights()
    meta = {"dataset_meta": {"classes": CLASSES, "palette": [list(c) for c in PALETTE]}}
    for suffix, said in ((".pth", meta), (".bare.pth", {})):
        saved = {"state_dict": model.state_dict(), "meta": said}
        save_checkpoint(saved, str(path.with_suffix(suffix)))
    return path


def run(monkeypatch: pytest.MonkeyPatch, tool: str, *words: object) -> None:
    """Run a tool of mmseg as its script is."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(sys, "argv", [tool, *map(str, words)])
    runpy.run_path(str(TOOLS / tool), run_name="__main__")


def photos(shapes: Path) -> list[str]:
    return sorted(str(path) for path in (shapes / "images" / "val").glob("*.png"))


def test_the_inferencer(config: Path, shapes: Path, tmp_path: Path) -> None:
    inferencer = MMSegInferencer(str(config), str(config.with_suffix(".pth")), device="cpu")
    files = photos(shapes)
    bgr = np.ascontiguousarray(np.asarray(Image.open(files[0]).convert("RGB"))[..., ::-1])
    found = inferencer([*files, bgr], batch_size=3, out_dir=str(tmp_path), return_vis=True)
    sizes = [Image.open(file).size[::-1] for file in files]
    assert sizes[0] != sizes[1]
    assert [p.shape for p in found["predictions"]] == [*sizes, sizes[0]]
    assert np.array_equal(found["predictions"][0], found["predictions"][2])
    assert len(list((tmp_path / "vis").iterdir())) == len(list((tmp_path / "pred").iterdir())) == 3
    folder = inferencer(str(shapes / "images" / "val"), return_datasamples=False)
    assert len(folder["predictions"]) == 2
    assert inferencer.model.dataset_meta["classes"] == CLASSES
    asked = {"img_path": files[0], "text": "kite . sand", "custom_entities": True}
    plain, texts = (inferencer(one)["predictions"] for one in (files[0], asked))
    assert np.array_equal(plain, found["predictions"][0])
    assert texts.max() <= 1 and not np.array_equal(texts, plain)


@pytest.mark.parametrize("weights", [".pth", ".bare.pth"])
def test_init_model_and_inference_model(config: Path, shapes: Path, weights: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that mmseg makes up, and that are not taken
        model = init_model(str(config), str(config.with_suffix(weights)), device="cpu")
    photo, other = photos(shapes)
    result, second = inference_model(model, [photo, other])
    assert result.label_names == second.label_names == list(CLASSES)
    assert inference_model(model, photo).pred_sem_seg.shape == result.pred_sem_seg.shape
    drawn = show_result_pyplot(model, photo, result, show=False)
    assert drawn.shape == (*result.pred_sem_seg.shape, 3)
    assert model.dataset_meta["palette"] == [list(c) for c in PALETTE]
    model.set_vocabulary(["grass", "kite"])
    result = inference_model(model, photo)
    show_result_pyplot(model, photo, result, show=False)
    assert result.label_names == list(model.dataset_meta["classes"]) == ["grass", "kite"]


@pytest.mark.slow
def test_the_test_tool_and_the_confusion_matrix(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, out = config.with_suffix(".pth"), tmp_path / "out"
    words = [config, weights, "--work-dir", tmp_path / "work"]
    run(monkeypatch, "test.py", *words, "--out", out, "--show-dir", tmp_path / "shown", *EACH)
    assert len(list(out.glob("*.png"))) == 2
    assert list(tmp_path.rglob("shown/**/*.png"))
    if config.stem != "clearclip":  # the rest is alike for all
        return
    subplots = plt.subplots
    monkeypatch.setattr(plt, "subplots", lambda **_: subplots())  # it has a foot of paper a class
    run(monkeypatch, "analysis_tools/confusion_matrix.py", config, out, tmp_path / "matrix")
    assert (tmp_path / "matrix" / "confusion_matrix.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("config", ["catseg", "infoclip"], indirect=True)
def test_the_training_tool_writes_names_into_its_checkpoint(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["train_cfg.max_iters=1", "train_cfg.val_interval=5", "train_dataloader.batch_size=2"]
    run(monkeypatch, "train.py", config, "--work-dir", tmp_path, "--cfg-options", *options)
    saved = torch.load(tmp_path / "iter_1.pth", weights_only=True)["meta"]["dataset_meta"]
    base = Config.fromfile(config).train_dataloader.dataset.metainfo.classes
    assert saved["classes"] == tuple(base) and len(saved["palette"]) == len(base)
    inferencer = MMSegInferencer(str(config), str(tmp_path / "iter_1.pth"), device="cpu")
    sample = inferencer(np.zeros((64, 64, 3), np.uint8), return_datasamples=True)
    assert sample.label_names == list(base)
    assert inferencer.model.vocabulary.class_names == tuple(base)


@pytest.mark.parametrize("own", [False, True])
def test_browse_dataset_names_the_labels_of_the_config(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    """Also where all classes come from ``metainfo``, and ``METAINFO`` of mmseg is empty."""
    config = Config.fromfile(SHAPES / "catseg.py")
    dataset = config.train_dataloader.dataset
    dataset.data_root = f"{shapes}/"
    if own:
        suffixes = {"img_suffix": ".png", "seg_map_suffix": LABEL_SUFFIX}
        dataset.update(type="BaseSegDataset", metainfo={"classes": CLASSES}, **suffixes)
    config.dump(tmp_path / "config.py")
    seen: list[Any] = []

    def draw(self: Any, image: Any, sem_seg: Any, classes: Any, *_: Any) -> Any:
        seen.append(tuple(classes))
        return image

    monkeypatch.setattr(SegLocalVisualizer, "_draw_sem_seg", draw)
    words = [tmp_path / "config.py", "--output-dir", tmp_path / "drawn", "--not-show"]
    run(monkeypatch, "misc/browse_dataset.py", *words)
    names = CLASSES if own else tuple(Config.fromfile(SHAPES / "catseg.py").base_classes)
    assert seen == [names] * 2
    assert len(list((tmp_path / "drawn").rglob("*.png"))) == 2


@pytest.mark.parametrize("config", ["clearclip"], indirect=True)
def test_flops_are_counted_as_mmsegs_tool_does(config: Path) -> None:
    """(The tool itself ends in a ValueError of mmengine's, for mmseg's own configs as well.)"""
    init_default_scope("mmseg")
    model = MODELS.build(Config.fromfile(config).model).eval()
    batch = {"inputs": [torch.rand(3, 96, 96)], "data_samples": [SegDataSample()]}
    inputs = model.data_preprocessor(batch)["inputs"]

    def count() -> dict[str, Any]:
        found: dict[str, Any] = get_model_complexity_info(
            model, inputs=inputs, show_table=False, show_arch=False
        )
        return found

    with pytest.raises((RuntimeError, ValueError), match="call set_vocabulary"):
        count()
    model.set_vocabulary(["kite", "sand"])
    found = count()
    assert found["flops"] > 1e8
    assert found["params"] == sum(p.numel() for p in model.parameters())
