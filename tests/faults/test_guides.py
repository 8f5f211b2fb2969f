"""A vision model guides CLIP wherever a backbone of CLIP stands, or a line says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import nn

from mmclipdis.apis.feature_maps import Model, figure
from mmclipdis.clip.towers.affinity import Guide
from mmclipdis.clip.towers.readout import READOUTS
from mmclipdis.export.kinds import exportable
from mmclipdis.models.detection.frozen_vit import FrozenViT
from mmclipdis.models.distillation.declip import DeCLIP
from mmclipdis.models.segmentation.catseg.segmentor import CATSeg
from tests.faults.endings import raises
from tests.tiny import tiny_arch

VFM: dict[str, Any] = dict(
    type="TimmVFM", model="dino-B-16", model_kwargs=dict(depth=2, embed_dim=24, num_heads=2)
)
ARCH = tiny_arch(layers=2)
GUIDED: dict[str, Any] = dict(type="CLIPViT", arch=ARCH, readout="proxyclip", vfm=VFM)
MASKED = dict(attention="affinity", affinity=dict(scope="masks"), residual="none", ffn=False)
SUMMED = dict(
    MASKED, affinity=dict(scale=4.0), branches=dict(spatial=1.0, semantic=0.0, blocks=[0])
)


def frozen(last: str = "readout", **options: Any) -> FrozenViT:
    return FrozenViT({**GUIDED, **options}, (0, 1), last, "before", num_levels=2)


@pytest.fixture(scope="module")
def detector() -> FrozenViT:
    return frozen()


def test_a_detector_reads_its_encoder_with_the_guide(detector: FrozenViT) -> None:
    images = torch.randn(1, 3, 32, 48)
    blocks, dense = detector.encode(images)
    encoder = detector.encoder
    guide = Guide(encoder.vfm(encoder.vfm.from_clip(images)))
    expected = encoder.tower.forward_dense(
        images, READOUTS["proxyclip"], with_tokens=True, guide=guide
    )
    assert expected.tokens is not None and torch.equal(blocks[1], expected.tokens)
    assert dense is not None and torch.equal(dense, F.normalize(expected.map, dim=1))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (dict(readout=MASKED), "FrozenViT.encoder has a readout with scope='masks', and detectors"),
        (dict(readout=SUMMED), "level1='readout' needs patch tokens, .* set level1='vanilla'"),
        (dict(vfm=dict(VFM, model="dino-B-8")), "vfm='dino-B-8' gives the dense map another grid"),
        (dict(vfm=dict(VFM, input_size=64)), "with patches of 16 x 16 px and no input_size"),
    ],
    ids=["masks", "branches", "patches", "size"],
)
def test_a_detector_has_one_grid_and_no_masks(options: dict[str, Any], line: str) -> None:
    raises(line, frozen, **options)


def test_branches_guide_a_detector_whose_level_is_clips_own() -> None:
    _, dense = frozen("vanilla", readout=SUMMED).encode(torch.randn(1, 3, 32, 48))
    assert dense is not None and dense.shape == (1, 32, 2, 3)


def test_catseg_has_one_grid() -> None:
    encoder = dict(GUIDED, vfm=dict(VFM, model="dino-B-8"))
    raises("^CATSeg.image_encoder.vfm='dino-B-8' gives the dense map another grid", CATSeg,
           image_encoder=encoder, text_encoder={}, decode_head={})  # fmt: skip


def test_a_student_without_context_is_named_as_in_its_config() -> None:
    raises("^the student's readout 'proxyclip' compares no projection", DeCLIP, student=GUIDED,
           vfms=[VFM], content_loss=dict(type="ContentLoss"),
           context_loss=dict(type="ContextCorrelationLoss"))  # fmt: skip


def test_an_export_finds_the_guide_in_a_detector(detector: FrozenViT) -> None:
    class FViT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = detector

    raises("FViT is not exported while a vision model guides its readout", exportable, FViT(), None)


@pytest.mark.parametrize(
    "vfm",
    ["TimmVFM", 5, {}, dict(model="dino-B-8"), dict(type="CLIPViT", arch=ARCH)],
    ids=["a word", "a number", "nothing", "no type", "another model"],
)
def test_a_guide_must_be_a_vision_model(vfm: Any) -> None:
    raises("^vfm=.* is no vision model: give the config of one, such as", MODELS.build,
           dict(GUIDED, vfm=vfm))  # fmt: skip


def test_terms_must_leave_something() -> None:
    readout = dict(attention=dict(kk=0, qq=0.0), residual="none", ffn=False)
    raises(r"factors of the terms \('kk', 'qq'\) .* are all 0", MODELS.build,
           dict(type="CLIPViT", arch=ARCH, readout=readout))  # fmt: skip


def test_a_figure_of_maps_has_no_masks(tmp_path: Path) -> None:
    photo, config = np.zeros((64, 64, 3), np.uint8), dict(GUIDED, readout=MASKED)
    models = [Model("mine", config)]
    raises("^mine: its readout has scope='masks', .* --readout proxyclip, or .*--show cls blocks",
           figure, photo, [], models, tmp_path / "a.png", groups=("features",))  # fmt: skip


def test_a_stock_segmentor_stitches_no_values() -> None:
    model = MODELS.build(
        dict(
            type="mmseg.EncoderDecoder",
            backbone=dict(type="CLIPViT", arch=ARCH),
            decode_head=dict(
                type="CosineSegHead",
                vocabulary=["cat", "dog"],
                num_classes=2,
                embeddings=torch.eye(2, 32),
            ),
            test_cfg=dict(mode="whole", stitch="values"),
        )
    )
    line = (
        "test_cfg.stitch='values' puts windows together before the head, and mmseg's EncoderDecoder"
    )
    raises(line, model.predict, torch.zeros(1, 3, 32, 32))
