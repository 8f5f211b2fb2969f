"""The tiny VFM: its loss, its views, an exact resume, the shipped file, and what it can do."""

from __future__ import annotations

import ast
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from torch.nn import functional as F

from mmclipdis.clip.weights.files import read_file
from mmclipdis.shapes import pairs, zero_shot
from mmclipdis.shapes import vfm_pretrain as module
from mmclipdis.shapes.scene import Scene, draw_scene, random_size
from mmclipdis.shapes.vfm import (
    MODEL_KWARGS,
    WEIGHTS_PATH,
    build_vfm,
    export_vfm,
    load_vfm,
    patch_features,
)
from mmclipdis.shapes.vfm_eval import (
    area_under_curve,
    feature_makers,
    on_grid,
    patch_separation,
    separation,
)
from mmclipdis.shapes.vfm_pretrain import (
    SIDE,
    VFMRecipe,
    draw_picture,
    local_colours,
    make_pictures,
    neighbour_loss,
    pretrain_vfm,
    random_view,
)
from mmclipdis.utils.letterbox import letterbox

RECIPE = VFMRecipe(pictures=6, steps=4, batch=3, side=32, keys=9, warmup=2)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.stack([draw_picture(index, 0) for index in range(6)])


def _looped_loss(first, second, distance, alike, recipe: VFMRecipe) -> float:
    count, patches, _ = first.shape
    losses = []
    for i in range(count):
        for a in range(patches):
            weighted, total, reach = {}, 0.0, []
            for j in range(count):
                for b in range(patches):
                    near = i == j and float(distance[i, a, b]) <= 2 * recipe.radius
                    if i == j and alike[i, a, b] and not near:
                        continue
                    cosine = float(F.cosine_similarity(first[i, a], second[j, b], dim=0))
                    weight = 1.0 if i == j else recipe.others / (count - 1)
                    total += weight * math.exp(cosine / recipe.temperature)
                    if near:
                        share = math.exp(-(float(distance[i, a, b]) ** 2) / 2 / recipe.radius**2)
                        reach.append((share, cosine / recipe.temperature))
            if reach:
                weighted = sum(s * (math.log(total) - c) for s, c in reach)
                losses.append(weighted / sum(s for s, _ in reach))
    return sum(losses) / len(losses)


def test_loss_equals_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(3, 5, 4, generator=generator) for _ in range(2))
    distance = 60 * torch.rand(3, 5, 5, generator=generator)
    distance[1, 2] = 50.0  # nothing in reach of this patch
    alike = torch.rand(3, 5, 5, generator=generator) < 0.4
    loss = neighbour_loss(first, second, distance, alike, RECIPE)
    expected = _looped_loss(first, second, distance, alike, RECIPE)
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_patches_that_look_alike_are_not_pushed_apart() -> None:
    first = torch.eye(2, 3)[None].repeat(2, 1, 1).requires_grad_()
    second = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    distance = torch.tensor([[0.0, 90.0], [90.0, 0.0]]).repeat(2, 1, 1)
    small = replace(RECIPE, others=1e-9)
    both = torch.ones(2, 2, 2, dtype=torch.bool)
    neighbour_loss(first, second, distance, both, small).backward()
    assert first.grad.abs().max() < 1e-6  # no negatives are left
    neighbour_loss(first, second, distance, ~both, small).backward()
    assert first.grad.abs().max() > 1e-2
    assert torch.isfinite(second.grad).all()


