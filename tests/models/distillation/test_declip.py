"""DeCLIP's model: what its losses are made of, who learns from them, and what is saved."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from mmengine.runner import load_state_dict
from torch import Tensor

from mmclipdis.losses.content import content_loss
from mmclipdis.losses.context_correlation import context_correlation_loss
from mmclipdis.models.distillation.declip import DeCLIP
from mmclipdis.models.distillation.regions import roi_features
from tests.tiny import tiny_arch, tiny_eva_arch

PATCH, GRID = 4, 5


@MODELS.register_module(force=True)
class PlainVFM(BaseModule):
    """Any module that gives a map is a teacher: this one a convolution of its patches."""

    def __init__(self, patch: int = PATCH, init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        self.patch_size = (patch, patch)
        self.conv = torch.nn.Conv2d(3, 6, patch, patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images)


def config(arch: str = "eva", readout: Any = "csa", **changes: Any) -> dict[str, Any]:
    tiny = tiny_eva_arch() if arch == "eva" else tiny_arch(image_size=16, patch_size=4)
    student = dict(type="CLIPViT", arch=tiny, readout=readout, positions="size")
    defaults = dict(
        student=dict(**student, trainable=("blocks",)),
        vfms=[dict(type="PlainVFM")],
        content_loss=dict(type="ContentLoss"),
        context_loss=dict(type="ContextCorrelationLoss", loss_weight=0.25),
    )
    return {**defaults, **changes}


def build(*args: Any, **kwargs: Any) -> DeCLIP:
    torch.manual_seed(0)
    return DeCLIP(**config(*args, **kwargs))


def batch(seed: int = 0, images: int = 2, boxes: int = 3) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    side = PATCH * GRID
    corners = torch.rand(images * boxes, 2, 2, generator=generator).sort(dim=1).values
    index = torch.arange(images).repeat_interleave(boxes)[:, None]
    return dict(
        image=torch.randn(images, 3, side, side, generator=generator),
        crops=torch.randn(images * boxes, 3, 16, 16, generator=generator),
        boxes=torch.cat([index, corners.flatten(1)], dim=1),
        proxies={side: torch.randn(images, 3, side, side, generator=generator)},
    )


@pytest.mark.parametrize("arch", ["eva", "openai"])
def test_losses_are_those_of_their_parts(arch):
    model, inputs = build(arch), batch()
    losses = model(inputs, mode="loss")
    assert set(losses) == {"loss_content", "loss_context"}
    dense = model.student.dense(inputs["image"], context=("q", "k"))
    teacher = model.teacher.tower.encode_image(inputs["crops"])
    content = content_loss(roi_features(dense.map, inputs["boxes"]), teacher)
    (proxy,) = inputs["proxies"].values()
    context = context_correlation_loss(list(dense.context.values()), model.vfms[0](proxy))
    torch.testing.assert_close(losses["loss_content"], content)
    torch.testing.assert_close(losses["loss_context"], 0.25 * context)


def test_the_content_teacher_gives_clips_own_image_embedding():
    model = build()
    model.teacher.load_state_dict(model.student.state_dict())
    image = batch()["image"][:, :, :16, :16]
    dense = model.student.dense(image, with_cls=True)
    torch.testing.assert_close(dense.cls, model.crop_embeddings(image))


def test_the_content_of_a_whole_image_is_the_mean_of_its_tokens():
    model, inputs = build(context_loss=None, vfms=()), batch(boxes=1)
    inputs["boxes"][:, 1:] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    means = model.student.dense(inputs["image"]).map.mean((2, 3))
    teacher = model.crop_embeddings(inputs["crops"])
    expected = 1 - F.cosine_similarity(means, teacher).mean()
    torch.testing.assert_close(model(inputs, mode="loss")["loss_content"], expected)


@pytest.mark.parametrize("arch", ["eva", "openai"])
def test_context_from_the_map_compares_the_dense_map(arch):
    model, inputs = build(arch, context_from="map"), batch()
    dense = model.student.dense(inputs["image"])
    (proxy,) = inputs["proxies"].values()
    expected = 0.25 * context_correlation_loss(dense.map, model.vfms[0](proxy))
    torch.testing.assert_close(model(inputs, mode="loss")["loss_context"], expected)


def test_several_teachers_are_averaged_by_their_weights():
    vfms = [dict(type="PlainVFM", weight=0.9), dict(type="PlainVFM", patch=2, weight=0.1)]
    model, inputs = build(vfms=vfms), batch()
    small = torch.randn(2, 3, 2 * GRID, 2 * GRID)
    inputs["proxies"][2 * GRID] = small
    dense = model.student.dense(inputs["image"], context=("q", "k"))
    maps = [model.vfms[0](inputs["proxies"][PATCH * GRID]), model.vfms[1](small)]
    expected = context_correlation_loss(list(dense.context.values()), maps, [0.9, 0.1])
    torch.testing.assert_close(model(inputs, mode="loss")["loss_context"], 0.25 * expected)


def gradients(model: DeCLIP, name: str) -> dict[str, Tensor]:
    """Gradients of one loss by the names of the student's tower; absent ones are left out."""
    model.zero_grad()
    model(batch(), mode="loss")[name].backward()
    named = model.student.tower.named_parameters()
    return {key: p.grad for key, p in named if p.grad is not None and p.grad.abs().max() > 0}


