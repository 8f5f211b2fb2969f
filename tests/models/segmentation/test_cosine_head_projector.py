"""The cosine head with DCLIP's projectors, normalised scores, and a background without names."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from mmseg.models import EncoderDecoder

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.clip.towers.readout import DualPath
from mmclipdis.engine.foreign_checkpoint_guard import ForeignCheckpointGuard
from mmclipdis.models.projectors import Projectors
from mmclipdis.models.segmentation import CosineSegHead, OpenVocabSegmentor
from mmclipdis.models.segmentation.prediction import minmax
from tests.models.segmentation.fakes import NAMES, head_cfg, make_segmentor
from tests.models.segmentation.test_cosine_head import (
    make_head,
    samples_with_labels,
    text_cfg,
    tiny_segmentor,
)

ARCH = text_cfg()["arch"]
OWN = "RN101-quickgelu"
WIDTH = 32


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A checkpoint with projectors of the tiny CLIP."""
    torch.manual_seed(3)
    state = Projectors(WIDTH, out_dim=6, arch=ARCH).state_dict()
    path = tmp_path / "epoch_1.pth"
    torch.save({"state_dict": {f"projectors.{k}": v for k, v in state.items()}}, path)
    return str(path)


def tiny_head(**kwargs: Any) -> CosineSegHead:
    torch.manual_seed(0)
    settings = {"vocabulary": NAMES, "templates": "single", **kwargs}
    return CosineSegHead(text_encoder=text_cfg(), **settings).eval()


def stock(head: dict[str, Any], test_cfg: dict[str, Any]) -> EncoderDecoder:
    torch.manual_seed(0)
    return EncoderDecoder(
        backbone={"type": "ClearCLIPViT", "arch": ARCH},
        decode_head={
            "type": "CosineSegHead",
            "text_encoder": text_cfg(),
            "vocabulary": NAMES,
            "templates": "single",
            "num_classes": 4,
            **head,
        },
        test_cfg=ConfigDict(test_cfg),
    ).eval()


# --- the projectors ---------------------------------------------------------------------------


def test_map_and_text_are_projected_and_then_normalised(file: str) -> None:
    head = tiny_head(projector=file, logit_scale=100.0)
    maps = torch.randn(2, WIDTH, 3, 5)
    found = head((maps,))
    assert found.shape == (2, 4, 3, 5)
    own = head.projector
    for c, name in enumerate(NAMES):
        words = head.text_encoder.embed(Vocabulary.from_names([name], "single"))
        text = own.text(words)[0]
        for b in range(2):
            for y in range(3):
                for x in range(5):
                    token = own.image(maps[b, :, y, x])
                    want = 100 * F.cosine_similarity(token, text, dim=0)
                    torch.testing.assert_close(found[b, c, y, x], want, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, tiny_head(logit_scale=100.0)((maps,)))


@pytest.mark.parametrize("readout", ["vanilla", "vv", DualPath(blocks=2)])
def test_any_readout_is_projected(file: str, readout: Any) -> None:
    torch.manual_seed(0)
    model = OpenVocabSegmentor(
        backbone={"type": "CLIPViT", "arch": ARCH, "readout": readout},
        decode_head={
            "type": "CosineSegHead",
            "text_encoder": text_cfg(),
            "vocabulary": NAMES,
            "projector": file,
        },
    ).eval()
    images = torch.randn(1, 3, 64, 96)
    (result,) = model.predict(images)
    logits = model(images)
    want = F.interpolate(logits, (64, 96), mode="bilinear").argmax(1)
    assert torch.equal(result.pred_sem_seg.data, want)


