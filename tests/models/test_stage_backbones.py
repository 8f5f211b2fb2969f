"""What CLIPResNet and CLIPConvNet have in common: pyramid, dense map, what is trained (15 s)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, DefaultScope

import mmclipdis  # noqa: F401  (registers the modules)
from tests.tiny import tiny_resnet_arch
from tests.tiny_stages import tiny_convnext_arch, tiny_deep_fastvit_arch, tiny_fastvit_arch

TOWERS: dict[str, dict[str, Any]] = {
    "resnet": dict(type="CLIPResNet", arch=tiny_resnet_arch()),
    "fastvit": dict(type="CLIPConvNet", arch=tiny_fastvit_arch()),
    "fastvit-64": dict(type="CLIPConvNet", arch=tiny_deep_fastvit_arch()),
    "convnext": dict(type="CLIPConvNet", arch=tiny_convnext_arch()),
}
STAGES = (0, 1, 2, 3)


def build(tower: str, **kwargs: Any) -> Any:
    return MODELS.build({**TOWERS[tower], **kwargs})


def trained_names(module: torch.nn.Module) -> set[str]:
    return {name for name, p in module.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("tower", "stride", "widths"),
    [("resnet", 32, (32, 256)), ("fastvit", 32, (8, 64)), ("fastvit-64", 64, (8, 64))],
)
def test_out_indices_give_stages_and_map_in_order(
    tower: str, stride: int, widths: tuple[int, int]
) -> None:
    backbone, images = build(tower, out_indices=(3, "map", 0)), torch.randn(2, 3, 64, 128)
    deep, dense, shallow = backbone(images)
    assert (deep.shape, shallow.shape) == ((2, widths[1], 2, 4), (2, widths[0], 16, 32))
    features = backbone.tower.forward_dense(images, backbone.readout, intermediates=(0, 3))
    assert torch.equal(dense, features.map)
    assert dense.shape == (2, 32, 64 // stride, 128 // stride)
    assert torch.equal(shallow, features.intermediates[0])
    assert torch.equal(deep, features.intermediates[1])
    assert all(part.is_contiguous() for part in (deep, dense, shallow))
    (last,) = build(tower, out_indices=(-1,))(images)
    assert last.shape[1] == backbone.stage_widths[-1]


@pytest.mark.parametrize("tower", TOWERS)
def test_normalize_makes_unit_vectors_of_the_map_and_the_mean_token(tower: str) -> None:
    options = {"readout": "vv"} if tower == "resnet" else {}
    backbone, images = build(tower, normalize=True, **options), torch.randn(2, 3, 64, 64)
    plain = build(tower, **options)
    plain.load_state_dict(backbone.state_dict())
    unit, raw = (b.dense(images, intermediates=(0,), with_cls=True) for b in (backbone, plain))
    torch.testing.assert_close(unit.map, F.normalize(raw.map, dim=1))
    assert (raw.mean_token is None) == (tower != "resnet") == (unit.mean_token is None)
    if raw.mean_token is not None:
        torch.testing.assert_close(unit.mean_token, F.normalize(raw.mean_token, dim=1))
    assert torch.equal(unit.cls, raw.cls)
    assert torch.equal(unit.intermediates[0], raw.intermediates[0])
    assert torch.equal(backbone(images)[0], unit.map)


@pytest.mark.parametrize("out_indices", [("map",), (1, "map"), STAGES, (1,), (-1,)])
@pytest.mark.parametrize(
    ("tower", "options"),
    [
        *(("resnet", {"readout": readout}) for readout in ("v", "qq", "csa", "all")),
        *((tower, {}) for tower in ("fastvit", "fastvit-64", "convnext")),
    ],
)
def test_exactly_what_is_read_is_trained(
    tower: str, options: dict[str, Any], out_indices: tuple[Any, ...]
) -> None:
    """A trainable parameter without gradient stops DDP; a frozen one with gradient is lost."""
    assert not trained_names(build(tower, out_indices=out_indices, **options))
    backbone = build(tower, out_indices=out_indices, trainable=("all",), **options)
    got = trained_names(backbone)
    backbone.requires_grad_(True)
    sum(out.square().sum() for out in backbone(torch.randn(2, 3, 64, 64))).backward()
    assert got == {n for n, p in backbone.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("norm_eval", [True, False])
@pytest.mark.parametrize("trainable", [(), ("all",)])
@pytest.mark.parametrize("tower", ["resnet", "fastvit"])
def test_statistics_of_a_train_step(
    tower: str, trainable: tuple[str, ...], norm_eval: bool
) -> None:
    """Frozen or not: CLIP's statistics stay, unless a trained tower is asked to learn its own."""
    backbone = build(tower, trainable=trainable, norm_eval=norm_eval)
    head = torch.nn.Linear(32, 1)
    model = torch.nn.ModuleDict(dict(backbone=backbone, head=head)).train()
    buffers = {name: value.clone() for name, value in backbone.named_buffers()}
    weights = {name: value.clone() for name, value in backbone.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    head(backbone(torch.randn(4, 3, 64, 64))[0].mean(dim=(2, 3))).square().sum().backward()
    optimizer.step()
    learns = trainable == ("all",)
    moved = {n for n, value in backbone.named_buffers() if not torch.equal(value, buffers[n])}
    assert bool(moved) == (learns and not norm_eval)
    changed = {n for n, value in backbone.named_parameters() if not torch.equal(value, weights[n])}
    assert bool(changed) == learns


@pytest.mark.parametrize(("tower", "more"), [("resnet", ()), ("fastvit-64", (4,))])
def test_stock_fpn_of_mmdet_stands_on_the_stages(tower: str, more: tuple[int, ...]) -> None:
    from mmdet.registry import MODELS as DETECTION

    backbone = build(tower, out_indices=(*STAGES, *more), trainable=("all",))
    DefaultScope.get_instance(f"fpn-on-{tower}", scope_name="mmdet")
    widths = list(backbone.stage_widths)
    neck = DETECTION.build(dict(type="FPN", in_channels=widths, out_channels=8, num_outs=5))
    levels = neck(backbone(torch.randn(1, 3, 128, 192)))
    assert [tuple(level.shape[2:]) for level in levels] == [
        *((32, 48), (16, 24), (8, 12), (4, 6), (2, 3))
    ]
    sum(level.square().mean() for level in levels).backward()
    assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)
