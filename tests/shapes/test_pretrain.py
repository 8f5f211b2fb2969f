"""The pretraining recipe: its loss, its batches, its captions, and an exact resume."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from torch.nn import functional as F

from mmclipdis.shapes import pretrain as module
from mmclipdis.shapes.captions import names_in
from mmclipdis.shapes.pairs import (
    _SHARES,
    _STREAM,
    CAPTIONS_PER_IMAGE,
    Pairs,
    draw_view,
    make_pair,
    make_pairs,
)
from mmclipdis.shapes.pretrain import (
    Captions,
    Recipe,
    build_model,
    contrastive_loss,
    encode_text,
    pretrain,
)
from mmclipdis.shapes.training import adamw, learning_rate
from mmclipdis.shapes.world import CLASSES
from tests.ranks import run_ranks

TINY = {
    "embed_dim": 8,
    "quick_gelu": False,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
RECIPE = Recipe(pairs=12, steps=4, batch=6, processes=1, warmup=2, settle=0.25)


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    drawn = [make_pair(index, 0, 16) for index in range(12)]
    return Pairs(np.stack([image for image, _ in drawn]), [text for _, text in drawn])


def _unit(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(shape, generator=generator, dtype=torch.float64), dim=-1)


def test_loss_with_one_positive_each_equals_the_clip_loss() -> None:
    image, text = _unit(5, 7, seed=0), _unit(5, 7, seed=1)
    scale = torch.tensor(9.0, dtype=torch.float64)
    loss = contrastive_loss(image, text, scale, torch.eye(5, dtype=torch.bool))
    torch.testing.assert_close(loss.item(), open_clip.ClipLoss()(image, text, scale).item())


def test_loss_with_several_positives_equals_a_loop() -> None:
    image, text = _unit(4, 6, seed=2), _unit(4, 6, seed=3)
    positive = torch.eye(4, dtype=torch.bool)
    positive[0, 2] = positive[3, 0] = positive[3, 1] = True
    logits = 5.0 * image @ text.T
    total = 0.0
    for matrix, truth in ((logits, positive), (logits.T, positive.T)):
        for row, right in zip(matrix, truth, strict=True):
            log_sum = math.log(sum(math.exp(v) for v in row.tolist()))
            chosen = [v - log_sum for v, r in zip(row.tolist(), right.tolist(), strict=True) if r]
            total -= sum(chosen) / len(chosen) / 8
    loss = contrastive_loss(image, text, torch.tensor(5.0, dtype=torch.float64), positive)
    assert loss.item() == pytest.approx(total, abs=1e-12)


def test_a_true_sentence_about_another_picture_is_not_pushed_away() -> None:
    image, text = _unit(2, 6, seed=4), _unit(1, 6, seed=5).expand(2, 6)
    text = text.clone().requires_grad_()
    scale = torch.tensor(10.0, dtype=torch.float64)
    contrastive_loss(image, text, scale, torch.ones(2, 2, dtype=torch.bool)).backward()
    torch.testing.assert_close(text.grad[0], text.grad[1])


def test_positives_are_the_sentences_that_hold(pairs: Pairs) -> None:
    captions = Captions(pairs.captions)
    for step in range(3):
        images, tokens, positive = module._batch(pairs, captions, RECIPE, step, 0)
        assert images.shape == (6, 3, 16, 16) and positive.diagonal().all()
        rng = np.random.default_rng([RECIPE.seed, step, 0])
        chosen = np.sort(rng.choice(12, 6, replace=False))
        known = [{n for t in pairs.captions[i] for n in names_in(t)} for i in chosen]
        texts = [_decode(captions, row) for row in tokens]
        for i in range(6):
            for j in range(6):
                assert positive[i, j] == (set(names_in(texts[j])) <= known[i])


def _decode(captions: Captions, row: torch.Tensor) -> str:
    ids = captions.ids[row[: int(row.argmax())].numpy()][1:]
    return open_clip.decode(torch.from_numpy(ids))


def test_compact_tokens_stand_for_the_standard_ones(pairs: Pairs) -> None:
    captions = Captions(pairs.captions)
    assert captions.tokens.shape[:2] == (12, CAPTIONS_PER_IMAGE)
    assert captions.mentions.shape == (12, CAPTIONS_PER_IMAGE, len(CLASSES))
    for number, texts in enumerate(pairs.captions):
        standard = open_clip.tokenize(list(texts)).numpy()
        compact = captions.ids[captions.tokens[number].numpy()]
        np.testing.assert_array_equal(compact, standard[:, : compact.shape[1]])
        assert (captions.tokens[number].argmax(1).numpy() == standard.argmax(1)).all()


def test_cut_sentences_have_the_embeddings_of_full_ones() -> None:
    torch.manual_seed(0)
    model = build_model(TINY, 49408).eval()
    tokens = open_clip.tokenize(["a photo of a fish.", "an apple and a plum on water and sand."])
    with torch.no_grad():
        expected = model.encode_text(tokens)
        torch.testing.assert_close(encode_text(model, tokens), expected, atol=1e-6, rtol=1e-5)


def test_learning_rate_warms_up_and_ends_at_zero() -> None:
    recipe = Recipe(steps=100, warmup=10, lr=1.0)
    rates = [learning_rate(step, recipe) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[10] == 1.0 and rates[100] == pytest.approx(0)
    assert rates[55] == pytest.approx(0.5)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_an_interrupted_run_resumes_to_the_same_weights(
    pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain(pairs, TINY, RECIPE, tmp_path / "whole", save_every=2)
    original = module._batch

    def interrupted(*args: object) -> object:
        if args[3] == 3:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(module, "_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain(pairs, TINY, RECIPE, tmp_path / "parts", save_every=2)
    monkeypatch.setattr(module, "_batch", original)
    pretrain(pairs, TINY, RECIPE, tmp_path / "parts", save_every=2)
    whole, parts = (torch.load(tmp_path / n / "last.pt")["model"] for n in ("whole", "parts"))
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name
    with pytest.raises(ValueError, match="made by another recipe"):
        pretrain(pairs, TINY, Recipe(**{**vars(RECIPE), "lr": 1e-4}), tmp_path / "parts")


def test_pairs_on_disk_are_those_drawn_and_other_settings_are_refused(tmp_path: Path) -> None:
    made = make_pairs(tmp_path / "pairs", 3, seed=0, side=16)
    again = make_pairs(tmp_path / "pairs", 3, seed=0, side=16)
    for index in range(3):
        image, captions = make_pair(index, 0, 16)
        np.testing.assert_array_equal(again.images[index], image)
        assert made.captions[index] == again.captions[index] == captions
    with pytest.raises(ValueError, match="holds pairs of other settings"):
        make_pairs(tmp_path / "pairs", 4, seed=0, side=16)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 5, "processes": 2}, r"batch \(5\) must be a multiple of processes \(2\)"),
        ({"patch_dropout": 1.0}, "patch_dropout must lie in"),
        ({"pairs": 10}, "pairs must be at least batch"),
    ],
)
def test_impossible_recipes_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**settings)


def _average(rank: int) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(4))]
    for number, parameter in enumerate(parameters):
        parameter.grad = torch.full_like(parameter, 10.0 * number + rank)
    module._average_gradients(parameters, processes=2)
    for number, parameter in enumerate(parameters):
        torch.testing.assert_close(parameter.grad, torch.full_like(parameter, 10 * number + 0.5))


def test_two_processes_average_their_gradients() -> None:
    run_ranks(_average, 2)


def test_only_matrices_decay() -> None:
    model = build_model(TINY, 20)
    groups = adamw(model, RECIPE).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(p) for p in model.parameters() if p.ndim >= 2}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert {group["weight_decay"] for group in groups} == {0.0, RECIPE.weight_decay}


def test_captions_of_the_largest_name_it_alone_and_the_pictures_stay() -> None:
    rng = [np.random.default_rng([_STREAM, 0, index]) for index in range(24)]
    for index in range(24):
        image, captions = make_pair(index, 0, 16, "largest")
        assert np.array_equal(image, make_pair(index, 0, 16)[0])
        manner = str(rng[index].choice(list(_SHARES), p=list(_SHARES.values())))
        view = draw_view(rng[index], manner)
        named = {name for caption in captions for name in names_in(caption)}
        if view.things:
            area = {name: view.shares[CLASSES.index(name)] for name in view.things}
            assert named == {max(area, key=lambda name: area[name])}
        else:
            assert named <= set(view.grounds)


def test_another_way_of_naming_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="named must be one of all, largest, got 'most'"):
        make_pairs(tmp_path, 1, seed=0, side=16, named="most")  # type: ignore[arg-type]
    make_pairs(tmp_path, 2, seed=0, side=16, named="largest")
    with pytest.raises(ValueError, match="count seed side named: 2 0 16 largest"):
        make_pairs(tmp_path, 2, seed=0, side=16)