def test_golden_g17_eva_context_reaches_the_last_q_and_nothing_behind_it():
    model = build("eva", "qq")
    model.requires_grad_(True)  # also what training freezes: gradients are absent, not frozen
    last = "visual.trunk.blocks.2."
    context = gradients(model, "loss_context")
    assert f"{last}attn.q_proj.weight" in context and f"{last}norm1.weight" in context
    behind = [f"{last}attn.{n}" for n in ("k_proj", "v_proj", "norm", "proj")]
    behind += [f"{last}norm2", f"{last}mlp", "visual.trunk.norm", "visual.trunk.head"]
    assert not [key for key in context if key.startswith(tuple(f"{b}." for b in behind))]
    assert "visual.trunk.blocks.0.mlp.fc2.weight" in context  # it flows through the trunk
    content = gradients(model, "loss_content")
    for name in ("q_proj.weight", "q_proj.bias", "v_proj.weight", "norm.weight", "proj.weight"):
        assert f"{last}attn.{name}" in content


def test_golden_g17_openai_context_moves_only_the_rows_of_what_is_compared():
    context = gradients(build("openai", "qq"), "loss_context")
    q, k, v = context["visual.transformer.resblocks.2.attn.in_proj_weight"].chunk(3)
    assert q.abs().max() > 0 and k.abs().max() == 0 and v.abs().max() == 0
    assert not [key for key in context if "resblocks.2.attn.out_proj" in key]


def test_every_trainable_parameter_gets_a_gradient_as_ddp_asks():
    for arch in ("eva", "openai"):
        for readout in ("qq", "csa", "all"):
            model = build(arch, readout)
            sum(model(batch(), mode="loss").values()).backward()
            lost = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
            assert not lost


def test_teachers_are_frozen_for_ever():
    model = build().train()
    assert model.student.training
    for teacher in (model.teacher, *model.vfms):
        assert not teacher.training
        assert not any(p.requires_grad for p in teacher.parameters())


def test_checkpoints_hold_the_student_only_and_load_strictly():
    model = build()
    state = model.state_dict()
    assert state and all(key.startswith("student.") for key in state)
    other = build()
    for parameter in other.parameters():
        parameter.data.add_(1.0)
    before = {k: v.clone() for k, v in other.teacher.tower.state_dict().items()}
    other.load_state_dict(state)  # strict
    load_state_dict(other, state, strict=True)  # mmengine's own way
    for key, value in other.student.tower.state_dict().items():
        assert torch.equal(value, model.student.tower.state_dict()[key])
    for key, value in other.teacher.tower.state_dict().items():
        assert torch.equal(value, before[key])


