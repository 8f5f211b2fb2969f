"""OV-DQUO's backbone on a ResNet: regions through CLIP's own pool, frozen, in any batch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor

from mmclipdis.models import OVDQUOResNetBackbone
from mmclipdis.models.detection.ovdquo import resnet_backbone
from tests.clip.towers.test_resnet import randomised
from tests.tiny import tiny_arch, tiny_resnet_arch

SIDE = 96  # of 3 x 3 locations
TOLERANCE = dict(rtol=0, atol=2e-6)
BOXES = torch.tensor([[1.0, 10, 7, 55, 93], [0.0, 0, 0, 96, 96], [1.0, 60, 3, 131, 20]])


def build(encoder: dict[str, Any] | None = None, **kwargs: Any) -> OVDQUOResNetBackbone:
    torch.manual_seed(0)
    chosen = dict(type="CLIPResNet", arch=tiny_resnet_arch(image_size=SIDE)) | (encoder or {})
    backbone = MODELS.build(dict(type="OVDQUOResNetBackbone", encoder=chosen, **kwargs))
    randomised(backbone.encoder.tower)
    return backbone


def photos(height: int = SIDE, width: int = SIDE, count: int = 2) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.manual_seed(1))


def own_stages(backbone: OVDQUOResNetBackbone, images: Tensor) -> list[Tensor]:
    """Outputs of open_clip's four stages."""
    visual, maps = backbone.encoder.tower.visual, []
    x = visual.stem(images)
    for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        maps.append(x := stage(x))
    return maps


def pixel(image: Tensor, y: float, x: float) -> Tensor:
    """Bilinear value (C,) of a map (C, h, w); zero far outside, the border repeated near it."""
    height, width = image.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return torch.zeros(len(image))
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    total = torch.zeros(len(image))
    for row, share in ((top, 1 - (y - top)), (min(top + 1, height - 1), y - top)):
        for column, part in ((left, 1 - (x - left)), (min(left + 1, width - 1), x - left)):
            total += share * part * image[:, row, column]
    return total


def naive_crop(image: Tensor, box: Tensor, stride: int, size: int) -> Tensor:
    """RoIAlign of one box, (C, size, size)."""
    x0, y0, x1, y1 = (value / stride - 0.5 for value in box.tolist())
    height, width = (y1 - y0) / size, (x1 - x0) / size
    rows, columns = math.ceil(height), math.ceil(width)
    out = torch.zeros(len(image), size, size)
    for i in range(size):
        for j in range(size):
            for r in range(rows):
                for c in range(columns):
                    y, x = (
                        y0 + (i + (r + 0.5) / rows) * height,
                        x0 + (j + (c + 0.5) / columns) * width,
                    )
                    out[:, i, j] += pixel(image, y, x) / (rows * columns)
    return out


@pytest.mark.parametrize(
    ("arch", "widths", "grid", "dim"),
    [("RN50-quickgelu", (512, 1024), 7, 1024), ("RN50x4-quickgelu", (640, 1280), 9, 640)],
)
def test_sizes_are_those_of_the_published_models(arch, widths, grid, dim):
    with torch.device("meta"):
        backbone = OVDQUOResNetBackbone(dict(type="CLIPResNet", arch=arch))
    assert (backbone.level_widths, backbone.pool_grid) == (widths, grid)
    assert (backbone.embed_dim, backbone.patch_size, backbone.strides) == (dim, 32, (8, 16))


