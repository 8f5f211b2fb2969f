"""Dense features of FastViT (MobileCLIP S) and ConvNeXt, against timm's own forward passes.

Takes ten seconds, most of them for MobileCLIP-S0 at its real size.
"""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import timm
import torch
from open_clip.model import _build_vision_tower
from torch import Tensor, nn

from mmclipdis.clip.towers.build import build_image_tower
from mmclipdis.clip.towers.readout import READOUTS
from mmclipdis.clip.towers.resnet import build_resnet_tower
from mmclipdis.clip.towers.stage_trunks import build_stage_visual, has_stages
from mmclipdis.clip.towers.stages import StageTower, build_stage_tower
from tests.tiny import tiny_arch, tiny_eva_arch, tiny_resnet_arch
from tests.tiny_stages import tiny_convnext_arch, tiny_deep_fastvit_arch, tiny_fastvit_arch

VANILLA = READOUTS["vanilla"]
ARCHS = {
    "fastvit": tiny_fastvit_arch(),
    "fastvit-64": tiny_deep_fastvit_arch(),
    "convnext": tiny_convnext_arch(),
    "convnext-mlp": tiny_convnext_arch("mlp"),
}
FASTVITS = ("fastvit", "fastvit-64")
CONVNEXTS = ("convnext", "convnext-mlp")
SIZES = [(64, 64), (96, 160), (224, 320), (250, 330), (65, 127)]


def randomised(module: nn.Module) -> nn.Module:
    """Every weight and statistic random: as initialised, layer scales leave little of a block."""
    generator = torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            if name.endswith("running_var"):
                tensor.add_(noise)
            elif tensor.is_floating_point():
                tensor.add_(0.4 * noise - 0.2)
    return module


def tower_of(name: str) -> StageTower:
    torch.manual_seed(0)
    tower = randomised(build_stage_tower(ARCHS[name]).double()).eval()
    assert isinstance(tower, StageTower)
    return tower


def photos(height: int = 64, width: int = 64, count: int = 2) -> Tensor:
    generator = torch.manual_seed(1)
    return torch.randn(count, 3, height, width, dtype=torch.float64, generator=generator)


def naive_map(tower: Any, images: Tensor) -> Tensor:
    """The library's own head on an image of each location, alone."""
    last = tower.visual.trunk.forward_features(images)
    rows = [
        [tower.visual.head(tower.visual.trunk.head(last[:, :, i : i + 1, j : j + 1])) for j in js]
        for i, js in enumerate([range(last.shape[3])] * last.shape[2])
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ARCHS)
def test_the_map_is_the_librarys_head_at_every_location(name: str, size: tuple[int, int]) -> None:
    tower, images = tower_of(name), photos(*size)
    with torch.no_grad():
        features = tower.forward_dense(images, VANILLA, intermediates=(0, -1), with_cls=True)
        torch.testing.assert_close(features.map, naive_map(tower, images), rtol=0, atol=1e-12)
        assert torch.equal(features.cls, tower.visual(images))
        assert torch.equal(tower.encode_image(images), features.cls)
        shallow, *_, deep = tower.visual.trunk.forward_intermediates(images)[1]
    assert torch.equal(features.intermediates[0], shallow)
    assert torch.equal(features.intermediates[1], deep)
    parts = (features.map, *features.intermediates)
    assert all(part.is_contiguous() for part in parts)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FASTVITS)
def test_the_mean_of_a_fastvits_map_is_the_image_embedding(
    name: str, size: tuple[int, int]
) -> None:
    features = tower_of(name).forward_dense(photos(*size), VANILLA, with_cls=True)
    torch.testing.assert_close(features.map.mean(dim=(2, 3)), features.cls, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CONVNEXTS)
def test_the_mean_of_a_convnexts_map_is_not_the_image_embedding(name: str) -> None:
    """Its norm stands behind the pool; where all locations are equal it makes no difference."""
    tower = tower_of(name)
    features = tower.forward_dense(photos(96, 160), VANILLA, with_cls=True)
    assert (features.map.mean(dim=(2, 3)) - features.cls).abs().max() > 1e-3
    one = tower.forward_dense(photos(32, 32), VANILLA, with_cls=True)
    torch.testing.assert_close(one.map[:, :, 0, 0], one.cls, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(256, 256), (224, 320)])
