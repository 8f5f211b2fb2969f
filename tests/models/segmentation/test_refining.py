"""Refiners run between the resize and the softmax, and behind the threshold, on every path."""

from __future__ import annotations

import contextlib
import copy
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmclipdis.apis.inferencers.segment_heat import segmentor_heat
from mmclipdis.clip.towers.regions import resize_nearest
from mmclipdis.models.segmentation import PAMR, MaskVote, OpenVocabTTAModel
from mmclipdis.models.segmentation.prediction import (
    class_probabilities,
    full_size_scores,
    labels_from_probabilities,
    resize,
)
from mmclipdis.models.segmentation.refining import build_refiners, refine_scores
from mmclipdis.models.segmentation.samples import predict_samples
from mmclipdis.models.segmentation.settings import OpenVocabTestSettings, TestSettings
from tests.models.segmentation.catseg.test_segmentor import build as make_catseg
from tests.models.segmentation.fakes import head_cfg, make_segmentor

SLIDE: dict[str, Any] = {"mode": "slide", "crop_size": (12, 12), "stride": (6, 6)}
PAMR_CFG: dict[str, Any] = {"type": "PAMR", "steps": 3, "dilations": (1, 3)}
SIZE = (40, 50)
RULES: list[dict[str, Any]] = [
    {},
    {"prob_thd": 0.4, "background_index": 0},
    {"prob_thd": 0.4, "area_thd": 0.25, "background_index": 0},
]


def photo(height: int = 25, width: int = 31) -> Tensor:
    torch.manual_seed(0)
    return 4 * torch.randn(3, height, width, dtype=torch.float64)


def sample(**meta: Any) -> SegDataSample:
    return SegDataSample(metainfo={"ori_shape": SIZE, **meta})


def refined(head: dict[str, Any] | None = None, refiners: Any = (PAMR_CFG,), **cfg: Any) -> Any:
    model = make_segmentor(head, **(cfg or SLIDE))
    model.refiners = list(refiners)
    return model


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("rule", RULES)
def test_pamr_stands_between_resize_and_softmax(rule: dict[str, Any], chunk: int) -> None:
    """In chunks, also where small classes are taken out, as with all classes at full size."""
    model, image = refined(rule, class_chunk=chunk, **SLIDE), photo()
    (scores,) = model.window_scores([image])
    mended = PAMR(3, (1, 3)).prepare(resize(image, SIZE))(full_size_scores(scores, SIZE))
    label_rule = model.label_rule()
    want = labels_from_probabilities(class_probabilities(mended, label_rule), label_rule)
    (found,) = model.predict(image[None], [sample()])
    assert torch.equal(found.pred_sem_seg.data[0], want)
    (full,) = refined(rule, return_probs=True, **SLIDE).predict(image[None], [sample()])
    assert torch.equal(full.pred_sem_seg.data[0], want)
    torch.testing.assert_close(full.seg_logits.data, class_probabilities(mended, label_rule))
    (plain,) = make_segmentor(rule, **SLIDE).predict(image[None], [sample()])
    assert (plain.pred_sem_seg.data[0] != want).float().mean() > 0.01


def test_the_photo_is_looked_at_without_its_padding() -> None:
    image, model = photo(24, 32), refined()
    padded = torch.nn.functional.pad(image, (0, 5, 0, 3), value=9.0)
    meta = {"img_padding_size": [0, 5, 0, 3]}
    one, two = model.predict(padded[None], [sample(**meta)]) + model.predict(
        image[None], [sample()]
    )
    assert torch.equal(one.pred_sem_seg.data, two.pred_sem_seg.data)


def test_images_of_other_sizes_share_a_batch() -> None:
    model, images = refined(), [photo(), photo(10, 29)]
    together = model.predict(images, [sample(), sample()])
    for image, found in zip(images, together, strict=True):
        (alone,) = model.predict(image[None], [sample()])
        assert torch.equal(found.pred_sem_seg.data, alone.pred_sem_seg.data)


def test_catseg_refines_its_probabilities() -> None:
    torch.manual_seed(0)
    model, image = make_catseg().eval(), torch.randn(3, 40, 56)
    (scores,) = model.window_scores([image])
    mended = PAMR(3, (1, 3)).prepare(resize(image, SIZE))(
        full_size_scores(scores, SIZE, torch.sigmoid)
    )
    model.refiners = [PAMR_CFG]
    (found,) = model.predict(image[None], [sample()])
    assert torch.equal(found.pred_sem_seg.data[0], mended.argmax(0))
    with pytest.raises(ValueError, match=r"CATSeg.encode_decode does not refine \(PAMR\)"):
        model.encode_decode(image[None])


