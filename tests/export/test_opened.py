"""A file is of the words, background and novel classes that a call of an inferencer would have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmclipdis.apis.zoo.listing import models
from mmclipdis.engine.configs import read_config_file
from mmclipdis.export.opened import opened, use_words
from tests.models.detection.ovdquo import tiny as tiny_ovdquo
from tests.paths import ROOT


def shapes(method: str) -> Config:
    return read_config_file(ROOT / f"configs/shapes/{method}.py")


def test_a_background_index_is_about_the_classes_of_the_data() -> None:
    config = shapes("clearclip")
    classes = ("backdrop", "grass", "sand")
    config.test_dataloader.dataset.metainfo = dict(classes=classes)
    config.model.decode_head.update(background_index=0, prob_thd=0.4)
    source = opened(config, None)
    for words, background in (("grass, sand", None), ("kite, backdrop", 1), (None, 0)):
        with use_words(source, words):
            assert source.model.label_rule().background_index == background
    assert source.model.decode_head.vocabulary is None


def test_words_that_had_boxes_in_training_are_base_ones() -> None:
    model: Any = tiny_ovdquo.build(told=False)
    model.cfg = shapes("ovdquo")
    source = opened(model, None)
    with use_words(source, ["kite", "apple"]):
        assert model.class_text.text.flags() == (True, False)
    with use_words(source, None) as names:
        assert len(names.class_names) == 12


def test_a_name_whose_weights_do_not_ship_takes_a_file(tmp_path: Path) -> None:
    config = shapes("catseg")
    with DefaultScope.overwrite_default_scope("mmseg"):
        model: Any = MODELS.build(config.model)
    state = model.state_dict()
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    found = opened("catseg-shapes", tmp_path / "a.pth").model
    assert all(torch.equal(value, state[name]) for name, value in found.state_dict().items())


def test_the_task_of_a_path_below_configs_is_that_of_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = models("detect")[0].checkpoint
    assert type(opened("shapes/fvit.py", weights).model).__name__ == "FViT"
    assert type(opened("clip-shapes", None, task="tag").model).__name__ == "ZeroShotRecognizer"
    assert capsys.readouterr().out == ""
    assert type(opened("clip-shapes", None).model).__name__ == "OpenVocabSegmentor"
    assert "a name of models to segment and to tag" in capsys.readouterr().out
