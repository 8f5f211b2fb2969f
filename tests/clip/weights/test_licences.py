"""Licences are those of the zoo's list, and None where nobody says one. Takes no time."""

from __future__ import annotations

import open_clip
import pytest
import yaml

from mmclipdis.clip.weights.licences import licence_of
from tests.paths import ROOT


@pytest.mark.parametrize(
    ("arch", "tag", "licence"),
    [
        ("ViT-B-16-SigLIP2-512", "webli", "Apache-2.0"),
        ("PE-Core-bigG-14-448", "meta", "Apache-2.0"),
        ("MobileCLIP2-S0", "dfndr2b", "apple-amlr (research only)"),
        ("ViT-H-14-worldwide-quickgelu", "metaclip2_worldwide", "CC-BY-NC-4.0"),
        ("ViT-L-14", "datacomp_xl_s13b_b90k", "Apache-2.0"),
        ("ViT-H-14-378-quickgelu", "dfn5b", "apple-ascl (Apple sample code)"),
        ("dinotxt-v3-L-16", "", "DINOv3 License (gated)"),
        ("ViT-B-16-quickgelu", "dfn2b", None),
        ("Talk2DINO-B-14", "", None),
        ("ViTamin-L", "datacomp1b", None),
    ],
)
def test_the_licence_of_a_family(arch: str, tag: str, licence: str | None) -> None:
    assert licence_of(arch, tag) == licence


def test_the_zoo_says_the_same_of_its_tags() -> None:
    listed = yaml.safe_load((ROOT / "mmclipdis/apis/zoo/weights.yml").read_text())
    for tag, entry in listed.items():
        for arch in open_clip.list_pretrained_models_by_tag(tag) if "tag" in entry else ():
            assert licence_of(arch, tag) in (entry["license"], None), (arch, tag)
