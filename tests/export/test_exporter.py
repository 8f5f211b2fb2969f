"""A file gives what its model gives, says what it is, and the model stays as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from mmclipdis.export import export, load_metadata
from mmclipdis.export import kinds as kinds_module
from tests.export.tiny import NAMES, WORDS, catseg, dclip, segmentor, zero_shot
from tests.faults.endings import raises

SIZE = (40, 52)


def probabilities(model: Any, images: torch.Tensor, words: Any = WORDS) -> np.ndarray:
    """What the model's own prediction has, by its ``test_cfg``."""
    model.eval()
    model.set_vocabulary(words)
    model.test_cfg = {**model.test_cfg, "return_probs": True}
    return torch.stack([sample.seg_logits.data for sample in model.predict(images)]).numpy()


def images(batch: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(7))


def run(path: Path, pictures: torch.Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path)
    return session.run(None, {"image": pictures.numpy()})


@pytest.mark.parametrize(
    "backbone", ["CLIPViT", "MaskCLIPViT", "SCLIPViT", "ClearCLIPViT", "CLIPSurgeryViT"]
)
def test_each_readout_slides_its_windows_in_a_file_of_one_size(
    backbone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = segmentor(backbone)
    if backbone == "CLIPSurgeryViT":
        model.backbone.readout = type(model.backbone.readout)(blocks=2)
    kind = "onnx" if backbone == "SCLIPViT" else "torch"  # the second is quicker
    out = tmp_path / f"a.{'onnx' if kind == 'onnx' else 'pt2'}"
    assert export(model, WORDS, out, kind, image_size=SIZE) == out
    printed = capsys.readouterr().out
    assert "checked by" in printed and "2 x 3 x 40 x 52" in printed and "note" not in printed
    if kind == "onnx":
        pictures = images(3, *SIZE)
        (found,) = run(out, pictures)
        assert found.shape == (3, 3, *SIZE)
        assert np.abs(found - probabilities(model, pictures)).max() < 1e-5


def test_a_file_of_any_size_looks_at_whole_images_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = segmentor(), tmp_path / "a.onnx"
    export(model, WORDS, out)
    printed = capsys.readouterr().out
    assert "the file looks at the whole image at once" in printed
    assert "sides any multiple of 16 x 16 pixels" in printed
    sizes = ("1 x 3 x 96 x 96", "2 x 3 x 48 x 128")
    assert all(f"checked by onnxruntime: {size}" in printed for size in sizes)
    model.test_cfg = dict(mode="whole")
    for shape in ((1, 32, 32), (2, 64, 48)):  # the native grid, and a smaller one
        (found,) = run(out, images(*shape))
        assert np.abs(found - probabilities(model, images(*shape))).max() < 1e-5
    metadata = load_metadata(out)
    assert metadata["names"] == list(NAMES) and metadata["task"] == "segment"
    assert metadata["mean"] == [1, 2, 3] and metadata["std"] == [4, 5, 6]
    assert metadata["channel_order"] == "RGB" and metadata["multiple_of"] == [16, 16]
    props = {entry.key: json.loads(entry.value) for entry in onnx.load(out).metadata_props}
    assert props == metadata


@pytest.mark.parametrize(
    ("build", "batch", "words"),
    [(catseg, 1, WORDS), (dclip, 2, NAMES), (zero_shot, 2, NAMES)],
)
def test_catseg_and_taggers_become_onnx(
    build: Callable[[], Any], batch: int, words: Any, tmp_path: Path
) -> None:
    model, out = build(), tmp_path / "a.onnx"
    export(model, words, out, image_size=SIZE)
    pictures = images(batch, *SIZE)
    found = run(out, pictures)
    if build is catseg:
        assert np.abs(found[0] - probabilities(model, pictures)).max() < 1e-5
        return
    model.eval().set_vocabulary(NAMES)
    samples = model(pictures, mode="predict")
    for values, name in zip(found, ("pred_score", "pred_logit")):
        wanted = torch.stack([sample.get(name) for sample in samples]).numpy()
        assert np.abs(values - wanted).max() < 1e-4


def test_the_model_stays_as_it_was_and_its_text_is_encoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = zero_shot().train()
    model.set_vocabulary(["kite", "fish"])
    asked: list[Any] = []
    embed = model.text.encoder.embed
    monkeypatch.setattr(
        type(model.text.encoder), "embed", lambda self, v: asked.append(v) or embed(v)
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    out = export(model, NAMES, tmp_path / "a.pt2", "torch", image_size=32)
    assert torch.equal(state, torch.get_rng_state())
    assert len(asked) == 1
    assert model.training and model.vocabulary.class_names == ("kite", "fish")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    text = sum(p.numel() for p in model.text.encoder.parameters())
    held = torch.export.load(out).state_dict
    assert sum(value.numel() for value in held.values()) < text / 10
    assert load_metadata(out)["image_size"] == [32, 32]


@pytest.fixture
def uncaptured(monkeypatch: pytest.MonkeyPatch) -> None:
    """No program is captured: its place takes what fails or is compared."""
    monkeypatch.setattr("mmclipdis.export.exporter.capture", lambda found, size: found.program)
    monkeypatch.setattr("mmclipdis.export.exporter.file_of", lambda *_: b"program")


@pytest.mark.usefixtures("uncaptured")
@pytest.mark.parametrize("wrong", [lambda x: x + 2e-4, lambda x: x * float("nan"), lambda x: x[:1]])
def test_a_file_that_is_not_its_model_is_not_written(
    wrong: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = segmentor(mode="whole"), tmp_path / "a.pt2"
    program = kinds_module.exportable
    kept: list[Any] = []

    def runner(*_: Any) -> Any:
        return lambda pictures: (wrong(kept[0].program(pictures)),)

    monkeypatch.setattr(
        "mmclipdis.export.exporter.exportable",
        lambda *args: kept.append(program(*args)) or kept[0],
    )
    monkeypatch.setattr("mmclipdis.export.exporter.runner_of", runner)
    raises("the file is not the model: scores of .* nothing was written",
           export, model, WORDS, out, "torch")  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("uncaptured")
@pytest.mark.parametrize("head", [dict(), dict(score_norm="minmax"), dict(background="threshold")])
@pytest.mark.parametrize(
    ("size", "mode"), [(None, "slide"), ((37, 50), "slide"), ((37, 50), "whole")]
)
def test_options_of_the_head_are_in_the_program(
    head: dict[str, Any], size: Any, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = segmentor(mode=mode, crop_size=(36, 36), stride=(20, 20))  # padded to 48 x 48
    part = model.decode_head
    part.score_norm = head.get("score_norm")
    if "background" in head:
        part.ask_background, part.prob_thd, part.background = False, 0.4, "threshold"
    kept: list[Any] = []
    program = kinds_module.exportable
    monkeypatch.setattr(
        "mmclipdis.export.exporter.exportable",
        lambda *args: kept.append(program(*args)) or kept[0],
    )
    monkeypatch.setattr(
        "mmclipdis.export.exporter.runner_of",
        lambda *_: lambda pictures: (kept[0].program(pictures),),
    )
    words = ["background", *WORDS]
    export(model, words, tmp_path / "a.pt2", "torch", image_size=size)
    facts = kept[0].facts
    assert facts["background"] == 0 and facts["threshold"] == part.prob_thd
