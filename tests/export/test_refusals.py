"""What is not exported ends in one line that says why."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmclipdis.clip.towers.readout import READOUTS
from mmclipdis.export import export, load_metadata
from mmclipdis.export.kinds import exportable
from tests.export.tiny import NAMES, WORDS, arch, segmentor, stock, zero_shot
from tests.faults.endings import raises
from tests.models.detection.ovdquo import tiny as tiny_ovdquo
from tests.paths import ROOT


def test_options_that_do_not_fit_are_refused_before_a_model_is_built(tmp_path: Path) -> None:
    out = tmp_path / "a.onnx"
    raises("format must be one of onnx, torch, got 'coreml'", export, None, WORDS, out, "coreml")
    raises("ends in .pt2; name it 'a.pt2'", export, None, WORDS, out, "torch")
    raises("a NoneType is no model", export, None, WORDS, out)
    raises("no config at .*gone.py", export, tmp_path / "gone.py", WORDS, out)
    raises("has no model", export, Config({"a": 1}), WORDS, out)
    raises("did you mean 'fvit-shapes'", export, "fvit-shape", WORDS, out)
    raises("task must be one of segment, detect, tag", export, Config(), WORDS, out, task="crop")
    raises("of another task", export, segmentor(), WORDS, out, task="tag")
    raises("distils CLIP and cannot segment", export, "shapes_declip_distill", WORDS, out)
    for size in (0, (32, -1), (1, 2, 3), 1.5, (True, 32)):
        raises("give one side, or height and width", export, None, WORDS, out, image_size=size)


def test_sizes_and_words_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model, out = segmentor(), tmp_path / "a.onnx"
    raises("smaller than a patch", export, model, WORDS, out, image_size=8)
    raises("no class names", export, model, None, out)
    raises("model.float", export, segmentor().half(), WORDS, out)
    raises("go with a config", export, model, WORDS, out, checkpoint="a.pth")
    raises("go with a config", export, model, WORDS, out, cfg_options={"model.a": 1})


def test_what_follows_or_joins_windows_before_the_head_is_refused(tmp_path: Path) -> None:
    """The file would hold another model: each window by itself, nothing mixed."""
    model, out = segmentor(), tmp_path / "a.onnx"
    model.test_cfg["stitch"] = "tokens"
    raises("stitch='tokens' are not exported", export, model, WORDS, out, image_size=64)
    model.token_mixer = nn.Identity()
    raises("token_mixer=Identity is not exported", export, model, WORDS, out)


def test_random_weights_are_refused(tmp_path: Path) -> None:
    part = dict(arch=arch())
    model = dict(
        type="OpenVocabSegmentor",
        backbone=dict(type="CLIPViT", **part),
        decode_head=dict(
            type="CosineSegHead", text_encoder=dict(type="OpenCLIPTextEncoder", **part)
        ),
    )
    raises(r"the weights of backbone \(CLIPViT\), decode_head.text_encoder .* are random",
           export, Config(dict(model=model)), WORDS, tmp_path / "a.onnx")  # fmt: skip
    catseg = Config.fromfile(ROOT / "configs" / "shapes" / "catseg.py")
    raises(r"no weights for decode_head \(CATSegHead\)", export, catseg, WORDS, tmp_path / "a.onnx")


def test_a_model_that_needs_masks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = segmentor()
    monkeypatch.setattr(type(model.backbone), "needs_masks", True, raising=False)
    line = "OpenVocabSegmentor is not exported while it needs masks"
    raises(line, export, model, WORDS, tmp_path / "a.onnx")


@pytest.mark.parametrize("size", [None, (64, 96)])
def test_a_model_that_a_vision_model_guides_is_refused(size: Any) -> None:
    model = segmentor()
    model.backbone.readout = READOUTS["proxyclip"]
    raises("is not exported while a vision model guides its readout: .*'clearclip'", exportable,
           model, size)  # fmt: skip


class BaseDetector(nn.Module): ...


def test_models_that_cannot_go_are_named_with_the_reason() -> None:
    raises("BaseDetector is not exported: its classes are in its weights", exportable,
           BaseDetector(), None)  # fmt: skip
    raises("Linear is not exported: OpenVocabSegmentor", exportable, nn.Linear(1, 1), None)
    model = zero_shot()
    model.set_vocabulary(NAMES)
    model.segments = object()
    raises("with segments is not exported: how many boxes", exportable, model, None)
    distillation = Config.fromfile(ROOT / "configs" / "shapes" / "declip_distill.py")
    raises("DeCLIP is not exported", export, distillation, WORDS, "a.onnx")


def test_models_of_mmseg_without_words_are_refused(tmp_path: Path) -> None:
    model = stock()
    model.decode_head = nn.Conv2d(1, 1, 1)
    raises("EncoderDecoder with a Conv2d is not exported: its classes are fixed",
           export, model, WORDS, tmp_path / "a.onnx")  # fmt: skip


def test_detectors_have_one_size_and_one_name_a_class(tmp_path: Path) -> None:
    model, out = tiny_ovdquo.build(), tmp_path / "a.onnx"
    raises("OVDQUO is exported for images of one size alone", export, model, NAMES, out)
    raises("no multiple of OVDQUO's patch of 8", export, model, NAMES, out, image_size=(64, 90))
    raises("one name a class", export, model, "kite, [plum, purple plum]", out, image_size=64)
    assert model.vocabulary.class_names == tiny_ovdquo.CLASSES


def test_words_that_the_text_tower_cannot_read_are_refused(tmp_path: Path) -> None:
    words = ["sky", "very " * 90 + "long road"]
    raises("tokens", export, segmentor(), words, tmp_path / "a.onnx")


def test_places_that_cannot_be_written_are_refused_before_a_model_is_built(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    raises("a file stands where a folder is needed", export, None, WORDS, tmp_path / "file/a.onnx")
    (tmp_path / "b.onnx").mkdir()
    raises("is a folder; name a file in it", export, None, WORDS, tmp_path / "b.onnx")
    raises("cannot write", export, None, WORDS, "/proc/a.onnx")


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    raises(r"needs onnxscript, .* pip install 'mmclipdis\[export\]'",
           export, None, WORDS, tmp_path / "a.onnx")  # fmt: skip


def test_files_of_others_say_nothing(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "a.pt2")
    raises("mmclipdis export has not written it", load_metadata, tmp_path / "a.pt2")
    (tmp_path / "a.onnx").write_bytes(b"\xff\xfe no protobuf")
    raises("is neither ONNX", load_metadata, tmp_path / "a.onnx")
    raises("no file at", load_metadata, tmp_path / "b.onnx")
