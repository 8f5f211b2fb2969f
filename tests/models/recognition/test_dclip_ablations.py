"""DCLIP's ablations as words of ``--cfg-options``: each reaches the model, and trains (5 s)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement
from torch import nn

from mmclipdis.engine.random_weights import take_as_meant
from mmclipdis.losses.mfi import mfi_loss
from tests.models.recognition import dclip_files as files
from tests.words import config_of

LABELS = torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 1.0]])
CONFIGS = ("dclip/dclip_rn101_coco14", "dclip/dclip_vitb16_voc2007", "shapes/dclip")


def build(config: str, words: str) -> Any:
    """The model of a config with the words that a user would type, on a small tower."""
    found = config_of(config, words)
    files.shrink_encoders(found.model.encoder, found.model.text_encoder)
    found.model.vocabulary = ["dining table", "dog", "cat"]
    torch.manual_seed(0)
    model = MODELS.build(found.model).train()
    take_as_meant(model)
    return model


def losses(model: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    samples = [BaseDataElement(gt_score=row) for row in LABELS]
    return model(torch.randn(2, 3, 64, 64), samples, mode="loss")


def bce(z: torch.Tensor) -> torch.Tensor:
    known = LABELS >= 0
    found = F.binary_cross_entropy_with_logits(z, LABELS.clamp(min=0), reduction="none")
    return found[known].sum()


def focal(z: torch.Tensor) -> torch.Tensor:
    """Lin et al. (2017), gamma 2, no alpha."""
    total = torch.zeros(())
    for value, label in zip(z.flatten().sigmoid(), LABELS.flatten()):
        if label >= 0:
            right = value if label == 1 else 1 - value
            total = total - (1 - right) ** 2 * right.log()
    return total


def z_of(model: Any) -> torch.Tensor:
    torch.manual_seed(1)
    negative, positive = model(torch.randn(2, 3, 64, 64)).unbind(1)
    return positive - negative


def label_loss(formula: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any], bool]:
    return lambda model: torch.allclose(losses(model)["loss_asl"], 0.05 * formula(z_of(model)))


def mfi_of(lam: float = 0.2, weight: float | None = None) -> Callable[[Any], bool]:
    def same(model: Any) -> bool:
        factor = model.mfi.loss_weight if weight is None else weight
        expected = factor * mfi_loss(model.class_features(), lam=lam)
        return torch.allclose(losses(model)["loss_mfi"], expected)

    return same


def linear_layers(side: nn.Module) -> list[tuple[int, int]]:
    found = [m for m in side.modules() if isinstance(m, nn.Linear)]
    return [(layer.in_features, layer.out_features) for layer in found]


def layers(text: list[Any], image: list[Any]) -> Callable[[Any], bool]:
    """Widths of the layers, ``None`` for D."""

    def same(model: Any) -> bool:
        width = model.projectors.in_dim
        wanted = [[(a or width, b or width) for a, b in pairwise(sizes)] for sizes in (text, image)]
        return [linear_layers(p) for p in (model.projectors.text, model.projectors.image)] == wanted

    return same


#: Words -> what the model must be like then.
ROWS: dict[str, Callable[[Any], bool]] = {
    "model.order=pool_project": lambda model: model.order == "pool_project",
    "model.asl.gamma_pos=0 model.asl.gamma_neg=0 model.asl.clip=0": label_loss(bce),
    "model.asl.gamma_pos=2 model.asl.gamma_neg=2 model.asl.clip=0 "
    "model.asl.detach_focusing=False": label_loss(focal),
    "model.mfi=None": lambda model: set(losses(model)) == {"loss_asl"},
    "model.mfi.lam=0.05": mfi_of(lam=0.05),
    "model.mfi.lam=1.": mfi_of(lam=1.0),
    "model.mfi.loss_weight=7e-4": mfi_of(weight=7e-4),
    "model.projectors.out_dim=64": layers([None, 24, 64], [None, 64]),
    "model.projectors.hidden_dim=40": layers([None, 40, 256], [None, 256]),
    "model.projectors.text_layers=1": layers([None, 256], [None, 256]),
    "model.projectors.text_layers=3": layers([None, 24, 24, 256], [None, 256]),
    "model.projectors.image_layers=2": layers([None, 24, 256], [None, 24, 256]),
    "model.pooling=positive": lambda model: model.pooling == "positive",
    "model.mfi.axis=class": lambda model: model.mfi.axis == "class",
}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("words", ROWS)
def test_the_words_reach_the_model_and_a_step_trains_all_it_has(config: str, words: str) -> None:
    usual, model = build(config, ""), build(config, words)
    assert not ROWS[words](usual) and ROWS[words](model)
    found = losses(model)
    assert {n: v.item() for n, v in found.items()} != {
        n: v.item() for n, v in losses(usual).items()
    }
    sum(found.values()).backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(name.startswith("projectors.") for name in trained)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-2).step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == trained
    assert all(bool(p.isfinite().all()) for p in model.parameters())
