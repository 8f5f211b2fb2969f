"""Mean and std of CLIP weights: open_clip's table of tags, or what lies beside a file (1 s)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
from open_clip import pretrained

from mmclipdis.clip.weights.statistics import possible_statistics, statistics_of
from mmclipdis.utils.statistics import CLIP, HALF, IMAGENET, NONE, Statistics
from tests.tiny import tiny_arch

TAGGED = [
    (m, t) for m in open_clip.list_models() for t in pretrained.list_pretrained_tags_by_model(m)
]


def test_every_tag_has_what_open_clip_notes() -> None:
    assert len(TAGGED) > 190
    for arch, tag in TAGGED:
        noted = pretrained.get_pretrained_cfg(arch, tag)
        assert statistics_of(arch, tag) == Statistics(noted["mean"], noted["std"])


def test_a_file_has_those_of_all_tags_of_its_arch() -> None:
    """open_clip forgets them; only the tags of one arch differ."""
    several = {arch for arch, _ in TAGGED if len(possible_statistics(arch, "weights.pt")) > 1}
    assert several == {"ViT-L-14"}
    assert possible_statistics("ViT-L-14", "weights.pt") == (CLIP, HALF)
    assert possible_statistics("ViT-L-14", "laion2b_s32b_b82k") == (HALF,)
    assert possible_statistics("ViT-L-14", "openai") == (CLIP,)


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("RN50-quickgelu", CLIP),
        ("EVA02-L-14-336", CLIP),
        ("ViT-H-14-worldwide-quickgelu", CLIP),
        ("ViT-L-14-worldwide", CLIP),  # without tags
        ("shapes-tiny", CLIP),
        ("ViT-B-16-SigLIP", HALF),
        ("ViT-gopt-16-SigLIP2-384", HALF),
        ("PE-Core-bigG-14-448", HALF),
        ("MobileCLIP-B", NONE),
        ("MobileCLIP2-S2", NONE),
        ("MobileCLIP2-S3", CLIP),
        ("MobileCLIP2-L-14", CLIP),
        ("ViT-L-14-CLIPA", IMAGENET),
    ],
)
def test_families(arch: str, expected: Statistics) -> None:
    assert possible_statistics(arch) == (expected,)


@pytest.mark.parametrize(
    ("trunk", "expected"),
    [
        ("vit_base_patch16_siglip_224", HALF),
        ("vit_pe_core_base_patch16_224", HALF),
        ("fastvit_mci0", NONE),
        ("fastvit_mci3", CLIP),
        ("vit_base_mci_224", NONE),
        ("vit_base_patch14_reg1_tipsv2", NONE),
        ("vit_large_patch14_reg4_dinov2", IMAGENET),
        ("vit_large_patch16_dinov3", IMAGENET),
        ("eva02_base_patch16_clip_224", CLIP),
    ],
)
def test_a_config_without_a_name_has_those_of_its_trunk(trunk: str, expected: Statistics) -> None:
    arch = {**tiny_arch(), "vision_cfg": {"timm_model_name": trunk}}
    assert statistics_of(arch) == expected


def test_a_config_may_say_its_own() -> None:
    own = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "resize_mode": "squash"}
    assert statistics_of(tiny_arch()) == CLIP
    expected = Statistics(own["mean"], own["std"])
    assert statistics_of({**tiny_arch(), "preprocess_cfg": own}) == expected
    assert statistics_of({**tiny_arch(), "preprocess_cfg": {"resize_mode": "squash"}}) == CLIP


@pytest.mark.parametrize(
    ("weights", "beside", "config"),
    [
        (
            "open_clip_model.safetensors",
            "open_clip_config.json",
            {"preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}},
        ),
        (
            "model.safetensors",
            "preprocessor_config.json",
            {"image_mean": [0.5] * 3, "image_std": [0.5] * 3},
        ),
    ],
)
def test_the_folder_of_a_download_says_them(
    tmp_path: Path, weights: str, beside: str, config: dict[str, Any]
) -> None:
    file = tmp_path / weights
    (tmp_path / beside).write_text(json.dumps(config))
    assert statistics_of("ViT-L-14", file) == CLIP  # no such file
    file.touch()
    assert possible_statistics("ViT-L-14", file) == (HALF,)
    (tmp_path / beside).write_text("{")
    assert statistics_of("ViT-L-14", file) == CLIP
    (tmp_path / "own.pt").touch()
    assert statistics_of("ViT-L-14", tmp_path / "own.pt") == CLIP
