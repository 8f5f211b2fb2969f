"""Every config of the training-free methods after ClearCLIP builds, with the published protocol."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import DATASETS, MODELS

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.models.segmentation import OpenVocabSegmentor
from tests.models.segmentation.test_training_free_configs import CONFIGS, DECLIP, SCLIP, shrink
from tests.tiny import tiny_arch

BENCHMARKS = (
    *("voc21", "context60", "coco_object", "voc20"),
    *("context59", "coco_stuff164k", "cityscapes", "ade20k"),
)
#: Short side, crop, stride, logit scale, threshold, queries (training_free_2 spec 2.2, 3.3, 4.5,
#: 5.4, 7.1 and 7.2); crop None is the whole image.
SCCLIP = {
    **{name: (*row[:3], 40, *row[4:]) for name, row in SCLIP.items()},
    "voc21": (336, 224, 112, 50, 0.15, 56),
    "context60": (336, 224, 112, 40, 0.15, 60),
    "coco_object": (336, 224, 112, 55, 0.35, 113),
    "coco_stuff164k": (336, 224, 112, 40, 0, 171),
}
NACLIP = {
    **SCCLIP,
    "voc21": (336, None, 112, 40, 0.1, 56),
    "context60": (336, 224, 112, 40, 0.1, 60),
    "coco_object": (336, 224, 112, 40, 0.1, 113),
    "voc20": (336, None, 112, 40, 0, 30),
}
OV_STITCHER = {
    **DECLIP,  # the same class files
    "voc21": (448, 336, 112, 40, 0.1, 46),
    "context60": (448, 336, 112, 40, 0.1, 60),
    "coco_object": (448, 336, 112, 40, 0.2, 96),
    "coco_stuff164k": (448, 336, 224, 40, 0, 171),
    "cityscapes": (560, 224, 112, 40, 0, 19),
}
PROXYCLIP = {
    **{name: (336, *row[1:]) for name, row in DECLIP.items()},
    "voc21": (336, 336, 112, 40, 0.2, 46),
    "coco_object": (336, 336, 112, 40, 0.25, 97),
    "cityscapes": (448, 224, 112, 40, 0, 19),
    "ade20k": (448, 336, 112, 40, 0, 150),
}
CORRCLIP = {**PROXYCLIP, "coco_object": (*PROXYCLIP["coco_object"][:5], 96)}
#: Short sides; scales, thresholds and queries are ProxyCLIP's, and strides 224 but for VOC20.
TRIDENT_SIDES = {
    "voc21": 448, "context60": 576, "coco_object": 448, "voc20": 336, "context59": 576,
    "coco_stuff164k": 448, "cityscapes": 688, "ade20k": 576,
}  # fmt: skip
TRIDENT = {
    name: (side, 336, 112 if name == "voc20" else 224, *PROXYCLIP[name][3:])
    for name, side in TRIDENT_SIDES.items()
}
#: Folder, beginning of the config's name, protocol.
METHODS = {
    "naclip_vitb16": ("naclip", NACLIP),
    "naclip_vitl14": ("naclip", NACLIP),
    "naclip-pamr_vitb16": ("naclip", NACLIP),
    "resclip_vitb16": ("resclip", NACLIP),
    "resclip_vitl14": ("resclip", NACLIP),
    "proxyclip_vitb16": ("proxyclip", PROXYCLIP),
    "proxyclip_vitl14": ("proxyclip", PROXYCLIP),
    "proxyclip_vith14": ("proxyclip", PROXYCLIP),
    "corrclip_vitb16": ("corrclip", CORRCLIP),
    "corrclip_vitl14": ("corrclip", CORRCLIP),
    "ov_stitcher_vitb16": ("ov_stitcher", OV_STITCHER),
    "scclip_vitb16": ("scclip", SCCLIP),
    "trident_vitb16": ("trident", TRIDENT),
}
#: Published shares of the maps of other blocks.
RESCLIP_SHARES = {
    "ade20k": 0.3, "cityscapes": 0.2, "coco_object": 0.4, "coco_stuff164k": 0.4,
    "context59": 0.4, "context60": 0.3, "voc20": 0.6, "voc21": 0.3,
}  # fmt: skip
#: Of SAM's matrix in Trident: kappa, whether all differences count (spec 6.1).
TRIDENT_MIXERS = {
    **dict.fromkeys(
        ("voc21", "context60", "coco_object", "context59", "coco_stuff164k"), (1.2, True)
    ),
    **{"voc20": (0.0, True), "cityscapes": (3.0, False), "ade20k": (1.2, False)},
}
SMALL_SAM = dict(
    img_size=128, embed_dim=24, depth=2, num_heads=2, neck_chans=16, global_attn_indexes=(1,)
)
SMALL_VFM = dict(img_size=32, embed_dim=32, depth=2, num_heads=2)


def load(name: str, benchmark: str) -> Config:
    return Config.fromfile(CONFIGS / METHODS[name][0] / f"{name}_{benchmark}.py")


def small(config: Config) -> dict[str, Any]:
    """The model with tiny encoders of 12 blocks and of the published patch sizes."""
    model = shrink(config, tiny_arch(layers=12))
    if "vfm" in model["backbone"]:
        model["backbone"]["vfm"].pop("init_cfg")
        model["backbone"]["vfm"]["model_kwargs"] = SMALL_VFM
    if "token_mixer" in model:
        model["token_mixer"].pop("init_cfg")
        model["token_mixer"]["model_kwargs"] = SMALL_SAM
    if model.get("masks"):
        model["masks"] = quarters
    return model


def quarters(photo: np.ndarray) -> np.ndarray:
    masks = np.zeros(photo.shape[:2], np.int64)
    masks[: photo.shape[0] // 2, :] = 1
    masks[:, photo.shape[1] // 2 :] += 2
    return masks


def test_there_is_one_config_for_every_combination() -> None:
    folders = {folder for folder, _ in METHODS.values()}
    found = {path.stem for folder in folders for path in (CONFIGS / folder).glob("*.py")}
    assert found == {f"{name}_{benchmark}" for name in METHODS for benchmark in BENCHMARKS}


@pytest.mark.parametrize("name", METHODS)
def test_configs_have_the_published_protocol(name: str) -> None:
    for benchmark in BENCHMARKS:
        config = load(name, benchmark)
        short, crop, stride, scale, threshold, queries = METHODS[name][1][benchmark]
        cut, head = config.model.test_cfg, config.model.decode_head
        assert cut.mode == ("slide" if crop else "whole"), benchmark
        assert cut.stride == (stride, stride), benchmark
        if crop:
            assert cut.crop_size == (crop, crop), benchmark
        assert (head.logit_scale, head.get("prob_thd", 0)) == (scale, threshold), benchmark
        area = 0.1 if (name, benchmark) == ("scclip_vitb16", "voc21") else None
        assert head.get("area_thd") == area, benchmark
        assert config.test_dataloader.dataset.pipeline[1].scale == (2048, short), benchmark
        vocabulary = Vocabulary.bundled(head.vocabulary)
        assert len(vocabulary.queries) == queries, benchmark
        dataset = DATASETS.get(config.test_dataloader.dataset.type)
        assert vocabulary.num_classes == len(dataset.METAINFO["classes"]), benchmark


@pytest.mark.parametrize("name", [name for name in METHODS if name.endswith("vitb16")])
@pytest.mark.parametrize("benchmark", ["voc21", "cityscapes"])
def test_config_predicts(name: str, benchmark: str) -> None:
    torch.manual_seed(0)
    config = small(load(name, benchmark))
    if config["test_cfg"]["mode"] == "slide":
        config["test_cfg"].update(crop_size=(96, 96), stride=(48, 48))
    model = MODELS.build(config).eval()
    assert isinstance(model, OpenVocabSegmentor)
    photo = torch.randint(0, 256, (3, 96, 130), dtype=torch.uint8)
    batch = model.data_preprocessor({"inputs": [photo], "data_samples": None})
    (result,) = model.predict(batch["inputs"])
    labels = result.pred_sem_seg.data
    assert labels.shape == (1, 96, 130)
    assert 0 <= int(labels.min()) <= int(labels.max()) < model.num_classes


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_resclip_has_the_share_of_its_benchmark(benchmark: str) -> None:
    share = RESCLIP_SHARES[benchmark]
    for arch in ("vitb16", "vitl14"):
        readout = load(f"resclip_{arch}", benchmark).model.backbone.readout
        assert readout.attention.kk == pytest.approx(2 * (1 - share))
        assert readout.attention.layers == pytest.approx(2 * share)
        assert (readout.layers, readout.neighbours) == ((5, 6, 7, 8), 5.0)


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_trident_mixes_as_published(benchmark: str) -> None:
    config = load("trident_vitb16", benchmark)
    mixer, (kappa, negative) = config.model.token_mixer, TRIDENT_MIXERS[benchmark]
    assert (mixer.kappa, mixer.get("refine_neg", True)) == (kappa, negative)
    halves = (1, 2) if benchmark == "cityscapes" else (1, 1)
    assert tuple(mixer.get("splits", (1, 1))) == halves
    pipeline = config.test_dataloader.dataset.pipeline
    assert pipeline[2] == dict(type="ResizeToMultiple", size_divisor=16)
