"""Faults of test pipelines, of names and of odd photos in segmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS, TRANSFORMS
from PIL import Image

from mmclipdis.apis import OpenVocabSegInferencer
from mmclipdis.apis.class_similarity import class_similarity
from mmclipdis.apis.feature_maps import feature_maps
from mmclipdis.apis.run import test as run_test
from mmclipdis.models.segmentation.preprocessor import MixedSizeSegDataPreProcessor
from tests.faults.endings import ends_in, raises
from tests.models.segmentation.fakes import head_cfg, make_segmentor
from tests.paths import ROOT

ROTATE = {"type": "RandomRotate", "prob": 1.0, "degree": 10.0}
MOVES = "moves pixels, and nothing moves the results back"

#: What is put into the test pipeline of a config, behind which step, and the line.
PIPELINES: dict[str, tuple[dict[str, Any], int, str]] = {
    "rotation": (ROTATE, 1, f"RandomRotate {MOVES}"),
    "padded labels": ({"type": "Pad", "size_divisor": 64}, 2, "Pad stands behind LoadAnnotations"),
}


@pytest.mark.parametrize("case", PIPELINES)
def test_a_step_of_the_test_pipeline(
    case: str, sound_shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step, place, line = PIPELINES[case]
    config = Config.fromfile(ROOT / "configs/shapes/maskclip.py")
    data = config.test_dataloader.dataset
    data.data_root = str(sound_shapes)
    data.pipeline = [*data.pipeline[:place], step, *data.pipeline[place:]]
    config.dump(tmp_path / "c.py")
    arguments = [tmp_path / "c.py", "--work-dir", tmp_path / "work"]
    ends_in(f"the pipeline of test_dataloader .*: {line}", run_test, arguments, capsys)


STEPS: dict[str, list[dict[str, Any]]] = {
    "crop": [{"type": "RandomCrop", "crop_size": (8, 8)}],
    "centre crop": [{"type": "mmcv.CenterCrop", "crop_size": 8}],
    "quarter turns": [{"type": "RandomRotFlip"}],
    "cut-out": [{"type": "RandomCutOut", "prob": 1.0, "n_holes": 1, "cutout_shape": (2, 2)}],
    "rotation in a wrapper": [{"type": "RandomApply", "transforms": [ROTATE]}],
}


@pytest.mark.parametrize("case", STEPS)
def test_a_step_of_an_inferencers_pipeline(case: str) -> None:
    pipeline = [*STEPS[case], {"type": "PackSegInputs"}]
    with DefaultScope.overwrite_default_scope("mmseg"):
        line = f"the pipeline of the inferencer: .*{MOVES}; .*leave it out"
        raises(line, OpenVocabSegInferencer, make_segmentor().float(), pipeline=pipeline)


@pytest.fixture(scope="module")
def inferencer() -> OpenVocabSegInferencer:
    with DefaultScope.overwrite_default_scope("mmseg"):
        return OpenVocabSegInferencer(make_segmentor().float(), device="cpu")


NAMES: dict[str, tuple[Any, str]] = {
    "brackets around all": ("[car, van]", "may be one class or several: write a list"),
    "a list as text": ("['sky', 'car']", "may be one class or several: write a list"),
    "open bracket": ("sky, [car, van", "brackets that enclose no synonyms of one class"),
    "quotes": ('"sky", "car"', "a name in quotes"),
    "semicolons": ("sky; car", "has semicolons: put commas between classes"),
    "comma twice": ("sky,,car", "class 1 has an empty name"),
    "blank line": ("sky\n\ncar", "line 2 is blank"),
    "no such file": ("nowhere/classes.txt", "class file 'nowhere/classes.txt' does not exist"),
    "set": ({"sky", "car"}, "is a set, which has no order"),
    "index of the names": ({"sky": 0, "car": 1}, "'sky': 0 are no synonyms"),
    "lines in a list": (["sky\ncar", "van"], "'sky.ncar' is no name"),
    "torn brackets in a list": (["sky", "[car", "van]"], r"'\[car' is no name"),
    "json": (Path(ROOT / "tools/dataset_converters/ade20k_847.json"), "no text with a class a lin"),
    "marks of a Chinese keyboard": ("天空，汽车", "has '，': put commas"),
    "bars": ("sky|car", r"has '\|': put commas"),
    "tab": ("sky\tcar", "put commas"),
    "a tuple as text": ("('sky', 'car')", "brackets around all names: write a list"),
    "missing list file": ("my.names", "class file 'my.names' does not exist"),
    "missing json": ("classes.json", "class file 'classes.json' does not exist"),
    "comment": ("# my classes\nsky\ncar", "line 1 is '# my classes'; write the name alone"),
    "numbers": ("0: sky\n1: car", "line 1 is '0: sky'; write the name alone"),
    "quoted lines": ('"sky"\n"car"', "write the name alone, without comment, number or quotes"),
    "invisible": (["sky", "\u200b"], "class 1 has a name without a visible letter"),
    "one name as the tokenizer reads": (["café", "cafe\u0301"], "stands for two classes"),
    "one name in html": (["&", "&amp;"], "stands for two classes"),
    "unknown option": ({"names": ["sky"], "seperator": ","}, r"unknown keys \['seperator'\]"),
}


@pytest.mark.parametrize("case", NAMES)
def test_names_that_can_be_read_in_two_ways(case: str, inferencer: OpenVocabSegInferencer) -> None:
    names, line = NAMES[case]
    photo = np.zeros((8, 8, 3), np.uint8)
    raises(line, inferencer, photo, names)
    raises(line, inferencer.model.set_vocabulary, names)


@pytest.mark.parametrize("case", ["open bracket", "semicolons", "comma twice", "no such file"])
def test_names_of_a_command(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    names, line = NAMES[case]
    ends_in(line, class_similarity, [names], capsys)


def test_a_name_of_hundreds_of_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sky," + "word " * 300, "--device", "cpu", "--out", tmp_path]
    ends_in("does not fit 77 tokens: 'a.*word ...'; use a shorter", class_similarity, words, capsys)


CALLS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no photo": (None, {}, "photos=None: give files, RGB arrays or Pillow images"),
    "a number": (3, {}, "photos=3: give files"),
    "batch of text": ([], {"batch_size": "x"}, "batch_size must be an int of at least 1, got 'x'"),
    "batch of a half": ([], {"batch_size": 1.5}, "batch_size must be an int .* got 1.5"),
}


@pytest.mark.parametrize("case", CALLS)
def test_a_call_of_the_inferencer(case: str, inferencer: OpenVocabSegInferencer) -> None:
    photos, options, line = CALLS[case]
    raises(line, inferencer, photos, ["sky", "car"], **options)


MODELS_GIVEN: dict[str, tuple[Any, dict[str, Any], str]] = {
    "number": (5, {}, "model is a int: give a config file, a mmengine Config"),
    "plain dict": ({"model": {}}, {}, "model is a dict: give a config file"),
    "without a model": (Config({"a": 1}), {}, "has no model, a dict of settings"),
    "options as text": (Config({}), {"cfg_options": "a=b"}, "cfg_options='a=b': give a dict"),
}


@pytest.mark.parametrize("case", MODELS_GIVEN)
def test_what_an_inferencer_is_made_of(case: str) -> None:
    model, options, line = MODELS_GIVEN[case]
    raises(line, OpenVocabSegInferencer, model, device="cpu", **options)


@pytest.mark.parametrize("scale", [0, float("inf")])
def test_a_scale_that_makes_all_classes_alike(scale: float) -> None:
    raises("makes all classes alike", MODELS.build, head_cfg(logit_scale=scale))


SETTINGS_OF_PIXELS: dict[str, tuple[dict[str, Any], str]] = {
    "size": ({"size": "xy"}, "data_preprocessor.size must be a positive int .* got 'xy'"),
    "std": ({"mean": [0] * 3, "std": [1, 0, 1]}, "data_preprocessor.std must be above 0"),
}


@pytest.mark.parametrize("case", SETTINGS_OF_PIXELS)
def test_settings_of_the_preprocessor(case: str) -> None:
    options, line = SETTINGS_OF_PIXELS[case]
    raises(line, MixedSizeSegDataPreProcessor, **options)


def test_a_threshold_without_background_under_a_stock_segmentor() -> None:
    model = EncoderDecoder(
        backbone={"type": "PatchMeanBackbone"},
        decode_head=head_cfg(num_classes=4, prob_thd=0.5),
        test_cfg=ConfigDict(mode="whole"),
    )
    raises("prob_thd=0.5 needs a background", model.eval().predict, torch.zeros(1, 3, 8, 8))


def test_a_row_of_pixels_where_windows_are_not_padded() -> None:
    model = make_segmentor(mode="whole", window_padding="floor")
    line = r"a window of \(1, 20000\) pixels is smaller than a patch"
    raises(line, model.predict, torch.zeros(1, 3, 1, 20000, dtype=torch.float64))


def test_a_column_of_pixels_in_a_figure_of_features(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (1, 20000)).save(tmp_path / "a.png")
    arguments = [tmp_path / "a.png", "--out", tmp_path / "b.png", "--device", "cpu"]
    ends_in("a photo of 20000 x 1 pixels .* patches, more than", feature_maps, arguments, capsys)


def test_an_unknown_rule_for_label_maps() -> None:
    step = {"type": "ResizeShortestEdgePIL", "scale": 8, "max_size": 9, "nearest": "round"}
    raises("nearest must be one of floor, centre, got 'round'", TRANSFORMS.build, step)
