"""OV-DQUO end to end: what learns, what queries ask for, bad input."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("mmdet")

from mmdet.registry import MODELS
from mmengine.registry import DefaultScope

from mmclipdis.models.detection.ovdquo import detector as ovdquo_detector
from mmclipdis.models.detection.ovdquo import targets as ovdquo_targets
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

BATCHES = {
    "mixed": ((0, 2, -1), (3, -1, -1)),
    "all_pseudo": ((-1,), (-1, -1)),
    "no_pseudo": ((0, 2), (5,)),
    "an_empty_image": ((), (3, -1)),
    "no_boxes": ((), ()),
}
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


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_step_moves_all_but_clip(kind):
    model = build(CONFIGS[kind]()).train()
    before = copy.deepcopy(model.state_dict())
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2, weight_decay=0.1)
    sum(losses(model, batch(model, True)).values()).backward()
    optimizer.step()
    frozen = 0
    for name, value in model.state_dict().items():
        if name.startswith("backbone.encoder."):
            frozen += 1
            assert torch.equal(value, before[name]), name
        elif name in trained:
            assert not torch.equal(value, before[name]), name
    assert frozen and not any("text.encoder" in name for name in before)
    assert not model.backbone.encoder.training


@pytest.mark.parametrize("kind", CONFIGS)
def test_whatever_a_batch_holds_everything_that_learns_has_a_gradient(kind):
    model = build(CONFIGS[kind]()).train()
    for labels in BATCHES.values():
        model.zero_grad(set_to_none=True)
        found = losses(model, batch(model, True, labels))
        assert all(value.isfinite() for value in found.values())
        sum(found.values()).backward()
        for name, p in model.named_parameters():
            if p.requires_grad:  # else DDP needed find_unused_parameters
                assert p.grad is not None and p.grad.isfinite().all(), (labels, name)


def test_losses_have_the_same_names_in_every_batch_with_boxes():
    model = build().train()
    names = {frozenset(losses(model, batch(model, True, each))) for each in BATCHES.values()}
    with_boxes, without = max(names, key=len), min(names, key=len)
    assert with_boxes - without == {"dn_loss_cls", "d0.dn_loss_cls"} and len(names) == 2


def test_novel_classes_play_no_part_in_training(monkeypatch):
    results = []
    for names in (CLASSES, ("apple", "orange", "fish", "wheel", "carrot", "banana")):
        model = build().train()
        model.set_vocabulary(names, [names[1], names[4]])
        asked = watched(monkeypatch, model, "_content")
        torch.manual_seed(7)
        found = sum(losses(model, batch(model, True)).values())
        found.backward()
        ((texts,), _), rows = asked[0], model.bbox_head.text.embeddings()
        assert torch.equal(texts, rows[[0, 2, 3, 5, 6]])  # base ones, the wildcard
        results.append([found.detach(), *(p.grad for p in model.parameters() if p.requires_grad)])
    for one, other in zip(*results):
        assert torch.equal(one, other)


def queries_of(model, data, monkeypatch):
    """What the decoder gets in a loss or prediction: arguments, classes and what texts add."""
    with monkeypatch.context() as patch:
        decoded = watched(patch, model, "_decode")
        entered = watched(patch, model.decoder, "forward")
        mode = "loss" if model.training else "predict"
        torch.manual_seed(3)
        model(**copy.deepcopy(data), mode=mode)
    (encoded, starts, content, classes, *_), _ = decoded[0]
    return encoded, starts, content, classes, entered[0][1]["query"]


@pytest.mark.parametrize("training", [True, False])
def test_content_is_what_was_learned_and_the_text_of_the_class(training, monkeypatch):
    model = build().train(training)
    data = batch(model, training)
    with torch.no_grad():
        encoded, starts, content, classes, query = queries_of(model, data, monkeypatch)
        query = query[:, -QUERIES:]
        assert torch.equal(classes, classes.sort(dim=1).values)
        text = model.bbox_head.text.embeddings()
        used = text[[0, 2, 3, 5, 6]] if training else text[:-1]
        torch.testing.assert_close(content, model.text_proj(used))
        for image in range(2):
            for place in range(QUERIES):
                learned = model.query_embedding.weight[place]
                expected = learned + content[classes[image, place]]
                torch.testing.assert_close(query[image, place], expected)
        # boxes are another order of those of the encoder, not others
        assert not torch.equal(starts, encoded.starts)
        for moved, given in zip(starts.tolist(), encoded.starts.tolist()):
            assert sorted(moved) == sorted(given)
        assert len(classes.unique()) > 1


def test_a_query_asks_for_what_clip_sees_or_for_the_wildcard_on_a_pseudo_box(monkeypatch):
    model = build().train()
    data = batch(model, True)
    regions = F.normalize(torch.rand(2 * QUERIES, model.backbone.embed_dim), dim=1)
    monkeypatch.setattr(model.backbone, "query_embeddings", lambda maps, rois: regions)
    plain = queries_of(model, data, monkeypatch)
    text = model.bbox_head.text.embeddings()[[0, 2, 3, 5]]
    seen = (regions @ text.T).argmax(1).view(2, QUERIES)
    # pseudo boxes where the queries start
    sample, start = data["data_samples"][0], plain[0].boxes[0]
    cx, cy, w, h = start[4].tolist()
    sample.gt_instances = type(sample.gt_instances)(
        bboxes=SIDE * torch.tensor([[cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]]),
        labels=torch.tensor([-1]),
        weights=torch.tensor([0.5]),
    )
    data["data_samples"][1].gt_instances = sample.gt_instances[:0]
    _, _, _, classes, _ = queries_of(model, data, monkeypatch)
    assert torch.equal(classes[1], seen[1].sort().values)
    wild = int((classes[0] == 4).sum())
    assert 0 < wild < QUERIES
    mask = ovdquo_detector.overlaps_unknown(
        plain[0].boxes,
        ovdquo_detector.make_targets(
            data["data_samples"], torch.ones(6, dtype=torch.bool), 6, torch.device("cpu")
        ),
        0.5,
    )
    assert mask[0, 4] and int(mask.sum()) == wild
    expected = seen[0].masked_fill(mask[0], 4).sort().values
    assert torch.equal(classes[0], expected)


def test_learned_queries_hold_nothing_else(monkeypatch):
    model = build(config(text_queries=False)).train()
    assert not hasattr(model, "text_proj")
    pooled = watched(monkeypatch, model.backbone, "query_embeddings")
    encoded, starts, _, classes, query = queries_of(model, batch(model, True), monkeypatch)
    assert classes is None and torch.equal(starts, encoded.starts)
    learned = model.query_embedding.weight
    assert torch.equal(query[:, -QUERIES:], learned.expand(2, -1, -1)) and pooled == []
    found = predict(model.eval(), batch(model, False))
    assert len(pooled) == 1  # of the final boxes
    assert all(len(each) > 0 for each in found)


def test_the_factor_favours_novel_classes_where_queries_choose(monkeypatch):
    asked = {}
    for factor in (1.0, 1e6):
        model = build(config(test_cfg=dict(target_class_factor=factor))).eval()
        *_, classes, _ = queries_of(model, batch(model, False), monkeypatch)
        asked[factor] = classes
        model.train()  # training knows no factor
        *_, trained, _ = queries_of(model, batch(model, True), monkeypatch)
        asked[factor, "training"] = trained
    novel = torch.tensor([name in NOVEL for name in CLASSES])
    assert novel[asked[1e6]].all() and not novel[asked[1.0]].all()
    assert torch.equal(asked[1.0, "training"], asked[1e6, "training"])


def test_losses_can_be_computed_in_evaluation_mode():
    cfg = config(test_cfg=dict(target_class_factor=3.0), max_classes=2)
    model = build(cfg).eval()
    with torch.no_grad():
        found = losses(model, batch(model, False, ((0,), (2, -1))))
    assert all(value.isfinite() for value in found.values())


def test_training_needs_to_know_which_classes_are_novel():
    model = build(told=False).train()
    model.set_vocabulary(CLASSES)
    raises("which classes are novel.*novel_classes", losses, model, batch(model, True))
    model.set_novel((False,) * len(CLASSES))
    assert sum(losses(model, batch(model, True, ((1,), (4,)))).values()).isfinite()


def test_training_needs_classes():
    model = build(told=False).train()
    raises("no class names yet.*VocabularyHook", losses, model, batch(model, True))


def test_unknown_novelty_is_said_in_words_of_this_detector():
    model = build(config(test_cfg=dict(target_class_factor=3.0)), told=False).eval()
    model.set_vocabulary(CLASSES)
    with pytest.warns(UserWarning, match="which of the 6 classes had boxes") as caught:
        predict(model, batch(model, False))
    assert "beta" not in str(caught[0].message)


def test_a_neck_with_other_levels_is_refused():
    model = build(config(neck=dict(num_outs=4))).eval()
    raises("neck gives 4 levels, for num_feature_levels=3: .* num_outs", losses, model.train(),
           batch(model, True))  # fmt: skip


def test_that_nothing_unknown_is_learned_is_said_once(monkeypatch):
    said = []
    monkeypatch.setattr(ovdquo_targets, "print_log", lambda text, **_: said.append(text))
    model = build().train()
    for _ in range(2):
        losses(model, batch(model, True, ((0,), ()), weights=False))
    assert len(said) == 1 and "without pseudo boxes" in said[0]


def test_joined_data_sets_of_which_one_has_pseudo_boxes_are_no_fault(monkeypatch):
    said = []
    monkeypatch.setattr(ovdquo_targets, "print_log", lambda text, **_: said.append(text))
    model = build().train()
    losses(model, batch(model, True, ((0,), ())))  # weights: a file of pseudo boxes is in use
    losses(model, batch(model, True, ((0,), ()), weights=False))
    assert said == []


def test_levels_are_drawn_where_nobody_calls_init_weights():
    """mmdet's DINO leaves ``level_embed`` as the memory was."""
    build()  # the scope of mmdet
    assert 0.3 < MODELS.build(config()).level_embed.std() < 3


