"""No model is built whose preprocessor contradicts its tower, in any library (2 s)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import mmdet
import pytest
import torch
from mmdet.apis import DetInferencer, init_detector
from mmengine.config import Config
from mmengine.model import BaseModel, ImgDataPreprocessor
from mmengine.registry import MODELS, DefaultScope
from mmseg.apis import MMSegInferencer, init_model
from torch import nn
from torch.nn.modules import module

from mmclipdis.engine import pixel_statistics
from mmclipdis.engine.pixel_statistics import given_statistics
from mmclipdis.models import CLIPViT
from mmclipdis.utils.statistics import CLIP, HALF, IMAGENET, NONE, Statistics, convert
from tests.tiny import tiny_arch, tiny_resnet_arch

ARCH = tiny_arch()
RESNET = dict(type="mmengine.CLIPResNet", arch=tiny_resnet_arch(), out_indices=(0, 1, 2, 3))
SIGLIP = {**ARCH, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}


def encoder(arch: Any = ARCH, **options: Any) -> dict[str, Any]:
    return dict(type="mmengine.CLIPViT", arch=arch, **options)


def pixels(statistics: Statistics | None) -> dict[str, Any]:
    mean, std = (None, None) if statistics is None else statistics.of_bytes
    return dict(mean=mean, std=std)


def stock_segmentor(backbone: dict[str, Any], statistics: Statistics | None) -> nn.Module:
    DefaultScope.get_instance("statistics", scope_name="mmseg")
    built: nn.Module = MODELS.build(segmentor_config(backbone, statistics))
    return built


def segmentor_config(backbone: dict[str, Any], statistics: Statistics | None) -> dict[str, Any]:
    head = dict(type="FCNHead", in_channels=16, channels=8, num_classes=3, num_convs=1)
    return dict(
        type="mmseg.EncoderDecoder",
        data_preprocessor=dict(type="SegDataPreProcessor", size=(64, 64), **pixels(statistics)),
        backbone=backbone,
        decode_head={**head, "loss_decode": dict(type="CrossEntropyLoss")},
    )


def stock_detector(backbone: dict[str, Any], statistics: Statistics | None) -> nn.Module:
    DefaultScope.get_instance("statistics-det", scope_name="mmdet")
    built: nn.Module = MODELS.build(detector_config(backbone, statistics))
    return built


def detector_config(backbone: dict[str, Any], statistics: Statistics | None) -> Any:
    path = Path(mmdet.__file__).parent / ".mim/configs/_base_/models/faster-rcnn_r50_fpn.py"
    config = Config.fromfile(path).model
    config.backbone = backbone
    config.data_preprocessor.update(**pixels(statistics))
    config.neck.in_channels = [32, 64, 128, 256]
    return config


LINE = (
    r"data_preprocessor has mean=\[123.675, 116.28, 103.53\], std=\[58.395, 57.12, 57.375\], but "
    r"{} was trained with mean=\[122.771, 116.746, 104.094\], std=\[68.501, 66.632, 70.323\]: set "
    r"these in the data_preprocessor \(of pixels from 0 to 255\), or, if its weights were trained "
    r"with the others, give {} mean=\[0.485, 0.456, 0.406\], std=\[0.229, 0.224, 0.225\]"
)


def test_stock_segmentors_refuse_them() -> None:
    with pytest.raises(ValueError, match=LINE.format("'shapes-tiny'", r"backbone \(CLIPViT\)")):
        stock_segmentor(encoder("shapes-tiny"), IMAGENET)
    stock_segmentor(encoder(), CLIP)
    stock_segmentor(encoder(SIGLIP), HALF)


def test_stock_detectors_refuse_them() -> None:
    line = LINE.format("the given arch", r"backbone \(CLIPResNet\)")
    with pytest.raises(ValueError, match=line):
        stock_detector(RESNET, IMAGENET)
    stock_detector(RESNET, CLIP)
    stock_detector(dict(RESNET, mean=IMAGENET.mean, std=IMAGENET.std), IMAGENET)


@pytest.mark.parametrize("entrance", [init_model, MMSegInferencer, init_detector, DetInferencer])
def test_entrances_of_the_libraries_refuse_them(entrance: Any) -> None:
    detects = entrance in (init_detector, DetInferencer)
    scope, tower = ("mmdet", RESNET) if detects else ("mmseg", encoder())
    make = detector_config if detects else segmentor_config
    line = LINE.format("the given arch", rf"backbone \({tower['type'].split('.')[1]}\)")
    with pytest.raises(ValueError, match=line):
        entrance(Config(dict(default_scope=scope, model=make(tower, IMAGENET))), device="cpu")
    if entrance in (init_model, init_detector):  # inferencers want a pipeline, too
        right = Config(dict(default_scope=scope, model=make(tower, CLIP)))
        options = dict(palette="coco") if detects else {}
        assert given_statistics(entrance(right, device="cpu", **options).data_preprocessor)


def test_what_the_pipeline_takes_off_cannot_be_told() -> None:
    model = stock_segmentor(encoder(SIGLIP), None)
    assert given_statistics(model.data_preprocessor) is None


@pytest.mark.parametrize("wrong", [CLIP, IMAGENET, NONE])
def test_every_pair_of_families_is_told_apart(wrong: Statistics) -> None:
    with pytest.raises(ValueError, match=r"was trained with mean=\[127.5, 127.5, 127.5\], std=\["):
        stock_segmentor(encoder(SIGLIP), wrong)


def test_a_std_alone_contradicts_too() -> None:
    with pytest.raises(ValueError, match=r"std=\[66.0, 66.0, 66.0\], but"):
        stock_segmentor(encoder(), Statistics(CLIP.mean, [66 / 255] * 3))
    rounded = Statistics([round(255 * v) / 255 for v in CLIP.mean], CLIP.std)
    stock_segmentor(encoder(), rounded)


def test_a_tower_deep_inside_is_found_and_named() -> None:
    config = dict(type="FViTBackbone", encoder=encoder(), norm_cfg=dict(type="BN"))
    config.update(out_indices=(0, 1, 2, 3)[-4:])
    config["encoder"]["arch"] = tiny_arch(layers=4)
    pre = dict(type="mmdet.DetDataPreprocessor", **pixels(IMAGENET))
    with pytest.raises(ValueError, match=r"give backbone.encoder \(CLIPViT\) mean=\[0.485"):
        holder(pre, MODELS.build(config))


def holder(preprocessor: Any, backbone: nn.Module) -> BaseModel:
    """A model of nobody's library."""

    class Model(BaseModel):
        def __init__(self) -> None:
            super().__init__(data_preprocessor=preprocessor)
            self.backbone = backbone

        def forward(self, *_: Any, **__: Any) -> None: ...

    return Model()


