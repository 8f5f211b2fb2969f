"""The survey of encoders: what it says of an arch is so. Takes seven seconds, the slow test 30."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import open_clip
import pytest
import yaml

from mmclipdis.engine.results import read_results
from tests.paths import ROOT


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("encoder_table", ROOT / "tools/encoder_table.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


survey = load_tool()


@pytest.mark.parametrize(
    ("arch", "tags", "image", "readouts", "statistics", "licence"),
    [
        ("ViT-B-16-quickgelu", "4 of 4", "CLIPViT", "all", "CLIP", "CC-BY-NC-4.0"),
        ("ViT-B-16", "11 of 15", "CLIPViT", "all", "CLIP", "see its card"),
        ("EVA02-B-16", "1 of 1", "CLIPViT", "all", "CLIP", "MIT"),
        ("RN50-quickgelu", "3 of 3", "CLIPResNet", "v, qk, qq", "CLIP", "MIT"),
        ("MobileCLIP2-S0", "1 of 1", "CLIPConvNet", "vanilla", "0 / 1", "apple-amlr"),
        ("MobileCLIP2-S3", "1 of 1", "CLIPConvNet", "vanilla", "CLIP", "apple-amlr"),
        ("convnext_base_w", "3 of 3", "CLIPConvNet", "vanilla", "CLIP", "Apache-2.0"),
    ],
)
def test_what_is_read_of_an_arch(
    arch: str, tags: str, image: str, readouts: str, statistics: str, licence: str
) -> None:
    found = survey.row_of(arch)["metrics"]
    assert (found["tags"], found["image"]) == (tags, image)
    assert readouts in found["readouts"] and licence in found["licence"]
    assert found["mean / std"] == statistics


def test_licences_are_those_that_the_zoo_lists() -> None:
    listed = yaml.safe_load((ROOT / "mmclipdis/apis/zoo/weights.yml").read_text())
    for tag, entry in listed.items():
        for arch in open_clip.list_pretrained_models_by_tag(tag) if "tag" in entry else ():
            found = survey.licences(arch, [tag])  # of some, timm's cards and the authors differ
            assert found in (entry["license"], "see its card"), (arch, tag)
    assert survey.licences("Talk2DINO-B-14", []) == "see its card"


def test_what_is_not_read_is_told_in_the_words_of_its_error() -> None:
    found = survey.row_of("coca_ViT-B-32")["metrics"]
    assert found["image"] == "dense readouts are not defined for a ViT with attention pooling"
    assert found["readouts"] == "-" and "class token" in found["text"]


def test_archs_of_the_same_kind_share_a_row_and_nothing_is_lost() -> None:
    rows = [survey.row_of(arch) for arch in ("MobileCLIP-S1", "convnext_base", "MobileCLIP-S2")]
    mobile, conv = survey.grouped(rows)
    assert (mobile["name"], conv["name"]) == ("MobileCLIP-S1, MobileCLIP-S2", "convnext_base")
    assert (mobile["metrics"]["tags"], conv["metrics"]["tags"]) == ("2 of 2", "1 of 1")
    total = survey.summary(rows)["metrics"]
    assert (total["open_clip_tags"], total["image_tags"]) == (3, 3)


def test_the_results_name_every_arch_once() -> None:
    first, *rows = read_results(survey.RESULTS)["rows"]
    names = [name for row in rows for name in row["name"].split(", ")]
    assert sorted(names) == sorted(survey.archs())
    assert first["metrics"]["open_clip_tags"] == 196


@pytest.mark.slow
def test_the_results_are_what_a_new_survey_finds(capsys: pytest.CaptureFixture[str]) -> None:
    survey.main([])
    assert capsys.readouterr().out == ""
