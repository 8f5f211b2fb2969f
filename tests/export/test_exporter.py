"""A file gives what its model gives, says what it is, and the model stays as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.export import export, exporter, load_metadata
from mmclipdis.export import kinds as kinds_module
from mmclipdis.export.metadata import preprocessing
from tests.export import conftest
from tests.export.conftest import Exported
from tests.export.tiny import NAMES, WORDS, example, images, segmentor, zero_shot
from tests.faults.endings import raises
from tests.paths import ROOT


def test_a_file_of_any_size_looks_at_whole_images_and_says_so(exported: Exported) -> None:
    assert "the file looks at the whole image at once" in exported.printed
    assert "sides any multiple of 16 x 16 pixels" in exported.printed
    sizes = ("1 x 3 x 96 x 96", "2 x 3 x 48 x 128")
    assert all(f"checked by onnxruntime: {size}" in exported.printed for size in sizes)
    session = onnxruntime.InferenceSession(exported.path)
    model = exported.model.eval()
    model.set_vocabulary(conftest.NAMES)
    model.test_cfg = dict(mode="whole", return_probs=True)
    for shape in ((1, 32, 32), (2, 64, 48), (3, 32, 160)):  # the native grid, and others
        pictures = images(*shape)
        (found,) = session.run(None, {"image": pictures.numpy()})
        wanted = torch.stack([sample.seg_logits.data for sample in model.predict(pictures)])
        assert np.abs(found - wanted.numpy()).max() < 1e-5


def test_a_file_says_what_it_is(exported: Exported) -> None:
    metadata = load_metadata(exported.path)
    assert metadata["names"] == ["grass", "sand", "apple"] and metadata["task"] == "segment"
    assert metadata["mean"] == [1, 2, 3] and metadata["std"] == [4, 5, 6]
    assert metadata["channel_order"] == "RGB" and metadata["multiple_of"] == [16, 16]
    assert metadata["synonyms"] == [["grass"], ["sand", "beach"], ["apple"]]
    assert metadata["templates"] == ["a photo of a {}."]
    assert metadata["image_size"] is None and metadata["batch"] is None
    props = onnx.load(exported.path).metadata_props
    assert {entry.key: json.loads(entry.value) for entry in props} == metadata


def test_a_file_says_the_sentences_of_single_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "preprocessing", lambda model, config: {})
    source: Any = SimpleNamespace(name="x.py", model=None, config=None)
    facts = dict(task="segment", outputs=(), step=(8, 8), batch=None, notes=(), facts={})
    found: Any = SimpleNamespace(**facts)
    for more in (None, {"cat": ["a cat with whiskers."]}):
        templates = "single" if more is None else dict(patterns="single", more=more)
        vocabulary = Vocabulary.from_names(["cat", "dog"], templates)
        metadata = exporter._metadata(source, vocabulary, found, None)
        assert metadata["templates"] == ["a photo of a {}."]
        said = json.loads(json.dumps(metadata)).get("sentences")
        assert said == more


def test_resizing_and_colours_are_those_of_the_config() -> None:
    for name, order, resize in (("clearclip", "RGB", None), ("fvit", "RGB", None)):
        config = Config.fromfile(ROOT / f"configs/shapes/{name}.py")
        steps = config.test_dataloader.dataset.pipeline
        steps[:] = [step for step in steps if step.type != "Resize"]
        found = preprocessing(_preprocessor(config), config)
        assert (found["channel_order"], found["resize"]) == (order, resize)
        steps.insert(1, dict(type="Resize", scale=(64, 48), keep_ratio=True))
        found = preprocessing(_preprocessor(config), config)
        assert found["resize"] == {"scale": [64, 48], "keep_ratio": True}
        assert found["mean"] == pytest.approx(config.model.data_preprocessor.mean)


def _preprocessor(config: Config) -> Any:
    from mmengine.registry import MODELS, DefaultScope

    with DefaultScope.overwrite_default_scope(config.default_scope):
        model = torch.nn.Module()
        model.data_preprocessor = MODELS.build(config.model.data_preprocessor)
    return model


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
    program = torch.export.load(out)  # as docs/export.md has it
    text = sum(p.numel() for p in model.text.encoder.parameters())
    assert sum(value.numel() for value in program.state_dict.values()) < text / 10
    assert load_metadata(out)["image_size"] == [32, 32]
    pictures = images(2, 32, 32)
    scores, logits = program.module()(pictures)
    model.eval().set_vocabulary(NAMES)
    for values, key in ((scores, "pred_score"), (logits, "pred_logit")):
        wanted = torch.stack([sample.get(key) for sample in model(pictures, mode="predict")])
        torch.testing.assert_close(values, wanted, rtol=1e-5, atol=1e-5)


@pytest.fixture
def uncaptured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """No program is captured: its place takes what was to be, the last of the list."""
    kept: list[Any] = []
    made = kinds_module.exportable
    monkeypatch.setattr("mmclipdis.export.exporter.capture", lambda found, size: found.program)
    monkeypatch.setattr("mmclipdis.export.exporter.file_of", lambda *_: b"program")
    monkeypatch.setattr(
        "mmclipdis.export.exporter.exportable", lambda *args: kept.append(made(*args)) or kept[-1]
    )
    monkeypatch.setattr(
        "mmclipdis.export.exporter.runner_of",
        lambda *_: lambda pictures: (kept[-1].program(pictures),),
    )
    return kept


@pytest.mark.parametrize("wrong", [lambda x: x + 2e-4, lambda x: x * float("nan"), lambda x: x[:1]])
def test_a_file_that_is_not_its_model_is_not_written(
    wrong: Callable[[torch.Tensor], torch.Tensor],
    uncaptured: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, out = segmentor(mode="whole"), tmp_path / "a.pt2"
    monkeypatch.setattr(
        "mmclipdis.export.exporter.runner_of",
        lambda *_: lambda pictures: (wrong(uncaptured[-1].program(pictures)),),
    )
    raises("the file is not the model: scores of .* nothing was written",
           export, model, WORDS, out, "torch")  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_does_not_run_is_not_written(
    uncaptured: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        raise KeyError("node_7: shapes differ")  # any library's own

    monkeypatch.setattr("mmclipdis.export.exporter.runner_of", lambda *_: run)
    out = tmp_path / "a.pt2"
    line = r"the file does not run on 1 x 3 x .*KeyError: .*--image-size.*nothing was written"
    raises(line, export, segmentor(mode="whole"), WORDS, out, "torch")
    assert not out.exists()


def test_a_name_a_file_and_options_name_a_model(uncaptured: list[Any], tmp_path: Path) -> None:
    out = tmp_path / "a.pt2"
    options = {"model.decode_head.prob_thd": 0.25}
    for name in ("clearclip-shapes", ROOT / "configs/shapes/clearclip.py"):
        export(name, "grass, sand; beach, apple", out, "torch", check=False, cfg_options=options)
        assert uncaptured[-1].facts["threshold"] == 0.25
        assert uncaptured[-1].program.classes.classes == 3
    assert out.read_bytes() == b"program"


def test_the_example_of_the_page_names_the_ground(
    exported: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(exported.path, "shapes.onnx")
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    Image.fromarray(noise).save("photo.png")
    exec(compile(example("onnxruntime"), "docs/export.md", "exec"), {})
    shares = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert set(shares) == {"grass", "sand", "apple"}
    assert sum(float(share.rstrip("%")) for share in shares.values()) == pytest.approx(100, abs=0.2)
