"""Sigmoid scores with the scale and bias of the weights, against the naive formula (3 s)."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.models import EncoderDecoder
from torch import Tensor

from mmclipdis.clip.text.encoder import build_text_tower
from mmclipdis.models.recognition.zero_shot import ZeroShotRecognizer
from mmclipdis.models.segmentation.cosine_head import CosineSegHead
from mmclipdis.models.segmentation.prediction import (
    LabelRule,
    WindowScores,
    class_probabilities,
    full_size_scores,
    labels_from_probabilities,
    predict_labels,
)
from mmclipdis.models.segmentation.windows import slide_windows
from tests.faults.endings import raises
from tests.models.recognition.test_zero_shot import COLOURS, Eye, Words
from tests.tiny import tiny_arch

ARCH = tiny_arch()
ARCH = {**ARCH, "text_cfg": {**ARCH["text_cfg"], "vocab_size": 49408}}
NAMES = ["background", "cat", "dog"]
SIGMOID = dict(score="sigmoid", logit_scale=10.0, logit_bias=-3.0)


def head(**options: Any) -> CosineSegHead:
    torch.manual_seed(0)
    given = dict(vocabulary=NAMES, embeddings=torch.randn(3, 8))
    return CosineSegHead(**{**given, **options}).eval()


def text_file(path: Path, **scalars: Tensor) -> str:
    torch.manual_seed(0)
    torch.save({**build_text_tower(ARCH).text.state_dict(), **scalars}, path)
    return str(path)


def encoder(source: str | None = None) -> dict[str, Any]:
    config = dict(type="mmengine.OpenCLIPTextEncoder", arch=ARCH, cache_dir=False, progress=False)
    init = {} if source is None else dict(init_cfg=dict(type="Pretrained", checkpoint=source))
    return config | init


@pytest.fixture
def siglip(tmp_path: Path) -> str:
    """A file with SigLIP's scalars as Hugging Face has them, of shape (1,)."""
    scalars = dict(logit_scale=torch.tensor([math.log(10)]), logit_bias=torch.tensor([-10.0]))
    return text_file(tmp_path / "siglip.pt", **scalars)


def meta(size: int) -> list[dict[str, Any]]:
    return [dict(img_shape=torch.Size((size, size)))]


def test_a_probability_is_the_sigmoid_of_scaled_cosine_and_bias() -> None:
    made, features = head(**SIGMOID), torch.randn(1, 8, 4, 4)
    found = made.predict((features,), meta(4), None)[0]
    for row in range(4):
        for column in range(4):
            for number, text in enumerate(made.embeddings()):
                cosine = torch.cosine_similarity(features[0, :, row, column], text, dim=0)
                expected = 1 / (1 + math.exp(3 - 10 * float(cosine)))
                assert found[number, row, column].item() == pytest.approx(expected, rel=1e-4)
    assert not torch.allclose(found.sum(0), torch.ones(4, 4))


def test_background_is_where_no_class_is_probable_by_itself() -> None:
    torch.manual_seed(0)
    options = dict(prob_thd=0.3, background="threshold", embeddings=torch.randn(2, 8))
    made = head(**SIGMOID, **options)
    rule = made.rule()
    features = torch.randn(1, 8, 6, 6)
    logits = made((features,))
    probabilities = (logits[0] - 3).sigmoid()
    best, index = probabilities.max(0)
    expected = (index + 1).masked_fill(best < 0.3, 0)
    assert 0 < (expected == 0).sum() < 36
    layout = slide_windows((6, 6), (6, 6), (6, 6))
    scores = WindowScores(logits, layout)
    assert torch.equal(predict_labels(scores, (6, 6), rule, class_chunk=1), expected)
    # under a stock segmentor, where the threshold is the floor of the background
    found = made.predict((features,), meta(6), None)[0].argmax(0)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("chunk", [1, 2, 5])
@pytest.mark.parametrize("area_thd", [None, 0.1])
def test_labels_of_windows_are_those_of_the_full_probabilities(
    chunk: int, area_thd: float | None
) -> None:
    torch.manual_seed(1)
    layout = slide_windows((12, 16), (8, 8), (4, 4))
    scores = WindowScores(3 * torch.randn(len(layout), 5, 4, 4), layout)
    classes = torch.tensor([0, 1, 1, 2, 3])
    rule = LabelRule(classes, 4, 0.4, 0, area_thd=area_thd, bias=-2.0)
    full = full_size_scores(scores, (24, 32))
    naive = 1 / (1 + (2.0 - full).exp())
    probabilities = torch.stack([naive[classes == c].amax(0) for c in range(4)])
    torch.testing.assert_close(class_probabilities(full, rule), probabilities)
    expected = labels_from_probabilities(probabilities, rule)
    assert torch.equal(predict_labels(scores, (24, 32), rule, class_chunk=chunk), expected)


def test_without_a_threshold_labels_are_those_of_the_softmax() -> None:
    features = torch.randn(1, 8, 6, 6)
    one = head(logit_scale=10.0).predict((features,), meta(6), None)
    other = head(**SIGMOID).predict((features,), meta(6), None)
    assert torch.equal(one.argmax(1), other.argmax(1))


