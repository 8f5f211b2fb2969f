"""Painted label maps: colours of large classes, first names, one background."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmclipdis.datasets import PascalVOC20bDataset
from mmclipdis.datasets.segmentation.large_vocabulary import palette
from mmclipdis.visualization import VocabularyVisualizer

WHITE = np.full((40, 60, 3), 255, np.uint8)


def paint(
    monkeypatch: pytest.MonkeyPatch, labels: torch.Tensor, labelled: bool = False, **meta: Any
) -> tuple[np.ndarray, set[str]]:
    """The picture of a prediction, and the texts written into it."""
    texts: set[str] = set()
    put = cv2.putText

    def note(image: np.ndarray, text: str, *rest: Any) -> Any:
        texts.add(text)
        return put(image, text, *rest)

    monkeypatch.setattr(cv2, "putText", note)
    visualizer = VocabularyVisualizer(alpha=0.8)
    visualizer.dataset_meta = meta
    sample = SegDataSample(pred_sem_seg=PixelData(data=labels))
    pictures: list[np.ndarray] = []
    monkeypatch.setattr(visualizer, "add_image", lambda _, image, __: pictures.append(image))
    visualizer.add_datasample("a", WHITE, sample, with_labels=labelled)
    return pictures[0], texts


def over_white(colour: list[int]) -> list[int]:
    return [int(255 * (1 - 0.8) + value * 0.8) for value in colour]


def test_classes_above_255_have_their_own_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    names, colours = [f"class {i}, synonym" for i in range(847)], palette(847)
    labels = torch.full((1, 40, 60), 65535)
    for row, label in enumerate((188, 700, 846)):  # 700 modulo 256 is 188
        labels[0, 10 * row : 10 * row + 10] = label
    picture, texts = paint(monkeypatch, labels, classes=names, palette=colours)
    for row, label in enumerate((188, 700, 846)):
        assert picture[10 * row + 5, 30].tolist() == over_white(colours[label])
    assert picture[35, 30].tolist() == over_white([0, 0, 0])
    assert not texts
    _, texts = paint(monkeypatch, labels, True, classes=names, palette=colours)
    assert texts == {"class 188", "class 700", "class 846"}


def test_names_of_the_background_are_painted_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    meta = PascalVOC20bDataset.METAINFO
    labels = torch.full((1, 40, 60), 255)
    for row, label in enumerate((0, 20, 37)):
        labels[0, 10 * row : 10 * row + 10] = label
    picture, _ = paint(monkeypatch, labels, **meta)
    assert picture[5, 30].tolist() == over_white(meta["palette"][0])
    for row in (15, 25, 35):
        assert picture[row, 30].tolist() == over_white([0, 0, 0])
    _, texts = paint(monkeypatch, labels, True, **meta)
    assert texts == {"aeroplane", "background"}
    assert int(labels.max()) == 255 and 37 in labels  # what the metric gets is as it was


def test_photos_of_one_name_are_stored_under_names_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored: list[str] = []
    visualizer = VocabularyVisualizer()
    visualizer.dataset_meta = {"classes": ["a"], "palette": [[1, 2, 3]]}
    monkeypatch.setattr(visualizer, "add_image", lambda name, *_: stored.append(name))
    for path in ("/d/x/a.jpg", "/d/y/a.jpg", "/e/y/a.jpg", "/d/x/a.jpg"):
        labels = torch.zeros(1, 40, 60, dtype=torch.long)
        sample = SegDataSample(pred_sem_seg=PixelData(data=labels), metainfo={"img_path": path})
        visualizer.add_datasample("test_a.jpg", WHITE, data_sample=sample, step=0)
    assert stored == ["test_a.jpg", "test_y_a.jpg", "test_e_y_a.jpg", "test_a.jpg"]


def test_predictions_are_named_as_asked_and_labels_as_in_the_data_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts: list[str] = []
    monkeypatch.setattr(cv2, "putText", lambda image, text, *_: texts.append(text) or image)
    visualizer = VocabularyVisualizer(alpha=0.8)
    visualizer.dataset_meta = {"classes": ["ground"], "palette": [[9, 9, 9]]}
    maps = [PixelData(data=torch.full((1, 40, 60), label)) for label in (0, 1)]
    sample = SegDataSample(gt_sem_seg=maps[0], pred_sem_seg=maps[1])
    sample.label_names = ["sand", "kite, toy"]
    view = WHITE.transpose(2, 0, 1).copy().transpose(1, 2, 0)  # as browse_dataset.py gives it
    visualizer.add_datasample("a", view, sample)
    assert texts == ["ground", "kite"]


def test_without_a_name_each_visualizer_is_a_new_one() -> None:
    one, other = (VocabularyVisualizer.get_instance(alpha=alpha) for alpha in (0.1, 0.2))
    assert (one.alpha, other.alpha) == (0.1, 0.2)
    assert VocabularyVisualizer.get_instance("mine") is VocabularyVisualizer.get_instance("mine")
