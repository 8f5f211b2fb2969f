"""Released F-ViT checkpoints (names of the spec, section 4) become ours, or an error."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint
from torch import Tensor

from tests.paths import ROOT

pytest.importorskip("mmdet")

from mmclipdis.clip.weights.eva_layout import open_clip_to_official
from mmclipdis.datasets.detection.classes import NOVEL_CLASSES, OV_CLASSES
from tests.eva_files import rope_tables, vision_shapes
from tests.models.detection.fvit.test_parts import masked_config, real_config
from tests.models.detection.fvit.tiny import CLASSES, NOVEL, batch, detections
from tools.model_converters.fvit import convert, main

CONFIGS = ROOT / "configs" / "fvit"
TINY = dict(width=32, depth=4, patch=8, grid=4, joint=8, channels=16, convs=1)
VITB = dict(width=768, depth=12, patch=16, grid=14, joint=512, channels=256, convs=4)
HEAD = "roi_head.bbox_head."


def conv_norm(name: str, channels: int, before: int, size: int) -> dict[str, tuple[int, ...]]:
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {
        f"{name}.conv.weight": (channels, before, size, size),
        **{f"{name}.bn.{leaf}": (channels,) for leaf in leaves},
        f"{name}.bn.num_batches_tracked": (),
    }


def layer(name: str, *shape: int, bias: int | None = None) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": (shape[0] if bias is None else bias,)}


def released_shapes(size: dict[str, int], lvis: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a released checkpoint, less what is dropped."""
    w, c, d = size["width"], size["channels"], size["joint"]
    names = ("width", "depth", "patch", "grid", "joint")
    tower = vision_shapes(*(size[name] for name in names))
    norm = conv_norm("backbone.interpolate1.1", w, 1, 1)
    convs: dict[str, tuple[int, ...]] = {}
    for i in range(4):
        convs |= conv_norm(f"neck.lateral_convs.{i}", c, w, 1)
        convs |= conv_norm(f"neck.fpn_convs.{i}", c, c, 3)
    for i in range(2):
        name = f"rpn_head.rpn_conv.{i}"
        convs |= conv_norm(name, c, c, 3) if lvis else layer(name + ".conv", c, c, 3, 3)
    for i in range(size["convs"]):
        convs |= conv_norm(f"{HEAD}shared_convs.{i}", c, c, 3)
        convs |= conv_norm(f"roi_head.mask_head.convs.{i}", c, c, 3) if lvis else {}
    mask = layer("roi_head.mask_head.upsample", c, c, 2, 2)
    mask |= layer("roi_head.mask_head.conv_logits", 1, c, 1, 1)
    return {
        **{f"backbone.visual.{name}": shape for name, shape in tower.items()},
        **layer("backbone.interpolate1.0", w, w, 2, 2),
        **{k.replace(".bn.", "."): v for k, v in norm.items() if ".conv." not in k},
        **layer("backbone.interpolate1.3", w, w, 2, 2),
        **layer("backbone.interpolate2.0", w, w, 2, 2),
        **convs,
        **layer("rpn_head.rpn_cls", 3, c, 1, 1),
        **layer("rpn_head.rpn_reg", 12, c, 1, 1),
        **layer(HEAD + "shared_fcs.0", d, c * 49),
        **{k: v for n in ("shared_fcs.1", "cls_fcs.0", "reg_fcs.0") for k, v in
           layer(HEAD + n, d, d).items()},
        **layer(HEAD + "fc_reg", 4, d),
        HEAD + "detect_temperature": (),
        **(mask if lvis else {}),
    }  # fmt: skip


def dropped(size: dict[str, int], classes: int) -> dict[str, Tensor]:
    tables = rope_tables(size["depth"], size["grid"] ** 2)
    return {
        HEAD + "fc_cls.weight": torch.ones(classes + 1, size["joint"]),
        HEAD + "fc_cls.bias": torch.ones(classes + 1),
        HEAD + "all_embeddings": torch.ones(size["joint"], classes + 1),
        **{"backbone." + name: table for name, table in tables.items()},
    }


