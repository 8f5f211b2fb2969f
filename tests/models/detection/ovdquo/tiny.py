"""ShapeScenes' OV-DQUO with 20 queries, the published levels and pictures of 64 px, and batches."""

from __future__ import annotations

import copy
import functools
import zlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModule
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.engine.random_weights import take_as_meant
from tests.paths import ROOT
from tests.tiny import tiny_resnet_arch

CLASSES = ("apple", "kite", "fish", "wheel", "plum", "banana")
NOVEL = ("kite", "plum")
QUERIES, SIDE = 20, 64


@MODELS.register_module()
class TinyOVDQUOWords(BaseModule):
    """Every name has an embedding of its own."""

    embed_dim = 32

    def embed(self, vocabulary: Vocabulary) -> Tensor:
        rows = []
        for name in vocabulary.queries:
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            rows.append(torch.randn(self.embed_dim, generator=generator))
        return F.normalize(torch.stack(rows), dim=1)


@functools.cache
def _config() -> Config:
    return Config.fromfile(ROOT / "configs/shapes/ovdquo.py")


def config(**options: Any) -> ConfigDict:
    """Config of the model; ``options`` are laid over it."""
    model: ConfigDict = copy.deepcopy(_config().model)
    model.update(num_queries=QUERIES, max_classes=len(CLASSES), dn_cfg=dict(num_queries=60))
    model.data_preprocessor.pad_size_divisor = 32
    model.backbone.level_strides = (0.5, 1, 2)  # the published ones, of which one is trained
    model.bbox_head.templates = "a {}."
    for name, value in options.items():
        if isinstance(value, dict) and isinstance(model.get(name), dict):
            model[name].update(value)
        else:
            model[name] = value
    return model


def resnet_config(**options: Any) -> ConfigDict:
    """The same on a CLIP ResNet."""
    arch = tiny_resnet_arch()
    model = config(**options)
    model.backbone = ConfigDict(
        type="OVDQUOResNetBackbone", encoder=dict(type="CLIPResNet", arch=arch)
    )
    width = arch["vision_cfg"]["width"] * 4
    model.neck.in_channels = [2 * width, 4 * width]
    model.bbox_head.text_encoder = dict(type="TinyOVDQUOWords")
    return model


_BUILT: dict[str, Any] = {}


def build(cfg: ConfigDict | None = None, told: bool = True) -> Any:
    """The detector, with random numbers in place of what training has to find."""
    DefaultScope.get_instance("tests-ovdquo", scope_name="mmdet")
    cfg = cfg or config()
    key = repr(cfg)  # a build changes it
    if key not in _BUILT:  # a copy takes a tenth of the time, but for that of a tokenizer
        _BUILT[key] = _build(cfg)
    words = _BUILT[key].bbox_head.text.encoder
    model = copy.deepcopy(_BUILT[key], {id(words): words})
    take_as_meant(model)
    if told:
        model.set_vocabulary(CLASSES, NOVEL)
    torch.manual_seed(0)
    return model


def _build(cfg: ConfigDict) -> Any:
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:  # boxes of queries that differ from their starts
                weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return model


def batch(
    model: Any,
    training: bool,
    labels: Sequence[Sequence[int]] = ((0, 2, -1), (3, -1, -1)),
    sizes: Sequence[tuple[int, int]] = ((SIDE, SIDE), (SIDE, 48)),
    weights: bool = True,
) -> dict[str, Any]:
    """Pictures (height, width) of noise with boxes of these labels, -1 for pseudo boxes."""
    generator = torch.Generator().manual_seed(2)
    images, samples = [], []
    for number, (own, (height, width)) in enumerate(zip(labels, sizes, strict=True)):
        image = torch.randint(0, 256, (3, height, width), generator=generator).byte()
        images.append(image)
        low = torch.rand(len(own), 2, generator=generator) * 0.5
        side = 0.2 + 0.3 * torch.rand(len(own), 2, generator=generator)
        boxes = torch.cat([low, low + side], 1) * torch.tensor([width, height] * 2)
        label = torch.tensor(own, dtype=torch.long)
        truth = InstanceData(bboxes=boxes, labels=label)
        if weights:
            unsure = torch.rand(len(own), generator=generator)
            truth.weights = torch.where(label < 0, unsure, 1.0)
        shape = (height, width)
        sample = DetDataSample(
            metainfo=dict(
                img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0), img_path=f"{number}.png"
            )
        )
        sample.gt_instances = truth
        samples.append(sample)
    found: dict[str, Any] = model.data_preprocessor(
        dict(inputs=images, data_samples=samples), training
    )
    return found


def losses(model: Any, data: dict[str, Any]) -> dict[str, Tensor]:
    """Losses of a batch, without what is only logged."""
    found = model(**copy.deepcopy(data), mode="loss")
    return {name: value for name, value in found.items() if "loss" in name}


def predict(model: Any, data: dict[str, Any]) -> list[InstanceData]:
    """Detections of each picture."""
    with torch.no_grad():
        return [s.pred_instances for s in model(**copy.deepcopy(data), mode="predict")]
