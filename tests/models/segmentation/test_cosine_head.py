"""The cosine head: under our segmentor, under mmseg's own, with CLIP's text tower or without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample
from safetensors.torch import save_file

from mmclipdis.models.segmentation import CosineSegHead, OpenVocabSegmentor
from tests.models.segmentation.fakes import NAMES, head_cfg, make_segmentor
from tests.tiny import tiny_arch

META = {"img_shape": (16, 16), "ori_shape": (16, 16)}


def make_head(**kwargs: Any) -> CosineSegHead:
    cfg = head_cfg(**kwargs)
    cfg.pop("type")
    return CosineSegHead(**cfg)


def text_cfg(**kwargs: Any) -> dict[str, Any]:
    arch = tiny_arch()
    arch["text_cfg"] = {**arch["text_cfg"], "vocab_size": 49408, "context_length": 77}
    return {
        "type": "OpenCLIPTextEncoder",
        "arch": arch,
        "cache_dir": False,
        "progress": False,
        **kwargs,
    }


def tiny_segmentor(**head: Any) -> OpenVocabSegmentor:
    torch.manual_seed(0)
    return OpenVocabSegmentor(
        backbone={"type": "ClearCLIPViT", "arch": tiny_arch()},
        decode_head={"type": "CosineSegHead", "text_encoder": text_cfg(), **head},
        test_cfg={"mode": "slide", "crop_size": (64, 64), "stride": (32, 32)},
    ).eval()


def test_logits_are_scaled_cosines() -> None:
    head = make_head()
    features = torch.randn(2, 4, 3, 5)
    want = 10 * torch.einsum("qe,behw->bqhw", torch.eye(4), F.normalize(features, dim=1))
    torch.testing.assert_close(head((features,)), want)


def test_half_precision_features_are_compared_in_float32() -> None:
    head = make_head()
    features = torch.randn(1, 4, 3, 5).bfloat16()
    want = head((features.float(),))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = head((features,))
    assert got.dtype == torch.float32
    assert torch.equal(got, want)


def test_scores_are_no_convolution() -> None:
    """cudnn runs those in TF32 by default."""
    with torch.profiler.profile() as profile:
        make_head()((torch.randn(1, 4, 3, 5),))
    assert not [event.key for event in profile.key_averages() if "conv" in event.key]


def stock(head: dict[str, Any], test_cfg: dict[str, Any]) -> EncoderDecoder:
    return EncoderDecoder(
        backbone={"type": "PatchMeanBackbone"},
        decode_head=head_cfg(num_classes=4, **head),
        test_cfg=ConfigDict(test_cfg),
    ).double()


@pytest.mark.parametrize("prob_thd", [0.0, 0.4, 0.55])
def test_stock_encoder_decoder_agrees_where_nothing_is_resized(prob_thd: float) -> None:
    """One window at the size of the photo: mean and resize are the identity in both paths."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    rule = {"prob_thd": prob_thd, "background_index": 0}
    ours = make_segmentor(rule, mode="whole").predict(images)
    theirs = stock(rule, {"mode": "whole"}).eval().predict(images)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.pred_sem_seg.data, b.pred_sem_seg.data)


def test_stock_encoder_decoder_slides() -> None:
    images = torch.randn(1, 3, 20, 28, dtype=torch.float64)
    model = stock({}, {"mode": "slide", "crop_size": (12, 12), "stride": (8, 8)}).eval()
    assert model.out_channels == model.num_classes == 4
    (result,) = model.predict(images)
    assert result.seg_logits.data.shape == (4, 20, 28)
    torch.testing.assert_close(
        result.seg_logits.data.sum(dim=0), torch.ones(20, 28, dtype=torch.float64)
    )


def test_an_area_threshold_needs_our_segmentor() -> None:
    images = torch.zeros(1, 3, 16, 16, dtype=torch.float64)
    make_segmentor({"area_thd": 0.1}, mode="whole").predict(images)
    with pytest.raises(ValueError, match=r"area_thd=0\.1 .*type='OpenVocabSegmentor'"):
        stock({"area_thd": 0.1}, {"mode": "whole"}).eval().predict(images)


