"""What F-ViT does with boxes, images, classes and files that are not as they should be."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.structures import InstanceData

pytest.importorskip("mmdet")

from mmdet.registry import DATASETS
from mmdet.testing import demo_mm_inputs

from mmclipdis.datasets.detection.classes import BASE_CLASSES, OV_CLASSES
from mmclipdis.engine.vocabulary_hook import VocabularyHook
from mmclipdis.models.detection.fvit.roi_head import check_test_cfg
from tests.datasets.detection.files import coco, save
from tests.models.detection.fvit import tiny as tiny_fvit
from tests.models.detection.fvit.test_parts import real_config, total
from tests.models.detection.fvit.tiny import CLASSES, NOVEL, SIZE, batch, bbox_head, build, config

# Left and above, right and below, outside, and with the corners in the wrong order.
ODD_BOXES = ([-30, -30, 20, 20], [40, 40, 200, 200], [100, 100, 150, 150], [30, 30, 10, 10])
NO_AREA = [10, 10, 10, 10]


def train_step(model: Any, data: dict[str, Any]) -> dict[str, Any]:
    found = model.train()(**data, mode="loss")
    loss = total(found)
    assert loss.isfinite()
    loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    return found


def predictions(model: Any, data: dict[str, Any]) -> list[InstanceData]:
    with torch.no_grad():
        found = [s.pred_instances for s in model.eval()(**data, mode="predict")]
    for instances in found:
        assert instances.scores.isfinite().all()
        assert instances.bboxes.isfinite().all()
    return found


def with_boxes(model: Any, boxes: list[list[float]]) -> dict[str, Any]:
    data = batch(model, True)
    for sample in data["data_samples"]:
        labels = torch.zeros(len(boxes)).long()
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes).float().reshape(-1, 4), labels=labels
        )
    return data


@pytest.mark.parametrize("box", ODD_BOXES)
def test_boxes_beyond_the_image_train(box):
    model = build()
    train_step(model, with_boxes(model, [box]))


def test_no_box_in_the_whole_batch_trains_the_background():
    model = build()
    found = train_step(model, with_boxes(model, []))
    assert found["loss_bbox"] == 0 and sum(found["loss_rpn_bbox"]) == 0
    assert found["loss_cls"] > 0


@pytest.mark.parametrize("box", [*ODD_BOXES, NO_AREA])
def test_boxes_beyond_the_image_as_proposals(box):
    model = build()
    data = batch(model, False)
    for sample in data["data_samples"]:
        sample.proposals = InstanceData(bboxes=torch.tensor([box]).float())
    for instances in predictions(model, data):
        assert instances.bboxes.min() >= 0 and instances.bboxes.max() <= SIZE


def test_one_image_without_proposals_beside_one_with():
    model = build()
    data = batch(model, False)
    alone = copy.deepcopy(data)
    for sample, count in zip(data["data_samples"], (0, 1)):
        sample.proposals = InstanceData(bboxes=torch.tensor([[4.0, 4, 40, 36]])[:count])
    for sample in alone["data_samples"]:
        sample.proposals = InstanceData(bboxes=torch.tensor([[4.0, 4, 40, 36]]))
    none, some = predictions(model, data)
    assert len(none) == 0 and len(some) == 4
    torch.testing.assert_close(some.scores, predictions(model, alone)[1].scores)


@pytest.mark.parametrize(("height", "width"), [(5, 7), (1, 40)])
def test_images_smaller_than_a_patch(height, width):
    cfg = real_config()  # patches of 8 px; padded to 64
    model = tiny_fvit.build(cfg)
    inputs = demo_mm_inputs(2, [[3, height, width]] * 2, num_classes=4)
    for sample in inputs["data_samples"]:
        sample.set_metainfo(dict(scale_factor=(1.0, 1.0)))
        sample.gt_instances.labels = torch.zeros_like(sample.gt_instances.labels)
        sample.gt_instances.bboxes = torch.tensor([[0.0, 0, width, height]]).expand(
            len(sample.gt_instances), 4
        )
    for instances in predictions(model, model.data_preprocessor(copy.deepcopy(inputs), False)):
        assert instances.bboxes[:, 2].max() <= width and instances.bboxes[:, 3].max() <= height
    train_step(model, model.data_preprocessor(inputs, True))


def test_unpadded_small_images_are_refused_with_the_remedy():
    cfg = real_config()
    cfg.data_preprocessor.pad_size_divisor = 1
    model = tiny_fvit.build(cfg)
    data = model.data_preprocessor(demo_mm_inputs(1, [[3, 5, 7]], num_classes=4), False)
    with torch.no_grad(), pytest.raises(ValueError, match="5 x 7 px.*pad_size_divisor"):
        model.eval()(**data, mode="predict")


@pytest.mark.parametrize("novel", [(), ("cat",)])
def test_a_vocabulary_of_one_class(novel):
    model = build()
    model.set_vocabulary(["cat"], novel)
    train_step(model, batch(model, True, [[] if novel else [0], []]))
    for instances in predictions(model, batch(model, False)):
        assert len(instances) > 0 and set(instances.labels.tolist()) == {0}


@pytest.mark.parametrize("names", [["cat", "cat"], ["cat", "Cat"]])
def test_names_twice_are_refused(names):
    with pytest.raises(ValueError, match="same name stands for two classes"):
        build().set_vocabulary(names, ())


@pytest.mark.parametrize("names", [["cat", "background"], ["Background ", "cat"]])
def test_a_class_of_its_own_for_the_background_is_refused(names):
    with pytest.raises(
        ValueError, match="a class of the background, .* which the detector adds itself"
    ):
        build().set_vocabulary(names, ())


def test_a_failed_change_of_vocabulary_changes_nothing():
    model = build()
    with pytest.raises(ValueError, match="unicorn"):
        model.set_vocabulary(["cat", "dog"], ("unicorn",))
    head = model.roi_head.bbox_head
    assert head.vocabulary.class_names == CLASSES and head.num_classes == 4
    assert head.text.embeddings().shape == (5, tiny_fvit.DIM)


def test_a_file_of_embeddings_without_background_is_refused(tmp_path):
    path = tmp_path / "text.pt"
    torch.save(torch.randn(4, tiny_fvit.DIM), path)
    options = dict(text_encoder=None, text_embeddings=str(path), vocabulary=CLASSES)
    with pytest.raises(ValueError, match="4 rows for 5 classes.*last row.*'background'"):
        MODELS.build(config(bbox_head(novel_classes=NOVEL, **options)))


def test_classes_trained_on_keep_their_logits_in_a_larger_vocabulary():
    model = build()
    model.set_vocabulary([f"thing {i}" for i in range(65)], [f"thing {i}" for i in range(48, 65)])
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    train_step(model, batch(model, True, [[0], [47]]))
    optimizer.step()
    regions = torch.rand(6, tiny_fvit.DIM)
    with torch.no_grad():
        before = model.roi_head.bbox_head.classify(regions)
        model.set_vocabulary([f"thing {i}" for i in range(80)], ())
        after = model.roi_head.bbox_head.classify(regions)
    assert before.shape == (6, 66) and after.shape == (6, 81)
    torch.testing.assert_close(after[:, :65], before[:, :65])
    torch.testing.assert_close(after[:, -1], before[:, -1])
    labels = torch.cat([found.labels for found in predictions(model, batch(model, False))])
    assert labels.max() < 80


def dataset(path: Path, kind: str = "OVCocoDataset", **settings: Any) -> Any:
    made = {"type": kind, "ann_file": str(path), "data_prefix": {"img": ""}, "pipeline": []}
    return DATASETS.build({**made, **settings})


def test_the_data_set_leaves_out_boxes_that_do_not_exist(tmp_path):
    content = coco([("car", 1)] * 5, crowd=())  # 100 x 80 px
    boxes = ([-10, -10, 30, 30], [90, 70, 50, 50], [200, 10, 20, 20], [5, 5, 0, 9], [5, 5, -4, 9])
    for note, box in zip(content["annotations"], boxes):
        note.update(bbox=box, area=abs(box[2] * box[3]))
    found = dataset(save(tmp_path / "a.json", content)).get_data_info(0)["instances"]
    assert [box["bbox"] for box in found] == [[-10, -10, 20, 20], [90, 70, 140, 120]]


class Run:
    """What ``VocabularyHook`` reads of a runner."""

    def __init__(self, model: Any, dataset: Any) -> None:
        self.model = model
        self.train_dataloader = type("Loader", (), {"dataset": dataset})


def test_48_categories_in_a_data_set_that_numbers_them_are_refused(tmp_path):
    path = save(tmp_path / "a.json", coco([("car", 1), ("toothbrush", 1)], BASE_CLASSES))
    stock = dataset(path, "CocoDataset", metainfo={"classes": OV_CLASSES, "novel_classes": ()})
    labels = [box["bbox_label"] for box in stock.get_data_info(0)["instances"]]
    assert labels == [2, 47]  # of 65 names the last one is 64
    with pytest.raises(ValueError, match="48 of the 65 classes.*OVCocoDataset"):
        VocabularyHook().before_train(Run(build(), stock))
    model = build()
    VocabularyHook().before_train(Run(model, dataset(path)))
    assert model.vocabulary.class_names == OV_CLASSES
    head = model.roi_head.bbox_head
    assert sum(head.novel) == 17 and (head.loss_cls.class_weight[:-1] == 0).sum() == 17


def test_a_data_set_without_flags(tmp_path):
    path = save(tmp_path / "a.json", coco([("car", 1)], OV_CLASSES))
    stock = dataset(path, "CocoDataset", metainfo={"classes": OV_CLASSES})
    model = build()
    VocabularyHook().before_train(Run(model, stock))
    assert model.roi_head.bbox_head.novel is None
    with pytest.raises(
        RuntimeError, match=r"which classes are novel.*metainfo=dict\(novel_classes"
    ):
        model.train()(**batch(model, True), mode="loss")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, r"alpha must be in \[0, 1\]"),
        ({"beta": -0.1}, r"beta must be in \[0, 1\]"),
        ({"vlm_temperature": -1.0}, "vlm_temperature must be positive"),
        ({"detect_temperature": 0}, "detect_temperature must be positive"),
        ({"detect_temprature": 50}, "do you mean 'detect_temperature'"),
    ],
)
def test_options_of_the_test_are_checked_when_the_model_is_built(options, message):
    cfg = {"alpha": 0.1, "beta": 0.8, "vlm_temperature": 75.0, **options}
    with pytest.raises(ValueError, match=message):
        check_test_cfg(cfg)


def test_a_loss_that_trains_novel_classes_as_negatives_warns():
    model = tiny_fvit.build()
    head = model.roi_head.bbox_head
    head.loss_cls = torch.nn.CrossEntropyLoss()
    with pytest.warns(UserWarning, match="trains novel classes as negatives"):
        head.set_vocabulary(["cat", "dog"], ["dog"])


def test_a_word_of_the_background_is_no_class():
    head = build(config(bbox_head(background=("Grass", "sand")))).roi_head.bbox_head
    with pytest.raises(ValueError, match="leave that class out"):
        head.set_vocabulary(["cat", "grass"], [])
