"""CLIP's zero-shot recognition, and the second look at segments, on an encoder of known answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.clip.towers.features import DenseFeatures
from mmclipdis.engine.foreign_checkpoint_guard import ForeignCheckpointGuard
from mmclipdis.evaluation.multi_label_metric import MultiLabelMetric
from mmclipdis.models.projectors import Projectors
from mmclipdis.models.recognition import zero_shot
from mmclipdis.models.recognition.segments import DCLIPSegments
from mmclipdis.models.recognition.zero_shot import ZeroShotRecognizer
from tests.models.recognition.tiny_dclip import NAMES, batch, config, samples, small_arch
from tests.tiny import tiny_resnet_arch

COLOURS = ["red", "green", "blue"]


class Eye(nn.Module):
    """An encoder that sees the mean colour, of an image or of its 4 x 4 px patches."""

    embed_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.tower = SimpleNamespace(encode_image=self.encode_image)
        self.seen: list[tuple[int, ...]] = []

    def encode_image(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape))
        return images.mean((2, 3))

    def dense(self, images: Tensor) -> DenseFeatures:
        return DenseFeatures(F.avg_pool2d(images, 4))


class Words(BaseModule):
    """A text encoder whose classes are the three colours."""

    embed_dim = 3

    def embed(self, vocabulary: Vocabulary) -> Tensor:
        return torch.eye(3)[[COLOURS.index(name) for name in vocabulary.class_names]]


def same() -> Projectors:
    """Projectors that change no cosine of colours."""
    made = Projectors(3, hidden_dim=3, out_dim=3).eval()
    for weight in (made.text[0].weight, made.text[3].weight, made.image.weight):
        torch.nn.init.eye_(weight)
    return made


def model(vocabulary: Any = COLOURS, **segments: Any) -> ZeroShotRecognizer:
    options = {"projector": same(), **segments} if segments else None
    return ZeroShotRecognizer(Eye(), Words(), vocabulary, segments=options).eval()


def scene() -> Tensor:
    """A red square of 8 x 8 px at (8, 16) in 32 x 32 px of green."""
    image = torch.zeros(1, 3, 32, 32)
    image[:, 1] = 1
    image[:, 1, 8:16, 16:24] = 0
    image[:, 0, 8:16, 16:24] = 1
    return image


def test_logits_are_scaled_cosines_of_the_whole_image():
    mean = torch.tensor([64.0, 960.0, 0.0])
    torch.testing.assert_close(model()(scene())[0], 100 * mean / mean.norm())
    torch.testing.assert_close(
        ZeroShotRecognizer(Eye(), Words(), COLOURS, logit_scale=10.0)(scene())[0],
        10 * mean / mean.norm(),
    )


def test_a_segment_is_found_though_the_whole_hides_it():
    seen = model(min_area=0.01)
    logits = seen(scene())[0]
    torch.testing.assert_close(logits, torch.tensor([100.0, 100.0, 0.0]), atol=0.5, rtol=0)
    assert seen.encoder.seen == [(1, 3, 32, 32), (2, 3, 32, 32)]
    whole = model()(scene())[0]
    mean = model(reduce="mean")(scene())[0]
    torch.testing.assert_close(mean[:1], (whole + logits)[:1] / 2)


def test_small_segments_are_left_out():
    whole = model()(scene())
    # bilinear between patches gives red some pixels less or more than its 64 of 1024
    torch.testing.assert_close(model(min_area=0.2)(scene())[:, 0], whole[:, 0])
    assert model(min_area=0.02)(scene())[0, 0] > 90
    none = torch.cat([scene(), scene()])
    every = DCLIPSegments(same(), 3, min_area=1.0)
    assert every.crops(none[0], torch.tensor([[0, 1], [1, 1]])) == []
    torch.testing.assert_close(model(min_area=1.0)(none), whole.expand(2, 3))


def test_crops_are_the_boxes_of_the_regions():
    image = torch.arange(75.0).view(3, 5, 5)
    labels = torch.zeros(5, 5, dtype=torch.long)
    labels[1, 2] = labels[3, 3] = 7
    plain = DCLIPSegments(same(), 3, min_area=0.05).crops(image, labels)
    assert [tuple(crop.shape) for crop in plain] == [(3, 5, 5), (3, 3, 2)]
    assert torch.equal(plain[1], image[:, 1:4, 2:4])
    grey = DCLIPSegments(same(), 3, min_area=0.05, grey=True).crops(image, labels)[1]
    assert grey[0].tolist() == [[7, 0], [0, 0], [0, 18]]


def test_images_of_a_batch_do_not_mix_and_crops_are_seen_in_batches(monkeypatch):
    torch.manual_seed(0)
    images = torch.cat([scene(), scene().flip(1), torch.rand(1, 3, 32, 32)])
    seen = model(min_area=0.01)
    together = seen(images)
    alone = torch.cat([model(min_area=0.01)(images[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)
    monkeypatch.setattr(zero_shot, "CROPS_AT_ONCE", 2)
    few = model(min_area=0.01)
    torch.testing.assert_close(few(images), together)
    sizes = [shape[0] for shape in few.encoder.seen[1:]]
    assert max(sizes) == 2 and sum(sizes) == sum(shape[0] for shape in seen.encoder.seen[1:])


def test_the_three_sizes_are_independent():
    made = ZeroShotRecognizer(
        Eye(),
        Words(),
        COLOURS,
        image_size=16,
        segments=dict(projector=same(), size=(64, 48), crop_size=12),
    )
    sizes = []
    dense = made.encoder.dense
    made.encoder.dense = lambda images: sizes.append(tuple(images.shape[2:])) or dense(images)
    made(scene())
    assert sizes == [(64, 48)]
    assert [shape[2:] for shape in made.encoder.seen] == [(16, 16), (12, 12)]


def test_predictions_rank_by_logit_and_score_as_clip_classifies():
    seen = model("dataset", min_area=0.01)
    with pytest.raises(RuntimeError, match="no class names yet"):
        seen(scene())
    seen.set_vocabulary(COLOURS[:2])
    (sample,) = seen(scene(), samples(torch.zeros(1, 2)), mode="predict")
    torch.testing.assert_close(sample.pred_logit, seen(scene())[0])
    torch.testing.assert_close(sample.pred_score, sample.pred_logit.softmax(0))
    seen.set_vocabulary(COLOURS[::-1])
    torch.testing.assert_close(seen(scene()).flip(1), model(min_area=0.01)(scene()))
    with pytest.raises(ValueError, match="learns nothing, it only predicts; got 'loss'"):
        seen(scene(), mode="loss")
    (broken,) = seen(scene() * torch.nan, samples(torch.zeros(1, 3)), mode="predict")
    with pytest.raises(ValueError, match="nan or infinite .*: photo_0.jpg;"):
        MultiLabelMetric().process(None, [broken.to_dict()])


@pytest.mark.parametrize("kind", ["CLIPViT", "CLIPResNet"])
def test_real_towers_from_a_file_of_projectors(kind, tmp_path):
    arch = small_arch()
    if kind == "CLIPResNet":
        arch = dict(tiny_resnet_arch(), text_cfg=arch["text_cfg"])
    path = tmp_path / "projectors.pth"
    torch.save(Projectors(32, arch=arch).state_dict(), path)
    parts = dict(
        encoder=dict(type=kind, arch=arch, readout="vv"),
        text_encoder=dict(config()["text_encoder"], arch=arch),
        vocabulary=NAMES,
    )
    torch.manual_seed(0)
    made = ZeroShotRecognizer(**parts, segments=dict(projector=str(path))).eval()
    images, labelled = batch()
    names = made.text.encoder.embed(Vocabulary.from_names(NAMES, "single"))
    whole = made.encoder.tower.encode_image(images)
    cosines = F.cosine_similarity(whole[:, None], names[None], dim=2)
    plain = ZeroShotRecognizer(made.encoder, made.text.encoder, NAMES)
    torch.testing.assert_close(plain(images), 100 * cosines, rtol=1e-4, atol=1e-4)
    found = made.test_step(dict(inputs=list(images), data_samples=labelled))
    assert found[0].pred_score.sum().item() == pytest.approx(1, abs=1e-5)
    assert (made(images) >= plain(images) - 1e-4).all()
    own = made.segments.projector
    tokens = own.image(made.encoder.dense(images).map.movedim(1, -1))
    similar = F.cosine_similarity(tokens[..., None, :], own.text(names), dim=-1).movedim(-1, 1)
    want = F.interpolate(similar, images.shape[2:], mode="bilinear").argmax(1)
    assert torch.equal(made.segments.labels(made.encoder.dense(images).map, names, (64, 64)), want)
    next(made.encoder.tower.parameters()).data.add_(1e-3)
    own.load_state_dict(own.state_dict())
    with pytest.raises(ValueError, match="trained on a CLIP with other weights than those in use"):
        made(images)
    made.segments.any_arch = True
    made(images)
    torch.save(Projectors(32, arch="RN101-quickgelu").state_dict(), path)
    with pytest.raises(ValueError, match="trained on 'RN101-quickgelu', but the model uses"):
        ZeroShotRecognizer(**parts, segments=dict(projector=str(path)))


def test_a_checkpoint_of_dclip_goes_where_the_model_has_projectors():
    state = same().state_dict(prefix="projectors.")
    plain = nn.Linear(3, 3)
    plain.embed_dim = 3
    for other, remedy in (
        (model(min_area=0.1), r"go into --cfg-options model.segments.projector=FILE$"),
        (ZeroShotRecognizer(plain, Words(), COLOURS), "config that they were trained wi"),
    ):
        with pytest.raises(ValueError, match=remedy) as error:
            ForeignCheckpointGuard().after_load_checkpoint(SimpleNamespace(model=other), state)
        assert "decode_head" not in str(error.value)


def test_options_out_of_range_are_refused():
    for options, message in (
        (dict(reduce="sum"), "reduce must be one of max, mean"),
        (dict(min_area=2), "min_area is a share"),
        (dict(size=0), "segments.size is a side or"),
        (dict(crop_size=(1, 2, 3)), "segments.crop_size is a side or"),
    ):
        with pytest.raises(ValueError, match=message):
            model(**options)
    with pytest.raises(FileNotFoundError, match="no projectors at 'gone.pth'"):
        model(projector="gone.pth")
    with pytest.raises(ValueError, match="brings templates, which this model does not read"):
        model(dict(names=COLOURS, templates="imagenet80"))