def test_init_weights_reaches_student_and_teachers(tmp_path):
    source = build("openai")
    torch.save(source.student.tower.state_dict(), tmp_path / "clip.pt")
    torch.save(source.vfms[0].state_dict(), tmp_path / "vfm.pt")
    clip = dict(type="Pretrained", checkpoint=str(tmp_path / "clip.pt"))
    vfm = dict(type="Pretrained", checkpoint=str(tmp_path / "vfm.pt"))
    settings = config("openai", vfms=[dict(type="PlainVFM", init_cfg=vfm)])
    settings["student"]["init_cfg"] = clip
    torch.manual_seed(1)
    model = DeCLIP(**settings)
    model.init_weights()
    for part in (model.student, model.teacher):
        for key, value in source.student.tower.state_dict().items():
            assert torch.equal(part.tower.state_dict()[key], value)
    assert torch.equal(model.vfms[0].conv.weight, source.vfms[0].conv.weight)


def test_a_grid_that_no_proxy_matches_is_said_with_the_size_that_would():
    model, inputs = build(vfms=[dict(type="PlainVFM", patch=2)]), batch()
    with pytest.raises(ValueError, match=r"needs images of 10 px .* 5 x 5 tokens.*makes \[20\]"):
        model(inputs, mode="loss")


def test_an_image_that_does_not_divide_into_patches_is_said():
    inputs = batch()
    inputs["image"] = torch.randn(2, 3, 22, 20)
    with pytest.raises(ValueError, match="do not divide into patches .* such as 20 or 24"):
        build()(inputs, mode="loss")


def test_context_alone_trains_through_the_map_or_with_a_content_of_weight_zero():
    silent = dict(type="ContentLoss", loss_weight=0.0)
    for changes in (dict(content_loss=None, context_from="map"), dict(content_loss=silent)):
        model = build(**changes)
        sum(model(batch(), mode="loss").values()).backward()
        assert not [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]


def test_a_teacher_whose_map_has_another_grid_is_said():
    model, inputs = build(), batch()
    model.vfms[0].conv.stride = (2, 2)
    with pytest.raises(ValueError, match="PlainVFM gives a map of"):
        model(inputs, mode="loss")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(content_loss=None, context_loss=None), "nothing to learn"),
        (dict(vfms=()), "needs at least one teacher"),
        (dict(context_loss=None), "vfms teach the context"),
        (dict(content_loss=None), "stops DDP: give content_loss"),
        (
            dict(content_loss=None, context_from="map", teacher=dict(type="CLIPViT")),
            "teacher teaches the content",
        ),
        (dict(content_loss=dict(type="ContentLoss", loss_name="loss_context")), "both named"),
        (dict(vfms=[dict(type="PlainVFM", weight=0.5)]), "sum to 1"),
        (
            dict(region_classifier=dict(text_encoder=dict(arch="ViT-B-16-quickgelu"))),
            "image and text must be of one CLIP",
        ),
        (dict(readout="maskclip"), "compares no projection with itself"),
        (dict(context_from="features"), "context_from must be one of"),
        (
            dict(vfms=[dict(type="PlainVFM", weight=0.5), dict(type="PlainVFM")]),
            "every VFM a weight or none",
        ),
    ],
)
def test_contradicting_settings_are_one_clear_error(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_bfloat16_autocast_trains_in_float32_weights():
    model = build()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(batch(), mode="loss")
    exact = build()(batch(), mode="loss")
    for name, value in losses.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact[name], rtol=0.05, atol=0.02)
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("arch", ["eva", "openai"])
def test_gradient_checkpointing_changes_nothing_but_memory(arch):
    plain, saving = build(arch), build(arch)
    saving.student.tower.grad_checkpointing = True
    saving.load_state_dict(plain.state_dict())
    saving.teacher.load_state_dict(plain.teacher.state_dict())
    saving.vfms.load_state_dict(plain.vfms.state_dict())
    for model in (plain, saving):
        sum(model.train()(batch(), mode="loss").values()).backward()
    for one, two in zip(plain.parameters(), saving.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, two.grad)


def test_the_dense_map_is_the_students():
    model, inputs = build(), batch()
    expected = model.student.dense(inputs["image"]).map
    torch.testing.assert_close(model(inputs, mode="tensor"), expected)
    with pytest.raises(ValueError, match="mode must be"):
        model(inputs, mode="train")
    with pytest.raises(ValueError, match="no region_classifier"):
        model(inputs, [], mode="predict")