def test_the_file_tells_scale_and_bias(siglip: str) -> None:
    options = dict(text_encoder=encoder(siglip), embeddings=None, score="sigmoid")
    made = head(**options, logit_scale="file", logit_bias="file")
    assert made.logit_scale == pytest.approx(10.0)
    assert made.logit_bias == -10.0
    assert made.rule().bias == -10.0
    softmax = head(text_encoder=encoder(siglip), embeddings=None, logit_scale="file")
    assert (softmax.logit_scale, softmax.logit_bias) == (pytest.approx(10.0), None)


def test_a_run_s_checkpoint_keeps_them_for_a_model_without_the_file(siglip: str) -> None:
    options = dict(embeddings=None, logit_scale="file", logit_bias="file", score="sigmoid")
    made = head(text_encoder=encoder(siglip), **options)
    made.init_weights()
    assert made.logit_bias == -10.0
    state = made.state_dict()
    assert "text_encoder.scale" in state
    bare = head(text_encoder=dict(encoder(), init_cfg=None), **options)
    bare.load_state_dict(state)
    assert (bare.logit_scale, bare.logit_bias) == (pytest.approx(10.0), -10.0)
    assert copy.deepcopy(bare).logit_bias == -10.0
    plain = head(text_encoder=encoder(), embeddings=None)  # not asked for: as ever
    plain.load_state_dict(state)
    assert "text_encoder.scale" not in plain.state_dict()


def test_stock_segmentors_have_it_too() -> None:
    torch.manual_seed(0)
    model = EncoderDecoder(
        backbone=dict(type="mmengine.ClearCLIPViT", arch=ARCH),
        decode_head=dict(
            type="CosineSegHead",
            text_encoder=encoder(),
            vocabulary=NAMES,
            num_classes=3,
            prob_thd=0.3,
            **SIGMOID,
        ),
        test_cfg=ConfigDict(mode="slide", crop_size=(32, 32), stride=(16, 16)),
    ).eval()
    with torch.no_grad():
        found = model.encode_decode(torch.randn(1, 3, 32, 32), meta(32))[0]
        maps = model.extract_feat(torch.randn(1, 3, 32, 32))
    assert found.shape == (3, 32, 32)
    assert found[0].min() > 0.29
    logits = model.decode_head(maps)
    assert logits.abs().max() <= 10  # the bias is the rule's


def test_recognition_gives_each_class_its_own() -> None:
    images = torch.rand(2, 3, 4, 4)
    made = ZeroShotRecognizer(Eye(), Words(), COLOURS, **SIGMOID)
    samples = made.forward(images, None, mode="tensor")
    found = made.probabilities(samples)
    unit = images.mean((2, 3)) / images.mean((2, 3)).norm(dim=1, keepdim=True)
    torch.testing.assert_close(found, 1 / (1 + (3 - 10 * unit).exp()))
    plain = ZeroShotRecognizer(Eye(), Words(), COLOURS, logit_scale=10.0)
    torch.testing.assert_close(plain.probabilities(samples), samples.softmax(1))


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "kind": (dict(score="tanh"), "score must be one of softmax, sigmoid, got 'tanh'"),
    "no bias": (dict(score="sigmoid"), "score='sigmoid' needs logit_bias: 'file' .* from -10"),
    "a bias of a softmax": (dict(logit_bias=-10.0), "logit_bias=-10.0 changes no softmax: leave"),
    "half of the file": (
        dict(score="sigmoid", logit_bias="file"),
        "logit_bias='file' belongs to the file's scale, not to 50.0: set logit_scale='file'",
    ),
    "no file": (dict(logit_scale="file"), "read from the weights of a text_encoder, and there are"),
    "words": (dict(logit_scale="hot"), "logit_scale must be 'file' or a number .*, got 'hot'"),
    "nan": (dict(SIGMOID, logit_bias=math.nan), "logit_bias must be 'file', a finite number"),
    "surgery": (dict(SIGMOID, score_norm="surgery"), "score_norm='surgery' changes them: leave"),
    "minmax": (dict(SIGMOID, score_norm="minmax"), "score='sigmoid' is of cosines as they are"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_options_that_contradict_each_other(case: str) -> None:
    options, line = FAULTS[case]
    raises(line, head, **options)


def test_weights_without_scale_or_bias_say_so(tmp_path: Path) -> None:
    none = text_file(tmp_path / "none.pt")
    scale = text_file(tmp_path / "clip.pt", logit_scale=torch.tensor(math.log(100)))
    options = dict(embeddings=None, logit_scale="file", logit_bias="file", score="sigmoid")
    made = head(text_encoder=encoder(scale), **options)
    assert made.logit_scale == pytest.approx(100.0)
    with pytest.raises(ValueError, match="weights of the text encoder have none .*a softmax"):
        made.rule()
    made = head(text_encoder=encoder(none), **options)
    with pytest.raises(ValueError, match="knows no scale: its file has none; give logit_scale as"):
        made.rule()
    made = head(text_encoder=encoder(), **options)
    with pytest.raises(ValueError, match="knows no scale: its init_cfg names no file"):
        made.rule()


def test_it_only_predicts() -> None:
    with pytest.raises(ValueError, match="score='sigmoid' and background='threshold' only predict"):
        head(**SIGMOID).loss((torch.randn(1, 8, 2, 2),), [], None)
