"""Photos, words and files of SigLIP, TIPS, DINO and dino.txt in the tools (about 8 s in all)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS
from torch import Tensor

from mmclipdis.apis import OpenVocabSegInferencer, OpenVocabTagger, segment, tag
from mmclipdis.engine.random_weights import take_as_meant
from mmclipdis.export import check, export
from tests.apis.inferencers.test_segment import make_config
from tests.faults.endings import raises
from tests.models.test_new_encoders import NAMES, arch_of, encoders
from tests.models.test_new_encoders_at_work import built, recognizer
from tests.paths import ROOT


def segmentor(kind: str, tokenizer: str, **head: Any) -> ConfigDict:
    both = encoders(kind, tokenizer, readout="maskclip")
    encoder = MODELS.build(both["image"])
    patch = encoder.patch_size[0]
    mean, std = encoder.statistics.of_bytes
    pixels = dict(mean=list(mean), std=list(std), bgr_to_rgb=True)
    cosine = dict(type="CosineSegHead", text_encoder=both["text"], vocabulary=NAMES)
    return ConfigDict(
        type="mmseg.OpenVocabSegmentor",
        data_preprocessor=dict(pixels, type="mmseg.SegDataPreProcessor"),
        backbone=both["image"],
        decode_head=dict(cosine, templates=["{}"], **head),
        test_cfg=dict(mode="slide", crop_size=(4 * patch,) * 2, stride=(2 * patch,) * 2),
    )


PHOTO = np.random.default_rng(0).integers(0, 256, (61, 93, 3), np.uint8)


@pytest.mark.parametrize("kind", ["siglip", "tips", "dinotxt"])
@pytest.mark.parametrize("score_norm", [None, "surgery"])
def test_a_photo_of_no_whole_patches_is_segmented(
    kind: str,
    score_norm: Any,
    toy_tokenizer: str,
) -> None:
    config = make_config()
    config.model = segmentor(
        kind, toy_tokenizer, **({"score_norm": score_norm} if score_norm else {})
    )
    inferencer = OpenVocabSegInferencer(config, device="cpu")
    found = segment(PHOTO, ["cat", "photo"], model=inferencer)
    assert found.heatmap("cat").values.shape == (61, 93)
    small = segment(PHOTO[:10, :9], ["cat", "photo"], model=inferencer)
    assert small.heatmap("cat").values.shape == (10, 9)


def tagger_config(image: dict[str, Any], text: dict[str, Any]) -> Config:
    config = Config.fromfile(ROOT / "configs/shapes/dclip_zero_shot.py")
    config.model.encoder = ConfigDict(image, init_cfg=None)
    config.model.text_encoder = ConfigDict(text, init_cfg=None)
    config.model.templates = ["{}"]
    return config


@pytest.mark.parametrize("kind", ["siglip", "dinotxt"])
def test_a_photo_is_tagged_and_looked_at_place_by_place(kind: str, toy_tokenizer: str) -> None:
    both = encoders(kind, toy_tokenizer)
    inferencer = OpenVocabTagger(tagger_config(both["image"], both["text"]), device="cpu")
    take_as_meant(inferencer.model)
    found = tag(PHOTO, ["cat", "photo"], model=inferencer, local=True)
    assert found.scores.shape == found.local.shape == (2,)
    assert found.heatmap("cat").values.shape == (61, 93)


def test_a_tower_without_a_text_side_ends_in_a_line(toy_tokenizer: str) -> None:
    arch = arch_of("dinov2")
    del arch["text_cfg"]
    parts = dict(type="CLIPViT", arch=arch), dict(type="OpenCLIPTextEncoder", arch=arch)
    config = make_config()
    config.model = segmentor("dinov2", toy_tokenizer)
    config.model.backbone.arch = config.model.decode_head.text_encoder.arch = arch
    for kind, given in ((OpenVocabTagger, tagger_config(*parts)), (OpenVocabSegInferencer, config)):
        raises("lacks .*text_cfg", kind, given, device="cpu")


@pytest.mark.parametrize(("kind", "size"), [("siglip", 64), ("dinotxt", 64), ("dinov3", None)])
def test_a_file_gives_what_the_model_gives(
    kind: str,
    size: int | None,
    toy_tokenizer: str,
    tmp_path: Path,
) -> None:
    """The exporter compares them, of any size at several; a difference is an error."""
    if kind == "dinotxt":
        model = recognizer(kind, toy_tokenizer, templates=["{}"])
    else:
        model = built(segmentor(kind, toy_tokenizer), "mmseg")
    file = tmp_path / "model.pt2"
    assert export(model, NAMES, file, format="torch", image_size=size).stat().st_size


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_a_file_that_does_not_run_is_not_told_to_take_the_format_it_has(
    format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(images: Tensor) -> tuple[Tensor, ...]:
        raise AssertionError("Guard failed")

    monkeypatch.setattr(check, "_images", lambda *_: torch.zeros(1, 3, 16, 16))
    found: Any = SimpleNamespace(step=(16, 16), batch=True, reference=lambda images: (images,))
    pattern = "Guard failed; fix the size.*nothing was written"
    line = raises(pattern, check.check_file, run, found, None, format)
    assert ("or use format='torch'" in line) == (format == "onnx")
