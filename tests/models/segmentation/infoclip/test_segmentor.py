"""InfoCLIP: what learns from which loss, the teacher, the vocabulary."""

from __future__ import annotations

import copy
from unittest import mock

import open_clip
import pytest
import torch
from mmseg.registry import MODELS

from mmclipdis.losses.alignment_transfer import compression_loss, distillation_loss
from mmclipdis.models.segmentation.catseg import segmentor as catseg_segmentor
from mmclipdis.models.segmentation.infoclip.parts import ENCODERS
from mmclipdis.models.segmentation.tta import OpenVocabTTAModel
from tests.models.segmentation.catseg.test_segmentor import ARCH, QV, sample
from tests.models.segmentation.infoclip.tiny import (
    ENCODER_PARTS,
    batch,
    build,
    catseg,
    drift,
    reached,
)


def test_each_loss_reaches_its_own_parts_only():
    model = drift(build()).train()
    losses = model.loss(*batch())
    assert set(losses) >= {"decode.loss_bce", "loss_compression", "loss_distillation"}
    assert reached(model, losses["loss_compression"]) == {"lpam"}
    assert reached(model, losses["loss_distillation"]) == {"lpam", *ENCODER_PARTS}
    assert reached(model, losses["decode.loss_bce"]) == {*ENCODER_PARTS, "segmentor.decode_head"}
    assert all(parameter.grad is None for parameter in model.teacher.parameters())


def test_the_losses_are_those_of_the_features_of_both():
    model = drift(build(compression={"weight": 2.0}, distillation={"weight": 3.0})).train()
    inputs, samples = batch(3)
    losses = model.loss(inputs, samples)
    vocabulary = model.vocabulary
    maps = [
        side.dense(inputs).map.flatten(2).mT
        for side in (model.teacher["image_encoder"], model.segmentor.image_encoder)
    ]
    texts = [model.teacher["text_encoder"].embed(vocabulary), model.class_embeddings()]
    taught, learned = (model.lpam(v, t) for v, t in zip(maps, texts, strict=True))
    torch.testing.assert_close(
        losses["loss_compression"], 2 * compression_loss(maps[0], taught, text=texts[0])
    )
    torch.testing.assert_close(losses["loss_distillation"], 3 * distillation_loss(taught, learned))
    task = model.segmentor.loss(inputs, samples)
    assert torch.equal(losses["decode.loss_bce"], task["decode.loss_bce"])


def test_a_detached_teacher_changes_the_gradient_of_the_module_alone():
    gradients = []
    for detach in (False, True):
        model = drift(build(distillation={"detach_teacher": detach})).train()
        loss = model.loss(*batch())["loss_distillation"]
        image = next(p for p in model.segmentor.image_encoder.parameters() if p.requires_grad)
        gradients.append(torch.autograd.grad(loss, [model.lpam.q.weight, image]))
    (whole, student), (part, same) = gradients
    assert not torch.allclose(whole, part)
    assert torch.equal(student, same)


def test_the_student_is_encoded_once_and_the_teachers_text_once_a_vocabulary(monkeypatch):
    model = build(grad_norm_interval=0).train()
    seen = []
    for side, encoders in (("student", model.segmentor), ("teacher", model.teacher)):
        for name in ("image_encoder", "text_encoder"):
            encoder = encoders[name] if side == "teacher" else getattr(encoders, name)
            method = "dense"
            if name == "text_encoder":
                encoder, method = encoder.tower, "sentences"
            original = getattr(encoder, method)

            def spy(*args, original=original, key=(side, name), **kwargs):
                seen.append(key)
                return original(*args, **kwargs)

            monkeypatch.setattr(encoder, method, spy)
    for _ in range(3):
        model.loss(*batch())
    counts = {key: seen.count(key) for key in set(seen)}
    assert counts == {
        ("student", "image_encoder"): 3,
        ("student", "text_encoder"): 3,
        ("teacher", "image_encoder"): 3,
        ("teacher", "text_encoder"): 1,
    }
    model.set_vocabulary(["sea", "sand", "rock", "boat"])
    model.loss(*batch())
    assert seen.count(("teacher", "text_encoder")) == 2


