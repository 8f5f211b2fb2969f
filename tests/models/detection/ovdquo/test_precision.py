"""OV-DQUO under autocast: near float32, and nothing that places depend on in half precision."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("mmdet")

from mmcv.ops import MultiScaleDeformableAttention, multi_scale_deform_attn

from tests.models.detection.ovdquo.tiny import batch, build, config, losses, predict, resnet_config

#: Model, type, and how far the best score may be off: bfloat16 has eight bits.
CASES = [
    pytest.param(config, torch.bfloat16, 0.25, id="vit-bfloat16"),
    pytest.param(config, torch.float16, 0.1, id="vit-float16"),
    pytest.param(resnet_config, torch.bfloat16, 0.25, id="resnet-bfloat16"),
]


@pytest.mark.parametrize(("make", "half", "off"), CASES)
def test_a_step_in_half_precision_is_finite_and_near_float32(make, half, off):
    steps = []
    for enabled in (False, True):
        model = build(make()).train()
        torch.manual_seed(3)
        with torch.autocast("cpu", dtype=half, enabled=enabled):
            found = losses(model, batch(model, True))
        assert all(value.dtype == torch.float32 for value in found.values())
        sum(found.values()).backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in trained)
        steps.append(float(sum(found.values()).detach()))
    assert steps[1] != steps[0]  # autocast did something
    assert steps[1] == pytest.approx(steps[0], rel=0.1)


@pytest.mark.parametrize(("make", "half", "off"), CASES)
def test_detections_in_half_precision_are_near_those_in_float32(make, half, off):
    model = build(make()).eval()
    data = batch(model, False, ((), ()), ((64, 64), (64, 48)))
    exact = predict(model, data)
    with torch.autocast("cpu", dtype=half):
        found = predict(model, data)
    for one, other in zip(found, exact):
        assert one.scores.dtype == one.bboxes.dtype == torch.float32
        best = other.scores[0].item()
        assert one.scores[0].item() == pytest.approx(best, rel=off)
        assert not torch.equal(one.scores[:5], other.scores[:5])


def test_deformable_attention_samples_float32_at_places_in_float32(monkeypatch):
    seen = []
    sample = multi_scale_deform_attn.multi_scale_deformable_attn_pytorch

    def watch(value, shapes, places, weights):
        seen.append((value.dtype, places.dtype))
        return sample(value, shapes, places, weights)

    monkeypatch.setattr(multi_scale_deform_attn, "multi_scale_deformable_attn_pytorch", watch)
    model = build().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses(model, batch(model, True))
    parts = [m for m in model.modules() if isinstance(m, MultiScaleDeformableAttention)]
    assert len(seen) == len(parts) == 3
    assert set(seen) == {(torch.float32, torch.float32)}
