"""Tags of any words: CLIP's softmax, DCLIP's probabilities, and where in the photo they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config

from mmclipdis.apis import OpenVocabTagger
from mmclipdis.models.recognition.dclip import DCLIP
from mmclipdis.models.recognition.zero_shot import ZeroShotRecognizer
from tests.apis.inferencers.conftest import SHAPES
from tests.faults.endings import raises
from tests.models.recognition.test_zero_shot import Eye, Words, same

WORDS = ["apple", "plum", "fish", "grass"]


def built(**options: object) -> OpenVocabTagger:
    """CLIP as it is on an encoder that sees the mean colour; words are red, green, blue."""
    model = ZeroShotRecognizer(Eye(), Words(), data_preprocessor=None, **options)
    model.data_preprocessor.mean.zero_()
    model.data_preprocessor.std.fill_(255)
    return OpenVocabTagger(model, device="cpu")


def test_scores_are_clips_softmax(tagger: OpenVocabTagger, pictures: Path) -> None:
    photo = min(pictures.iterdir())
    (found,) = tagger(photo, WORDS)
    batch = tagger._batch_of(found.photo, "photo")
    text = tagger.model.text.embeddings()
    image = F.normalize(tagger.model.encoder.tower.encode_image(batch["inputs"]), dim=1)
    expected = (100 * image @ text.T).softmax(1)[0].detach().numpy()
    np.testing.assert_allclose(found.scores, expected, atol=1e-5)
    assert found.scores.sum() == pytest.approx(1, abs=1e-5)
    assert list(found.top(1)) == [WORDS[int(expected.argmax())]]


def test_a_background_competes_and_is_left_out(tagger: OpenVocabTagger, pictures: Path) -> None:
    photo = min(pictures.iterdir())
    (whole,) = tagger(photo, [*WORDS, "water"])
    (found,) = tagger(photo, WORDS, background="water")
    assert found.names == tuple(WORDS)
    np.testing.assert_allclose(found.scores, whole.scores[:4], rtol=1e-5)
    (alone,) = tagger(photo, "apple", background=["water", "snow"])
    assert alone.scores.shape == (1,) and alone.scores[0] < 1


def test_the_best_synonym_of_a_word_counts(pictures: Path) -> None:
    photo = np.zeros((8, 8, 3), np.uint8)
    photo[..., 0], photo[..., 1] = 200, 100
    tagger = built()
    (one,) = tagger(photo, [["green", "red"], "blue"])
    (best,) = tagger(photo, ["red", "blue"])
    np.testing.assert_allclose(one.scores, best.scores, rtol=1e-6)
    assert one.names == ("green", "blue")


def test_local_scores_are_the_peaks_of_the_heat_maps() -> None:
    photo = np.zeros((8, 12, 3), np.uint8)
    photo[:, :8, 0], photo[:, 8:, 2], photo[:, 8:, 0] = 255, 255, 100  # red, and bluish at right
    for tagger in (built(), built_dclip()):
        (found,) = tagger(photo, ["red", "green", "blue"], local=True)
        assert found.local is not None
        np.testing.assert_allclose(found.local[[0, 1]], [1, 0], atol=1e-6)
        assert found.local[2] == pytest.approx(255 / np.hypot(255, 100), abs=1e-3)
        heat = found.heatmap("blue")
        assert heat.values.shape == (8, 12) and heat.peak()[0] >= 8
        assert heat.values.max() == pytest.approx(found.local[2], abs=1e-4)
    (plain,) = tagger(photo, ["red", "green"])
    assert plain.local is None


def built_dclip() -> OpenVocabTagger:
    model = DCLIP(Eye(), Words(), projectors=same(), mean_token=False)
    model.data_preprocessor.mean.zero_()
    model.data_preprocessor.std.fill_(255)
    return OpenVocabTagger(model.eval(), device="cpu")


def test_dclips_probabilities_are_of_each_word_alone() -> None:
    tagger = built_dclip()
    photo = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    (all_words,) = tagger(photo, ["red", "green", "blue"])
    (one,) = tagger(photo, ["green"])
    np.testing.assert_allclose(one.scores, all_words.scores[1:2], rtol=1e-6)
    raises("background='blue': DCLIP says of each word alone", tagger, photo, ["red"],
           background="blue")  # fmt: skip
    raises("'single': DCLIP's projectors were trained with a pair", OpenVocabTagger, tagger.model,
           device="cpu", templates="single")  # fmt: skip


def test_a_sigmoid_is_of_each_word_alone() -> None:
    tagger = built(score="sigmoid", logit_scale=10.0, logit_bias=-3.0)
    photo = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    (found,) = tagger(photo, ["red", "green", "blue"])
    cosines = photo.mean((0, 1)) / np.linalg.norm(photo.mean((0, 1)))
    np.testing.assert_allclose(found.scores, 1 / (1 + np.exp(3 - 10 * cosines)), rtol=1e-4)
    (one,) = tagger(photo, "green")
    np.testing.assert_allclose(one.scores, found.scores[1:2], rtol=1e-6)
    raises("background='blue': score='sigmoid' says of each word alone", tagger, photo, ["red"],
           background="blue")  # fmt: skip
    raises("one word: there is nothing that 'red' is compared with", built(), photo, "red")


def test_segments_of_dclip_are_looked_at_too(tmp_path: Path) -> None:
    config = Config.fromfile(SHAPES / "dclip_zero_shot.py")
    config.model.encoder.type = "MaskCLIPViT"
    from mmengine.registry import MODELS

    trained = MODELS.build(Config.fromfile(SHAPES / "dclip.py").model)
    torch.manual_seed(0)
    trained.projectors.image.weight.data.normal_()
    trained.projectors.belong_to(trained.encoder)
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "dclip.pth")
    photo = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    options = {"model.segments.reduce": "mean"}
    file = tmp_path / "dclip.pth"
    tagger = OpenVocabTagger(config, segments=file, cfg_options=options, device="cpu")
    model = tagger.model
    assert torch.equal(model.segments.projector.image.weight, trained.projectors.image.weight)
    assert model.segments.reduce == "mean" and "segments" not in config.model
    (found,) = tagger(photo, WORDS)
    expected = model.logits(tagger._batch_of(photo, "photo")["inputs"])[0].softmax(0)
    np.testing.assert_allclose(found.scores, expected.numpy(), rtol=1e-6)


def test_words_below_a_threshold_are_not_found(tagger: OpenVocabTagger, pictures: Path) -> None:
    photo = min(pictures.iterdir())
    (found,) = tagger(photo, WORDS, threshold=0.3)
    assert set(found.found()) == {n for n, s in zip(WORDS, found.scores) if s >= 0.3} != set(WORDS)
    assert [row["name"] for row in found.to_rows()] == list(found.found())
    assert len(found.scores) == 4


def test_prompts_may_be_others(tagger: OpenVocabTagger, noise: np.ndarray) -> None:
    config = SHAPES / "dclip_zero_shot.py"
    same_prompt = OpenVocabTagger(config, device="cpu", templates="a photo of a {}.")
    other = OpenVocabTagger(config, device="cpu", templates="{}")
    usual = tagger(noise, WORDS)[0].scores
    assert np.array_equal(same_prompt(noise, WORDS)[0].scores, usual)
    assert not np.array_equal(other(noise, WORDS)[0].scores, usual)


def test_one_word_alone_is_refused(tagger: OpenVocabTagger, noise: np.ndarray) -> None:
    raises("one word: there is nothing that 'apple' is compared with", tagger, noise, "apple")