def test_other_weights_of_the_teacher_are_seen_at_once():
    model = build().eval()
    other = drift(build())
    before = model.teach(batch()[0])[1]
    model.teacher.load_state_dict(
        {n: v for n, v in other.segmentor.state_dict().items() if n in model.teacher.state_dict()}
    )
    after = model.teach(batch()[0])[1]
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, other.eval().class_embeddings())


def test_the_teacher_is_the_start_and_stays_so():
    model = build().train()
    before = copy.deepcopy(model.teacher.state_dict())
    own = model.segmentor.state_dict()
    assert before and all(torch.equal(own[name], value) for name, value in before.items())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    sum(v for n, v in model.loss(*batch()).items() if "loss" in n).backward()
    optimizer.step()
    after = model.teacher.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    moved = model.segmentor.state_dict()
    assert any(not torch.equal(moved[name], value) for name, value in before.items())
    assert not any(module.training for module in model.teacher.modules())
    assert not any(
        "teacher" in name for name in [*model.state_dict(), *dict(model.named_modules())]
    )
    model.init_weights()  # a second time changes nothing
    assert all(torch.equal(model.teacher.state_dict()[n], v) for n, v in before.items())


def test_the_teacher_follows_the_model():
    model = build().double()
    assert {p.dtype for p in model.teacher.parameters()} == {torch.float64}


@pytest.mark.parametrize("named", [("image_encoder",), ("text_encoder",), ENCODERS])
def test_a_named_teacher_has_its_own_weights_and_the_student_keeps_its_own(named, tmp_path):
    path = tmp_path / "clip.pt"
    torch.manual_seed(7)
    theirs = open_clip.CLIP(**ARCH)
    torch.save(theirs.state_dict(), path)
    init_cfg = {"type": "Pretrained", "checkpoint": str(path)}
    options = {"image_encoder": {}, "text_encoder": {"batch_size": 3}}
    model = build(teacher={name: {**options[name], "init_cfg": init_cfg} for name in named})
    taught, own = model.teacher.state_dict(), model.segmentor.state_dict()
    weights = {
        "image_encoder": ("tower.visual.conv1.weight", theirs.visual.conv1.weight),
        "text_encoder": ("tower.text.token_embedding.weight", theirs.token_embedding.weight),
    }
    for name, (weight, expected) in weights.items():
        found = taught[f"{name}.{weight}"]
        assert torch.equal(found, expected) == (name in named)
        assert not torch.equal(own[f"{name}.{weight}"], expected)
    assert model.teacher["text_encoder"].batch_size == (3 if "text_encoder" in named else 256)
    assert not any(p.requires_grad for p in model.teacher.parameters())


def test_inference_is_that_of_the_student_to_the_last_bit():
    model = drift(build()).eval()
    alone = MODELS.build(catseg()).eval()
    alone.load_state_dict(model.segmentor.state_dict())
    torch.manual_seed(3)
    images = [torch.randn(3, 40, 56), torch.randn(3, 64, 48)]
    windows = {"mode": "slide_with_global", "size": (64, 64), "crop_size": (40, 40)}
    for settings in ({"mode": "whole"}, {**windows, "stride": (24, 24)}):
        for segmentor in (model, alone):
            segmentor.test_cfg = {**settings, "return_probs": True}
        ours, theirs = model.predict(images), alone.predict(images)
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)
            assert torch.equal(one.seg_logits.data, other.seg_logits.data)
    inputs = torch.stack([images[0]])
    for method in ("encode_decode", "extract_feat", "_forward"):
        with torch.no_grad():
            one, other = (getattr(m, method)(inputs) for m in (model, alone))
        assert torch.equal(getattr(one, "map", one), getattr(other, "map", other))
    data = {"inputs": [torch.zeros(3, 48, 48)], "data_samples": None}
    for step in ("val_step", "test_step"):
        one, other = (getattr(m, step)(copy.deepcopy(data))[0] for m in (model, alone))
        assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)


