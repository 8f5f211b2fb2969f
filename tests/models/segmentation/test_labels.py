"""Labels that are no class of the model are refused with the file they come from."""

from __future__ import annotations

import pytest
import torch

from mmclipdis.models.segmentation.labels import check_labels


def test_classes_and_the_ignored_label_pass() -> None:
    check_labels(torch.tensor([[[0, 3, 255]]]), 4, 255, [None])
    check_labels(torch.tensor([[[0, 3, -1]]]), 4, -1, [None])


@pytest.mark.parametrize("label", [4, 255, -1])
def test_a_label_without_class_is_named_with_its_file(label: int) -> None:
    labels = torch.zeros(2, 3, 3, dtype=torch.long)
    labels[1, 2, 0] = label
    message = rf"^labels that are no class: b\.png has {label}; with 4 classes .*reduce_zero_label"
    with pytest.raises(ValueError, match=message):
        check_labels(labels, 4, 254, ["a.png", "b.png"])


def test_many_files_and_labels_give_a_short_message() -> None:
    labels = torch.arange(100).view(1, 10, 10).expand(9, -1, -1)
    with pytest.raises(ValueError, match=r"has 4, 5, 6, 7, 8 and 91 more; .*; 6 more files"):
        check_labels(labels, 4, 255, [None] * 9)