def test_stock_encoder_decoder_projects_too(file: str) -> None:
    images = torch.randn(2, 3, 64, 64)
    for test_cfg in (
        {"mode": "whole"},
        {"mode": "slide", "crop_size": (64, 64), "stride": (32, 32)},
    ):
        theirs = stock({"projector": file}, test_cfg).predict(images)
        plain = stock({}, test_cfg).predict(images)
        model = OpenVocabSegmentor(
            backbone={"type": "ClearCLIPViT", "arch": ARCH},
            decode_head={
                "type": "CosineSegHead",
                "text_encoder": text_cfg(),
                "vocabulary": NAMES,
                "templates": "single",
                "projector": file,
            },
            test_cfg={**test_cfg, "return_probs": True},
        )
        model.load_state_dict(stock({"projector": file}, test_cfg).state_dict())
        ours = model.eval().predict(images)
        for one, other, third in zip(ours, theirs, plain, strict=True):
            torch.testing.assert_close(one.seg_logits.data, other.seg_logits.data)
            assert not torch.equal(third.seg_logits.data, other.seg_logits.data)


def test_classes_can_change_and_ready_embeddings_are_projected(file: str) -> None:
    head, maps = tiny_head(projector=file), torch.randn(1, WIDTH, 2, 2)
    before = head((maps,))
    embeddings = head.embeddings().clone()
    ready = CosineSegHead(embeddings=embeddings, vocabulary=NAMES, projector=file).eval()
    torch.testing.assert_close(ready((maps,)), before)
    head.set_vocabulary([NAMES[2], "sky"])
    torch.testing.assert_close(head((maps,))[:, 0], before[:, 2])
    ready.set_vocabulary([NAMES[2]], embeddings[2:3])
    torch.testing.assert_close(ready((maps,))[:, 0], before[:, 2])


def test_projectors_may_be_the_module_of_a_model() -> None:
    own = Projectors(WIDTH, out_dim=6).eval()
    head, maps = tiny_head(projector=own), torch.randn(1, WIDTH, 2, 2)
    before = head((maps,))
    torch.nn.init.normal_(own.text[3].weight)
    assert not torch.allclose(head((maps,)), before)


def test_a_file_that_does_not_fit_is_one_error_when_the_head_is_built(
    file: str, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=r"no projectors at .*gone.pth.*tools/train.py"):
        tiny_head(projector=str(tmp_path / "gone.pth"))
    with pytest.raises(ValueError, match="for a CLIP of 32 channels, the one in use has 4"):
        make_head(projector=file)
    torch.save(Projectors(WIDTH, arch=OWN).state_dict(), file)
    with pytest.raises(ValueError, match=f"trained on '{OWN}', but the model uses the CLIP of"):
        tiny_head(projector=file)
    assert tiny_head(projector=file, any_arch=True).projector.arch == OWN
    with pytest.raises(ValueError, match="32 channels, the projectors take 16"):
        tiny_head(projector=Projectors(16))
    with pytest.raises(ValueError, match="projector is a file"):
        tiny_head(projector={"type": "Projectors"})


def test_the_module_must_be_of_the_text_encoders_clip() -> None:
    for arch in (ARCH, None):
        assert tiny_head(projector=Projectors(WIDTH, arch=arch)).projector.arch == arch
    with pytest.raises(ValueError, match=f"the head's projector was trained on '{OWN}'"):
        tiny_head(projector=Projectors(WIDTH, arch=OWN))
    tiny_head(projector=Projectors(WIDTH, arch=OWN), any_arch=True)


def test_the_backbone_must_be_of_the_projectors_clip() -> None:
    other = Projectors(WIDTH, arch=OWN).eval()
    with pytest.raises(ValueError, match=f"the head's projector was trained on '{OWN}'"):
        tiny_segmentor(projector=other)
    tiny_segmentor(projector=other, any_arch=True)


