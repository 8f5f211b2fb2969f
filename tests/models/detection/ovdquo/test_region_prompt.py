"""Region prompts: where they are added, where their values come from, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.runner import load_checkpoint
from safetensors.torch import save_file
from torch import Tensor

from mmclipdis.engine.random_weights import redraw
from mmclipdis.models import OVDQUOResNetBackbone
from mmclipdis.models.detection.ovdquo.region_prompt import read_region_prompt
from mmclipdis.models.detection.regions import pool_boxes
from tests.faults.endings import raises
from tests.models.detection.ovdquo.test_resnet_backbone import BOXES, TOLERANCE, build, photos

SHAPE = (256, 3, 3)


def prompt(seed: int = 3) -> Tensor:
    return torch.randn(SHAPE, generator=torch.manual_seed(seed))


@pytest.fixture
def file(tmp_path: Path) -> str:
    torch.save(prompt(), tmp_path / "prompt.pth")
    return str(tmp_path / "prompt.pth")


def embedded(backbone: OVDQUOResNetBackbone, shift: Tensor | float, scores: bool) -> Tensor:
    """Without :class:`RegionPrompt`, through open_clip's own pool."""
    tower, (c4, c5) = backbone.encoder.tower, backbone(photos())[-1]
    features = tower.stages[3](pool_boxes(c4, BOXES, 16, 6)) if scores else None
    features = pool_boxes(c5, BOXES, 32, 3) if features is None else features
    return F.normalize(tower.visual.attnpool(features + shift), dim=1)


@pytest.mark.parametrize("prompt_scores", [False, True])
@torch.no_grad()
def test_the_prompt_is_added_to_what_the_pool_sees(file, prompt_scores):
    backbone = build(region_prompt=file, prompt_scores=prompt_scores)
    maps = backbone(photos())[-1]
    query, score = backbone.query_embeddings(maps, BOXES), backbone.score_embeddings(maps, BOXES)
    torch.testing.assert_close(query, embedded(backbone, prompt(), scores=False), **TOLERANCE)
    shift = prompt() if prompt_scores else 0.0
    torch.testing.assert_close(score, embedded(backbone, shift, scores=True), **TOLERANCE)
    plain = embedded(backbone, 0.0, scores=False)
    assert (query - plain).abs().max() > 1e-2
    nowhere = torch.tensor([[0.0, 5, 5, 5, 5]])
    assert not backbone.query_embeddings(maps, nowhere).any()


def test_the_prompt_is_frozen_and_saved(file, tmp_path):
    backbone = build(region_prompt=file)
    assert not any(p.requires_grad for p in backbone.parameters())
    backbone.init_weights()
    state = backbone.state_dict()
    assert torch.equal(state["region_prompt.weight"], prompt())
    Path(file).unlink()  # a checkpoint needs no file beside it
    other = build(region_prompt=file)
    other.load_state_dict(state)
    for model in (other, copy.deepcopy(other)):
        maps = model(photos())[-1]
        expected = backbone.query_embeddings(backbone(photos())[-1], BOXES)
        assert torch.equal(model.query_embeddings(maps, BOXES), expected)


def test_the_file_is_read_once(file):
    class Detector(BaseModule):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = build(region_prompt=file)

    detector = Detector()
    detector.init_weights()
    redraw(detector)  # as our detectors do after it
    Path(file).unlink()
    backbone = detector.backbone
    assert backbone.query_embeddings(backbone(photos())[-1], BOXES).any()
    assert torch.equal(backbone.region_prompt.weight, prompt())


def test_a_checkpoint_wins_over_the_file(file):
    backbone = build(region_prompt=file)
    backbone.load_state_dict({**backbone.state_dict(), "region_prompt.weight": prompt(seed=8)})
    backbone.query_embeddings(backbone(photos())[-1], BOXES)
    assert torch.equal(backbone.region_prompt.weight, prompt(seed=8))


def test_a_checkpoint_with_a_prompt_is_refused_without_one(file, tmp_path):
    state = build(region_prompt=file).state_dict()
    line = r"holds a region prompt \(region_prompt.weight\).* set region_prompt of its backbone"
    raises(line, build().load_state_dict, state)
    raises(line, build().load_state_dict, state, strict=False)
    torch.save(dict(state_dict=state), tmp_path / "run.pth")
    raises(line, load_checkpoint, build(), str(tmp_path / "run.pth"))


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize(
    "content",
    [
        dict(anything=prompt()),
        dict(region_prompt=prompt(), weight=torch.zeros(2)),
        {"head.region_prompt": prompt()[None].double()},
    ],
)
def test_files_of_several_forms_are_read(tmp_path, name, content):
    path = tmp_path / name
    if name.endswith("t"):
        torch.save({"epoch": 3, "model": content}, path)
    else:
        save_file(content, path)
    found = read_region_prompt(path, SHAPE)
    assert found.dtype == torch.float32 and torch.equal(found, prompt())


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "no region prompt at .* or None to do without"),
        (torch.zeros(256, 7, 7), r"\(256, 7, 7\), the backbone needs .* \(256, 3, 3\): .* arch"),
        (torch.zeros(3, 256, 3, 3), r"is \(3, 256, 3, 3\), the backbone needs"),
        (torch.full(SHAPE, float("nan")), "finite"),
        (
            dict(a=torch.zeros(2), b=torch.zeros(3)),
            "one region prompt, found none: save the tensor",
        ),
        (dict(prompt_a=torch.zeros(2), prompt_b=torch.zeros(3)), r"several \(prompt_a, prompt_b\)"),
        ("text", "found none"),
        (b"no checkpoint", "checkpoint"),
    ],
)
def test_what_is_no_prompt_ends_in_a_line_that_names_the_file(
    tmp_path: Path, content: Any, line: str
):
    path = tmp_path / "a.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    backbone = build(region_prompt=str(path))  # reads nothing yet
    maps = backbone(photos())[-1]
    message = raises(line, backbone.query_embeddings, maps, BOXES)
    assert "a.pt" in message