def test_threshold_as_a_floor_is_strict() -> None:
    """Two classes share a pixel: at 0.5 the label stays, above it the background wins."""
    feature = torch.tensor([0.0, 1.0, 1.0, 0.0]).view(1, 4, 1, 1)
    meta = [{"img_shape": (1, 1)}]
    rule = {"logit_scale": 1000.0, "background_index": 0}
    kept = make_head(prob_thd=0.5, **rule).predict((feature,), meta, {})
    lost = make_head(prob_thd=0.501, **rule).predict((feature,), meta, {})
    assert (kept.argmax(dim=1).item(), lost.argmax(dim=1).item()) == (1, 0)


def samples_with_labels(labels: torch.Tensor) -> list[SegDataSample]:
    samples = []
    for label in labels:
        sample = SegDataSample(metainfo=META)
        sample.gt_sem_seg = PixelData(data=label[None])
        samples.append(sample)
    return samples


@pytest.mark.parametrize("segmentor", ["ours", "stock"])
def test_a_trainable_backbone_learns(segmentor: str) -> None:
    """Images are blue, the labels say green: the gain of blue must fall."""
    model = make_segmentor() if segmentor == "ours" else stock({}, {"mode": "whole"})
    images = torch.zeros(2, 3, 16, 16, dtype=torch.float64)
    images[:, 1:] = 1.0
    samples = samples_with_labels(torch.ones(2, 16, 16, dtype=torch.long))
    losses = model(images, samples, mode="loss")
    losses["decode.loss_ce"].backward()
    assert model.backbone.gain.grad[2] > 0 > model.backbone.gain.grad[1]
    assert "decode.acc_seg" in losses


def test_loss_uses_the_best_synonym_and_skips_ignored_pixels() -> None:
    head = make_head(vocabulary=[["a", "b"], "c", "d"])
    features = torch.randn(1, 4, 4, 4, requires_grad=True)
    label = torch.randint(0, 3, (1, 4, 4))
    label[0, 0] = 255
    loss = head.loss((features,), samples_with_labels(label), None)["loss_ce"]
    logits = head((features,))
    scores = torch.stack([logits[:, :2].amax(dim=1), logits[:, 2], logits[:, 3]], dim=1)
    torch.testing.assert_close(loss, F.cross_entropy(scores, label, ignore_index=255))


def test_loss_of_a_frozen_model_says_what_to_train() -> None:
    with pytest.raises(ValueError, match="trainable"):
        make_head().loss((torch.randn(1, 4, 4, 4),), [], None)


def test_a_label_that_is_no_class_is_named_with_its_file() -> None:
    samples = samples_with_labels(torch.full((1, 4, 4), 4))
    samples[0].set_metainfo({"seg_map_path": "labels/a.png"})
    features = torch.randn(1, 4, 4, 4, requires_grad=True)
    with pytest.raises(ValueError, match=r"labels/a\.png has 4; with 4 classes"):
        make_head().loss((features,), samples, None)


def test_follows_the_data_set_until_told() -> None:
    head = make_head(vocabulary="dataset")
    assert head.follow_dataset
    assert head.vocabulary is None
    assert head.num_classes is None
    with pytest.raises(RuntimeError, match="VocabularyHook"):
        head((torch.randn(1, 4, 2, 2),))
    head.set_vocabulary(NAMES)
    assert head.num_classes == 4
    assert head((torch.randn(1, 4, 2, 2),)).shape == (1, 4, 2, 2)


def test_a_refused_vocabulary_changes_nothing() -> None:
    head = make_head()
    features = (torch.randn(1, 4, 2, 2),)
    before = head(features)
    with pytest.raises(ValueError, match="3 ready embeddings for 2 queries"):
        head.set_vocabulary(["a", "b"], torch.rand(3, 4))
    assert head.vocabulary.class_names == tuple(NAMES)
    assert torch.equal(head(features), before)