@pytest.mark.parametrize("size", [(96, 96), (64, 160), (70, 101), (32, 32)])
@torch.no_grad()
def test_levels_and_maps_are_the_stages_on_any_grid(size):
    backbone, images = build(), photos(*size)
    _, c3, c4, c5 = own_stages(backbone, images)
    *levels, maps = backbone(images)
    for got, wanted in zip((*levels, *maps), (c3, c4, c4, c5), strict=True):
        torch.testing.assert_close(got, wanted)
    assert [level.shape[1] for level in levels] == list(backbone.level_widths)
    assert maps[1].shape[-2:] == (size[0] // 32, size[1] // 32)


@torch.no_grad()
def test_a_region_that_is_the_whole_image_is_clips_own_embedding():
    backbone, images = build(), photos()
    maps = backbone(images)[-1]
    whole = torch.tensor([[1.0, 0, 0, SIDE, SIDE], [0.0, 0, 0, SIDE, SIDE]])
    expected = F.normalize(backbone.encoder.tower.visual(images), dim=1).flip(0)
    for embed in (backbone.query_embeddings, backbone.score_embeddings):
        torch.testing.assert_close(embed(maps, whole), expected, **TOLERANCE)


@torch.no_grad()
def test_regions_of_whole_cells_are_crops_of_the_maps():
    backbone, images = build(), photos(160, 192)
    visual = backbone.encoder.tower.visual
    *_, c4, c5 = own_stages(backbone, images)
    maps = backbone(images)[-1]
    box = torch.tensor([[1.0, 64, 32, 64 + SIDE, 32 + SIDE]])
    found = backbone.query_embeddings(maps, box)
    expected = visual.attnpool(c5[1:, :, 1:4, 2:5])
    torch.testing.assert_close(found, F.normalize(expected, dim=1), **TOLERANCE)
    found = backbone.score_embeddings(maps, box)
    expected = visual.attnpool(visual.layer4(c4[1:, :, 2:8, 4:10]))
    torch.testing.assert_close(found, F.normalize(expected, dim=1), **TOLERANCE)


@torch.no_grad()
def test_regions_are_naive_crops_through_open_clips_modules():
    backbone, images = build(), photos(96, 128)
    visual = backbone.encoder.tower.visual
    *_, c4, c5 = own_stages(backbone, images)
    maps = backbone(images)[-1]
    last = [naive_crop(c5[int(box[0])], box[1:], 32, 3) for box in BOXES]
    expected = F.normalize(visual.attnpool(torch.stack(last)), dim=1)
    torch.testing.assert_close(backbone.query_embeddings(maps, BOXES), expected, **TOLERANCE)
    crops = torch.stack([naive_crop(c4[int(box[0])], box[1:], 16, 6) for box in BOXES])
    expected = F.normalize(visual.attnpool(visual.layer4(crops)), dim=1)
    torch.testing.assert_close(backbone.score_embeddings(maps, BOXES), expected, **TOLERANCE)


@pytest.mark.parametrize("name", ["query_embeddings", "score_embeddings"])
@torch.no_grad()
def test_chunks_and_batches_change_nothing(name, monkeypatch):
    backbone, images = build(), photos(96, 128)
    embed, maps = getattr(backbone, name), backbone(images)[-1]
    boxes = BOXES.repeat(3, 1)[:8]
    found = embed(maps, boxes)
    sizes: list[int] = []
    pool = backbone.encoder.tower.pool_regions
    monkeypatch.setattr(
        backbone.encoder.tower, "pool_regions", lambda x: sizes.append(len(x)) or pool(x)
    )
    monkeypatch.setattr(resnet_backbone, "CHUNK", 3)
    torch.testing.assert_close(embed(maps, boxes), found, **TOLERANCE)
    assert sizes == [3, 3, 2]
    single = backbone(images[1:])[-1]
    alone = embed(single, torch.cat([torch.zeros(1, 1), boxes[:1, 1:]], dim=1))
    torch.testing.assert_close(found[:1], alone, **TOLERANCE)
    assert embed(maps, boxes[:0]).shape == (0, backbone.embed_dim)
    with pytest.raises(ValueError, match=r"expected RoIs \(n, 5\), got \(8, 4\)"):
        embed(maps, boxes[:, 1:])


@torch.no_grad()
def test_boxes_without_area_or_outside_are_zeros():
    backbone = build()
    maps = backbone(photos())[-1]
    boxes = torch.tensor(
        [[0.0, 9, 9, 9, 20], [0.0, 9, 9, 9, 9], [0.0, 300, 300, 400, 400], [0.0, 20, 20, 99, 99]]
    )
    for embed in (backbone.query_embeddings, backbone.score_embeddings):
        found = embed(maps, boxes)
        assert found.norm(dim=1).tolist() == pytest.approx([0, 0, 0, 1], abs=1e-6)
        torch.testing.assert_close(found[3:], embed(maps, boxes[3:]), **TOLERANCE)


def test_all_of_it_is_frozen_and_runs_once():
    backbone = build().train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    assert backbone.training and not any(m.training for m in backbone.encoder.modules())
    assert not any(p.requires_grad for p in backbone.parameters())
    ran: list[int] = []
    for index, stage in enumerate(backbone.encoder.tower.stages):
        stage.register_forward_hook(lambda *_, index=index: ran.append(index))
    *levels, maps = backbone(photos().requires_grad_())
    query = backbone.query_embeddings(maps, BOXES)
    assert ran == [0, 1, 2, 3]
    score = backbone.score_embeddings(maps, BOXES)
    assert ran == [0, 1, 2, 3, 3]
    assert not any(x.requires_grad for x in (*levels, *maps, query, score))
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_stock_neck_stands_on_the_levels_alone_without_the_last_stage():
    from mmdet.models import ChannelMapper

    backbone = build(dense_map=False).train()
    ran: list[bool] = []
    backbone.encoder.tower.stages[3].register_forward_hook(lambda *_: ran.append(True))
    neck = ChannelMapper(list(backbone.level_widths), 16, kernel_size=1, num_outs=3)
    maps = neck(backbone(photos(64, 96)))
    assert [tuple(m.shape[-2:]) for m in maps] == [(8, 12), (4, 6), (2, 3)]
    assert all(m.is_contiguous() for m in maps)  # mmcv's compiled RoIAlign asks for no strides
    assert not ran
    sum(m.square().mean() for m in maps).backward()
    assert all(p.grad is not None for p in neck.parameters())


@torch.no_grad()
def test_regions_are_embedded_in_fp32_under_autocast():
    backbone = build()
    *full, maps = backbone(photos())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        *half, half_maps = backbone(photos())
        under = [backbone.query_embeddings(maps, BOXES), backbone.score_embeddings(maps, BOXES)]
    assert half[0].dtype == torch.bfloat16
    assert [m.dtype for m in half_maps] == [torch.float32, torch.float32]
    for got, wanted in zip(half, full, strict=True):
        assert (got.float() - wanted).norm() < 0.05 * wanted.norm()
    assert torch.equal(under[0], backbone.query_embeddings(maps, BOXES))
    assert torch.equal(under[1], backbone.score_embeddings(maps, BOXES))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
@torch.no_grad()
def test_a_model_of_another_precision_embeds_too(kind):
    backbone = build()
    expected = backbone.score_embeddings(backbone(photos())[-1], BOXES)
    backbone.to(kind)
    found = backbone.score_embeddings(backbone(photos().to(kind))[-1], BOXES.to(kind))
    assert found.dtype == torch.promote_types(kind, torch.float32)
    assert F.cosine_similarity(found, expected.to(found), dim=1).min() > 0.98


@pytest.mark.parametrize("size", [(31, 64), (64, 16)])
def test_an_image_smaller_than_a_location_is_one_clear_error(size):
    for dense_map in (True, False):
        with pytest.raises(ValueError, match=f"{size[0]} x {size[1]} px is smaller than 32 x 32"):
            build(dense_map=dense_map)(photos(*size))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(encoder=dict(readout="v")), "encoder must not set readout: .* remove them"),
        (dict(encoder=dict(trainable=("all",))), "must not set trainable: the encoder is frozen"),
        (dict(encoder=dict(type="CLIPViT", arch=tiny_arch())), "a CLIPViT, expected a CLIPResNet"),
        (dict(prompt_scores=True), "prompt_scores=True needs a region_prompt"),
    ],
)
def test_a_wrong_option_is_one_clear_error(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_weights_come_through_the_encoders_init_cfg(tmp_path):
    visual = build().encoder.tower.visual.state_dict()
    torch.save({f"visual.{k}": v for k, v in visual.items()}, tmp_path / "clip.pt")
    init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "clip.pt"))
    backbone = MODELS.build(
        dict(
            type="OVDQUOResNetBackbone",
            encoder=dict(
                type="mmclipdis.CLIPResNet",
                arch=tiny_resnet_arch(image_size=SIDE),
                init_cfg=init_cfg,
            ),
        )
    )
    backbone(photos())  # as mm's tools, which do not call init_weights()
    for name, value in backbone.encoder.tower.visual.state_dict().items():
        assert torch.equal(value, visual[name]), name


def test_weights_for_another_readout_of_the_pool_are_refused(tmp_path):
    dense = MODELS.build(dict(type="CLIPResNet", arch=tiny_resnet_arch(image_size=SIDE)))
    state = {f"encoder.{k}": v for k, v in dense.state_dict().items()}
    with pytest.raises(ValueError, match="saved with the readout 'v', but the model .* 'qk'"):
        build().load_state_dict(state)
    build(dict(any_readout=True)).load_state_dict(state)
