"""F-ViT's checkpoints: without the text encoder, and complete all the same."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint

pytest.importorskip("mmdet")

from mmclipdis.clip.text.encoder import build_text_tower
from mmclipdis.clip.towers.build import build_text_transformer
from mmclipdis.engine.random_weights import take_as_meant
from tests.models.detection.fvit.tiny import CLASSES, NOVEL, batch, bbox_head, config, detections
from tests.tiny import tiny_arch

ARCH = tiny_arch()
ARCH["embed_dim"] = 8
ARCH["text_cfg"].update(vocab_size=49408, context_length=77, width=8)


@pytest.fixture
def clip(tmp_path):
    """A file with a text tower, which is not the one that a seed gives."""
    torch.manual_seed(3)
    torch.save(build_text_transformer(ARCH).state_dict(), tmp_path / "clip.pt")
    return str(tmp_path / "clip.pt")


def build(clip):
    encoder = dict(type="OpenCLIPTextEncoder", arch=ARCH, cache_dir=False, progress=False)
    if clip is not None:
        encoder["init_cfg"] = dict(type="Pretrained", checkpoint=clip)
    return MODELS.build(config(bbox_head(text_encoder=encoder, templates="single")))


def predictions(model):
    model.eval().set_vocabulary(CLASSES, NOVEL)
    with torch.no_grad():
        return [detections(sample) for sample in model(**batch(model, False), mode="predict")]


def test_the_text_encoder_is_left_out_and_comes_back(clip, tmp_path):
    torch.manual_seed(0)
    model = build(clip)
    model.init_weights()
    take_as_meant(model)
    expected = predictions(model)
    state = model.state_dict()
    assert not [key for key in state if ".text." in key]
    assert {"roi_head.bbox_head.detect_temperature", "backbone.tower.weight"} <= state.keys()
    torch.save({"state_dict": state}, tmp_path / "epoch_1.pth")
    torch.manual_seed(1)
    other = build(clip)  # as tools/test.py: without init_weights()
    load_checkpoint(other, str(tmp_path / "epoch_1.pth"), strict=True)
    for one, two in zip(expected, predictions(other), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    own = build_text_tower(ARCH)
    own.text.load_state_dict(torch.load(clip, weights_only=True))
    tokens = own.tokenize(["a photo of a cat."])
    assert torch.equal(other.roi_head.bbox_head.text.encoder.encode(tokens), own.encode(tokens))


def test_a_text_encoder_in_an_older_checkpoint_changes_nothing(clip):
    model = build(clip)
    text = model.roi_head.bbox_head.text
    model.set_vocabulary(CLASSES, NOVEL)
    kept = text.embeddings().clone()
    prefix = "roi_head.bbox_head.text.encoder."
    older = {prefix + name: value + 1 for name, value in text.encoder.state_dict().items()}
    older.pop(prefix + "quick_gelu")
    model.load_state_dict({**model.state_dict(), **older}, strict=True)
    assert torch.equal(text.embeddings(), kept)


def test_weights_that_nothing_names_are_said_to_be_random():
    model = build(None)
    model.set_vocabulary(CLASSES, NOVEL)
    with pytest.warns(UserWarning, match="OpenCLIPTextEncoder uses random weights: .*init_cfg"):
        model.roi_head.bbox_head.text.embeddings()