def to_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Ours under the official names."""
    start, rest = "backbone.encoder.", dict(state)
    tower = {
        key.removeprefix(start + "tower."): rest.pop(key) for key in state if key.startswith(start)
    }
    tower = {key: value for key, value in tower.items() if key.startswith("visual.")}
    official = open_clip_to_official(tower)[0]
    return {**{"backbone." + key: value for key, value in official.items()}, **rest}


def tiny_model(lvis: bool) -> Any:
    cfg = masked_config() if lvis else real_config()
    real = real_config()
    cfg.backbone, cfg.neck = real.backbone, real.neck
    norm = dict(type="BN")
    cfg.neck.norm_cfg = norm
    if lvis:
        cfg.rpn_head.update(type="FViTRPNHead", norm_cfg=norm)
        cfg.roi_head.mask_head.norm_cfg = norm
    return cfg


def build(cfg: Any, seed: int) -> Any:
    """With every weight random, so that no two are alike."""
    torch.manual_seed(seed)
    model = MODELS.build(copy.deepcopy(cfg)).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.02 * torch.randn_like(value))
        for name, value in model.named_buffers():
            if "running_" in name:
                value.add_(torch.rand_like(value))
    model.set_vocabulary(CLASSES, NOVEL)
    return model


@torch.no_grad()
def predictions(model: Any) -> list[Any]:
    return [detections(sample) for sample in model(**batch(model, False), mode="predict")]


def file_of(folder: Path, state: dict[str, Tensor], name: str = "released.pth") -> Path:
    meta = {"mmdet_version": "2.28.1", "CLASSES": ("person", "bicycle"), "epoch": 3}
    torch.save({"meta": meta, "state_dict": state, "optimizer": {}}, folder / name)
    return folder / name


def as_config(cfg: Any) -> Config:
    return Config(dict(model=cfg, default_scope="mmdet"))


@pytest.mark.parametrize("lvis", [False, True])
def test_the_converted_detector_predicts_the_same(tmp_path, lvis):
    cfg = tiny_model(lvis)
    model = build(cfg, seed=0)
    released = to_released(model.state_dict())
    assert {k: tuple(v.shape) for k, v in released.items()} == released_shapes(TINY, lvis)
    source = file_of(tmp_path, released | dropped(TINY, 4))
    report = convert(as_config(cfg), source, tmp_path / "ours.pth")
    assert set(report.dropped) == set(dropped(TINY, 4))
    assert set(report.names) == set(released)
    assert set(report.added) == {"backbone.encoder.readout", "backbone.encoder.quick_gelu"}
    other = build(cfg, seed=1)
    load_checkpoint(other, str(tmp_path / "ours.pth"), strict=True)
    found, expected = predictions(other), predictions(model)
    assert sum(len(scores) for _, scores, _ in expected) > 0
    for one, two in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    ours, theirs = other.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_config_without_mask_head_drops_it(tmp_path):
    cfg = tiny_model(lvis=True)
    source = file_of(tmp_path, to_released(build(cfg, 0).state_dict()))
    for name in ("mask_head", "mask_roi_extractor"):
        cfg.roi_head.pop(name)
    report = convert(as_config(cfg), source, tmp_path / "ours.pth")
    gone = {k for k in released_shapes(TINY, True) if k.startswith("roi_head.mask_head.")}
    assert set(report.dropped) == gone
    load_checkpoint(build(cfg, 1), str(tmp_path / "ours.pth"), strict=True)


def test_older_norms_and_another_shape_of_the_temperature(tmp_path):
    cfg = tiny_model(lvis=False)
    released = to_released(build(cfg, 0).state_dict())
    counters = [key for key in released if key.endswith("num_batches_tracked")]
    for key in counters:
        del released[key]
    released[HEAD + "detect_temperature"] = torch.tensor([37.5])
    report = convert(as_config(cfg), file_of(tmp_path, released), tmp_path / "ours.pth")
    assert set(counters) < set(report.added)
    model = build(cfg, 1)
    load_checkpoint(model, str(tmp_path / "ours.pth"), strict=True)
    assert model.roi_head.bbox_head.detect_temperature.item() == 37.5


@pytest.mark.parametrize(
    ("name", "lvis"),
    [
        ("fvit_clipself_vitb16_ov-coco.py", False),
        ("fvit_clipself_vitb16_ov-lvis.py", True),
    ],
)
def test_released_sizes_fit_the_configs(tmp_path, capsys, name, lvis):
    """The published size, all values one (and stored once)."""
    shapes = released_shapes(VITB, lvis)
    state = {key: torch.ones(()).expand(shape) for key, shape in shapes.items()}
    source, target = file_of(tmp_path, state), tmp_path / "ours.pth"
    main([str(CONFIGS / name), str(source), str(target)])
    assert f"{len(state) - sum('visual' in key for key in state)} kept" in capsys.readouterr().out
    meta = torch.load(target, weights_only=True)["meta"]["dataset_meta"]
    if lvis:  # names are in annotations that are not there
        assert meta == {"classes": ("person", "bicycle")}
    else:
        assert (meta["classes"], meta["novel_classes"]) == (OV_CLASSES, NOVEL_CLASSES)
    other = "fvit_clipself_vitb16_ov-coco.py" if lvis else "fvit_clipself_vitb16_ov-lvis.py"
    if lvis:
        message = r"unexpected rpn_head.rpn_conv.0.bn|missing rpn_head.rpn_conv.0.conv.bias"
    else:
        message = r"missing rpn_head.rpn_conv.0.bn.*LVIS: mask head"
    with pytest.raises(SystemExit, match=message):
        main([str(CONFIGS / other), str(source), str(tmp_path / "wrong.pth")])
    assert not (tmp_path / "wrong.pth").exists()


def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path):
    cfg = tiny_model(lvis=False)
    ours = build(cfg, 0).state_dict()
    good = to_released(ours)
    declip = copy.deepcopy(cfg)
    declip.backbone.encoder.update(type="DeCLIPViT", readout="declip")
    less = {key: value for key, value in good.items() if key != HEAD + "fc_reg.bias"}
    no_neck = {key: value for key, value in good.items() if not key.startswith("neck.")}
    tower = {key: value for key, value in good.items() if ".visual." in key}
    wide = {**good, "neck.fpn_convs.0.conv.weight": torch.ones(8, 16, 3, 3)}
    cases = [
        (cfg, ours, "has our layout already"),
        (cfg, tower, "no released F-ViT checkpoint: it has no backbone.interpolate1"),
        (cfg, no_neck, r"it has no neck\.\*"),
        (cfg, less, "missing roi_head.bbox_head.fc_reg.bias"),
        (cfg, {**good, "backbone.text.ln.weight": torch.ones(3)}, "unexpected backbone.text.ln"),
        (cfg, wide, r"fpn_convs.0.conv.weight is \(8, 16, 3, 3\), expected \(16, 16, 3, 3\)"),
        (cfg, {**good, "x": "y"}, "'x' in the state dict is no tensor"),
        (cfg, {}, "holds no state dict"),
        (declip, good, "set readout='maskclip'"),
        (dict(type="mmdet.FPN", in_channels=[4], out_channels=4, num_outs=1), good, "is a FPN"),
    ]
    for number, (config, state, message) in enumerate(cases):
        source = file_of(tmp_path, state, f"{number}.pth")
        with pytest.raises(ValueError, match=message):
            convert(as_config(config), source, tmp_path / "ours.pth")
        assert not (tmp_path / "ours.pth").exists()
    (tmp_path / "ours.pth").write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        convert(as_config(cfg), file_of(tmp_path, good), tmp_path / "ours.pth")
    convert(as_config(cfg), file_of(tmp_path, good), tmp_path / "ours.pth", overwrite=True)
    assert torch.load(tmp_path / "ours.pth", weights_only=True)["state_dict"]
