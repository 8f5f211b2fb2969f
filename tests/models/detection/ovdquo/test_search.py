"""What OV-DQUO finds: single images and batches, vocabularies, sizes, what is computed."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("mmdet")


from mmclipdis.models.detection.ovdquo.queries import rois_of
from mmclipdis.models.detection.ovdquo.targets import image_sizes
from tests.faults.endings import raises
from tests.models.detection.ovdquo.tiny import (
    CLASSES,
    NOVEL,
    QUERIES,
    SIDE,
    batch,
    build,
    config,
    losses,
    predict,
    resnet_config,
)

CONFIGS = {
    "vit": config,
    "resnet": resnet_config,
    "learned_queries": lambda **options: config(text_queries=False, **options),
}


def watched(monkeypatch, owner, name):
    """Calls of a method: their arguments."""
    calls, method = [], getattr(owner, name)

    def watch(*args, **kwargs):
        calls.append((args, kwargs))
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, watch)
    return calls


def close(one, other, atol=1e-4):
    assert one.labels.tolist() == other.labels.tolist()
    torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(one.bboxes, other.bboxes, rtol=0, atol=atol)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_batch_finds_what_single_images_find(kind):
    cfg = CONFIGS[kind]()
    cfg.data_preprocessor.pad_size_divisor = SIDE  # each one is padded to the same square
    model = build(cfg).eval()
    sizes = ((64, 64), (48, 64), (64, 33))
    together = predict(model, batch(model, False, ((), (), ()), sizes))
    whole = batch(model, False, ((), (), ()), sizes)
    for i, found in enumerate(together):
        one = dict(inputs=whole["inputs"][i : i + 1], data_samples=[whole["data_samples"][i]])
        assert len(found) > 5
        close(predict(model, one)[0], found)


def test_boxes_stay_in_the_photo_and_go_back_to_its_size():
    model = build().eval()
    data = batch(model, False, sizes=((64, 64), (40, 48)))
    plain = predict(model, data)
    for found, (height, width) in zip(plain, ((64, 64), (40, 48))):
        assert found.bboxes.min() >= 0
        assert (found.bboxes <= torch.tensor([width, height] * 2)).all()
    for sample in data["data_samples"]:
        sample.set_metainfo(dict(scale_factor=(0.5, 0.25)))
    for one, other in zip(plain, predict(model, data)):
        torch.testing.assert_close(other.bboxes, one.bboxes * torch.tensor([2.0, 4, 2, 4]))
        assert torch.equal(one.scores, other.scores)


def test_the_same_classes_in_another_order_are_found_in_the_same_places():
    model = build().eval()
    data = batch(model, False)
    first = predict(model, data)
    order = (3, 0, 5, 1, 4, 2)
    model.set_vocabulary([CLASSES[i] for i in order], NOVEL)
    for one, other in zip(first, predict(model, data)):
        # other queries ask for the classes now, but scores belong to names
        assert set(other.label_names) <= set(CLASSES)
        assert [CLASSES[order[label]] for label in other.labels] == other.label_names
        assert one.label_names == [CLASSES[label] for label in one.labels]


def test_another_vocabulary_needs_no_other_weights():
    trained = build()
    for count in (1, 40):
        other = build(told=False)
        other.load_state_dict(trained.state_dict())
        other.set_vocabulary([f"thing {i}" for i in range(count)], ())
        found = predict(other.eval(), batch(other, False))
        assert sum(map(len, found)) > 0
        assert all(set(each.labels.tolist()) <= set(range(count)) for each in found)
        found = losses(other.train(), batch(other, True, ((0,), (0, -1))))
        assert sum(found.values()).isfinite()


def test_samples_are_searched_for_what_they_name():
    model = build().eval()
    data = batch(model, False)
    own = predict(model, data)
    data["data_samples"][0].set_metainfo(dict(text=["fish", "wheel"]))
    found = predict(model, data)
    assert set(found[0].label_names) <= {"fish", "wheel"} and len(found[0])
    close(found[1], own[1])
    assert model.vocabulary.class_names == CLASSES
    model.set_vocabulary(["fish", "wheel"], ())
    close(predict(model, data)[0], found[0])


def test_a_file_of_embeddings_has_the_wildcard_last(tmp_path):
    rows = build().bbox_head.text.embeddings().clone()
    torch.save(rows, tmp_path / "text.pt")
    head = dict(text_encoder=None, text_embeddings=str(tmp_path / "text.pt"), vocabulary=CLASSES)
    model = build(config(bbox_head=dict(novel_classes=NOVEL, **head)), told=False)
    model.load_state_dict(build().state_dict())
    torch.testing.assert_close(model.bbox_head.text.embeddings(), rows)
    data = batch(model, False)
    close(predict(model.eval(), data)[0], predict(build().eval(), data)[0])
    assert sum(losses(model.train(), batch(model, True)).values()).isfinite()
    line = "of the detector's 6 rows for 5 classes the last row is that of 'object'"
    raises(line, model.set_vocabulary, CLASSES[:5], ())
    data["data_samples"][0].set_metainfo(dict(text=["fish"]))
    raises("no text encoder reads the names", predict, model.eval(), data)


def test_a_data_set_tells_names_and_what_is_novel():
    model = build(told=False)
    meta = dict(classes=CLASSES, novel_classes=NOVEL)
    model.dataset_meta = meta
    assert model.vocabulary.class_names == CLASSES
    assert model.bbox_head.novel == tuple(name in NOVEL for name in CLASSES)
    named = build(config(bbox_head=dict(vocabulary=CLASSES, novel_classes=("fish",))), told=False)
    named.dataset_meta = meta
    assert model.follow_dataset and not named.follow_dataset
    assert [name for name, flag in zip(CLASSES, named.bbox_head.novel) if flag] == ["fish"]


def test_raw_outputs_need_no_names():
    model = build(told=False).eval()
    data = batch(model, False)
    with torch.no_grad():
        logits, boxes = model(**data, mode="tensor")
        assert logits.shape == (2, 2, QUERIES) and boxes.shape == (2, 2, QUERIES, 4)
        model.set_vocabulary(CLASSES, NOVEL)
        assert not torch.equal(model(**data, mode="tensor")[0], logits)


def test_images_with_fewer_places_than_queries_give_fewer_boxes_and_train_not():
    model = build(config(num_queries=60)).eval()
    small = batch(model, False, ((), ()), ((32, 32), (32, 32)))  # 8 * 8 + 4 * 4 + 2 * 2 places
    assert all(len(each) for each in predict(model, small))
    model = build(config(num_queries=90)).eval()
    assert all(len(each) for each in predict(model, small))
    line = (
        r"84 places in the levels of images of \(32, 32\) px, for num_queries=90: train on larger"
    )
    train = batch(model, True, ((0,), ()), ((32, 32), (32, 32)))
    raises(line, losses, model, train)  # a loss in evaluation, too
    raises(line, losses, model.train(), train)


def test_pictures_smaller_than_the_last_level_are_searched():
    cfg = config()
    cfg.data_preprocessor.pad_size_divisor = 1
    model = build(cfg).eval()
    small = batch(model, False, ((),), ((8, 8),))  # one patch: 4 + 1 + 1 places
    assert 0 < len(predict(model, small)[0]) <= 6 * len(CLASSES)
    raises("30 x 40 px.*pad_size_divisor", predict, model, batch(model, False, ((),), ((30, 40),)))


def test_live_changes_of_the_options_are_read():
    model = build().eval()
    data = batch(model, False)
    assert len(predict(model, data)[0]) > 3
    model.test_cfg.max_per_img = 3
    model.test_cfg.temperature = 100.0
    model.test_cfg.score_thr = 0.0
    assert len(predict(model, data)[0]) == 3


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that has a side of the classes."""

    def __init__(self, side):
        super().__init__()
        self.side, self.most, self.seen = side, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for each in found if isinstance(found, (list, tuple)) else [found]:
            if isinstance(each, torch.Tensor):
                self.seen += 1
                if {self.side - 1, self.side, self.side + 1} & set(each.shape):
                    self.most = max(self.most, each.numel())
                elif each.numel() > 20 * self.side * QUERIES:
                    raise AssertionError((func, each.shape))
        return found


