"""What F-ViT calls things: names of a dataset_meta, of a config, of each photo's text."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

pytest.importorskip("mmdet")

from mmdet.evaluation import get_classes
from mmdet.visualization import DetLocalVisualizer

from mmclipdis.clip.text.encoder import TextTower
from mmclipdis.engine.vocabulary_hook import VocabularyHook
from mmclipdis.models.text_encoder import OpenCLIPTextEncoder
from tests.models.detection.fvit.tiny import CLASSES, DIM, NOVEL, batch, bbox_head, build
from tests.models.detection.fvit.tiny import config as tiny_config
from tests.tiny import tiny_arch

META = {"classes": CLASSES, "novel_classes": NOVEL}
FLAGS = (False, True, False, True)


@pytest.fixture(autouse=True)
def mmdet_scope() -> None:
    DefaultScope.get_instance("test-fvit-names", scope_name="mmdet")


def fresh(**head: Any) -> Any:
    """A model that nobody has told any class."""
    return build(tiny_config(bbox_head(**head)), told=False).eval()


def predict(model: Any, texts: Sequence[Any] = (), custom: bool = True) -> list[Any]:
    """Detections of two photos, each with its text."""
    data = batch(model, False)
    for sample, text in zip(data["data_samples"], texts):
        if text is not None:
            sample.set_metainfo({"text": text, "custom_entities": custom})
    with torch.no_grad():
        return [sample.pred_instances for sample in model(**data, mode="predict")]


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(one[key], other[key]) for key in ("bboxes", "scores", "labels"))


def test_a_dataset_meta_is_the_vocabulary_with_its_flags() -> None:
    model = fresh()
    model.dataset_meta = META
    assert model.vocabulary.class_names == CLASSES
    assert model.roi_head.bbox_head.novel == FLAGS
    model.dataset_meta = {"classes": CLASSES[:3], "base_classes": ("cat", "cow")}
    assert model.roi_head.bbox_head.novel == (False, True, False)
    told = build().eval()
    model.dataset_meta = META
    model.load_state_dict(told.state_dict())
    assert all(same(a, b) for a, b in zip(predict(model), predict(told)))


@pytest.mark.parametrize("palette", [np.full((3, 3), 7), [[7, 7, 7]], [(7, 7, 7)] * 9])
def test_arrays_and_lists_of_a_dataset_meta_name_and_draw_as_tuples_do(palette: Any) -> None:
    model = fresh()
    model.dataset_meta = {"classes": np.array(CLASSES[:2]), "palette": palette}
    assert model.dataset_meta["classes"] == CLASSES[:2] == model.vocabulary.class_names
    sample = batch(model, False)["data_samples"][0]
    sample.pred_instances = predict(model)[0]
    assert len(model.dataset_meta["palette"]) == 2 and len(sample.pred_instances)
    visualizer = DetLocalVisualizer()
    visualizer.dataset_meta = model.dataset_meta
    image = np.zeros((64, 64, 3), np.uint8)
    visualizer.add_datasample("a", image, sample, draw_gt=False, pred_score_thr=0.0)


def test_the_hook_and_a_dataset_meta_do_the_same() -> None:
    class Data:
        metainfo = META

    class Run:
        model = fresh()
        test_dataloader = type("Loader", (), {"dataset": Data()})

    VocabularyHook().before_test(Run())
    assert Run.model.vocabulary.class_names == CLASSES
    assert Run.model.roi_head.bbox_head.novel == FLAGS
    assert Run.model.dataset_meta["classes"] == CLASSES


def test_a_chosen_vocabulary_stays_and_says_so() -> None:
    model = fresh(vocabulary=["zebra", "Cat"])
    with pytest.warns(UserWarning, match=r"names 4 classes \(cat, dog, cow, ...\), the vocabulary"):
        model.dataset_meta = META
    assert model.vocabulary.class_names == ("zebra", "Cat")
    assert model.dataset_meta["classes"] == ("zebra", "Cat")
    assert model.roi_head.bbox_head.text.flags() == (True, False)  # cats had boxes in training


@pytest.mark.parametrize("palette", [[(1, 2, 3)] * 4, "voc", "random", (9, 9, 9), None])
def test_pictures_follow_a_changed_vocabulary(palette: Any) -> None:
    model = fresh()
    model.dataset_meta = dict(META, palette=palette)
    visualizer = DetLocalVisualizer()
    visualizer.dataset_meta = held = model.dataset_meta  # as the inferencer does
    model.set_vocabulary([f"thing {i}" for i in range(25)], ())
    assert held is model.dataset_meta and held["classes"][24] == "thing 24"
    drawn: list[str] = []
    visualizer.draw_texts = lambda text, *args, **kwargs: drawn.append(text)
    image = np.zeros((64, 64, 3), np.uint8)
    sample = batch(model, False)["data_samples"][0]
    parts = " . ".join(f"part {i}" for i in range(40))
    for asked, start, last in (((), "thing ", 24), ([parts] * 2, "part ", 39)):
        sample.pred_instances = predict(model, asked)[0]
        sample.pred_instances.labels[0] = last  # needs a colour, too
        drawn.clear()
        visualizer.add_datasample("a", image, sample, draw_gt=False, pred_score_thr=0.0)
        assert drawn and all(name.startswith(start) for name in drawn)


def test_each_photo_is_searched_for_its_own_text() -> None:
    model = build().eval()
    texts = ["zebra . dog", "lion, tiger, cat"]
    both = predict(model, texts)
    for place, (text, names) in enumerate(zip(texts, [("zebra", "dog"), ("lion", "tiger", "cat")])):
        alone = predict(model, [text, text])[place]
        assert same(both[place], alone)
        assert alone.label_names == [names[label] for label in alone.labels]
        chosen = copy.deepcopy(model)
        chosen.set_vocabulary(names, [name for name in names if name != "cat"])
        assert same(both[place], predict(chosen)[place])
    first, second = predict(model, [None, "lion"])
    assert same(first, predict(model)[0]) and set(second.label_names) <= {"lion"}
    assert model.vocabulary.class_names == CLASSES and model.roi_head.bbox_head.novel == FLAGS
    assert model.roi_head.bbox_head.num_classes == 4


def test_the_classes_of_the_data_as_text_keep_their_flags() -> None:
    model = build().eval()
    assert all(same(a, b) for a, b in zip(predict(model), predict(model, [CLASSES] * 2)))


@pytest.mark.filterwarnings("ignore:the text encoder is random")
def test_a_text_is_embedded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fresh()
    model.dataset_meta = META
    arch = tiny_arch()
    arch.update(embed_dim=DIM, text_cfg=dict(arch["text_cfg"], vocab_size=49408, context_length=40))
    model.roi_head.bbox_head.text.encoder = OpenCLIPTextEncoder(arch, cache_dir=False)
    asked: list[int] = []
    real = TextTower.sentences

    def encode(self: Any, tokens: Any) -> Any:
        asked.append(len(tokens))
        return real(self, tokens)

    monkeypatch.setattr(TextTower, "sentences", encode)
    predict(model, ["zebra . dog", "lion"])
    once = len(asked)
    predict(model, ["lion", "zebra . dog"])
    assert once > 0 and len(asked) == once


def test_label_names_survive_what_results_go_through() -> None:
    found = predict(build().eval(), ["zebra", "lion . tiger"])[1]
    assert len(found.label_names) == len(found) > 0
    for other in (found.cpu(), found.numpy(), found.clone(), pickle.loads(pickle.dumps(found))):
        assert other.label_names == found.label_names
    strong = found[found.scores > found.scores.median()]
    assert strong.label_names == found.label_names[: len(strong)]


def test_names_that_mmdet_takes_for_want_of_any_give_way_to_the_config() -> None:
    model = fresh()
    model.dataset_meta = {"classes": get_classes("coco"), "palette": "random"}
    assert model.vocabulary.num_classes == 80
    data = dict(type="CocoDataset", metainfo=dict(META), ann_file="none.json")
    model.cfg = ConfigDict(test_dataloader=dict(dataset=dict(type="RepeatDataset", dataset=data)))
    found = predict(model)[0]
    assert model.vocabulary.class_names == CLASSES and set(found.label_names) <= set(CLASSES)
    assert model.roi_head.bbox_head.novel == FLAGS
    model.set_vocabulary(["zebra"], ())
    predict(model)
    assert model.vocabulary.class_names == ("zebra",)


def test_free_names_are_novel_unless_they_had_boxes_in_training() -> None:
    model = fresh()
    model.dataset_meta = META
    model.set_vocabulary(["Cat", "zebra", "dog"])
    assert model.roi_head.bbox_head.text.flags() == (False, True, True)
    named = fresh(vocabulary=CLASSES, novel_classes=NOVEL)
    named.set_vocabulary(["cat", "zebra", "dog"])
    assert named.roi_head.bbox_head.novel == (False, True, True)


def test_a_checkpoint_in_a_runner_says_what_had_boxes() -> None:
    model = fresh()
    run = type("Run", (), {"model": model})
    VocabularyHook().after_load_checkpoint(run, {"meta": {"dataset_meta": {"CLASSES": CLASSES}}})
    assert model.roi_head.bbox_head.text.base is None
    VocabularyHook().after_load_checkpoint(run, {"meta": {"dataset_meta": META}})
    VocabularyHook().after_load_checkpoint(run, {"state_dict": {}})
    model.set_vocabulary(["cat", "zebra"])  # of a data set without flags
    assert model.roi_head.bbox_head.text.flags() == (False, True)


def test_raw_outputs_without_names_are_region_embeddings() -> None:
    model = fresh()
    with torch.no_grad():
        embeddings, deltas = model(**batch(model, False), mode="tensor")[0]
        assert embeddings.shape == (len(deltas), DIM)
        model.dataset_meta = META
        assert model(**batch(model, False), mode="tensor")[0][0].shape == (len(deltas), 5)