def test_validation_has_the_views_of_its_own():
    model = build(catseg(test_cfg={"mode": "slide", "val_mode": "whole"}))
    data = {"inputs": [torch.zeros(3, 48, 48)], "data_samples": [sample(48, 48)]}
    for step, mode in (("val_step", "whole"), ("test_step", "slide")):
        with mock.patch.object(
            catseg_segmentor, "views_of", wraps=catseg_segmentor.views_of
        ) as views:
            getattr(model, step)(copy.deepcopy(data))
        assert views.call_args.args[1].mode == mode


def test_augmented_tests_are_those_of_the_student():
    model = drift(build()).eval()
    alone = MODELS.build(catseg()).eval()
    alone.load_state_dict(model.segmentor.state_dict())
    image = torch.randn(3, 40, 56)
    views = [
        {"inputs": [image], "data_samples": [sample(40, 56, flip=False)]},
        {
            "inputs": [image.flip(-1)],
            "data_samples": [sample(40, 56, flip=True, flip_direction="horizontal")],
        },
    ]
    data = {key: [view[key] for view in views] for key in ("inputs", "data_samples")}
    one, other = (
        OpenVocabTTAModel(segmentor).test_step(copy.deepcopy(data))[0]
        for segmentor in (model, alone)
    )
    assert torch.equal(one.seg_logits.data, other.seg_logits.data)
    assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)


def test_the_vocabulary_goes_through_and_half_types_stay_finite():
    model = build(catseg(vocabulary="dataset")).train()
    assert model.follow_dataset and model.vocabulary is None and model.num_classes is None
    with pytest.raises(ValueError, match="does not know its classes"):
        model.loss(*batch())
    model.set_vocabulary(["sky", "car", "tree", "road"])
    assert model.num_classes == model.out_channels == 4
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.loss(*batch())
        assert model.teach(batch()[0])[1].dtype == torch.float32
    sum(v for n, v in losses.items() if "loss" in n).backward()
    for name, parameter in model.named_parameters():
        assert not parameter.requires_grad or bool(parameter.grad.isfinite().all()), name


def test_gradient_norms_are_those_of_the_terms_and_leave_no_trace():
    model = drift(build(grad_norm_interval=2)).train()
    inputs, samples = batch()
    logged = [{n for n in model.loss(inputs, samples) if "grad" in n} for _ in range(3)]
    assert (
        logged[0]
        == logged[2]
        == {
            "grad_task_encoders",
            "grad_compression_lpam",
            "grad_distillation_encoders",
            "grad_distillation_lpam",
        }
    )
    assert not logged[1] and all(p.grad is None for p in model.parameters())
    losses = model.loss(inputs, samples) and model.loss(inputs, samples)
    losses["loss_distillation"].backward()  # the graph is still there
    square = sum(p.grad.square().sum() for p in model.lpam.parameters())
    torch.testing.assert_close(losses["grad_distillation_lpam"], square.sqrt())
    assert not any("grad" in name for name in model.eval().loss(inputs, samples))
    silent = build(grad_norm_interval=0).train()
    assert not any("grad" in name for name in silent.loss(inputs, samples))


def test_one_image_alone_says_what_to_do():
    with pytest.raises(ValueError, match="batch of 2 or more"):
        build().train().loss(*batch(1))


def test_a_declip_student_learns_from_the_declip_it_began_as():
    encoder = {"type": "DeCLIPViT", "arch": ARCH, "trainable": QV}
    model = drift(build(catseg(image_encoder=encoder))).train()
    assert type(model.teacher["image_encoder"]) is type(model.segmentor.image_encoder)
    inputs, samples = batch()
    losses = model.loss(inputs, samples)
    assert reached(model, losses["loss_distillation"]) == {"lpam", *ENCODER_PARTS}
    assert reached(model, losses["loss_compression"]) == {"lpam"}
    torch.testing.assert_close(
        model.teach(inputs)[0], model.teacher["image_encoder"].dense(inputs).map.flatten(2).mT
    )
