"""Detection by any words: what mmdet's own inferencer finds, with one line for what is wrong."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torchvision.ops import box_iou

from mmclipdis.apis import OpenVocabDetInferencer, detect
from tests.faults.endings import raises

WORDS = ["kite", "fish", "red apple"]
STEPS = [{"type": "Resize", "scale": (160, 160), "keep_ratio": True}, {"type": "PackDetInputs"}]


def test_boxes_are_those_of_mmdets_inferencer(
    detector: OpenVocabDetInferencer, fvit_files: tuple[Config, Path], pictures: Path
) -> None:
    from mmdet.apis import DetInferencer

    config, path = fvit_files
    stock = DetInferencer(copy.deepcopy(config), str(path), device="cpu", show_progress=False)
    files = sorted(map(str, pictures.glob("*.png")))
    text = "kite . fish . red apple"
    theirs = stock(files, texts=text, custom_entities=True, batch_size=3)["predictions"]
    ours = detector(pictures, WORDS, batch_size=2)
    for mine, other in zip(ours, theirs, strict=True):
        assert len(mine) == len(other["scores"]) > 5
        assert mine.names == ("kite", "fish", "red apple")
        np.testing.assert_allclose(mine.scores, sorted(other["scores"], reverse=True), atol=1e-6)
        order = np.argsort(-np.array(other["scores"]), kind="stable")
        np.testing.assert_allclose(mine.boxes, np.array(other["bboxes"])[order], atol=1e-3)
        assert mine.labels.tolist() == np.array(other["labels"])[order].tolist()


def test_words_change_between_calls_and_the_models_own_come_back(
    detector: OpenVocabDetInferencer, pictures: Path
) -> None:
    photo = min(pictures.iterdir())
    detector.reset_words()
    (own,) = detector(photo)
    (typed,) = detector(photo, "kite, fish")
    (again,) = detector(photo)  # the words of the last call
    assert len(own.names) == 12 and typed.names == again.names == ("kite", "fish")
    assert np.array_equal(typed.scores, again.scores)
    (asked,) = detector(photo, texts="apple . plum")
    assert asked.names == ("apple", "plum") and detector(photo)[0].names == ("kite", "fish")
    detector.reset_words()
    (back,) = detector(photo)
    assert np.array_equal(back.scores, own.scores) and back.names == own.names


def test_a_word_that_the_detector_adds_itself_is_refused_before_the_first_photo(
    detector: OpenVocabDetInferencer,
) -> None:
    line = "one named 'grass', .*, which the detector adds itself"
    for asked in ({"words": "kite, Grass"}, {"words": "kite", "background": "grass"},
                  {"texts": "kite . grass"}):  # fmt: skip
        raises(line, detector.stream, "absent.png", **asked)


def test_words_of_a_first_call_may_be_bad(detector: OpenVocabDetInferencer, pictures: Path) -> None:
    detector.reset_words()
    (own,) = detector(photo := min(pictures.iterdir()))
    fresh = OpenVocabDetInferencer(detector.model, device="cpu")
    raises("the same name stands for two classes.*leave one out", fresh, photo, "kite, Kite")
    assert fresh(photo)[0].names == own.names


def test_a_word_is_novel_unless_it_had_boxes_in_training(
    detector: OpenVocabDetInferencer, pictures: Path
) -> None:
    photo = min(pictures.iterdir())
    (usual,) = detector(photo, ["apple", "kite"])
    (said,) = detector(photo, ["apple", "kite"], novel=["kite"])  # as the checkpoint has it
    assert np.array_equal(usual.scores, said.scores)
    (other,) = detector(photo, ["apple", "kite"], novel=["apple", "kite"])
    assert not np.array_equal(usual.scores, other.scores)
    raises("novel lists .'fish'.*none of the 2 classes", detector, photo, ["apple", "kite"],
           novel=["fish"])  # fmt: skip


def test_a_background_takes_its_boxes_away(
    detector: OpenVocabDetInferencer, pictures: Path
) -> None:
    photo = min(pictures.iterdir())
    (all_words,) = detector(photo, ["kite", "fish", "wheel"])
    (found,) = detector(photo, ["kite", "fish"], background="wheel")
    kept = all_words.labels < 2
    assert 0 < kept.sum() < len(all_words)
    assert found.names == ("kite", "fish")
    assert np.array_equal(found.boxes, all_words.boxes[kept])
    assert np.array_equal(found.scores, all_words.scores[kept])


@pytest.mark.parametrize("name", ["detector", "ovdquo"])
def test_a_threshold_stands_in_for_that_of_the_config(
    request: pytest.FixtureRequest, pictures: Path, name: str
) -> None:
    inferencer = request.getfixturevalue(name)
    photo, words = min(pictures.iterdir()), ["kite", "fish", "wheel"]
    part = inferencer.model if name == "ovdquo" else inferencer.model.roi_head
    before = part.test_cfg.score_thr
    (found,) = inferencer(photo, words, threshold=0)
    low, middle, high = (float(np.quantile(found.scores, share)) for share in (0.2, 0.5, 0.8))
    try:
        part.test_cfg.score_thr = middle
        (usual,) = inferencer(photo, words)
        assert np.array_equal(usual.scores, found.scores[found.scores > middle])
        for limit in (low, high, float(found.scores[0])):
            one = detect(photo, words, inferencer, threshold=limit)
            assert np.array_equal(one.scores, found.scores[found.scores >= limit]) and len(one)
            assert np.array_equal(one.boxes, found.above(limit).boxes) and one.threshold == limit
        assert len(inferencer(photo, words, threshold=1)[0]) == 0
        assert part.test_cfg.score_thr == middle
    finally:
        part.test_cfg.score_thr = before


def test_synonyms_are_one_word_whose_boxes_do_not_overlap(
    detector: OpenVocabDetInferencer, pictures: Path
) -> None:
    photo = min(pictures.iterdir())
    (each,) = detector(photo, ["kite", "glider", "fish"])
    (one,) = detector(photo, [["kite", "glider"], "fish"])
    assert one.names == ("kite", "fish") and set(one.labels.tolist()) == {0, 1}
    assert one.scores[0] == each.scores[0]
    assert (np.diff(one.scores) <= 0).all()
    kites = torch.from_numpy(one.boxes[one.labels == 0])
    overlap = box_iou(kites, kites).fill_diagonal_(0)
    assert overlap.max() <= 0.4 and len(kites) > 2


@pytest.mark.parametrize("name", ["detector", "ovdquo"])
def test_a_heat_map_is_of_one_word_at_the_size_of_the_photo(
    request: pytest.FixtureRequest, pictures: Path, name: str
) -> None:
    photo = sorted(pictures.iterdir())[1]
    (found,) = request.getfixturevalue(name)(photo, ["kite", "fish"])
    heat = found.heatmap("apple")
    assert heat.values.shape == found.size and heat.kind == "cosine"
    assert -1 <= heat.values.min() < heat.values.max() <= 1
    assert not np.array_equal(heat.values, found.heatmap("fish").values)
    raises("a heat map is of one word, such as 'car', got ''", found.heatmap, "")


def test_prompts_may_be_others(detector: OpenVocabDetInferencer, pictures: Path) -> None:
    photo = min(pictures.iterdir())
    (usual,), model = detector(photo, WORDS), copy.deepcopy(detector.model)
    other = OpenVocabDetInferencer(model, device="cpu", templates=["no {}", "{}!"], pipeline=STEPS)
    assert other.model.vocabulary.templates.formats == ("no {}", "{}!")
    assert not np.array_equal(other(photo)[0].scores, usual.scores)
    same = OpenVocabDetInferencer(model, device="cpu", templates="a {}.", pipeline=STEPS)
    assert np.array_equal(same(photo)[0].scores, usual.scores)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"words": ["kite", "grass"]}, "or one named 'grass', .*leave that class out"),
        ({"words": ["kite"], "background": "kite"}, "both among the words and the background"),
        ({"words": ["kite"], "local": True}, "OpenVocabDetInferencer takes no local in a call"),
        ({"words": WORDS, "treshold": 0.3}, "takes no treshold in a call; did you mean threshold"),
        ({"words": []}, "no words: give at least one class name"),
        ({"words": ["kite " * 80]}, "the word 'kite kite.* does not fit: .* reads 77"),
    ],
)
def test_calls_that_make_no_sense(
    detector: OpenVocabDetInferencer, options: dict[str, object], line: str
) -> None:
    raises(line, detector, np.zeros((40, 40, 3), np.uint8), **options)
