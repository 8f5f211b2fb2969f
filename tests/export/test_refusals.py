"""What is not exported ends in one line that says why."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmclipdis.export import add_arguments, export, load_metadata, run
from mmclipdis.export.kinds import exportable
from tests.export.tiny import NAMES, WORDS, arch, segmentor, zero_shot
from tests.faults.endings import raises
from tests.paths import ROOT


def test_options_that_do_not_fit_are_refused_before_a_model_is_built(tmp_path: Path) -> None:
    out = tmp_path / "a.onnx"
    raises("format must be one of onnx, torch, got 'coreml'", export, None, WORDS, out, "coreml")
    raises("ends in .pt2; name it 'a.pt2'", export, None, WORDS, out, "torch")
    raises("a NoneType is no model", export, None, WORDS, out)
    raises("no config at .*gone.py", export, tmp_path / "gone.py", WORDS, out)
    raises("has no model", export, Config({"a": 1}), WORDS, out)


def test_sizes_and_words_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model, out = segmentor(), tmp_path / "a.onnx"
    raises("image_size=8 is|smaller than a patch", export, model, WORDS, out, image_size=8)
    for size in (0, (32, -1), (1, 2, 3), 1.5, (True, 32)):
        raises("give one side, or height and width", export, model, WORDS, out, image_size=size)
    raises("no class names", export, model, None, out)
    raises("model.float", export, segmentor().half(), WORDS, out)
    raises("checkpoint goes with a config", export, model, WORDS, out, checkpoint="a.pth")


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


class TwoStageDetector(nn.Module): ...


class BaseDetector(nn.Module): ...


def test_models_that_cannot_go_are_named_with_the_reason() -> None:
    raises("non-maximum suppression and RoIAlign", exportable, TwoStageDetector(), None)
    raises("BaseDetector is not exported: its deformable", exportable, BaseDetector(), None)
    raises("Linear is not exported: OpenVocabSegmentor", exportable, nn.Linear(1, 1), None)
    model = zero_shot()
    model.set_vocabulary(NAMES)
    model.segments = object()
    raises("with segments is not exported: how many boxes", exportable, model, None)


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


def test_the_command_passes_on_what_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple] = []

    def fake(*args: object, **options: object) -> Path:
        calls.append((args, options))
        return tmp_path / "a.pt2"

    monkeypatch.setattr("mmclipdis.export.exporter.export", fake)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = ["c/my.py", "--words", "sky, road", "--format", "torch", "--image-size", "32", "48"]
    assert run(parser.parse_args([*words, "--no-check", "--checkpoint", "a.pth"])) == 0
    (args, options), = calls  # fmt: skip
    assert args == ("c/my.py", "sky, road", Path("my.pt2"))
    assert options == dict(format="torch", checkpoint="a.pth", image_size=[32, 48], check=False)
    assert capsys.readouterr().out == f"wrote {tmp_path / 'a.pt2'}\n"