def test_the_backbone_must_have_the_weights_of_the_projectors_clip() -> None:
    images = torch.randn(1, 3, 64, 64)
    own = Projectors(WIDTH).eval()
    own.load_state_dict(Projectors(WIDTH).state_dict())
    model = tiny_segmentor(projector=own, vocabulary=NAMES)
    own.belong_to(model.backbone)
    model.predict(images)
    with torch.no_grad():
        next(model.backbone.tower.parameters()).add_(1e-3)
    state = model.decode_head.state_dict()
    model.predict(images)  # looked at once
    model.decode_head.load_state_dict(state)
    with pytest.raises(ValueError, match="trained on a CLIP with other weights than those in use"):
        model.predict(images)
    model.decode_head.any_arch = True
    model.predict(images)


def test_a_checkpoint_of_dclip_is_named_in_another_way(file: str) -> None:
    runner = SimpleNamespace(model=tiny_segmentor())
    with pytest.raises(ValueError, match=r"go into --cfg-options model.decode_head.projector=FILE"):
        ForeignCheckpointGuard().after_load_checkpoint(runner, torch.load(file))


def test_a_backbone_can_be_tuned_through_the_projectors(file: str) -> None:
    head = tiny_head(projector=file).train()
    maps = torch.randn(1, WIDTH, 4, 4, requires_grad=True)
    labels = samples_with_labels(torch.randint(0, 4, (1, 4, 4)))
    head.loss((maps,), labels, None)["loss_ce"].backward()
    assert maps.grad.abs().sum() > 0
    assert all(p.grad is None for p in head.projector.parameters())


# --- normalised scores ------------------------------------------------------------------------


