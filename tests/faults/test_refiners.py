"""Faults of refiners and of feature surgery: one line each, with the remedy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmseg.registry import MODELS

from mmclipdis.export.kinds import exportable
from mmclipdis.models.segmentation import PAMR, MaskVote
from mmclipdis.models.segmentation.refining import build_refiners
from tests.faults.endings import raises
from tests.models.segmentation.fakes import head_cfg, make_segmentor

LISTS: dict[str, tuple[Any, str]] = {
    "unknown type": ([{"type": "PAMRR"}], r"refiners\[0\] is of type 'PAMRR', which is none: ch"),
    "no type": ([{"steps": 3}], r"refiners\[0\] is of type None, which is none: choose PAMR or"),
    "argument": (
        [{"type": "MaskVote"}, {"type": "PAMR", "step": 1}],
        r"refiners\[1\]: PAMR has no argument 'step'; it has steps, dilations",
    ),
    "argument of the vote": ([{"type": "MaskVote", "ties": 1}], "no argument 'ties'; it has none"),
    "no list": ({"type": "PAMR"}, r"is no list: write refiners=\[dict\(type='PAMR'\)\]"),
    "a word": ("PAMR", "refiners='PAMR' is no list"),
    "words": (["PAMR"], r"refiners\[0\], 'PAMR', refines nothing: a refiner has prepare"),
    "a class": ([PAMR], r"refiners\[0\], the class PAMR and no object of it, refines nothing"),
    "a backbone": ([{"type": "PatchMeanBackbone"}], "a PatchMeanBackbone, refines nothing"),
    "no step": ([{"type": "PAMR", "steps": 0}], "PAMR.steps must be an int >= 1, got 0; leave"),
    "half a step": ([{"type": "PAMR", "steps": 1.5}], "PAMR.steps must be .* got 1.5"),
    "dilation of 0": ([{"type": "PAMR", "dilations": (8, 0)}], r"PAMR.dilations .* got \(8, 0\)"),
    "no dilation": ([{"type": "PAMR", "dilations": ()}], r"PAMR.dilations must be a list of ints"),
    "a number": ([{"type": "PAMR", "dilations": 8}], "PAMR.dilations must be a list .* got 8"),
    "order": (
        [{"type": "MaskVote"}, {"type": "PAMR"}],
        r"refiners \[MaskVote, PAMR\]: one that refines scores stands behind .* put it first",
    ),
}


@pytest.mark.parametrize("case", LISTS)
def test_a_list_of_refiners(case: str) -> None:
    refiners, line = LISTS[case]
    raises(line, build_refiners, refiners)


def test_a_live_model_refuses_as_its_config_does() -> None:
    model = make_segmentor()
    raises("PAMR.steps must be", setattr, model, "refiners", [{"type": "PAMR", "steps": -1}])
    assert model.refiners == ()


def test_a_vote_without_masks() -> None:
    model = make_segmentor()
    model.refiners = [MaskVote()]
    line = r"OpenVocabSegmentor needs the masks of each photo: give the model masks=dict\("
    raises(line, model.predict, torch.zeros(1, 3, 8, 8, dtype=torch.float64))


def test_a_vote_in_the_masks_of_another_photo() -> None:
    labels, masks = torch.zeros(4, 5, dtype=torch.long), torch.zeros(5, 4, dtype=torch.long)
    raises(r"masks of \(5, 4\) pixels for labels of \(4, 5\)", MaskVote().refine, labels, masks)


def test_refiners_are_in_no_exported_file_and_behind_no_raw_probabilities() -> None:
    model = make_segmentor()
    model.refiners = [PAMR()]
    line = r"OpenVocabSegmentor with refiners \(PAMR\) is not exported: .*refiners=\[\]"
    raises(line, exportable, model, None)
    model.refiners = [PAMR(), MaskVote()]
    line = r"OpenVocabSegmentor.encode_decode does not refine \(PAMR, MaskVote\): call predict"
    raises(line, model.encode_decode, torch.zeros(1, 3, 8, 8), [])


SURGERIES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"score_norm": "knife"}, "score_norm must be None, 'minmax' or 'surgery', got 'k"),
    "redundant": ({"redundant": "nothing"}, "redundant must be None or 'empty', got 'nothing'"),
    "redundant alone": ({"redundant": "empty"}, "redundant='empty' belongs to score_norm='surger"),
    "no text": (
        {"score_norm": "surgery", "redundant": "empty"},
        "redundant='empty' is the embedding of the empty text, .* no text_encoder: give it one",
    ),
}


@pytest.mark.parametrize("case", SURGERIES)
def test_options_of_feature_surgery(case: str) -> None:
    options, line = SURGERIES[case]
    raises(line, MODELS.build, head_cfg(**options))


def test_feature_surgery_where_there_is_no_image_embedding() -> None:
    line = "needs the image embedding of every window, and backbone PatchMeanBackbone has none"
    raises(line, make_segmentor, {"score_norm": "surgery"})
    head = MODELS.build(head_cfg(score_norm="surgery"))
    line = "needs the image embedding of every window: use type='OpenVocabSegmentor'"
    raises(line, head, [torch.ones(1, 4, 2, 2)])


def test_feature_surgery_of_one_class() -> None:
    options = {"score_norm": "surgery", "vocabulary": [["car", "automobile"]]}
    head = MODELS.build(head_cfg(**options, embeddings=torch.eye(4)[:2]))
    line = "from every class what all have in common, and the only one is 'car': name others"
    raises(line, head.scores, torch.ones(1, 4, 2, 2), torch.ones(1, 4))


def test_feature_surgery_is_not_exported() -> None:
    model = make_segmentor()
    model.decode_head.score_norm = "surgery"
    raises("score_norm='surgery' is not exported: .*score_norm=None", exportable, model, None)
