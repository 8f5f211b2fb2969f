"""The distillation configs: grids that match, published values, a run of each at a tiny size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import CosineAnnealingLR, LinearLR
from mmengine.runner import Runner
from PIL import Image

from mmclipdis.clip.towers.build import build_image_tower
from mmclipdis.clip.weights.vfm import VFMS
from mmclipdis.engine.checkpoint_io import read_checkpoint
from tests.paths import ROOT
from tests.tiny import tiny_arch, tiny_eva_arch

CONFIGS = sorted((ROOT / "configs" / "declip").glob("distill_*.py"))
CONFIGS += sorted((ROOT / "configs" / "declip" / "ablations").glob("*.py"))
NAMES = [path.stem for path in CONFIGS]
#: Of other encoders; tests/models/test_new_encoders.py runs such students at a tiny size.
OTHERS = sorted(ROOT.glob("configs/*/distill_*_dinov3_coco.py"))
#: timm's name of a file that its authors give away, too.
OFFICIAL = {"dinov3-B": "dinov3_vitb16_pretrain_lvd1689m.pth"}
GRID, PATCH = 5, 4


def transform(config, loader, kind):
    (found,) = [t for t in config[loader].dataset.pipeline if t.type == kind]
    return found


@pytest.mark.parametrize("path", sorted({*CONFIGS, *OTHERS}), ids=lambda path: path.stem)
def test_the_grids_of_student_teachers_and_validation_match(path):
    config = Config.fromfile(path)
    with torch.device("meta"):
        tower = build_image_tower(config.model.student.arch)
    views = transform(config, "train_dataloader", "DistillViews")
    grid = views.size // tower.patch_size[0]
    assert grid * tower.patch_size[0] == views.size
    sides = {grid * VFMS[vfm.model].patch_size for vfm in config.model.vfms}
    assert sides == set(views.proxy_sizes)
    crops = transform(config, "train_dataloader", "GridCrops")
    assert crops.crop_size == tower.image_size[0]
    regions = transform(config, "val_dataloader", "LetterboxRegions")
    assert (regions.size, regions.patch_size) == (views.size, tower.patch_size[0])
    files = {vfm.init_cfg.checkpoint for vfm in config.model.vfms}
    names = (OFFICIAL.get(vfm.model, VFMS[vfm.model].file) for vfm in config.model.vfms)
    assert files == {f"checkpoints/{name}" for name in names}
    assert config.model.region_classifier.text_encoder.arch == config.model.student.arch


def levels(path: Path) -> int:
    """How many files deep the config is stacked on its bases."""
    bases = Config._get_base_files(str(path))
    return 1 + max((levels(path.parent / base) for base in bases), default=-1)


@pytest.mark.parametrize("path", sorted({*CONFIGS, *OTHERS}), ids=lambda path: path.stem)
def test_a_config_is_read_through_two_levels_of_bases_at_most(path):
    assert levels(path) in (1, 2)


def test_golden_g11_the_released_schedule():
    config = Config.fromfile(CONFIGS[NAMES.index("distill_vitb16_eva_dinov2_coco")])
    optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-5)
    kinds = {"LinearLR": LinearLR, "CosineAnnealingLR": CosineAnnealingLR}
    schedules = []
    for entry in config.param_scheduler:
        entry = dict(entry)
        schedules.append(kinds[entry.pop("type")](optimiser, **entry))
    rates = []
    for _ in range(config.train_cfg.max_iters):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        for schedule in schedules:
            schedule.step()
    expected = {0: 1e-8, 499: 5e-6, 999: 1e-5, 1000: 1e-5, 22679: 5e-6, 44357: 1.3e-14}
    for step, rate in expected.items():
        assert rates[step] == pytest.approx(rate, rel=0.02 if step == 44357 else 1e-6)


def test_the_published_values_are_in_the_configs():
    base, openai, large = (
        Config.fromfile(CONFIGS[NAMES.index(f"distill_{name}_dinov2_coco")])
        for name in ("vitb16_eva", "vitb16_openai", "vitl14-336_eva")
    )
    assert base.optim_wrapper.optimizer.betas == (0.9, 0.999)
    assert openai.optim_wrapper.optimizer.betas == (0.9, 0.98)
    assert openai.optim_wrapper.optimizer.eps == 1e-6
    alphas = [c.custom_hooks[-1].alpha for c in (base, openai, large)]
    assert alphas == [0.7, 0.7, 0.95]
    assert base.model.student.readout == {"attention": ("qq", "kk"), "scale": "none"}
    assert openai.model.student.readout.scale == "sqrt"
    assert openai.model.student.type == "DeCLIPViT"  # unit tokens on OpenAI's path only
    by_name = {name: Config.fromfile(path).model for name, path in zip(NAMES, CONFIGS, strict=True)}
    assert by_name["table11_context0.3"].context_loss.loss_weight == 0.3
    assert by_name["table8_last6"].student.trainable == ("blocks", 6)
    assert by_name["table7_k"].student.readout.attention == ("kk",)
    assert by_name["table1_content_only"].context_loss is None
    assert by_name["table1_one_feature"].context_from == "map"


def test_students_of_other_encoders_have_the_settings_of_openais():
    base = Config.fromfile(CONFIGS[NAMES.index("distill_vitb16_openai_dinov2_coco")])
    others = [Config.fromfile(path) for path in OTHERS if path.parent.name != "declip"]
    assert [config.model.student.arch for config in others] == ["PE-Core-B-16", "ViT-B-16-SigLIP2"]
    for config in others:
        student = config.model.student
        assert (student.type, student.readout) == ("DeCLIPViT", base.model.student.readout)
        assert student.trainable == base.model.student.trainable
        assert config.optim_wrapper == base.optim_wrapper
        assert [vfm.model for vfm in config.model.vfms] == ["dinov3-B"]


def write_coco(root: Path) -> None:
    """Three photos in COCO's layout, and two segments in each."""
    generator = np.random.default_rng(0)
    for folder in ("train2017", "val2017", "annotations/panoptic_val2017"):
        (root / folder).mkdir(parents=True)
    images, annotations = [], []
    for number, (height, width) in enumerate([(60, 80), (80, 50), (64, 64)]):
        name = f"{number:012d}"
        photo = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        for split in ("train2017", "val2017"):
            Image.fromarray(photo).save(root / split / f"{name}.jpg")
        images.append(dict(id=number, file_name=f"{name}.jpg", height=height, width=width))
        segments = np.zeros((height, width, 3), dtype=np.uint8)
        segments[..., 0] = 1
        segments[: height // 2, : width // 2, 0] = 2
        Image.fromarray(segments).save(root / f"annotations/panoptic_val2017/{name}.png")
        box = [0, 0, width // 2, height // 2]
        infos = [
            dict(id=2, category_id=1, bbox=box, area=1, iscrowd=0),
            dict(id=1, category_id=92, bbox=[0, 0, width, height], area=1, iscrowd=0),
        ]
        annotations.append(dict(image_id=number, file_name=f"{name}.png", segments_info=infos))
    (root / "annotations/instances_train2017.json").write_text(json.dumps(dict(images=images)))
    kinds = [(1, "person", 1), (2, "bicycle", 1), (92, "banner", 0), (93, "blanket", 0)]
    categories = [dict(id=i, name=name, isthing=thing) for i, name, thing in kinds]
    panoptic = dict(images=images, annotations=annotations, categories=categories)
    (root / "annotations/panoptic_val2017.json").write_text(json.dumps(panoptic))


def shrunk(path: Path, folder: Path) -> Config:
    """The config with small towers of the same kind, on a few small photos, for two iterations."""
    config = Config.fromfile(path)
    eva = config.model.student.arch.startswith("EVA02")
    arch = tiny_eva_arch() if eva else tiny_arch(image_size=16, patch_size=PATCH)
    arch["text_cfg"] = dict(context_length=20, vocab_size=49408, width=16, heads=2, layers=1)
    text = config.model.region_classifier.text_encoder
    for encoder in (config.model.student, text):
        encoder.pop("init_cfg")
        encoder.pop("arch")
        encoder.arch = arch
    text.cache_dir = False
    trained = config.model.student.trainable
    if len(trained) == 2:
        config.model.student.trainable = ("blocks", min(trained[1], 2))
    small = dict(img_size=28, embed_dim=16, depth=1, num_heads=2)
    patches = [VFMS[vfm.model].patch_size for vfm in config.model.vfms]
    config.model.vfms = [
        dict(type="TimmVFM", model="vit_tiny_patch16_224", model_kwargs=dict(patch_size=p, **small))
        for p in patches
    ]
    sides = tuple(GRID * p for p in patches)
    views = transform(config, "train_dataloader", "DistillViews")
    views.update(size=GRID * PATCH, proxy_sizes=sides)
    transform(config, "train_dataloader", "GridCrops").crop_size = 16
    for loader in ("train_dataloader", "val_dataloader"):
        config[loader].update(num_workers=0, persistent_workers=False, pin_memory=False)
        config[loader].batch_size = 2
        config[loader].dataset.data_root = str(folder / "coco")
    regions = transform(config, "val_dataloader", "LetterboxRegions")
    regions.update(size=GRID * PATCH, patch_size=PATCH)
    config.test_dataloader = config.val_dataloader
    config.optim_wrapper.optimizer.lr = 1.0  # the warm-up begins at a thousandth
    config.train_cfg.update(max_iters=2, val_interval=2)
    config.work_dir = str(folder / "work")
    return config


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_config_distils_and_validates(path, tmp_path):
    write_coco(tmp_path / "coco")
    runner = Runner.from_cfg(shrunk(path, tmp_path))
    before = {name: p.detach().clone() for name, p in runner.model.named_parameters()}
    runner.train()
    for name, parameter in runner.model.named_parameters():
        moved = not torch.equal(before[name], parameter)
        assert moved == parameter.requires_grad or "attn.k_proj" in name, name
    metrics = runner.message_hub.log_scalars
    assert any(name.endswith("maskpool_thing_macc1") for name in metrics)
    saved = read_checkpoint(str(tmp_path / "work" / "iter_2.pth"))
    assert all(key.startswith("student.") for key in saved["state_dict"])
    assert {"student.readout", "student.quick_gelu"} < set(saved["state_dict"])