def test_another_preprocessor_later_is_checked_too() -> None:
    DefaultScope.get_instance("statistics-late", scope_name="mmseg")
    model = holder(None, MODELS.build(encoder()))
    wrong = MODELS.build(dict(type="mmdet.DetDataPreprocessor", **pixels(HALF)))
    with pytest.raises(ValueError, match="127.5.* but the given arch was trained with"):
        model.data_preprocessor = wrong
    assert type(model.data_preprocessor).__name__ == "BaseDataPreprocessor"


def test_a_preprocessor_of_several_branches_is_read() -> None:
    inner = dict(type="mmdet.DetDataPreprocessor", **pixels(HALF))
    several = MODELS.build(dict(type="mmdet.MultiBranchDataPreprocessor", data_preprocessor=inner))
    assert given_statistics(several) == ([127.5] * 3, [127.5] * 3)


def test_where_tags_differ_the_preprocessor_says_which() -> None:
    backbone: Any = CLIPViT(arch=ARCH)
    backbone.possible_statistics = (CLIP, HALF)
    pre = dict(type="mmdet.DetDataPreprocessor", **pixels(HALF))
    assert holder(pre, backbone).backbone.statistics == HALF


@pytest.mark.parametrize(
    "kind", ["DCLIPDataPreprocessor", "DistillDataPreprocessor", "RegionDataPreprocessor"]
)
def test_our_preprocessors_follow_the_tower(kind: str) -> None:
    model = holder(dict(type=kind), MODELS.build(encoder(SIGLIP)))
    assert given_statistics(model.data_preprocessor) == HALF.of_bytes
    plain = holder(dict(type=kind), nn.Identity())
    found = torch.tensor(given_statistics(plain.data_preprocessor))
    assert torch.equal(found.float(), torch.tensor(CLIP.of_bytes))
    with pytest.raises(ValueError, match="was trained with mean=.127.5"):
        holder(dict(type=kind, mean=[1.0, 2.0, 3.0]), MODELS.build(encoder(SIGLIP)))


def test_they_follow_one_tower_and_refuse_a_second() -> None:
    config = dict(type="DeCLIP", data_preprocessor=dict(type="DistillDataPreprocessor"))
    config.update(
        student=encoder(SIGLIP), teacher=encoder(SIGLIP), content_loss=dict(type="ContentLoss")
    )
    model = MODELS.build(copy.deepcopy(config))
    assert given_statistics(model.data_preprocessor) == HALF.of_bytes
    with pytest.raises(ValueError, match=r"mean=\[127.5.*give teacher \(CLIPViT\) mean=\[0.5"):
        MODELS.build(dict(config, teacher=encoder()))


def test_a_guide_gets_what_the_tower_was_given() -> None:
    """What ImageNet calls zero is -0.03 to SigLIP, in red: the spec of encoders, 2.7."""
    vfm = dict(
        type="TimmVFM", model="dino-B-8", model_kwargs=dict(depth=2, embed_dim=24, num_heads=2)
    )
    options = dict(readout="proxyclip", vfm=vfm)
    images = torch.rand(1, 3, 32, 32)
    torch.manual_seed(0)
    one: Any = MODELS.build(encoder(**options))
    other: Any = MODELS.build(encoder(SIGLIP, **options))
    other.load_state_dict(one.state_dict())
    other.vfm.load_state_dict(one.vfm.state_dict())
    found = other.guide_tokens(convert(images, IMAGENET, HALF))
    torch.testing.assert_close(found, one.guide_tokens(convert(images, IMAGENET, CLIP)))


def test_torch_is_asked_once() -> None:
    for _ in range(2):
        MODELS.build(encoder())
    hooks = module._global_module_registration_hooks.values()
    assert sum(hook is pixel_statistics._on_registration for hook in hooks) == 1


def test_a_model_in_a_wrapper_has_its_own_preprocessor() -> None:
    """mmengine hands that of the whole config to test-time augmentation, which never uses it."""
    inner, wrapper = nn.Module(), nn.Module()
    inner.data_preprocessor = ImgDataPreprocessor(**pixels(CLIP))
    inner.backbone = MODELS.build(encoder())
    for own in (wrapper, nn.Module()):
        own.data_preprocessor = ImgDataPreprocessor(**pixels(HALF))
    wrapper.module = inner
    with pytest.raises(ValueError, match="data_preprocessor has mean"):
        own.backbone = MODELS.build(encoder())