def test_views_show_what_lies_at_their_places() -> None:
    # a picture whose red and green tell x and y
    ramp = (torch.arange(SIDE) + 0.5) / SIDE
    picture = torch.stack([ramp.expand(SIDE, SIDE), ramp[:, None].expand(SIDE, SIDE)])
    picture = torch.cat([picture, torch.zeros(1, SIDE, SIDE)])[None].repeat(8, 1, 1, 1)
    views, places = random_view(picture, 96, torch.Generator().manual_seed(0))
    assert views.shape == (8, 3, 96, 96) and places.shape == (8, 144, 2)
    assert places.min() > 0 and places.max() < SIDE
    colours = F.avg_pool2d(views, 8).flatten(2)
    for image in range(8):
        for axis in range(2):  # jitter of light and colour keeps the order along each axis
            seen = torch.corrcoef(torch.stack([colours[image, axis], places[image, :, axis]]))
            assert seen[0, 1] > 0.9
    read = local_colours(picture, places)
    inner = ((places > 8) & (places < SIDE - 8)).all(-1)
    torch.testing.assert_close(read[..., :2][inner], places[inner] / SIDE, atol=1e-4, rtol=0)
    mirrored = places[:, 0, 0] > places[:, 11, 0]
    assert 0 < mirrored.sum() < 8


def test_a_step_depends_on_seed_and_number_alone(pictures: np.ndarray) -> None:
    model = build_vfm()
    losses = [module.step_loss(model, pictures, RECIPE, step).item() for step in (0, 1, 0)]
    assert losses[0] == losses[2] != losses[1]


def test_an_interrupted_run_resumes_to_the_same_weights(
    pictures: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain_vfm(pictures, RECIPE, tmp_path / "whole", save_every=2)
    original = module.step_loss

    def interrupted(*args: object) -> object:
        if args[3] == 3:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(module, "step_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain_vfm(pictures, RECIPE, tmp_path / "parts", save_every=2)
    monkeypatch.setattr(module, "step_loss", original)
    pretrain_vfm(pictures, RECIPE, tmp_path / "parts", save_every=2)
    whole, parts = (torch.load(tmp_path / n / "last.pt")["model"] for n in ("whole", "parts"))
    untrained = build_vfm().state_dict()
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name
        assert value.ndim < 2 or not torch.equal(value, untrained[name]), name
    with pytest.raises(ValueError, match="made by another recipe"):
        pretrain_vfm(pictures, replace(RECIPE, lr=1e-4), tmp_path / "parts")
    export_vfm(tmp_path / "whole" / "last.pt", tmp_path / "out.safetensors")
    image = torch.randn(1, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    model = build_vfm().eval()
    model.load_state_dict(whole)
    with torch.no_grad():
        expected = patch_features(model, image)
        found = patch_features(load_vfm(tmp_path / "out.safetensors"), image)
    assert found.shape == (1, MODEL_KWARGS["embed_dim"], 3, 5)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_a_loss_that_is_not_finite_ends_the_run(
    pictures: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = torch.tensor(float("nan"), requires_grad=True)
    monkeypatch.setattr(module, "step_loss", lambda *_: nan)
    with pytest.raises(ValueError, match="the loss is nan at step 0; the checkpoint before is"):
        pretrain_vfm(pictures, RECIPE, tmp_path)
    assert not (tmp_path / "last.pt").exists()


def test_pictures_on_disk_are_those_drawn_and_other_settings_are_refused(
    pictures: np.ndarray, tmp_path: Path
) -> None:
    made = make_pictures(tmp_path, 3, seed=0)
    again = make_pictures(tmp_path, 3, seed=0)
    assert np.array_equal(made, pictures[:3]) and np.array_equal(again, pictures[:3])
    with pytest.raises(ValueError, match="holds pictures of other settings"):
        make_pictures(tmp_path, 4, seed=0)


def test_training_sees_pictures_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(rng: np.random.Generator, size: tuple[int, int], kind: str) -> Scene:
        return Scene(rng.integers(256, size=(*size, 3), dtype=np.uint8), None, None, None)

    monkeypatch.setattr(module, "draw_scene", blind)
    assert draw_picture(0, 0).shape == (SIDE, SIDE, 3)  # labels are not even looked at
    tree = ast.parse(Path(module.__file__).read_text())
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not names & {"labels", "instances", "objects", "things", "grounds", "captions"}


def test_pictures_come_from_a_stream_of_their_own() -> None:
    rng = np.random.default_rng([module._STREAM, 0, 5])
    scene = draw_scene(rng, random_size(rng), "scene")
    assert np.array_equal(draw_picture(5, 0), letterbox(Image.fromarray(scene.image), SIDE))
    # seeds of the data sets and the tiny CLIP's pictures start with a split or another number
    assert module._STREAM not in {0, 1, pairs._STREAM, zero_shot._STREAM}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 1}, "batch must be at least 2"),
        ({"pictures": 3}, "pictures at least batch"),
        ({"side": 50}, r"side \(50\) must be a multiple of the patch, 8 px"),
    ],
)
def test_impossible_recipes_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VFMRecipe(**settings)