def test_text_of_another_clip_is_refused(tmp_path):
    torch.save(torch.randn(2, 7), tmp_path / "text.pt")
    head = dict(text_encoder=None, text_embeddings=str(tmp_path / "text.pt"), vocabulary=["a"])
    line = "channels, the text encoder 7: both must be of one CLIP"
    raises(line, build, config(bbox_head=head), False)


def test_more_classes_than_an_iteration_has_are_dropped_and_logged():
    model = build(config(max_classes=2)).train()
    found = model(**batch(model, True, ((0, 2, 3), (5, -1))), mode="loss")
    assert found["dropped_boxes"].item() == 2
    total, logged = model.parse_losses(found)
    assert logged["dropped_boxes"] == 2
    assert total.item() == pytest.approx(sum(float(v) for k, v in logged.items() if "loss_" in k))
    assert not total.isnan()


def test_padding_counts_as_places_and_breaks_nothing():
    # of 336 places in the second picture 26 are no padding, whose boxes are infinite logits
    model = build(config(num_queries=150)).train()
    data = batch(model, True, ((0, -1), (2,)), ((64, 64), (16, 18)))
    found = losses(model, data)
    sum(found.values()).backward()
    assert all(value.isfinite() for value in found.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert all(len(each) for each in predict(model.eval(), data))


@pytest.mark.parametrize("part", ["neck.convs.0.conv.weight", "bbox_head.reg_branches.0.0.weight"])
def test_weights_that_are_not_finite_end_in_a_line(part):
    model = build()
    with torch.no_grad():
        model.get_parameter(part).fill_(float("nan"))
    raises(r"0\.png", predict, model.eval(), batch(model, False))
    raises(r"0\.png.*predictions are not finite", losses, model.train(), batch(model, True))


def test_a_label_that_is_no_class_of_the_model_is_named():
    model = build().train()
    raises("label 6, and the vocabulary has 6", losses, model, batch(model, True, ((6,), ())))


def test_boxes_of_zero_size_and_outside_the_photo_are_trained_on():
    model = build().train()
    data = batch(model, True)
    data["data_samples"][0].gt_instances.bboxes[0] = torch.tensor([10.0, 10, 10, 10])
    data["data_samples"][0].gt_instances.bboxes[2] = torch.tensor([70.0, 70, 90, 90])
    data["data_samples"][1].gt_instances.bboxes[:] = torch.tensor([0.0, 0, 0, 0])
    found = losses(model, data)
    sum(found.values()).backward()
    assert all(value.isfinite() for value in found.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("training", [True, False])
def test_tower_and_text_are_encoded_once(training, monkeypatch):
    model = build().train(training)
    texts = watched(monkeypatch, model.bbox_head.text.encoder, "embed")
    passes = []
    model.backbone.encoder.tower.register_forward_hook(lambda *_: passes.append(1))
    calls = watched(monkeypatch, model.backbone, "encode")
    data, mode = batch(model, training), "loss" if training else "predict"
    for _ in range(3):
        model(**copy.deepcopy(data), mode=mode)
    assert len(texts) == 1 and len(calls) == 3
    model.set_vocabulary(CLASSES, NOVEL)  # what the hook says before every epoch
    model(**copy.deepcopy(data), mode=mode)
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (dict(as_two_stage=False), "two-stage and refines boxes"),
        (dict(with_box_refine=False), "two-stage and refines boxes"),
        (dict(train_cfg=dict(assigner=dict(type="A"))), "train_cfg=.* is not read"),
        (dict(test_cfg=dict(rcnn=dict())), "test_cfg has no option 'rcnn'"),
        (dict(query_temperature=0), "query_temperature must be a positive number, got 0"),
        (dict(wildcard_iou=1.5), r"wildcard_iou is an IoU, in \[0, 1\], got 1.5"),
        (dict(wildcard_iou=True), "wildcard_iou is an IoU"),
        (dict(max_classes=0), "max_classes must be a whole number above 0, got 0"),
        (dict(max_classes=None), "max_classes must be a whole number above 0, got None"),
        (dict(num_queries=0), "num_queries must be a whole number above 0, got 0"),
        (dict(text_queries="no"), "text_queries is True or False, got 'no'"),
        (dict(decoder=dict(return_intermediate=False)), "set return_intermediate=True on"),
        (dict(bbox_head=dict(embed_dims=32)), "embed_dims=32 of the bbox_head, but .* have 64 "),
        (dict(dn_cfg=dict(label_noise=2)), "label_noise is a probability, got 2"),
        (dict(dn_cfg=dict(label_nois=0.5)), "unexpected keyword argument 'label_nois'"),
        (
            dict(num_feature_levels=4),
            "num_feature_levels=4, but num_levels of encoder.layers.0.self_attn is 3",
        ),
        (dict(backbone=dict(dense_map=False)), "dense_map=True"),
        (dict(bbox_head=dict(wildcard="fish", vocabulary=CLASSES)), "'fish'"),
    ],
)
def test_options_that_cannot_be_are_refused(options, line):
    DefaultScope.get_instance("tests-ovdquo", scope_name="mmdet")
    raises(line, MODELS.build, config(**options))
