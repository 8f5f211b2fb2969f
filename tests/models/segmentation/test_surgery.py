"""Feature surgery has the published numbers, window by window, and leaves what it must."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmseg.structures import SegDataSample
from torch import Tensor

from mmclipdis.apis.inferencers.segment_heat import segmentor_heat
from mmclipdis.clip.text.templates import get_templates
from mmclipdis.engine.random_weights import take_as_meant
from mmclipdis.models.segmentation import CosineSegHead, OpenVocabSegmentor
from mmclipdis.models.segmentation.prediction import full_size_scores, minmax
from mmclipdis.models.segmentation.surgery import feature_surgery, query_weights
from tests.export.tiny import segmentor, stock
from tests.tiny import tiny_resnet_arch

F64 = torch.float64
CLS = torch.tensor([[1.0, 1.0, 0.0]], dtype=F64)
PATCHES = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 1]], dtype=F64)
TEXT = F.normalize(torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 1]], dtype=F64), dim=1)
WEIGHTS = [0.924625, 0.924625, 1.150749]
SCORES = [
    [0.394955, -0.529670, 0.134715],
    [-0.529670, 0.394955, 0.134715],
    [-0.531131, 0.122678, 0.408452],
]
NAMES = ["apple", "plum", "grass", "sky"]


def near(found: Tensor, want: Any) -> None:
    torch.testing.assert_close(found, torch.tensor(want, dtype=found.dtype), rtol=0, atol=6e-7)


def head(**options: Any) -> CosineSegHead:
    return CosineSegHead(embeddings=TEXT, vocabulary=["a", "b", "c"], score_norm="surgery",
                         logit_scale=1.0, **options)  # fmt: skip


def test_golden_weights_and_scores() -> None:
    """F1: of a window of three patches; each row of S sums to 0."""
    weights = query_weights(3 * CLS, TEXT)
    near(weights[0], WEIGHTS)
    maps = PATCHES.T.reshape(1, 3, 1, 3)
    found = head().double().scores(5 * maps, CLS)
    near(found[0, :, 0].T, SCORES)
    assert found.sum(1).abs().max() < 1e-12
    near(minmax(found)[0, :, 0].T, [[1, 0, 0], [0.001577, 1, 0], [0, 0.705527, 1]])  # F3


def test_golden_scores_with_a_redundant_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    """F2: r = unit (1, 1, 1)."""
    redundant = head().double()
    redundant.redundant = "empty"
    monkeypatch.setattr(redundant, "_empty_text", lambda: F.normalize(torch.ones(3), dim=0))
    assert not redundant.needs_cls
    found = redundant([PATCHES.T.reshape(1, 3, 1, 3)])
    near(found[0, :, 0].T, [[0.422650, -0.577350, 0], [-0.577350, 0.422650, 0],
                            [-0.816497, -0.109390, 0]])  # fmt: skip


def test_equals_the_product_of_patches_queries_and_channels() -> None:
    """The released form: weight every product, take the mean over the queries off, add channels."""
    torch.manual_seed(0)
    maps, cls = torch.randn(2, 6, 3, 4, dtype=F64), torch.randn(2, 6, dtype=F64)
    text = F.normalize(torch.randn(5, 6, dtype=F64), dim=1)
    image = F.normalize(cls, dim=1)
    tokens = F.normalize(maps, dim=1).flatten(2).transpose(1, 2)
    likely = (2 * image @ text.T).softmax(-1)
    weights = likely / likely.mean(-1, keepdim=True)
    product = tokens[:, :, None] * text * weights[:, None, :, None]  # (B, N, Q, E)
    want = (product - product.mean(2, keepdim=True)).sum(-1).transpose(1, 2).unflatten(2, (3, 4))
    cosines = torch.einsum("bnc,qc->bqn", tokens, text).unflatten(2, (3, 4))
    torch.testing.assert_close(feature_surgery(cosines, query_weights(cls, text)), want)


@pytest.fixture(scope="module")
def plain() -> Any:
    model = segmentor("CLIPSurgeryViT", layers=6).eval()
    model.set_vocabulary(NAMES)
    return model


@pytest.fixture
def model(plain: Any) -> Any:
    """The segmentor with feature surgery."""
    plain.decode_head.score_norm = "surgery"
    yield plain
    plain.decode_head.score_norm = plain.decode_head.redundant = None


IMAGE = torch.randn(3, 40, 52, generator=torch.Generator().manual_seed(3))


def scores_of(model: Any, image: Tensor = IMAGE) -> Tensor:
    with torch.no_grad():
        return model.window_scores([image])[0].maps / model.decode_head.logit_scale


def test_every_window_has_the_weights_of_its_own_image_embedding(model: Any) -> None:
    windows = model._settings().windows((40, 52))
    found, text = scores_of(model), model.decode_head.embeddings()
    for scores, (rows, columns) in zip(found, windows.slices(), strict=True):
        with torch.no_grad():
            seen = model.backbone.dense(IMAGE[None, :, rows, columns], with_cls=True)
        cosines = torch.einsum("qc,chw->qhw", text, F.normalize(seen.map[0], dim=0))
        likely = (2 * text @ F.normalize(seen.cls[0], dim=0)).softmax(0)
        weighted = cosines * (likely / likely.mean())[:, None, None]
        torch.testing.assert_close(scores, weighted - weighted.mean(0), rtol=1e-4, atol=1e-6)
    assert (found[0] - found[-1]).abs().max() > 1e-3


def test_labels_change_by_the_weights_alone(model: Any) -> None:
    """What is taken off is the same for all queries, before and after a softmax."""
    model.test_cfg = {**model.test_cfg, "return_probs": True}
    found = model.predict(IMAGE[None])[0].seg_logits.data
    model.decode_head.score_norm = None
    scores = model.decode_head.scores
    dense = model.backbone.dense

    def weighted(features: Tensor, cls: Tensor | None = None) -> Tensor:
        weights = query_weights(cls, model.decode_head.embeddings())
        return scores(features) * weights[:, :, None, None]

    def logits(images: Tensor, masks: Any = None) -> Tensor:
        seen = dense(images, with_cls=True)
        return weighted(seen.map, seen.cls)

    model._logits, kept = logits, model._logits
    try:
        want = model.predict(IMAGE[None])[0].seg_logits.data
    finally:
        model._logits = kept
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-6)
    without = model.predict(IMAGE[None])[0].seg_logits.data
    assert (found - without).abs().max() > 1e-4


def test_the_redundant_feature_is_what_prompts_say_without_a_name(model: Any) -> None:
    """It changes the scores of a word, and no probability; one class has scores, too."""
    model.test_cfg = {**model.test_cfg, "return_probs": True}
    found = []
    for options in ({"score_norm": None}, {"score_norm": "surgery", "redundant": "empty"}):
        for name, value in options.items():
            setattr(model.decode_head, name, value)
        found.append((scores_of(model), model.predict(IMAGE[None])[0].seg_logits.data))
    (cosines, plain), (scores, refined) = found
    torch.testing.assert_close(refined, plain, rtol=1e-5, atol=1e-6)
    encoder = model.decode_head.text_encoder
    with torch.no_grad():
        empty = F.normalize(encoder.encode(encoder.tokenize(["a photo of a ."])), dim=1)[0]
        for options in ("single", "imagenet80"):
            sentences = encoder.encode(encoder.tokenize(get_templates(options).render("")))
            want = F.normalize(F.normalize(sentences, dim=1).mean(0), dim=0)
            torch.testing.assert_close(encoder.embed_empty(get_templates(options)), want)
        seen = F.normalize(model.backbone.dense(IMAGE[None, :, :32, :32]).map[0], dim=0)
    taken = torch.einsum("chw,c->hw", seen, empty)
    torch.testing.assert_close(scores[0], cosines[0] - taken, rtol=1e-4, atol=1e-6)
    model.decode_head.set_vocabulary(["apple"])
    assert scores_of(model).std() > 1e-4
    model.decode_head.set_vocabulary(NAMES)


def test_a_heat_map_is_of_a_word_among_the_others(model: Any) -> None:
    batch = {"inputs": [IMAGE], "data_samples": [SegDataSample()]}
    result = SimpleNamespace(names=tuple(NAMES), size=IMAGE.shape[1:])
    full = full_size_scores(model.window_scores([IMAGE])[0], (40, 52)) / 50
    values, kind = segmentor_heat(model, batch, result, "grass")
    assert kind == "score" and result.names == model.decode_head.vocabulary.class_names
    np.testing.assert_allclose(values, full[2].detach().numpy(), atol=1e-6)
    other, _ = segmentor_heat(model, batch, result, "kite")
    assert np.abs(other - values).max() > 1e-3
    model.decode_head.redundant = "empty"  # of the word alone
    alone, _ = segmentor_heat(model, batch, result, "grass")
    full = full_size_scores(model.window_scores([IMAGE])[0], (40, 52)) / 50
    np.testing.assert_allclose(alone, full[2].detach().numpy(), atol=1e-6)


def test_a_stock_segmentor_takes_the_redundant_feature_and_no_surgery_by_windows() -> None:
    model = stock().eval()
    model.test_cfg = ConfigDict(mode="whole")
    model.decode_head.set_vocabulary(NAMES)
    plain = model.predict(IMAGE[None, :, :32, :32])[0].seg_logits.data
    model.decode_head.score_norm = "surgery"
    with pytest.raises(ValueError, match="needs the image embedding of every window: use type="):
        model.predict(IMAGE[None, :, :32, :32])
    model.decode_head.redundant = "empty"
    found = model.predict(IMAGE[None, :, :32, :32])[0].seg_logits.data
    torch.testing.assert_close(found, plain)


def test_the_pool_of_a_resnet_gives_the_image_embedding_as_well() -> None:
    torch.manual_seed(0)
    width = tiny_resnet_arch()["embed_dim"]
    model = OpenVocabSegmentor(
        backbone=dict(type="CLIPResNet", arch=tiny_resnet_arch(), readout="v"),
        decode_head=dict(type="CosineSegHead", embeddings=torch.randn(4, width), vocabulary=NAMES,
                         score_norm="surgery"),
        test_cfg=dict(mode="slide", crop_size=64, stride=32),
    ).eval()  # fmt: skip
    take_as_meant(model)
    image = torch.randn(3, 64, 96)
    found = scores_of(model, image)
    assert found.sum(1).abs().max() < 1e-5 and found.std() > 1e-3
    with torch.no_grad():
        seen = model.backbone.dense(image[None, :, :, 32:], with_cls=True)
        want = model.decode_head.scores(seen.map, seen.cls)[0] / model.decode_head.logit_scale
    torch.testing.assert_close(found[1], want, rtol=1e-4, atol=1e-6)
