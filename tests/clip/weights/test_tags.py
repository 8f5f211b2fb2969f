"""A mistyped name of weights or of an arch ends in a line that names what was meant."""

from __future__ import annotations

import open_clip
import pytest

from mmclipdis.clip.text.encoder import build_text_tower
from mmclipdis.clip.towers.build import build_image_tower, build_text_transformer
from mmclipdis.clip.towers.resnet import build_resnet_tower
from mmclipdis.clip.weights.loading import read_clip_checkpoint
from mmclipdis.clip.weights.tags import PACKAGED, archs_of, tags_of
from mmclipdis.models.backbones import CLIPViT
from mmclipdis.models.text_encoder import OpenCLIPTextEncoder
from mmclipdis.models.vfm import TimmVFM
from tests.faults.endings import raises
from tests.tiny import tiny_arch

SOURCES = {
    "the arch as tag": (
        "shapes-tiny",
        "shapes-tiny",
        "it is the name of an arch; known tags: shap",
    ),
    "upper case": ("shapes-tiny", "Shape", "known tags: shapes; did you mean 'shapes'"),
    "a tag of another": ("shapes-tiny", "openai", r"it is a tag of RN50, .* known tags: shapes$"),
    "ours elsewhere": ("ViT-B-16", "shapes", "it is a tag of shapes-tiny, .*known tags: openai"),
    "a typing error": ("ViT-B-16-quickgelu", "opennai", "did you mean 'openai'"),
    "hyphens": ("EVA02-B-16", "merged2b-s8b-b131", "did you mean 'merged2b_s8b_b131k'"),
    "an address": ("ViT-B-16", "https://a.b/c.pt", "fetch that file and give its path"),
}


@pytest.mark.parametrize("case", SOURCES)
def test_unknown_weights_name_those_that_there_are(case: str) -> None:
    arch, source, line = SOURCES[case]
    raises(f"'{source}' is neither a file nor weights known for '{arch}'.*{line}",
           read_clip_checkpoint, arch, source)  # fmt: skip


def test_an_arch_without_name_has_no_tags() -> None:
    raises("known for the given arch: tags are for archs with a name; give a file",
           read_clip_checkpoint, tiny_arch(), "openai")  # fmt: skip


ENCODERS = {"image": CLIPViT, "text": OpenCLIPTextEncoder}


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_encoder_says_so_when_its_weights_are_loaded(kind: str) -> None:
    init_cfg = {"type": "Pretrained", "checkpoint": "shapes-tiny"}
    encoder = ENCODERS[kind](arch="shapes-tiny", init_cfg=init_cfg)
    raises("known tags: shapes", encoder.init_weights)


@pytest.mark.parametrize("source", ["shapes-vfm", "shape", "openai"])
def test_the_teacher_of_shapescenes_names_its_own_weights(source: str) -> None:
    vfm = TimmVFM("shapes-vfm", init_cfg={"type": "Pretrained", "checkpoint": source})
    raises(f"no checkpoint '{source}' of 'shapes-vfm'; .* ship with the package: "
           "checkpoint='shapes'", vfm.init_weights)  # fmt: skip


@pytest.mark.parametrize(
    "build", [build_image_tower, build_text_transformer, build_text_tower, build_resnet_tower]
)
def test_unknown_archs_name_close_ones_ours_too(build) -> None:
    raises("unknown CLIP arch 'shapes_tiny'; close names: shapes-tiny", build, "shapes_tiny")
    raises("unknown CLIP arch 'shapes': it is a tag of weights; give it as checkpoint, and "
           "arch='shapes-tiny'", build, "shapes")  # fmt: skip
    raises("close names: shapes-tiny", build, "qqqqqqqqqqqq")


def test_tags_of_archs_and_archs_of_tags_agree() -> None:
    assert tags_of("shapes-tiny") == ["shapes"]
    assert archs_of("shapes") == [arch for arch, _ in PACKAGED]
    for arch in ("ViT-B-16", "EVA02-L-14-336"):
        assert tags_of(arch) and all(arch in archs_of(tag) for tag in tags_of(arch))
    assert archs_of("no such tag") == [] and "ViT-B-16" in open_clip.list_models()
