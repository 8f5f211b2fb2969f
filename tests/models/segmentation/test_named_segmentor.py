"""Every segmentor predicts by the names that it was told or asked for, and says which they are."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import get_classes, get_palette

from mmclipdis.engine.random_weights import take_as_meant
from mmclipdis.models.segmentation.named_segmentor import config_metainfo
from tests.models.segmentation.fakes import NAMES, make_segmentor
from tests.paths import ROOT

SHAPES = ROOT / "configs" / "shapes"
CLIP = {"arch": "shapes-tiny", "init_cfg": {"type": "Pretrained", "checkpoint": "shapes"}}
KINDS = ("OpenVocabSegmentor", "CATSeg", "InfoCLIP", "EncoderDecoder", "slide")


def build(kind: str) -> Any:
    """A segmentor on the tiny CLIP that follows its data set."""
    init_default_scope("mmseg")
    torch.manual_seed(0)
    file = {"CATSeg": "catseg", "InfoCLIP": "infoclip"}.get(kind, "clearclip")
    config = Config.fromfile(SHAPES / f"{file}.py").model
    if kind in ("EncoderDecoder", "slide"):
        sizes = dict(mode="slide", crop_size=(48, 48), stride=(24, 24))
        config.update(
            type="EncoderDecoder", test_cfg=sizes if kind == "slide" else {"mode": "whole"}
        )
    model = MODELS.build(config)
    model.init_weights()
    take_as_meant(model)
    if kind in ("CATSeg", "InfoCLIP"):
        model.test_cfg = {"mode": "whole"}
    return model.eval()


def name(model: Any, names: Any) -> None:
    """Change the names of a segmentor, or of the head in mmseg's own."""
    (model if hasattr(model, "set_vocabulary") else model.decode_head).set_vocabulary(names)


@pytest.fixture(scope="module", params=KINDS)
def segmentor(request: pytest.FixtureRequest) -> Any:
    return build(request.param)


@pytest.fixture(autouse=True)
def no_names(request: pytest.FixtureRequest) -> None:
    """Forget what another test has told the segmentor of the module."""
    if "segmentor" in request.fixturenames:
        model = request.getfixturevalue("segmentor")
        for part in (model, getattr(model, "segmentor", None), model.decode_head):
            if hasattr(part, "_vocabulary"):
                part._vocabulary = None
            for name in ("_dataset_meta", "_guess", "cfg"):
                getattr(part, "__dict__", {}).pop(name, None)


def predict(model: Any, *texts: Any, first: int = 0) -> list[SegDataSample]:
    """Predict an image for each text; the i-th is always the same."""
    shape = {"ori_shape": (64, 64), "img_shape": (64, 64), "pad_shape": (64, 64)}
    samples = [
        SegDataSample(metainfo={**shape, **({} if text is None else {"text": text})})
        for text in texts
    ]
    images = [
        torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(first + i)) * 255
        for i in range(len(texts))
    ]
    found: list[SegDataSample] = model.test_step({"inputs": images, "data_samples": samples})
    return found


def test_a_batch_of_different_texts_equals_one_by_one(segmentor: Any) -> None:
    name(segmentor, ["grass", "snow", "wheel"])
    texts = ["kite . red apple . sand", None, ["sand", "kite"], "kite . red apple . sand"]
    together = predict(segmentor, *texts)
    names = [["kite", "red apple", "sand"], ["grass", "snow", "wheel"], ["sand", "kite"]]
    assert [sample.label_names for sample in together] == [*names, names[0]]
    for i, text in enumerate(texts):
        name(segmentor, ["grass", "snow", "wheel"] if text is None else together[i].label_names)
        (alone,) = predict(segmentor, None, first=i)
        assert torch.equal(alone.pred_sem_seg.data, together[i].pred_sem_seg.data), text
    assert len({tuple(s.pred_sem_seg.data.unique().tolist()) for s in together}) > 1


def test_the_models_own_names_stay_after_a_text(segmentor: Any) -> None:
    name(segmentor, ["grass", "snow"])
    (before,), (one,), (after,) = (predict(segmentor, text) for text in (None, "kite", None))
    assert after.label_names == before.label_names == ["grass", "snow"]
    assert torch.equal(after.pred_sem_seg.data, before.pred_sem_seg.data)
    assert not one.pred_sem_seg.data.any()
    with pytest.raises(ValueError, match="names no classes"):
        predict(segmentor, " . ")
    assert segmentor.dataset_meta["classes"] == ("grass", "snow")


def test_a_text_needs_no_names_of_the_model(segmentor: Any) -> None:
    (sample,) = predict(segmentor, ["kite", "sand"])
    assert sample.label_names == ["kite", "sand"]


