"""Averages of weights (``EMAHook``) and text embeddings, which are no weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.model import BaseModule, ExponentialMovingAverage
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.models.class_text import ClassText
from mmclipdis.models.segmentation.cosine_head import CosineSegHead


@MODELS.register_module()
class LengthText(BaseModule):
    """A name's embedding is its length."""

    embed_dim = 2

    def embed(self, vocabulary: Vocabulary) -> Tensor:
        return torch.tensor([[float(len(name)), 1.0] for name in vocabulary.queries])


def class_text() -> ClassText:
    return ClassText(dict(type="LengthText"))


def cosine_head() -> CosineSegHead:
    return CosineSegHead(text_encoder=dict(type="LengthText"))


class Model(nn.Module):
    """Text before a norm, whose buffers come after the text's."""

    def __init__(self, text: Any) -> None:
        super().__init__()
        self.text = text
        self.norm = nn.BatchNorm1d(2)


@pytest.mark.parametrize("buffers", [True, False])
@pytest.mark.parametrize("make", [class_text, cosine_head])
def test_an_average_does_not_mind_the_names_of_the_model(make: Any, buffers: bool) -> None:
    """The copy is made before a data set has named its classes, and again for other ones."""
    model = Model(make())
    hook = EMAHook(momentum=0.5, update_buffers=buffers)
    hook.src_model = model
    hook.ema_model = ExponentialMovingAverage(model, momentum=0.5, update_buffers=buffers)
    for names in (["cat", "kitten"], ["a", "bb", "ccc"]):
        model.text.set_vocabulary(names)
        expected = model.text.embeddings().clone()
        model.norm.running_mean += 1
        hook.ema_model.update_parameters(model)
        hook._swap_ema_parameters()
        assert torch.equal(model.text.embeddings(), expected)
        hook._swap_ema_parameters()
    assert model.norm.running_mean.tolist() == [2, 2]
    mean = hook.ema_model.module.norm.running_mean
    assert mean.tolist() == ([1.5, 1.5] if buffers else [2, 2])


@pytest.mark.parametrize("make", [class_text, cosine_head])
def test_embeddings_move_with_the_model(make: Any) -> None:
    model = Model(make())
    model.text.set_vocabulary(["cat", "kitten"])
    assert model.text.embeddings().dtype == torch.float32
    model.double()
    assert model.text.embeddings().dtype == torch.float64
    model.to("meta")
    assert model.text.embeddings().is_meta
    assert not any("embeddings" in name for name in model.state_dict())


@MODELS.register_module()
class ScaledText(LengthText):
    """As ``LengthText``, times a weight that is loaded when the runner has made its copies."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(1), requires_grad=False)

    def embed(self, vocabulary: Vocabulary) -> Tensor:
        return super().embed(vocabulary) * self.scale


@pytest.mark.parametrize("buffers", [True, False])
def test_other_names_in_an_evaluation_are_read_with_the_weights_that_were_loaded(
    buffers: bool,
) -> None:
    """Checkpoints and averages leave that text encoder out; the copy is made before they load."""
    model = Model(ClassText(dict(type="ScaledText"), saved=False))
    hook = EMAHook(momentum=0.5, update_buffers=buffers)
    hook.src_model = model
    hook.ema_model = ExponentialMovingAverage(model, momentum=0.5, update_buffers=buffers)
    model.text.encoder.scale.data.fill_(7)
    hook.ema_model.update_parameters(model)
    model.text.set_vocabulary(["cat"])
    hook._swap_ema_parameters()
    model.text.set_vocabulary(["cat", "kitten"])
    assert model.text.embeddings()[:, 0].tolist() == [21, 42]
    hook._swap_ema_parameters()
    assert model.text.encoder.scale.item() == 7


@pytest.mark.parametrize("saved", [True, False])
def test_a_copy_has_names_of_its_own(saved: bool) -> None:
    text = ClassText(dict(type="ScaledText"), saved=saved)
    text.set_vocabulary(["cat"])
    other = copy.deepcopy(text)
    other.set_vocabulary(["a", "bb"])
    assert text.vocabulary is not None and text.vocabulary.num_classes == 1
    assert (other.encoder.scale is text.encoder.scale) == (not saved)
    assert other.encoder is not text.encoder