class Sharpest:
    """Looks at all queries together, so it may see no part of them."""

    per_query = False

    def prepare(self, photo: Tensor) -> Any:
        return lambda scores: scores - scores.mean(0) * scores.var(0)


def test_a_refiner_of_all_queries_sees_all_of_them() -> None:
    rule, image = RULES[2], photo()
    model = refined(rule, [Sharpest()], class_chunk=1, **SLIDE)
    (found,) = model.predict(image[None], [sample()])
    assert "seg_logits" not in found
    model.test_cfg = {**SLIDE, "return_probs": True}
    (full,) = model.predict(image[None], [sample()])
    assert torch.equal(found.pred_sem_seg.data, full.pred_sem_seg.data)


def test_refiners_run_in_their_order() -> None:
    image, scores = photo(), torch.randn(2, *SIZE, dtype=torch.float64)
    one, two = PAMR(1, (1,)), Sharpest()
    view = resize(image, SIZE)
    refine = refine_scores([one, two], image, SIZE)
    want = two.prepare(view)(one.prepare(view)(scores))
    assert refine is not None
    torch.testing.assert_close(refine(scores), want)
    assert refine_scores([MaskVote()], image, SIZE) is None


def stripes() -> Tensor:
    """A mask map: columns 0 to 9 are in no mask, the rest in masks of ten columns."""
    return (torch.arange(SIZE[1]) // 10).expand(SIZE)


def labels_of(model: Any, image: Tensor, masks: Any, **meta: Any) -> SegDataSample:
    settings = OpenVocabTestSettings.from_cfg(model.test_cfg)
    (found,) = predict_samples(
        image[None], [sample(**meta)], model.window_scores, model.label_rule(), settings,
        model.refiners, masks,
    )  # fmt: skip
    return found


@pytest.mark.parametrize("refiners", [["vote"], ["pamr", "vote"]])
@pytest.mark.parametrize("return_probs", [False, True])
def test_masks_vote_behind_the_threshold(refiners: list[str], return_probs: bool) -> None:
    rule, image = RULES[1], photo()
    build = {"vote": MaskVote(), "pamr": PAMR(3, (1, 3))}
    model = refined(rule, [build[name] for name in refiners], return_probs=return_probs, **SLIDE)
    before = refined(rule, [build[name] for name in refiners[:-1]], **SLIDE)
    want = MaskVote().refine(labels_of(before, image, None).pred_sem_seg.data[0], stripes())
    assert torch.equal(labels_of(model, image, [stripes()]).pred_sem_seg.data[0], want)
    flat = torch.zeros(SIZE, dtype=torch.long)
    found = labels_of(model, image, [flat]).pred_sem_seg.data
    assert torch.equal(found, labels_of(before, image, None).pred_sem_seg.data)


def test_a_flipped_view_votes_in_the_masks_of_the_photo() -> None:
    image = photo(24, 30)
    image = image[..., :28]  # whole patches, which a flip leaves in their places
    model = refined(None, [PAMR_CFG, {"type": "MaskVote"}], mode="whole")
    masks = torch.randint(0, 9, SIZE, generator=torch.manual_seed(1))
    plain = labels_of(model, image, [masks]).pred_sem_seg.data
    meta = {"flip": True, "flip_direction": "horizontal"}
    flipped = labels_of(model, image.flip(-1), [masks.flip(-1)], **meta).pred_sem_seg.data
    assert torch.equal(plain, flipped) and len(plain.unique()) > 1


def test_masks_of_another_size_are_taken_to_the_photo() -> None:
    """To the nearest: 6 places to 4 take those of 0, 1, 3 and 4 (spec C6)."""
    masks = torch.arange(30).view(5, 6)
    assert torch.equal(resize_nearest(masks, (5, 4)), masks[:, [0, 1, 3, 4]])
    model, image = refined(None, [MaskVote()], mode="whole"), photo(24, 30)
    small = torch.randint(0, 9, (8, 10), generator=torch.manual_seed(1))
    large = small.repeat_interleave(5, 0).repeat_interleave(5, 1)
    found = labels_of(model, image, [small]).pred_sem_seg.data
    assert torch.equal(found, labels_of(model, image, [large]).pred_sem_seg.data)


def test_views_are_refined_and_their_mean_votes() -> None:
    image, masks = photo(10, 29), torch.randint(0, 9, SIZE, generator=torch.manual_seed(1))
    model = refined(RULES[1], [PAMR_CFG, {"type": "MaskVote"}], mode="whole", return_probs=True)
    views, pairs = [], [(image, False), (image.flip(-1), True)]
    for view, flip in pairs:
        seen = masks.flip(-1) if flip else masks
        views.append(labels_of(model, view, [seen], flip=flip, flip_direction="horizontal"))
    mean = torch.stack([view.seg_logits.data for view in views]).mean(0)
    want = MaskVote().refine(labels_from_probabilities(mean, model.label_rule()), masks)
    (merged,) = OpenVocabTTAModel(model).merge_preds([views])
    assert torch.equal(merged.pred_sem_seg.data[0], want)
    assert "mask_map" not in merged
    model.refiners = [PAMR_CFG]
    data = {"inputs": [[view] for view, _ in pairs], "data_samples": [
        [sample(flip=flip, flip_direction="horizontal")] for _, flip in pairs
    ]}  # fmt: skip
    (found,) = OpenVocabTTAModel(model).test_step(data)
    torch.testing.assert_close(found.seg_logits.data, mean)


def test_a_model_is_copied_and_pickled_with_its_refiners() -> None:
    model = refined(None, [PAMR_CFG, MaskVote()])
    assert not [name for name, _ in model.named_children() if "refine" in name]
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert [type(refiner) for refiner in other.refiners] == [PAMR, MaskVote]
        assert other.refiners[0].dilations == (1, 3)


def test_a_config_names_them_as_it_names_all_else(tmp_path: Path) -> None:
    """Lists and mmengine's dicts, also of a config that was written and read again."""
    listed = [dict(type="PAMR", steps=3, dilations=[1, 3]), dict(type="MaskVote")]
    backbone = dict(type="PatchMeanBackbone")
    parts = dict(backbone=backbone, decode_head=dict(head_cfg(), embeddings=None))
    config = Config(dict(model=dict(type="OpenVocabSegmentor", **parts, refiners=listed)))
    config.dump(tmp_path / "c.py")
    for found in (config, Config.fromfile(tmp_path / "c.py")):
        found.model.decode_head.embeddings = torch.eye(4)
        with DefaultScope.overwrite_default_scope("mmseg"):
            model = MODELS.build(found.model)
        assert [type(refiner) for refiner in model.refiners] == [PAMR, MaskVote]
        assert model.refiners[0].dilations == (1, 3)
    assert make_segmentor().refiners == () == build_refiners(None)


def test_a_third_of_the_queries_is_refined_at_once() -> None:
    (scores,) = make_segmentor(**SLIDE).window_scores([photo()])
    size, budget = (100, 100), 12.5 * 4 * 100 * 100 / 1e6
    many = replace(scores, maps=scores.maps.repeat(1, 5, 1, 1))
    for settings in (TestSettings(chunk_mb=budget), OpenVocabTestSettings(chunk_mb=budget)):
        assert settings.queries_at_once(many, size) == 12
        assert settings.queries_at_once(many, size, refined=True) == 4
    assert OpenVocabTestSettings(class_chunk=7).queries_at_once(many, size, refined=True) == 7


@pytest.mark.parametrize("refiner", [PAMR_CFG, Sharpest()], ids=["PAMR", "of all queries"])
def test_heat_maps_are_refined(refiner: Any) -> None:
    """Of a word alone, or among the others where the refiner looks at all of them."""
    model, image = refined(None, [refiner], **SLIDE), photo()
    known = model.decode_head.vocabulary.class_names

    @contextlib.contextmanager
    def asking(names: Any) -> Iterator[None]:
        asked = [synonyms[0] for synonyms in names]
        vectors = torch.eye(4, dtype=torch.float64)[[known.index(name) for name in asked]]
        model.decode_head.set_vocabulary(asked, vectors)
        yield

    model.asking = asking  # as with a text encoder
    with torch.no_grad():
        full = full_size_scores(model.window_scores([image])[0], SIZE)
    want = build_refiners([refiner])[0].prepare(resize(image, SIZE))(full)[2] / 10
    model.refiners = [refiner, MaskVote()]  # which mends labels, and finds no masks here
    result = SimpleNamespace(names=known, size=SIZE)
    batch = {"inputs": [image], "data_samples": [sample()]}
    values, kind = segmentor_heat(model, batch, result, known[2])
    np.testing.assert_allclose(values, want.numpy(), atol=1e-6)
    assert kind == "cosine" and np.abs(values - full[2].numpy() / 10).max() > 1e-3
