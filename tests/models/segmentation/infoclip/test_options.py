"""InfoCLIP's options: variants, the published settings, what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmseg.registry import MODELS

from mmclipdis.models import InfoCLIP
from mmclipdis.models.segmentation.infoclip.parts import ENCODERS
from tests.models.segmentation.catseg.test_segmentor import ARCH, QV
from tests.models.segmentation.infoclip.tiny import (
    ENCODER_PARTS,
    batch,
    build,
    catseg,
    drift,
    reached,
)

#: Whole images in place of relations.
IMAGE = {
    "compression": None,
    "lpam": {"relation": "cosine"},
    "distillation": {"kind": "image"},
}


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (IMAGE, {"segmentor.image_encoder"}),
        ({"distillation": {"kind": "mse"}}, {"lpam", *ENCODER_PARTS}),
        ({"distillation": {"kind": "kl", "temperature": 0.1}}, {"lpam", *ENCODER_PARTS}),
        ({"distillation": {"detach_teacher": True}}, {"lpam", *ENCODER_PARTS}),
        ({"lpam": {"relation": "cosine"}, "compression": None}, set(ENCODER_PARTS)),
        ({"lpam": {"residual": "ln_dot"}, "alpha": 1.01}, {"lpam", *ENCODER_PARTS}),
        ({"gram_axis": "pixel", "subsample": 8}, {"lpam", *ENCODER_PARTS}),
    ],
)
def test_variants_teach_the_student(options, parts):
    model = drift(build(**options)).train()
    losses = model.loss(*batch())
    assert reached(model, losses["loss_distillation"]) == parts
    assert ("loss_compression" in losses) == (model.compression is not None)
    assert all(bool(value.isfinite()) for value in losses.values())


def test_image_distillation_is_one_minus_the_cosine_of_what_clip_says_of_the_crops():
    model = drift(build(**{**IMAGE, "distillation": {"kind": "image", "weight": 3.0}})).train()
    inputs, samples = batch(3)
    losses = model.loss(inputs, samples)
    student, teacher = (
        tower.encode_image(inputs)
        for tower in (model.segmentor.image_encoder.tower, model.teacher["image_encoder"].tower)
    )
    expected = 0.0
    for own, theirs in zip(student, teacher):
        expected += 1 - own @ theirs / (own.norm() * theirs.norm())
    torch.testing.assert_close(losses["loss_distillation"], expected)  # weight 3 of 3 images
    assert torch.equal(
        losses["decode.loss_bce"], model.segmentor.loss(inputs, samples)["decode.loss_bce"]
    )
    assert not model.teach_images(inputs).requires_grad
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses["loss_distillation"].backward()
    optimizer.step()
    assert model.loss(inputs, samples)["loss_distillation"] < losses["loss_distillation"]


def test_image_distillation_is_zero_at_the_start_and_takes_a_single_image():
    model = build(**IMAGE).train()
    assert model.loss(*batch(1))["loss_distillation"].abs() < 1e-6


def test_image_distillation_needs_an_image_encoder_that_learns():
    segmentor = catseg()
    segmentor["image_encoder"]["trainable"] = ()
    with pytest.raises(ValueError, match="kind='image' has nothing to teach.*trainable"):
        build(segmentor, **IMAGE)


def test_the_published_rates_and_decays():
    config = Config.fromfile("configs/infoclip/infoclip_vitb16_coco-stuff.py")
    assert config.optim_wrapper.clip_grad.max_norm == 0.01
    model = build()
    optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    rates = {
        id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]
    }
    assert not any(id(p) in rates for p in model.teacher.parameters())
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert id(parameter) not in rates
            continue
        rate, decay = rates.pop(id(parameter))
        assert rate == pytest.approx(2e-6 if name.startswith(ENCODER_PARTS) else 2e-4), name
        if name.startswith("lpam"):
            assert decay == (0.0 if "norm" in name else 1e-4), name
    assert not rates


@pytest.mark.parametrize(("width", "count"), [(512, 527_360), (768, 1_184_256)])
def test_the_module_has_the_published_size(width, count):
    with torch.device("meta"):
        path = "vitb16" if width == 512 else "vitl14-336"
        config = Config.fromfile(f"configs/infoclip/infoclip_{path}_coco-stuff.py").model
        model = MODELS.build(config)
        alone = MODELS.build(config.segmentor)
    sizes = [sum(p.numel() for p in m.parameters()) for m in (model, alone)]
    assert sizes[0] - sizes[1] == count


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"compression": {"kind": "mi"}}, "compression has no"),
        ({"distillation": {"lambda": 1}}, "distillation has no"),
        ({"distillation": {"kind": "l1"}}, "kind must be one of mi, mse, kl, image, got 'l1'"),
        ({**IMAGE, "compression": {}}, "kind='image' compares whole images.*compression=None"),
        ({**IMAGE, "lpam": {}}, r"kind='image' .* lpam=dict\(relation='cosine'\)"),
        ({**IMAGE, "alpha": 3.0}, r"kind='image' reads no alpha, got 3\.0: leave it out"),
        ({**IMAGE, "gram_axis": "pixel"}, "reads no gram_axis"),
        (
            {**IMAGE, "distillation": {"kind": "image", "temperature": 0.1}},
            "reads no temperature",
        ),
        (
            {**IMAGE, "distillation": {"kind": "image", "detach_teacher": True}},
            r"leave out distillation\.detach_teacher",
        ),
        ({"distillation": None}, "teaches the student nothing"),
        ({"compression": {"weight": 0}}, r"compression\.weight must be .* compression=None"),
        ({"distillation": {"weight": 0.0}}, r"distillation\.weight must be .* got 0\.0"),
        ({"distillation": {"weight": -1.0}}, r"distillation\.weight must be"),
        ({"distillation": {"weight": float("nan")}}, r"distillation\.weight must be"),
        ({"compression": {"weight": float("inf")}}, r"compression\.weight must be"),
        ({"distillation": {"weight": "1.0"}}, r"distillation\.weight must be .* got '1\.0'"),
        ({"distillation": {"weight": True}}, r"distillation\.weight must be"),
        (
            {
                "lpam": {"relation": "cosine"},
                "compression": None,
                "distillation": {"detach_teacher": True},
            },
            r"leave out distillation\.detach_teacher",
        ),
        (
            {"init_cfg": {"type": "Pretrained", "checkpoint": "infoclip.pth"}},
            r"has no init_cfg.* load_from.* model\.segmentor\.init_cfg",
        ),
        ({"lpam": {"relation": "cosine"}}, "nothing that compression could shape"),
        ({"lpam": {"relation": "dot"}}, "relation must be one of"),
        ({"gram_axis": "class"}, "gram_axis must be one of"),
        ({"alpha": -1.0}, "alpha"),
        ({"subsample": 8}, "subsample"),
        ({"grad_norm_interval": -1}, "grad_norm_interval"),
        ({"teacher": {"encoder": {}}}, "teacher takes"),
        ({"compression": None, "alpha": 1.5, "distillation": {"kind": "mse"}}, "no Gram matrix"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        build(**options)


@pytest.mark.parametrize("trained", ["image_encoder", "text_encoder", None])
def test_a_student_needs_an_encoder_that_learns(trained):
    segmentor = catseg()
    for name in ENCODERS:
        segmentor[name]["trainable"] = QV if name == trained else ()
    if trained is None:
        with pytest.raises(ValueError, match="both encoders of the student are frozen"):
            build(segmentor)
        return
    model = drift(build(segmentor)).train()
    loss = model.loss(*batch())["loss_distillation"]
    assert reached(model, loss) == {"lpam", f"segmentor.{trained}"}


def test_what_it_cannot_wrap_and_a_missing_teacher():
    with pytest.raises(TypeError, match="cannot teach a"):
        build({"type": "CATSegHead", "embed_dim": 12, "guidance_dims": (8, 4)})
    model: InfoCLIP = MODELS.build({"type": "InfoCLIP", "segmentor": catseg()}).train()
    with pytest.raises(RuntimeError, match="call init_weights"):
        model.loss(*batch())
    wide = {**copy.deepcopy(ARCH), "embed_dim": 16}
    with pytest.raises(ValueError, match="same joint space"):
        build(teacher={"image_encoder": {"arch": wide}, "text_encoder": {"arch": wide}})
