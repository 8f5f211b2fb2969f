"""Each row of the table of docs/modules.md runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS as DETECTION
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import MODELS as SEGMENTATION

from mmclipdis.engine.random_weights import take_as_meant
from mmclipdis.utils.statistics import CLIP
from tests.faults.tiny import masks
from tests.models.stock import BATCH_NORM, CLASSES, place, step, stock_batch, stock_config
from tests.paths import ROOT
from tests.tiny import tiny_arch, tiny_eva_arch, tiny_resnet_arch
from tests.tiny_stages import tiny_convnext_arch

PAGE = (ROOT / "docs/modules.md").read_text()
ROWS = re.findall(r"(?m)^\| `(\w+)` \| `([\w.]+)` \| (mmseg|mmdet) `(\S+)` \|$", PAGE)
OF_RUNS = ("train_cfg", "default_hooks.checkpoint", "custom_hooks", "val_evaluator")
FCN = "fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py"
NAMES = ["sky", "road", "tree", "car", "house"]
BLOCKS = dict(out_indices=(0, 1, 2, 3))


def text_arch() -> dict[str, Any]:
    arch = tiny_arch(layers=4)
    return {**arch, "text_cfg": {**arch["text_cfg"], "vocab_size": 49408}}


def prepare(module: str, where: str, library: str, config: Any) -> None:
    """Put the module into the config, and what it asks of its neighbours."""
    names = [f"thing {i}" for i in range(CLASSES["mmdet"])]
    vit = dict(type="CLIPViT", arch=text_arch(), trainable=("all",))
    options: dict[str, dict[str, Any]] = {
        "CLIPViT": {**vit, **BLOCKS},
        "CLIPResNet": dict(arch=tiny_resnet_arch(), trainable=("all",), **BLOCKS),
        "CLIPConvNet": dict(arch=tiny_convnext_arch(), trainable=("all",), **BLOCKS),
        "FViTBackbone": dict(
            encoder=dict(type="CLIPViT", arch=tiny_eva_arch(img_size=64, patch_size=16, depth=4)),
            norm_cfg=BATCH_NORM,
            dense_map=False,
            **BLOCKS,
        ),
        "GatheredBCELoss": {},
        "NovelMaskedCrossEntropyLoss": dict(classes=names, novel_classes=names[1:2]),
    }
    text = dict(type="OpenCLIPTextEncoder", arch=text_arch(), cache_dir=False, progress=False)
    if where == "backbone" or (where.startswith("decode_head") and "loss" not in where):
        mean, std = CLIP.of_bytes
        config.data_preprocessor.update(mean=mean, std=std)
    if where.startswith("decode_head") and "loss" not in where:
        config.backbone = {**vit, "out_indices": ("map",)}
        config.auxiliary_head = None
        config.decode_head = dict(
            type="CosineSegHead",
            text_encoder=text,
            vocabulary=NAMES,
            num_classes=len(NAMES),
            templates="single",
        )
    elif module == "FViTRPNHead":
        config.rpn_head.update(type=module, norm_cfg=BATCH_NORM)
    else:
        place(config, where, {"type": module, **options[module]})
    widths = {
        "CLIPViT": [64] * 4,
        "CLIPResNet": [32, 64, 128, 256],
        "CLIPConvNet": [8, 16, 32, 64],
        "FViTBackbone": [32] * 4,
    }.get(module)
    if where != "backbone":
        return
    if module == "CLIPViT":
        pyramid = dict(embed_dim=64, rescales=[4, 2, 1, 0.5], norm_cfg=BATCH_NORM)
        pyramid["type"] = "mmseg.Feature2Pyramid"
        if library == "mmseg":  # BEiT's config has one
            config.neck = pyramid
            config.decode_head.in_channels, config.auxiliary_head.in_channels = widths, 64
        else:
            config.neck = [pyramid, dict(config.neck, in_channels=widths)]
    else:
        config.neck.in_channels = widths


MODEL_ROWS = [row for row in ROWS if row[1] not in OF_RUNS]
RUN_ROWS = [row for row in ROWS if row[1] in OF_RUNS]


def test_the_rows_are_found() -> None:
    lines = PAGE.split("\n\n## Losses")[0].count("\n| `")
    assert len(MODEL_ROWS) + len(RUN_ROWS) == lines > 15
    assert {(library, path) for *_, library, path in RUN_ROWS} == {("mmseg", FCN)}


@pytest.mark.parametrize(("module", "where", "library", "path"), MODEL_ROWS)
def test_a_module_stands_in_a_stock_config(
    module: str, where: str, library: str, path: str
) -> None:
    init_default_scope(library)
    config = stock_config(library, path).model
    prepare(module, where, library, config)
    registry = SEGMENTATION if library == "mmseg" else DETECTION
    torch.manual_seed(0)
    model = registry.build(config)
    take_as_meant(model)
    assert module in {type(part).__name__ for part in model.modules()}
    losses = step(model, library)
    assert losses and all(value.isfinite() for value in losses.values())
    if "loss" in where:
        return
    model.eval()
    with torch.no_grad():
        data = model.data_preprocessor(stock_batch(library), training=False)
        results = model(**data, mode="predict")
    if library == "mmseg":
        assert results[0].pred_sem_seg.data.shape == (1, 64, 64)
    else:
        assert results[0].pred_instances.bboxes.shape[1] == 4


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """mmengine's runner on a stock config with everything of the rows in it."""
    folder: Path = tmp_path_factory.mktemp("stock")
    init_default_scope("mmseg")
    config = stock_config("mmseg", FCN)
    labels = torch.arange(64 * 64).reshape(64, 64).remainder(2).numpy()
    loader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type="DefaultSampler", shuffle=False),
        dataset=masks(folder / "data", [labels] * 4),
    )
    config.train_dataloader = config.val_dataloader = config.test_dataloader = loader
    config.train_cfg = dict(max_iters=2, val_interval=2)
    config.update(work_dir=str(folder / "run"), experiment_name="stock", log_level="WARNING")
    config.custom_hooks = []
    for module, where, *_ in RUN_ROWS:
        if where == "custom_hooks":
            config.custom_hooks.append(dict(type=module))
        elif where == "val_evaluator":
            config.val_evaluator = config.test_evaluator = dict(type=module)
        else:
            place(config, f"{where}.type", module)
    runner = Runner.from_cfg(config)
    runner.train()
    return runner


@pytest.mark.slow
@pytest.mark.parametrize(("module", "where", "library", "path"), RUN_ROWS)
def test_a_run_of_a_stock_config_has_it(
    module: str, where: str, library: str, path: str, run: Runner
) -> None:
    metrics = run.val_loop.evaluator.metrics
    found = [*run.hooks, run.train_loop, *metrics]
    assert module in {type(part).__name__ for part in found}
    if where == "val_evaluator":
        assert run.message_hub.get_scalar("val/mIoU").current() >= 0
    elif where == "train_cfg":
        assert run.iter == 2
    elif where == "default_hooks.checkpoint":
        assert list(Path(run.work_dir).glob("iter_2.pth"))
