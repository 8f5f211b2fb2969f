"""A threshold falls back to a class that is the background, and to none where there is none."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.evaluation import IoUMetric
from mmseg.models import EncoderDecoder

from mmclipdis.evaluation import OpenVocabIoUMetric
from mmclipdis.models import CosineSegHead, OpenVocabTTAModel
from mmclipdis.utils.labels import no_class
from tests.models.segmentation.fakes import head_cfg, make_segmentor

WORDS = ["red", "green", "blue", "ground"]
AXES = dict(zip(WORDS, torch.eye(4), strict=True))


def image() -> torch.Tensor:
    torch.manual_seed(0)
    return 4 * torch.randn(1, 3, 16, 24, dtype=torch.float64)


def words_found(names: list[str], threshold: float = 0.55, **options: Any) -> list[list[str]]:
    """The word of every pixel, whatever the order of ``names``; "none" without one."""
    head = {
        "vocabulary": names,
        "embeddings": torch.stack([AXES[options.get("called", {}).get(n, n)] for n in names]),
        "prob_thd": threshold,
        **{key: value for key, value in options.items() if key not in ("called", "test_cfg")},
    }
    model = make_segmentor(head, mode="whole", **options.get("test_cfg", {}))
    (labels,) = model.predict(image())[0].pred_sem_seg.data
    none = no_class(len(names))
    return [["none" if v == none else names[v] for v in row] for row in labels.tolist()]


@pytest.mark.filterwarnings("ignore:prob_thd")
@pytest.mark.parametrize("probabilities", [False, True])
def test_labels_do_not_depend_on_the_order_of_the_names(probabilities: bool) -> None:
    options: dict[str, Any] = {"test_cfg": {"return_probs": probabilities}}
    first = words_found(WORDS, **options)
    assert {word for row in first for word in row} >= {"none", "red", "green"}
    for order in itertools.permutations(WORDS):
        assert words_found(list(order), **options) == first


def test_a_class_named_background_takes_the_doubtful_pixels_in_every_order() -> None:
    called = {"background": "ground"}
    names = ["red", "green", "blue", "background"]
    first = words_found(names, called=called)
    words = {word for row in first for word in row}
    assert "background" in words and "none" not in words
    for order in itertools.permutations(names):
        assert words_found(list(order), called=called) == first


@pytest.mark.filterwarnings("ignore:prob_thd")
def test_the_area_rule_of_another_vocabulary_drops_none_of_the_words() -> None:
    assert words_found(WORDS, area_thd=0.9) == words_found(WORDS)


def test_it_is_said_that_nothing_is_the_background() -> None:
    with pytest.warns(
        UserWarning, match=r"prob_thd=0\.55, and none of the class names is the back"
    ):
        words_found(WORDS)


def head_of(vocabulary: Any, **options: Any) -> CosineSegHead:
    count = len(vocabulary["names"] if isinstance(vocabulary, dict) else vocabulary)
    settings = {"prob_thd": 0.5, "embeddings": torch.eye(4)[:count], **options}
    return CosineSegHead(vocabulary=vocabulary, **settings)


def test_the_background_of_a_config_is_a_name_and_not_a_place() -> None:
    head = head_of(["ground", "cat", "dog"], background_index=0)
    assert head.background_class == 0
    head.set_vocabulary(["cat", "dog"], torch.eye(4)[:2])
    assert head.background_class is None
    head.set_vocabulary(["cat", "dog", "ground"], torch.eye(4)[:3])
    assert head.background_class == 2
    head.set_vocabulary({"names": ["cat", "dog"], "background_index": 1}, torch.eye(4)[:2])
    assert head.background_class == 1


def test_words_without_the_background_are_all_asked_for() -> None:
    head = head_of(
        ["background", "cat", "dog"], background="threshold", embeddings=torch.eye(4)[:2]
    )
    assert head.query_to_class.tolist() == [1, 2]
    head.set_vocabulary(["cat", "dog"], torch.eye(4)[:2])
    assert head.query_to_class.tolist() == [0, 1]
    assert head.background_class is None


@pytest.mark.filterwarnings("ignore:prob_thd")
def test_more_classes_than_8_bits_call_none_65535() -> None:
    names = [f"class {i}" for i in range(300)]
    head = CosineSegHead(vocabulary=names, embeddings=torch.eye(300), prob_thd=0.5)
    assert head.rule().doubtful == no_class(300) == 65535
    assert no_class(255) == 255 and no_class(256) == 65535


def test_a_stock_segmentor_asks_for_a_background() -> None:
    model = EncoderDecoder(
        backbone={"type": "PatchMeanBackbone"},
        decode_head=head_cfg(num_classes=4, prob_thd=0.5),
        test_cfg=ConfigDict(mode="whole"),
    ).double()
    with pytest.raises(ValueError, match=r"prob_thd=0\.5 needs a background .*stock segmentor"):
        model.eval().predict(image())


@pytest.mark.filterwarnings("ignore:prob_thd")
def test_augmented_views_agree() -> None:
    model = make_segmentor({"prob_thd": 0.55}, mode="whole")
    (plain,) = model.predict(image())
    data = {"inputs": [[image()[0]]], "data_samples": [[plain.new()]]}
    (merged,) = OpenVocabTTAModel(model).test_step(data)
    assert torch.equal(merged.pred_sem_seg.data, plain.pred_sem_seg.data)


@pytest.mark.parametrize("metric", [IoUMetric, OpenVocabIoUMetric])
def test_no_class_is_a_miss_and_nobodys_false_alarm(metric: type) -> None:
    scorer = metric()
    scorer.dataset_meta = {"classes": ("a", "b")}
    data = {"pred_sem_seg": {"data": torch.tensor([[[0, 0, 255, 1]]])},
            "gt_sem_seg": {"data": torch.tensor([[[0, 0, 0, 1]]])}}  # fmt: skip
    scorer.process({}, [data])
    assert scorer.evaluate(1)["mIoU"] == pytest.approx(100 * (2 / 3 + 1) / 2, abs=0.01)
