"""The smallest models that can be exported, with weights that are meant to be random."""

from __future__ import annotations

import re
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmclipdis.engine.random_weights import take_as_meant
from tests.models.segmentation.catseg.tiny import shrink_model
from tests.paths import ROOT
from tests.tiny import tiny_arch

WORDS = ["apple", ["plum", "purple plum"], "grass"]
NAMES = ("apple", "plum", "grass")


def images(batch: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(7))


def arch(layers: int = 2) -> dict[str, Any]:
    """A tiny CLIP whose text tower knows the tokens of real words."""
    found = tiny_arch(image_size=32, width=32, head_width=16, layers=layers)
    return {**found, "text_cfg": {**found["text_cfg"], "vocab_size": 49408}}


def text_encoder(layers: int = 2) -> dict[str, Any]:
    part = dict(arch=arch(layers), cache_dir=False, progress=False)
    return dict(type="OpenCLIPTextEncoder", **part)


def build(config: dict[str, Any], scope: str = "mmseg") -> Any:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        model: Any = MODELS.build(config)
    take_as_meant(model)
    return model


def segmentor(backbone: str = "ClearCLIPViT", layers: int = 2, **test_cfg: Any) -> Any:
    """A training-free segmentor; it slides windows unless ``test_cfg`` says otherwise."""
    head = dict(type="CosineSegHead", text_encoder=text_encoder(layers), templates="single")
    sliding = dict(mode="slide", crop_size=(32, 32), stride=(16, 16))
    mean, std = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]
    own = dict(mean=[value / 255 for value in mean], std=[value / 255 for value in std])
    colours = dict(mean=mean, std=std, bgr_to_rgb=True)
    return build(
        dict(
            type="OpenVocabSegmentor",
            data_preprocessor=dict(type="SegDataPreProcessor", **colours),
            backbone=dict(type=backbone, arch=arch(layers), **own),
            decode_head=head,
            test_cfg=test_cfg or sliding,
        )
    )


def stock() -> Any:
    """mmseg's own segmentor with our backbone and head."""
    head = dict(type="CosineSegHead", text_encoder=text_encoder(), templates="single")
    return build(
        dict(
            type="EncoderDecoder",
            data_preprocessor=dict(type="SegDataPreProcessor"),
            backbone=dict(type="ClearCLIPViT", arch=arch()),
            decode_head=head,
            test_cfg=dict(mode="whole"),
        )
    )


def catseg() -> Any:
    """CAT-Seg with windows and an overview."""
    model = Config.fromfile(ROOT / "configs/shapes/catseg.py").model
    shrink_model(model, 16)
    return build(model)


def dclip(**options: Any) -> Any:
    return build(
        dict(
            type="DCLIP",
            encoder=dict(type="CLIPViT", positions="size", arch=arch()),
            text_encoder=text_encoder(),
            **{"projectors": dict(out_dim=8), **options},
        ),
        "mmengine",
    )


def zero_shot(**options: Any) -> Any:
    return build(
        dict(
            type="ZeroShotRecognizer",
            encoder=dict(type="CLIPViT", positions="size", arch=arch()),
            text_encoder=text_encoder(),
            **options,
        ),
        "mmengine",
    )


def example(word: str) -> str:
    """The example of docs/export.md in which a word stands."""
    page = (ROOT / "docs" / "export.md").read_text()
    (found,) = [code for code in re.findall(r"(?s)```python\n(.*?)```", page) if word in code]
    return found
