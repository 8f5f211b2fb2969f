"""DCLIP's configs: published values, and a run of each at a tiny size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, PARAM_SCHEDULERS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from mmclipdis.apis.cache_features import use_cached_features
from mmclipdis.engine.checkpoint_io import read_checkpoint
from tests.models.recognition import dclip_files as files
from tests.paths import ROOT

FOLDER = ROOT / "configs" / "dclip"
ARCHS = {
    "rn50": "RN50-quickgelu",
    "rn101": "RN101-quickgelu",
    "vitb16": "ViT-B-16-quickgelu",
    "vitb32": "ViT-B-32-quickgelu",
}
PUBLISHED = {  # mAP on VOC 2007 and COCO 2014
    "rn50": (94.4, 83.2),
    "rn101": (95.4, 85.6),
    "vitb16": (94.6, 84.9),
    "vitb32": (94.6, 84.4),
}
DATA = ("voc2007", "coco14")
TRAINED = [f"dclip_{arch}_{data}" for arch in ARCHS for data in DATA]
CACHED = [f"dclip_rn101_{data}_cached" for data in DATA]


def load(name: str) -> Config:
    return Config.fromfile(FOLDER / f"{name}.py")


def shrunk(name: str, folder: Path) -> Config:
    """The config with small towers of the same kind, on four photos, for one epoch."""
    config = load(name)
    files.shrink_encoders(config.model.encoder, config.model.text_encoder)
    (files.write_voc2007 if "voc" in name else files.write_coco14)(folder / "data")
    for loader in ("train_dataloader", "val_dataloader"):
        files.shrink_loader(config, loader, folder / "data")
    config.test_dataloader = config.val_dataloader
    config.param_scheduler = None
    config.train_cfg.update(max_epochs=1, val_interval=1)
    config.default_hooks.logger.interval = 1
    config.work_dir = str(folder / "work")
    return config


@pytest.mark.parametrize("name", [*TRAINED, *CACHED])
def test_config_trains_two_iterations_and_validates(name, tmp_path):
    config = shrunk(name, tmp_path)
    if name in CACHED:
        use_cached_features(config, str(tmp_path / "tokens"))
    runner = Runner.from_cfg(config)
    before = {key: value.clone() for key, value in runner.model.state_dict().items()}
    frozen = {key: p.clone() for key, p in runner.model.named_parameters() if not p.requires_grad}
    runner.train()
    assert runner.iter == 2
    after = runner.model.state_dict()
    learned = {key for key, p in runner.model.named_parameters() if p.requires_grad}
    assert all(key.startswith("projectors.") for key in learned) and len(learned) == 5
    assert all(not torch.equal(before[key], after[key]) for key in learned)
    now = dict(runner.model.named_parameters())
    assert frozen and all(torch.equal(now[key], value) for key, value in frozen.items())
    logged = runner.message_hub.log_scalars
    assert {"train/loss_asl", "train/loss_mfi", "val/mAP", "val/OF1"} <= set(logged)
    assert 0 <= logged["val/mAP"].current() <= 100
    saved = read_checkpoint(str(tmp_path / "work" / "epoch_1.pth"))["state_dict"]
    assert all(key.startswith("projectors.") for key in saved)
    assert (tmp_path / "tokens").exists() == (name in CACHED)


def test_asl_alone_by_an_option(tmp_path):
    config = shrunk("dclip_rn101_coco14", tmp_path)
    config.merge_from_dict({"model.mfi": None})
    runner = Runner.from_cfg(config)
    runner.train()
    logged = runner.message_hub.log_scalars
    assert "train/loss_asl" in logged and "train/loss_mfi" not in logged
    assert {"train/mean_cosine", "train/posneg_cosine"} <= set(logged)


@pytest.mark.parametrize(
    "options",
    [
        {"model.mfi.axis": "class"},
        {"model.mfi.rows": "posneg"},
        {"model.mfi.center": "bn"},
        {"model.pooling": "positive"},
        {"model.mean_token": False},
        {"model.projectors.norm_eval": False},
        {"model.asl.loss_weight": 0.03},
        {"model.prompts": ("There is no {} here", ["A drawing of a {}", "A {}"])},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_option_of_the_docs_changes_the_loss(options):
    config = load("dclip_rn101_coco14")
    files.shrink_encoders(config.model.encoder, config.model.text_encoder)
    config.model.vocabulary = ["dining table", "dog", "cat"]
    usual = losses(config)
    config.merge_from_dict(options)
    assert losses(config) != usual


def losses(config: Config) -> dict[str, float]:
    torch.manual_seed(0)
    model = MODELS.build(config.model).train()
    samples = [BaseDataElement(gt_score=torch.tensor([1.0, 0.0, -1.0])) for _ in range(2)]
    found = model(torch.randn(2, 3, 64, 64), samples, mode="loss")
    return {name: value.item() for name, value in found.items()}


def test_golden_learning_rates():
    config = load("dclip_rn101_coco14")
    settings = dict(config.optim_wrapper.optimizer)
    assert settings == dict(type="SGD", lr=2e-3, momentum=0.9, weight_decay=5e-4)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=settings["lr"])
    schedules = [
        PARAM_SCHEDULERS.build(dict(entry, optimizer=optimiser)) for entry in config.param_scheduler
    ]
    rates = []
    for _ in range(config.train_cfg.max_epochs):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        for schedule in schedules:
            schedule.step()
    assert len(rates) == 50 and all(schedule.by_epoch for schedule in schedules)
    expected = {0: 1e-5, 1: 2e-3, 2: 0.00199803, 25: 0.00106279, 26: 1e-3, 49: 7.89e-6}
    assert {e: rates[e] for e in expected} == pytest.approx(expected, rel=1e-3)
    assert rates[2] == pytest.approx(0.00199803, abs=5e-9)
    assert rates[25] == pytest.approx(0.00106279, abs=5e-9)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("data", DATA)
def test_config_has_the_published_values(arch, data):
    config = load(f"dclip_{arch}_{data}")
    model = config.model
    assert model.encoder.arch == model.text_encoder.arch == ARCHS[arch]
    assert model.encoder.init_cfg == model.text_encoder.init_cfg
    assert model.encoder.readout == ("v" if arch.startswith("rn") else "vanilla")
    assert model.prompts == ("Not a photo of a {}", "A photo of a {}")
    assert (model.pooling, model.logit_temperature, model.logit_scale) == ("separate", 20, 5)
    asl, mfi = model.asl, model.mfi
    assert (asl.gamma_pos, asl.gamma_neg, asl.clip, asl.loss_weight) == (1, 2, 0.05, 0.05)
    assert (mfi.axis, mfi.lam, mfi.loss_weight) == ("feature", 0.2, 7e-5)
    assert (config.train_dataloader.batch_size, config.val_dataloader.batch_size) == (32, 100)
    steps = [step.type for step in config.train_dataloader.dataset.pipeline]
    views = ["Resize", "CutoutRandomColor", "RandAugmentUDA"]
    assert steps == ["LoadReadableImage", *views, "PackMultiLabelInputs"]
    text = Path(config.filename).read_text()
    assert f"Published: {PUBLISHED[arch][DATA.index(data)]} mAP" in text and "Not run here" in text


@pytest.mark.parametrize("data", DATA)
def test_the_cached_variant_differs_in_its_views_and_its_validations_only(data):
    plain, cached = (load(f"dclip_rn101_{data}{end}").to_dict() for end in ("", "_cached"))
    # CLIP is run on all test images in each: not every five epochs
    assert cached["train_cfg"].pop("val_interval") == cached["train_cfg"]["max_epochs"] == 50
    assert plain["train_cfg"].pop("val_interval") == 5
    steps = cached["train_dataloader"]["dataset"].pop("pipeline")
    assert steps == cached["val_dataloader"]["dataset"]["pipeline"]
    plain["train_dataloader"]["dataset"].pop("pipeline")
    assert plain == cached


def depth(path: Path) -> int:
    """How many files deep a config is stacked on its bases."""
    bases = Config._get_base_files(str(path))
    return 1 + max((depth(path.parent / base) for base in bases), default=-1)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_a_config_is_read_through_two_levels_of_bases_at_most(path):
    assert depth(path) in (1, 2)
    assert path.read_text().count("\n") < 60
