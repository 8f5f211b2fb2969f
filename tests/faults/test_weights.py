"""No answer of random weights, whichever of mmseg's and mmdet's own ways a model is built in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmdet.registry import MODELS as DETECTION
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, load_checkpoint
from mmseg.apis import inference_model, init_model
from mmseg.registry import MODELS

from mmclipdis.shapes.world import CLASSES, THINGS
from tests.faults.endings import raises
from tests.paths import ROOT

SHAPES = ROOT / "configs/shapes"
NAMES = list(CLASSES)
HEAD = r"^no weights for decode_head \(CATSegHead\) of CATSeg: .* give a checkpoint of a training$"


def config(name: str, data: Path | None = None) -> Config:
    found = Config.fromfile(str(SHAPES / f"{name}.py"))
    if "data_preprocessor" in found:
        found.model.setdefault("data_preprocessor", found.data_preprocessor)
    found.test_pipeline = [step for step in found.test_pipeline if "Annotations" not in step.type]
    if data is not None:
        found.test_dataloader.dataset.data_root = str(data)
        found.test_dataloader.update(num_workers=0, persistent_workers=False)
    return found


def loaded() -> Any:
    """ClearCLIP of the shapes, by the way that always held."""
    init_default_scope("mmseg")
    model = MODELS.build(config("clearclip").model)
    model.init_weights()
    model.set_vocabulary(NAMES)
    return model.eval()


def photo(data: Path) -> str:
    return str(min((data / "images/val").glob("*.png")))


@pytest.mark.parametrize("mixed", [False, True])
def test_init_model_without_a_checkpoint_answers_with_clip(sound_shapes: Path, mixed: bool) -> None:
    model = init_model(config("clearclip", sound_shapes), None, device="cpu")
    model.set_vocabulary(NAMES)
    expected = loaded()
    expected.cfg = model.cfg
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        one, two = (inference_model(each, photo(sound_shapes)) for each in (model, expected))
    assert torch.equal(one.pred_sem_seg.data, two.pred_sem_seg.data)
    for name, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.slow
def test_a_stock_runner_tests_without_init_weights(sound_shapes: Path, tmp_path: Path) -> None:
    found = config("clearclip", sound_shapes)
    for name in ("train_cfg", "train_dataloader", "optim_wrapper", "param_scheduler"):
        found[name] = None
    found.update(work_dir=str(tmp_path), experiment_name="weights", log_level="WARNING")
    runner = Runner.from_cfg(found)
    metrics = runner.test()
    assert metrics["mIoU"] > 20
    state = loaded().state_dict()
    assert all(torch.equal(v, state[name]) for name, v in runner.model.state_dict().items())


def test_a_model_that_was_built_and_no_more_predicts_with_clip() -> None:
    init_default_scope("mmseg")
    model = MODELS.build(config("clearclip").model).eval()
    model.set_vocabulary(NAMES)
    image = torch.randn(3, 80, 96)
    one, two = (each.predict([image])[0].pred_sem_seg.data for each in (model, loaded()))
    assert torch.equal(one, two)


def stock(**options: Any) -> Config:
    """mmseg's own segmentor around our parts."""
    found = config("clearclip")
    found.model.type = "EncoderDecoder"
    found.model.decode_head.update(vocabulary=NAMES, num_classes=len(NAMES), **options)
    found.model.test_cfg = dict(mode="whole")
    return found


def test_a_source_that_init_model_took_away_is_asked_for(tmp_path: Path) -> None:
    grey = np.full((80, 96, 3), 90, np.uint8)
    model = init_model(stock(), None, device="cpu")
    for _ in range(2):
        line = raises(
            r"ClearCLIPViT are random: its init_cfg is None \(mmseg's init_model",
            (inference_model),
            model,
            grey,
        )
        assert "MODELS.build(cfg.model)" in line and "checkpoint" in line
    whole = MODELS.build(stock().model)
    whole.init_weights()
    torch.save({"state_dict": whole.state_dict(), "meta": {"dataset_meta": {}}}, tmp_path / "a.pth")
    again = init_model(stock(), str(tmp_path / "a.pth"), device="cpu")
    again.set_classes = None
    assert torch.equal(
        inference_model(again, grey).pred_sem_seg.data,
        whole.eval().predict(*inputs_of(again, grey))[0].pred_sem_seg.data,
    )


def inputs_of(model: Any, image: np.ndarray) -> tuple[Any, Any]:
    """What ``inference_model`` makes of an array."""
    from mmseg.apis.utils import _preprare_data

    data = model.data_preprocessor(_preprare_data(image, model)[0], False)
    return data["inputs"], data["data_samples"]


@pytest.mark.parametrize("init", [False, True])
def test_cat_seg_without_a_checkpoint_predicts_nothing(init: bool, tmp_path: Path) -> None:
    init_default_scope("mmseg")
    model = MODELS.build(config("catseg").model).eval()
    model.set_vocabulary(NAMES)
    if init:
        model.init_weights()
    images = torch.randn(1, 3, 80, 80)
    raises(HEAD, model.predict, images)
    assert model(images, mode="tensor").isfinite().all()
    torch.save({"state_dict": model.state_dict(), "meta": {}}, tmp_path / "catseg.pth")
    other = MODELS.build(config("catseg").model).eval()
    load_checkpoint(other, str(tmp_path / "catseg.pth"))
    other.set_vocabulary(NAMES)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    other.predict(images)
    for name, value in model.state_dict().items():  # those of init_cfg would be others
        assert torch.equal(other.state_dict()[name], value), name


def test_a_detector_without_a_checkpoint_detects_nothing(
    sound_shapes: Path, tmp_path: Path
) -> None:
    model = init_detector(config("fvit", sound_shapes), None, device="cpu")
    model.set_vocabulary(THINGS, ())
    raises(
        r"^no weights for backbone \(FViTBackbone\), neck \(FPN\), rpn_head \(FViTRPNHead\), "
        r"roi_head \(FViTRoIHead\) of FViT: these must have been trained",
        inference_detector,
        model,
        photo(sound_shapes),
    )
    torch.save({"state_dict": model.state_dict(), "meta": {}}, tmp_path / "fvit.pth")
    other = revert_sync_batchnorm(DETECTION.build(config("fvit").model)).eval()
    load_checkpoint(other, str(tmp_path / "fvit.pth"))
    other.set_vocabulary(THINGS, ())
    other.cfg = model.cfg
    assert inference_detector(other, photo(sound_shapes)).pred_instances.scores.isfinite().all()


def test_a_checkpoint_without_the_heads_is_none_of_a_detector(tmp_path: Path) -> None:
    init_default_scope("mmdet")
    model = revert_sync_batchnorm(DETECTION.build(config("fvit").model)).eval()
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("roi_head.bbox")}
    torch.save({"state_dict": state, "meta": {}}, tmp_path / "half.pth")
    load_checkpoint(model, str(tmp_path / "half.pth"))
    model.set_vocabulary(THINGS, ())
    sample = dict(img_shape=(80, 80), ori_shape=(80, 80), scale_factor=(1.0, 1.0))
    from mmdet.structures import DetDataSample

    raises(
        r"^no weights for roi_head \(FViTRoIHead\) of FViT",
        model.predict,
        torch.randn(1, 3, 80, 80),
        [DetDataSample(metainfo=sample)],
    )