def test_text_embeddings_follow_names_and_weights() -> None:
    model = tiny_segmentor(vocabulary=["cat", "dog"], templates="single")
    head = model.decode_head
    before = head.embeddings()
    torch.testing.assert_close(before.norm(dim=1), torch.ones(2))
    assert head.embeddings() is before
    model.set_vocabulary(["dog", "cat", "sky"])
    torch.testing.assert_close(head.embeddings()[:2], before.flip(0))
    state = model.state_dict()
    state = {k: torch.randn_like(v) if "text_projection" in k else v for k, v in state.items()}
    assert not any("_embeddings" in key for key in state)
    model.load_state_dict(state)
    assert (head.embeddings()[:2] - before.flip(0)).abs().max() > 1e-3


def test_predictions_of_a_real_tower_do_not_depend_on_batching() -> None:
    model = tiny_segmentor(vocabulary=["cat", "dog", "sky"], templates="single")
    images = torch.randn(2, 3, 70, 100)
    model.test_cfg = {**model.test_cfg, "return_probs": True}
    together = model.predict(images)
    model.test_cfg = {**model.test_cfg, "window_batch_size": 1}
    for image, result in zip(images, together, strict=True):
        (alone,) = model.predict(image[None])
        torch.testing.assert_close(alone.seg_logits.data, result.seg_logits.data)


def test_embeddings_made_under_inference_mode_serve_training() -> None:
    model = tiny_segmentor(vocabulary=["cat", "dog"], templates="single")
    with torch.inference_mode():
        model.decode_head.embeddings()
    features = torch.randn(1, 32, 2, 2, requires_grad=True)
    model.decode_head((features,)).sum().backward()
    assert features.grad is not None


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npy"])
def test_ready_embeddings_from_a_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"text{suffix}"
    if suffix == ".npy":
        np.save(path, 2 * np.eye(4, dtype=np.float16))
    else:
        torch.save(2 * torch.eye(4), path) if suffix == ".pt" else save_file(
            {"text": 2 * torch.eye(4)}, path
        )
    torch.testing.assert_close(make_head(embeddings=str(path)).embeddings(), torch.eye(4))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_damaged_file_of_embeddings_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"text{suffix}"
    path.write_bytes(b"<!DOCTYPE html><html>Not found</html>")
    with pytest.raises(ValueError, match=rf"text\{suffix}' is "):
        make_head(embeddings=path)
    state = {"a": torch.eye(4), "b": torch.eye(4)}
    torch.save(state, path) if suffix == ".pt" else save_file(state, path)
    with pytest.raises(ValueError, match=rf"in .*text\{suffix}' must be one tensor"):
        make_head(embeddings=path)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"embeddings": None}, "either a text_encoder or ready embeddings"),
        ({"text_encoder": torch.nn.Identity()}, "either a text_encoder or ready embeddings"),
        ({"embeddings": torch.eye(3)}, "3 ready embeddings for 4 queries"),
        ({"embeddings": torch.ones(4)}, "shape"),
        ({"num_classes": 5}, "num_classes=5"),
        ({"prob_thd": 1.5}, "prob_thd"),
        ({"area_thd": -0.1}, "area_thd"),
        ({"background_index": 4}, "background_index=4"),
    ],
)
def test_contradictions_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_head(**kwargs)


def test_a_text_encoder_that_would_not_be_trained_is_refused() -> None:
    with pytest.raises(ValueError, match=r"would not train its text_encoder: .*trainable=\(\)"):
        CosineSegHead(text_encoder=text_cfg(trainable=("q", "v")), vocabulary=NAMES)


def test_missing_file_and_wrong_width_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt"):
        make_head(embeddings=tmp_path / "nothing.pt")
    with pytest.raises(ValueError, match="5 channels, text embeddings 4"):
        make_head()((torch.randn(1, 5, 2, 2),))
