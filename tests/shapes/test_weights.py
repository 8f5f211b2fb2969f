"""The shipped tiny CLIP: its file, and what it can do on fresh pictures."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch.nn import functional as F

from mmclipdis.clip.text.encoder import TextTower
from mmclipdis.clip.towers.build import OpenCLIPViT
from mmclipdis.clip.towers.readout import get_readout
from mmclipdis.shapes.pretrain import Recipe, normalise
from mmclipdis.shapes.weights import ARCH, WEIGHTS_PATH, load_towers
from mmclipdis.shapes.world import CLASSES, THINGS
from mmclipdis.shapes.zero_shot import (
    average_precision,
    class_embeddings,
    draw_scenes,
    tight_crops,
    zero_shot,
)


@pytest.fixture(scope="module")
def towers() -> tuple[OpenCLIPViT, TextTower]:
    return load_towers()


def test_the_file_is_small_half_precision_and_tells_how_it_was_made() -> None:
    assert WEIGHTS_PATH.stat().st_size <= 8_000_000
    with safe_open(WEIGHTS_PATH, "pt") as file:
        about = file.metadata()
        kinds = {name: file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert about["quick_gelu"] == "false" and about["arch"] == ARCH
    recipe = Recipe(**json.loads(about["recipe"]))
    assert int(about["steps"]) == recipe.steps
    assert kinds.pop("token_embedding.ids") == torch.int64
    assert set(kinds.values()) == {torch.float16}


def test_compact_embeddings_expand_to_the_rows_of_their_tokens(towers) -> None:
    with safe_open(WEIGHTS_PATH, "pt") as file:
        ids = file.get_tensor("token_embedding.ids")
        rows = file.get_tensor("token_embedding.rows")
    table = towers[1].text.token_embedding.weight
    assert table.shape[0] == 49408 and len(ids) == len(rows) == len(ids.unique())
    assert {49406, 49407} <= set(ids.tolist())  # start and end of text
    assert torch.equal(table[ids], rows.float())


def test_zero_shot_recognition_reaches_the_targets(towers) -> None:
    measured = zero_shot(*towers, count=100, seed=123, progress=False)
    assert measured["single_object_accuracy"] >= 95
    assert measured["tight_crop_accuracy"] >= 85
    assert measured["multi_object_mAP"] >= 75


@torch.inference_mode()
def test_dense_readouts_order_as_in_the_papers(towers) -> None:
    tower, text_tower = towers
    text = class_embeddings(text_tower, CLASSES)
    scenes = draw_scenes(16, seed=7, single=False)
    found = {}
    for name in ("vanilla", "maskclip", "sclip", "clearclip"):
        confusion = np.zeros((len(CLASSES), len(CLASSES)))
        for scene in scenes:
            image = cv2.resize(scene.image, (128, 128))
            dense = tower.forward_dense(normalise(image[None]), get_readout(name)).map
            scores = torch.einsum("bchw,kc->bkhw", F.normalize(dense, dim=1), text)
            scores = F.interpolate(scores, scene.labels.shape, mode="bilinear")
            np.add.at(confusion, (scene.labels, scores[0].argmax(0).numpy()), 1)
        union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
        found[name] = float(np.nanmean(np.diag(confusion) / union))
    assert min(found, key=found.__getitem__) == "vanilla"
    assert all(found[n] > 1.3 * found["vanilla"] for n in found if n != "vanilla")


def test_average_precision_equals_its_definition() -> None:
    scores = np.asarray([0.9, 0.1, 0.8, 0.3])
    truth = np.asarray([True, True, False, False])
    assert average_precision(scores, truth) == pytest.approx((1 / 1 + 2 / 4) / 2)
    assert np.isnan(average_precision(scores, np.zeros(4, bool)))


def test_tight_crops_touch_their_object_on_all_four_sides() -> None:
    for scene in draw_scenes(4, seed=1, single=False):
        crops = tight_crops(scene)
        assert len(crops) == len(scene.objects) >= 2
        for number, crop in enumerate(crops, start=1):
            rows, cols = np.nonzero(scene.instances == number)
            assert crop.shape == (np.ptp(rows) + 1, np.ptp(cols) + 1, 3)
        assert set(scene.things) <= set(THINGS)