def test_scores_are_spread_over_all_windows_of_an_image() -> None:
    torch.manual_seed(1)
    maps = torch.randn(3, 2, 4, 5)
    found = minmax(maps)
    for q in range(2):
        values = maps[:, q].flatten().tolist()
        low, high = min(values), max(values)
        for at, value in enumerate(values):
            want = (value - low) / (high - low)
            assert found[:, q].flatten()[at].item() == pytest.approx(want, abs=1e-6)
    assert torch.equal(minmax(torch.full((1, 1, 2, 2), 7.0)), torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_the_segmentor_normalises_before_it_upsamples(mode: str) -> None:
    torch.manual_seed(2)
    sizes = {} if mode == "whole" else {"crop_size": (12, 12), "stride": (8, 8)}
    images = torch.rand(2, 3, 20, 28, dtype=torch.float64)
    model = make_segmentor({"score_norm": "minmax", "logit_scale": 100.0}, mode=mode, **sizes)
    plain = make_segmentor({"logit_scale": 100.0}, mode=mode, **sizes)
    spread, raw = (m.window_scores(list(images)) for m in (model, plain))
    for one, other in zip(spread, raw, strict=True):
        torch.testing.assert_close(one.maps, 100 * minmax(other.maps))
        assert one.maps.amin() == 0 and one.maps.amax() == 100
    assert not torch.equal(model(images).amax(), torch.tensor(100.0))
    alone = model.predict(images[:1])[0].pred_sem_seg.data
    assert torch.equal(alone, model.predict(images)[0].pred_sem_seg.data)


def test_normalised_scores_need_our_segmentor() -> None:
    with pytest.raises(ValueError, match=r"score_norm='minmax' .*type='OpenVocabSegmentor'"):
        stock({"score_norm": "minmax"}, {"mode": "whole"}).predict(torch.randn(1, 3, 64, 64))
    with pytest.raises(
        ValueError, match="score_norm must be None, 'minmax' or 'surgery', got 'max'"
    ):
        make_head(score_norm="max")


# --- background -------------------------------------------------------------------------------

RULE = {"background": "threshold", "prob_thd": 0.85, "logit_scale": 100.0}
THREE = ["background", "cat", "dog"]


def two_class_map(*cosines: float) -> torch.Tensor:
    """A map (1, 3, 1, 1) with these cosines to the first two axes."""
    rest = math.sqrt(1 - sum(c * c for c in cosines))
    return torch.tensor([*cosines, rest], dtype=torch.float64).view(1, 3, 1, 1)


def background_head(**kwargs: Any) -> CosineSegHead:
    ready = torch.eye(3, dtype=torch.float64)[:2]
    settings = {**RULE, "embeddings": ready, "vocabulary": THREE, **kwargs}
    return CosineSegHead(**settings).double()


@pytest.mark.parametrize(
    ("second", "probability", "label"), [(0.28, 0.8808, 1), (0.285, 0.8176, 0)]
)
@pytest.mark.parametrize("segmentor", ["ours", "stock"])
def test_golden_values_of_the_background(
    second: float, probability: float, label: int, segmentor: str
) -> None:
    """DCLIP spec, section 10: (.30, .28) is a class, (.30, .285) is none."""
    feature = two_class_map(0.30, second)
    head = background_head()
    assert head((feature,)).softmax(1).max().item() == pytest.approx(probability, abs=5e-5)

    class Still(torch.nn.Module):
        patch_size = (4, 4)

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (feature,)

    MODELS.register_module(name="StillBackbone", module=Still, force=True)
    parts = dict(
        backbone={"type": "StillBackbone"},
        decode_head={
            **RULE,
            "type": "CosineSegHead",
            "embeddings": torch.eye(3)[:2],
            "vocabulary": THREE,
            "num_classes": 3,
        },
    )
    if segmentor == "ours":
        model = OpenVocabSegmentor(**parts)
    else:
        model = EncoderDecoder(**parts, test_cfg=ConfigDict(mode="whole"))
    (result,) = model.double().eval().predict(torch.zeros(1, 3, 4, 4, dtype=torch.float64))
    assert result.pred_sem_seg.data.unique().tolist() == [label]


def test_without_names_the_background_is_not_asked_for() -> None:
    names = ["ground", ["cat", "kitten"], "dog"]
    head = tiny_head(background="threshold", prob_thd=0.3)
    head.set_vocabulary({"names": names, "background_index": 0})
    assert head.num_classes == 3 and head.vocabulary.class_names[0] == "ground"
    assert head.query_to_class.tolist() == [1, 1, 2]
    asked = head.text_encoder.embed(Vocabulary.from_names(names[1:], "single"))
    torch.testing.assert_close(head.embeddings(), asked)
    options = {"background": "threshold", "prob_thd": 0.3, "background_index": 2}
    last = tiny_head(**options, vocabulary=["cat", "dog", "rest"])
    assert last.query_to_class.tolist() == [0, 1]
    assert last.rule().background_index == 2 and last.rule().num_classes == 3


def test_images_get_labels_by_a_naive_rule() -> None:
    torch.manual_seed(5)
    rule = {"background": "threshold", "prob_thd": 0.5, "background_index": 0}
    head = {**rule, "embeddings": torch.eye(4)[:3]}
    model = make_segmentor(head, mode="whole")
    images = 3 * torch.randn(1, 3, 16, 24, dtype=torch.float64)
    logits = F.interpolate(model(images), (16, 24), mode="bilinear")
    best, label = logits.softmax(1).max(1)
    want = torch.where(best < 0.5, 0, label + 1)
    (result,) = model.predict(images)
    assert torch.equal(result.pred_sem_seg.data, want)
    assert want.unique().tolist() == [0, 1, 2, 3]
    probable = make_segmentor(head, mode="whole", return_probs=True).predict(images)[0]
    assert torch.equal(probable.pred_sem_seg.data, want)
    assert not probable.seg_logits.data[0].any()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"background='threshold' .*set prob_thd"):
        make_head(background="threshold")
    with pytest.raises(ValueError, match="background must be one of query, threshold"):
        make_head(background="none")
    with pytest.raises(ValueError, match="leaves no class to ask for"):
        tiny_head(**RULE).set_vocabulary(["background"])
    with pytest.raises(ValueError, match="3 ready embeddings for 2 queries"):
        background_head(embeddings=torch.eye(3))
    maps = torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="only predict"):
        background_head().loss((maps,), [], None)
    assert head_cfg()["type"] == "CosineSegHead"
