"""Test-time augmentation averages probabilities and labels them by the rule of a single view."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample
from torch import Tensor

from mmclipdis.models import OpenVocabTTAModel
from mmclipdis.models.segmentation.prediction import full_size_scores
from tests.models.segmentation.catseg.test_segmentor import build as make_catseg
from tests.models.segmentation.fakes import head_cfg, make_segmentor

RULES: list[dict[str, Any]] = [
    {},
    {"prob_thd": 0.6},
    {"prob_thd": 0.4, "area_thd": 0.3, "background_index": 0},
    {"prob_thd": 0.6, "background_index": 0, "score": "sigmoid", "logit_bias": -5.5},
]


def photo(width: int = 29) -> Tensor:
    torch.manual_seed(0)
    return torch.rand(3, 10, width, dtype=torch.float64) * 2


def views(image: Tensor, flips: str = "no yes") -> dict[str, Any]:
    """What a data loader hands over for one image: for each view a batch of one."""
    pairs = [(image, False) if flip == "no" else (image.flip(-1), True) for flip in flips.split()]
    size = {"ori_shape": image.shape[1:], "img_shape": image.shape[1:]}
    metas = [{**size, "flip": flip, "flip_direction": "horizontal"} for _, flip in pairs]
    samples = [[SegDataSample(metainfo=meta)] for meta in metas]
    return {"inputs": [[view] for view, _ in pairs], "data_samples": samples}


def labels(model: Any, image: Tensor, flips: str = "no yes") -> Tensor:
    (result,) = OpenVocabTTAModel(model).test_step(views(image, flips))
    return result.pred_sem_seg.data


@pytest.mark.parametrize("rule", RULES)
def test_one_view_has_the_labels_of_plain_prediction(rule: dict[str, Any]) -> None:
    (plain,) = make_segmentor(rule, mode="whole").predict(photo()[None])
    once = labels(make_segmentor(rule, mode="whole"), photo(), "no")
    assert torch.equal(once, plain.pred_sem_seg.data)
    assert len(once.unique()) >= 2


@pytest.mark.parametrize("rule", RULES)
def test_the_mirror_image_gets_mirrored_labels(rule: dict[str, Any]) -> None:
    model = make_segmentor(rule, mode="slide", crop_size=(10, 12), stride=(10, 7))
    assert torch.equal(labels(model, photo()).flip(-1), labels(model, photo().flip(-1)))
    alone, mirrored = labels(model, photo(), "no"), labels(model, photo().flip(-1), "no")
    assert not torch.equal(alone.flip(-1), mirrored)  # patches lie differently


def test_equals_the_mean_of_the_probabilities() -> None:
    model = make_segmentor(
        {"prob_thd": 0.4, "background_index": 0}, mode="whole", return_probs=True
    )
    one = model.predict(photo()[None])[0].seg_logits.data
    two = model.predict(photo().flip(-1)[None])[0].seg_logits.data.flip(-1)
    best, expected = ((one + two) / 2).max(dim=0)
    expected[best < 0.4] = 0
    (result,) = OpenVocabTTAModel(model).test_step(views(photo()))
    assert torch.equal(result.pred_sem_seg.data[0], expected)
    torch.testing.assert_close(result.seg_logits.data, (one + two) / 2)


def test_sigmoids_are_averaged_and_not_their_logits() -> None:
    head = {"score": "sigmoid", "logit_bias": -5.5, "prob_thd": 0.6, "background_index": 0}
    model = make_segmentor(head, mode="whole")
    scores = model.window_scores([photo(), photo().flip(-1)])
    one, two = (1 / (1 + (5.5 - full_size_scores(own, (10, 29))).exp()) for own in scores)
    mean = (one + two.flip(-1)) / 2
    best, expected = mean.max(dim=0)
    expected[best < 0.6] = 0
    (result,) = OpenVocabTTAModel(model).test_step(views(photo()))
    torch.testing.assert_close(result.seg_logits.data, mean)
    assert torch.equal(result.pred_sem_seg.data[0], expected)
    assert 0 < (best < 0.6).sum() < best.numel()


def test_the_preprocessor_of_the_whole_config_does_not_replace_the_models() -> None:
    """mmseg's tools/test.py --tta hands it over, also where it is that of a base config."""
    inner = {"type": "mmseg.OpenVocabSegmentor", "backbone": {"type": "PatchMeanBackbone"}}
    inner["decode_head"] = head_cfg()
    of_all, own = (
        {"type": "mmseg.SegDataPreProcessor", "mean": [m], "std": [1.0]} for m in (1.0, 2.0)
    )
    given: list[tuple[dict[str, Any], float]] = [({}, 1.0), ({"data_preprocessor": own}, 2.0)]
    for options, mean in given:
        model = OpenVocabTTAModel({**inner, **options}, data_preprocessor=of_all)
        assert model.module.data_preprocessor.mean.item() == mean


def test_catseg_labels_the_best_mean_sigmoid() -> None:
    image = torch.randn(3, 40, 56)
    (plain,) = make_catseg().eval().predict([image])
    assert torch.equal(labels(make_catseg().eval(), image, "no"), plain.pred_sem_seg.data)
    model = make_catseg().eval()
    assert torch.equal(labels(model, image).flip(-1), labels(model, image.flip(-1)))


@pytest.mark.parametrize("prob_thd", [0.0, 0.6])
def test_our_head_in_a_stock_segmentor_is_not_softmaxed_again(prob_thd: float) -> None:
    model = EncoderDecoder(
        backbone={"type": "PatchMeanBackbone"},
        decode_head=head_cfg(num_classes=4, prob_thd=prob_thd, background_index=0),
        data_preprocessor={"type": "MixedSizeSegDataPreProcessor"},
        test_cfg=Config({"mode": "whole"}),
    ).eval()  # fmt: skip
    image = photo(28)[:, :8].float()
    size = {"ori_shape": (8, 28), "img_shape": (8, 28)}
    (plain,) = model.predict(image[None], [SegDataSample(metainfo=size)])
    (result,) = OpenVocabTTAModel(model).test_step(views(image, "no"))
    assert torch.equal(result.pred_sem_seg.data, plain.pred_sem_seg.data)
    torch.testing.assert_close(result.seg_logits.data, plain.seg_logits.data)
