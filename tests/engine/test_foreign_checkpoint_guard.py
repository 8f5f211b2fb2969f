"""Weights that do not fit are refused, and what checkpoints may leave out is not."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import MODELS as DETECTION
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import DefaultScope
from mmengine.runner import IterBasedTrainLoop
from mmseg.registry import MODELS
from torch import nn

from mmclipdis.engine.foreign_checkpoint_guard import (
    ForeignCheckpointGuard,
    check_checkpoint,
    check_trained,
)
from mmclipdis.models.projectors import Projectors
from tests.models.segmentation.catseg.tiny import shrink_model
from tests.models.segmentation.infoclip.test_segmentor import (
    build,
    catseg,
)
from tests.paths import ROOT

GUARD = ForeignCheckpointGuard()


def runner(model: nn.Module, *, trains: bool = False, resume: bool = False) -> SimpleNamespace:
    loop = object.__new__(IterBasedTrainLoop) if trains else dict(type="IterBasedTrainLoop")
    return SimpleNamespace(model=model, _train_loop=loop, _resume=resume)


def small(size: int = 3) -> nn.Module:
    """With names of its own, a buffer, and a part that only training uses."""
    model = nn.Module()
    model.backbone = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4))
    model.decode_head = nn.Linear(4, size)
    model.auxiliary_head = nn.Linear(4, size)
    return model


def without(model: nn.Module, start: str) -> dict[str, torch.Tensor]:
    return {k: v for k, v in model.state_dict().items() if not k.startswith(start)}


@pytest.mark.parametrize("sizes", [("vitb16", "vitl14-336"), ("vitl14-336", "vitb16")])
def test_base_and_large_do_not_take_each_others_checkpoints(sizes):
    models = []
    for size in sizes:
        config = Config.fromfile(ROOT / f"configs/catseg/catseg_{size}_coco-stuff.py").model
        shrink_model(config, patch=16)
        if "vitl" in size:  # wider, as the real one
            for encoder in ("image_encoder", "text_encoder"):
                config[encoder].arch.embed_dim = 24
                config[encoder].arch.vision_cfg.width = 32
        models.append(MODELS.build(config))
    state = models[1].state_dict()
    assert len(models[0].state_dict().keys() & state.keys()) > 100
    with pytest.raises(ValueError, match=r"CATSeg: \d+ entries have another shape .* for .*random"):
        GUARD.after_load_checkpoint(runner(models[0]), {"state_dict": state})
    for model in models:
        GUARD.after_load_checkpoint(runner(model), {"state_dict": model.state_dict()})


def test_the_first_three_that_are_missing_are_named():
    state = without(small(), "backbone")
    words = (
        r"4 of the model's are missing \(backbone.0.weight, backbone.0.bias, backbone.1.weight\)"
    )
    for resume in (False, True):
        with pytest.raises(ValueError, match=words):
            GUARD.after_load_checkpoint(runner(small(), trains=resume, resume=resume), state)
    named = {f"module.{name}": value for name, value in small().state_dict().items()}
    GUARD.after_load_checkpoint(runner(small()), named)


def test_a_training_may_start_from_a_part_and_is_warned_of_other_shapes():
    start = runner(small(3), trains=True)
    GUARD.after_load_checkpoint(start, without(small(3), "decode_head"))
    with pytest.warns(UserWarning, match=r"4 entries have another shape \(decode_head.weight: \(5"):
        GUARD.after_load_checkpoint(start, small(5).state_dict())
    with pytest.raises(ValueError, match="nothing in the checkpoint belongs"):
        GUARD.after_load_checkpoint(start, {"x": torch.ones(1)})


def test_what_only_training_uses_may_be_missing_in_a_test_and_not_in_a_resumed_run():
    model = build()
    for lacking, owner in (("lpam.", model), ("auxiliary_head.", small())):
        state = without(owner, lacking)
        GUARD.after_load_checkpoint(runner(owner), state)
        with pytest.raises(ValueError, match=rf"missing \({lacking}"):
            GUARD.after_load_checkpoint(runner(owner, trains=True, resume=True), state)


def test_fused_and_split_projections_are_the_same_weights():
    model = MODELS.build(catseg())
    frozen = catseg()
    for encoder in ("image_encoder", "text_encoder"):
        frozen[encoder] = {**frozen[encoder], "trainable": ()}
    other = MODELS.build(frozen)
    assert model.state_dict().keys() != other.state_dict().keys()
    for one, two in ((model, other), (other, model)):
        GUARD.after_load_checkpoint(runner(one), {"state_dict": two.state_dict()})


def test_projectors_with_a_file_of_their_own_need_not_be_in_the_checkpoint():
    model = small()
    model.projector = Projectors(4, out_dim=2)
    state = without(model, "projector.")
    with pytest.raises(ValueError, match=r"missing \(projector.text.0.weight"):
        check_checkpoint(model, state)
    model.projector.load_state_dict(copy.deepcopy(model.projector.state_dict()))
    check_checkpoint(model, state)


def test_statistics_of_a_batch_norm_have_shapes_too():
    model, state = small(), small().state_dict()
    state["backbone.1.running_mean"] = torch.zeros(5)
    with pytest.raises(ValueError, match=r"1 entries .*backbone.1.running_mean: \(5,\) for \(4,\)"):
        check_checkpoint(model, state)


def pretrained(path, **options):
    return {"type": "Pretrained", "checkpoint": str(path), **options}


def test_catseg_does_not_start_from_a_file_that_does_not_fit(tmp_path):
    whole = build()
    torch.save({"state_dict": whole.state_dict()}, tmp_path / "infoclip.pth")
    with pytest.raises(ValueError, match=r"tools/model_converters/infoclip\.py"):
        MODELS.build(catseg(init_cfg=pretrained(tmp_path / "infoclip.pth"))).init_weights()
    model = MODELS.build(
        catseg(init_cfg=pretrained(tmp_path / "infoclip.pth", prefix="segmentor."))
    )
    model.init_weights()
    inside = whole.segmentor.state_dict()
    assert all(torch.equal(value, inside[name]) for name, value in model.state_dict().items())
    part = {k: v for k, v in inside.items() if not k.startswith("decode_head.")}
    torch.save({"state_dict": part}, tmp_path / "part.pth")
    with pytest.raises(ValueError, match=r"missing \(decode_head\."):
        MODELS.build(catseg(init_cfg=[pretrained(tmp_path / "part.pth")])).init_weights()


def test_heads_without_a_source_of_weights_are_named():
    with pytest.raises(ValueError, match=r"no weights for decode_head \(CATSegHead\)"):
        check_trained(MODELS.build(catseg()))
    with pytest.raises(ValueError, match=r"no weights for segmentor.decode_head \(CATSegHead\)"):
        check_trained(MODELS.build({"type": "InfoCLIP", "segmentor": catseg()}))
    check_trained(MODELS.build(catseg(init_cfg=pretrained("any.pth"))))
    own = catseg()
    own["decode_head"] = {**own["decode_head"], "init_cfg": pretrained("any.pth")}
    check_trained(MODELS.build(own))


def test_stock_heads_must_be_trained_and_ours_without_parameters_need_not():
    model = BaseModule()
    model.backbone = BaseModule(init_cfg=pretrained("any.pth"))
    model.head = MODELS.build(
        dict(type="FCNHead", in_channels=4, channels=4, num_convs=1, num_classes=3)
    )
    with pytest.raises(ValueError, match=r"no weights for head \(FCNHead\)"):
        check_trained(model)
    shapes = ROOT / "configs/shapes"
    with DefaultScope.overwrite_default_scope("mmseg"):
        check_trained(MODELS.build(Config.fromfile(shapes / "clip.py").model))
    with DefaultScope.overwrite_default_scope("mmdet"):
        detector = DETECTION.build(Config.fromfile(shapes / "fvit.py").model)
    with pytest.raises(
        ValueError, match=r"rpn_head \(FViTRPNHead\), roi_head.bbox_head \(FViTBBoxHead"
    ):
        check_trained(detector)