def test_names_come_from_the_dataset_meta(segmentor: Any) -> None:
    segmentor.dataset_meta = {"classes": ("sand", "snow", "kite"), "palette": [(1, 2, 3)] * 3}
    (sample,) = predict(segmentor, None)
    assert sample.label_names == ["sand", "snow", "kite"]
    name(segmentor, ["sand", "water"])
    assert segmentor.dataset_meta["classes"] == ("sand", "water")
    assert segmentor.dataset_meta["palette"] == [(1, 2, 3)] * 2
    (sample,) = pickle.loads(pickle.dumps(predict(segmentor, None)))
    assert sample.label_names == ["sand", "water"]
    sample.label_names = ["a", "b"]  # a field like others


@pytest.mark.parametrize("guess", ["cityscapes", "ade20k", None])
def test_what_mmseg_makes_up_is_no_name_where_the_config_has_some(
    segmentor: Any, guess: str | None
) -> None:
    segmentor.cfg = Config.fromfile(SHAPES / "clearclip.py")
    if guess:
        segmentor.dataset_meta = {"classes": get_classes(guess), "palette": get_palette(guess)}
    (sample,) = predict(segmentor, None)
    known = config_metainfo(segmentor.cfg)
    assert known is not None
    assert tuple(sample.label_names) == known["classes"] and "apple" in sample.label_names
    assert segmentor.dataset_meta["palette"] == known["palette"]


def test_without_config_they_are_taken(segmentor: Any) -> None:
    segmentor.dataset_meta = {"classes": get_classes("voc"), "palette": get_palette("voc")}
    assert predict(segmentor, None)[0].label_names == get_classes("voc")


def test_without_any_names_it_says_how_to_name_some(segmentor: Any) -> None:
    segmentor.cfg = Config({"test_dataloader": {"dataset": {"type": "BaseSegDataset"}}})
    segmentor.dataset_meta = {"classes": get_classes("cityscapes"), "palette": [[0, 0, 0]] * 19}
    with pytest.raises(
        (RuntimeError, ValueError), match=r"no class names yet|not know its classes"
    ):
        predict(segmentor, None)


def test_ready_embeddings_have_no_others_names() -> None:
    model = make_segmentor(mode="whole")
    image = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    with pytest.raises(ValueError, match="has ready embeddings of .*; give it a text_encoder|only"):
        model.predict(image, [SegDataSample(metainfo={"text": "a . b . c . d"})])
    (sample,) = model.predict(image, [SegDataSample(metainfo={"text": NAMES})])
    assert sample.label_names == NAMES


def test_other_heads_of_mmseg_keep_their_fixed_classes() -> None:
    init_default_scope("mmseg")
    model = MODELS.build(
        {
            "type": "EncoderDecoder",
            "backbone": {"type": "PatchMeanBackbone"},
            "decode_head": {
                "type": "FCNHead",
                **dict(in_channels=4, channels=4, num_classes=3, num_convs=0, concat_input=False),
            },
            "test_cfg": Config({"mode": "whole"}),
            "data_preprocessor": {"type": "SegDataPreProcessor"},
        }
    ).eval()
    assert not hasattr(model, "dataset_meta")
    model.dataset_meta = {"classes": ["a"] * 3}
    assert model.dataset_meta == {"classes": ["a"] * 3}
    assert "label_names" not in predict(model, None)[0]
    with pytest.raises(ValueError, match="the classes of EncoderDecoder are fixed: leave the text"):
        predict(model, "kite")


def test_names_of_a_config() -> None:
    wrapped = {"type": "RepeatDataset", "dataset": {"type": "ADE20KDataset"}}
    found = config_metainfo({"test_dataloader": {"dataset": wrapped}})
    assert found is not None and len(found["classes"]) == len(found["palette"]) == 150
    some = {"type": "ADE20KDataset", "metainfo": {"classes": ["sky", "wall"]}}
    found = config_metainfo({"test_dataloader": {"dataset": some}})
    assert found == {"classes": ("sky", "wall"), "palette": [[6, 230, 230], [120, 120, 120]]}
    assert config_metainfo(None) is None
    assert config_metainfo({"test_dataloader": {"dataset": {"type": "BaseSegDataset"}}}) is None


@pytest.mark.parametrize("file", ["clearclip", "catseg", "infoclip"])
def test_pretrained_is_none_or_refused(file: str) -> None:
    init_default_scope("mmseg")
    config = Config.fromfile(SHAPES / f"{file}.py").model
    config.update(pretrained=None, train_cfg=None)  # as mmseg's init_model writes
    MODELS.build(config)
    config.pretrained = "a.pth"
    part = {"clearclip": "backbone", "catseg": "image_encoder"}.get(file, "segmentor.image_encoder")
    line = rf"takes pretrained=None only, got 'a.pth': name the .* {part}.init_cfg=dict\(type='Pre"
    with pytest.raises(ValueError, match=line):
        MODELS.build(config)