def test_many_classes_make_no_tensor_larger_than_queries_times_classes():
    count = 1203
    model = build(config(test_cfg=dict(target_class_factor=8.0, score_thr=0.0))).eval()
    names = [f"{a} {b}" for a in range(40) for b in range(31)][:count]
    model.set_vocabulary(names, names[:100])
    data = batch(model, False, ((),), ((SIDE, SIDE),))
    predict(model, data)  # texts are embedded here
    with Largest(count) as largest:
        found = predict(model, data)
    assert len(found[0]) and largest.seen > 100
    text = model.bbox_head.text.embeddings()
    assert largest.most <= max(QUERIES * (count + 1), text.numel())


@pytest.mark.parametrize("kind", CONFIGS)
def test_detections_are_clips_words_about_the_last_boxes(kind, monkeypatch):
    model = build(CONFIGS[kind](test_cfg=dict(temperature=200.0))).eval()
    data = batch(model, False)
    with torch.no_grad():
        logits, boxes = (each[-1] for each in model(**copy.deepcopy(data), mode="tensor"))
        # above the objectness of some queries
        threshold = model.test_cfg.score_thr = float(logits.sigmoid().flatten().sort().values[3])
        *_, maps = model.backbone(data["inputs"])
        sizes = image_sizes(data["data_samples"], torch.device("cpu"))
        regions = model.backbone.score_embeddings(maps, rois_of(boxes, sizes))
        similar = regions @ model.bbox_head.text.embeddings()[:-1].T
        powers = (200.0 * similar.double()).exp()
        shares = (powers / (1 + powers.sum(1, keepdim=True))).view(2, QUERIES, -1)
        scores = F.pad(shares.float() * logits.sigmoid()[..., None], (0, 1))
    pooled = watched(monkeypatch, model.backbone, "score_embeddings")
    found = predict(model, data)
    for image, sample in enumerate(data["data_samples"]):
        expected = model.bbox_head.detections(boxes[image], scores[image], sample.metainfo, True)
        assert len(expected)
        close(found[image], expected)
    # once, and not those that cannot pass the threshold
    ((_, asked), _), sure = pooled[0], int((logits.sigmoid() > threshold).sum())
    assert len(pooled) == 1 and len(asked) == sure < 2 * QUERIES
