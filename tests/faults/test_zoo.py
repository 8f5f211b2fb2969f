"""Names that there are not, models of another task, weights that are not here: one line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmclipdis import detect, segment, tag
from mmclipdis.apis.zoo import on_disk, resolve
from tests.faults.endings import raises


@pytest.fixture(autouse=True)
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(arch: str, tag: str) -> None:
        raise FileNotFoundError(f"cannot download the weights {tag!r} of {arch!r} from here")

    monkeypatch.setattr(on_disk, "fetch_weights", refused)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "task", "line"),
    [
        ("clearclp-vitb16", "segment", "no model 'clearclp-vitb16'.*did you mean 'clearclip-"),
        ("banana", "tag", r"no model 'banana'.*`mmclipdis models --task tag` lists all"),
        ("clearclip_vitb99.py", "segment", "no config at .*did you mean the model 'clearclip"),
        ("some/where.json", "segment", "no config at some/where.json"),
        ("clearclip-shapes", "draw", "no task 'draw'; choose one of segment, detect, tag"),
        ("fvit-shapes", "segment", "detects objects and cannot segment: give it to mmclipdis.det"),
        ("clearclip-shapes", "detect", "segments photos and cannot detect.*such as 'fvit-shapes'"),
        ("shapes/dclip.py", "detect", "'shapes/dclip.py' tags photos and cannot detect"),
        ("shapes_declip_distill", "segment", r"distils CLIP.*give it to tools/train\.py"),
        ("clip-vitb16", "segment", "'clip-vitb16' needs what is not here: cannot download"),
        (
            "declip-vitb16",
            "segment",
            r"needs DeCLIP_evab\S+ \(.*Apache-2.0\).*get it from https://github.com/xiaomoguhz/D"
            r".*put it to \S+/hub/checkpoints/DeCLIP_evab",
        ),
        (
            "catseg-vitl14",
            "segment",
            r"must be trained.*from https://github.com/KU-CVLAB/CAT-Seg .*convert it with "
            r"tools/model_converters/catseg.py; then give .*or put it to \S+/catseg-vitl14.pth",
        ),
        ("dclip-vitb16", "tag", r"train it \(python tools/train.py configs/dclip/\S+\); then give"),
        ("clip-rn50", "tag", "'clip-rn50' needs what is not here: cannot download"),
        ("infoclip-vitb16", "segment", r"train it \(python tools/train.py configs/infoclip/\S+\)"),
        ("dclip-shapes", "segment", r"epoch_10.pth, which.*make it .*configs/shapes/dclip.py"),
        (
            "fvit-declip-openai-vitb16-lvis",
            "detect",
            r"must be trained, and no weights of it ship: train it",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_had_by_its_name(name: str, task: str, line: str) -> None:
    raises(line, resolve, name, task)


@pytest.mark.parametrize(
    ("function", "name", "line"),
    [
        (segment, "clearclip-vitb16", "'clearclip-vitb16' needs what is not here"),
        (detect, "fvit-declip-vitb16", "must be trained.*weights=FILE"),
        (tag, "clip-rn50", "'clip-rn50' needs what is not here"),
        (tag, "clip-vitb16", "segments photos and cannot tag.*such as 'clip-shapes'"),
        (detect, "fvitshapes", "no model 'fvitshapes'.*did you mean 'fvit-shapes'"),
    ],
)
def test_the_functions_say_the_same(function: Any, name: str, line: str) -> None:
    raises(line, function, np.zeros((8, 8, 3), np.uint8), ["kite", "plum"], name)


def test_a_checkpoint_that_is_not_there() -> None:
    raises("no checkpoint at absent.pth", resolve, "fvit-shapes", "detect", "absent.pth")


def test_options_that_are_no_dict() -> None:
    raises("give a dict", resolve, None, "segment", None, ["model.a=1"])
