"""InfoCLIP's ablations as words of ``--cfg-options``: each reaches the model, and trains (10 s)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmseg.registry import MODELS

from mmclipdis.engine.random_weights import take_as_meant
from mmclipdis.losses.content import content_loss
from mmclipdis.losses.renyi import (
    joint_entropy,
    linear_gram,
    mutual_information,
    normalize_gram,
    renyi_entropy,
)
from mmclipdis.models.segmentation.prediction import resize
from tests.models.segmentation.catseg.test_segmentor import sample
from tests.models.segmentation.catseg.tiny import shrink_model
from tests.models.segmentation.infoclip.tiny import ENCODER_PARTS, drift, reached
from tests.words import config_of

CONFIGS = {"infoclip/infoclip_vitb16_coco-stuff": 16, "shapes/infoclip": 8}
FIXED = "model.compression=None model.lpam.relation=cosine"
KL = "model.distillation.kind=kl model.distillation.temperature=0.01"
#: Words -> what the distillation is like, and the parts that learn from it.
ROWS: dict[str, tuple[str, set[str]]] = {
    "": ("mi 2.0", {"lpam", *ENCODER_PARTS}),
    FIXED: ("mi 2.0", set(ENCODER_PARTS)),
    "model.distillation.kind=mse": ("mse", {"lpam", *ENCODER_PARTS}),
    f"{FIXED} {KL} model.distillation.weight=10000.": ("kl", set(ENCODER_PARTS)),
    f"{FIXED} model.distillation.kind=image": ("image", {"segmentor.image_encoder"}),
    "model.alpha=0.5": ("mi 0.5", {"lpam", *ENCODER_PARTS}),
    "model.alpha=1.01": ("mi 1.01", {"lpam", *ENCODER_PARTS}),
    "model.alpha=3.": ("mi 3.0", {"lpam", *ENCODER_PARTS}),
    "model.compression.weight=0.1 model.distillation.weight=0.1": (
        "mi 2.0",
        {"lpam", *ENCODER_PARTS},
    ),
}


def build(config: str, words: str) -> Any:
    found = config_of(config, words)
    shrink_model(found.model.segmentor, CONFIGS[config])
    found.model.segmentor.vocabulary = ["sky", "sea", "boat", "sand", "rock"]
    found.model.grad_norm_interval = 0
    torch.manual_seed(0)
    model = MODELS.build(found.model)
    take_as_meant(model)
    model.init_weights()
    return drift(model).train()


def batch(model: Any) -> tuple[torch.Tensor, list[Any]]:
    side = model.segmentor.clip_size[0]
    torch.manual_seed(1)
    return torch.randn(3, 3, side, side), [sample(side, side) for _ in range(3)]


def gram(maps: torch.Tensor) -> torch.Tensor:
    return normalize_gram(linear_gram(maps.flatten(1)))


def naive(model: Any, inputs: torch.Tensor, like: str) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Compression (None without) and distillation, unweighted, from the matrices themselves."""
    student = model.segmentor.image_encoder
    if like == "image":
        side = resize(inputs, model.segmentor.clip_size)
        return None, content_loss(student.tower.encode_image(side), model.teach_images(inputs))
    images, text = model.teach(inputs)
    taught = model.lpam(images, text)
    own = model.segmentor.extract_feat(inputs).map.flatten(2).mT
    learned = model.lpam(own, model.class_embeddings())
    kind, *order = like.split()
    alpha = float(order[0]) if order else 2.0
    shared = renyi_entropy(gram(taught), alpha) - joint_entropy(
        gram(images), gram(taught), alpha=alpha
    )
    kept = None if model.compression is None else shared
    if kind == "mse":
        return kept, (taught - learned).square().mean()
    if kind == "kl":
        t, s = ((x / 0.01).log_softmax(2) for x in (taught, learned))
        return kept, 1e-4 * (t.exp() * (t - s)).sum(2).mean()
    return kept, -mutual_information(gram(taught), gram(learned), alpha)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("words", ROWS, ids=lambda words: words or "as published")
def test_the_words_reach_the_losses_and_a_step_trains(config: str, words: str) -> None:
    like, parts = ROWS[words]
    model = build(config, words)
    inputs, samples = batch(model)
    losses = model.loss(inputs, samples)
    kept, transferred = naive(model, inputs, like)
    weight = model.distillation["weight"]
    torch.testing.assert_close(
        losses["loss_distillation"], weight * transferred, rtol=1e-3, atol=1e-5
    )
    assert ("loss_compression" in losses) == (kept is not None)
    if kept is not None:
        share = model.compression["weight"]
        torch.testing.assert_close(losses["loss_compression"], share * kept, rtol=1e-3, atol=1e-5)
    assert reached(model, losses["loss_distillation"]) == parts
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    sum(value for name, value in losses.items() if "loss" in name).backward()
    # DDP waits for a gradient of each
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in trained)
    torch.optim.AdamW(trained, lr=1e-3).step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n, p in model.named_parameters() if p.requires_grad}
