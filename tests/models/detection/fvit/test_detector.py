"""F-ViT end to end: what learns, what is fused, vocabularies, precision, empty images."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import roi_align

pytest.importorskip("mmdet")

from tests.models.detection.fvit import tiny as tiny_fvit
from tests.models.detection.fvit.tiny import CLASSES, batch, bbox_head, build, config


def losses(model, data):
    return {k: v for k, v in model(**data, mode="loss").items() if "loss" in k}


def total(found):
    return sum(sum(v) if isinstance(v, list) else v for v in found.values())


def test_a_step_trains_what_it_should():
    model = build().train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    found = losses(model, batch(model, True))
    assert set(found) == {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox"}
    total(found).backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []  # DDP needs no find_unused_parameters
    optimizer.step()
    for name, value in model.state_dict().items():
        moved = not torch.equal(value, before[name])
        if name.startswith("backbone.tower"):
            assert not moved
    head = "roi_head.bbox_head."
    for name in ("detect_temperature", "cls_fcs.0.weight", "fc_reg.weight"):
        assert not torch.equal(model.state_dict()[head + name], before[head + name]), name
    assert not any("fc_cls" in name or "embeddings" in name for name in before)


def test_novel_classes_get_no_gradient_but_scores():
    model = build().train()
    head = model.roi_head.bbox_head
    kept = []
    classify = head.classify

    def watched(embeddings):
        kept.append(classify(embeddings))
        kept[0].retain_grad()
        return kept[0]

    head.classify = watched
    total(losses(model, batch(model, True))).backward()
    grad = kept[0].grad
    assert grad[:, [1, 3]].abs().max() == 0
    assert grad[:, [0, 2, 4]].abs().amin(1).max() > 0
    assert kept[0].isfinite().all()


def test_the_classifier_is_a_scaled_cosine_with_the_background_last():
    model = build()
    head = model.roi_head.bbox_head
    embeddings = torch.rand(5, tiny_fvit.DIM)
    names = [*CLASSES, "background"]
    rows = head.text.embeddings()
    assert list(head.text.vocabulary.class_names) == names
    expected = [[50 * F.cosine_similarity(r, t, dim=0).item() for t in rows] for r in embeddings]
    torch.testing.assert_close(head.classify(embeddings), torch.tensor(expected))
    seen, deltas = head(torch.randn(3, 16, 7, 7))
    assert seen.shape == (3, 5) and deltas.shape == (3, 4)


@pytest.mark.parametrize("labels", [[[], [0]], [[], []]])
def test_images_without_objects(labels):
    model = build().train()
    found = losses(model, batch(model, True, labels))
    assert total(found).isfinite()
    total(found).backward()
    assert model.roi_head.bbox_head.detect_temperature.grad.isfinite()


def test_predictions_are_fused_scores_of_the_proposals():
    model = build().eval()
    data = batch(model, False)
    proposal = torch.tensor([[4.0, 4, 40, 36]])
    for sample in data["data_samples"]:
        sample.proposals = type(sample.gt_instances)(bboxes=proposal)
    with torch.no_grad():
        *levels, vlm = model.backbone(data["inputs"])
        rois = torch.tensor([[0.0, 4, 4, 40, 36], [1.0, 4, 4, 40, 36]])
        logits = model.roi_head._bbox_forward(model.neck(tuple(levels)), rois)["cls_score"]
        text = model.roi_head.bbox_head.text.embeddings()
        regions = F.normalize(roi_align(vlm, rois, 1, 1 / 8, -1, True).flatten(1), dim=1)
        p_vlm = (75 * regions @ text.T).softmax(1)
        weight = torch.tensor([0.1, 0.8, 0.1, 0.8, 0.1])
        expected = (logits.softmax(1) ** (1 - weight) * p_vlm**weight)[:, :4]
        samples = model(**data, mode="predict")
    for sample, row in zip(samples, expected):
        boxes, scores, found = tiny_fvit.detections(sample)
        torch.testing.assert_close(scores, row.sort(descending=True).values)
        assert found.tolist() == row.sort(descending=True).indices.tolist()
        assert boxes.shape == (4, 4)


def scores_of(**rcnn):
    model = build(config(**rcnn)).eval()
    with torch.no_grad():
        return torch.cat(
            [s.pred_instances.scores for s in model(**batch(model, False), mode="predict")]
        )


def test_score_options_are_the_ends_of_the_fusion():
    torch.testing.assert_close(scores_of(score="detector"), scores_of(alpha=0.0, beta=0.0))
    torch.testing.assert_close(scores_of(score="vlm"), scores_of(alpha=1.0, beta=1.0))
    assert not torch.equal(scores_of(score="vlm"), scores_of(score="detector"))
    torch.testing.assert_close(scores_of(detect_temperature=50.0), scores_of())
    assert not torch.equal(scores_of(detect_temperature=5.0), scores_of())


def test_objectness_multiplies_the_scores_of_each_proposal():
    def found(power, scored=True):
        model = build(config(objectness=power)).eval()
        data = batch(model, False)
        for sample, score in zip(data["data_samples"], (0.25, 0.81)):
            scores = dict(scores=torch.tensor([score])) if scored else {}
            boxes = torch.tensor([[4.0, 4, 40, 36]])
            sample.proposals = type(sample.gt_instances)(bboxes=boxes, **scores)
        with torch.no_grad():
            samples = model(**data, mode="predict")
        return torch.stack([sample.pred_instances.scores for sample in samples])

    torch.testing.assert_close(found(0.5), found(0) * torch.tensor([[0.5], [0.9]]))
    torch.testing.assert_close(found(0, scored=False), found(0))
    with pytest.raises(ValueError, match="set objectness=0"):
        found(1, scored=False)


def test_a_fixed_temperature_is_that_of_the_tests_alone():
    head = build(config(bbox_head(background=("grass", "sand")), detect_temperature=5.0))
    head = head.roi_head.bbox_head
    unit = F.normalize(torch.randn(3, tiny_fvit.DIM), dim=1)
    head.train()
    torch.testing.assert_close(head.classify(unit), head.compare(unit, 50.0))
    head.eval()
    torch.testing.assert_close(head.classify(unit), head.compare(unit, 5.0))


def test_the_logged_accuracy_is_among_the_trained_classes():
    head = build().train().roi_head.bbox_head
    labels = torch.tensor([0, 2, 4])  # base, base, background
    logits = 10 * F.one_hot(labels, 5).float()
    logits[:, head.novel.index(True)] = 99  # untrained columns may be anything
    rois, boxes = torch.zeros(3, 5), torch.zeros(3, 4)
    ones = torch.ones(3)
    found = head.loss(logits, None, rois, labels, ones, boxes, boxes)
    assert found["acc"].item() == 100


def test_without_a_loss_of_its_own_novel_classes_are_masked():
    options = bbox_head()
    options.pop("loss_cls")
    head = build(config(options)).roi_head.bbox_head
    assert type(head.loss_cls).__name__ == "NovelMaskedCrossEntropyLoss"


def test_another_vocabulary_needs_no_other_weights():
    trained = build()
    for count in (80, 1):
        other = build(seed=1)
        other.set_vocabulary([f"thing {i}" for i in range(count)], ())
        other.load_state_dict(trained.state_dict())
        other.eval()
        with torch.no_grad():
            samples = other(**batch(other, False), mode="predict")
        assert max(s.pred_instances.labels.max().item() for s in samples) < count
        assert sum(len(s.pred_instances) for s in samples) > 0
        other.train()
        assert total(losses(other, batch(other, True, [[0], [0]]))).isfinite()


def test_without_flags_no_training_and_all_classes_count_as_novel():
    model = build().eval()
    head = model.roi_head.bbox_head
    head.text.base = None  # as if nobody had ever said
    model.set_vocabulary(CLASSES)
    data = batch(model, False)
    with torch.no_grad(), pytest.warns(UserWarning, match="which of the 4 classes had boxes"):
        found = model(**copy.deepcopy(data), mode="predict")
    model.set_novel((True,) * 4)
    with torch.no_grad():
        other = model(**copy.deepcopy(data), mode="predict")
    assert torch.equal(found[0].pred_instances.scores, other[0].pred_instances.scores)
    model.set_novel(None)
    with pytest.raises(RuntimeError, match="which classes are novel"):
        model.train()(**batch(model, True), mode="loss")
    alike = build(config(alpha=0.2, beta=0.2)).eval()
    alike.roi_head.bbox_head.text.base = None
    alike.set_vocabulary(CLASSES)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # nobody needs to know
        assert len(alike(**data, mode="predict")[0].pred_instances) > 0


def test_flags_come_from_config_or_data_set():
    named = build(config(bbox_head(vocabulary=CLASSES, novel_classes=("cow",))))
    head = named.roi_head.bbox_head
    assert not named.follow_dataset
    named.set_vocabulary(CLASSES)
    named.set_novel((True,) * 4)  # the config has decided
    assert head.novel == (False, False, True, False)
    torch.testing.assert_close(head.loss_cls.class_weight, torch.tensor([1, 1, 0, 1, 0.6]))
    free = build()
    assert free.follow_dataset and free.roi_head.bbox_head.novel == (False, True, False, True)
    free.set_novel((True, False, False, False))
    torch.testing.assert_close(
        free.roi_head.bbox_head.loss_cls.class_weight, torch.tensor([0, 1, 1, 1, 0.6])
    )
    with pytest.raises(ValueError, match="3 flags of novelty for 4"):
        free.set_novel((True,) * 3)


def test_bfloat16_trains_and_predicts_close_to_fp32():
    model = build().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = losses(model, batch(model, True))
    total(found).backward()
    assert total(found).isfinite()
    model.eval()
    data = batch(model, False)
    with torch.no_grad():
        exact = model(**copy.deepcopy(data), mode="predict")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(**data, mode="predict")
    for one, other in zip(exact, half):
        assert other.pred_instances.scores.dtype == torch.float32
        assert other.pred_instances.scores[0] == pytest.approx(
            one.pred_instances.scores[0].item(), abs=0.1
        )


def test_no_proposals_and_raw_forward():
    model = build().eval()
    data = batch(model, False)
    with torch.no_grad():
        logits, deltas = model(**data, mode="tensor")[0]
        assert logits.shape[1] == 5 and deltas.shape[1] == 4
        for sample in data["data_samples"]:
            sample.proposals = type(sample.gt_instances)(bboxes=torch.zeros(0, 4))
        samples = model(**data, mode="predict")
    assert [len(s.pred_instances) for s in samples] == [0, 0]


def test_scores_without_a_map_are_an_error():
    model = build().train()
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"model\.eval\(\)"):
        model(**batch(model, False), mode="predict")


@pytest.mark.parametrize(
    ("rcnn", "message"),
    [
        (dict(score="clip"), "score must be one of"),
        (dict(alpha=None), "needs alpha"),
        (dict(score="vlm", vlm_temperature=None), "needs vlm_temperature"),
        (dict(objectness=-1.0), "0 or more"),
        (dict(objectnes=1.0), "do you mean 'objectness'"),
    ],
)
def test_bad_test_options(rcnn, message):
    with pytest.raises(ValueError, match=message):
        build(config(**rcnn))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_classes=3), "follows from the vocabulary"),
        (dict(reg_class_agnostic=False), "for all classes together"),
        (dict(with_cls=False), "both branches"),
        (dict(novel_classes="coco"), "'dataset' or names"),
        (dict(num_shared_fcs=0, num_cls_fcs=0), "region embedding"),
        (dict(vocabulary=CLASSES, novel_classes=("horse",)), "horse"),
        (
            dict(vocabulary=["cat", "background"]),
            "a class of the background, .* which the detector adds itself",
        ),
    ],
)
def test_bad_head_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(config(bbox_head(**options)))


def test_words_of_the_background_share_its_column():
    head = build(config(bbox_head(background=("grass", "sand")))).roi_head.bbox_head
    regions = torch.randn(7, tiny_fvit.DIM)
    text = head.text.embeddings()
    assert len(text) == len(head.vocabulary.class_names) + 2
    cosines = F.normalize(regions, dim=1) @ text.T
    apart = (head.detect_temperature * cosines).softmax(dim=1)
    together = head.classify(regions).softmax(dim=1)
    torch.testing.assert_close(together[:, :-1], apart[:, :-2])
    torch.testing.assert_close(together[:, -1], apart[:, -2:].sum(dim=1))


def test_regions_are_cut_from_levels_that_are_in_order_in_memory(monkeypatch):
    model = build().eval()  # the compiled roi_align of mmcv reads other levels wrongly, silently
    extractor, seen = model.roi_head.bbox_roi_extractor, []
    original = extractor.forward
    monkeypatch.setattr(extractor, "forward", lambda x, *a: seen.extend(x) or original(x, *a))
    data = batch(model, False)
    levels = [
        level.to(memory_format=torch.channels_last) for level in model._extract(data["inputs"])[0]
    ]
    assert all(level.is_contiguous() for level in model._extract(data["inputs"])[0])
    monkeypatch.setattr(model.neck, "forward", lambda _: tuple(levels))
    with torch.no_grad():
        model(**data, mode="predict")
    assert seen and all(level.is_contiguous() for level in seen)