def test_mobileclip_s0_at_its_real_size(size: tuple[int, int]) -> None:
    """Encoders spec, golden test 1 of MobileCLIP, in the precision that it was measured in."""
    torch.manual_seed(0)
    tower = build_stage_tower("MobileCLIP2-S0").eval()
    model = timm.create_model("fastvit_mci0", num_classes=512).eval()
    model.load_state_dict(tower.visual.trunk.state_dict())
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        features = tower.forward_dense(images, VANILLA, with_cls=True)
        assert torch.equal(features.cls, model(images))
    assert features.map.shape == (1, 512, size[0] // 32, size[1] // 32)
    difference = (features.map.mean(dim=(2, 3)) - features.cls).abs().max()
    assert difference < 1e-6 * features.cls.abs().max().clamp(min=1)


@pytest.mark.parametrize(
    ("arch", "stride", "width", "stages", "embed_dim", "side"),
    [
        ("MobileCLIP-S1", 32, 1024, (64, 128, 256, 512), 512, 256),
        ("MobileCLIP-S2", 32, 1280, (80, 160, 320, 640), 512, 256),
        ("MobileCLIP2-S0", 32, 1024, (64, 128, 256, 512), 512, 256),
        ("MobileCLIP2-S2", 32, 1280, (80, 160, 320, 640), 512, 256),
        ("MobileCLIP2-S3", 64, 3072, (96, 192, 384, 768, 1536), 768, 256),
        ("MobileCLIP2-S4", 64, 4096, (128, 256, 512, 1024, 2048), 768, 256),
        ("convnext_tiny", 32, 768, (96, 192, 384, 768), 1024, 224),
        ("convnext_base_w_320", 32, 1024, (128, 256, 512, 1024), 640, 320),
        ("convnext_large_d", 32, 1536, (192, 384, 768, 1536), 768, 256),
        ("convnext_xxlarge", 32, 3072, (384, 768, 1536, 3072), 1024, 256),
    ],
)
def test_sizes_of_the_archs_of_open_clip(
    arch: str, stride: int, width: int, stages: tuple[int, ...], embed_dim: int, side: int
) -> None:
    with torch.device("meta"):
        tower = build_stage_tower(arch)
        features = tower.forward_dense(
            torch.empty(1, 3, side, side), VANILLA, intermediates=range(len(stages)), with_cls=True
        )
    assert (tower.patch_size, tower.image_size) == ((stride, stride), (side, side))
    assert (tower.width, tower.stage_widths, tower.embed_dim) == (width, stages, embed_dim)
    assert features.map.shape == (1, embed_dim, side // stride, side // stride)
    assert features.cls is not None and features.cls.shape == (1, embed_dim)
    assert tower.stage_strides == (4, 8, 16, 32, 64)[: len(stages)]
    for found, channels, step in zip(
        features.intermediates, stages, tower.stage_strides, strict=True
    ):
        assert found.shape == (1, channels, side // step, side // step)


def test_every_such_arch_of_open_clip_is_known_and_no_other() -> None:
    found = {arch for arch in open_clip.list_models() if ":" not in arch and has_stages(arch)}
    assert len(found) == 17
    assert all(arch.lower().startswith(("mobileclip", "convnext")) for arch in found)


@pytest.mark.parametrize("name", ["fastvit", "convnext", "convnext-mlp"])
def test_a_changed_trunk_has_the_names_of_open_clips_own(name: str) -> None:
    arch = ARCHS[name]
    vision = {k: v for k, v in arch["vision_cfg"].items() if k != "timm_model_kwargs"}
    with torch.device("meta"):
        stock = _build_vision_tower(32, open_clip.CLIPVisionCfg(**vision))
        changed = build_stage_visual(arch)
    assert [type(m).__name__ for m in changed.head] == [type(m).__name__ for m in stock.head]
    # deeper stages only repeat the names of their first block
    assert set(changed.state_dict()) <= set(stock.state_dict())
    heads = {key for key in stock.state_dict() if ".head." in f".{key}"}
    assert heads <= set(changed.state_dict()) and heads


def test_sides_that_are_no_whole_locations_give_what_timm_gives() -> None:
    shapes = {}
    for name in ARCHS:
        shapes[name] = tuple(tower_of(name).forward_dense(photos(250, 330), VANILLA).map.shape[2:])
    assert shapes == {
        "fastvit": (8, 11),
        "fastvit-64": (4, 6),
        "convnext": (7, 10),
        "convnext-mlp": (7, 10),
    }


@pytest.mark.parametrize("name", ["fastvit-64", "convnext"])
def test_no_stage_is_run_twice_or_without_need(name: str) -> None:
    tower = tower_of(name)
    ran: list[int] = []
    for index, stage in enumerate(tower.stages):
        stage.register_forward_hook(lambda *_, index=index: ran.append(index))
    deep, shallow = tower.forward_stages(photos(), (1, 0))
    assert ran == [0, 1] and deep.shape[1] == 16 and shallow.shape[1] == 8
    ran.clear()
    tower.forward_dense(photos(), VANILLA, intermediates=(-1, 2), with_cls=True)
    assert ran == [*range(len(tower.stages))]


@pytest.mark.parametrize("name", ["fastvit", "convnext"])
def test_gradients_reach_every_weight_and_match_a_naive_map(name: str) -> None:
    images, gradients = photos(96, 64), []
    for run in (lambda t: t.forward_dense(images, VANILLA).map, lambda t: naive_map(t, images)):
        tower = tower_of(name)
        run(tower).square().sum().backward()
        gradients.append({n: p.grad for n, p in tower.named_parameters()})
    assert all(grad is not None and grad.abs().max() > 0 for grad in gradients[0].values())
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm_eval", [True, False])
def test_frozen_layers_keep_their_statistics_and_their_depth(norm_eval: bool) -> None:
    for arch in (ARCHS["fastvit"], tiny_convnext_arch(drop_path_rate=0.5)):
        tower = build_stage_tower(arch, norm_eval).requires_grad_(False).train()
        assert tower.training and not any(m.training for m in tower.visual.modules())
        tower.requires_grad_(True)
        tower.train()
        norms = [m.training for m in tower.modules() if isinstance(m, nn.BatchNorm2d)]
        assert not norms or set(norms) == {not norm_eval}
        drops = [m.training for m in tower.modules() if type(m).__name__ == "DropPath"]
        assert all(drops) and (drops or norms)


def test_runs_under_autocast() -> None:
    for name in ARCHS:
        tower, images = tower_of(name).float(), photos(64, 96).float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = tower.forward_dense(images, VANILLA, with_cls=True)
        full = tower.forward_dense(images, VANILLA, with_cls=True)
        assert (half.map.float() - full.map).abs().max() < 0.1 * full.map.abs().max()
        assert half.cls is not None and full.cls is not None
        assert (half.cls.float() - full.cls).abs().max() < 0.1 * full.cls.abs().max()


@pytest.mark.parametrize("readout", sorted(set(READOUTS) - {"vanilla"}))
def test_other_readouts_are_refused(readout: str) -> None:
    with pytest.raises(ValueError, match=r"needs attention in the last layer.*only 'vanilla'"):
        tower_of("fastvit").forward_dense(photos(), READOUTS[readout])


def test_wrong_images_and_stages_are_clear_errors() -> None:
    for name, stride in (("fastvit", 32), ("convnext", 32), ("fastvit-64", 64)):
        tower = tower_of(name)
        with pytest.raises(ValueError, match=f"30 x 96 px is smaller than {stride} x {stride} px"):
            tower.encode_image(photos(30, 96))
        last = len(tower.stages) - 1
        with pytest.raises(ValueError, match=f"stage {last + 1} .* has stages 0 to {last}"):
            tower.forward_stages(photos(), (last + 1,))


def test_wrong_towers_are_clear_errors() -> None:
    with pytest.raises(ValueError, match="VisionTransformer holds no FastViT or ConvNeXt"):
        StageTower(open_clip.CLIP(**tiny_arch()).visual)
    max_pooled = build_stage_visual(ARCHS["convnext"])
    max_pooled.trunk.reset_classifier(0, global_pool="max")
    with pytest.raises(ValueError, match=r"pool 'max'.*average of the locations alone"):
        StageTower(max_pooled)
    for arch in (tiny_arch(), tiny_eva_arch(), tiny_resnet_arch()):
        with pytest.raises(ValueError, match="use the backbone CLIPViT for it .CLIPResNet for"):
            build_stage_tower(arch)
    for name in ("MobileCLIP-S1", "convnext_base_w"):
        with pytest.raises(ValueError, match=r"has stages, not blocks \(.*\): use .* CLIPConvNet"):
            build_image_tower(name)
        with pytest.raises(ValueError, match="no ResNet of CLIP; use the backbone CLIPConvNet"):
            build_resnet_tower(name)
