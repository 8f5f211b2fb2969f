"""The list of models: what the metafiles say, by name, without loading anything."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import yaml

import mmclipdis
from mmclipdis.apis.zoo import DEFAULTS, as_table, find, models
from mmclipdis.apis.zoo.listing import everything
from mmclipdis.apis.zoo.sources import catalogue, weights_of
from tests.paths import ROOT

FOLDERS = sorted(path.parent for path in (ROOT / "configs").glob("*/metafile.yml"))


def test_every_entry_of_every_metafile_is_a_model() -> None:
    names = {
        entry["Name"]
        for folder in FOLDERS
        for entry in yaml.safe_load((folder / "metafile.yml").read_text("utf-8"))["Models"]
    }
    assert {name for info in everything() for name in (info.name, *info.aliases)} >= names
    assert len(everything()) == len(names) > 200
    assert all(info.path.is_file() for info in everything())


def test_the_package_calls_itself_for_the_list() -> None:
    listed = mmclipdis.models("detect")
    assert listed == models("detect") and listed[0].name == "fvit-shapes"
    assert {info.task for info in mmclipdis.models()} == {"segment", "detect", "tag"}
    assert mmclipdis.models.FViT.__name__ == "FViT"  # the package that it is as well
    with pytest.raises(ValueError, match=r"no task 'draw'; choose one of segment, detect, tag"):
        mmclipdis.models("draw")


def test_a_name_is_one_model_of_its_task() -> None:
    named = [(info.task, name) for info in everything() for name in (info.name, *info.aliases)]
    assert len(named) == len({(task, name.replace("_", "-")) for task, name in named})


def test_what_is_named_in_the_readme_of_other_projects_is_found() -> None:
    for name, method in {
        "clearclip-vitb16": "ClearCLIP",
        "ClearCLIP_ViTB16": "ClearCLIP",
        "declip-vitb16": "DeCLIP",
        "catseg-vitl14": "CAT-Seg",
        "fvit-declip-vitb16": "F-ViT",
        "ovdquo-openai-rn50": "OV-DQUO",
    }.items():
        assert find(name).method == method
    assert find("dclip-rn101", "tag").config.endswith("dclip_rn101_coco14.py")
    assert find("dclip-rn101", "segment").config.endswith("zs3_rn101_context59.py")
    assert find("fvit_clipself_vitb16_ov-coco") == find("fvit-clipself-vitb16")
    assert find("fvit-clipself") is None


@pytest.mark.parametrize("task", DEFAULTS)
def test_the_default_of_a_task_stands_first_and_needs_no_download(task: str) -> None:
    first, *others = models(task)
    assert first.name == DEFAULTS[task] and first.default and first.offline
    assert not any(info.default for info in others)
    assert [info.short for info in others] == sorted([info.short for info in others], reverse=True)


#: Methods that the packaged CLIP, and vision model, are enough for.
TRAINING_FREE = (
    *("clip", "maskclip", "sclip", "clearclip", "clip-surgery", "gem", "naclip", "resclip"),
    *("scclip", "proxyclip", "corrclip", "ov-stitcher"),
)


def test_packaged_models_are_those_without_downloads() -> None:
    offline = {(info.task, info.name) for info in models() if info.offline and info.short}
    assert offline == {
        *(("segment", f"{name}-shapes") for name in TRAINING_FREE),
        ("detect", "fvit-shapes"),
        ("tag", "clip-shapes"),
    }
    (detector,) = (info for info in models("detect") if info.offline)
    assert detector.checkpoint.stat().st_size < 1.5e6


def test_every_size_is_counted() -> None:
    assert not [info.name for info in everything() if not info.parameters]
    sizes = {info.name: info.parameters for info in everything()}
    assert sizes["clearclip-vitb16"] == 149_620_736  # as open_clip says, without the logit scale


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_licences_of_weights_are_those_that_the_collection_tells(folder) -> None:
    data = yaml.safe_load((folder / "metafile.yml").read_text("utf-8"))
    text = " ".join(" ".join(one["Metadata"]["Weights"]) for one in data["Collections"])
    for entry in data["Models"]:
        for weights in weights_of(entry["Metadata"]["Pretrained Weights"]):
            if weights.kind == "tag" or weights.name.startswith(("DeCLIP", "eva", "dinov2")):
                assert f"{weights.page}, {weights.license}" in text, weights.name
        if released := entry["Metadata"].get("Released"):
            assert released.partition(", ")[0] in text


def test_what_nobody_knows_is_not_invented() -> None:
    for name, entry in catalogue().items():
        assert re.fullmatch(r"https://github\.com/[\w-]+/[\w-]+", entry["page"]), name
        if "tag" not in entry:
            assert entry["sha256"] is None or re.fullmatch("[0-9a-f]{64}", entry["sha256"]), name
            assert entry["url"] is None or entry["sha256"], f"{name} would come unchecked"
    with pytest.raises(ValueError, match=r"weights\.yml says nothing of 'x\.pt'"):
        weights_of("checkpoints/x.pt".removeprefix("checkpoints/"))


def test_a_table_has_a_row_for_each_model() -> None:
    listed = models("tag")
    text = as_table(listed).splitlines()
    assert len(text) == len(listed) + 1
    assert re.match(
        r"clip-shapes \(default\) +tag +ShapeScenes +4\.6 M +Apache-2\.0 +nothing", text[1]
    )
    page = as_table(listed[:1], markdown=True).splitlines()
    assert page[2].startswith("| `clip-shapes` (default) | tag |")
    assert "mAP 99.621" in as_table(listed[:1], results=True)


def test_listing_loads_no_library_of_models() -> None:
    """The command must answer at once; it does without the package's own ``__init__``."""
    code = (
        "import json, sys, types\n"
        "for name in ('mmclipdis', 'mmclipdis.apis'):\n"
        "    sys.modules[name] = package = types.ModuleType(name)\n"
        f"    package.__path__ = [{str(ROOT)!r} + '/' + name.replace('.', '/')]\n"
        "from mmclipdis.apis.zoo import as_table, models\n"
        "as_table(models())\n"
        "print(json.dumps([name.partition('.')[0] for name in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "mmengine", "mmseg", "mmdet", "numpy", "open_clip", "cv2"}
    assert not heavy & {*json.loads(done.stdout)}