def test_the_file_is_small_and_holds_a_timm_model() -> None:
    assert WEIGHTS_PATH.stat().st_size <= 4_000_000
    with safe_open(WEIGHTS_PATH, "pt") as file:
        about = file.metadata()
    state, _ = read_file(WEIGHTS_PATH)
    assert {value.dtype for value in state.values()} == {torch.float16}
    model = timm.create_model(about["model_name"], **json.loads(about["model_kwargs"]))
    model.load_state_dict({name: value.float() for name, value in state.items()}, strict=True)
    assert sum(p.numel() for p in model.parameters()) <= 2_000_000
    recipe = VFMRecipe(**json.loads(about["recipe"]))
    assert recipe == VFMRecipe() and int(about["steps"]) == recipe.steps


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no weights at .*pretrain_shapes_vfm.py makes"):
        load_vfm(tmp_path / "none.safetensors")


def test_it_separates_segments_better_than_clip() -> None:
    scenes = zero_shot.draw_scenes(24, seed=5, single=False)
    makers = feature_makers(load_vfm())
    found = {
        name: patch_separation(makers[name], scenes) for name in ("shapes-vfm", "CLIP q", "CLIP k")
    }
    ours = found.pop("shapes-vfm")
    assert ours["auc"] >= 98 and ours["auc_things"] >= 95
    assert ours["same"] - ours["different"] >= 80
    for clip in found.values():
        assert ours["auc"] >= clip["auc"] + 0.5 and ours["auc_things"] >= clip["auc_things"] + 4


def test_truth_of_patches_is_that_of_their_pixels() -> None:
    labels = np.full((16, 24), 12, np.uint8)
    instances = np.zeros((16, 24), np.uint8)
    labels[:, 8:16], instances[:8, 8:16], instances[8:, 8:16] = 3, 1, 2
    labels[8:, 20:] = 13
    scene = Scene(np.zeros((16, 24, 3), np.uint8), labels, instances, (3, 3))
    image, truth = on_grid(scene, 24)
    assert image.shape == (16, 24, 3)
    assert truth.classes.tolist()[:5] == [12, 3, 12, 12, 3]
    assert truth.pure.tolist() == [True] * 5 + [False]
    a, b, c, d, e = truth.segments[:5].tolist()
    assert a == c == d and len({a, b, e}) == 3


def test_separation_equals_a_loop() -> None:
    scene = zero_shot.draw_scenes(1, seed=2, single=False)[0]
    _, truth = on_grid(scene, 64)
    grid = (8, len(truth.pure) // 8)
    features = torch.randn(5, *grid, generator=torch.Generator().manual_seed(0))
    flat = features.flatten(1).T
    same, different = [], []
    for i in np.flatnonzero(truth.pure):
        for j in np.flatnonzero(truth.pure)[np.flatnonzero(truth.pure) > i]:
            cosine = float(F.cosine_similarity(flat[i], flat[j], dim=0))
            if truth.segments[i] == truth.segments[j]:
                same.append(cosine)
            elif truth.classes[i] != truth.classes[j]:
                different.append(cosine)
    wins = np.mean([(s > np.asarray(different)).mean() for s in same])
    found = separation(features, truth)
    assert found["auc"] == pytest.approx(wins, abs=1e-6)
    assert found["same"] == pytest.approx(np.mean(same), abs=1e-6)
    assert found["different"] == pytest.approx(np.mean(different), abs=1e-6)


def test_area_under_curve_counts_ties_half() -> None:
    assert area_under_curve(np.asarray([1.0, 2.0]), np.asarray([1.0, 0.0])) == 0.875
